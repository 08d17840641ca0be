package search

import (
	"github.com/c-bata/goptuna"

	"atelier/common/space"
)

// observation is a trial as samplers see it.
type observation struct {
	unit   []float64 // in the unit cube; inactive parameters at 0.5
	value  float64   // to be minimised; meaningful when scored
	result outcome
}

// sampler is the goptuna side of a bayesian algorithm: a RelativeSampler that
// reads the study's trials and names every parameter of the next one. Its
// algorithm sees the unit cube alone.
type sampler struct {
	problem   Problem
	axes      []axis
	design    *design
	startup   int // trials taken from the design
	algorithm algorithm

	ended []observation // by goptuna number, of trials that cannot change any more; a cache
	known []bool
}

// forget drops what was read of a study that is made anew.
func (s *sampler) forget() { s.ended, s.known = nil, nil }

// algorithm proposes the point of a trial after startup, in the unit cube.
type algorithm interface {
	suggest(number int64, seen []observation) ([]float64, error)
}

var _ goptuna.RelativeSampler = (*sampler)(nil)

func newSampler(p Problem, startup int, a algorithm) *sampler {
	s := &sampler{problem: p, design: newDesign(p.Space, p.Seed), startup: startup, algorithm: a}
	for i := range p.Space.Params {
		s.axes = append(s.axes, newAxis(&p.Space.Params[i]))
	}
	return s
}

// SampleRelative implements goptuna.RelativeSampler. Trials of goptuna number
// from 0.
func (s *sampler) SampleRelative(st *goptuna.Study, trial goptuna.FrozenTrial, _ map[string]interface{}) (map[string]float64, error) {
	u := []float64(nil)
	if trial.Number < s.startup {
		u = s.design.unit(trial.Number)
	} else {
		trials, err := st.GetTrials()
		if err != nil {
			return nil, err
		}
		seen, informed := s.observations(trials[:trial.Number])
		if !informed { // nothing to learn from yet
			u = s.design.unit(trial.Number)
		} else if u, err = s.algorithm.suggest(int64(trial.Number)+1, seen); err != nil {
			return nil, err
		}
	}
	out := make(map[string]float64, len(s.axes)) // goptuna's form; looked up only
	for i, a := range s.axes {
		out[a.param.Name] = a.internal(a.param.FromUnit(u[i]))
	}
	return out, nil
}

// observations reads trials that say something; informed is whether two of
// them have values that differ.
func (s *sampler) observations(trials []goptuna.FrozenTrial) (seen []observation, informed bool) {
	first, scoredOne := 0.0, false
	for i := range trials {
		t := &trials[i]
		var o observation
		switch t.State {
		case goptuna.TrialStateRunning:
			o.result = pending
		case goptuna.TrialStateComplete:
			o.result, o.value = scored, t.Value
			if s.problem.Maximize {
				o.value = -o.value
			}
			if scoredOne && o.value != first {
				informed = true
			} else if !scoredOne {
				first, scoredOne = o.value, true
			}
		case goptuna.TrialStateFail:
			o.result = bad
			informed = informed || scoredOne
		default:
			continue
		}
		for len(s.known) <= i {
			s.ended, s.known = append(s.ended, observation{}), append(s.known, false)
		}
		if !s.known[i] {
			p := make(space.Point, len(s.axes))
			for j, a := range s.axes {
				if internal, ok := t.InternalParams[a.param.Name]; ok {
					p[j] = a.external(internal)
				}
			}
			o.unit = s.problem.Space.Unit(p)
			s.ended[i], s.known[i] = o, o.result != pending
		}
		o.unit = s.ended[i].unit
		seen = append(seen, o)
	}
	return seen, informed
}
