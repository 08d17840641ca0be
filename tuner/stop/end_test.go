package stop_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"atelier/tuner/stop"
)

// Where a run ends, known beforehand, is where the rule would end it once that
// epoch is reported, with the same words, and at no epoch before.
func TestEndIsWhatTheRuleWillSay(t *testing.T) {
	for _, rule := range []string{`{"rule":"asha","max_epochs":27,"min_epochs":1,"reduction":3}`, `{"rule":"hyperband","max_epochs":27,"reduction":3}`,
		`{"rule":"segment","interval":4,"max_epochs":27}`} {
		s := settings(t, rule)
		known := 0
		for number := int64(1); number <= 40; number++ {
			for level := range 5 {
				from := 0
				if s.Rule == stop.Segment {
					from = 4 * level
				}
				end, ok := s.End(number, level, from)
				last := 27
				if ok {
					last = end.Epoch
					known++
				}
				state := s.NewState(stop.Problem{Metric: "loss"})
				tr := stop.Trial{Number: number, Status: stop.Running, Level: level, From: from}
				for epoch := from + 1; epoch <= last; epoch++ {
					tr.Reports = append(tr.Reports, stop.Report{Epoch: epoch, Value: 1})
					state.Put(tr)
					said := ""
					for _, d := range state.Decide(0) {
						if d.Trial == number {
							said = fmt.Sprint(d.Action, ": ", d.Reason)
						}
					}
					want := ""
					if ok && epoch == last {
						want = fmt.Sprint(end.Action, ": ", end.Reason)
					}
					if said != want {
						t.Fatalf("%s: trial %d of level %d from epoch %d, at epoch %d: the rule says %q, known before was %q", rule, number, level, from, epoch, said, want)
					}
				}
			}
		}
		if known == 0 {
			t.Errorf("%s: no end is known", rule)
		}
	}
	for _, rule := range []string{`{"rule":"median"}`, `{"rule":"percentile","percentile":50}`, `{"rule":"patience","patience":3}`, `{"rule":"none"}`} {
		if end, ok := settings(t, rule).End(3, 0, 0); ok {
			t.Errorf("%s: ends at %+v, which depends on what is reported", rule, end)
		}
	}
}

// What is expected of a rule beforehand is what sweeps come to that are played to
// their end, to a tenth and some laps; of rules that only compare reports it is
// the most there can be.
func TestExpectedIsWhatSweepsComeTo(t *testing.T) {
	for _, text := range every {
		for seed := range uint64(6) {
			rng := rand.New(rand.NewPCG(seed, 5))
			rule := settings(t, text)
			if rule.Rule == stop.Segment {
				continue // its trials are segments, which population-based training counts
			}
			p := &play{rule: rule, problem: stop.Problem{Metric: "loss"}, rng: rng, curve: curves["crossing"](seed), budget: int64(4 + rng.IntN(80)), epochs: max(rule.MaxEpochs, 20), workers: 1 + rng.IntN(8)}
			p.run(t)
			about := rule.Expected(p.budget, int64(p.epochs))
			exact := rule.Rule == stop.ASHA || rule.Rule == stop.Hyperband
			off := math.Abs(float64(about) - float64(p.trained))
			if most := p.budget * int64(p.epochs); about > most || int64(p.trained) > most || !exact && about != most || exact && off > 0.1*float64(p.trained)+2*float64(p.epochs) {
				t.Errorf("%s, %d trials: %d epochs expected, %d trained", text, p.budget, about, p.trained)
			}
		}
	}
}
