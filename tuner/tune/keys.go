package tune

import (
	"strings"
	"time"

	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/search"
	"atelier/tuner/track"
	"atelier/tuner/train"
)

// Keys that the command line sets or reads.
const (
	KeyModel       = "model"
	KeyMethod      = "search_method"
	KeyTrials      = "trials"
	KeyEpochs      = trainingPrefix + "epochs"
	KeyParallelism = "parallelism"
	KeyWeights     = trainingPrefix + train.KeyWeights
	KeySeed        = "seed"
	KeyPlots       = "plots"
	KeyBase        = "training_config"
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

	// Parts of the file that hold what keys cannot: they are replaced as a
	// whole, not merged.
	blockSpace    = "space"
	blockStopping = "stopping"
	blockTrainer  = "trainer_settings"

	trainingPrefix = "training."
)

// DefaultSpace is searched where the file has none.
const DefaultSpace = `
lr:           {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
batch_size:   {type: categorical, choices: [16, 32, 64]}
optimizer:    {type: categorical, choices: [adam, sgd]}
momentum:     {type: float, low: 0.5, high: 0.99, when: {optimizer: [sgd]}}
weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
`

const aboutSpace = `parameters are settings of training_config.yaml, nested ones with dots
(augmentation.cutmix.alpha). float and int take low, high, log, step, steps or values;
categorical takes choices. when: active only where another one has one of these values.
The space is replaced as a whole, not merged with this one`

// Document declares what `atelier tune` may be told.
var Document = setting.Document{
	Command: "tune", File: "conf/tuning_config.yaml", Prefix: "ATELIER_TUNE_", Such: "image_size=96",
	Flags: "--trials 60, --set space.lr.high=0.01", Variable: "ATELIER_TUNE_TRIALS=60", Table: table(),
}

func table() setting.Table {
	from1, images := count("a whole number from 1 on"), count("how many images per class, from 1 on")
	model, folder := settings.Table.Find(KeyModel), setting.Text("a folder")
	t := setting.Table{
		{Name: KeyModel, Type: model.Type, Default: model.Default, Aliases: model.Aliases, Help: model.Help, Flag: "model", Usage: model.Usage},

		{Name: KeyMethod, Section: "Search", Type: setting.OneOf(append([]string{"grid"}, search.Methods...)...), Default: "bayesian", Aliases: []string{"method"},
			Help: "grid_search: all combinations; bayesian: Gaussian process; genetic; random; sobol",
			Flag: "search-method", Usage: "`METHOD`: grid_search, bayesian, genetic, random or sobol"},
		{Name: keyAlgorithm, Type: setting.OneOf(search.Algorithms...), Default: "auto", Help: "of bayesian: auto, gp, tpe, cmaes"},
		{Name: KeySeed, Type: setting.Unsigned(), Default: int64(42), Help: "of the search and of every trial", Flag: "seed", Usage: "`SEED` of the search and of every trial"},
		{Name: keyMetric, Type: setting.Text("the name of a metric, such as val_loss or val_acc"), Default: "val_loss", Aliases: []string{"metric", "objective"},
			Help: "what is made small or large: val_loss, val_acc, ..."},
		{Name: keyDirection, Type: setting.OneOf("minimize", "maximize"), Aliases: []string{"direction"}, Help: "minimize, maximize; null = maximize for accuracies, else minimize"},
		{Name: KeyTrials, Type: from1, Default: int64(30), Null: true, Aliases: []string{"n_trials", "num_trials", "max_trials", "budget"},
			Help: "points to try, of a grid too; null = of a grid all, else as many as max_time allows", Flag: "trials", Usage: "try `N` points"},
		{Name: keyTime, Type: setting.Is("a length of time such as 90m or 2h", aWhile), Help: "such as 2h: no trial begins later"},
		{Name: KeyParallelism, Type: from1, Aliases: []string{"n_jobs"}, Help: "trials open at once; null = one a slot",
			Flag: "parallelism", Usage: "`N` trials open at once (default: one a slot)"},
		{Name: keyGridPoints, Type: from1, Default: int64(4), Help: "of grid_search: values of a float that has neither steps nor step nor values"},
		{Name: blockSpace, Block: DefaultSpace, Aliases: []string{"search_space", "param_grid", "parameters"}, Help: aboutSpace},
		{Name: blockStopping, Block: "{rule: none}", Aliases: []string{"early_stopping", "pruner"},
			Help: "ends poor trials early: asha, hyperband, median, percentile, patience, none\n(tuner/stop/DESIGN.md)"},

		{Name: KeyBase, Section: "Training of every trial", Type: setting.Text("a file"), Default: train.Document.File, Null: true,
			Help: "its training settings apply here too,\nif the file exists; null = none"},
		{Name: KeyTrain, Type: folder, Help: "one subfolder of images per class; null = as in the training configuration",
			Flag: "train", Usage: "`DIR` of training images, one subfolder per class"},
		{Name: KeyValidation, Type: folder, Help: "the same subfolders", Flag: "validation", Usage: "`DIR` of validation images"},
		{Name: "subset.train", Type: images, Help: "images taken per class; null = all"},
		{Name: "subset.validation", Help: "likewise", Type: images},
	}
	t = t.With(train.Document.Table.Only(func(s setting.Setting) bool { return settingOfTrials(s.Name) }).Set(ofTrials)...)
	return t.With(
		setting.Setting{Name: keyTrainer, Section: "Training of every trial", Type: setting.Text("a trainer that the workers offer, such as torch or sim"), Default: "torch",
			Help: "or sim (curves without training), or a name that the workers offer"},
		setting.Setting{Name: blockTrainer, Block: "{}", Help: "of another trainer than torch, handed through unread"},

		setting.Setting{Name: "quick.trials", Help: "points to try", Section: "--quick: instead of the values above", Type: from1, Default: int64(6)},
		setting.Setting{Name: "quick.epochs", Help: "per trial", Type: from1, Default: int64(2)},
		setting.Setting{Name: "quick.grid_points", Type: from1, Default: int64(2), Help: "of every parameter"},
		setting.Setting{Name: "quick.subset.train", Help: "images per class", Type: images, Default: int64(40), Null: true},
		setting.Setting{Name: "quick.subset.validation", Help: "likewise", Type: images, Default: int64(20), Null: true},

		setting.Setting{Name: keyFolder, Section: "Results", Type: folder, Default: "checkpoints_tuning", Aliases: []string{"output_dir"},
			Help: "results go to checkpoints_tuning/<model>/<search_method>/"},
		setting.Setting{Name: keySave, Type: setting.OneOf("all", "best", "none"), Default: "all", Help: "all: the best model of every trial; best: of the best trial; none"},
		setting.Setting{Name: KeyPlots, Type: setting.Truth(), Default: true, Help: "charts", Off: "no-plots", No: "no charts"},

		setting.Setting{Name: "local.slots", Section: "Where no cluster is addressed: this machine", Type: setting.Is("auto, a number, gpu:N or cpu:N", slots), Default: "auto",
			Help: "trials at once: auto (one per GPU, else one per core up to eight), N, gpu:N, cpu:N"},
		setting.Setting{Name: "local.threads", Type: setting.Integer(0, 100_000_000), Default: int64(0), Help: "of the CPU for a trial; 0 = the cores shared evenly"},
		setting.Setting{Name: "local.redis", Type: setting.OneOf("auto", "on", "off"), Default: "auto", Help: "leaderboards in Redis: auto (where it is installed), on, off"},
		setting.Setting{Name: keyKeep, Type: setting.Truth(), Default: true,
			Help: "the cluster's data and checkpoints after the end, for --resume DIR --trials N;\nfalse: removed"},
	).With(track.Settings("the tuning", true, "--mlflow and --no-mlflow win, then the answer to the question", track.TuningExperiment, "")...)
}

// ofTrials makes a row of a training one of all trials. Those but epochs stand
// in the training configuration.
func ofTrials(s *setting.Setting) {
	s.Aliases = append([]string{}, s.Aliases...)
	for _, a := range s.Aliases {
		s.Aliases = append(s.Aliases, trainingPrefix+a)
	}
	if s.Name != "weights" {
		s.Flag, s.Usage = "", ""
	}
	s.Name, s.Section = trainingPrefix+s.Name, "Training of every trial"
	if s.Elsewhere = s.Name != KeyEpochs; !s.Elsewhere {
		s.Flag, s.Usage, s.Help = "epochs", "train each trial for at most `N` epochs", "and any other key of training_config.yaml but model, seed and data"
	}
}

// settingOfTrials tells the training settings that a tuning hands through from
// those it has keys of its own for.
func settingOfTrials(name string) bool {
	return train.IsTraining(name) && name != KeyModel && name != KeySeed && !strings.HasPrefix(name, "data.")
}

func count(want string) setting.Type {
	t := setting.Integer(1, 100_000_000)
	t.Want = want
	return t
}

func aWhile(v any) bool {
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	return err == nil && d >= time.Second
}

// slots is what a worker takes: auto, N, gpu:N, cpu:N.
func slots(v any) bool {
	if n, ok := v.(int64); ok {
		return n >= 1 && n <= 4096
	}
	s, _ := v.(string)
	if device, number, ok := strings.Cut(s, ":"); ok && (device == "gpu" || device == "cpu") {
		s = number
	}
	return s == "auto" || s != "" && len(s) < 5 && strings.Trim(s, "0123456789") == ""
}
