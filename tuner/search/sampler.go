package search

import (
	"github.com/c-bata/goptuna"
)

// sampler is the goptuna side of a bayesian algorithm: a RelativeSampler that
// names every parameter of the next trial. Its algorithm sees the unit cube
// alone.
type sampler struct {
	problem   Problem
	axes      []axis
	design    *design
	startup   int // ended or open trials that come from the design first
	algorithm algorithm

	memory *memory
	ledger *ledger // of the ask in progress
}

// algorithm proposes the point of a trial after startup, in the unit cube.
type algorithm interface {
	suggest(number int64, seen []observation) ([]float64, error)
}

var _ goptuna.RelativeSampler = (*sampler)(nil)

func newSampler(p Problem, startup int, a algorithm) *sampler {
	s := &sampler{problem: p, design: newDesign(p.Space, p.Seed), startup: startup, algorithm: a, memory: newMemory(p)}
	for i := range p.Space.Params {
		s.axes = append(s.axes, newAxis(&p.Space.Params[i]))
	}
	return s
}

// SampleRelative implements goptuna.RelativeSampler. Trials of goptuna number
// from 0. A trial's place in the ledger is what it learns from: goptuna's own
// records hold one value a trial and no constraints.
func (s *sampler) SampleRelative(_ *goptuna.Study, trial goptuna.FrozenTrial, _ map[string]interface{}) (map[string]float64, error) {
	u := []float64(nil)
	seen := s.memory.follow(s.ledger)
	if trial.Number+s.memory.warm < s.startup || !informed(seen) || answers(seen) < s.startup/2 {
		u = s.design.unit(trial.Number)
	} else {
		var err error
		if u, err = s.algorithm.suggest(int64(trial.Number)+1, seen); err != nil {
			return nil, err
		}
	}
	out := make(map[string]float64, len(s.axes)) // goptuna's form; looked up only
	for i, a := range s.axes {
		out[a.param.Name] = a.internal(a.param.FromUnit(u[i]))
	}
	return out, nil
}

// answers counts observations that have ended.
func answers(seen []observation) (n int) {
	for i := range seen {
		if seen[i].result == scored || seen[i].result == bad {
			n++
		}
	}
	return n
}
