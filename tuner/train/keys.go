package train

import (
	"errors"
	"slices"
	"strings"

	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/track"
)

// Keys that the command adds to the training settings, or looks at itself.
const (
	keySeed         = "seed"
	keyDevice       = "device"
	keyThreads      = "threads"
	keyCheckpoints  = "checkpoints_dir"
	keyCache        = "cache_dir"
	keyMembers      = "members.min"
	keyShards       = "shards"
	keyShardThreads = "shard_threads"
	KeyModel        = "model"
	KeyWeights      = "weights"
	KeyFreeze       = "freeze_features"
)

// Document declares what `atelier train` may be told: the trainer's settings,
// and the command's own.
var Document = setting.Document{
	Command: "train", File: "conf/training_config.yaml", Prefix: "ATELIER_TRAIN_", Such: "image_size=96",
	Flags: "--lr 0.01, --set schedule=cosine", Variable: "ATELIER_TRAIN_LR=0.01",
	Table: trainers().With(
		setting.Setting{Name: keyCache, Section: "Data", Type: setting.Text("a folder"), Help: "folder of packed image sets; null = atelier/packs in the user's cache"},
		setting.Setting{Name: keyDevice, Section: "Machine", Type: Device(), Default: "auto", Help: "cpu, cuda:0; auto = the first GPU, else the CPU"},
		setting.Setting{Name: keyThreads, Section: "Machine", Type: Threads(), Default: int64(0), Help: "of the CPU; 0 = all cores"},
		setting.Setting{Name: keyCheckpoints, Section: "Machine", Type: setting.Text("a folder"), Default: "checkpoints", Help: "results go to checkpoints/<model>_ep<epochs>_bs<batch>_lr<lr>/"},
	).With(track.Settings("the training", true, "--mlflow and --no-mlflow win, then the answer to the question", track.TrainingExperiment, "")...),
}

// trainers are the trainer's rows as the command has them: image folders where
// data preparation puts them, and a seed that is never left to chance.
func trainers() setting.Table {
	folder := map[string]string{"data.train": "train", "data.validation": "validation", "data.test": "test"}
	return settings.Table.Set(func(s *setting.Setting) {
		if name := folder[s.Name]; name != "" {
			s.Default, s.Null = "architectural_style_images/"+name, name == "test"
		}
		if s.Name == keySeed {
			s.Type, s.Default = setting.Unsigned(), int64(42)
		}
	})
}

// Device takes what a trainer may compute on.
func Device() setting.Type {
	return setting.Is("auto, cpu, or a GPU such as cuda:0", func(v any) bool {
		s, _ := v.(string)
		number, gpu := strings.CutPrefix(s, "cuda:")
		return s == "auto" || s == "cpu" || s == "cuda" || gpu && number != "" && strings.Trim(number, "0123456789") == ""
	})
}

// Threads takes a number of the CPU's threads.
func Threads() setting.Type {
	t := setting.Integer(0, 4096)
	t.Want = "a whole number from 0 (all cores) to 4096"
	return t
}

// IsTraining tells the trainer's keys from the command's own.
func IsTraining(key string) bool { return settings.Table.Has(key) }

// New is the configuration of one training, all defaults.
func New() *setting.Config { return setting.New(Document.Table) }

// FromFlags reports whether a fault was made on the command line.
func FromFlags(err error) bool {
	var f setting.Fault
	if errors.As(err, &f) {
		return f.Origin == setting.Flag
	}
	var all setting.Faults
	return errors.As(err, &all) && slices.ContainsFunc(all, func(f setting.Fault) bool { return f.Origin == setting.Flag })
}
