package main

import (
	"cmp"
	"math"
	"math/rand/v2"

	"atelier/tuner/stop"

	"container/heap"
)

// trial is one training of the surrogate.
type trial struct {
	stop.Trial
	curve []float64
	worth float64 // the last epoch's value without noise
	pace  float64 // virtual seconds an epoch
}

// outcome of a sweep in virtual time.
type outcome struct {
	value   float64 // best of all trials, as a sweep has it: at any epoch trained
	worth   float64 // of the trial that has it, trained to the end and without noise
	epochs  int
	seconds float64
	resumed int
	whole   int // trials trained to the end
}

// event is the end of an epoch.
type event struct {
	at    float64
	trial *trial
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(a[i].at, a[j].at), cmp.Compare(a[i].trial.Number, a[j].trial.Number)) < 0
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

// trials draws the trials of a sweep: random search's points with their curves
// and paces. The same seed gives the same ones whatever the rule.
func (s *surrogate) trials(seed uint64, n int) []*trial {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]*trial, n)
	for i := range out {
		p := draw(r)
		pace := 1.0
		if p.Model == "resnet18" {
			pace = 2.5 // as the recorded trainings took
		}
		values, worth := s.train(p, r)
		out[i] = &trial{Trial: stop.Trial{Number: int64(i + 1)}, curve: values, worth: worth, pace: pace * (0.9 + 0.2*r.Float64())}
	}
	return out
}

// change is what taking up a run costs, in virtual seconds: a new process, the
// data and the checkpoint.
const change = 0.5

// sweep runs trials on workers under a rule, as a cluster does: a trial that
// waits again goes before a new one.
func sweep(rule stop.Settings, p stop.Problem, trials []*trial, workers int) outcome {
	book := rule.NewState(p)
	var now float64
	var busy agenda
	var waiting []*trial
	next, free := 0, workers
	o := outcome{value: math.NaN()}
	better := func(a, b float64) bool {
		return math.IsNaN(b) || p.Maximize && a > b || !p.Maximize && a < b
	}
	for {
		for again := true; again; {
			decisions := book.Decide(int64(len(trials) - next))
			again = len(decisions) > 0
			for _, d := range decisions {
				t := trials[d.Trial-1]
				switch d.Action {
				case stop.Resume:
					t.Status = stop.Waiting
					t.Level++
					o.resumed++
					waiting = append(waiting, t)
				case stop.Pause:
					t.Status = stop.Paused
					free++
				case stop.Stop:
					if t.Status == stop.Running {
						free++
					}
					t.Status = stop.Ended
				}
				book.Put(t.Trial)
			}
		}
		for ; free > 0 && (len(waiting) > 0 || next < len(trials)); free-- {
			var t *trial
			if len(waiting) > 0 {
				t, waiting = waiting[0], waiting[1:]
			} else {
				t = trials[next]
				next++
			}
			t.Status = stop.Running
			book.Put(t.Trial)
			heap.Push(&busy, event{now + change + t.pace, t})
		}
		// Those that were paused or stopped have no epoch to end.
		for len(busy) > 0 && busy[0].trial.Status != stop.Running {
			heap.Pop(&busy)
		}
		if len(busy) == 0 {
			o.seconds = now
			return o
		}
		e := heap.Pop(&busy).(event)
		now = e.at
		t := e.trial
		epoch := len(t.Reports) + 1
		v := t.curve[epoch-1]
		t.Reports = append(t.Reports, stop.Report{Epoch: epoch, Value: v})
		o.epochs++
		if better(v, o.value) {
			o.value, o.worth = v, t.worth
		}
		if epoch == len(t.curve) {
			t.Status = stop.Ended
			free++
			o.whole++
		} else {
			heap.Push(&busy, event{now + t.pace, t})
		}
		book.Put(t.Trial)
	}
}
