package settings

import (
	"fmt"
	"strings"

	"atelier/common/kernels"
	"atelier/common/nearest"
	"atelier/common/setting"
)

// Table declares every setting of a training: a new one is a row here and a
// field of Settings. Everything else follows: checks, `atelier train`, its
// configuration file, the reference page.
var Table = setting.Table{
	{Name: "data.train", Section: "Data", Example: "run/facades/train", Type: setting.Path("a folder"), Help: "one subfolder of images per class",
		Aliases: []string{"train", "train_dir"}, Flag: "train", Usage: "`DIR` of training images, one subfolder per class"},
	{Name: "data.validation", Example: "run/facades/validation", Type: setting.Path("a folder"), Help: "the same subfolders",
		Aliases: []string{"val", "validation", "data.val", "val_dir"}, Flag: "validation", Usage: "`DIR` of validation images"},
	{Name: "data.test", Example: "run/facades/test", Type: setting.Path("a folder"), Help: "measured once, at the end, with the best model; may be missing",
		Aliases: []string{"test", "test_dir"}, Flag: "test", Usage: "`DIR` of test images: the best model is measured on them at the end"},
	{Name: "batch_size", Type: setting.Integer(1, 1<<20), Default: int64(32), Help: "images per batch", Aliases: []string{"bs"}, Flag: "batch-size", Usage: "`N` images per batch"},
	{Name: "num_workers", Type: setting.Integer(0, 1024), Default: int64(0), Aliases: []string{"workers"},
		Help: "images decoded at a time while a folder is packed, the first time it is used; 0 = one per core"},
	{Name: "image_size", Type: setting.Integer(32, 1024), Default: int64(64), Aliases: []string{"resolution", "size"}, Help: "side of the squares the images become, pixels"},
	{Name: "sampling", Type: setting.OneOf("shuffle", "balanced"), Default: "shuffle", Help: "shuffle: every image once per epoch; balanced: classes equally often"},

	{Name: "augment", Section: "Augmentation of training images", Type: setting.Truth(), Default: true, Help: "false: images as they are, whatever is set below"},
	{Name: "augmentation.crop", Type: setting.OneOf("none", "pad", "resized"), Default: "pad",
		Help: "none; pad: a border of black and a crop of the old size; resized: part and shape at random"},
	{Name: "augmentation.crop_scale_min", Type: setting.Within(0.08, 1), Default: 0.08, Help: "of resized: least share of the area"},
	{Name: "augmentation.flip", Type: setting.Truth(), Default: true, Help: "left and right, one image in two"},
	{Name: "augmentation.rotation", Type: setting.Within(0, 180), Default: int64(0), Help: "degrees at most, either way"},
	{Name: "augmentation.jitter.brightness", Type: setting.Within(0, 1), Default: int64(0), Help: "x = factors from 1-x to 1+x"},
	{Name: "augmentation.jitter.contrast", Type: setting.Within(0, 1), Default: int64(0), Help: "likewise"},
	{Name: "augmentation.jitter.saturation", Type: setting.Within(0, 1), Default: int64(0), Help: "likewise"},
	{Name: "augmentation.jitter.hue", Type: setting.Within(0, 0.5), Default: int64(0), Help: "turns of the colour circle, either way"},
	{Name: "augmentation.cutmix.enabled", Type: setting.Truth(), Default: false, Aliases: []string{"cutmix"},
		Help: "a part of each image is another's, and the label is mixed in proportion"},
	{Name: "augmentation.cutmix.alpha", Type: setting.Above(0, 1000), Default: int64(1), Aliases: []string{"cutmix_alpha"}, Help: "of the Beta distribution; higher = more mixing"},

	{Name: "normalize", Section: "Normalisation: (value - mean) / std of colours in 0..1", Type: setting.OneOf("given", "computed", "imagenet"), Default: "given",
		Help: "given: by the statistics below; computed: by those of the training images; imagenet"},
	{Name: "normalization.mean", Type: setting.Three("from 0 to 1", func(x float64) bool { return x >= 0 && x <= 1 }), Default: list(ImageNetMean),
		Aliases: []string{"mean"}, Help: "red, green, blue; these are ImageNet's"},
	{Name: "normalization.std", Help: "red, green, blue; the defaults are those of ImageNet", Type: setting.Three("above 0 and at most 1", func(x float64) bool { return x > 0 && x <= 1 }), Default: list(ImageNetStd), Aliases: []string{"std"}},

	{Name: "epochs", Section: "Training", Type: setting.Integer(1, 100_000), Default: int64(10), Help: "at most", Flag: "epochs", Usage: "train for at most `N` epochs"},
	{Name: "lr", Type: setting.Above(0, 1000), Default: 0.001, Help: "learning rate", Aliases: []string{"learning_rate", "learningrate"}, Flag: "lr", Usage: "learning `RATE`"},
	{Name: "patience", Type: setting.Integer(0, 100_000), Default: int64(0), Aliases: []string{"early_stopping"}, Help: "end after so many epochs without a lower validation loss; 0 = never",
		Flag: "patience", Usage: "end after `N` epochs without a lower validation loss; 0 = never"},
	{Name: "optimizer", Type: setting.OneOf("sgd", "adam", "adamw", "rmsprop"), Default: "adam", Help: "sgd, adam, adamw, rmsprop"},
	{Name: "momentum", Example: "0.9", Type: setting.Below(0, 1), Help: "null = the optimiser's own: 0.9 for sgd, 0 for rmsprop"},
	{Name: "nesterov", Type: setting.Truth(), Default: false, Aliases: []string{"nag"}, Help: "of sgd"},
	{Name: "weight_decay", Help: "L2 penalty on the weights", Type: setting.Within(0, 10), Default: int64(0), Aliases: []string{"wd", "l2"}},
	{Name: "schedule", Type: setting.OneOf("constant", "step", "cosine", "plateau"), Default: "constant", Aliases: []string{"scheduler", "lr_schedule"},
		Help: "of the learning rate: constant, step, cosine, plateau"},
	{Name: "warmup_epochs", Type: setting.Within(0, 100_000), Default: int64(0), Aliases: []string{"warmup"}, Help: "linear rise to lr; the schedule counts from its end"},
	{Name: "step_epochs", Type: setting.Integer(1, 100_000), Default: int64(5), Aliases: []string{"step_size", "lr_step_size"},
		Help: "step: epochs between drops; plateau: epochs without a lower validation loss before one"},
	{Name: "gamma", Type: setting.Above(0, 1), Default: 0.1, Help: "factor of a drop"},
	{Name: "min_lr", Type: setting.Within(0, 1000), Default: int64(0), Aliases: []string{"eta_min"}, Help: "no drop goes below; where cosine ends"},
	{Name: "label_smoothing", Type: setting.Within(0, 1), Default: int64(0), Aliases: []string{"smoothing"}, Help: "0 to 1"},
	{Name: "class_weights", Type: setting.OneOf("none", "balanced"), Default: "none", Help: "of the loss; balanced: images / (classes * images of the class)"},
	{Name: "clip_norm", Type: setting.Within(0, 1e6), Default: int64(0), Aliases: []string{"max_norm", "clip_grad_norm", "grad_clip"},
		Help: "largest norm of all gradients together; 0 = any"},
	{Name: "accumulate", Type: setting.Integer(1, 1<<20), Default: int64(1), Aliases: []string{"accumulation", "gradient_accumulation_steps"}, Help: "batches that make one update"},
	{Name: "ema_decay", Type: setting.Below(0, 1), Default: int64(0), Aliases: []string{"ema"}, Help: "keep an average of the weights, with this decay per update; 0 = none"},
	{Name: "seed", Example: "42", Type: setting.Integer(0, MaxSeed), Help: "of weights, order and augmentation", Flag: "seed", Usage: "`SEED` of weights, order and augmentation"},

	{Name: "model", Section: "Model", Type: setting.OneOf(Models()...).Faulty(noModel), Default: "resnet18", Aliases: []string{"arch", "architecture"},
		Help: "vanilla, resnet18/34/50/101/152, efficientnet_b0-b4, mobilenet_v2, mobilenet_v3_small/large, vgg11/13/16/19",
		Flag: "model", Usage: "`ARCHITECTURE`: vanilla, resnet18, resnet34, resnet50, efficientnet_b0, mobilenet_v2 and more"},
	{Name: "weights", Example: "resnet18.pth", Type: setting.Path("a file"), Aliases: []string{"pretrained"}, Help: "file to start from, or NAME of atelier weights list; null or none = from scratch",
		Flag: "weights", Usage: "start from published weights (`NAME` of atelier weights list) or a file; none = from scratch"},
	{Name: "freeze_features", Type: setting.Truth(), Default: false, Aliases: []string{"freeze"}, Help: "train the classifier head only; wants weights",
		Flag: "freeze-features", Usage: "train the classifier head only; wants --weights"},
	{Name: "dropout_rate", Example: "0.2", Type: setting.Below(0, 1), Aliases: []string{"dropout"}, Help: "before the head; null = the architecture's own"},

	{Name: "members.min", Section: "Several slots for one training", Type: setting.Integer(1, MaxMembers), Default: int64(1), Short: true,
		Help: "slots that compute together, at least; members: 4 sets both", Flag: "members", Usage: "`N` trainers compute together, or MIN-MAX of them, as there is room"},
	{Name: "members.max", Type: setting.Integer(1, MaxMembers), Else: "members.min", Example: "8", Short: true, Help: "at most; null = members.min"},
	{Name: "shards", Type: setting.Integer(1, MaxShards), Else: "1 with one member, else the smallest power of two that is at least members.max", Example: "8",
		Help: "equal parts of each batch; results depend on them and never on the members; null = 1, of several members the next power of two"},
	{Name: "shard_threads", Type: setting.Integer(1, 1024), Else: "1 with several shards, else those of the slot", Example: "2",
		Help: "CPU threads that compute a shard; results depend on them; null = 1 with several shards, else the slot's"},

	{Name: "precision", Section: "Machine", Type: setting.OneOf("fp32", "bf16", "fp16"), Default: "fp32", Aliases: []string{"dtype", "amp"}, Help: "fp32, bf16, fp16 (on a GPU)"},
	{Name: "layout", Type: setting.OneOf("auto", "channels_last", "default"), Default: "auto", Aliases: []string{"memory_format"}, Help: "of activations: auto, channels_last, default"},
	{Name: "kernels", Example: "all", Type: setting.Is("all, none or a list of kernels", areKernels).Faulty(noKernels), Help: "of our own: all, none (libtorch's operators), or names to turn off: -dense,-norm; null = all"},
}

func list(of [3]float64) []any { return []any{of[0], of[1], of[2]} }

func noModel(v any) string {
	name := strings.Trim(setting.Shown(v), `"`)
	return fmt.Sprintf("no model %q; did you mean %q? There are %s", name, nearest.Word(name, Models()), strings.Join(Models(), ", "))
}

func areKernels(v any) bool {
	s, _ := v.(string)
	_, err := kernels.Parse(s)
	return s != "" && err == nil
}

func noKernels(v any) string {
	if s, _ := v.(string); s != "" {
		if _, err := kernels.Parse(s); err != nil {
			return err.Error()
		}
	}
	return "want all, none or a list of kernels, got " + setting.Shown(v)
}
