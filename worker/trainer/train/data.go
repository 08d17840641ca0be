//go:build libtorch

package train

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"path/filepath"
	"syscall"

	"atelier/common/dataset"
	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/torchx"
)

// norm is a colour's mean and standard deviation, of values in 0..1.
type norm struct{ mean, std [3]float64 }

// scale and shift turn a byte b into (b/255 - mean)/std = b*scale + shift.
func (n norm) scale() (scale, shift []float32) {
	for c := range 3 {
		scale = append(scale, float32(1/(255*n.std[c])))
		shift = append(shift, float32(-n.mean[c]/n.std[c]))
	}
	return scale, shift
}

// measure computes a set's statistics over all pixels.
func measure(s *dataset.Set) norm {
	var sum, squares [3]uint64
	raw := s.PixelsRaw()
	for i := 0; i+2 < len(raw); i += 3 {
		for c := range 3 {
			v := uint64(raw[i+c])
			sum[c] += v
			squares[c] += v * v
		}
	}
	var n norm
	count := float64(len(raw) / 3)
	for c := range 3 {
		mean := float64(sum[c]) / count
		variance := float64(squares[c])/count - mean*mean
		n.mean[c] = mean / 255
		n.std[c] = max(math.Sqrt(max(variance, 0))/255, 1e-3) // one flat colour must not divide by zero
	}
	return n
}

// data are both image sets and how to make batches of them.
type data struct {
	train, validation *dataset.Set
	classes           []string
	skipped           int
	digest            string // of both folders and what was made of them
	norm              norm

	recipe       augment.Recipe // of training
	balanced     bool           // draws by class in place of every image once
	shards       int            // of each batch; 0 = one
	seed         uint64
	device       torchx.Device
	channelsLast bool
	scale, shift []float32
}

// openData packs both folders, or finds them packed, and maps them.
func openData(ctx context.Context, s settings.Settings, cache string, log *slog.Logger, progress func(string)) (*data, error) {
	d := &data{norm: norm{s.Mean, s.Std}}
	var listed, packed []string
	for _, part := range []struct {
		key, dir string
		set      **dataset.Set
	}{{"data.train", s.Train, &d.train}, {"data.validation", s.Validation, &d.validation}} {
		list := dataset.List
		if part.set == &d.validation {
			list = dataset.ListHeldOut
		}
		folder, err := list(part.dir)
		if err != nil {
			d.close()
			return nil, refuse(err, "%s: %w", part.key, err)
		}
		if part.set == &d.train && len(folder.Classes) == 1 {
			d.close()
			return nil, badSpec("%s: %s has one class (%s): a classifier needs two", part.key, part.dir, folder.Classes[0])
		}
		for _, note := range folder.Notes() {
			log.Warn("images", "data", part.key, "note", note)
		}
		packs := false // else this process, or another one meanwhile, has packed them already
		path, report, err := dataset.PackContext(ctx, folder, dataset.PackOptions{Size: s.ImageSize, CacheDir: cache, Workers: s.NumWorkers,
			Progress: func(done, total int) {
				if packs = packs || done < total; packs {
					progress(fmt.Sprintf("packing %s: %d of %d images", part.key, done, total))
				}
			}})
		if err != nil {
			d.close()
			return nil, packFailure(ctx, part.key, err)
		}
		for _, k := range report.Skipped {
			log.Warn(fmt.Sprintf("skipped %s: %s", filepath.Join(filepath.Base(part.dir), k.Path), k.Reason), trainerproto.LogSkipped, true)
		}
		tellTurned(log, part.dir, report.Turned)
		d.skipped += len(report.Skipped)
		if *part.set, err = dataset.OpenPack(path); err != nil {
			d.close()
			return nil, fmt.Errorf("%s: %w", part.key, err)
		}
		listed, packed = append(listed, folder.Digest()), append(packed, (*part.set).Digest())
		log.Info("images ready", "data", part.key, "images", report.Images, "skipped", len(report.Skipped), "cached", report.Cached, "seconds", report.Elapsed.Seconds())
	}
	d.digest = trial.Data(listed[0], listed[1], s.ImageSize, fmt.Sprintf("%x", sha256.Sum256([]byte(packed[0]+packed[1]))))
	d.classes = d.train.Classes()
	if err := dataset.SameClasses("data.train", d.classes, "data.validation", d.validation.Classes()); err != nil {
		d.close()
		return nil, badSpec("%w", err)
	}
	if s.Normalize == "computed" {
		d.norm = measure(d.train)
	}
	d.scale, d.shift = d.norm.scale()
	d.recipe = recipe(s)
	d.balanced = s.Sampling == "balanced"
	d.shards = s.Shards
	return d, nil
}

// tellTurned says that images are not as torchvision's ImageFolder would show
// them.
func tellTurned(log *slog.Logger, folder string, n int) {
	if n > 0 {
		log.Warn("images turned by their EXIF orientation, as viewers show them; torchvision's ImageFolder would leave them lying", "folder", folder, "images", n)
	}
}

// recipe is what the settings ask to be done to training images.
func recipe(s settings.Settings) augment.Recipe {
	if !s.Augment {
		return augment.Recipe{}
	}
	r := augment.Recipe{Flip: s.Flip, Rotation: s.Rotation,
		Jitter: augment.Jitter{Brightness: s.JitterBrightness, Contrast: s.JitterContrast, Saturation: s.JitterSaturation, Hue: s.JitterHue}}
	switch s.Crop {
	case "pad":
		r.Pad = augment.Standard(s.ImageSize).Pad
	case "resized":
		r.Resized, r.ScaleMin = true, s.CropScaleMin
	}
	if s.CutMix {
		r.CutMix = s.CutMixAlpha
	}
	return r
}

// packFailure: what the folder holds is the spec's fault, what the machine
// does is not.
func packFailure(ctx context.Context, key string, err error) error {
	var path *fs.PathError
	var errno syscall.Errno
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case dataset.Missing(err) && !errors.Is(err, fs.ErrPermission): // it went while it was read
		return refuse(err, "%s: %w", key, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.As(err, &path), errors.As(err, &errno):
		return fmt.Errorf("%s: %w", key, err)
	}
	return badSpec("%s: %w", key, err)
}

// close unmaps the packed sets; no loader may be open.
func (d *data) close() {
	for _, s := range []*dataset.Set{d.train, d.validation} {
		if s != nil {
			s.Close()
		}
	}
}

// cut divides n images into batches. A last batch of one image would leave
// batch normalisation nothing to average: it joins the one before.
func cut(n, size int) []int {
	var ends []int
	for at := size; at < n; at += size {
		ends = append(ends, at)
	}
	if len(ends) > 0 && n-ends[len(ends)-1] == 1 {
		ends = ends[:len(ends)-1]
	}
	return append(ends, n)
}
