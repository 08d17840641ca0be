package tune_test

import (
	"strings"
	"testing"

	"atelier/common/setting"
	"atelier/tuner/train"
	"atelier/tuner/tune"
)

// A fault of what is searched names the line of the person's file, or the flag,
// and not a text that the program has put together.
func TestFaultsOfThePlanHaveTheirPlaces(t *testing.T) {
	const file = "# mine\nmodel: vanilla\nspace:\n  lr: {type: float, low: 0.001, high: 0.1}\n  learningrate: {type: float, low: 0.001, high: 0.1}\n  optimizer: {type: categorical, choices: [adm, sgd]}\n"
	for _, x := range []struct {
		name, file string
		set        []string
		want       string
		flag       bool
	}{
		{"a parameter that is no setting", file, nil, "conf/mine.yaml:5: space.learningrate: ", false},
		{"a choice that is no value", file, nil, `conf/mine.yaml:6: space.optimizer.choices[0]: want one of sgd, adam`, false},
		{"a flag's key", "", []string{"space.lr.hgh=3"}, "--set space.lr.hgh: unknown key; nearest known key: high", true},
		{"a flag's value", "", []string{"space.momentum.high=3"}, "--set space.momentum.high: the trainer's momentum: want a number from 0", true},
		{"a flag over the file", strings.ReplaceAll(strings.ReplaceAll(file, "adm", "adam"), "  learningrate: {type: float, low: 0.001, high: 0.1}\n", ""), []string{"space.lr.hgh=3"}, "--set space.lr.hgh: unknown key", true},
		{"a metric", "objective: {metric: val_lss}\n", nil, "conf/mine.yaml:1: objective.metric: the trainer does not report", false},
	} {
		c := tune.New()
		if x.file != "" {
			if err := c.ReadFile("conf/mine.yaml", []byte(x.file)); err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
		}
		for _, pair := range x.set {
			key, value, _ := strings.Cut(pair, "=")
			if err := c.Override(key, value); err != nil {
				t.Fatal(err)
			}
		}
		for _, folder := range []string{tune.KeyTrain, tune.KeyValidation} {
			if err := c.Set(folder, "/elsewhere", setting.Flag, "--data"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := tune.NewPlan(c, tune.Wishes{Base: "/", Distant: true})
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "the tuning:") || train.FromFlags(err) != x.flag {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}
