package stop

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// crowd is the RuleState of median and percentile: a trial is compared with what
// the others had reported at the same epoch.
type crowd struct {
	set     Settings
	problem Problem
	trials  map[int64]*walker
	at      map[int][]mark // by epoch, best first
}

// walker is a trial among the others.
type walker struct {
	number int64
	open   bool // waits or runs, and is not asked to stop
	epoch  int  // last reported
	best   float64
	sum    float64
	seen   int // reports taken in
}

// mark is what a trial had shown at an epoch: the mean of its values so far
// for median, the best for percentile.
type mark struct {
	value  float64
	number int64
}

// newCrowd has seen nothing.
func newCrowd(s Settings, p Problem) *crowd {
	return &crowd{set: s, problem: p, trials: map[int64]*walker{}, at: map[int][]mark{}}
}

// before puts the better mark first; the lower number decides between equals, so that the order is
// the same wherever the rule is played.
func (c *crowd) before(a, b mark) int {
	return cmp.Or(c.problem.compare(a.value, b.value), cmp.Compare(a.number, b.number))
}

// Put implements RuleState. A curve only grows: reports that came earlier are not
// looked at again.
func (c *crowd) Put(t Trial) {
	w := c.trials[t.Number]
	if w == nil {
		w = &walker{number: t.Number, best: math.NaN()}
		c.trials[t.Number] = w
	}
	w.open = (t.Status == Waiting || t.Status == Running) && t.Asked != Stop
	for _, r := range t.Reports[min(w.seen, len(t.Reports)):] {
		w.seen++
		w.epoch = r.Epoch
		w.sum += r.Value
		if c.problem.better(r.Value, w.best) {
			w.best = r.Value
		}
		m := mark{w.best, t.Number}
		if c.set.Rule == Median {
			m.value = w.sum / float64(w.seen)
		}
		marks := c.at[r.Epoch]
		i, _ := slices.BinarySearchFunc(marks, m, c.before)
		c.at[r.Epoch] = slices.Insert(marks, i, m)
	}
}

// Decide implements RuleState.
func (c *crowd) Decide(int64) []Decision {
	w := wishes{}
	for n, t := range c.trials {
		if !t.open || t.epoch <= c.set.WarmupEpochs {
			continue
		}
		others := make([]float64, 0, len(c.at[t.epoch]))
		for _, m := range c.at[t.epoch] {
			if m.number != n {
				others = append(others, m.value)
			}
		}
		if len(others) < max(c.set.WarmupTrials, 1) {
			continue
		}
		if bar, why := c.bar(others); c.problem.better(bar, t.best) {
			w[n] = Decision{n, Stop, fmt.Sprintf("best %s %s up to epoch %d is worse than %s, %s", c.problem.Metric, format(t.best), t.epoch, format(bar), why)}
		}
	}
	return w.list()
}

// bar is the value that a trial must reach; others are best first and not
// empty.
func (c *crowd) bar(others []float64) (float64, string) {
	n := len(others)
	if c.set.Rule == Median {
		return (others[(n-1)/2] + others[n/2]) / 2, fmt.Sprintf("the median of %d trials' means", n)
	}
	i := int(math.Ceil(c.set.Percentile/100*float64(n))) - 1
	return others[max(i, 0)], fmt.Sprintf("the edge of the best %g %% of %d trials", c.set.Percentile, n)
}
