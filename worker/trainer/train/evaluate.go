//go:build libtorch

package train

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"

	"atelier/common/checkpoint"
	"atelier/common/dataset"
	"atelier/common/settings"
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
	Checkpoint string // of this trainer: it knows its architecture, classes, image size and statistics
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

func (e Evaluation) measure(ctx context.Context, log *slog.Logger) (result Measured, err error) {
	file, err := checkpoint.Open(e.Checkpoint)
	if err != nil {
		return result, badSpec("%w", err)
	}
	defer file.Close()
	stored, err := describe(file.Root)
	if err != nil {
		return result, badSpec("%s: %w", e.Checkpoint, err)
	}
	if e.Threads < 1 {
		e.Threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(e.Threads); err != nil {
		return result, err
	}
	d := &data{classes: stored.classes, channelsLast: true}
	defer d.close()
	if d.device, err = device(e.Device); err != nil {
		return result, err
	}
	d.scale, d.shift = stored.norm.scale()
	folder, err := dataset.List(e.Folder)
	if err != nil {
		return result, badSpec("%w", err)
	}
	if err := dataset.SameClasses("the model", stored.classes, e.Folder, folder.Classes); err != nil {
		return result, badSpec("%w", err)
	}
	path, report, err := dataset.PackContext(ctx, folder, dataset.PackOptions{Size: stored.size, CacheDir: e.CacheDir, Workers: e.NumWorkers})
	if err != nil {
		return result, packFailure(ctx, e.Folder, err)
	}
	for _, k := range report.Skipped {
		log.Warn("image skipped", "folder", e.Folder, "file", k.Path, "reason", k.Reason)
	}
	if d.validation, err = dataset.OpenPack(path); err != nil {
		return result, err
	}
	m, err := model.New(stored.arch, model.Options{Classes: len(stored.classes), Dropout: stored.dropout})
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
	for _, c := range stored.classes {
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
		n := len(stored.classes)
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

// stored is what a checkpoint tells of its model.
type stored struct {
	arch    string
	classes []string
	size    int
	dropout float64
	norm    norm
	weights []checkpoint.Tensor
}

func describe(v checkpoint.Value) (s stored, err error) {
	root, _ := v.(*checkpoint.Dict)
	own, _ := checkpoint.Lookup[*checkpoint.Dict](root, "atelier")
	config, _ := checkpoint.Lookup[*checkpoint.Dict](root, "config")
	size, _ := checkpoint.Lookup[int64](config, "image_size")
	s.arch, _ = checkpoint.Lookup[string](root, "arch")
	if s.arch == "" || own == nil || size < 1 {
		return s, errors.New("it does not say of which architecture and image size it is: it was not written by this trainer")
	}
	s.size, s.dropout = int(size), -1
	if rate, ok := number(config, "dropout_rate"); ok {
		s.dropout = rate
	}
	if s.classes, err = classNames(root); err != nil {
		return s, err
	}
	s.norm = norm{settings.ImageNetMean, settings.ImageNetStd}
	for name, at := range map[string]*[3]float64{"mean": &s.norm.mean, "std": &s.norm.std} {
		list, ok := checkpoint.Lookup[*checkpoint.List](own, name)
		if !ok || len(list.Items) != 3 {
			return s, fmt.Errorf("its %s of colours is missing", name)
		}
		for i, x := range list.Items {
			if at[i], ok = x.(float64); !ok {
				return s, fmt.Errorf("its %s of colours is damaged", name)
			}
		}
	}
	s.weights, err = checkpoint.StateDict(root)
	return s, err
}

// number reads a Python int or float.
func number(d *checkpoint.Dict, key string) (float64, bool) {
	if x, ok := checkpoint.Lookup[float64](d, key); ok {
		return x, true
	}
	n, ok := checkpoint.Lookup[int64](d, key)
	return float64(n), ok
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
