package state

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Ended reports whether the sweep has ended; an extension or a retry may yet
// make it run again.
func (s *Sweep) Ended() bool { return s.Status.Over() }

// validID holds for what CreateSweep takes: [a-z0-9][a-z0-9-]{0,63}.
func validID(id string) bool {
	if len(id) < 1 || len(id) > 64 || id[0] == '-' {
		return false
	}
	for _, b := range []byte(id) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' {
			return false
		}
	}
	return true
}

func validSweep(c *logv1.CreateSweep) error {
	switch o := c.GetObjective(); {
	case !validID(c.GetId()):
		return invalid("sweep id %q: 1 to 64 of a-z, 0-9 and -, not beginning with -", c.GetId())
	case o.GetMetric() == "" || len(o.GetMetric()) > maxName:
		return invalid("sweep %s: objective metric of %d bytes: 1 to %d", c.GetId(), len(o.GetMetric()), maxName)
	case !wire.Directed(o):
		return invalid("sweep %s: objective direction must be minimize or maximize", c.GetId())
	case c.GetBudgetEpochs() < 0 || c.GetBudgetMs() < 0 || c.GetBudgetMs() > maxTime || c.GetCheckpointBytes() < 0:
		return invalid("sweep %s: a budget of %d epochs, %d ms and %d bytes: none is below 0, time at most %d ms", c.GetId(), c.GetBudgetEpochs(), c.GetBudgetMs(), c.GetCheckpointBytes(), int64(maxTime))
	case c.GetBudgetTrials() < 1 && (c.GetBudgetTrials() < 0 || c.GetBudgetEpochs() == 0 && c.GetBudgetMs() == 0) || c.GetBudgetTrials() > maxBudget:
		return invalid("sweep %s: budget of %d trials: 1 to %d", c.GetId(), c.GetBudgetTrials(), maxBudget)
	case c.GetParallelism() < 1 || c.GetParallelism() > maxParallelism:
		return invalid("sweep %s: parallelism %d: 1 to %d", c.GetId(), c.GetParallelism(), maxParallelism)
	case c.GetMaxRetries() < 0:
		return invalid("sweep %s: max_retries %d is below 0", c.GetId(), c.GetMaxRetries())
	case len(c.GetSpecYaml()) > maxText || len(c.GetTrainingJson()) > maxText:
		return invalid("sweep %s: spec of %d and training settings of %d bytes: at most %d each", c.GetId(), len(c.GetSpecYaml()), len(c.GetTrainingJson()), maxText)
	case len(c.GetName()) > maxName || len(c.GetSearchMethod()) > maxName || len(c.GetAlgorithm()) > maxName || len(c.GetTrainer()) > maxName || len(c.GetBaseDir()) > maxMessage:
		return invalid("sweep %s: a name is longer than %d bytes or the folder than %d", c.GetId(), maxName, maxMessage)
	case len(c.GetStoppingJson()) > maxParams || c.GetPriority() < -maxPriority || c.GetPriority() > maxPriority:
		return invalid("sweep %s: stopping rule of %d bytes, at most %d; priority %d, -%d to %d", c.GetId(), len(c.GetStoppingJson()), maxParams, c.GetPriority(), maxPriority, maxPriority)
	}
	return validExtras(c)
}

// validExtras checks the lists of a sweep.
func validExtras(c *logv1.CreateSweep) error {
	if n := len(c.GetObjectives()) + len(c.GetConstraints()) + len(c.GetRequires()); n > maxMetrics {
		return invalid("sweep %s: %d objectives, constraints and required labels: at most %d", c.GetId(), n, maxMetrics)
	}
	for i, o := range c.GetObjectives() {
		if o.GetMetric() == "" || len(o.GetMetric()) > maxName || !wire.Directed(o) {
			return invalid("sweep %s: objective %d needs a metric and a direction", c.GetId(), i+1)
		}
		if first := c.GetObjective(); i == 0 && (o.GetMetric() != first.GetMetric() || o.GetDirection() != first.GetDirection()) {
			return invalid("sweep %s: the first of its objectives is %s, its objective %s", c.GetId(), o.GetMetric(), first.GetMetric())
		}
	}
	for i, n := range c.GetConstraints() {
		if n.GetMetric() == "" || len(n.GetMetric()) > maxName || !n.GetHasMax() && !n.GetHasMin() || math.IsNaN(n.GetMax()) || math.IsNaN(n.GetMin()) {
			return invalid("sweep %s: constraint %d needs a metric and a bound", c.GetId(), i+1)
		}
	}
	for i, q := range c.GetRequires() {
		if q.GetKey() == "" || len(q.GetKey()) > maxName || len(q.GetValue()) > maxName || i > 0 && q.GetKey() <= c.GetRequires()[i-1].GetKey() {
			return invalid("sweep %s: required label %d: keys are of 1 to %d bytes, in order, each once", c.GetId(), i+1, maxName)
		}
	}
	if err := validPoints(c.GetId(), 0, c.GetEnqueuedJson()); err != nil {
		return err
	}
	bytes := 0
	for _, w := range c.GetWarmTrials() {
		bytes += proto.Size(w)
		if len(w.GetParamsJson()) < 2 || w.GetParamsJson()[0] != '{' || !wire.Status(w.GetStatus()).Over() && wire.Status(w.GetStatus()) != trial.Paused || w.GetHasValue() && (math.IsNaN(w.GetValue()) || math.IsInf(w.GetValue(), 0)) {
			return invalid("sweep %s: trial %d of %s, its warm start, has no parameters, status or finite value", c.GetId(), w.GetTrial(), c.GetWarmStart())
		}
	}
	if bytes > maxPoints || len(c.GetWarmStart()) > maxName {
		return invalid("sweep %s: a warm start of %d trials, %d bytes: at most %d bytes", c.GetId(), len(c.GetWarmTrials()), bytes, maxPoints)
	}
	return nil
}

// validPoints checks given points that come behind have bytes of others.
func validPoints(sweep string, have int, points []string) error {
	for i, p := range points {
		if len(p) < 2 || len(p) > maxParams || p[0] != '{' {
			return invalid("point %d given to sweep %s: parameters must be a JSON object of at most %d bytes", i+1, sweep, maxParams)
		}
		have += len(p)
	}
	if have > maxPoints {
		return invalid("the points given to sweep %s have %d bytes: at most %d", sweep, have, maxPoints)
	}
	return nil
}

func newSweep(c *logv1.CreateSweep) *Sweep {
	s := &Sweep{
		ID: c.GetId(), Name: c.GetName(), Status: trial.SweepRunning,
		Kind:     cmp.Or(wire.Kind(c.GetKind()), trial.KindOf([]byte(c.GetTrainingJson()))), // earlier versions wrote none
		SpecYAML: c.GetSpecYaml(), TrainingJSON: c.GetTrainingJson(), BaseDir: c.GetBaseDir(), Seed: c.GetSeed(),
		Objective:    wire.Objective(c.GetObjective()),
		SearchMethod: c.GetSearchMethod(), Algorithm: c.GetAlgorithm(), Trainer: c.GetTrainer(),
		Budget: c.GetBudgetTrials(), Parallelism: c.GetParallelism(), MaxRetries: c.GetMaxRetries(),
		BudgetEpochs: c.GetBudgetEpochs(), BudgetMS: c.GetBudgetMs(), CheckpointBytes: c.GetCheckpointBytes(), Priority: c.GetPriority(),
		StoppingJSON: c.GetStoppingJson(), Enqueued: slices.Clone(c.GetEnqueuedJson()),
		WarmStart: c.GetWarmStart(), WarmTrials: slices.Clone(c.GetWarmTrials()),
	}
	for _, o := range c.GetObjectives() {
		s.Objectives = append(s.Objectives, wire.Objective(o))
	}
	if len(s.Objectives) == 0 {
		s.Objectives = []trial.Objective{s.Objective}
	}
	for _, n := range c.GetConstraints() {
		s.Constraints = append(s.Constraints, wire.Constraint(n))
	}
	for _, q := range c.GetRequires() {
		s.Requires = append(s.Requires, Requirement{Key: q.GetKey(), Value: q.GetValue()})
	}
	return s
}

// spec is the inverse of newSweep, with the budget as extended and all points
// given since.
func (s *Sweep) spec() *logv1.CreateSweep {
	c := &logv1.CreateSweep{
		Id: s.ID, Name: s.Name, Kind: wire.ToKind(s.Kind), SpecYaml: s.SpecYAML, TrainingJson: s.TrainingJSON, BaseDir: s.BaseDir, Seed: s.Seed,
		Objective:    wire.ToObjective(s.Objective),
		SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer,
		BudgetTrials: s.Budget, Parallelism: s.Parallelism, MaxRetries: s.MaxRetries,
		BudgetEpochs: s.BudgetEpochs, BudgetMs: s.BudgetMS, CheckpointBytes: s.CheckpointBytes, Priority: s.Priority,
		StoppingJson: s.StoppingJSON, EnqueuedJson: s.Enqueued, WarmStart: s.WarmStart, WarmTrials: s.WarmTrials,
	}
	if len(s.Objectives) > 1 {
		for _, o := range s.Objectives {
			c.Objectives = append(c.Objectives, wire.ToObjective(o))
		}
	}
	for _, n := range s.Constraints {
		c.Constraints = append(c.Constraints, wire.ToConstraint(n))
	}
	for _, q := range s.Requires {
		c.Requires = append(c.Requires, &logv1.Requirement{Key: q.Key, Value: q.Value})
	}
	return c
}

func (m *Machine) createSweep(now int64, c *logv1.CreateSweep, r *Result) {
	r.Sweep = c.GetId()
	if r.Err = validSweep(c); r.Err != nil {
		return
	}
	if s, exists := m.peek(c.GetId()); exists {
		if s.SpecYAML != c.GetSpecYaml() || s.Seed != c.GetSeed() || s.TrainingJSON != c.GetTrainingJson() || s.Name != c.GetName() {
			r.Err = conflict("sweep %s exists with another spec", c.GetId())
			return
		}
		r.Outcome = trial.OutcomeAlready
		return
	}
	s := newSweep(c)
	s.CreatedMS = now
	s.RunningSince = max(now, 1)
	s.ModifiedIndex = m.live.index
	m.addSweep(s)
	m.note(Change{Kind: SweepCreated, Sweep: s.ID})
}
