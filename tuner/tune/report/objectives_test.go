package report_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/trial"
	"atelier/tuner/tune/report"
)

// A sweep of two objectives shows both in every chart of the objective, and the
// Pareto front, whose trials no other improves upon.
func TestEveryObjectiveIsShown(t *testing.T) {
	dir := t.TempDir()
	s := cases()["two-objectives"].sweep
	for i := range s.Trials { // with what a trainer reports beside them
		for k := range s.Trials[i].Curve {
			e := &s.Trials[i].Curve[k]
			e.Metrics = append(e.Metrics, trial.Metric{Name: "train_acc", Value: 0.5}, trial.Metric{Name: "accuracy_of_5", Value: 0.9})
		}
	}
	if _, err := report.Write(dir, s, report.Options{}); err != nil {
		t.Fatal(err)
	}
	svg := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, name := range []string{"optimization_history", "value_distribution", "parameter_importance", "pairwise_heatmaps", "contour", "rank_plot", "parallel_coordinates", "slice_plots", "learning_curves", "pareto_front"} {
		for _, metric := range []string{"val_loss", "images_per_s"} {
			if !strings.Contains(svg(name), metric) {
				t.Errorf("%s does not show %s", name, metric)
			}
		}
	}
	// By hand: a trial is on the front if none has a loss as low and a rate as high, one of them better.
	at := func(x *report.Trial) (loss, rate float64) {
		rate, _ = x.Curve[x.ValueEpoch-1].Metrics.Get("images_per_s")
		return x.Value, rate
	}
	front := 0
	for i := range s.Trials {
		loss, rate := at(&s.Trials[i])
		if !slices.ContainsFunc(s.Trials, func(x report.Trial) bool {
			l, r := at(&x)
			return l <= loss && r >= rate && (l < loss || r > rate)
		}) {
			front++
		}
	}
	if want := fmt.Sprintf("Pareto front, %d of 40 trials", front); front < 2 || !strings.Contains(svg("pareto_front"), want) {
		t.Errorf("the chart does not say %q", want)
	}
	// Of a sweep with one objective there is none, and an earlier one is removed.
	one := *s
	one.Objectives = one.Objectives[:1]
	w, err := report.Write(dir, &one, report.Options{})
	if err != nil || slices.Contains(w.Files, "pareto_front.png") {
		t.Fatal(w, err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "pareto_front.*")); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
}
