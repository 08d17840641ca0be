package propose

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
	"atelier/tuner/search"
	"atelier/tuner/sweep"
)

const (
	// chunk bounds one proposal: a log entry far below 512 KiB, so that
	// heartbeats of raft are not held up.
	chunk = 256
	// attempts is how often a search may fail in a row before its sweep does.
	attempts     = 3
	attemptPause = 200 * time.Millisecond
	logPause     = 50 * time.Millisecond
)

// searcher proposes for one sweep, in one goroutine.
type searcher struct {
	p    *Proposer
	t    *term
	id   string
	wake chan struct{}

	// Guarded by Proposer.mu.
	stale  []int64 // trials that ended or began anew since the last look
	missed bool    // look at all of them

	// The goroutine's own.
	spec    *sweep.Spec
	method  search.Method
	budget  int64 // the method was made for
	history []search.Trial
	open    []int64 // numbers that were open at the last look
}

func (s *searcher) run() {
	failures := 0
	for {
		wait, err := s.step()
		switch {
		case s.t.ctx.Err() != nil:
			return
		case errors.Is(err, errOver):
			if s.p.retire(s) {
				return
			}
			wait = true // woken meanwhile: take that mark, then look again
		case err != nil:
			failures++
			s.p.cfg.Logger.Warn("search failed", "sweep", s.id, "attempt", failures, "error", err)
			if failures >= attempts {
				s.fail(err)
				failures = 0
			}
			s.sleep(attemptPause)
			continue
		default:
			failures = 0
		}
		if wait {
			select {
			case <-s.wake:
			case <-s.t.ctx.Done():
				return
			}
		}
	}
}

func (s *searcher) sleep(d time.Duration) {
	select {
	case <-s.t.ctx.Done():
	case <-time.After(d):
	}
}

// errOver ends a searcher: its sweep does not run now.
var errOver = errors.New("the sweep does not run")

// step makes one proposal if there is room for it. wait says that nothing more
// can be done before something changes.
func (s *searcher) step() (wait bool, err error) {
	// The marks are taken before the view: what they speak of, the view shows.
	s.p.mu.Lock()
	stale, missed := s.stale, s.missed
	s.stale, s.missed = nil, false
	s.p.mu.Unlock()

	sw, ok := s.p.cfg.View().Sweep(s.id)
	if !ok || sw.Status != atelierv1.SweepStatus_SWEEP_STATUS_RUNNING {
		s.p.mu.Lock()
		s.missed = true // marks were taken and not used
		s.p.mu.Unlock()
		return false, errOver
	}
	if err := s.prepare(sw); err != nil {
		return false, err
	}
	if err := s.read(sw, stale, missed); err != nil {
		return false, err
	}
	room := min(sw.Parallelism-sw.Counts.Open(), sw.Budget-sw.Len(), chunk)
	if room <= 0 || sw.Exhausted {
		return true, nil
	}
	proposal, err := s.ask(int(room))
	if err != nil {
		return false, err
	}
	points := proposal.Points
	if int64(len(points)) > room {
		points = points[:room]
	}
	if len(points) == 0 && !proposal.Exhausted {
		if sw.Counts.Open() == 0 {
			return false, fmt.Errorf("search method %s waits for results though no trial is open", sw.SearchMethod)
		}
		return true, nil
	}
	c := &logv1.ProposeTrials{Id: s.id, First: sw.Len() + 1, Exhausted: proposal.Exhausted && len(points) == len(proposal.Points)}
	for _, pt := range points {
		c.ParamsJson = append(c.ParamsJson, s.spec.Space.Encode(pt))
	}
	res, err := s.p.cfg.Log.Propose(s.t.ctx, &logv1.Command{
		TimeMs: s.p.cfg.NowMS(),
		Op:     &logv1.Command_ProposeTrials{ProposeTrials: c},
	})
	if err == nil {
		err = res.Err
	}
	if err != nil {
		// Not the search's fault. Should it be in the log all the same, the next
		// look finds it.
		if s.t.ctx.Err() == nil {
			s.p.cfg.Logger.Warn("proposal not recorded", "sweep", s.id, "first", c.First, "error", err)
		}
		s.sleep(logPause)
		return false, nil
	}
	return int64(len(points)) < room && !proposal.Exhausted, nil
}

// prepare reads the spec and makes the search method, anew when the budget has
// been extended.
func (s *searcher) prepare(sw *state.Sweep) error {
	if s.spec == nil {
		spec, err := sweep.Parse("spec", []byte(sw.SpecYAML))
		if err != nil {
			return fmt.Errorf("read the spec again: %w", err)
		}
		s.spec = spec
	}
	if s.method != nil && s.budget == sw.Budget {
		return nil
	}
	m, err := search.New(sw.SearchMethod, sw.Algorithm, search.Problem{
		Space: &s.spec.Space, Maximize: sw.Objective.Maximize, Seed: sw.Seed, Budget: sw.Budget, Parallelism: sw.Parallelism,
	})
	if err != nil {
		return err
	}
	s.method, s.budget = m, sw.Budget
	return nil
}

// read brings the history up to the state's, reading again only trials that
// may have changed.
func (s *searcher) read(sw *state.Sweep, stale []int64, missed bool) error {
	if missed || sw.Len() < int64(len(s.history)) {
		s.history, s.open = nil, nil
		stale = nil
	}
	for _, numbers := range [][]int64{s.open, stale} {
		for _, n := range numbers {
			if n >= 1 && n <= int64(len(s.history)) {
				note(&s.history[n-1], sw.Trial(n))
			}
		}
	}
	for t := range sw.Trials(int64(len(s.history)) + 1) {
		point, err := s.spec.Space.Decode(t.ParamsJSON)
		if err != nil {
			return fmt.Errorf("read trial %d again: %w", t.Number, err)
		}
		h := search.Trial{Number: t.Number, Point: point}
		note(&h, t)
		s.history = append(s.history, h)
	}
	s.open = sw.Open()
	return nil
}

// note writes what search is to know of a trial. Values count from its end on:
// a history does not depend on how far open trials are.
func note(h *search.Trial, t *state.Trial) {
	h.Status, h.HasValue, h.Value, h.Epoch = search.Open, false, 0, 0
	switch t.Status {
	case atelierv1.TrialStatus_TRIAL_STATUS_FINISHED:
		h.Status = search.Complete
	case atelierv1.TrialStatus_TRIAL_STATUS_STOPPED:
		h.Status = search.Complete
		if !t.HasValue {
			h.Status = search.Cancelled
		}
	case atelierv1.TrialStatus_TRIAL_STATUS_DIVERGED:
		h.Status = search.Diverged
	case atelierv1.TrialStatus_TRIAL_STATUS_FAILED:
		h.Status = search.Failed
	case atelierv1.TrialStatus_TRIAL_STATUS_CANCELLED:
		h.Status = search.Cancelled
	}
	if h.Status != search.Open {
		h.HasValue, h.Value, h.Epoch = t.HasValue, t.Value, int(t.Epoch())
	}
}

// ask turns a panic of a search method into an error: it fails its sweep, not
// the cluster.
func (s *searcher) ask(n int) (p search.Proposal, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.p.cfg.Logger.Error("search panicked", "sweep", s.id, "panic", r, "stack", string(debug.Stack()))
			s.method = nil
			err = fmt.Errorf("search method panicked: %v", r)
		}
	}()
	return s.method.Propose(s.t.ctx, s.history, n)
}

// fail ends the sweep with the reason.
func (s *searcher) fail(reason error) {
	ctx, cancel := context.WithTimeout(s.t.ctx, 10*time.Second)
	defer cancel()
	if _, err := s.p.cfg.Log.Propose(ctx, &logv1.Command{
		TimeMs: s.p.cfg.NowMS(),
		Op:     &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: s.id, Reason: "search: " + reason.Error()}},
	}); err != nil && s.t.ctx.Err() == nil {
		s.p.cfg.Logger.Warn("failed search not recorded", "sweep", s.id, "error", err)
	}
}
