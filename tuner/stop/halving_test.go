package stop_test

import (
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
		rule.Reduction, rule.MinEpochs = eta, 1+rng.IntN(3)
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

// The transcript of a small sweep, by hand.
func TestAshaByHand(t *testing.T) {
	b := settings(t, `{"rule":"asha","min_epochs":1,"max_epochs":9,"reduction":3}`).Book(stop.Problem{Metric: "loss"})
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
	expect(2, "pause 1: epoch 1 is a rung: 1 of 3 goes on")
	put(1, stop.Paused, 0, 0.5)
	put(2, stop.Paused, 0, 0.9)
	expect(2, "stop 2: loss 0.9 is 2nd of 2 at epoch 1: not among the 1 that go on")
	expect(4) // six trials in all: two may go on
	put(3, stop.Paused, 0, 0.4)
	expect(3, "stop 2: loss 0.9 is 3rd of 3 at epoch 1: not among the 2 that go on",
		"resume 3: loss 0.4 is 1st of 3 at epoch 1: goes on to epoch 3")
	put(3, stop.Waiting, 1, 0.4)
	put(2, stop.Ended, 0, 0.9)
	expect(3)
	// A slow trainer: the value at the rung is of the rung, 0.4 and not 0.1.
	put(3, stop.Paused, 1, 0.4, 0.3, 0.3, 0.1)
	expect(3)
	// The rest never comes: what is paused goes on or ends.
	expect(0, "stop 1: loss 0.5 is 2nd of 3 at epoch 1: not among the 1 that go on", "resume 3: loss 0.3 is 1st of 1 at epoch 3: goes on to epoch 9")
}

// Brackets share the trials as hyperband starts them, in any prefix.
func TestHyperbandBrackets(t *testing.T) {
	rule := settings(t, `{"rule":"hyperband","max_epochs":27}`)
	b := rule.Book(stop.Problem{Metric: "loss"})
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
	for epoch, want := range map[string]int{"epoch 1 ": 270, "epoch 3 ": 120, "epoch 9 ": 60} {
		got := 0
		for reason, c := range counts {
			if strings.HasPrefix(reason, epoch) {
				got += c
			}
		}
		if got < want-5 || got > want+5 {
			t.Errorf("%d trials begin at %s, want about %d", got, epoch, want)
		}
	}
}
