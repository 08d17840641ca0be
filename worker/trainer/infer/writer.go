//go:build libtorch

package infer

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"atelier/common/files"
	"atelier/common/inference"
	"atelier/common/metadata"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/explain/chart"
	"atelier/worker/trainer/torchx"
)

// looked is what was found of one image.
type looked struct {
	loaded
	class   int // predicted
	probs   []float64
	maps    []cam.Map // of the classes in top, not scaled; nil without Grad-CAM
	top     []int
	quality *metadata.Quality
	flags   []string
}

// ask predicts a batch and, where wanted, makes maps and quality figures.
func (r *run) ask(x torchx.Tensor, good []loaded, w *writer) ([]looked, error) {
	found := make([]looked, len(good))
	compare := r.Mode == inference.ExplainSingle && r.Comparison
	if !r.maps(w.quality) {
		pixels, err := r.p.e.Predict(x)
		if err != nil {
			return nil, err
		}
		for i, probs := range pixels {
			found[i] = looked{loaded: good[i], probs: probs, class: r.best(probs)}
		}
		return found, nil
	}
	looks, err := r.p.e.Explain(x, func(_ int, probs []float64) []int {
		if compare {
			return r.order(probs, min(r.GradCAMTop, 5))
		}
		return []int{r.best(probs)}
	})
	if err != nil {
		return nil, err
	}
	for i, l := range looks {
		found[i] = looked{loaded: good[i], probs: l.Probs, class: r.best(l.Probs), maps: l.Maps}
		if compare {
			found[i].top = r.order(l.Probs, min(r.GradCAMTop, 5))
		}
	}
	if !w.quality {
		return found, nil
	}
	size := r.p.About.ImageSize
	maps, classes, probs := make([]cam.Map, len(found)), make([]int, len(found)), make([][]float64, len(found))
	for i, f := range found {
		maps[i], classes[i], probs[i] = f.maps[0].Scaled().Resized(size, size), f.class, f.probs
	}
	quality, err := r.p.e.Qualities(x, maps, classes, probs)
	if err != nil {
		return nil, err
	}
	for i, q := range quality {
		m := &metadata.Quality{Full: q.Full, Only: q.Only, Hidden: q.Hidden, Concentration: q.Concentration, Coverage: q.Coverage}
		flags := r.Judge(m, r.Semantics, r.p.Cells)
		if r.Flag {
			found[i].flags = flags
		}
		found[i].quality = m
	}
	return found, nil
}

func (r *run) best(probs []float64) int { return r.order(probs, 1)[0] }

func (r *run) order(probs []float64, k int) []int { return topOf(probs, k) }

type writerOptions struct {
	folder   string // of charts, below the output folder
	name     func(i int, l looked) string
	metadata bool
	beside   string // folder of the metadata, below the output folder
	table    bool   // predictions.csv
	quality  bool
	report   bool
}

// writer turns what was found into files. Charts are drawn on goroutines of
// their own while the model works on the next batch.
type writer struct {
	writerOptions
	r    *run
	n    int
	jobs chan func() error
	wg   sync.WaitGroup
	mu   sync.Mutex
	err  error
	rows *metadata.Writer

	earlier map[string]bool // charts of an earlier run that this one has not replaced

	pending []*files.Pending
	names   []string // of the pending files, below the output folder
	csv     *csv.Writer
	tally   tally
}

func newWriter(r *run, o writerOptions) *writer {
	if note := r.p.Cells.Note(); note != "" && r.maps(o.quality) {
		r.note(note + "; nothing is flagged by it")
	}
	w := &writer{writerOptions: o, r: r, jobs: make(chan func() error, 2*r.Batch), tally: newTally(r.p.About.Classes, r.p.Cells.Coarse())}
	for range max(r.Threads, 1) {
		w.wg.Go(func() {
			for job := range w.jobs {
				if err := job(); err != nil {
					w.fail(err)
				}
			}
		})
	}
	if o.metadata {
		name := filepath.Join(o.beside, inference.MetadataFile)
		w.earlier = earlierCharts(r.Output, name)
		if f := w.open(name); f != nil {
			w.rows = metadata.NewWriter(f)
		}
	}
	if o.table {
		if f := w.open(inference.PredictionsCSV); f != nil {
			w.csv = csv.NewWriter(f)
			w.csv.Write(append([]string{"image_path", "true_class", "predicted_class", "confidence"}, shareColumns(r.p.About.Classes)...))
		}
	}
	return w
}

// open begins a file that gets its name when all is done: a run that fails
// leaves an earlier run's results as they were.
func (w *writer) open(name string) *files.Pending {
	path := filepath.Join(w.r.Output, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	var f *files.Pending
	if err == nil {
		f, err = files.Create(path, 0o644)
	}
	if err != nil {
		w.fail(err)
		return nil
	}
	w.pending, w.names = append(w.pending, f), append(w.names, name)
	return f
}

// earlierCharts are those that the metadata of an earlier run names.
func earlierCharts(dir, name string) map[string]bool {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	found := map[string]bool{}
	metadata.Query{}.Each(f, func(r metadata.Record) error { // what cannot be read names none
		if at := filepath.FromSlash(r.Heatmap); at != "" && filepath.IsLocal(at) && filepath.Ext(at) == ".png" {
			found[r.Heatmap] = true
		}
		return nil
	})
	return found
}

func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// charts reports whether any image will be drawn.
func (w *writer) charts() bool { return w.r.GradCAM && w.r.Heatmaps }

// maps reports whether Grad-CAM maps are made.
func (r *run) maps(quality bool) bool { return r.GradCAM && (r.Heatmaps || quality || r.Raw) }

// add writes one image's rows and queues its charts.
func (w *writer) add(l looked) error {
	if err := w.failed(); err != nil {
		return err
	}
	i := w.n
	w.n++
	classes := w.r.p.About.Classes
	record := metadata.Record{Image: l.Name, Predicted: classes[l.class], Confidence: l.probs[l.class], Quality: l.quality,
		Suspicious: len(l.flags) > 0, Flags: l.flags, Checkpoint: w.r.Checkpoint, Time: time.Now().UTC().Format(time.RFC3339)}
	if l.True >= 0 {
		record.True = classes[l.True]
	}
	if l.maps != nil {
		record.Map = &w.r.p.Cells
	}
	for _, s := range w.r.shares(l.probs, w.r.GradCAMTop) {
		record.Top = append(record.Top, metadata.Share{Class: s.Class, Confidence: s.Confidence})
	}
	if l.shown != nil && l.maps != nil && (!w.r.SuspiciousOnly || !w.quality || record.Suspicious) {
		record.Heatmap = filepath.ToSlash(w.draw(i, l))
		delete(w.earlier, record.Heatmap)
		w.drew(record.Heatmap)
	} else if w.r.Raw && l.maps != nil {
		w.raw(w.place(i, l), l)
	}
	w.tally.add(record)
	if w.rows != nil {
		if err := w.rows.Write(record); err != nil {
			return err
		}
	}
	if w.csv != nil {
		cells := []string{record.Image, record.True, record.Predicted, strconv.FormatFloat(record.Confidence, 'g', -1, 64)}
		cells = append(cells, shareCells(classes, l.probs)...)
		if err := w.csv.Write(cells); err != nil {
			return err
		}
	}
	return nil
}

// place is where an image's charts go, below the output folder and without
// their ending.
func (w *writer) place(i int, l looked) string {
	folder, name := w.folder, w.name(i, l)
	if len(l.flags) > 0 {
		name += "_FLAGGED"
		if w.r.SeparateDirs {
			folder = "suspicious"
		}
	}
	return filepath.Join(folder, name)
}

// draw queues an image's charts and returns the path of the first, below the
// output folder.
func (w *writer) draw(i int, l looked) string {
	place := w.place(i, l)
	classes := w.r.p.About.Classes
	subject := chart.Subject{Name: l.Name, Image: l.shown, Top: w.r.shares(l.probs, w.r.GradCAMTop),
		About: fmt.Sprintf("%s, epoch %d, %d px", w.r.p.About.Arch, w.r.p.About.Epoch, w.r.p.About.ImageSize)}
	for _, f := range l.flags {
		subject.Flags = append(subject.Flags, inference.Reason(f))
	}
	if l.True >= 0 {
		subject.True = classes[l.True]
	}
	if note := w.r.p.Cells.Note(); note != "" {
		subject.Notes = note
	} else if q := l.quality; q != nil {
		subject.Notes = fmt.Sprintf("confidence drop %.1f %%   increase %.1f %%   concentration %.2f   coverage %.2f", q.Drop, q.Increase, q.Concentration, q.Coverage)
	}
	w.jobs <- func() error {
		subject.Map = l.maps[0].Scaled().Resized(chart.Side, chart.Side)
		return chart.Save(filepath.Join(w.r.Output, place+".png"), chart.Four(subject))
	}
	if l.top != nil {
		comparison := "class_comparison_" + stem(l.Name) + ".png"
		w.jobs <- func() error {
			var shares []chart.Share
			var maps []cam.Map
			for k, c := range l.top {
				shares = append(shares, chart.Share{Class: classes[c], Confidence: l.probs[c]})
				maps = append(maps, l.maps[k].Scaled().Resized(chart.Side, chart.Side))
			}
			return chart.Save(filepath.Join(w.r.Output, comparison), chart.Compare(subject, shares, maps))
		}
		w.drew(comparison)
	}
	if w.r.Raw {
		w.raw(place, l)
	}
	return place + ".png"
}

// drew counts a chart and names it, unless many were named already.
func (w *writer) drew(path string) {
	w.r.out.Charts++
	if len(w.r.out.Drawn) < inference.MaxDrawn {
		w.r.out.Drawn = append(w.r.out.Drawn, path)
	}
}

// raw queues the scaled map at the model's input size as .npy.
func (w *writer) raw(place string, l looked) {
	size := w.r.p.About.ImageSize
	w.jobs <- func() error {
		path := filepath.Join(w.r.Output, place+".npy")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		return errors.Join(l.maps[0].Scaled().Resized(size, size).WriteNPY(f), f.Close())
	}
}

// drain waits for the charts.
func (w *writer) drain() {
	close(w.jobs)
	w.wg.Wait()
}

// abandon ends a run that failed.
func (w *writer) abandon() {
	w.drain()
	for _, f := range w.pending {
		f.Abort()
	}
}

// close waits for the charts and puts the files under their names.
func (w *writer) close() error {
	w.drain()
	w.tally.into(w.r.out.Figures)
	if w.rows != nil {
		if err := w.rows.Flush(); err != nil {
			w.fail(err)
		}
	}
	if w.csv != nil {
		w.csv.Flush()
		if err := w.csv.Error(); err != nil {
			w.fail(err)
		}
	}
	for i, f := range w.pending {
		if w.failed() == nil {
			if err := f.CommitUnsynced(); err != nil {
				w.fail(err)
			}
		}
		f.Abort()
		w.r.out.Files = append(w.r.out.Files, filepath.ToSlash(w.names[i]))
	}
	if err := w.failed(); err != nil {
		return fmt.Errorf("write results to %s: %w", w.r.Output, err)
	}
	// The metadata names them no more: a chart that is flagged now would stand
	// in heatmaps/ as well.
	for name := range w.earlier {
		path := filepath.Join(w.r.Output, filepath.FromSlash(name))
		os.Remove(path)
		os.Remove(strings.TrimSuffix(path, ".png") + ".npy")
	}
	if w.report {
		if err := files.WriteUnsynced(filepath.Join(w.r.Output, inference.ReportFile), []byte(w.tally.report(w.r)), 0o644); err != nil {
			return err
		}
		w.r.out.Files = append(w.r.out.Files, inference.ReportFile)
	}
	return nil
}
