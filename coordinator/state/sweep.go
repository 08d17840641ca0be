package state

import (
	"cmp"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Ended reports whether the sweep has ended; an extension or a retry may yet
// make it run again.
func (s *Sweep) Ended() bool { return s.Status.Over() }

// validID reports whether CreateSweep takes an id: [a-z0-9][a-z0-9-]{0,63}.
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

// taken reads the spec that a command carries, or of a command from before there
// was spec_json what it was checked to be, and the document of it. Of such a
// command budgets, priority and given points stay out of both: in a snapshot they
// are those of that day, and the document must be the same on all replicas.
func taken(c *logv1.CreateSweep) (*spec.Spec, string, error) {
	if text := c.GetSpecJson(); text != "" {
		s, err := spec.Decode(text)
		if err != nil {
			return nil, "", invalid("sweep %s: %v", c.GetId(), err)
		}
		return s, text, nil
	}
	s := &spec.Spec{Name: c.GetName(), SearchMethod: c.GetSearchMethod(), Algorithm: c.GetAlgorithm(), Trainer: c.GetTrainer(), Seed: c.GetSeed(),
		Parallelism: c.GetParallelism(), MaxRetries: c.GetMaxRetries(), CheckpointBytes: c.GetCheckpointBytes(), WarmStart: c.GetWarmStart(),
		TrainingJSON: c.GetTrainingJson(), StoppingJSON: c.GetStoppingJson()}
	objectives := c.GetObjectives()
	if len(objectives) == 0 {
		objectives = append(objectives, c.GetObjective())
	}
	for i, o := range objectives {
		if !wire.Directed(o) {
			return nil, "", invalid("sweep %s: objective %d: the direction must be minimize or maximize", c.GetId(), i+1)
		}
		s.Objectives = append(s.Objectives, wire.Objective(o))
	}
	if s.Objective = s.Objectives[0]; s.Objective != wire.Objective(c.GetObjective()) || !wire.Directed(c.GetObjective()) {
		return nil, "", invalid("sweep %s: the first of its objectives is %s, its objective %s", c.GetId(), s.Objective.Metric, c.GetObjective().GetMetric())
	}
	for _, n := range c.GetConstraints() {
		s.Constraints = append(s.Constraints, wire.Constraint(n))
	}
	for _, q := range c.GetRequires() {
		s.Requires = append(s.Requires, spec.Label{Key: q.GetKey(), Value: q.GetValue()})
	}
	spec.ReadYAML(s, c.GetSpecYaml())
	if err := validSpec(c.GetId(), s); err != nil {
		return nil, "", err
	}
	return s, spec.Encode(s), nil
}

// validSpec checks what Apply reads of a spec: that it keeps to the bounds below
// which a state can be kept. What a good spec is, is not asked here.
func validSpec(id string, s *spec.Spec) error {
	name := func(text string) bool { return len(text) <= maxName }
	switch {
	case s.CheckpointBytes < 0:
		return invalid("sweep %s: room for %d bytes of checkpoints", id, s.CheckpointBytes)
	case s.Parallelism < 1 || s.Parallelism > maxParallelism:
		return invalid("sweep %s: parallelism %d: 1 to %d", id, s.Parallelism, maxParallelism)
	case s.Members.Min < 1 || s.Members.Max < s.Members.Min || s.Members.Max > min(s.Shards, maxGroup) || s.Shards > maxShards:
		return invalid("sweep %s: %d to %d members, %d shards: 1 to %d members, at most as many as shards, of which there are at most %d", id, s.Members.Min, s.Members.Max, s.Shards, maxGroup, maxShards)
	case s.MaxRetries < 0:
		return invalid("sweep %s: max_retries %d is below 0", id, s.MaxRetries)
	case len(s.TrainingJSON) > maxText:
		return invalid("sweep %s: training settings of %d bytes: at most %d", id, len(s.TrainingJSON), maxText)
	case !name(s.Name) || !name(s.SearchMethod) || !name(s.Algorithm) || !name(s.Trainer) || !name(s.WarmStart):
		return invalid("sweep %s: a name is longer than %d bytes", id, maxName)
	case len(s.StoppingJSON) > maxParams:
		return invalid("sweep %s: stopping rule of %d bytes, at most %d", id, len(s.StoppingJSON), maxParams)
	case len(s.Objectives)+len(s.Constraints)+len(s.Requires) > maxMetrics:
		return invalid("sweep %s: %d objectives, constraints and required labels: at most %d", id, len(s.Objectives)+len(s.Constraints)+len(s.Requires), maxMetrics)
	}
	for _, o := range s.Objectives {
		if o.Metric == "" || !name(o.Metric) {
			return invalid("sweep %s: objective metric of %d bytes: 1 to %d", id, len(o.Metric), maxName)
		}
	}
	for i, n := range s.Constraints {
		if n.Metric == "" || !name(n.Metric) || !n.HasMax && !n.HasMin || !finite(n.Max) || !finite(n.Min) {
			return invalid("sweep %s: constraint %d needs a metric and a bound", id, i+1)
		}
	}
	for i, q := range s.Requires {
		if q.Key == "" || !name(q.Key) || !name(q.Value) || i > 0 && q.Key <= s.Requires[i-1].Key {
			return invalid("sweep %s: required label %d: keys are of 1 to %d bytes, in order, each once", id, i+1, maxName)
		}
	}
	return nil
}

// newSweep makes the sweep of a command, or of a snapshot's record of it: fresh
// says that budgets, priority and given points are those of the spec.
func newSweep(c *logv1.CreateSweep, fresh bool) (*Sweep, error) {
	if !validID(c.GetId()) {
		return nil, invalid("sweep id %q: 1 to 64 of a-z, 0-9 and -, not beginning with -", c.GetId())
	}
	if len(c.GetSpecYaml()) > maxText || len(c.GetSpecJson()) > spec.MaxSize || len(c.GetBaseDir()) > maxMessage {
		return nil, invalid("sweep %s: text of %d, spec of %d and folder of %d bytes: at most %d, %d and %d", c.GetId(),
			len(c.GetSpecYaml()), len(c.GetSpecJson()), len(c.GetBaseDir()), maxText, spec.MaxSize, maxMessage)
	}
	sp, text, err := taken(c)
	if err != nil {
		return nil, err
	}
	s := &Sweep{Spec: sp, SpecJSON: text, SpecYAML: c.GetSpecYaml(), BaseDir: c.GetBaseDir(), ID: c.GetId(), Status: trial.SweepRunning,
		Kind:   cmp.Or(wire.Kind(c.GetKind()), trial.KindOf([]byte(sp.TrainingJSON))), // earlier versions wrote none
		Name:   sp.Name,
		Budget: c.GetBudgetTrials(), BudgetEpochs: c.GetBudgetEpochs(), BudgetMS: c.GetBudgetMs(), Priority: c.GetPriority(),
		Enqueued: slices.Clone(c.GetEnqueuedJson()), WarmTrials: slices.Clone(c.GetWarmTrials())}
	if fresh && c.GetSpecJson() != "" {
		s.Budget, s.BudgetEpochs, s.BudgetMS, s.Priority, s.Enqueued = sp.Budget.Trials, sp.Budget.Epochs, sp.Budget.TimeMS, sp.Priority, slices.Clone(sp.Enqueue)
	}
	if err := validSpec(s.ID, sp); err != nil {
		return nil, err
	}
	if s.Notification = newNotification(c.GetNotify()); fresh && s.Notification != nil {
		if err := validNotification(s.ID, s.Notification); err != nil {
			return nil, err
		}
	}
	return s, s.valid()
}

// valid checks what may change in a sweep's life, and what came with its spec.
func (s *Sweep) valid() error {
	switch {
	case s.BudgetEpochs < 0 || s.BudgetMS < 0 || s.BudgetMS > maxTime:
		return invalid("sweep %s: a budget of %d epochs and %d ms: none is below 0, time at most %d ms", s.ID, s.BudgetEpochs, s.BudgetMS, int64(maxTime))
	case s.Budget < 1 && (s.Budget < 0 || s.BudgetEpochs == 0 && s.BudgetMS == 0) || s.Budget > maxBudget:
		return invalid("sweep %s: budget of %d trials: 1 to %d", s.ID, s.Budget, maxBudget)
	case s.Priority < -maxPriority || s.Priority > maxPriority:
		return invalid("sweep %s: priority %d, -%d to %d", s.ID, s.Priority, maxPriority, maxPriority)
	}
	if err := validPoints(s.ID, 0, s.Enqueued); err != nil {
		return err
	}
	bytes := 0
	for _, w := range s.WarmTrials {
		bytes += proto.Size(w)
		if len(w.GetParamsJson()) < 2 || w.GetParamsJson()[0] != '{' || !wire.Status(w.GetStatus()).Over() && wire.Status(w.GetStatus()) != trial.Paused || w.GetHasValue() && (math.IsNaN(w.GetValue()) || math.IsInf(w.GetValue(), 0)) {
			return invalid("sweep %s: trial %d of %s, its warm start, has no parameters, status or finite value", s.ID, w.GetTrial(), s.WarmStart)
		}
	}
	if bytes > maxPoints {
		return invalid("sweep %s: a warm start of %d trials, %d bytes: at most %d bytes", s.ID, len(s.WarmTrials), bytes, maxPoints)
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

// created is the inverse of newSweep, with the budget as extended and all points
// given since.
func (s *Sweep) created() *logv1.CreateSweep {
	return &logv1.CreateSweep{Id: s.ID, Kind: wire.ToKind(s.Kind), SpecYaml: s.SpecYAML, SpecJson: s.SpecJSON, BaseDir: s.BaseDir, WarmTrials: s.WarmTrials,
		BudgetTrials: s.Budget, BudgetEpochs: s.BudgetEpochs, BudgetMs: s.BudgetMS, Priority: s.Priority, EnqueuedJson: s.Enqueued}
}

// createSweep makes a sweep. An id that exists is a repeat where the spec is the same,
// else a conflict.
func (m *Machine) createSweep(now int64, c *logv1.CreateSweep, r *Result) {
	r.Sweep = c.GetId()
	s, err := newSweep(c, true)
	if r.Err = err; err != nil {
		return
	}
	if _, gone := m.live.Purged(s.ID); gone {
		r.Err = conflict("sweep %s was deleted", s.ID)
		return
	}
	if known, exists := m.peek(c.GetId()); exists {
		if known.SpecYAML != s.SpecYAML || known.Seed != s.Seed || known.TrainingJSON != s.TrainingJSON || known.Spec.Name != s.Spec.Name {
			r.Err = conflict("sweep %s exists with another spec", c.GetId())
			return
		}
		r.Outcome = trial.OutcomeAlready
		return
	}
	s.CreatedMS = now
	s.RunningSince = max(now, 1)
	s.ModifiedIndex = m.live.index
	m.addSweep(s)
	m.note(Change{Kind: SweepCreated, Sweep: s.ID})
}
