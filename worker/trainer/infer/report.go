//go:build libtorch

package infer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/files"
	"atelier/common/inference"
	"atelier/common/metadata"
	"atelier/common/plot"
	"atelier/worker/trainer/score"
)

func topOf(probs []float64, k int) []int { return score.Prediction{Probs: probs}.Top(k) }

// tally adds up what the report says.
type tally struct {
	classes             []string
	images, known, hits int
	suspicious          int
	confidence          float64
	low                 int // below 0.5
	predicted           map[string]int
	flags               map[string]int
	drop, increase      float64
	gini, coverage      float64
	measured            int
	coarse              bool              // the maps are too coarse: their figures mean nothing
	worst               []metadata.Record // suspicious ones, least confident drop first
}

func newTally(classes []string, coarse bool) tally {
	return tally{classes: classes, coarse: coarse, predicted: map[string]int{}, flags: map[string]int{}}
}

const worstListed = 20

func (t *tally) add(r metadata.Record) {
	t.images++
	t.confidence += r.Confidence
	t.predicted[r.Predicted]++
	if r.Confidence < 0.5 {
		t.low++
	}
	if r.True != "" {
		t.known++
		if r.True == r.Predicted {
			t.hits++
		}
	}
	for _, f := range r.Flags {
		t.flags[f]++
	}
	if q := r.Quality; q != nil {
		t.measured++
		t.drop += q.Drop
		t.increase += q.Increase
		t.gini += q.Concentration
		t.coverage += q.Coverage
	}
	if r.Suspicious {
		t.suspicious++
		t.worst = append(t.worst, r)
		slices.SortStableFunc(t.worst, func(a, b metadata.Record) int { return len(b.Flags) - len(a.Flags) })
		t.worst = t.worst[:min(len(t.worst), worstListed)]
	}
}

// into adds what was found to an outcome's figures.
func (t *tally) into(f map[string]float64) {
	if t.images > 0 {
		f["mean_confidence"] = t.confidence / float64(t.images)
	}
	if t.known > 0 {
		f["recognised_share"] = float64(t.hits) / float64(t.known)
	}
	if n := float64(t.measured); n > 0 && !t.coarse {
		f["flagged_share"] = float64(t.suspicious) / float64(t.images)
		f["mean_confidence_drop"], f["mean_confidence_increase"] = t.drop/n, t.increase/n
		f["mean_concentration"], f["mean_coverage"] = t.gini/n, t.coverage/n
	}
}

// figures adds the evaluation's to those of the tally, and the counts.
func (r *run) figures() {
	f := r.out.Figures
	for name, n := range map[string]int{"images": r.out.Images, "skipped": r.out.Skipped, "suspicious": r.out.Suspicious, "pictures": r.out.Charts} {
		f[name] = float64(n)
	}
	f["seconds"] = r.out.Seconds
	e := r.out.Evaluation
	if e == nil {
		return
	}
	f["accuracy"], f["balanced_accuracy"] = e.Accuracy, e.Balanced
	f["macro_precision"], f["macro_recall"], f["macro_f1"] = e.Macro.Precision, e.Macro.Recall, e.Macro.F1
	f["weighted_precision"], f["weighted_recall"], f["weighted_f1"] = e.Weighted.Precision, e.Weighted.Recall, e.Weighted.F1
	f["calibration_error"], f["log_loss"] = e.Calibration.ECE, e.Calibration.NLL
	for k, v := range e.TopK {
		f[fmt.Sprintf("top_%d_accuracy", k)] = v
	}
}

// report is inference_report.txt.
func (t *tally) report(r *run) string {
	var b strings.Builder
	rule := strings.Repeat("=", 78)
	line := func(name string, format string, a ...any) {
		fmt.Fprintf(&b, "%-28s %s\n", name, fmt.Sprintf(format, a...))
	}
	share := func(n, of int) string {
		if of == 0 {
			return "none"
		}
		return fmt.Sprintf("%d of %d, %.1f %%", n, of, 100*float64(n)/float64(of))
	}
	fmt.Fprintf(&b, "%s\nINFERENCE REPORT\n%s\n", rule, rule)
	line("mode", "%s", r.Mode)
	line("checkpoint", "%s", r.Checkpoint)
	line("architecture", "%s, %d classes, %d px", r.p.About.Arch, len(t.classes), r.p.About.ImageSize)
	line("images", "%s", r.Images)
	line("time", "%s", time.Now().UTC().Format(time.RFC3339))
	b.WriteString("\n")
	line("images looked at", "%d", t.images)
	line("skipped", "%d", r.out.Skipped)
	if t.known > 0 {
		line("recognised", "%s (of images whose folder names their class)", share(t.hits, t.known))
	}
	if t.images > 0 {
		line("mean confidence", "%.1f %%", 100*t.confidence/float64(t.images))
		line("confidence below 50 %", "%s", share(t.low, t.images))
	}
	b.WriteString("\nPredicted classes\n")
	for _, c := range t.classes {
		if n := t.predicted[c]; n > 0 {
			fmt.Fprintf(&b, "%8d  %s\n", n, c)
		}
	}
	if note := r.p.Cells.Note(); note != "" && t.measured > 0 {
		fmt.Fprintf(&b, "\nQuality\n  %s.\n  Nothing is judged by its maps: no prediction is flagged.\n", note)
	} else if t.measured > 0 {
		n := float64(t.measured)
		fmt.Fprintf(&b, "\nQuality (%s semantics)\n", r.Semantics)
		for _, f := range inference.Formulas(r.Semantics) {
			fmt.Fprintf(&b, "  %s\n", f)
		}
		line("mean confidence drop", "%.1f %%", t.drop/n)
		line("mean confidence increase", "%.1f %%", t.increase/n)
		line("mean concentration", "%.3f", t.gini/n)
		line("mean coverage", "%.3f", t.coverage/n)
		line("suspicious", "%s", share(t.suspicious, t.images))
		for _, f := range []struct {
			name, rule string
			value      float64
		}{{"low_confidence_drop", "drop below %v %%", r.MinDrop}, {"high_average_drop", "drop above %v %%", r.MaxDrop}, {"low_concentration", "concentration below %v", r.MinConcentration},
			{"high_coverage", "coverage above %v", r.MaxCoverage}, {"low_coverage", "coverage below %v", r.MinCoverage}} {
			if k := t.flags[f.name]; k > 0 {
				fmt.Fprintf(&b, "%8d  %s: %s (%s)\n", k, f.name, inference.Reason(f.name), fmt.Sprintf(f.rule, f.value))
			}
		}
		if 2*t.suspicious > t.images && t.images >= 10 {
			b.WriteString("\nMore than half of the predictions are flagged. If the images look right, ease quality_metrics.thresholds\n(min_confidence_drop, min_concentration).\n")
		}
	}
	if len(t.worst) > 0 {
		b.WriteString("\nMost flagged\n")
		for _, w := range t.worst {
			fmt.Fprintf(&b, "  %s: %s, %.1f %%, %s\n", w.Image, w.Predicted, 100*w.Confidence, strings.Join(w.Flags, " "))
		}
	}
	if len(r.skip) > 0 {
		b.WriteString("\nSkipped images\n")
		for _, s := range r.skip[:min(len(r.skip), 100)] {
			fmt.Fprintf(&b, "  %s\n", s)
		}
	}
	return b.String()
}

// writeEvaluation writes the evaluation's files.
func (r *run) writeEvaluation(result *score.Result) error {
	about := r.p.About
	model := map[string]any{"checkpoint": r.Checkpoint, "architecture": about.Arch, "image_size": about.ImageSize, "epoch": about.Epoch, "map_cells": r.p.Cells}
	note := r.p.Cells.Note()
	if note != "" {
		model["map_note"] = note
	}
	data := map[string]any{"image_dir": r.Images, "images": result.Samples, "skipped": r.out.Skipped}
	doc := result.Document(model, data)
	if !r.PerClass {
		doc.PerClass = nil
	}
	if !r.Confusion {
		doc.Confusion = nil
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("evaluation results: %w", err)
	}
	facts := [][2]string{{"checkpoint", r.Checkpoint}, {"architecture", fmt.Sprintf("%s, epoch %d, %d px", about.Arch, about.Epoch, about.ImageSize)}, {"images in", r.Images}, {"skipped", fmt.Sprint(r.out.Skipped)}}
	if note != "" {
		facts = append(facts, [2]string{"Grad-CAM", note})
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{{inference.ResultsFile, append(b, '\n')}, {"evaluation_summary.txt", []byte(result.Summary(facts))}, {"classification_report.txt", []byte(result.Report())}} {
		if err := files.WriteUnsynced(filepath.Join(r.Output, f.name), f.b, 0o644); err != nil {
			return err
		}
		r.out.Files = append(r.out.Files, f.name)
	}
	charts, err := result.WriteCharts(r.Output, r.history(), plot.About{Model: fmt.Sprintf("%s, epoch %d, %d px", about.Arch, about.Epoch, about.ImageSize),
		Data: filepath.Base(filepath.Dir(r.Images)) + "/" + filepath.Base(r.Images), When: time.Now()})
	r.out.Files = append(r.out.Files, charts...)
	return err
}

// history is the training's, where its folder is the checkpoint's.
func (r *run) history() *score.History {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(r.Checkpoint), "training_history.json"))
	if err != nil {
		return nil
	}
	var h score.History
	if err := json.Unmarshal(b, &h); err != nil || len(h.TrainLoss) == 0 {
		r.log.Warn("training_history.json beside the checkpoint cannot be read; train_history.png is left out", "error", err)
		return nil
	}
	return &h
}
