package state

import (
	"math"
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// proposeTrials appends trials. A proposal that comes twice or late is a no-op.
func (m *Machine) proposeTrials(now int64, c *logv1.ProposeTrials, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	if r.Err = validProposal(s, c); r.Err != nil {
		return
	}
	r.Trial = c.GetFirst()
	points := c.GetParamsJson()
	if room := s.Unproposed(); int64(len(points)) > room {
		points = points[:max(room, 0)]
	}
	given := wire.Source(c.GetSource()) == trial.SourceEnqueued
	// Points that were given meanwhile come first; search is asked again then.
	early := !given && len(s.Queue()) > 0
	if c.GetFirst() != s.Len()+1 || s.Exhausted || s.Status != trial.SweepRunning && s.Status != trial.SweepPaused || len(points) == 0 && !c.GetExhausted() || early || s.Overdue(now) {
		r.Outcome = trial.OutcomeAlready
		return
	}
	if given && !slices.Equal(points, s.Queue()[:min(len(points), len(s.Queue()))]) {
		r.Err = conflict("propose trial %d of sweep %s: the points are not those that were given to it", c.GetFirst(), s.ID)
		return
	}
	s, _ = m.sweep(s.ID)
	for i, p := range points {
		t := &Trial{Number: s.Len() + 1, ParamsJSON: p, Status: trial.Waiting, CreatedMS: now,
			Source: wire.Source(c.GetSource()), ProposedSeen: c.GetSeen(), ProposedBudget: c.GetBudget()}
		if o := c.GetOrigins(); len(o) > 0 && o[i].GetTrial() != 0 {
			t.Origin = wire.Origin(o[i])
		}
		m.addTrial(s, t)
	}
	if given {
		s.EnqueuedTaken += int64(len(points))
	}
	s.ModifiedIndex = m.live.index
	if len(points) > 0 {
		m.note(Change{Kind: TrialsProposed, Sweep: s.ID, Trial: c.GetFirst()})
	}
	if c.GetExhausted() && len(points) == len(c.GetParamsJson()) && len(s.Queue()) == 0 {
		s.Exhausted = true
		m.setSweep(now, s, s.Status)
		m.settle(now, s)
	}
}

func validProposal(s *Sweep, c *logv1.ProposeTrials) error {
	for i, p := range c.GetParamsJson() {
		if len(p) < 2 || len(p) > maxParams || p[0] != '{' {
			return invalid("propose trial %d of sweep %s: parameters must be a JSON object of at most %d bytes", c.GetFirst()+int64(i), s.ID, maxParams)
		}
	}
	if n := len(c.GetOrigins()); n > 0 && n != len(c.GetParamsJson()) {
		return invalid("propose trial %d of sweep %s: %d origins of %d points", c.GetFirst(), s.ID, n, len(c.GetParamsJson()))
	}
	for _, o := range c.GetOrigins() {
		if o.GetTrial() < 0 || o.GetTrial() > s.Len() || o.GetEpoch() < 0 {
			return invalid("propose trial %d of sweep %s: its origin, trial %d, is not one of %d", c.GetFirst(), s.ID, o.GetTrial(), s.Len())
		}
	}
	if c.GetSeen() < 0 || c.GetSeen() > s.Findings || c.GetBudget() < 0 || c.GetSource() < 0 || wire.Source(c.GetSource()) > trial.SourcePopulation {
		return invalid("propose trial %d of sweep %s: %d findings seen of %d, budget %d, source %d", c.GetFirst(), s.ID, c.GetSeen(), s.Findings, c.GetBudget(), c.GetSource())
	}
	return nil
}

// Unproposed is how many trials the budget has room for.
func (s *Sweep) Unproposed() int64 {
	if s.Budget == 0 {
		return maxBudget - s.Len()
	}
	return s.Budget - s.Len()
}

// Queue returns the given points that are not trials yet, in their order.
func (s *Sweep) Queue() []string {
	n := len(s.Enqueued)
	return s.Enqueued[s.EnqueuedTaken:n:n]
}

// enqueueTrials takes points that are to be tried before any that search
// proposes.
func (m *Machine) enqueueTrials(now int64, c *logv1.EnqueueTrials, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	have := 0
	for _, p := range s.Enqueued {
		have += len(p)
	}
	points := c.GetParamsJson()
	r.Err = validPoints(s.ID, have, points)
	switch room := s.Unproposed() - int64(len(s.Queue())); {
	case r.Err != nil:
	case len(points) == 0:
		r.Err = invalid("give points to sweep %s: no points were given", s.ID)
	case s.Status != trial.SweepRunning && s.Status != trial.SweepPaused:
		r.Err = conflict("give points to sweep %s: it is %s", s.ID, s.Status)
	case s.Exhausted:
		r.Err = conflict("give points to sweep %s: every point of its space is a trial already", s.ID)
	case int64(len(points)) > room:
		r.Err = conflict("give %d points to sweep %s: its budget has room for %d; extend it first", len(points), s.ID, room)
	default:
		s, _ = m.sweep(s.ID)
		s.Enqueued = append(s.Enqueued[:len(s.Enqueued):len(s.Enqueued)], points...)
		m.setSweep(now, s, s.Status)
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
	if t.Status == trial.Waiting {
		s.queue(t).add(m.gen, t.Number)
	}
	s.Counts.Runs += int64(len(t.Runs))
	s.Counts.Reports += int64(t.ReportCount())
	s.Epochs += t.Trained()
	for i := range t.Checkpoints {
		s.StoredBytes += t.Checkpoints[i].Size
	}
	if s.CheckpointBytes > 0 && len(t.Checkpoints) > 0 {
		s.stored.add(m.gen, t.Number)
	}
	if t.HasValue {
		m.rank(s, t)
	}
	if t.Status == trial.Failed && t.lastExit() == trial.ExitBadSpec {
		s.badSpec++
	}
}

// rank takes a trial's value into the leaderboard. A trial's value only improves.
func (m *Machine) rank(s *Sweep, t *Trial) {
	*s.scores.slot(m.gen, int(t.Number-1)) = t.Value
	best := s.Best()
	if best == nil || best.Number == t.Number || outranks(s.Objective, score{t.Value, t.Number}, score{best.Value, best.Number}) {
		s.best = t.Number
	}
}
