//go:build libtorch

// Package infer carries out the six modes of inference: predictions of many
// images, their evaluation, where the model looked, what to distrust, and the
// files that say so. It refuses to train and to open models that do not say
// what they are. DESIGN.md tells how a batch flows through it.
package infer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/filename"
	"atelier/common/inference"
	"atelier/common/terminal"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/explain/chart"
	"atelier/worker/trainer/score"
	"atelier/worker/trainer/torchx"
)

// Host is where a run of inference works.
type Host struct {
	Device  torchx.Device
	Threads int
	Log     io.Writer
	// Alone: the output folder is this run's own, without an earlier one's
	// results; what needs an evaluation makes it first.
	Alone bool
	// Progress is called as images are done.
	Progress func(what string, done, total int)
}

// Result is what a run found and wrote; inference.Summary is what the trainer tells of it.
type Result struct {
	Dir        string
	Files      []string // names below Dir, without the charts of single images
	Images     int
	Skipped    int
	Suspicious int
	Charts     int
	Evaluation *score.Result // nil unless evaluated
	Seconds    float64

	Architecture string
	Figures      map[string]float64 // as inference.Summary has them
	Drawn        []string
	Notes        []string
}

// Precisions by the names that settings give them.
var Precisions = map[string]torchx.Precision{"fp32": torchx.FP32, "bf16": torchx.BF16, "fp16": torchx.FP16}

// run is one call under way.
type run struct {
	inference.Settings
	Host
	p    *Predictor
	log  *slog.Logger
	out  Result
	skip []string

	turned int // images turned as their EXIF orientation says
}

// Run carries out one mode. Errors that are the asker's are *Fault.
func Run(ctx context.Context, s inference.Settings, h Host) (*Result, error) {
	began := time.Now()
	if s.Checkpoint == "" {
		return nil, fault("model.checkpoint: name the model to ask, such as checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth")
	}
	precision := Precisions[s.Precision]
	if h.Progress == nil {
		h.Progress = func(string, int, int) {}
	}
	p, err := Open(s.Checkpoint, h.Device, precision, h.Threads, slog.New(slog.NewTextHandler(h.Log, nil)))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if s.Output == "" {
		s.Output = filepath.Join(filepath.Dir(s.Checkpoint), "results")
	}
	if err := os.MkdirAll(s.Output, 0o755); err != nil {
		return nil, fmt.Errorf("paths.output_dir: %w", err)
	}
	logFile, err := os.OpenFile(filepath.Join(s.Output, inference.LogFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("paths.output_dir: %w", err)
	}
	defer logFile.Close()
	r := &run{Settings: s, Host: h, p: p, log: slog.New(slog.NewTextHandler(io.MultiWriter(h.Log, logFile), nil)), out: Result{Dir: s.Output, Architecture: p.About.Arch, Figures: map[string]float64{}}}
	r.log.Info("inference", "mode", s.Mode, "checkpoint", s.Checkpoint, "architecture", p.About.Arch, "classes", len(p.About.Classes), "image_size", p.About.ImageSize, "device", h.Device.String())
	switch s.Mode {
	case inference.Evaluate:
		err = r.evaluate(ctx)
	case inference.ExplainSingle:
		err = r.explainSingle(ctx)
	case inference.ExplainBatch:
		err = r.explainBatch(ctx)
	case inference.ExplainWrong:
		err = r.explainWrong(ctx)
	case inference.Plain:
		err = r.plain(ctx)
	case inference.Production:
		err = r.production(ctx)
	default:
		err = fault("mode: %q is not one of %s", s.Mode, strings.Join(inference.Modes(), ", "))
	}
	r.out.Seconds = time.Since(began).Seconds()
	r.figures()
	if err != nil {
		r.log.Error("inference failed", "error", err)
		return nil, err
	}
	if r.turned > 0 {
		r.log.Info("images turned by their EXIF orientation, as in training and in viewers", "images", r.turned)
	}
	r.out.Files = append(r.out.Files, inference.LogFile)
	r.log.Info("done", "images", r.out.Images, "skipped", r.out.Skipped, "suspicious", r.out.Suspicious, "pictures", r.out.Charts, "seconds", r.out.Seconds)
	return &r.out, nil
}

// note is said at the end, once.
func (r *run) note(text string) {
	if !slices.Contains(r.out.Notes, text) {
		r.out.Notes = append(r.out.Notes, text)
		r.log.Info(text)
	}
}

// files lists the images asked for.
func (r *run) files() ([]File, []string, error) {
	files, unknown, left, err := list(r.Images, r.Extensions, r.p.About.Classes)
	if err != nil {
		return nil, nil, &Fault{err}
	}
	if text := left.String(); text != "" {
		r.log.Warn("left out of " + r.Images + ": " + text)
	}
	if r.Limit != nil && len(files) > *r.Limit {
		files = files[:*r.Limit]
	}
	return files, unknown, nil
}

// usable splits a decoded batch into what can be looked at and what cannot;
// the latter is counted and named.
func (r *run) usable(batch []loaded) (good []loaded, pixels [][]byte) {
	for _, l := range batch {
		if l.err != nil {
			r.out.Skipped++
			r.skip = append(r.skip, fmt.Sprintf("%s: %v", l.Name, l.err))
			r.log.Warn(fmt.Sprintf("skipped %s: %v", l.Name, l.err), trainerproto.LogSkipped, true)
			continue
		}
		if l.turned {
			r.turned++
		}
		good, pixels = append(good, l), append(pixels, l.pixels)
	}
	return good, pixels
}

// evaluate scores a labelled folder.
func (r *run) evaluate(ctx context.Context) error {
	files, unknown, err := r.files()
	if err != nil {
		return err
	}
	classes := r.p.About.Classes
	if len(unknown) > 0 && slices.Contains(unknown, "train") && slices.Contains(unknown, "test") {
		// The root of a split: its test images are what a model is evaluated on.
		root, test := r.Images, filepath.Join(r.Images, "test")
		r.Images = test
		if files, unknown, err = r.files(); err != nil {
			return err
		}
		r.note(fmt.Sprintf("%s is split into parts: evaluated on %s", root, test))
	}
	if len(unknown) > 0 {
		return fault("%s has folders that are not classes of the model: %s; its classes are %s", r.Images, first(unknown), first(classes))
	}
	labelled := files[:0:0]
	for _, f := range files {
		if f.True >= 0 {
			labelled = append(labelled, f)
		}
	}
	if len(labelled) == 0 {
		return fault("%s has %d images but no folder with the name of a class; evaluation needs one folder per class: %s", r.Images, len(files), first(classes))
	}
	if n := len(files) - len(labelled); n > 0 {
		r.log.Warn("images outside of class folders are left out", "images", n)
	}
	var predictions []score.Prediction
	done := 0
	for batch := range batches(ctx, labelled, r.Batch, r.p.About.ImageSize, r.Threads, false) {
		good, pixels := r.usable(batch)
		done += len(batch)
		if len(good) > 0 {
			probs, err := r.predict(pixels)
			if err != nil {
				return err
			}
			for i, l := range good {
				predictions = append(predictions, score.Prediction{Path: l.Name, True: l.True, Probs: probs[i]})
			}
		}
		r.Progress("evaluate", done, len(labelled))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.out.Images = len(predictions)
	result, err := score.Score(classes, predictions, r.tops())
	if err != nil {
		return &Fault{err}
	}
	r.out.Evaluation = result
	return r.writeEvaluation(result)
}

func (r *run) tops() []int {
	if !r.TopK {
		return nil
	}
	return r.TopKs
}

func (r *run) predict(pixels [][]byte) ([][]float64, error) {
	return inParts(r.p, pixels, func(x torchx.Tensor, from, to int) ([][]float64, error) { return r.p.e.Predict(x) })
}

// explainSingle draws one image: four panels, and where the model looks for
// each of the best classes.
func (r *run) explainSingle(ctx context.Context) error {
	if r.Image == "" {
		return fault("paths.image_path: mode explain_single needs an image: --image FILE")
	}
	f := File{Path: r.Image, Name: terminal.Line(filepath.Base(r.Image)), True: -1}
	if _, err := os.Stat(r.Image); errors.Is(err, fs.ErrNotExist) {
		return fault("paths.image_path: there is no %s%s", r.Image, nearby(r.Image))
	} else if err != nil {
		return fault("paths.image_path: %w", err)
	}
	if c := r.TrueClass; c != nil && *c != "" {
		if f.True = slices.Index(r.p.About.Classes, *c); f.True < 0 {
			return fault("explain_single_mode.true_class: %q is not a class of the model; there are %s%s", *c, first(r.p.About.Classes), meant(*c, r.p.About.Classes))
		}
	}
	l := load(f, r.p.About.ImageSize, true)
	if l.err != nil {
		return fault("paths.image_path: %s: %w", r.Image, l.err)
	}
	w := newWriter(r, writerOptions{folder: "", name: func(int, looked) string { return "gradcam_" + stem(f.Name) }})
	if err := r.look(ctx, []loaded{l}, w, 1, 1); err != nil {
		w.abandon()
		return err
	}
	r.out.Images = 1
	return w.close()
}

// explainBatch draws every image of a folder.
func (r *run) explainBatch(ctx context.Context) error {
	files, _, err := r.files()
	if err != nil {
		return err
	}
	w := newWriter(r, writerOptions{folder: "heatmaps", metadata: r.Metadata, name: numbered})
	return r.lookAll(ctx, files, w)
}

func numbered(i int, l looked) string { return fmt.Sprintf("%04d_%s", i+1, stem(l.Name)) }

// explainWrong draws the images that an earlier evaluation got wrong.
func (r *run) explainWrong(ctx context.Context) error {
	path := filepath.Join(r.Output, inference.ResultsFile)
	if _, err := os.Stat(path); r.Alone || errors.Is(err, fs.ErrNotExist) {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
		r.out.Skipped, r.skip, r.turned, r.out.Images = 0, nil, 0, 0
	}
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	doc, err := score.ReadDocument(in)
	if err != nil {
		return fault("%s: %w", path, err)
	}
	classes := r.p.About.Classes
	if !slices.Equal(doc.Classes, classes) {
		return fault("%s is of a model with other classes (%s); evaluate this checkpoint first", path, first(doc.Classes))
	}
	// Mistakes of another model would be explained with this one's maps.
	const form = "%v, epoch %v, %v px"
	about := r.p.About
	was, is := fmt.Sprintf(form, doc.Model["architecture"], doc.Model["epoch"], doc.Model["image_size"]), fmt.Sprintf(form, about.Arch, about.Epoch, about.ImageSize)
	if doc.Model["architecture"] != nil && was != is {
		return fault("%s is an evaluation of another model (%s; this one is %s): run --mode evaluate with this checkpoint first, or give another --output-dir", path, was, is)
	}
	var wrong []score.Row
	for _, row := range doc.Predictions {
		if !row.Correct {
			wrong = append(wrong, row)
		}
	}
	if r.WrongSort == inference.AtRandom {
		rng := rand.New(rand.NewPCG(r.Seed, 0x6d69737461))
		rng.Shuffle(len(wrong), func(i, k int) { wrong[i], wrong[k] = wrong[k], wrong[i] })
	} else {
		slices.SortStableFunc(wrong, func(a, b score.Row) int {
			switch {
			case a.Confidence > b.Confidence:
				return -1
			case a.Confidence < b.Confidence:
				return 1
			}
			return 0
		})
	}
	wrong = wrong[:min(len(wrong), r.WrongLimit)]
	root := r.Images
	if dir, ok := doc.Data["image_dir"].(string); ok {
		root = dir
	}
	var files []File
	var raw map[string]string // paths by name as shown
	for _, row := range wrong {
		if !filepath.IsLocal(filepath.FromSlash(row.Path)) {
			return fault("%s names an image outside of its folder: %s", path, row.Path)
		}
		at := filepath.Join(root, filepath.FromSlash(row.Path))
		if _, err := os.Lstat(at); err != nil && strings.Contains(row.Path, `\`) { // a name that was written out
			if raw == nil {
				raw = map[string]string{}
				if all, _, _, err := list(root, r.Extensions, classes); err == nil {
					for _, f := range all {
						raw[f.Name] = f.Path
					}
				}
			}
			at = cmp.Or(raw[row.Path], at)
		}
		files = append(files, File{Path: at, Name: row.Path, True: slices.Index(classes, row.True)})
	}
	if len(files) == 0 {
		r.log.Info("the evaluation has no mistakes", "images", doc.Samples)
	}
	w := newWriter(r, writerOptions{folder: "misclassifications", metadata: r.Metadata, beside: "misclassifications", name: func(i int, l looked) string {
		return filename.Cut(fmt.Sprintf("%04d_%s_as_%s_%s", i+1, stem(classes[l.True]), stem(classes[l.class]), stem(l.Name)), 200)
	}})
	return r.lookAll(ctx, files, w)
}

// plain predicts a folder and writes what the outputs section asks for.
func (r *run) plain(ctx context.Context) error {
	files, _, err := r.files()
	if err != nil {
		return err
	}
	w := newWriter(r, writerOptions{folder: "heatmaps", metadata: r.Metadata, table: r.Predictions, quality: r.Quality, report: r.Report, name: numbered})
	return r.lookAll(ctx, files, w)
}

// production is the whole: evaluation where asked for, predictions, quality
// checks, charts, metadata, report.
func (r *run) production(ctx context.Context) error {
	if r.RunEvaluation {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
		r.out.Skipped, r.skip, r.turned, r.out.Images = 0, nil, 0, 0 // they are met again
	}
	files, _, err := r.files()
	if err != nil {
		return err
	}
	w := newWriter(r, writerOptions{folder: "heatmaps", metadata: true, quality: r.RunQuality && r.Quality, report: r.Report, name: numbered})
	return r.lookAll(ctx, files, w)
}

// lookAll runs files through the model, batch by batch.
func (r *run) lookAll(ctx context.Context, files []File, w *writer) error {
	done := 0
	for batch := range batches(ctx, files, r.Batch, r.p.About.ImageSize, r.Threads, w.charts()) {
		done += len(batch)
		if err := r.look(ctx, batch, w, done, len(files)); err != nil {
			w.abandon()
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		w.abandon()
		return err
	}
	return w.close()
}

// look asks the model about one batch and hands what it says to the writer.
func (r *run) look(ctx context.Context, batch []loaded, w *writer, done, total int) error {
	good, pixels := r.usable(batch)
	defer r.Progress(r.Mode, done, total)
	if len(good) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	found, err := inParts(r.p, pixels, func(x torchx.Tensor, from, to int) ([]looked, error) { return r.ask(x, good[from:to], w) })
	if err != nil {
		return err
	}
	for i := range found {
		r.out.Images++
		if len(found[i].flags) > 0 {
			r.out.Suspicious++
		}
		if err := w.add(found[i]); err != nil {
			return err
		}
	}
	return nil
}

// shares are the best k classes by name.
func (r *run) shares(probs []float64, k int) []chart.Share {
	var out []chart.Share
	for _, c := range (score.Prediction{Probs: probs}).Top(k) {
		out = append(out, chart.Share{Class: r.p.About.Classes[c], Confidence: probs[c]})
	}
	return out
}
