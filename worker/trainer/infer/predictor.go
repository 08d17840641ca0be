//go:build libtorch

package infer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"atelier/common/checkpoint"
	"atelier/common/metadata"
	"atelier/worker/trainer/explain"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
)

// Predictor is a stored model ready to be asked. It belongs to the goroutine
// and thread that opened it.
type Predictor struct {
	About checkpoint.Model
	Path  string
	Cells metadata.MapSize // of each of its Grad-CAM maps

	m            *model.Model
	e            *explain.Explainer
	pool         *threadPool
	scale, shift []float32
}

// Fault is a mistake of whoever asked: what was given does not fit.
type Fault struct{ Err error }

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

func fault(format string, a ...any) error { return &Fault{fmt.Errorf(format, a...)} }

// Open loads a model file, a training checkpoint or a safetensors file. What
// it is, its classes, image size and normalisation come from the file. threads
// are those that the caller's operations use (torchx.SetThreads); large batches
// share them out.
func Open(path string, device torchx.Device, p torchx.Precision, threads int, log *slog.Logger) (*Predictor, error) {
	if p == torchx.FP16 && !device.CUDA() {
		return nil, fault("processing.precision: fp16 needs a GPU; on a CPU take bf16, or fp32")
	}
	state, err := checkpoint.OpenState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault("model.checkpoint: there is no %s%s", path, suggest(path))
	}
	if err != nil {
		return nil, fault("model.checkpoint: %w", err)
	}
	defer state.Close()
	about, err := state.Model()
	if err != nil {
		return nil, fault("model.checkpoint %s: %w", path, err)
	}
	for _, text := range state.Told {
		log.Warn(text, "checkpoint", path)
	}
	if missing := state.Lacks(false); len(missing) > 0 {
		return nil, fault("model.checkpoint %s does not contain its %s; take a best_model.pth of `atelier train`, or a dictionary with arch (its name) and class_to_idx (a dictionary of class names and numbers) beside the state%s",
			path, strings.Join(missing, " and "), itsNames(state, about.Arch))
	}
	if about.ImageSize == 0 {
		var config struct {
			Size int `json:"image_size"`
		}
		json.Unmarshal([]byte(about.Config), &config) // what cannot be read says nothing
		if about.ImageSize = config.Size; about.ImageSize == 0 {
			about.ImageSize = 224
			log.Warn("the checkpoint does not contain its image size; using 224", "checkpoint", path)
		}
	}
	if len(about.Mean) != 3 {
		about.Mean, about.Std = []float64{0.485, 0.456, 0.406}, []float64{0.229, 0.224, 0.225}
		log.Warn("the checkpoint does not contain its normalisation; using ImageNet's", "checkpoint", path)
	}
	m, err := model.New(about.Arch, model.Options{Classes: len(about.Classes), Dropout: -1})
	if err != nil {
		return nil, fault("model.checkpoint %s: %w", path, err)
	}
	ok := false
	defer func() {
		if !ok {
			m.Free()
		}
	}()
	if err := m.Load(state.Tensors); err != nil {
		return nil, fault("model.checkpoint %s: %w", path, err)
	}
	if err := m.Move(device, true); err != nil {
		return nil, err
	}
	e, err := explain.New(m, p)
	if err != nil {
		return nil, err
	}
	out := &Predictor{About: about, Path: path, m: m, e: e, pool: newThreadPool(threads, device)}
	for c := range 3 {
		out.scale = append(out.scale, float32(1/(255*about.Std[c])))
		out.shift = append(out.shift, float32(-about.Mean[c]/about.Std[c]))
	}
	if out.Cells, err = out.mapSize(); err != nil {
		out.pool.close()
		return nil, fmt.Errorf("model.checkpoint %s: %w", path, err)
	}
	ok = true
	return out, nil
}

// mapSize asks about one black image, so that it is known before any other is
// looked at.
func (p *Predictor) mapSize() (metadata.MapSize, error) {
	x, err := p.input([][]byte{make([]byte, p.About.ImageSize*p.About.ImageSize*3)})
	if err != nil {
		return metadata.MapSize{}, err
	}
	defer torchx.Free(x)
	return p.e.MapSize(x)
}

// itsNames says which architecture a file is likely of that does not say so.
func itsNames(state *checkpoint.State, said string) string {
	if said != "" || state.Arch == "" {
		return ""
	}
	return "; its tensors are " + state.Arch + "'s"
}

// Close gives the model's memory up.
func (p *Predictor) Close() {
	p.pool.close()
	p.m.Free()
}

// input makes the normalised batch [n, 3, size, size] of decoded images.
func (p *Predictor) input(pixels [][]byte) (torchx.Tensor, error) {
	size := p.About.ImageSize
	all := make([]byte, 0, len(pixels)*size*size*3)
	for _, x := range pixels {
		all = append(all, x...)
	}
	return torchx.Images(all, len(pixels), size, size, p.scale, p.shift, p.m.Device(), p.m.ChannelsLast())
}

// suggest names checkpoints near a path that leads nowhere.
func suggest(path string) string {
	dir := filepath.Dir(path)
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	var found []string
	looked := 0
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if looked++; err != nil || looked > 5000 || len(found) >= 20 {
			return fs.SkipAll
		}
		if ext := filepath.Ext(p); !d.IsDir() && (ext == ".pth" || ext == ".pt" || ext == ".safetensors") {
			found = append(found, p)
		}
		return nil
	})
	if len(found) == 0 {
		return fmt.Sprintf("; there is no checkpoint (.pth, .safetensors) below %s either", dir)
	}
	sort.SliceStable(found, func(i, k int) bool { return common(found[i], path) > common(found[k], path) })
	return "; did you mean " + strings.Join(found[:min(3, len(found))], ", ") + "?"
}

// common is how many letters two paths share at their ends and beginnings.
func common(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for i := 1; i <= min(len(a), len(b))-n && a[len(a)-i] == b[len(b)-i]; i++ {
		n++
	}
	return n
}
