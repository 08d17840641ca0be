package group

import (
	"math"

	"atelier/common/trainerproto"
)

// paceSteps is over how many of the last steps Pace looks.
const paceSteps = 64

// sample is how long a member computed for a step, and waited for others in the
// step before, in seconds.
type sample struct{ compute, wait float64 }

// pace keeps the samples of the last steps with sums, of each member.
type pace struct {
	steps []float64 // seconds from commit to commit
	of    map[int][]sample
}

func (p *pace) add(seconds float64, tails map[int]tail) {
	if p.of == nil {
		p.of = map[int][]sample{}
	}
	p.steps = lastOf(p.steps, seconds)
	for id := range p.of {
		if _, member := tails[id]; !member {
			delete(p.of, id)
		}
	}
	for id, t := range tails {
		if ok(t.pace.compute) && ok(t.pace.wait) {
			p.of[id] = lastOf(p.of[id], t.pace)
		}
	}
}

func ok(seconds float64) bool { return seconds >= 0 && seconds < 1e9 && !math.IsNaN(seconds) }

func lastOf[T any](list []T, v T) []T {
	if len(list) == paceSteps {
		copy(list, list[1:])
		list = list[:paceSteps-1]
	}
	return append(list, v)
}

// summary is nil before the first step. members are in rank order.
func (p *pace) summary(members []int) *trainerproto.Pace {
	if len(p.steps) == 0 {
		return nil
	}
	out := &trainerproto.Pace{}
	for _, s := range p.steps {
		out.Step += s / float64(len(p.steps))
	}
	total, longest, n := 0.0, -1.0, 0
	for _, id := range members {
		list := p.of[id]
		if len(list) == 0 {
			continue
		}
		compute, wait := 0.0, 0.0
		for _, s := range list {
			compute += s.compute
			wait += s.wait
		}
		mean := compute / float64(len(list))
		if compute+wait > 0 {
			out.Waiting += wait / (compute + wait)
		}
		total += mean
		n++
		if mean > longest {
			longest, out.Slowest = mean, id
		}
	}
	if n > 0 {
		out.Waiting /= float64(n)
		if total > 0 {
			out.Lag = longest/(total/float64(n)) - 1
		}
	}
	return out
}
