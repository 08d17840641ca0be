package tune_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/setting"
	"atelier/common/spec"
	"atelier/tuner/tune"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// images makes a data set of empty files: a plan looks at names alone.
func images(t *testing.T, perClass int, classes ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"train", "validation"} {
		for _, class := range classes {
			for i := range perClass {
				path := filepath.Join(dir, part, class, string(rune('a'+i))+".png")
				must(t, os.MkdirAll(filepath.Dir(path), 0o755))
				must(t, os.WriteFile(path, nil, 0o644))
			}
		}
	}
	return dir
}

func specOf(t *testing.T, p *tune.Plan, parallelism int64) (string, *spec.Spec) {
	t.Helper()
	text, s, err := p.Spec(parallelism)
	must(t, err)
	return string(text), s
}

// The layers lie over one another: training configuration, tuning
// configuration, answers, environment, flags.
func TestLayers(t *testing.T) {
	data := images(t, 3, "gothic", "tudor")
	c := tune.New()
	must(t, c.ReadTraining("conf/training_config.yaml", []byte("model: resnet34\nepochs: 50\nlr: 0.01\nimage_size: 96\nseed: 7\nmlflow: {enabled: false}\naugmentation: {cutmix: {enabled: true}}\ndata: {train: "+data+"/train, validation: "+data+"/validation, test: nowhere}\n")))
	must(t, c.ReadFile("conf/tuning_config.yaml", []byte("# a comment\nsearch_method: genetic\ntrials: 12\ntraining: {epochs: 5, patience: 2}\n\nspace:\n  lr: {type: float, low: 0.001, high: 0.1, log: true}\n  # of both\n  batch_size: {type: categorical, choices: [8, 16]}\nobjective: {metric: val_acc}\nstopping: {rule: asha, min_epochs: 1, reduction: 3}\n")))
	must(t, c.Set(tune.KeyModel, "vanilla", setting.Prompt, "prompt"))
	must(t, c.ReadEnvironment(tune.Document.Prefix, []string{"ATELIER_TUNE_TRIALS=9", "ATELIER_TUNE_TRAINING_LABEL_SMOOTHING=0.1", "HOME=/root"}))
	for _, pair := range [][2]string{{"image_size", "48"}, {"training.optimizer", "sgd"}, {"space.lr.high", "0.05"}, {"space.augmentation.rotation", "{type: int, low: 0, high: 20}"}, {"space.batch_size", "null"}, {"stopping.reduction", "2"}} {
		must(t, c.Override(pair[0], pair[1]))
	}
	p, err := tune.NewPlan(c, tune.Wishes{Base: t.TempDir()})
	must(t, err)
	text, s := specOf(t, p, 3)
	for _, want := range []string{`"epochs": 5`, `"patience": 2`, `"image_size": 48`, `"optimizer": "sgd"`, `"label_smoothing": 0.1`, `"model": "vanilla"`, `"lr": 0.01`, `"enabled": true`, `"train": "` + data + `/train"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	for _, not := range []string{"nowhere", "gamma", "mlflow"} {
		if strings.Contains(text, not) {
			t.Errorf("%s in\n%s", not, text)
		}
	}
	if s.SearchMethod != "genetic" || s.Budget.Trials != 9 || s.Parallelism != 3 || !s.Objective.Maximize || s.Seed != 42 || len(s.Space.Params) != 2 || s.Space.Params[0].High != 0.05 || s.Space.Params[1].Name != "augmentation.rotation" ||
		!strings.Contains(s.StoppingJSON, `"reduction":2`) {
		t.Errorf("%+v", s)
	}
	if p.Folder != filepath.Join(p.Base(), "checkpoints_tuning/vanilla/genetic") {
		t.Error(p.Folder)
	}
}

// Every fault of a file is told with its line, and what is near.
func TestFaultsOfAFile(t *testing.T) {
	for text, want := range map[string][]string{
		"trails: 3\n":                         {`f.yaml:1: trails: unknown key; did you mean "trials"?`},
		"trials: 0\nsearch_method: baysian\n": {"f.yaml:1: trials: want a whole number", "f.yaml:2: search_method: want ", "did you mean bayesian?"},
		"search_space: {}\n":                  {`did you mean "space"?`},
		"epochs: 3\n":                         {`did you mean "training.epochs"?`},
		"training:\n  batchsize: 3\n":         {`f.yaml:2: training.batchsize: unknown key; did you mean "training.batch_size"?`},
		"training: {lr: fast}\n":              {"f.yaml:1: training.lr: "},
		"quick: {trails: 3}\n":                {`did you mean "quick.trials"?`},
		"mlflow: {enable: true}\n":            {`did you mean "mlflow.enabled"?`},
		"seed: 1\nspace:\n  lr: {type: float, low: 2, high: 1}\nx: 1\n": {"f.yaml:3: space.lr", "f.yaml:4: x: unknown key"},
		"space:\n  lr:\n    typ: float\n":                               {"f.yaml:3: space.lr", "nearest known key: type"},
		"space: {}\n":                                                   {"f.yaml:1: space: is empty"},
		"stopping: {rule: ashes}\n":                                     {"f.yaml:1: stopping.rule"},
		"{space: {lr: {type: float, low: 2, high: 1}}, trials: 3}\n":    {"f.yaml:1: space.lr"},
		"seed: 1\nspace:\n":                                             {"space: is missing"},
		"local: {slots: many}\n":                                        {"want auto, a number"},
		"- a\n":                                                         {"want keys with values"},
		"space: [\n":                                                    {"f.yaml"},
		"objective: {metric: [a]}\n":                                    {"objective.metric: want the name"},
	} {
		err := tune.New().ReadFile("f.yaml", []byte(text))
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%q: no %q in:\n%v", text, w, err)
			}
		}
	}
}

// Space and stopping rule may stand as YAML lets them: on one line, or behind an alias.
func TestBlocksInAnyForm(t *testing.T) {
	for _, text := range []string{
		"{space: {lr: {type: float, low: 0, high: 1}}, stopping: {rule: asha, max_epochs: 27}, training: {epochs: 27}}\n",
		"training: {epochs: 27}\nspace: {lr: &axis {type: float, low: 0, high: 1}, momentum: *axis}\nstopping: {rule: asha}\n",
	} {
		if err := tune.New().ReadFile("f.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What the trainer would refuse in every trial is refused here.
func TestFaultsOfAPlan(t *testing.T) {
	data := images(t, 2, "gothic", "tudor")
	for name, x := range map[string]struct {
		set  [][2]string
		want string
	}{
		"unknown parameter": {[][2]string{{"space.learning_rte", "{type: float, low: 0.1, high: 0.2}"}}, `space.learning_rte: the trainer has no such setting; did you mean`},
		"no folder":         {[][2]string{{"data.train", "nowhere"}}, "does not exist: name it with --train DIR"},
		"no steps":          {[][2]string{{"search_method", "grid_search"}, {"grid_points", "4"}, {"space.batch_size.type", "float"}}, "space.batch_size"},
		"wrong override":    {[][2]string{{"space.lr.low", "5"}}, "space.lr"},
	} {
		c := tune.New()
		must(t, c.Override("data.train", data+"/train"))
		must(t, c.Override("data.validation", data+"/validation"))
		for _, s := range x.set {
			must(t, c.Override(s[0], s[1]))
		}
		_, err := tune.NewPlan(c, tune.Wishes{Base: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: no %q in: %v", name, x.want, err)
		}
	}
	c := tune.New()
	must(t, c.Override("subset.train", "3"))
	if _, err := tune.NewPlan(c, tune.Wishes{Base: "/", Distant: true}); err == nil || !strings.Contains(err.Error(), "other machines") {
		t.Error(err)
	}
	for _, pair := range [][2]string{{"trails", "3"}, {"trials", "none"}, {"space.lr", "{"}} {
		if err := tune.New().Override(pair[0], pair[1]); err == nil || !strings.Contains(err.Error(), "--set "+pair[0]) {
			t.Errorf("%s: %v", pair[0], err)
		}
	}
}

// A grid is complete unless a number of trials was asked for; --quick reduces
// it.
func TestGrid(t *testing.T) {
	data := images(t, 2, "gothic", "tudor")
	plan := func(quick bool, set ...string) (*tune.Plan, *spec.Spec) {
		c := tune.New()
		for _, s := range append([]string{"data.train=" + data + "/train", "data.validation=" + data + "/validation", "search_method=grid", "space.momentum=null", "space.weight_decay=null"}, set...) {
			key, value, _ := strings.Cut(s, "=")
			must(t, c.Override(key, value))
		}
		p, err := tune.NewPlan(c, tune.Wishes{Base: t.TempDir(), Quick: quick})
		must(t, err)
		_, s := specOf(t, p, 1)
		return p, s
	}
	p, s := plan(false)
	if p.Method != "grid_search" || s.Budget.Trials != 4*3*2 || !strings.Contains(strings.Join(p.Notes, "\n"), "lr: 4 values") {
		t.Errorf("%d points, %v", s.Budget.Trials, p.Notes)
	}
	if filepath.Base(p.Folder) != "grid_search" {
		t.Error(p.Folder)
	}
	if p, s := plan(false, "trials=5"); s.Budget.Trials != 5 || !strings.Contains(strings.Join(p.Notes, "\n"), "5 of its 24 points") {
		t.Errorf("%d points, %v", s.Budget.Trials, p.Notes)
	}
	if _, s := plan(false, "space.lr.steps=3"); s.Budget.Trials != 3*3*2 {
		t.Errorf("%d points with own steps", s.Budget.Trials)
	}
	// batch_size keeps its ends.
	_, s = plan(true)
	if n := s.Space.Params[1].Choices; s.Budget.Trials != 6 || len(n) != 2 || n[0].String() != "16" || n[1].String() != "64" || len(s.Space.Params[0].Values)+int(s.Space.Params[0].Step) < 0 {
		t.Errorf("quick: %d points, %v", s.Budget.Trials, n)
	}
	if size, ok := s.Space.Size(); !ok || size != 8 {
		t.Errorf("quick: a grid of %d", size)
	}
	// Flags have the last word.
	if _, s := plan(true, "trials=7", "training.epochs=9"); s.Budget.Trials != 7 || !strings.Contains(s.TrainingJSON, `"epochs":9`) {
		t.Errorf("quick with flags: %d trials, %s", s.Budget.Trials, s.TrainingJSON)
	}
}

// Another trainer gets what it alone knows.
func TestOtherTrainer(t *testing.T) {
	c := tune.New()
	must(t, c.ReadFile("f.yaml", []byte("trainer: sim\ntrainer_settings:\n  epoch_seconds: 0.5\n  curve: crossing\nspace:\n  depth: {type: int, low: 1, high: 5}\n")))
	must(t, c.Override("trainer_settings.landscape", "3"))
	p, err := tune.NewPlan(c, tune.Wishes{Base: t.TempDir(), Quick: true})
	must(t, err)
	_, s := specOf(t, p, 1)
	if s.Trainer != "sim" || s.TrainingJSON != `{"curve":"crossing","epoch_seconds":0.5,"epochs":2,"landscape":3,"model":"resnet18"}` {
		t.Errorf("%s %s", s.Trainer, s.TrainingJSON)
	}
}

func FuzzReadFile(f *testing.F) {
	for _, s := range []string{"trials: 3\n", "space:\n  lr: {type: float, low: 0, high: 1}\nseed: 1\n", "space: &a [*a]\n", "stopping: {rule: asha}\ntrainer_settings: {a: 1}\n", "{space: 1}", "space: 1\nspace: 2\n", "a: &x {b: *x}\nspace: *x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := tune.New()
		if c.ReadFile("f.yaml", text) != nil {
			return
		}
		c.Override("trainer", "sim")
		if p, err := tune.NewPlan(c, tune.Wishes{Base: "/"}); err == nil {
			if _, _, err := p.Spec(2); err != nil {
				t.Errorf("a plan that was good gives no spec: %v", err)
			}
		}
	})
}
