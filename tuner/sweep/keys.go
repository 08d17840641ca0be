package sweep

import (
	"slices"
	"strings"

	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/pbt"
	"atelier/tuner/search"
	"atelier/tuner/stop"
)

// Which parameters a key of space belongs to.
const (
	ofNumbers = "type float or int"
	ofChoices = "type categorical"
)

var (
	searchMethods = append(slices.Clip(search.Methods), pbt.Name)
	directions    = []string{"minimize", "maximize"}
	kinds         = []string{"float", "int", "categorical"}
)

// Document declares what a spec may have: the one list of its keys. The parser
// refuses what is not in it; `atelier explain`, the reference page, the manual page
// and the completion are made of it. A name in capitals is the person's own (a
// parameter, a label); [] is an item of a list.
var Document = setting.Document{Command: "sweep", File: "SPEC", Title: "the spec of a sweep", Table: keys()}

// of is a key that has keys of its own; below says which.
func of(want string) setting.Type { return setting.Is(want, nil) }

func keys() setting.Table {
	metric := setting.Setting{Name: "metric", Needed: true, Type: setting.Text("the name of a metric"), Example: "val_loss",
		Help: "a metric that the trainer reports; torch reports " + strings.Join(settings.Metrics, ", ")}
	direction := setting.Setting{Name: "direction", Needed: true, Type: setting.OneOf(directions...), Example: "minimize", Help: "whether small or large values are better; it is never guessed from the metric's name"}
	size, time := setting.Is("a size such as 10GB, 512MiB or 4096 (bytes)", nil), setting.Is("a length of time from 1s on, such as 90m, 2h or 1h30m", nil)
	bound := setting.Is("a finite number", nil)
	value := setting.Is("a number, a text, true or false", nil)

	t := setting.Table{
		{Name: "name", Section: "The sweep", Type: setting.Is("a text of at most 200 characters", nil), Else: "the file's name without its ending", Example: "facades", Help: "what the sweep is called in lists and reports"},
		{Name: "search_method", Needed: true, Type: setting.OneOf(searchMethods...), Example: "bayesian",
			Help: "how points are proposed. grid_search: all combinations; random; sobol: random, but evenly spread; bayesian: a model of the results so far; genetic: evolution; pbt: population-based training"},
		{Name: "algorithm", Of: "search_method bayesian", Type: setting.OneOf(search.Algorithms...), Default: search.Auto, Example: "tpe",
			Help: "gp: Gaussian process, the most from few trials; tpe: for many trials or parameters; cmaes: for numbers alone; auto: gp or tpe, by the budget and the number of parameters"},
		{Name: "seed", Type: setting.Unsigned(), Else: "drawn when the sweep is submitted, and shown", Example: "42", Help: "of the search and of every trial: the same spec with the same seed proposes the same points"},
		{Name: "parallelism", Type: setting.Integer(1, maxParallelism), Default: int64(DefaultParallelism), Example: "4", Help: "trials open at once, at most; of search_method pbt: members of the population"},
		{Name: "max_retries", Type: setting.Integer(0, maxRetries), Default: int64(DefaultMaxRetries), Example: "3", Help: "how often a trial is tried again after a run that failed"},
		{Name: "trainer", Type: setting.Text("the name of a trainer that the workers offer"), Default: DefaultTrainer, Example: "torch",
			Help: "torch: training with libtorch; sim: learning curves without training; external: programs of your own ask for trials (deploy/docs/external.md); or a name that the workers offer"},
		{Name: "priority", Type: setting.Integer(-maxPriority, maxPriority), Default: int64(0), Example: "5", Help: "the sweep of the highest priority gets free slots first, equals share evenly; what runs is not taken away"},
		{Name: "requires", Else: "any worker", Type: of("labels with their values"), Example: "{gpu: a100}", Help: "labels that a worker must carry to get trials of this sweep (atelier-worker --labels)"},
		{Name: "requires.LABEL", Needed: true, Type: setting.Is("a text of at most 200 bytes", nil), Example: "a100", Help: "the value that this label must have"},

		{Name: "objective", Section: "What is optimised", Else: "objectives", Type: of("a metric and a direction"), Example: "{metric: val_loss, direction: minimize}", Help: "what is optimised; one of objective and objectives is needed"},
	}
	t = t.With(below("objective", metric, direction)...).With(
		setting.Setting{Name: "objectives", Else: "objective", Type: of("a list of objectives, at most 8"), Example: "[{metric: val_acc, direction: maximize}, {metric: images_per_s, direction: maximize}]", Help: "several objectives, whose answer is a Pareto front; trials are ranked and stopped by the first"},
	).With(below("objectives[]", metric, direction)...).With(
		setting.Setting{Name: "constraints", Else: "none", Type: of("a list of bounds, at most 32"), Example: "[{metric: val_loss, max: 2.5}]", Help: "bounds that a metric has to keep for an epoch to count"},
	).With(below("constraints[]", metric,
		setting.Setting{Name: "max", Type: bound, Else: "no bound", Example: "2.5", Help: "the largest value that is allowed; at least one of max and min is needed"},
		setting.Setting{Name: "min", Type: bound, Else: "no bound", Example: "0.5", Help: "the smallest value that is allowed"})...).With(
		setting.Setting{Name: "budget", Section: "How much", Type: of("trials, epochs or time"), Else: "of grid_search and pbt all there is; of other methods it is needed", Example: "{trials: 40, time: 2h}", Help: "what ends the sweep; the first limit that is reached does, and none is exceeded"},
	).With(below("budget",
		setting.Setting{Name: "trials", Type: setting.Integer(1, MaxTrials), Else: "no limit", Example: "40", Help: "trials in all"},
		setting.Setting{Name: "epochs", Type: setting.Integer(1, maxEpochs), Else: "no limit", Example: "500", Help: "epochs that all trials report together"},
		setting.Setting{Name: "time", Type: time, Else: "no limit", Example: "2h", Help: "time in which the sweep runs; pauses are not counted"})...).With(
		setting.Setting{Name: "checkpoints", Type: of("budget"), Else: "no limit", Example: "{budget: 10GB}", Help: "the room that checkpoints may take"},
		setting.Setting{Name: "checkpoints.budget", Type: size, Else: "no limit", Example: "10GB", Help: "for all checkpoints of the sweep, kept while it runs; the best one and those that an open trial resumes from always stay"},
		setting.Setting{Name: "enqueue", Type: of("a list of points, at most 10,000"), Else: "none", Example: "[{lr: 0.01, optimizer: adam}]", Help: "points tried before any that search proposes; they are part of the budget"},
		setting.Setting{Name: "enqueue[].NAME", Type: value, Needed: true, Example: "0.01", Help: "the value of this parameter; a point has one for every active parameter"},
		setting.Setting{Name: "warm_start", Type: setting.Text("the id of a sweep"), Else: "none", Example: "s-k3v9q2ma", Help: "search begins with the results of that sweep; parameters match by name"},

		setting.Setting{Name: "space", Section: "What is searched", Needed: true, Type: of("parameters"), Example: "{lr: {type: float, low: 1.0e-5, high: 0.1, log: true}}",
			Help: "the parameters, in the order of grids and tables. With trainer torch they are training settings, nested ones with dots (augmentation.cutmix.alpha)"},
		setting.Setting{Name: "space.NAME", Type: of("a parameter"), Needed: true, Example: "{type: float, low: 1.0e-5, high: 0.1, log: true}", Help: "one parameter"},
	).With(below("space.NAME",
		setting.Setting{Name: "type", Needed: true, Type: setting.OneOf(kinds...), Example: "float", Help: "float: a number; int: a whole number; categorical: one of choices"},
		setting.Setting{Name: "low", Of: ofNumbers, Type: bound, Else: "the smallest of values, where those are given", Example: "1.0e-5", Help: "the smallest value; it may be proposed itself"},
		setting.Setting{Name: "high", Of: ofNumbers, Type: bound, Else: "the largest of values, where those are given", Example: "0.1", Help: "the largest value; it may be proposed itself"},
		setting.Setting{Name: "log", Of: ofNumbers, Type: setting.Truth(), Default: false, Example: "true", Help: "search on a logarithmic scale; low has to be above 0"},
		setting.Setting{Name: "step", Of: ofNumbers, Type: setting.Real("above 0", func(x float64) bool { return x > 0 }), Else: "1 (int), any distance (float)", Example: "0.01", Help: "the distance between values, from low on"},
		setting.Setting{Name: "steps", Of: ofNumbers, Type: setting.Integer(1, maxSteps), Else: "none", Example: "5", Help: "so many values from low to high, even on the parameter's scale; instead of step"},
		setting.Setting{Name: "values", Of: ofNumbers, Type: of("a list of numbers, at most 10,000"), Else: "none", Example: "[0.1, 0.01, 0.001]", Help: "the only values that are proposed; instead of low and high"},
		setting.Setting{Name: "choices", Of: ofChoices, Needed: true, Type: of("a list of numbers, texts, true or false, at most 10,000"), Example: "[16, 32, 64]", Help: "what is chosen from; no order is assumed"},
		setting.Setting{Name: "when", Type: of("other parameters with values"), Else: "always", Example: "{optimizer: [sgd]}", Help: "the parameter is active only where each of these parameters has one of its values"},
		setting.Setting{Name: "when.NAME", Needed: true, Type: setting.Is("a value, or a list of values", nil), Example: "[sgd]", Help: "values of the parameter NAME"})...).With(

		setting.Setting{Name: "training", Section: "How each trial trains", Type: of("settings of the trainer"), Else: "the trainer's defaults", Example: "{model: resnet18, epochs: 12, data: {train: run/facades/train, validation: run/facades/validation}}",
			Help: "settings of all trials, nested or with dots; a parameter of the space of the same name wins. The keys below are those of trainer torch; another trainer has keys of its own, which are passed on"},
	).With(settings.Table.Set(func(s *setting.Setting) {
		s.Name, s.Section, s.Flag, s.Usage = "training."+s.Name, "", "", ""
		s.Needed = s.Name == "training.data.train" || s.Name == "training.data.validation"
	})...).With(
		setting.Setting{Name: "stopping", Section: "Which trials end early", Type: of("a rule and its keys"), Else: "none", Example: "{rule: asha}", Help: "a rule that ends poor trials before their last epoch"},
		setting.Setting{Name: "stopping.rule", Needed: true, Type: setting.OneOf(stop.Rules...), Example: "asha", Help: stop.About()},
	).With(below("stopping", stop.Keys().Set(fromTraining)...)...).With(
		setting.Setting{Name: "population", Section: "Population-based training", Of: "search_method pbt", Type: of("interval, share and perturb"), Else: "the defaults below", Example: "{interval: 3}", Help: "the members are the sweep's parallelism; each trains in segments, and between them the worst take over the checkpoints and moved parameters of the best"},
	)
	return t.With(below("population",
		setting.Setting{Name: "interval", Of: "search_method pbt", Type: setting.Is("a whole number from 1 to training.epochs", nil), Else: "a tenth of training.epochs", Example: "3", Help: "epochs of a segment"},
		setting.Setting{Name: "share", Of: "search_method pbt", Type: setting.Above(0, maxShare), Default: pbt.Default().Share, Example: "0.25", Help: "share of the members that are replaced, and that are taken over"},
		setting.Setting{Name: "perturb", Of: "search_method pbt", Type: setting.Above(0, maxPerturb), Default: pbt.Default().Perturb, Example: "0.1", Help: "how far a number is moved, as a share of its range"})...)
}

// fromTraining is what a spec adds to the defaults of a stopping rule.
func fromTraining(s *setting.Setting) {
	switch s.Name {
	case "max_epochs":
		s.Else = "training.epochs, which it may not differ from"
	case "min_epochs":
		s.Else = "an eighth of max_epochs of asha, 1 of hyperband"
	}
}

// below are rows of keys below a path.
func below(path string, rows ...setting.Setting) []setting.Setting {
	out := slices.Clone(rows)
	for i := range out {
		out[i].Name = path + "." + out[i].Name
	}
	return out
}

// children are the keys right below a path, of which the parser takes no other;
// "" is the whole spec.
func children(path string) []string {
	var names []string
	for _, s := range Document.Table {
		name := s.Name
		if path != "" {
			after, ok := strings.CutPrefix(name, path+".")
			if !ok {
				continue
			}
			name = after
		}
		if !strings.ContainsAny(name, ".[") {
			names = append(names, name)
		}
	}
	return names
}

// fieldsOf are the keys of a parameter that belong to every type or to this one.
func fieldsOf(kind string) []string {
	return slices.DeleteFunc(children("space.NAME"), func(name string) bool {
		of := Document.Table.Find("space.NAME." + name).Of
		return of == ofNumbers && kind == "categorical" || of == ofChoices && kind != "categorical"
	})
}
