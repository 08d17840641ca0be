package state

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
)

const (
	sweepRunning   = atelierv1.SweepStatus_SWEEP_STATUS_RUNNING
	sweepPaused    = atelierv1.SweepStatus_SWEEP_STATUS_PAUSED
	sweepStopping  = atelierv1.SweepStatus_SWEEP_STATUS_STOPPING
	sweepFinished  = atelierv1.SweepStatus_SWEEP_STATUS_FINISHED
	sweepStopped   = atelierv1.SweepStatus_SWEEP_STATUS_STOPPED
	sweepCancelled = atelierv1.SweepStatus_SWEEP_STATUS_CANCELLED
	sweepFailed    = atelierv1.SweepStatus_SWEEP_STATUS_FAILED
)

// Ended reports whether the sweep has ended; an extension or a retry may yet
// make it run again.
func (s *Sweep) Ended() bool { return s.Status >= sweepFinished }

func statusName(s atelierv1.SweepStatus) string {
	const prefix = len("SWEEP_STATUS_")
	return s.String()[min(prefix, len(s.String())):]
}

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
	case o.GetDirection() != atelierv1.Direction_DIRECTION_MINIMIZE && o.GetDirection() != atelierv1.Direction_DIRECTION_MAXIMIZE:
		return invalid("sweep %s: objective direction must be minimize or maximize", c.GetId())
	case c.GetBudgetTrials() < 1 || c.GetBudgetTrials() > maxBudget:
		return invalid("sweep %s: budget of %d trials: 1 to %d", c.GetId(), c.GetBudgetTrials(), maxBudget)
	case c.GetParallelism() < 1 || c.GetParallelism() > maxParallelism:
		return invalid("sweep %s: parallelism %d: 1 to %d", c.GetId(), c.GetParallelism(), maxParallelism)
	case c.GetMaxRetries() < 0:
		return invalid("sweep %s: max_retries %d is below 0", c.GetId(), c.GetMaxRetries())
	case len(c.GetSpecYaml()) > maxText || len(c.GetTrainingJson()) > maxText:
		return invalid("sweep %s: spec of %d and training settings of %d bytes: at most %d each", c.GetId(), len(c.GetSpecYaml()), len(c.GetTrainingJson()), maxText)
	case len(c.GetName()) > maxName || len(c.GetSearchMethod()) > maxName || len(c.GetAlgorithm()) > maxName || len(c.GetTrainer()) > maxName || len(c.GetBaseDir()) > maxMessage:
		return invalid("sweep %s: a name is longer than %d bytes or the folder than %d", c.GetId(), maxName, maxMessage)
	}
	return nil
}

func newSweep(c *logv1.CreateSweep) *Sweep {
	return &Sweep{
		ID: c.GetId(), Name: c.GetName(), Status: sweepRunning,
		SpecYAML: c.GetSpecYaml(), TrainingJSON: c.GetTrainingJson(), BaseDir: c.GetBaseDir(), Seed: c.GetSeed(),
		Objective:    Objective{Metric: c.GetObjective().GetMetric(), Maximize: c.GetObjective().GetDirection() == atelierv1.Direction_DIRECTION_MAXIMIZE},
		SearchMethod: c.GetSearchMethod(), Algorithm: c.GetAlgorithm(), Trainer: c.GetTrainer(),
		Budget: c.GetBudgetTrials(), Parallelism: c.GetParallelism(), MaxRetries: c.GetMaxRetries(),
	}
}

// spec is the inverse of newSweep, with the budget as extended.
func (s *Sweep) spec() *logv1.CreateSweep {
	direction := atelierv1.Direction_DIRECTION_MINIMIZE
	if s.Objective.Maximize {
		direction = atelierv1.Direction_DIRECTION_MAXIMIZE
	}
	return &logv1.CreateSweep{
		Id: s.ID, Name: s.Name, SpecYaml: s.SpecYAML, TrainingJson: s.TrainingJSON, BaseDir: s.BaseDir, Seed: s.Seed,
		Objective:    &atelierv1.Objective{Metric: s.Objective.Metric, Direction: direction},
		SearchMethod: s.SearchMethod, Algorithm: s.Algorithm, Trainer: s.Trainer,
		BudgetTrials: s.Budget, Parallelism: s.Parallelism, MaxRetries: s.MaxRetries,
	}
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
		r.Outcome = atelierv1.Outcome_OUTCOME_ALREADY
		return
	}
	s := newSweep(c)
	s.CreatedMS = now
	s.ModifiedIndex = m.live.index
	m.addSweep(s)
	m.note(Change{Kind: SweepCreated, Sweep: s.ID})
}

// find returns the sweep of a command to look at, or sets the result's error.
func (m *Machine) find(id string, r *Result) *Sweep {
	r.Sweep = id
	s, ok := m.peek(id)
	if !ok {
		r.Err = notFound("sweep %q", id)
	}
	return s
}

// findTrial does the same for a trial; both are nil on an error.
func (m *Machine) findTrial(id string, n int64, r *Result) (*Sweep, *Trial) {
	s := m.find(id, r)
	if s == nil {
		return nil, nil
	}
	r.Trial = n
	t := s.Trial(n)
	if t == nil {
		r.Err = notFound("trial %d of sweep %s, which has %d", n, id, s.Len())
		return nil, nil
	}
	return s, t
}

func (m *Machine) controlSweep(now int64, c *logv1.ControlSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	refuse := func(what string) { r.Err = conflict("%s sweep %s: it is %s", what, s.ID, statusName(s.Status)) }
	already := func() { r.Outcome = atelierv1.Outcome_OUTCOME_ALREADY }
	switch c.GetAction() {
	case atelierv1.SweepAction_SWEEP_ACTION_PAUSE:
		switch s.Status {
		case sweepRunning:
			s, _ = m.sweep(s.ID)
			m.setSweep(s, sweepPaused)
		case sweepPaused:
			already()
		default:
			refuse("pause")
		}
	case atelierv1.SweepAction_SWEEP_ACTION_RESUME:
		switch {
		case s.Status == sweepPaused || s.Status == sweepRunning && s.Counts.Paused > 0:
			s, _ = m.sweep(s.ID)
			m.setSweep(s, sweepRunning)
			for _, n := range s.Open() {
				if s.Trial(n).Status == trialPaused {
					m.reopen(s, m.trial(s, n))
				}
			}
		case s.Status == sweepRunning:
			already()
		default:
			refuse("resume")
		}
	case atelierv1.SweepAction_SWEEP_ACTION_STOP:
		switch s.Status {
		case sweepRunning, sweepPaused:
			s, _ = m.sweep(s.ID)
			m.setSweep(s, sweepStopping)
			for _, n := range s.Open() {
				m.stopTrial(now, s, m.trial(s, n), "sweep stopped")
			}
			m.settle(now, s)
		case sweepStopping, sweepStopped:
			already()
		default:
			refuse("stop")
		}
	case atelierv1.SweepAction_SWEEP_ACTION_CANCEL:
		switch s.Status {
		case sweepRunning, sweepPaused, sweepStopping:
			s, _ = m.sweep(s.ID)
			m.cancelOpen(now, s, "sweep cancelled")
			s.EndedMS = now
			m.setSweep(s, sweepCancelled)
		case sweepCancelled:
			already()
		default:
			refuse("cancel")
		}
	default:
		r.Err = invalid("control sweep %s: action %d", s.ID, c.GetAction())
	}
}

func (m *Machine) setSweep(s *Sweep, to atelierv1.SweepStatus) {
	s.Status = to
	s.ModifiedIndex = m.live.index
	m.note(Change{Kind: SweepChanged, Sweep: s.ID})
}

func (m *Machine) extendSweep(now int64, c *logv1.ExtendSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	switch add := c.GetAddTrials(); {
	case add < 1 || add > maxBudget-s.Budget:
		r.Err = invalid("extend sweep %s by %d trials: 1 to %d", s.ID, add, maxBudget-s.Budget)
	case s.Exhausted:
		r.Err = conflict("extend sweep %s: its space is used up after %d trials", s.ID, s.Len())
	case s.Status == sweepStopping || s.Status == sweepCancelled || s.Status == sweepFailed:
		r.Err = conflict("extend sweep %s: it is %s", s.ID, statusName(s.Status))
	default:
		s, _ = m.sweep(s.ID)
		s.Budget += add
		if s.Ended() {
			s.EndedMS = 0
			s.Status = sweepRunning
		}
		m.setSweep(s, s.Status)
	}
}

func (m *Machine) failSweep(now int64, c *logv1.FailSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	if s.Ended() {
		if s.Status == sweepFailed {
			r.Outcome = atelierv1.Outcome_OUTCOME_ALREADY
		} else {
			r.Err = conflict("fail sweep %s: it is %s", s.ID, statusName(s.Status))
		}
		return
	}
	s, _ = m.sweep(s.ID)
	m.failNow(now, s, cut(c.GetReason()))
}

func (m *Machine) failNow(now int64, s *Sweep, why string) {
	m.cancelOpen(now, s, "sweep failed")
	s.Failure = why
	s.EndedMS = now
	m.setSweep(s, sweepFailed)
}

func (m *Machine) proposeTrials(now int64, c *logv1.ProposeTrials, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	r.Trial = c.GetFirst()
	for i, p := range c.GetParamsJson() {
		if len(p) < 2 || len(p) > maxParams || p[0] != '{' {
			r.Err = invalid("propose trial %d of sweep %s: parameters must be a JSON object of at most %d bytes", c.GetFirst()+int64(i), s.ID, maxParams)
			return
		}
	}
	points := c.GetParamsJson()
	if room := s.Budget - s.Len(); int64(len(points)) > room {
		points = points[:max(room, 0)]
	}
	if c.GetFirst() != s.Len()+1 || s.Exhausted || s.Status != sweepRunning && s.Status != sweepPaused || len(points) == 0 && !c.GetExhausted() {
		r.Outcome = atelierv1.Outcome_OUTCOME_ALREADY
		return
	}
	s, _ = m.sweep(s.ID)
	for _, p := range points {
		t := &Trial{Number: s.Len() + 1, ParamsJSON: p, Status: trialWaiting, CreatedMS: now}
		m.addTrial(s, t)
	}
	s.ModifiedIndex = m.live.index
	if len(points) > 0 {
		m.note(Change{Kind: TrialsProposed, Sweep: s.ID, Trial: c.GetFirst()})
	}
	if c.GetExhausted() && len(points) == len(c.GetParamsJson()) {
		s.Exhausted = true
		m.setSweep(s, s.Status)
		m.settle(now, s)
	}
}

// addTrial appends a trial of any status and keeps all that is derived.
func (m *Machine) addTrial(s *Sweep, t *Trial) {
	t.gen = m.gen
	s.trials.push(m.gen, t)
	s.scores.push(m.gen, math.NaN())
	m.live.trials++
	s.Counts.Proposed++
	*s.Counts.of(t.Status)++
	if !t.Ended() {
		s.open.add(m.gen, t.Number)
	}
	if t.Status == trialWaiting {
		s.queue(t).add(m.gen, t.Number)
	}
	s.Counts.Runs += int64(len(t.Runs))
	s.Counts.Reports += int64(t.ReportCount())
	if t.HasValue {
		m.rank(s, t)
	}
	if t.Status == trialFailed && t.lastExit() == atelierv1.ExitClass_EXIT_CLASS_BAD_SPEC {
		s.badSpec++
	}
}

// rank takes a trial's value into the leaderboard. A trial's value only improves.
func (m *Machine) rank(s *Sweep, t *Trial) {
	*s.scores.slot(m.gen, int(t.Number-1)) = t.Value
	best := s.Best()
	if best == nil || best.Number == t.Number || s.Objective.before(score{t.Value, t.Number}, score{best.Value, best.Number}) {
		s.best = t.Number
	}
}

// settle ends a sweep whose time has come. Every command that ends a trial, or
// lets no more come, calls it last.
func (m *Machine) settle(now int64, s *Sweep) {
	c := s.Counts
	if s.Ended() {
		return
	}
	if s.Status != sweepStopping && c.Failed == c.Ended() {
		switch {
		case c.Failed >= 3 && s.badSpec == c.Failed:
			m.failNow(now, s, fmt.Sprintf("the first %d trials were refused by the trainer: %s", c.Failed, s.commonFailure()))
			return
		case c.Failed >= 10:
			m.failNow(now, s, fmt.Sprintf("the first %d trials failed: %s", c.Failed, s.commonFailure()))
			return
		}
	}
	if c.Open() > 0 {
		return
	}
	switch {
	case s.Status == sweepStopping:
		s.EndedMS = now
		m.setSweep(s, sweepStopped)
	case c.Proposed < s.Budget && !s.Exhausted:
	case c.Proposed == 0:
		m.failNow(now, s, "the search method proposed no trial: the space has no point")
	case s.best == 0:
		m.failNow(now, s, fmt.Sprintf("none of %d trials has a value of %s: %s", c.Proposed, s.Objective.Metric, s.commonFailure()))
	default:
		s.EndedMS = now
		m.setSweep(s, sweepFinished)
	}
}

// commonFailure returns the commonest reason for which trials ended without a
// value; of equally common ones the one that came first.
func (s *Sweep) commonFailure() string {
	type reason struct {
		text  string
		count int
		first int64
	}
	var reasons []reason
	at := map[string]int{}
	for t := range s.Trials(1) {
		text := t.Failure
		switch {
		case t.Status == trialDiverged:
			text = "diverged (the loss became NaN or infinite)"
		case t.Status != trialFailed:
			continue
		}
		i, seen := at[text]
		if !seen {
			i = len(reasons)
			at[text] = i
			reasons = append(reasons, reason{text: text, first: t.Number})
		}
		reasons[i].count++
	}
	if len(reasons) == 0 {
		return "no trial ran to a report"
	}
	top := slices.MinFunc(reasons, func(a, b reason) int { return cmp.Or(b.count-a.count, cmp.Compare(a.first, b.first)) })
	return fmt.Sprintf("%s (%d of %d trials)", top.text, top.count, s.Len())
}
