//go:build libtorch

package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"strings"

	"atelier/common/checkpoint"
	"atelier/common/dataset"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// Measured is how a stored model does on a folder of images.
type Measured struct {
	Images   int          `json:"images"`
	Skipped  int          `json:"skipped"` // that could not be read
	Loss     float64      `json:"loss"`    // mean cross entropy
	Accuracy float64      `json:"accuracy"`
	Classes  []ClassCount `json:"classes"`
}

// ClassCount is one class of a measured folder.
type ClassCount struct {
	Name    string `json:"name"`
	Images  int    `json:"images"`
	Correct int    `json:"correct"`
}

// Evaluation says what Evaluate measures.
type Evaluation struct {
	Checkpoint string // training checkpoint or model file: it says what it is
	Folder     string // images, one subfolder a class
	CacheDir   string // of packed sets
	Device     string // as in a job
	Threads    int    // of the CPU; 0 = all cores
	BatchSize  int
	NumWorkers int // images decoded at a time; 0 = one a core
}

// Evaluate measures a stored model, in evaluation mode and without
// augmentation.
func Evaluate(ctx context.Context, e Evaluation, log *slog.Logger) (Measured, error) {
	var result Measured
	err := torchx.Catch(func() (err error) {
		result, err = e.measure(ctx, log)
		return err
	})
	return result, Classify(err)
}

// measure asks the checkpoint itself for architecture, classes and normalisation: nothing that the
// caller could get wrong.
func (e Evaluation) measure(ctx context.Context, log *slog.Logger) (result Measured, err error) {
	state, err := checkpoint.OpenState(e.Checkpoint)
	if err != nil {
		return result, badSpec("%w", err)
	}
	defer state.Close()
	for _, text := range state.Told {
		log.Warn(text, "from", e.Checkpoint)
	}
	stored, err := describe(state)
	if err != nil {
		return result, badSpec("%s: %w", e.Checkpoint, err)
	}
	if e.Threads < 1 {
		e.Threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(e.Threads); err != nil {
		return result, err
	}
	d := &data{classes: stored.Classes, channelsLast: true}
	defer d.close()
	if d.device, err = device(e.Device); err != nil {
		return result, err
	}
	d.scale, d.shift = stored.norm.scale()
	folder, err := dataset.ListHeldOut(e.Folder)
	if err != nil {
		return result, badSpec("%w", err)
	}
	if err := dataset.SameClasses("the model", stored.Classes, e.Folder, folder.Classes); err != nil {
		return result, badSpec("%w", err)
	}
	path, report, err := dataset.PackContext(ctx, folder, dataset.PackOptions{Size: stored.ImageSize, CacheDir: e.CacheDir, Workers: e.NumWorkers})
	if err != nil {
		return result, packFailure(ctx, e.Folder, err)
	}
	for _, k := range report.Skipped {
		log.Warn(fmt.Sprintf("skipped %s: %s", filepath.Join(filepath.Base(e.Folder), k.Path), k.Reason), trainerproto.LogSkipped, true)
	}
	tellTurned(log, e.Folder, report.Turned)
	if d.validation, err = dataset.OpenPack(path); err != nil {
		return result, err
	}
	m, err := model.New(stored.Arch, model.Options{Classes: len(stored.Classes), Dropout: stored.dropout})
	if err != nil {
		return result, err
	}
	defer m.Free()
	if err := m.Load(stored.weights); err != nil {
		return result, badSpec("%s: %w", e.Checkpoint, err)
	}
	if err := m.Move(d.device, true); err != nil {
		return result, err
	}
	result.Skipped = len(report.Skipped)
	for _, c := range stored.Classes {
		result.Classes = append(result.Classes, ClassCount{Name: c})
	}
	f := d.whole(d.validation, max(e.BatchSize, 1))
	defer f.close()
	for range f.len() {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		from := result.Images
		b, err := f.next()
		if err != nil {
			return result, err
		}
		logits, err := answer(m, b.x)
		b.free()
		if err != nil {
			return result, err
		}
		n := len(stored.Classes)
		for i := range len(logits) / n {
			result.count(logits[i*n:(i+1)*n], d.validation.Label(f.order[from+i]))
		}
	}
	result.Loss /= float64(result.Images)
	result.Accuracy /= float64(result.Images)
	return result, nil
}

// answer is a batch's logits, row by row.
func answer(m *model.Model, x torchx.Tensor) (logits []float32, err error) {
	err = torchx.NoGrad(func() error {
		p := &nn.Pass{}
		defer p.Close()
		logits, err = torchx.Floats(m.Forward(p, x))
		return err
	})
	return logits, err
}

// count adds one image; loss and accuracy are sums until the end.
func (m *Measured) count(logits []float32, label int) {
	best, most := 0, float64(logits[0])
	for i, v := range logits {
		if float64(v) > most {
			best, most = i, float64(v)
		}
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - most)
	}
	m.Images++
	m.Classes[label].Images++
	m.Loss += math.Log(sum) + most - float64(logits[label])
	if best == label {
		m.Accuracy++
		m.Classes[label].Correct++
	}
}

// stored is a model in a file.
type stored struct {
	checkpoint.Model
	dropout float64 // in the classifier; negative = the architecture's own
	norm    norm
	weights []checkpoint.Tensor
}

func describe(state *checkpoint.State) (s stored, err error) {
	if s.Model, err = state.Model(); err != nil {
		return s, err
	}
	if missing := state.Lacks(true); len(missing) > 0 {
		return s, fmt.Errorf("it does not contain its %s: it was not written by this trainer; add that to its dictionary in Python, or measure it with atelier infer, which takes ImageNet's image size and statistics where a file has none", strings.Join(missing, ", "))
	}
	s.norm = norm{[3]float64(s.Mean), [3]float64(s.Std)}
	s.weights = state.Tensors
	config := struct {
		Dropout float64 `json:"dropout_rate"`
	}{-1}
	if s.Config != "" {
		err = json.Unmarshal([]byte(s.Config), &config)
	}
	s.dropout = config.Dropout
	return s, err
}

// classNames are class_to_idx's, by index.
func classNames(root *checkpoint.Dict) ([]string, error) {
	classes, _ := checkpoint.Lookup[*checkpoint.Dict](root, "class_to_idx")
	names := make([]string, classes.Len())
	for _, it := range classes.Items() {
		name, ok := it.Key.(string)
		at, ok2 := it.Value.(int64)
		if !ok || !ok2 || at < 0 || at >= int64(len(names)) {
			return nil, errors.New("class_to_idx is damaged")
		}
		names[at] = name
	}
	return names, nil
}
