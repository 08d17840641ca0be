package stop_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"atelier/tuner/stop"
)

// play is a sweep in which a rule is obeyed: workers train trials epoch by
// epoch in a random order, decisions are carried out as a cluster would.
type play struct {
	rule     stop.Settings
	problem  stop.Problem
	rng      *rand.Rand
	curve    func(trial int64, epoch int) float64
	budget   int64
	epochs   int
	workers  int
	trials   []*stop.Trial
	paused   map[int64][]int // epochs at which a trial was paused
	finished map[int64]bool
	trained  int
	log      []stop.Decision
	renew    func() bool // true: go on with a new RuleState, as a new leader does
	delay    bool        // decisions reach a run only after another epoch, sometimes
}

func (p *play) newState() stop.RuleState {
	b := p.rule.NewState(p.problem)
	for _, i := range p.rng.Perm(len(p.trials)) {
		b.Put(*p.trials[i])
	}
	return b
}

func (p *play) left() int64 { return p.budget - int64(len(p.trials)) }

// run plays to the end and reports what it met that no rule may do.
func (p *play) run(t *testing.T) {
	t.Helper()
	p.paused, p.finished = map[int64][]int{}, map[int64]bool{}
	b := p.newState()
	for step := 0; ; step++ {
		if step > 1_000_000 {
			t.Fatal("the sweep does not end")
		}
		if p.renew != nil && p.renew() {
			b = p.newState()
		}
		for settled := 0; ; settled++ {
			again := b.Decide(p.left())
			if other := p.newState().Decide(p.left()); !slices.Equal(again, other) {
				t.Fatalf("a new state decides %v, the old one %v", other, again)
			}
			if len(again) == 0 {
				break
			}
			if settled > 10*len(p.trials)+10 {
				t.Fatalf("decisions never settle: %v", again)
			}
			for _, d := range again {
				p.obey(t, d)
				b.Put(*p.trials[d.Trial-1])
			}
		}
		// Fill the slots: what waits first, then new trials.
		var running, waiting []*stop.Trial
		for _, tr := range p.trials {
			switch tr.Status {
			case stop.Running:
				running = append(running, tr)
			case stop.Waiting:
				waiting = append(waiting, tr)
			}
		}
		for len(running) < p.workers && len(waiting) > 0 {
			waiting[0].Status = stop.Running
			b.Put(*waiting[0])
			running, waiting = append(running, waiting[0]), waiting[1:]
		}
		for len(running) < p.workers && p.left() > 0 {
			tr := &stop.Trial{Number: int64(len(p.trials)) + 1, Status: stop.Running}
			p.trials = append(p.trials, tr)
			running = append(running, tr)
			b.Put(*tr)
		}
		if len(running) == 0 {
			break
		}
		tr := running[p.rng.IntN(len(running))]
		late := p.delay && p.rng.IntN(3) == 0
		switch {
		case tr.Asked == stop.Pause && !late:
			tr.Status, tr.Asked = stop.Paused, 0
			p.paused[tr.Number] = append(p.paused[tr.Number], epoch(tr))
		case tr.Asked == stop.Stop && !late:
			tr.Status, tr.Asked = stop.Ended, 0
		default:
			tr.Reports = append(tr.Reports, stop.Report{Epoch: epoch(tr) + 1, Value: p.curve(tr.Number, epoch(tr)+1)})
			p.trained++
			if epoch(tr) == p.epochs {
				tr.Status, tr.Asked = stop.Ended, 0
				p.finished[tr.Number] = true
			}
		}
		b.Put(*tr)
	}
	if int64(len(p.trials)) != p.budget {
		t.Errorf("%d trials of %d", len(p.trials), p.budget)
	}
	for _, tr := range p.trials {
		if tr.Status != stop.Ended {
			t.Errorf("trial %d is left %v at epoch %d", tr.Number, tr.Status, epoch(tr))
		}
	}
}

// obey carries a decision out on the state.
func (p *play) obey(t *testing.T, d stop.Decision) {
	t.Helper()
	if d.Trial < 1 || d.Trial > int64(len(p.trials)) || d.Reason == "" {
		t.Fatalf("decision %+v", d)
	}
	p.log = append(p.log, d)
	tr := p.trials[d.Trial-1]
	switch {
	case tr.Status == stop.Ended:
		t.Fatalf("%+v of a trial that has ended", d)
	case d.Action == stop.Resume:
		if tr.Status != stop.Paused {
			t.Fatalf("%+v of a trial that is not paused", d)
		}
		tr.Status = stop.Waiting
		tr.Level++
	case d.Action == stop.Pause && tr.Status == stop.Running, d.Action == stop.Stop && tr.Status == stop.Running:
		tr.Asked = d.Action
	case d.Action == stop.Pause:
		tr.Status = stop.Paused
	case d.Action == stop.Stop:
		tr.Status = stop.Ended
	default:
		t.Fatalf("decision %+v", d)
	}
}

func epoch(t *stop.Trial) int {
	if len(t.Reports) == 0 {
		return 0
	}
	return t.Reports[len(t.Reports)-1].Epoch
}

func settings(t *testing.T, text string) stop.Settings {
	t.Helper()
	s, err := stop.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var every = []string{
	`{"rule":"asha","max_epochs":27}`,
	`{"rule":"asha","min_epochs":2,"max_epochs":30,"reduction":2}`,
	`{"rule":"hyperband","max_epochs":27}`,
	`{"rule":"median"}`,
	`{"rule":"percentile","percentile":30}`,
	`{"rule":"patience","patience":4,"min_delta":0.01}`,
	`{"rule":"segment","interval":4,"max_epochs":20}`,
	`{"rule":"none"}`,
}

// curves by name: what a trainer may show.
var curves = map[string]func(seed uint64) func(int64, int) float64{
	"crossing": func(seed uint64) func(int64, int) float64 {
		return func(n int64, e int) float64 {
			r := rand.New(rand.NewPCG(seed, uint64(n)))
			floor, rate := r.Float64(), 0.02+r.Float64()
			noise := rand.New(rand.NewPCG(uint64(n), uint64(e))).Float64()
			return floor + 2*math.Exp(-rate*float64(e)) + 0.05*noise
		}
	},
	"equal":    func(uint64) func(int64, int) float64 { return func(int64, int) float64 { return 1 } },
	"nan":      func(uint64) func(int64, int) float64 { return func(int64, int) float64 { return math.NaN() } },
	"infinite": func(uint64) func(int64, int) float64 { return func(int64, int) float64 { return math.Inf(1) } },
	"some nan": func(seed uint64) func(int64, int) float64 {
		return func(n int64, e int) float64 {
			if (uint64(n)+seed)%3 == 0 && e > int(n%4) {
				return math.NaN()
			}
			return float64(n%7) + 1/float64(e)
		}
	},
}

// Every rule, with every kind of curve, either direction, on time and late,
// with leaders that change: the sweep ends, nothing is left, and nothing is
// decided that cannot be carried out.
func TestEveryRule(t *testing.T) {
	for _, text := range every {
		rule := settings(t, text)
		for name, make := range curves {
			for seed := range uint64(8) {
				rng := rand.New(rand.NewPCG(seed, 1))
				p := &play{rule: rule, problem: stop.Problem{Metric: "loss", Maximize: seed%2 == 1}, rng: rng, curve: make(seed), budget: 1 + int64(rng.IntN(40)),
					epochs: max(rule.MaxEpochs, 20), workers: 1 + rng.IntN(8), delay: seed%4 >= 2, renew: func() bool { return rng.IntN(10) == 0 }}
				t.Run(fmt.Sprintf("%s/%s/%d", text, name, seed), p.run)
				if t.Failed() {
					return
				}
			}
		}
	}
}

// The direction turned and the values negated: the same decisions.
func TestDirection(t *testing.T) {
	for _, text := range every {
		var logs [2][]stop.Decision
		for i, sign := range []float64{1, -1} {
			curve := curves["crossing"](3)
			p := &play{rule: settings(t, text), problem: stop.Problem{Metric: "m", Maximize: sign < 0}, rng: rand.New(rand.NewPCG(1, 2)),
				curve: func(n int64, e int) float64 { return sign * curve(n, e) }, budget: 30, epochs: 30, workers: 4}
			p.run(t)
			logs[i] = p.log
		}
		same := slices.EqualFunc(logs[0], logs[1], func(a, b stop.Decision) bool { return a.Trial == b.Trial && a.Action == b.Action })
		if !same {
			t.Errorf("%s: minimising decides %v, maximising the negative %v", text, logs[0], logs[1])
		}
	}
}
