package train

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// diagnostics is training_diagnostics.txt: for people.
func (r *Result) diagnostics(now time.Time) []byte {
	h, p := r.History, r.Plan
	var b bytes.Buffer
	head := func(text string) {
		fmt.Fprintf(&b, "\n%s\n%s\n", text, strings.Repeat("-", utf8.RuneCountInString(text)))
	}
	fmt.Fprintf(&b, "TRAINING DIAGNOSTICS\n====================\n")

	head("Result")
	facts := []fact{{"status", h.Status}}
	if h.Message != "" {
		facts = append(facts, fact{"message", h.Message})
	}
	facts = append(facts, fact{"model", p.Settings.Model + ", " + p.Start()}, fact{"epochs", fmt.Sprintf("%d of %d", h.last(), p.Settings.Epochs)})
	if at := h.at(h.BestEpoch); at >= 0 {
		facts = append(facts, fact{"best epoch", fmt.Sprintf("%d (val_loss %.6g, val_acc %.4f, train_loss %.6g, train_acc %.4f)",
			h.BestEpoch, h.BestValLoss, h.BestValAcc, h.TrainLoss[at], h.TrainAcc[at])})
		end := len(h.Epochs) - 1
		facts = append(facts, fact{"last epoch", fmt.Sprintf("%d (val_loss %.6g, val_acc %.4f, train_loss %.6g, train_acc %.4f)",
			h.last(), h.ValLoss[end], h.ValAcc[end], h.TrainLoss[end], h.TrainAcc[end])})
	}
	if h.TestImages > 0 {
		facts = append(facts, fact{"test", fmt.Sprintf("accuracy %.4f, loss %.6g, of the best model on %d images", h.TestAcc, h.TestLoss, h.TestImages)})
	}
	write(&b, facts)

	head("Runtime")
	facts = []fact{{"started", time.UnixMilli(h.Started).UTC().Format(time.RFC3339)}, {"ended", now.UTC().Format(time.RFC3339)},
		{"seconds", fmt.Sprintf("%.1f", h.Runtime)}}
	if r.SessionSeconds < h.Runtime-0.05 {
		facts = append(facts, fact{"this session", fmt.Sprintf("%.1f seconds, resumed after epoch %d", r.SessionSeconds, p.resumeEpoch)})
	}
	if n := len(h.Epochs); n > 0 {
		facts = append(facts, fact{"per epoch", fmt.Sprintf("%.2f seconds, median", median(h.Seconds))},
			fact{"images per s", fmt.Sprintf("%.1f in training, median of epochs", median(h.ImagesPerS))})
	}
	write(&b, facts)

	head("Data")
	r.data(&b)

	head("Machine")
	if r.Sweep != "" {
		write(&b, []fact{{"sweep", r.Sweep}, {"workers", strings.Join(r.Workers, ", ")}})
		fmt.Fprintf(&b, "Submitted from:\n")
	}
	if p := r.pace; p != nil {
		write(&b, []fact{{"step", fmt.Sprintf("%.3g s, of which a member waits for others %.0f %%; member %d computes longest, %.0f %% above the mean", p.Step, 100*p.Waiting, p.Slowest, 100*p.Lag)}})
	}
	write(&b, r.machine)

	if len(r.changes) > 0 {
		head("Members (UTC)")
		write(&b, r.changes)
	}

	head("Configuration (value, and where it comes from)")
	var rows [][]string
	for _, v := range p.Config.All() {
		rows = append(rows, []string{v.Key, v.Text(), "(" + v.Source() + ")"})
	}
	columns(&b, rows)

	if hints := r.hints(); len(hints) > 0 {
		head("Hints")
		for _, x := range hints {
			fmt.Fprintf(&b, "- %s\n", x)
		}
	}
	if warned := r.Warnings(); len(warned) > 0 {
		head("Warnings")
		for _, w := range warned {
			fmt.Fprintf(&b, "- %s\n", w)
		}
	}
	return b.Bytes()
}

// data is a table of images a class.
func (r *Result) data(b *bytes.Buffer) {
	p := r.Plan
	var classes []string
	rows := [][]string{{"class"}}
	for _, part := range p.Data {
		fmt.Fprintf(b, "%-12s %s\n", part.Name, part.Dir)
		if part.Folder != nil {
			rows[0] = append(rows[0], part.Name)
			classes = part.Folder.Classes
		}
	}
	if classes == nil {
		return
	}
	test := len(r.History.TestClasses) > 0
	if test {
		rows[0] = append(rows[0], "test accuracy")
	}
	total := []string{"all"}
	for i, c := range classes {
		row := []string{c}
		for _, part := range p.Data {
			if part.Folder != nil {
				row = append(row, fmt.Sprint(part.Folder.Counts()[i]))
			}
		}
		if test {
			row = append(row, fmt.Sprintf("%.4f", float64(r.History.TestClasses[c])))
		}
		rows = append(rows, row)
	}
	for _, part := range p.Data {
		if part.Folder != nil {
			total = append(total, fmt.Sprint(len(part.Folder.Files)))
		}
	}
	if test {
		total = append(total, fmt.Sprintf("%.4f", float64(r.History.TestAcc)))
	}
	b.WriteByte('\n')
	columns(b, append(rows, total))
}

func write(b *bytes.Buffer, facts []fact) {
	for _, f := range facts {
		fmt.Fprintf(b, "%-12s %s\n", f.name, f.text)
	}
}

// columns sets rows in columns two spaces apart.
func columns(b *bytes.Buffer, rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range rows {
		for i, c := range r {
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
			}
		}
		b.WriteByte('\n')
	}
}

func median(v []Number) float64 {
	if len(v) == 0 {
		return nan
	}
	s := slices.Clone(v)
	slices.Sort(s)
	return float64(s[len(s)/2]+s[(len(s)-1)/2]) / 2
}
