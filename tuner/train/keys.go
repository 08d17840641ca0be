package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"atelier/common/setting"
	"atelier/common/settings"
)

// Keys of what the command adds to the training settings.
const (
	keySeed        = "seed"
	keyDevice      = "device"
	keyThreads     = "threads"
	keyCheckpoints = "checkpoints_dir"
	keyCache       = "cache_dir"
	KeyTracking    = "mlflow.enabled"
	KeyTrackingURI = "mlflow.tracking_uri"
	keyExperiment  = "mlflow.experiment_name"
	KeyModel       = "model"
)

// defaultData are the folders that data preparation writes.
var defaultData = map[string]string{
	"data.train":      "architectural_style_images/train",
	"data.validation": "architectural_style_images/validation",
	"data.test":       "architectural_style_images/test",
}

// Keys are all settings of `atelier train`: those of the trainer with its
// defaults, and the command's own.
func Keys() []setting.Key {
	var keys []setting.Key
	defaults := trainerDefaults()
	for _, name := range settings.Keys() {
		if name == keySeed {
			continue // ours is never left to chance, and may be any of 64 bits
		}
		k := setting.Key{Name: name, Default: defaults[name], Check: func(v []byte) error { return settings.Check(name, v) }}
		if dir, ok := defaultData[name]; ok {
			k.Default, k.Optional = dir, name == "data.test"
		}
		keys = append(keys, k)
	}
	return append(keys,
		setting.Key{Name: keySeed, Default: int64(42), Check: check(func(x uint64) bool { return true }, "a whole number from 0 on")},
		setting.Key{Name: keyDevice, Default: "auto", Check: check(func(s string) bool {
			return s == "auto" || s == "cpu" || s == "cuda" || strings.HasPrefix(s, "cuda:") && strings.Trim(s[5:], "0123456789") == "" && len(s) > 5
		}, "auto, cpu, or a GPU such as cuda:0")},
		setting.Key{Name: keyThreads, Default: int64(0), Check: check(func(n int) bool { return n >= 0 && n <= 4096 }, "a whole number from 0 (all cores) to 4096")},
		setting.Key{Name: keyCheckpoints, Default: "checkpoints", Check: check(notEmpty, "a folder")},
		setting.Key{Name: keyCache, Check: check(notEmpty, "a folder")},
		setting.Key{Name: KeyTracking, Default: true, Check: check(func(bool) bool { return true }, "true or false")},
		setting.Key{Name: KeyTrackingURI, Check: check(notEmpty, "an address such as http://127.0.0.1:5000, or a folder")},
		setting.Key{Name: keyExperiment, Default: "architectural-style-training", Check: check(notEmpty, "a name")})
}

func notEmpty(s string) bool { return s != "" }

func check[T any](ok func(T) bool, want string) func([]byte) error {
	return func(v []byte) error {
		var x T
		if json.Unmarshal(v, &x) != nil || !ok(x) {
			return fmt.Errorf("want %s, got %.60s", want, v)
		}
		return nil
	}
}

// trainerDefaults are the trainer's own defaults by key; what stands for "not
// given" there is nil.
func trainerDefaults() map[string]any {
	b, err := json.Marshal(settings.Default())
	if err != nil {
		panic(err) // settings hold plain values only
	}
	var raw map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&raw); err != nil {
		panic(err)
	}
	out := map[string]any{}
	for key, v := range raw {
		if text, ok := v.(string); ok && text == "" || settings.Check(key, encoded(v)) != nil {
			continue // "" and -1: the trainer or the architecture decides
		}
		out[key] = number(v)
	}
	return out
}

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// number turns json.Number into what a YAML file would give.
func number(v any) any {
	switch x := v.(type) {
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return n
		}
		f, _ := x.Float64()
		return f
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = number(x[i])
		}
		return out
	}
	return v
}

// IsTraining tells the trainer's keys from the command's own.
func IsTraining(key string) bool { return slices.Contains(settings.Keys(), key) }

// Nearest picks the key that an unknown one most likely stands for.
func Nearest(unknown string, known []string) string { return settings.Nearest(unknown, known) }

// New is the configuration of one training, all defaults.
func New() *setting.Config { return setting.New(Keys(), Nearest) }

// ConfigFile is where a configuration is looked for when none is named.
const ConfigFile = "conf/training_config.yaml"

// EnvironmentPrefix of variables that set keys: ATELIER_TRAIN_EPOCHS=30.
const EnvironmentPrefix = "ATELIER_TRAIN_"

// FromFlags tells whether a fault was made on the command line.
func FromFlags(err error) bool {
	var f setting.Fault
	if errors.As(err, &f) {
		return f.Origin == setting.Flag
	}
	var all setting.Faults
	return errors.As(err, &all) && slices.ContainsFunc(all, func(f setting.Fault) bool { return f.Origin == setting.Flag })
}
