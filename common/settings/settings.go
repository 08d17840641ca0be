// Package settings reads what a run is told to do: the sweep's training
// settings with the trial's parameters laid over them. The trainer obeys them,
// `atelier train` writes them.
//
// It refuses unknown keys (naming the nearest known one), values of the wrong
// type and values out of range, all faults at once. It needs no libtorch, so
// that a spec can be checked anywhere.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/kernels"
	"atelier/common/nearest"
)

// Settings of a training run. Fractions are in 0..1.
type Settings struct {
	Model     string  `json:"model"`
	Epochs    int     `json:"epochs"`
	BatchSize int     `json:"batch_size"`
	LR        float64 `json:"lr"`

	Optimizer   string  `json:"optimizer"` // sgd, adam, adamw, rmsprop
	Momentum    float64 `json:"momentum"`  // of sgd (0.9 unless given) and rmsprop (0 unless given)
	Nesterov    bool    `json:"nesterov"`  // of sgd
	WeightDecay float64 `json:"weight_decay"`

	Schedule     string  `json:"schedule"`      // of lr: constant, step, cosine, plateau
	WarmupEpochs float64 `json:"warmup_epochs"` // linear rise to lr; the schedule counts from its end
	StepEpochs   int     `json:"step_epochs"`   // step: epochs between drops; plateau: epochs without a better objective before one
	Gamma        float64 `json:"gamma"`         // factor of a drop
	MinLR        float64 `json:"min_lr"`        // no drop goes below; where cosine ends

	LabelSmoothing float64 `json:"label_smoothing"`
	ClassWeights   string  `json:"class_weights"` // none; balanced: images / (classes * images of the class)
	ClipNorm       float64 `json:"clip_norm"`     // largest norm of all gradients together; 0 = any
	Accumulate     int     `json:"accumulate"`    // batches that make one update
	EMADecay       float64 `json:"ema_decay"`     // of averaged weights, each update; 0 = none
	FreezeFeatures bool    `json:"freeze_features"`
	Weights        string  `json:"weights"` // .pth file to start from; "" = drawn

	// Patience is how many epochs in a row may pass without a better
	// objective before the run ends by itself; 0 = never.
	Patience int `json:"patience"`

	ImageSize int    `json:"image_size"` // side of the square, pixels
	Augment   bool   `json:"augment"`    // false: images as they are, whatever augmentation.* says
	Normalize string `json:"normalize"`  // given: by Mean and Std; computed: by the training set's; imagenet: by ImageNet's

	DropoutRate float64 `json:"dropout_rate"` // before the head; negative = the architecture's own
	Layout      string  `json:"layout"`       // auto, channels_last, default
	Precision   string  `json:"precision"`    // fp32, bf16, fp16 (on a GPU)

	// Kernels of our own that are on (common/kernels); "" = all, unless the
	// trainer's environment says otherwise.
	Kernels string `json:"kernels,omitempty"`

	Crop             string  `json:"augmentation.crop"`           // none, pad (and crop back), resized (random area and shape)
	CropScaleMin     float64 `json:"augmentation.crop_scale_min"` // of resized: least share of the area
	Flip             bool    `json:"augmentation.flip"`           // left and right, one in two
	Rotation         float64 `json:"augmentation.rotation"`       // degrees, either way
	JitterBrightness float64 `json:"augmentation.jitter.brightness"`
	JitterContrast   float64 `json:"augmentation.jitter.contrast"`
	JitterSaturation float64 `json:"augmentation.jitter.saturation"`
	JitterHue        float64 `json:"augmentation.jitter.hue"` // of the colour circle, at most half
	CutMix           bool    `json:"augmentation.cutmix.enabled"`
	CutMixAlpha      float64 `json:"augmentation.cutmix.alpha"`
	Sampling         string  `json:"sampling"` // shuffle; balanced: classes equally often

	Mean [3]float64 `json:"normalization.mean"` // of red, green, blue in 0..1; ImageNet's unless given
	Std  [3]float64 `json:"normalization.std"`

	// Seed in place of the one that the run was given, to train several trials
	// alike or to search over seeds; negative = the run's own.
	Seed int64 `json:"seed"`

	Train      string `json:"data.train"` // image folders
	Validation string `json:"data.validation"`
	Test       string `json:"data.test"`   // never seen by training; for whoever measures the model that came of it
	NumWorkers int    `json:"num_workers"` // images decoded at a time while a folder is packed; 0 = one a core
}

// ImageNetMean and ImageNetStd are the statistics torchvision normalises by.
var (
	ImageNetMean = [3]float64{0.485, 0.456, 0.406}
	ImageNetStd  = [3]float64{0.229, 0.224, 0.225}
)

// ownMomentum stands for the optimiser's own default until Parse knows it.
const ownMomentum = -1

// Default settings; the data folders have none.
func Default() Settings {
	return Settings{Model: "resnet18", Epochs: 10, BatchSize: 32, LR: 0.001, Optimizer: "adam", Momentum: ownMomentum,
		Schedule: "constant", StepEpochs: 5, Gamma: 0.1, ClassWeights: "none", Accumulate: 1,
		ImageSize: 64, Augment: true, Normalize: "given", DropoutRate: -1, Seed: -1, Layout: "auto", Precision: "fp32",
		Mean: ImageNetMean, Std: ImageNetStd, Crop: "pad", CropScaleMin: 0.08, Flip: true, CutMixAlpha: 1, Sampling: "shuffle"}
}

// ChannelsLast tells whether layout means channels_last; auto does, on every
// device: it is faster on CPUs and with tensor cores (BENCHMARKS.md).
func (s Settings) ChannelsLast() bool { return s.Layout != "default" }

// field is one key: how to read it.
type field struct {
	key string
	set func(s *Settings, v any) error
}

var fields = []field{
	{"model", architecture},
	{"epochs", whole(1, 100_000, func(s *Settings) *int { return &s.Epochs })},
	{"batch_size", whole(1, 1<<20, func(s *Settings) *int { return &s.BatchSize })},
	{"lr", number("above 0 and at most 1000", func(x float64) bool { return x > 0 && x <= 1000 }, func(s *Settings) *float64 { return &s.LR })},
	{"optimizer", oneOf(func(s *Settings) *string { return &s.Optimizer }, "sgd", "adam", "adamw", "rmsprop")},
	{"momentum", number("from 0 to below 1", below1, func(s *Settings) *float64 { return &s.Momentum })},
	{"nesterov", truth(func(s *Settings) *bool { return &s.Nesterov })},
	{"weight_decay", within(0, 10, func(s *Settings) *float64 { return &s.WeightDecay })},
	{"schedule", oneOf(func(s *Settings) *string { return &s.Schedule }, "constant", "step", "cosine", "plateau")},
	{"warmup_epochs", within(0, 100_000, func(s *Settings) *float64 { return &s.WarmupEpochs })},
	{"step_epochs", whole(1, 100_000, func(s *Settings) *int { return &s.StepEpochs })},
	{"gamma", number("above 0 and at most 1", func(x float64) bool { return x > 0 && x <= 1 }, func(s *Settings) *float64 { return &s.Gamma })},
	{"min_lr", within(0, 1000, func(s *Settings) *float64 { return &s.MinLR })},
	{"label_smoothing", within(0, 1, func(s *Settings) *float64 { return &s.LabelSmoothing })},
	{"class_weights", oneOf(func(s *Settings) *string { return &s.ClassWeights }, "none", "balanced")},
	{"clip_norm", within(0, 1e6, func(s *Settings) *float64 { return &s.ClipNorm })},
	{"accumulate", whole(1, 1<<20, func(s *Settings) *int { return &s.Accumulate })},
	{"ema_decay", number("from 0 to below 1", below1, func(s *Settings) *float64 { return &s.EMADecay })},
	{"freeze_features", truth(func(s *Settings) *bool { return &s.FreezeFeatures })},
	{"weights", file(func(s *Settings) *string { return &s.Weights })},
	{"patience", whole(0, 100_000, func(s *Settings) *int { return &s.Patience })},
	{"image_size", whole(32, 1024, func(s *Settings) *int { return &s.ImageSize })},
	{"augment", truth(func(s *Settings) *bool { return &s.Augment })},
	{"normalize", oneOf(func(s *Settings) *string { return &s.Normalize }, "given", "computed", "imagenet")},
	{"normalization.mean", colours("from 0 to 1", func(x float64) bool { return x >= 0 && x <= 1 }, func(s *Settings) *[3]float64 { return &s.Mean })},
	{"normalization.std", colours("above 0 and at most 1", func(x float64) bool { return x > 0 && x <= 1 }, func(s *Settings) *[3]float64 { return &s.Std })},
	{"dropout_rate", number("from 0 to below 1", below1, func(s *Settings) *float64 { return &s.DropoutRate })},
	{"layout", oneOf(func(s *Settings) *string { return &s.Layout }, "auto", "channels_last", "default")},
	{"precision", oneOf(func(s *Settings) *string { return &s.Precision }, "fp32", "bf16", "fp16")},
	{"kernels", choiceOfKernels},
	{"sampling", oneOf(func(s *Settings) *string { return &s.Sampling }, "shuffle", "balanced")},
	{"augmentation.crop", oneOf(func(s *Settings) *string { return &s.Crop }, "none", "pad", "resized")},
	{"augmentation.crop_scale_min", within(0.08, 1, func(s *Settings) *float64 { return &s.CropScaleMin })},
	{"augmentation.flip", truth(func(s *Settings) *bool { return &s.Flip })},
	{"augmentation.rotation", within(0, 180, func(s *Settings) *float64 { return &s.Rotation })},
	{"augmentation.jitter.brightness", within(0, 1, func(s *Settings) *float64 { return &s.JitterBrightness })},
	{"augmentation.jitter.contrast", within(0, 1, func(s *Settings) *float64 { return &s.JitterContrast })},
	{"augmentation.jitter.saturation", within(0, 1, func(s *Settings) *float64 { return &s.JitterSaturation })},
	{"augmentation.jitter.hue", within(0, 0.5, func(s *Settings) *float64 { return &s.JitterHue })},
	{"augmentation.cutmix.enabled", truth(func(s *Settings) *bool { return &s.CutMix })},
	{"augmentation.cutmix.alpha", number("above 0 and at most 1000", func(x float64) bool { return x > 0 && x <= 1000 }, func(s *Settings) *float64 { return &s.CutMixAlpha })},
	{"data.train", file(func(s *Settings) *string { return &s.Train })},
	{"data.validation", file(func(s *Settings) *string { return &s.Validation })},
	{"data.test", file(func(s *Settings) *string { return &s.Test })},
	{"seed", seed},
	{"num_workers", whole(0, 1024, func(s *Settings) *int { return &s.NumWorkers })},
}

// isGroup tells whether a key is an object that holds others: data,
// augmentation.jitter.
func isGroup(key string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return strings.HasPrefix(f.key, key+".") })
}

// Keys lists every key, dotted ones for those inside objects.
func Keys() []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// Parse lays params over training, both JSON objects (or empty), over the
// defaults, and makes the data folders and the file of weights absolute by
// baseDir. Objects may also be written as dotted keys, as a search space must.
// The error lists every fault.
func Parse(training, params []byte, baseDir string) (Settings, error) {
	s := Default()
	var faults []error
	for _, part := range []struct {
		name string
		data []byte
	}{{"training", training}, {"params", params}} {
		if len(bytes.TrimSpace(part.data)) == 0 {
			continue
		}
		faults = append(faults, s.apply(part.name, "", part.data)...)
	}
	for _, d := range []struct {
		key string
		dir *string
	}{{"data.train", &s.Train}, {"data.validation", &s.Validation}} {
		switch {
		case *d.dir == "":
			faults = append(faults, fmt.Errorf("training: %s is missing: name a folder with one subfolder of images a class", d.key))
		case !filepath.IsAbs(*d.dir):
			*d.dir = filepath.Join(baseDir, *d.dir)
		}
	}
	for _, p := range []*string{&s.Weights, &s.Test} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(baseDir, *p)
		}
	}
	if s.Momentum == ownMomentum {
		s.Momentum = 0
		if s.Optimizer == "sgd" {
			s.Momentum = 0.9
		}
	}
	return s, errors.Join(append(faults, s.conflicts()...)...)
}

// conflicts are faults of settings that are fine one by one.
func (s *Settings) conflicts() (faults []error) {
	if s.Optimizer == "sgd" && s.Nesterov && s.Momentum == 0 {
		faults = append(faults, errors.New("training: nesterov needs a momentum above 0"))
	}
	if s.MinLR > s.LR {
		faults = append(faults, fmt.Errorf("training: min_lr %g is above lr %g", s.MinLR, s.LR))
	}
	if s.WarmupEpochs > 0 && s.WarmupEpochs >= float64(s.Epochs) {
		faults = append(faults, fmt.Errorf("training: warmup_epochs %g leaves none of %d epochs", s.WarmupEpochs, s.Epochs))
	}
	if s.Normalize == "imagenet" && (s.Mean != ImageNetMean || s.Std != ImageNetStd) {
		faults = append(faults, errors.New("training: normalize imagenet and other statistics in normalization: say normalize given, or leave normalization out"))
	}
	return faults
}

// Check tells what is wrong with the value of one key, a JSON document.
func Check(key string, value []byte) error {
	i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
	if i < 0 {
		return fmt.Errorf("unknown key; did you mean %q?", Nearest(key, Keys()))
	}
	var s Settings
	return s.set(i, value)
}

// set reads the value of the key fields[i].
func (s *Settings) set(i int, raw []byte) error {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	err := fields[i].set(s, v)
	if err == nil || errors.As(err, new(unknownName)) {
		return err
	}
	return fmt.Errorf("%w, got %.60s", err, raw)
}

// unknownName is a fault that says what was given.
type unknownName string

func (e unknownName) Error() string { return string(e) }

func (s *Settings) apply(where, prefix string, data []byte) (faults []error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return []error{fmt.Errorf("%s: want a JSON object, got %.60s", where, data)}
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return append(faults, fmt.Errorf("%s: %w", where, err))
		}
		key := prefix + t.(string)
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return append(faults, fmt.Errorf("%s: %s: %w", where, key, err))
		}
		if seen[key] {
			faults = append(faults, fmt.Errorf("%s: %s stands twice", where, key))
			continue
		}
		seen[key] = true
		if isGroup(key) {
			faults = append(faults, s.apply(where, key+".", raw)...)
			continue
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if i < 0 {
			faults = append(faults, fmt.Errorf("%s: unknown key %q; did you mean %q?", where, key, Nearest(key, Keys())))
			continue
		}
		if err := s.set(i, raw); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", where, key, err))
		}
	}
	if _, err := dec.Token(); err != nil {
		return append(faults, fmt.Errorf("%s: %w", where, err))
	}
	return faults
}

// Models are the architectures, in the order in which people are asked: the
// runbook's first.
func Models() []string {
	return []string{"vanilla", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenet_v2",
		"resnet101", "resnet152", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
		"mobilenet_v3_small", "mobilenet_v3_large", "vgg11", "vgg13", "vgg16", "vgg19"}
}

func architecture(s *Settings, v any) error {
	t, _ := v.(string)
	if !slices.Contains(Models(), t) {
		return unknownName(fmt.Sprintf("no model %q; did you mean %q? There are %s", fmt.Sprint(v), nearest.Word(t, Models()), strings.Join(Models(), ", ")))
	}
	s.Model = t
	return nil
}

func choiceOfKernels(s *Settings, v any) error {
	t, _ := v.(string)
	if t == "" {
		return errors.New("want all, none or a list of kernels")
	}
	if _, err := kernels.Parse(t); err != nil {
		return unknownName(err.Error())
	}
	s.Kernels = t
	return nil
}

// MaxSeed is the largest seed that every reader of JSON keeps exactly.
const MaxSeed = 1 << 53

func seed(s *Settings, v any) error {
	var n int
	if err := whole(0, MaxSeed, func(*Settings) *int { return &n })(s, v); err != nil {
		return err
	}
	s.Seed = int64(n)
	return nil
}

// colours takes three numbers, of red, green and blue.
func colours(span string, in func(float64) bool, at func(*Settings) *[3]float64) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		list, _ := v.([]any)
		bad := len(list) != 3
		for i := 0; i < len(list) && !bad; i++ {
			n, _ := list[i].(json.Number)
			x, err := n.Float64()
			if bad = err != nil || !in(x); !bad {
				at(s)[i] = x
			}
		}
		if bad {
			return fmt.Errorf("want three numbers %s, of red, green and blue", span)
		}
		return nil
	}
}

func text(at func(*Settings) *string) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		t, ok := v.(string)
		if !ok || t == "" {
			return errors.New("want a text")
		}
		*at(s) = t
		return nil
	}
}

// file is a text that leads somewhere. Who is at home depends on the machine
// and the user that trains, so ~/ is for the command to read, not for a spec.
func file(at func(*Settings) *string) func(*Settings, any) error {
	read := text(at)
	return func(s *Settings, v any) error {
		if t, _ := v.(string); t == "~" || strings.HasPrefix(t, "~/") {
			return errors.New("want a whole path: ~ stands for nobody's home folder here")
		}
		return read(s, v)
	}
}

func oneOf(at func(*Settings) *string, names ...string) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		t, _ := v.(string)
		if !slices.Contains(names, t) {
			return fmt.Errorf("want one of %s", strings.Join(names, ", "))
		}
		*at(s) = t
		return nil
	}
}

func truth(at func(*Settings) *bool) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		b, ok := v.(bool)
		if !ok {
			return errors.New("want true or false")
		}
		*at(s) = b
		return nil
	}
}

func number(span string, in func(float64) bool, at func(*Settings) *float64) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n, _ := v.(json.Number)
		x, err := n.Float64()
		if err != nil || math.IsNaN(x) || !in(x) {
			return fmt.Errorf("want a number %s", span)
		}
		*at(s) = x
		return nil
	}
}

func below1(x float64) bool { return x >= 0 && x < 1 }

func within(low, high float64, at func(*Settings) *float64) func(*Settings, any) error {
	return number(fmt.Sprintf("from %g to %g", low, high), func(x float64) bool { return x >= low && x <= high }, at)
}

// whole takes integers, also written 32.0: searches speak of numbers.
func whole(low, high int, at func(*Settings) *int) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n, _ := v.(json.Number)
		x, err := n.Float64()
		if err != nil || x != math.Trunc(x) || x < float64(low) || x > float64(high) {
			return fmt.Errorf("want a whole number from %d to %d", low, high)
		}
		*at(s) = int(x)
		return nil
	}
}
