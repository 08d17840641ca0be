package search

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/c-bata/goptuna"

	"atelier/common/space"
)

// study keeps a goptuna study in step with the history: every trial stands in
// its storage with goptuna's distributions and states, and a proposal is what a
// goptuna trial suggests with our sampler behind it.
type study struct {
	problem Problem
	study   *goptuna.Study
	sampler *sampler
	axes    []axis
	trials  []space.Point // as stored; index is goptuna's trial number
	told    []observation // as stored, without places
}

func newStudy(p Problem, s *sampler) (*study, error) {
	st := &study{problem: p, sampler: s}
	for i := range p.Space.Params {
		st.axes = append(st.axes, newAxis(&p.Space.Params[i]))
	}
	return st, st.reset()
}

func (s *study) reset() error {
	direction := goptuna.StudyDirectionMinimize
	if s.problem.maximize(0) {
		direction = goptuna.StudyDirectionMaximize
	}
	defined := make(map[string]interface{}, len(s.axes)) // goptuna's form; looked up only
	for _, a := range s.axes {
		defined[a.param.Name] = a.distribution
	}
	var err error
	s.study, err = goptuna.CreateStudy("sweep",
		goptuna.StudyOptionLogger(nil),
		goptuna.StudyOptionDirection(direction),
		goptuna.StudyOptionDefineSearchSpace(defined),
		goptuna.StudyOptionSampler(noIndependent{}),
		goptuna.StudyOptionRelativeSampler(s.sampler),
	)
	s.trials, s.told = nil, nil
	return err
}

func (s *study) next(_ context.Context, l *ledger) (space.Point, error) {
	if err := s.follow(l); err != nil {
		return nil, err
	}
	id, err := s.study.Storage.CreateNewTrial(s.study.ID)
	if err != nil {
		return nil, err
	}
	trial := goptuna.Trial{Study: s.study, ID: id}
	s.sampler.ledger = l
	if err := trial.CallRelativeSampler(); err != nil {
		return nil, err
	}
	p := make(space.Point, len(s.axes))
	for i, a := range s.axes {
		if !s.problem.Space.Active(p, i) {
			continue
		}
		if p[i], err = a.suggest(&trial); err != nil {
			return nil, fmt.Errorf("parameter %q: %w", a.param.Name, err)
		}
	}
	s.trials, s.told = append(s.trials, p), append(s.told, observation{result: pending})
	return p, nil
}

// follow brings the study to the ledger: results are told to open trials, new
// trials are cloned in. A history that does not go on from the last one starts
// the study anew.
func (s *study) follow(l *ledger) error {
	if l.len() < len(s.trials) {
		if err := s.reset(); err != nil {
			return err
		}
	}
	for i := 0; i < l.len(); i++ {
		o := l.observe(i, &s.problem)
		if i >= len(s.trials) {
			if err := s.clone(l.points[i], o); err != nil {
				return err
			}
			continue
		}
		known := same(s.trials[i], l.points[i])
		if known {
			s.trials[i] = l.points[i]
		}
		if known && s.told[i].same(&o) {
			continue
		}
		if !known && s.told[i].result == pending && !s.problem.Space.Conditional() {
			// Another point was taken in place of the one suggested.
			if err := s.move(i, l.points[i]); err != nil {
				return err
			}
			known = true
			if o.result == pending {
				continue
			}
		}
		if !known || s.told[i].result != pending {
			if err := s.reset(); err != nil {
				return err
			}
			return s.follow(l)
		}
		if err := s.tell(i, o); err != nil {
			return err
		}
	}
	return nil
}

// state is an outcome in goptuna's words.
func (o outcome) state() goptuna.TrialState {
	switch o {
	case pending:
		return goptuna.TrialStateRunning
	case scored:
		return goptuna.TrialStateComplete
	case bad:
		return goptuna.TrialStateFail
	}
	return goptuna.TrialStatePruned // told nothing of use
}

// signed turns our values, always to be minimised, into the study's direction
// and back.
func (s *study) signed(value float64) float64 {
	if s.problem.maximize(0) {
		return -value
	}
	return value
}

func (s *study) tell(i int, o observation) error {
	s.told[i] = o
	if o.result == scored {
		if err := s.study.Storage.SetTrialValue(i, s.signed(o.value)); err != nil {
			return err
		}
	}
	return s.study.Storage.SetTrialState(i, o.result.state())
}

// move gives an open trial another point.
func (s *study) move(i int, p space.Point) error {
	s.trials[i] = p
	for j, a := range s.axes {
		if err := s.study.Storage.SetTrialParam(i, a.param.Name, a.internal(p[j]), a.distribution); err != nil {
			return err
		}
	}
	return nil
}

func (s *study) clone(p space.Point, o observation) error {
	frozen := goptuna.FrozenTrial{
		State:              o.result.state(),
		Value:              s.signed(o.value),
		DatetimeStart:      time.Unix(0, 0), // goptuna wants one; nothing here reads it
		DatetimeComplete:   time.Unix(0, 0),
		IntermediateValues: map[int]float64{},
		InternalParams:     map[string]float64{},
		Params:             map[string]interface{}{},
		Distributions:      map[string]interface{}{},
		UserAttrs:          map[string]string{},
		SystemAttrs:        map[string]string{},
	}
	if o.result != mute {
		for j, a := range s.axes {
			if p[j].IsAbsent() {
				continue
			}
			internal := a.internal(p[j])
			external, err := goptuna.ToExternalRepresentation(a.distribution, internal)
			if err != nil {
				return err
			}
			frozen.InternalParams[a.param.Name] = internal
			frozen.Params[a.param.Name] = external
			frozen.Distributions[a.param.Name] = a.distribution
		}
	}
	if _, err := s.study.Storage.CloneTrial(s.study.ID, frozen); err != nil {
		return err
	}
	s.trials, s.told = append(s.trials, p), append(s.told, o)
	return nil
}

// noIndependent stands where goptuna would draw from its global random source:
// our samplers name every parameter, so it is never asked.
type noIndependent struct{}

func (noIndependent) Sample(_ *goptuna.Study, _ goptuna.FrozenTrial, name string, _ interface{}) (float64, error) {
	return 0, fmt.Errorf("the sampler gave no value for %q", name)
}

// axis is a parameter with its goptuna distribution. A parameter with listed
// values is an int over their positions.
type axis struct {
	param        *space.Parameter
	distribution interface{}
	choices      []string
}

func newAxis(p *space.Parameter) axis {
	a := axis{param: p}
	n, finite := p.Cells()
	switch {
	case p.Kind == space.KindCategorical:
		for _, c := range p.Choices {
			a.choices = append(a.choices, c.String())
		}
		a.distribution = goptuna.CategoricalDistribution{Choices: a.choices}
	case len(p.Values) > 0:
		a.distribution = goptuna.IntUniformDistribution{Low: 0, High: len(p.Values) - 1}
	case p.Kind == space.KindInt && p.Step > 1:
		a.distribution = goptuna.StepIntUniformDistribution{Low: int(p.Low), High: int(p.High), Step: int(p.Step)}
	case p.Kind == space.KindInt:
		a.distribution = goptuna.IntUniformDistribution{Low: int(p.Low), High: int(p.High)}
	case finite && n > 1:
		a.distribution = goptuna.DiscreteUniformDistribution{Low: p.Low, High: p.High, Q: p.Step}
	case p.Log:
		a.distribution = goptuna.LogUniformDistribution{Low: p.Low, High: p.High}
	default:
		a.distribution = goptuna.UniformDistribution{Low: p.Low, High: p.High}
	}
	return a
}

// internal is goptuna's number for a value: itself, or its position.
func (a axis) internal(v space.Value) float64 {
	if a.param.Kind == space.KindCategorical || len(a.param.Values) > 0 {
		i, _ := a.param.Index(v)
		return float64(i)
	}
	f, _ := v.Number()
	return f
}

// external is the inverse of internal.
func (a axis) external(internal float64) space.Value {
	if a.param.Kind == space.KindCategorical || len(a.param.Values) > 0 {
		n, _ := a.param.Cells()
		return a.param.At(uint64(math.Max(0, math.Min(math.Round(internal), float64(n-1)))))
	}
	return a.param.Nearest(internal)
}

func (a axis) suggest(t *goptuna.Trial) (space.Value, error) {
	name := a.param.Name
	switch d := a.distribution.(type) {
	case goptuna.CategoricalDistribution:
		choice, err := t.SuggestCategorical(name, d.Choices)
		for i, c := range a.choices {
			if c == choice && err == nil {
				return a.param.Choices[i], nil
			}
		}
		return space.Value{}, err
	case goptuna.IntUniformDistribution:
		i, err := t.SuggestInt(name, d.Low, d.High)
		return a.external(float64(i)), err
	case goptuna.StepIntUniformDistribution:
		i, err := t.SuggestStepInt(name, d.Low, d.High, d.Step)
		return a.external(float64(i)), err
	case goptuna.DiscreteUniformDistribution:
		f, err := t.SuggestDiscreteFloat(name, d.Low, d.High, d.Q)
		return a.external(f), err
	case goptuna.LogUniformDistribution:
		f, err := t.SuggestLogFloat(name, d.Low, d.High)
		return a.external(f), err
	case goptuna.UniformDistribution:
		f, err := t.SuggestFloat(name, d.Low, d.High)
		return a.external(f), err
	}
	return space.Value{}, goptuna.ErrUnknownDistribution
}
