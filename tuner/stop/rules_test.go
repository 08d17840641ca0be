package stop_test

import (
	"math"
	"strings"
	"testing"

	"atelier/tuner/stop"
)

func curveOf(n int64, values ...float64) stop.Trial {
	t := stop.Trial{Number: n, Status: stop.Running}
	for i, v := range values {
		t.Reports = append(t.Reports, stop.Report{Epoch: i + 1, Value: v})
	}
	return t
}

// What each rule says of the trial put last, the others before it.
func TestRulesByHand(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		what, rule string
		trials     []stop.Trial
		want       string // "" = nothing
	}{
		{"median, worse", `{"rule":"median","warmup_trials":3}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 5, 5), curveOf(4, 4, 3)},
			"stop 4: best loss 3 up to epoch 2 is worse than 2.5, the median of 3 trials' means"},
		{"median, as good", `{"rule":"median","warmup_trials":3}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 5, 5), curveOf(4, 4, 2.5)}, ""},
		{"median, too few", `{"rule":"median","warmup_trials":4}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 5, 5), curveOf(4, 4, 3)}, ""},
		{"median, warm-up", `{"rule":"median","warmup_trials":3,"warmup_epochs":2}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 5, 5), curveOf(4, 4, 3)}, ""},
		{"median, NaN", `{"rule":"median","warmup_trials":1}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, nan, nan)},
			"stop 2: best loss NaN up to epoch 2 is worse than 2, the median of 1 trials' means"},
		{"percentile, worse", `{"rule":"percentile","percentile":50,"warmup_trials":4}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 3, 2.5), curveOf(4, 3, 3), curveOf(5, 2.2, 9)},
			"stop 5: best loss 2.2 up to epoch 2 is worse than 2, the edge of the best 50 % of 4 trials"},
		{"percentile, in", `{"rule":"percentile","percentile":75,"warmup_trials":4}`, []stop.Trial{curveOf(1, 3, 1), curveOf(2, 3, 2), curveOf(3, 3, 2.5), curveOf(4, 3, 3), curveOf(5, 2.2, 9)}, ""},
		{"patience, over", `{"rule":"patience","patience":2}`, []stop.Trial{curveOf(1, 3, 2, 2, 2)}, "stop 1: no better loss than 2 of epoch 2 in 2 epochs"},
		{"patience, not yet", `{"rule":"patience","patience":3}`, []stop.Trial{curveOf(1, 3, 2, 2, 2)}, ""},
		{"patience, too little", `{"rule":"patience","patience":2,"min_delta":0.5}`, []stop.Trial{curveOf(1, 3, 2, 1.8, 1.6)}, "stop 1: no better loss than 2 of epoch 2 in 2 epochs"},
		{"patience, NaN", `{"rule":"patience","patience":2}`, []stop.Trial{curveOf(1, nan, nan)}, "stop 1: no finite loss in 2 epochs"},
		{"segment, over", `{"rule":"segment","interval":2,"max_epochs":8}`, []stop.Trial{{Number: 1, Status: stop.Running, From: 2, Reports: []stop.Report{{Epoch: 3, Value: 1}, {Epoch: 4, Value: nan}}}},
			"stop 1: its segment of 2 epochs is trained, up to epoch 4"},
		{"segment, within", `{"rule":"segment","interval":3,"max_epochs":8}`, []stop.Trial{{Number: 1, Status: stop.Running, From: 2, Reports: []stop.Report{{Epoch: 3, Value: 1}, {Epoch: 4, Value: 1}}}}, ""},
		{"segment, the last", `{"rule":"segment","interval":2,"max_epochs":4}`, []stop.Trial{curveOf(1, 3, 2, 1, 1)}, ""},
		{"asha, NaN", `{"rule":"asha","max_epochs":9}`, []stop.Trial{curveOf(1, nan)}, "stop 1: loss has no finite value up to epoch 1"},
	} {
		b := settings(t, c.rule).NewState(stop.Problem{Metric: "loss"})
		for _, tr := range c.trials {
			b.Put(tr)
		}
		last := c.trials[len(c.trials)-1].Number
		got := ""
		for _, d := range b.Decide(10) {
			if d.Trial == last {
				got = d.Action.String() + " " + string(rune('0'+d.Trial)) + ": " + d.Reason
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestParseNamesTheKey(t *testing.T) {
	for text, says := range map[string][]string{
		`{"rule":"asha"}`:                               {"stopping.max_epochs", "missing"},
		`{"rule":"ahsa","max_epochs":3}`:                {"stopping.rule", "ahsa", "asha"},
		`{"rule":"asha","max_epoch":3}`:                 {"stopping.max_epoch", "max_epochs"},
		`{"rule":"asha","max_epochs":27,"patience":3}`:  {"stopping.patience", "belongs to rule patience"},
		`{"rule":"asha","max_epochs":27,"reduction":1}`: {"stopping.reduction", "2 to 1000", "not 1"},
		`{"rule":"asha","max_epochs":2.5}`:              {"stopping.max_epochs", "whole number", "2.5"},
		`{"rule":"asha","max_epochs":"27"}`:             {"stopping.max_epochs", "a number", `"27"`},
		`{"rule":"asha","max_epochs":9,"min_epochs":9}`: {"stopping.min_epochs", "not below max_epochs"},
		`{"rule":"asha","max_epochs":9,"max_epochs":9}`: {"stopping.max_epochs", "twice"},
		`{"rule":"percentile","percentile":100}`:        {"stopping.percentile", "below 100"},
		`{"rule":"patience","min_delta":-1}`:            {"stopping.min_delta", "0 or above"},
		`{"rule":"median","warmup_epochs":1e300}`:       {"stopping.warmup_epochs", "whole number"},
		`{"max_epochs":27}`:                             {"stopping.rule", "missing", "hyperband"},
		`{"rule":7}`:                                    {"stopping.rule", "7"},
		`[]`:                                            {"stopping:", "JSON object"},
		`{"rule":"none"} x`:                             {"stopping:", "JSON object"},
	} {
		_, err := stop.Parse([]byte(text))
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		for _, s := range says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q lacks %q", text, err, s)
			}
		}
	}
}

// What is written canonically reads back as the same, from a log too.
func FuzzParse(f *testing.F) {
	for _, text := range every {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"rule":"asha","max_epochs":9,"x":{"y":[1]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := stop.Parse(text)
		if err != nil {
			return
		}
		again, err := stop.Parse([]byte(s.JSON()))
		if err != nil || again != s {
			t.Fatalf("%s reads back as %+v, %v", s.JSON(), again, err)
		}
		if stored, err := stop.Read(s.JSON()); err != nil || stored != s {
			t.Fatalf("%s reads back from a log as %+v, %v", s.JSON(), stored, err)
		}
		s.NewState(stop.Problem{Metric: "m"})
	})
}
