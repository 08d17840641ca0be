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
	"fmt"
	"path/filepath"

	"atelier/common/setting"
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

	// Of several slots for one training, see Members, ShardCount and Threads.
	MembersMin   int `json:"members.min,omitempty"`
	MembersMax   int `json:"members.max,omitempty"`   // 0 = MembersMin
	Shards       int `json:"shards,omitempty"`        // of each batch; 0 = by the members; Parse leaves none
	ShardThreads int `json:"shard_threads,omitempty"` // 0 = the slot's; Parse leaves none with several shards

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

// Metrics are what the trainer reports each epoch, in order; objectives and
// constraints are given by these names. Accuracies are fractions; lr is that of
// the epoch's last update; images_per_s counts training images over the time
// spent on them. train_loss is what was minimised (smoothed, weighted, mixed);
// val_loss is plain cross entropy, so that runs with different settings compare.
var Metrics = []string{"train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_s"}

// ImageNetMean and ImageNetStd are the statistics torchvision normalises by.
var (
	ImageNetMean = [3]float64{0.485, 0.456, 0.406}
	ImageNetStd  = [3]float64{0.229, 0.224, 0.225}
)

// ownMomentum stands for the optimiser's own default until Parse knows it; -1
// also stands for the architecture's own dropout and the run's own seed.
const ownMomentum = -1

// Default settings; the data folders have none.
func Default() Settings {
	s := Settings{Momentum: ownMomentum, DropoutRate: -1, Seed: -1}
	setting.Fill(&s, Table.Defaults())
	return s
}

// ChannelsLast reports whether layout means channels_last; auto does, on every
// device: it is faster on CPUs and with tensor cores (BENCHMARKS.md).
func (s Settings) ChannelsLast() bool { return s.Layout != "default" }

// Parse lays params over training, both JSON objects (or empty), over the
// defaults, and makes the data folders and the file of weights absolute by
// baseDir. Objects may also be written as dotted keys, as a search space must.
// The error is setting.Faults: every fault.
func Parse(training, params []byte, baseDir string) (Settings, error) {
	s := Default()
	var faults setting.Faults
	for _, part := range []struct {
		name string
		data []byte
	}{{"training", training}, {"params", params}} {
		if len(bytes.TrimSpace(part.data)) == 0 {
			continue
		}
		given, wrong := Table.ReadJSON(part.name, part.data)
		setting.Fill(&s, given)
		faults = append(faults, wrong...)
	}
	for _, d := range []struct {
		key string
		dir *string
	}{{"data.train", &s.Train}, {"data.validation", &s.Validation}} {
		if *d.dir == "" {
			faults = append(faults, fault("%s is missing: name a folder with one subfolder of images per class", d.key))
		}
	}
	for _, p := range []*string{&s.Train, &s.Validation, &s.Weights, &s.Test} {
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
	if s.Shards = s.Group().Shards; s.Shards > 1 && s.ShardThreads == 0 {
		s.ShardThreads = 1
	}
	return s, append(faults, s.conflicts()...).OrNil()
}

func fault(format string, a ...any) setting.Fault {
	return setting.Fault{Where: "training", Message: fmt.Sprintf(format, a...)}
}

// conflicts are faults of settings that are fine one by one.
func (s *Settings) conflicts() (faults setting.Faults) {
	if s.Optimizer == "sgd" && s.Nesterov && s.Momentum == 0 {
		faults = append(faults, fault("nesterov needs a momentum above 0"))
	}
	if s.MinLR > s.LR {
		faults = append(faults, fault("min_lr %g is above lr %g", s.MinLR, s.LR))
	}
	if s.WarmupEpochs > 0 && s.WarmupEpochs >= float64(s.Epochs) {
		faults = append(faults, fault("warmup_epochs %g leaves none of %d epochs", s.WarmupEpochs, s.Epochs))
	}
	if s.Normalize == "imagenet" && (s.Mean != ImageNetMean || s.Std != ImageNetStd) {
		faults = append(faults, fault("normalize imagenet and other statistics in normalization: set normalize: given, or leave normalization out"))
	}
	return append(faults, s.group()...)
}

// Models are the architectures, in the order in which people are asked: the
// runbook's first.
func Models() []string {
	return []string{"vanilla", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenet_v2",
		"resnet101", "resnet152", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
		"mobilenet_v3_small", "mobilenet_v3_large", "vgg11", "vgg13", "vgg16", "vgg19"}
}

// MaxSeed is the largest seed that every reader of JSON keeps exactly.
const MaxSeed = 1 << 53
