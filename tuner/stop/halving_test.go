package stop_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"atelier/tuner/stop"
)

// At every moment no more than 1 in reduction of a rung has gone on (or the one
// that a rung without further arrivals lets go), and a trial trains only as far
// as its level allows.
func TestPromotionsKeepTheQuota(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		eta := 2 + rng.IntN(3)
		rule := settings(t, `{"rule":"asha","max_epochs":27}`)
		rule.Reduction, rule.MinEpochs, rule.Spend = eta, 1+rng.IntN(3), 0
		var rungs []int
		for e := rule.MinEpochs; e < rule.MaxEpochs; e *= eta {
			rungs = append(rungs, e)
		}
		p := &play{rule: rule, problem: stop.Problem{Metric: "loss"}, rng: rng, curve: curves["crossing"](seed), budget: int64(1 + rng.IntN(60)), epochs: 27, workers: 1 + rng.IntN(12)}
		alone := map[int]bool{} // rungs that let one go on before they had reduction trials
		p.renew = func() bool {
			for k, e := range rungs {
				n, on := 0, 0
				for _, tr := range p.trials {
					if epoch(tr) >= e && tr.Level >= k {
						n++
					}
					if tr.Level > k {
						on++
					}
					if tr.Level == k && epoch(tr) > e {
						t.Errorf("seed %d: trial %d trained to epoch %d, its rung is %d", seed, tr.Number, epoch(tr), e)
					}
				}
				if on > n/eta && on != 1 {
					t.Errorf("seed %d: %d of %d went on from epoch %d, 1 in %d may", seed, on, n, e, eta)
				}
				alone[k] = alone[k] || on > n/eta
			}
			return false
		}
		p.run(t)
		for k, e := range rungs {
			n := 0
			for _, tr := range p.trials {
				if epoch(tr) >= e && tr.Level >= k {
					n++
				}
			}
			if alone[k] && n >= eta {
				t.Errorf("seed %d: epoch %d let one go on before its time: %d came", seed, e, n)
			}
		}
		if len(p.finished) == 0 {
			t.Errorf("seed %d: of %d trials none was trained to the end", seed, p.budget)
		}
		if t.Failed() {
			return
		}
	}
}

// What promotions leave of the epochs that a sweep may take goes to the best
// paused trials of the last rung, to less than one such lap, and no more.
func TestLapsSpendWhatIsLeft(t *testing.T) {
	more := 0
	for seed := range uint64(16) {
		var trained [2]int
		var finished [2]int
		left, limit := 0, 0
		for i, spend := range []float64{0, 0.25} {
			rng := rand.New(rand.NewPCG(seed, 8))
			rule := settings(t, `{"rule":"asha","max_epochs":27}`)
			rule.Spend = spend
			p := &play{rule: rule, problem: stop.Problem{Metric: "loss"}, rng: rng, curve: curves["crossing"](seed), budget: int64(8 + rng.IntN(48)), epochs: 27, workers: 1 + rng.IntN(12)}
			p.run(t)
			trained[i], finished[i] = p.trained, len(p.finished)
			limit, left = int(p.budget)*27/4, 0
			for _, tr := range p.trials {
				if epoch(tr) >= 12 && !p.finished[tr.Number] {
					left++
				}
			}
		}
		switch {
		case trained[1] > max(trained[0], limit):
			t.Errorf("seed %d: %d epochs, %d without laps, %d allowed", seed, trained[1], trained[0], limit)
		case left > 0 && trained[1]+15 <= limit:
			t.Errorf("seed %d: %d epochs of %d, and %d paused trials that were not let on", seed, trained[1], limit, left)
		case finished[1] > finished[0]:
			more++
		}
	}
	if more < 8 {
		t.Errorf("laps in %d of 16 sweeps", more)
	}
}

// Without further settings a sweep takes a quarter of the epochs, and its rungs
// are far enough up to tell trials apart.
func TestDefaultsTakeAQuarter(t *testing.T) {
	for most, first := range map[int]int{2: 1, 8: 1, 27: 3, 100: 12} {
		s := settings(t, fmt.Sprintf(`{"rule":"asha","max_epochs":%d}`, most))
		if s.MinEpochs != first || s.Reduction != 4 || s.Spend != 0.25 {
			t.Errorf("of %d epochs: %+v, want the first rung at %d", most, s, first)
		}
	}
}

// The transcript of a small sweep, by hand.
func TestAshaByHand(t *testing.T) {
	b := settings(t, `{"rule":"asha","min_epochs":1,"max_epochs":9,"reduction":3}`).NewState(stop.Problem{Metric: "loss"})
	put := func(n int64, s stop.Status, level int, values ...float64) {
		tr := stop.Trial{Number: n, Status: s, Level: level}
		for i, v := range values {
			tr.Reports = append(tr.Reports, stop.Report{Epoch: i + 1, Value: v})
		}
		b.Put(tr)
	}
	expect := func(unproposed int64, want ...string) {
		t.Helper()
		var got []string
		for _, d := range b.Decide(unproposed) {
			got = append(got, d.Action.String()+" "+string(rune('0'+d.Trial))+": "+d.Reason)
		}
		if !slices.Equal(got, want) {
			t.Errorf("decided\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	put(1, stop.Running, 0)
	put(2, stop.Running, 0)
	expect(2)
	put(1, stop.Running, 0, 0.5)
	expect(2, "pause 1: paused at the rung of epoch 1: the best 1 of 3 continues")
	put(1, stop.Paused, 0, 0.5)
	put(2, stop.Paused, 0, 0.9)
	expect(2, "stop 2: loss 0.9 is 2nd of 2 at epoch 1: only the best one continues")
	expect(4) // six trials in all: two may go on
	put(3, stop.Paused, 0, 0.4)
	expect(3, "stop 2: loss 0.9 is 3rd of 3 at epoch 1: only the best 2 continue",
		"resume 3: loss 0.4 is 1st of 3 at epoch 1: continues to epoch 3")
	put(3, stop.Waiting, 1, 0.4)
	put(2, stop.Ended, 0, 0.9)
	expect(3)
	// A slow trainer: the value at the rung is of the rung, 0.4 and not 0.1.
	put(3, stop.Paused, 1, 0.4, 0.3, 0.3, 0.1)
	expect(3)
	// The rest never comes: what is paused goes on or ends.
	expect(0, "stop 1: loss 0.5 is 2nd of 3 at epoch 1: only the best one continues", "resume 3: loss 0.3 is 1st of 1 at epoch 3: continues to epoch 9")
}

// Who comes late and stands well finds its place taken, and is not called worse
// than those that continue.
func TestPlacesTaken(t *testing.T) {
	for _, trials := range []int64{4, 7} {
		b := settings(t, `{"rule":"asha","min_epochs":1,"max_epochs":9,"reduction":3,"spend":0.1}`).NewState(stop.Problem{Metric: "loss"})
		put := func(n int64, s stop.Status, level int, value float64) {
			b.Put(stop.Trial{Number: n, Status: s, Level: level, Reports: []stop.Report{{Epoch: 1, Value: value}}})
		}
		places := trials / 3
		for n := range trials - 1 {
			if n < places {
				put(n+1, stop.Waiting, 1, 0.5) // continues already
			} else {
				put(n+1, stop.Ended, 0, 0.9)
			}
		}
		put(trials, stop.Paused, 0, 0.1)
		want := map[int64]string{4: "loss 0.1 is 1st of 4 at epoch 1, but the one place was taken", 7: "loss 0.1 is 1st of 7 at epoch 1, but all 2 places were taken"}[trials]
		if got := b.Decide(0); len(got) != 1 || got[0].Action != stop.Stop || got[0].Reason != want {
			t.Errorf("%d trials: %+v, want %s", trials, got, want)
		}
	}
}

// Four trials may take 22 of 32 epochs: two at the rung each, six for the one
// that the quota lets on, six for the next best, and no third time six.
func TestLapsByHand(t *testing.T) {
	b := settings(t, `{"rule":"asha","min_epochs":2,"max_epochs":8,"reduction":4,"spend":0.7}`).NewState(stop.Problem{Metric: "loss"})
	put := func(n int64, s stop.Status, level int, value float64) {
		b.Put(stop.Trial{Number: n, Status: s, Level: level, Reports: []stop.Report{{Epoch: 1, Value: 1}, {Epoch: 2, Value: value}}})
	}
	expect := func(unproposed int64, want string) {
		t.Helper()
		var got []string
		for _, d := range b.Decide(unproposed) {
			got = append(got, fmt.Sprintf("%v %d", d.Action, d.Trial))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("decided %q, want %q", got, want)
		}
	}
	for i, v := range []float64{0.4, 0.2, 0.3} {
		put(int64(i)+1, stop.Paused, 0, v)
	}
	expect(1, "stop 1") // at most two go on, whatever the fourth shows
	put(1, stop.Ended, 0, 0.4)
	put(4, stop.Paused, 0, 0.1)
	expect(0, "resume 2, stop 3, resume 4")
	put(2, stop.Waiting, 1, 0.2)
	put(4, stop.Waiting, 1, 0.1)
	put(3, stop.Ended, 0, 0.3)
	expect(0, "")
}

// Brackets share the trials as hyperband starts them, in any prefix.
func TestHyperbandBrackets(t *testing.T) {
	rule := settings(t, `{"rule":"hyperband","max_epochs":27}`)
	b := rule.NewState(stop.Problem{Metric: "loss"})
	const n = 490
	for i := int64(1); i <= n; i++ {
		tr := stop.Trial{Number: i, Status: stop.Running}
		for e := range 26 {
			tr.Reports = append(tr.Reports, stop.Report{Epoch: e + 1, Value: 1})
		}
		b.Put(tr)
	}
	counts := map[string]int{}
	for _, d := range b.Decide(0) {
		counts[d.Reason]++
	}
	// 27, 12, 6 and 4 of 49; the last four are never compared.
	for epoch, want := range map[string]int{" epoch 1:": 270, " epoch 3:": 120, " epoch 9:": 60} {
		got := 0
		for reason, c := range counts {
			if strings.Contains(reason, epoch) {
				got += c
			}
		}
		if got < want-5 || got > want+5 {
			t.Errorf("%d trials begin at %s, want about %d", got, epoch, want)
		}
	}
}

// Of equal trials the first by number goes on, in whatever order they were told.
func TestEqualTrialsGoOnByNumber(t *testing.T) {
	for _, order := range [][]int64{{1, 2, 3, 4}, {4, 3, 2, 1}, {3, 1, 4, 2}} {
		b := settings(t, `{"rule":"asha","min_epochs":1,"max_epochs":4,"reduction":4,"spend":0}`).NewState(stop.Problem{Metric: "loss"})
		for _, n := range order {
			b.Put(stop.Trial{Number: n, Status: stop.Paused, Reports: []stop.Report{{Epoch: 1, Value: 0.5}}})
		}
		for _, d := range b.Decide(0) {
			if (d.Action == stop.Resume) != (d.Trial == 1) {
				t.Errorf("told in order %v: %s trial %d: %s", order, d.Action, d.Trial, d.Reason)
			}
		}
	}
}
