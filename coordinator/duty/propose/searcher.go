package propose

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/persweep"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
	"atelier/tuner/search"
)

const (
	// chunk bounds one proposal: a log entry far below 512 KiB, so that
	// heartbeats of raft are not held up.
	chunk = 256
	// attempts is how often a search may fail in a row before its sweep does.
	attempts     = 3
	attemptPause = 200 * time.Millisecond
	logPause     = 50 * time.Millisecond
	// settleLimit and patience bound how long new trials wait for the stopping
	// rule's say.
	settleLimit = 2 * time.Second
	patience    = 10
)

// searcher proposes for one sweep, in one goroutine.
type searcher struct {
	*persweep.Handle
	cfg Config

	// Guarded by the lock of the Proposer's searches.
	stale  []int64 // trials that ended or began anew since the last look
	missed bool    // look at all of them

	// The goroutine's own.
	past   *history.Reader
	method search.Method
	budget int64 // the method was made for

	unsettled int // looks in a row that the stopping rule overtook
}

// run takes steps until the sweep does not run or the leadership ends. Search that fails is tried
// again some times, since a fault may be of the moment; then the sweep fails with the reason.
func (s *searcher) run() {
	failures := 0
	for {
		wait, err := s.step()
		switch {
		case s.Context.Err() != nil, errors.Is(err, errReplaced):
			return
		case errors.Is(err, errOver):
			if s.Leave(nil) {
				return
			}
			wait = true // woken meanwhile: take that mark, then look again
		case err != nil:
			failures++
			s.cfg.Logger.Warn("search failed", "sweep", s.Sweep, "attempt", failures, "error", err)
			if failures >= attempts {
				s.fail(err)
				failures = 0
			}
			s.sleep(attemptPause)
			continue
		default:
			failures = 0
		}
		if wait && !s.await() {
			return
		}
	}
}

// await waits for a change, or for the end of the sweep's time, which it writes
// down. It is false once the leadership has ended.
func (s *searcher) await() bool {
	var over <-chan time.Time
	view, ok := s.View()
	if !ok {
		return false
	}
	if sw, ok := view.Sweep(s.Sweep); ok && sw.BudgetMS > 0 && sw.Status == trial.SweepRunning {
		left := time.Duration(sw.BudgetMS-sw.Spent(s.cfg.NowMS())) * time.Millisecond
		timer := time.NewTimer(max(left, time.Millisecond))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-s.Woken:
	case <-over:
		s.endOverdue()
	case <-s.Context.Done():
		return false
	}
	return true
}

// endOverdue writes down that the sweep's time is used.
func (s *searcher) endOverdue() {
	_, err := s.cfg.Log.Propose(s.Context, &logv1.Command{TimeMs: s.cfg.NowMS(), Op: &logv1.Command_EndOverdue{EndOverdue: &logv1.EndOverdue{Id: s.Sweep}}})
	if err != nil && s.Context.Err() == nil {
		s.cfg.Logger.Warn("the end of a sweep's time is not recorded", "sweep", s.Sweep, "error", err)
		s.sleep(logPause)
	}
}

// sleep ends early with the leadership.
func (s *searcher) sleep(d time.Duration) {
	select {
	case <-s.Context.Done():
	case <-time.After(d):
	}
}

var (
	// errOver ends a searcher: its sweep does not run now.
	errOver = errors.New("the sweep does not run")
	// errReplaced ends one whose history is of a state that was replaced.
	errReplaced = errors.New("the state was replaced by a restored one")
)

// step makes one proposal if there is room for it. wait says that nothing more
// can be done before something changes.
func (s *searcher) step() (wait bool, err error) {
	// The marks are taken before the view: what they speak of, the view shows.
	var stale []int64
	var missed bool
	s.Locked(func() {
		stale, missed = s.stale, s.missed
		s.stale, s.missed = nil, false
	})

	view, ok := s.View()
	if !ok {
		return false, errReplaced
	}
	sw, ok := view.Sweep(s.Sweep)
	if !ok || sw.Status != trial.SweepRunning {
		s.Locked(func() { s.missed = true }) // marks were taken and not used
		return false, errOver
	}
	if err := s.prepare(sw); err != nil {
		return false, err
	}
	if missed {
		s.past.Forget()
	}
	known, err := s.past.Read(sw, stale)
	if err != nil {
		return false, err
	}
	room := min(sw.Wanted(), chunk)
	if room <= 0 || sw.Exhausted {
		return true, nil
	}
	if !s.settled(view, sw) {
		return false, nil
	}
	if queue := sw.Queue(); len(queue) > 0 {
		queue = queue[:min(room, int64(len(queue)))]
		s.record(&logv1.ProposeTrials{Id: s.Sweep, First: sw.Len() + 1, ParamsJson: queue, Seen: sw.Findings, Budget: sw.Budget,
			Source: wire.ToSource(trial.SourceEnqueued)})
		return false, nil
	}
	proposal, err := s.ask(known, int(room))
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
	c := &logv1.ProposeTrials{Id: s.Sweep, First: sw.Len() + 1, Exhausted: proposal.Exhausted && len(points) == len(proposal.Points),
		Seen: sw.Findings, Budget: sw.Budget, Source: wire.ToSource(trial.SourceSearch)}
	for _, pt := range points {
		c.ParamsJson = append(c.ParamsJson, sw.Space.Encode(pt))
	}
	c.Origins = wire.ToOrigins(proposal.Origins[:min(len(points), len(proposal.Origins))])
	return s.record(c) && int64(len(points)) < room && !proposal.Exhausted, nil
}

// settled lets the sweep's stopping rule speak first: a trial that it resumes
// takes the place that a new one would. It is false where that, or anything that
// search is told of, has changed the state; where this goes on and on, new trials
// have waited long enough.
func (s *searcher) settled(view *state.View, sw *state.Sweep) bool {
	if s.cfg.Settle == nil || sw.StoppingJSON == "" || s.unsettled >= patience {
		s.unsettled = 0
		return true
	}
	ctx, cancel := context.WithTimeout(s.Context, settleLimit)
	defer cancel()
	s.cfg.Settle(ctx, s.Sweep, view.Index())
	latest, same := s.View()
	if !same {
		return false // the next step finds out
	}
	now, ok := latest.Sweep(s.Sweep)
	if ok && now.Status == sw.Status && now.Findings == sw.Findings && now.Wanted() == sw.Wanted() {
		s.unsettled = 0
		return true
	}
	s.unsettled++
	return false
}

// record puts a proposal into the log.
func (s *searcher) record(c *logv1.ProposeTrials) bool {
	res, err := s.cfg.Log.Propose(s.Context, &logv1.Command{TimeMs: s.cfg.NowMS(), Op: &logv1.Command_ProposeTrials{ProposeTrials: c}})
	if err == nil {
		err = res.Err
	}
	if errors.Is(err, state.ErrInvalid) {
		// The same proposal is refused for ever, and each try is an entry of the log.
		s.fail(fmt.Errorf("a proposal cannot be recorded: %w", err))
		s.sleep(logPause)
		return false
	}
	if err != nil {
		// Not the search's fault. Should it be in the log all the same, the next
		// look finds it.
		if s.Context.Err() == nil {
			s.cfg.Logger.Warn("proposal not recorded", "sweep", s.Sweep, "first", c.First, "error", err)
		}
		s.sleep(logPause)
	}
	return err == nil
}

// prepare makes the search method, anew when the budget has been extended.
func (s *searcher) prepare(sw *state.Sweep) error {
	if s.past == nil {
		s.past = history.NewReader(&sw.Space)
	}
	if s.method != nil && s.budget == sw.Budget {
		return nil
	}
	m, err := history.Method(sw, sw.Budget)
	if err != nil {
		return err
	}
	s.method, s.budget = m, sw.Budget
	return nil
}

// ask turns a panic of a search method into an error: it fails its sweep, not
// the cluster.
func (s *searcher) ask(known []search.Trial, n int) (p search.Proposal, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.cfg.Logger.Error("search panicked", "sweep", s.Sweep, "panic", r, "stack", string(debug.Stack()))
			s.method = nil
			err = fmt.Errorf("search method panicked: %v", r)
		}
	}()
	return s.method.Propose(s.Context, known, n)
}

// fail ends the sweep with the reason.
func (s *searcher) fail(reason error) {
	if err := failSweep(s.Context, s.cfg, s.Sweep, reason.Error()); err != nil && s.Context.Err() == nil {
		s.cfg.Logger.Warn("failed search not recorded", "sweep", s.Sweep, "error", err)
	}
}

// failSweep ends a sweep whose search has failed; one that has ended otherwise is as good.
func failSweep(ctx context.Context, cfg Config, sweep, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	res, err := cfg.Log.Propose(ctx, &logv1.Command{TimeMs: cfg.NowMS(), Op: &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: sweep, Reason: "search: " + reason}}})
	if err == nil && !errors.Is(res.Err, state.ErrConflict) { // it has ended otherwise
		err = res.Err
	}
	return err
}
