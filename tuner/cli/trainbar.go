package cli

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"atelier/tuner/train"
)

// trainBar shows a training: on a terminal a bar that is redrawn and a line per
// epoch, elsewhere the lines alone.
type trainBar struct {
	bar
	cluster bool // its workers train, on devices of theirs
}

// Begin prints what is going to be trained, with what, and what changes it.
func (b *trainBar) Begin(p *train.Plan) {
	b.begin(b.e.Now())
	for _, n := range p.Notes {
		b.say("%s", n)
	}
	s := p.Settings
	images := ""
	if f := p.Data[0].Folder; f != nil {
		images = fmt.Sprintf(" on %s of %s", counted(len(f.Files), "image"), classesOf(len(f.Classes)))
	}
	b.say("%s %s%s", s.Model, p.Start(), images)
	schedule := ""
	if s.Schedule != "constant" {
		schedule = ", schedule " + s.Schedule
	}
	threads, device := "", "device "+p.Device
	if p.Device == "auto" {
		device += " (" + autoDevice() + ")"
	}
	if !strings.HasPrefix(p.Device, "cuda") {
		threads = ", " + counted(p.TrainerThreads(), "thread")
	}
	if n := p.Members(); n > 1 {
		threads = fmt.Sprintf(", %d members of %s", n, counted(p.TrainerThreads(), "thread"))
	}
	if b.cluster {
		device, threads = "a worker of the cluster", ""
	}
	rows := [][2]string{
		{"data", b.data(p)}, {"", "--data DIR"},
		{"epochs", fmt.Sprintf("%d, batch size %d", s.Epochs, s.BatchSize)}, {"", "--epochs N --batch-size N"},
		{"learning", fmt.Sprintf("%s, lr %.4g%s", s.Optimizer, s.LR, schedule)}, {"", "--lr RATE"},
		{"images", fmt.Sprintf("%d px", s.ImageSize)}, {"", "--set image_size=N"},
		{"start", p.Start()}, {"", "--weights NAME|FILE|none"},
		{"machine", fmt.Sprintf("%s%s, seed %d", device, threads, p.Seed)}, {"", "--set device=cpu --seed N"},
		{"results", b.e.relative(p.Folder)}, {"", "--out DIR"},
	}
	if after := p.ResumedAfter(); after > 0 {
		rows[8][1] = "resumed after epoch " + fmt.Sprint(after)
	}
	width := 0
	for i := 0; i < len(rows); i += 2 {
		if n := utf8.RuneCountInString(rows[i][1]); n < 44 {
			width = max(width, n)
		}
	}
	for i := 0; i < len(rows); i += 2 {
		line := fmt.Sprintf("  %-9s %s", rows[i][0], rows[i][1])
		// A resumed training continues with what it began with.
		if p.ResumedAfter() == 0 {
			how := "  " + rows[i+1][1]
			for _, with := range []string{fmt.Sprintf("  %-9s %-*s%s", rows[i][0], width, rows[i][1], how), line + how} {
				if !b.e.Live || utf8.RuneCountInString(with) < b.e.Width() {
					line = with
					break
				}
			}
		}
		b.say("%s", line)
	}
}

// data is where the images are, and how many are for what.
func (b *trainBar) data(p *train.Plan) string {
	var counts []string
	for _, part := range p.Data {
		if part.Folder != nil {
			counts = append(counts, fmt.Sprintf("%d %s", len(part.Folder.Files), part.Name))
		}
	}
	text := b.e.relative(p.Data[0].Dir)
	if dir := filepath.Dir(p.Data[0].Dir); len(p.Data) > 1 && filepath.Dir(p.Data[1].Dir) == dir {
		text = b.e.relative(dir)
	}
	if len(counts) > 0 {
		text += ": " + strings.Join(counts, ", ")
	}
	return text
}

func classesOf(n int) string {
	if n == 1 {
		return "1 class"
	}
	return fmt.Sprintf("%d classes", n)
}

// Progress redraws the bar. Without a terminal it is a word now and then on what
// is prepared.
func (b *trainBar) Progress(p train.Progress) {
	text := p.Message
	if p.Epoch > 0 && b.e.Live {
		n, together := 20, ""
		parts := []string{fmt.Sprintf("acc %.3f", p.Acc), "loss " + short4(p.Loss), fmt.Sprintf("%.0f images/s", p.ImagesPerS)}
		if p.Members > 1 {
			together = fmt.Sprintf(", %d members", p.Members)
			if p.Waiting > 0 {
				parts = append(parts, fmt.Sprintf("%.0f%% waiting", 100*p.Waiting))
			}
		}
		if b.e.Width() < 72 || together != "" {
			n = 10
		}
		first := fmt.Sprintf("epoch %d/%d %s %3.0f%%%s%s", p.Epoch, p.Epochs, cellsOf(p.Done, n), 100*p.Done, left(p.Left), together)
		text = b.fit(append([]string{first}, parts...)...)
	}
	b.draw(b.e.Now(), text)
}

// Members writes who of several is lost, or takes part.
func (b *trainBar) Members(text string) { b.say("%s", text) }

// Epoch writes a line that stays.
func (b *trainBar) Epoch(x train.Epoch) {
	get := func(name string) float64 { v, _ := x.Metrics.Get(name); return v }
	first := fmt.Sprintf("epoch %*d/%d  val_acc %.3f", len(fmt.Sprint(x.Epochs)), x.Epoch, x.Epochs, get("val_acc"))
	if train.Exploded(get("val_loss")) {
		first += "  diverged"
	}
	loss := "val_loss " + short4(get("val_loss"))
	if x.Best {
		loss += " *"
	}
	parts := []string{first, loss}
	if x.BestEpoch > 0 { // by the loss: its accuracy need not be the highest
		parts = append(parts, fmt.Sprintf("best epoch %d (acc %.3f)", x.BestEpoch, x.BestAcc))
	}
	b.say("%s", b.fit(append(parts, "train_acc "+fmt.Sprintf("%.3f", get("train_acc")), "train_loss "+short4(get("train_loss")),
		fmt.Sprintf("%.0f images/s", get("images_per_s"))+left(x.Left))...))
}

// fit joins parts, the most telling first, as far as a terminal's line goes:
// nothing is broken in the middle. Elsewhere it joins all.
func (b *bar) fit(parts ...string) string {
	text := parts[0]
	for _, p := range parts[1:] {
		if b.e.Live && len(text)+2+len(p) >= b.e.Width() {
			break
		}
		text += "  " + p
	}
	return text
}

// short4 is a number with four digits that count, or four decimals.
func short4(v float64) string {
	if a := math.Abs(v); a >= 0.001 && a < 10 {
		return fmt.Sprintf("%.4f", v)
	}
	return fmt.Sprintf("%.4g", v)
}
