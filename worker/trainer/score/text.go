package score

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Report is the table of scikit-learn's classification_report(digits=2), to the
// character.
func (r *Result) Report() string {
	const digits = 2
	width := max(len("weighted avg"), digits)
	for _, c := range r.Classes {
		width = max(width, utf8.RuneCountInString(c))
	}
	var b strings.Builder
	name := func(s string) { b.WriteString(strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0)) + s + " ") }
	name("")
	for _, head := range []string{"precision", "recall", "f1-score", "support"} {
		fmt.Fprintf(&b, " %9s", head)
	}
	b.WriteString("\n\n")
	row := func(label string, p, rec, f float64, support int) {
		name(label)
		fmt.Fprintf(&b, " %9.*f %9.*f %9.*f %9d\n", digits, p, digits, rec, digits, f, support)
	}
	for _, c := range r.PerClass {
		row(c.Class, c.Precision, c.Recall, c.F1, c.Support)
	}
	b.WriteString("\n")
	name("accuracy")
	fmt.Fprintf(&b, " %9s %9s %9.*f %9d\n", "", "", digits, r.Accuracy, r.Samples)
	row("macro avg", r.Macro.Precision, r.Macro.Recall, r.Macro.F1, r.Samples)
	row("weighted avg", r.Weighted.Precision, r.Weighted.Recall, r.Weighted.F1, r.Samples)
	return b.String()
}

// Summary is the evaluation for people. facts are lines about the model and the
// data, written first.
func (r *Result) Summary(facts [][2]string) string {
	var b strings.Builder
	rule := strings.Repeat("=", 78)
	fmt.Fprintf(&b, "%s\nEVALUATION\n%s\n", rule, rule)
	line := func(name string, value any) { fmt.Fprintf(&b, "%-28s %v\n", name, value) }
	for _, f := range facts {
		line(f[0], f[1])
	}
	b.WriteString("\n")
	line("images", r.Samples)
	line("recognised", r.Correct)
	line("accuracy", fmt.Sprintf("%.2f %%", 100*r.Accuracy))
	line("balanced accuracy", fmt.Sprintf("%.2f %%", 100*r.Balanced))
	for _, k := range r.tops() {
		line(fmt.Sprintf("top-%d accuracy", k), fmt.Sprintf("%.2f %%", 100*r.TopK[k]))
	}
	line("macro F1", fmt.Sprintf("%.4f", r.Macro.F1))
	line("weighted F1", fmt.Sprintf("%.4f", r.Weighted.F1))
	line("log loss", fmt.Sprintf("%.4f", r.Calibration.NLL))
	line("calibration error (ECE)", fmt.Sprintf("%.4f", r.Calibration.ECE))

	order := slices.Clone(r.PerClass)
	slices.SortStableFunc(order, func(a, b ClassScore) int {
		switch {
		case a.F1 > b.F1:
			return -1
		case a.F1 < b.F1:
			return 1
		}
		return 0
	})
	width := len("class")
	for _, c := range order {
		width = max(width, utf8.RuneCountInString(c.Class))
	}
	pad := func(s string) string { return s + strings.Repeat(" ", width-utf8.RuneCountInString(s)) }
	fmt.Fprintf(&b, "\nClasses, best first\n%s %10s %10s %10s %8s\n", pad("class"), "precision", "recall", "F1", "images")
	for _, c := range order {
		fmt.Fprintf(&b, "%s %10.4f %10.4f %10.4f %8d\n", pad(c.Class), c.Precision, c.Recall, c.F1, c.Support)
	}
	if pairs := r.Confusions(10); len(pairs) > 0 {
		b.WriteString("\nMost frequent confusions\n")
		for _, p := range pairs {
			fmt.Fprintf(&b, "%5d x  %s taken for %s\n", p.Images, p.True, p.Predicted)
		}
	}
	if wrong := r.Mistakes(); len(wrong) > 0 {
		b.WriteString("\nMost confident mistakes\n")
		for _, p := range wrong[:min(10, len(wrong))] {
			fmt.Fprintf(&b, "%6.2f %%  %s: %s taken for %s\n", 100*p.Confidence(), p.Path, r.Classes[p.True], r.Classes[p.Predicted()])
		}
	}
	return b.String()
}

func (r *Result) tops() []int {
	ks := make([]int, 0, len(r.TopK))
	for k := range r.TopK {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// Confused is a pair of classes and how many images of the one were taken for
// the other.
type Confused struct {
	True      string `json:"true_class"`
	Predicted string `json:"predicted_class"`
	Images    int    `json:"images"`
}

// Confusions lists the pairs that were confused, most frequent first, at most
// limit of them.
func (r *Result) Confusions(limit int) []Confused {
	var pairs [][2]int
	for c := range r.cells {
		if c[0] != c[1] {
			pairs = append(pairs, c)
		}
	}
	slices.SortFunc(pairs, func(a, b [2]int) int {
		return cmp.Or(r.cells[b]-r.cells[a], a[0]-b[0], a[1]-b[1])
	})
	var out []Confused
	for _, p := range pairs[:min(limit, len(pairs))] {
		out = append(out, Confused{r.Classes[p[0]], r.Classes[p[1]], r.cells[p]})
	}
	return out
}
