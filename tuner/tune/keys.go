package tune

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/mlflow"
	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/train"
)

// Keys that the command line sets or reads.
const (
	KeyModel       = "model"
	KeyMethod      = "search_method"
	KeyTrials      = "trials"
	KeyEpochs      = trainingPrefix + "epochs"
	KeyParallelism = "parallelism"
	KeySeed        = "seed"
	KeyPlots       = "plots"
	KeyBase        = "training_config"
	KeyTracking    = "mlflow.enabled"
	KeyTrackingURI = "mlflow.tracking_uri"
	KeyExperiment  = "mlflow.experiment_name"
	KeyTrain       = "data.train"
	KeyValidation  = "data.validation"

	keyAlgorithm  = "algorithm"
	keyMetric     = "objective.metric"
	keyDirection  = "objective.direction"
	keyTime       = "max_time"
	keyKeep       = "local.keep"
	keyGridPoints = "grid_points"
	keyTrainer    = "trainer"
	keySave       = "save_models"
	keyFolder     = "checkpoints_dir"

	trainingPrefix = "training."
)

// ConfigFile is where a configuration is looked for when none is named.
const ConfigFile = "conf/tuning_config.yaml"

// EnvironmentPrefix of variables that set keys: ATELIER_TUNE_TRIALS=30.
const EnvironmentPrefix = "ATELIER_TUNE_"

var (
	methods    = []string{"grid_search", "bayesian", "genetic", "random", "sobol"}
	algorithms = []string{"auto", "gp", "tpe", "cmaes"}
)

// Keys are all settings of `atelier tune` but the free blocks: its own, and the
// trainer's below training.
func Keys() []setting.Key {
	positive := func(least int64, want string) func([]byte) error {
		return check(func(n int64) bool { return n >= least && n <= 100_000_000 }, want)
	}
	yes := check(func(bool) bool { return true }, "true or false")
	text := func(want string) func([]byte) error { return check(func(s string) bool { return s != "" }, want) }
	keys := []setting.Key{
		{Name: KeyModel, Default: "resnet18", Check: func(v []byte) error { return settings.Check("model", v) }},
		{Name: KeyMethod, Default: "bayesian", Check: oneOf(append([]string{"grid"}, methods...)...)},
		{Name: keyAlgorithm, Default: "auto", Check: oneOf(algorithms...)},
		{Name: KeySeed, Default: int64(42), Check: check(func(uint64) bool { return true }, "a whole number from 0 on")},
		{Name: keyMetric, Default: "val_loss", Check: text("the name of a metric, such as val_loss or val_acc")},
		{Name: keyDirection, Check: oneOf("minimize", "maximize")},
		{Name: KeyTrials, Default: int64(30), Optional: true, Check: positive(1, "a whole number from 1 on")},
		{Name: keyTime, Check: check(func(s string) bool { d, err := time.ParseDuration(s); return err == nil && d >= time.Second }, "a length of time such as 90m or 2h")},
		{Name: KeyParallelism, Check: positive(1, "a whole number from 1 on")},
		{Name: keyGridPoints, Default: int64(4), Check: positive(1, "a whole number from 1 on")},
		{Name: keyTrainer, Default: "torch", Check: text("a trainer that the workers offer, such as torch or sim")},
		{Name: KeyBase, Default: train.ConfigFile, Optional: true, Check: text("a file")},
		{Name: KeyTrain, Check: text("a folder")},
		{Name: KeyValidation, Check: text("a folder")},
		{Name: "subset.train", Check: positive(1, "how many images a class, from 1 on")},
		{Name: "subset.validation", Check: positive(1, "how many images a class, from 1 on")},
		{Name: "quick.trials", Default: int64(6), Check: positive(1, "a whole number from 1 on")},
		{Name: "quick.epochs", Default: int64(2), Check: positive(1, "a whole number from 1 on")},
		{Name: "quick.grid_points", Default: int64(2), Check: positive(1, "a whole number from 1 on")},
		{Name: "quick.subset.train", Default: int64(40), Optional: true, Check: positive(1, "how many images a class, from 1 on")},
		{Name: "quick.subset.validation", Default: int64(20), Optional: true, Check: positive(1, "how many images a class, from 1 on")},
		{Name: keySave, Default: "all", Check: oneOf("all", "best", "none")},
		{Name: KeyPlots, Default: true, Check: yes},
		{Name: keyFolder, Default: "checkpoints_tuning", Check: text("a folder")},
		{Name: "local.slots", Default: "auto", Check: slots},
		{Name: "local.threads", Default: int64(0), Check: positive(0, "a whole number from 0 (shared evenly) on")},
		{Name: "local.redis", Default: "auto", Check: oneOf("auto", "on", "off")},
		{Name: keyKeep, Default: true, Check: yes},
		{Name: KeyTracking, Default: true, Check: yes},
		{Name: KeyTrackingURI, Check: text("an address such as http://127.0.0.1:5000, or a folder")},
		{Name: KeyExperiment, Default: mlflow.TuningExperiment, Check: text("a name")},
	}
	for _, k := range train.Keys() {
		if settingOfTrials(k.Name) {
			k.Name = trainingPrefix + k.Name
			keys = append(keys, k)
		}
	}
	return keys
}

// settingOfTrials tells the training settings that a tuning hands through from
// those it has keys of its own for.
func settingOfTrials(name string) bool {
	return train.IsTraining(name) && name != KeyModel && name != KeySeed && !strings.HasPrefix(name, "data.")
}

func check[T any](ok func(T) bool, want string) func([]byte) error {
	return func(v []byte) error {
		var x T
		if json.Unmarshal(v, &x) != nil || !ok(x) {
			return fmt.Errorf("want %s, got %.60s", want, v)
		}
		return nil
	}
}

func oneOf(words ...string) func([]byte) error {
	return func(v []byte) error {
		var s string
		if json.Unmarshal(v, &s) == nil && slices.Contains(words, s) {
			return nil
		}
		near := ""
		if s != "" {
			near = fmt.Sprintf("; did you mean %s?", nearest.Word(s, words))
		}
		return fmt.Errorf("want %s, got %.60s%s", strings.Join(words, ", "), v, near)
	}
}

// slots is what a worker takes: auto, N, gpu:N, cpu:N.
func slots(v []byte) error {
	var n int
	if json.Unmarshal(v, &n) == nil && n >= 1 && n <= 4096 {
		return nil
	}
	var s string
	if json.Unmarshal(v, &s) == nil {
		if _, number, ok := strings.Cut(s, ":"); ok && (strings.HasPrefix(s, "gpu:") || strings.HasPrefix(s, "cpu:")) {
			s = number
		}
		if s == "auto" || s != "" && len(s) < 5 && strings.Trim(s, "0123456789") == "" {
			return nil
		}
	}
	return fmt.Errorf("want auto, a number, gpu:N or cpu:N, got %.60s", v)
}

// near picks the key that an unknown one most likely stands for: a training
// setting is found by its bare name too.
func near(unknown string, known []string) string {
	known = append(slices.Clone(known), blockNames...)
	if alias, ok := aliases[unknown]; ok {
		return alias
	}
	if slices.Contains(known, trainingPrefix+unknown) {
		return trainingPrefix + unknown
	}
	bare := strings.TrimPrefix(unknown, trainingPrefix)
	var of []string
	for _, k := range settings.Keys() {
		if settingOfTrials(k) {
			of = append(of, k)
		}
	}
	setting := settings.Nearest(bare, of)
	own := nearest.Word(unknown, known)
	if strings.HasPrefix(unknown, trainingPrefix) || nearest.Distance(setting, bare) < nearest.Distance(own, unknown) {
		return trainingPrefix + setting
	}
	return own
}

// aliases are what other tools call our keys.
var aliases = map[string]string{"search_space": "space", "param_grid": "space", "parameters": "space", "method": KeyMethod, "n_trials": KeyTrials, "num_trials": KeyTrials, "max_trials": KeyTrials,
	"budget": KeyTrials, "n_jobs": KeyParallelism, "output_dir": keyFolder, "metric": keyMetric, "objective": keyMetric, "direction": keyDirection, "early_stopping": "stopping", "pruner": "stopping"}
