package stop

import (
	"fmt"
	"math"
)

// patience is the RuleState of the rule of that name: a trial alone.
type patience struct {
	set     Settings
	problem Problem
	wish    wishes
}

// Put implements RuleState.
func (p *patience) Put(t Trial) {
	delete(p.wish, t.Number)
	if t.Status == Paused || t.Status == Ended || t.Asked == Stop || len(t.Reports) == 0 {
		return
	}
	best, at := math.NaN(), 0
	for _, r := range t.Reports {
		bar := best
		if p.problem.Maximize {
			bar += p.set.MinDelta
		} else {
			bar -= p.set.MinDelta
		}
		if p.problem.better(r.Value, bar) {
			best, at = r.Value, r.Epoch
		}
	}
	last := t.Reports[len(t.Reports)-1].Epoch
	if last <= p.set.WarmupEpochs || last-at < p.set.Patience {
		return
	}
	why := fmt.Sprintf("no finite %s in %d epochs", p.problem.Metric, last)
	if at > 0 {
		why = fmt.Sprintf("no better %s than %s of epoch %d in %d epochs", p.problem.Metric, format(best), at, last-at)
	}
	p.wish[t.Number] = Decision{t.Number, Stop, why}
}

// Decide implements RuleState.
func (p *patience) Decide(int64) []Decision { return p.wish.list() }
