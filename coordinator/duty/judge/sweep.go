package judge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/persweep"
	"atelier/coordinator/state"
	"atelier/tuner/stop"
)

const (
	// chunk is how many decisions go through the log side by side.
	chunk      = 64
	logTimeout = 10 * time.Second
	// refusedPause is how long a sweepJudge backs off after a decision that could not be
	// recorded: the state moved on, or there is no leader.
	refusedPause = 20 * time.Millisecond
)

// sweepJudge judges one sweep, in one goroutine.
type sweepJudge struct {
	*persweep.Handle
	cfg Config

	// Guarded by the lock of the group.
	settled uint64        // decisions on the state at this index are in the log
	decided chan struct{} // closed and replaced after every round
	closed  bool

	// The goroutine's own.
	rule stop.RuleState
	fed  int64                  // trials 1 to fed are in the rule state
	open []int64                // those of them that had not ended at the last round
	seen map[int64]*state.Trial // the open ones as they were fed
}

var (
	// errClosed ends a sweepJudge: nothing is to be judged in its sweep now.
	errClosed = errors.New("the sweep is not judged now")
	// errReplaced ends one whose rule state is of a replicated state that was replaced.
	errReplaced = errors.New("the state was replaced by a restored one")
)

// run decides until nothing is left to decide, then waits for a change. A decision that could not
// be written is made anew: the state may be another by then.
func (c *sweepJudge) run() {
	for {
		again, err := c.decide()
		switch {
		case c.Context.Err() != nil, errors.Is(err, errReplaced):
			return
		case errors.Is(err, errClosed):
			if c.close() {
				return
			}
		case err != nil:
			c.cfg.Logger.Warn("stopping rule: no decision recorded", "sweep", c.Sweep, "error", err)
			c.backoff()
			continue
		case again:
			continue
		}
		select {
		case <-c.Woken:
		case <-c.Context.Done():
			return
		}
	}
}

// close gives the handle up, unless it was called for meanwhile. Who waits for the
// sweepJudge is let go.
func (c *sweepJudge) close() bool {
	return c.Leave(func() {
		c.closed = true
		close(c.decided)
	})
}

// backoff waits a moment after a refusal of the log.
func (c *sweepJudge) backoff() {
	select {
	case <-time.After(refusedPause):
	case <-c.Context.Done():
	}
}

// decide takes one round of decisions on the present state. again reports that decisions were made:
// what they changed may call for more.
func (c *sweepJudge) decide() (again bool, err error) {
	view, ok := c.View()
	if !ok {
		return false, errReplaced
	}
	s, ok := view.Sweep(c.Sweep)
	if !ok || !judged(s) {
		return false, errClosed
	}
	if c.rule == nil {
		set, err := stop.Read(s.StoppingJSON)
		if err != nil {
			return false, c.fail(err)
		}
		c.rule, c.seen = set.NewState(stop.Problem{Metric: s.Objective.Metric, Maximize: s.Objective.Maximize}), map[int64]*state.Trial{}
	}
	c.read(s)
	unproposed := s.Unproposed()
	if s.Exhausted {
		unproposed = 0
	}
	again, err = c.carryOut(s, c.rule.Decide(unproposed))
	if err != nil {
		return false, err
	}
	c.Locked(func() {
		c.settled = view.Index()
		close(c.decided)
		c.decided = make(chan struct{})
	})
	return again, nil
}

// read puts into the rule state what differs from the last round. A trial that no
// command has touched is the same one in every view.
func (c *sweepJudge) read(s *state.Sweep) {
	put := func(t *state.Trial) {
		if c.seen[t.Number] == t {
			return
		}
		c.rule.Put(trialView(s, t))
		if t.Ended() {
			delete(c.seen, t.Number)
		} else {
			c.seen[t.Number] = t
		}
	}
	for _, n := range c.open {
		put(s.Trial(n))
	}
	c.open = s.Open()
	for _, n := range c.open { // a failed one may be tried again
		if n <= c.fed {
			put(s.Trial(n))
		}
	}
	for t := range s.Trials(c.fed + 1) {
		put(t)
		c.fed = t.Number
	}
}

// carryOut puts decisions through the log, side by side, and reports whether any
// changed the state. It returns the first error; the others are made all the
// same.
func (c *sweepJudge) carryOut(s *state.Sweep, decisions []stop.Decision) (changed bool, err error) {
	var mu sync.Mutex
	for len(decisions) > 0 {
		var wait sync.WaitGroup
		n := min(chunk, len(decisions))
		for _, d := range decisions[:n] {
			cmd := command(s, d) // here: a panic in it is the sweep's
			wait.Add(1)
			go func() {
				defer wait.Done()
				news, e := c.propose(cmd)
				mu.Lock()
				defer mu.Unlock()
				changed = changed || news
				if e != nil && err == nil {
					err = fmt.Errorf("%v trial %d: %w", d.Action, d.Trial, e)
				}
			}()
		}
		wait.Wait()
		decisions = decisions[n:]
	}
	return changed, err
}

// propose puts one command through the log; news says that it was not known.
func (c *sweepJudge) propose(cmd *logv1.Command) (news bool, err error) {
	ctx, cancel := context.WithTimeout(c.Context, logTimeout)
	defer cancel()
	cmd.TimeMs = c.cfg.NowMS()
	res, err := c.cfg.Log.Propose(ctx, cmd)
	if err == nil {
		err = res.Err
	}
	return err == nil && res.Outcome != trial.OutcomeAlready, err
}

// fail ends a sweep whose rule cannot be read, which only another version's
// spec can bring about.
func (c *sweepJudge) fail(reason error) error {
	err := failSweep(c.Context, c.cfg, c.Sweep, reason.Error())
	if err == nil {
		err = errClosed
	}
	return err
}

// failSweep ends a sweep whose rule has failed; one that has ended otherwise is as good.
func failSweep(ctx context.Context, cfg Config, sweep, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	res, err := cfg.Log.Propose(ctx, &logv1.Command{TimeMs: cfg.NowMS(), Op: &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: sweep, Reason: reason}}})
	if err == nil && !errors.Is(res.Err, state.ErrConflict) { // it has ended otherwise
		err = res.Err
	}
	return err
}

// command is a decision as the log has it. One about a run names its lease: it
// is not for a later run.
func command(s *state.Sweep, d stop.Decision) *logv1.Command {
	if d.Action == stop.Resume {
		return &logv1.Command{Op: &logv1.Command_ResumeTrial{ResumeTrial: &logv1.ResumeTrial{Id: s.ID, Trial: d.Trial, Reason: d.Reason}}}
	}
	v := &logv1.SetVerdict{Id: s.ID, Trial: d.Trial, Verdict: wire.ToVerdict(trial.VerdictPause), Reason: d.Reason}
	if d.Action == stop.Stop {
		v.Verdict = wire.ToVerdict(trial.VerdictStop)
	}
	if l := s.Trial(d.Trial).Lease; l != nil {
		v.Token = l.Token
	}
	return &logv1.Command{Op: &logv1.Command_SetVerdict{SetVerdict: v}}
}

// trialView is a trial as rules see it. Its level is how often it was paused and
// let go on. Reports without the objective say nothing: who never reports it
// trains to the end and fails there with the metrics seen.
func trialView(s *state.Sweep, t *state.Trial) stop.Trial {
	out := stop.Trial{Number: t.Number, Status: stop.Ended, Level: int(t.Pauses), From: int(t.Origin.Epoch)}
	switch t.Status {
	case trial.Waiting:
		out.Status = stop.Waiting
	case trial.Running:
		out.Status = stop.Running
	case trial.Paused:
		out.Status = stop.Paused
		out.Level--
	default:
		// One that was stopped while it was paused has not gone on from there.
		if n := len(t.Runs); n > 0 && t.Runs[n-1].Exit == trial.ExitPaused {
			out.Level--
		}
	}
	switch t.Verdict {
	case trial.VerdictPause:
		out.Asked = stop.Pause
	case trial.VerdictStop:
		out.Asked = stop.Stop
	}
	out.Reports = make([]stop.Report, 0, t.ReportCount())
	t.Reports(func(r state.Report) bool {
		for _, m := range r.Metrics {
			if m.Name == s.Objective.Metric {
				out.Reports = append(out.Reports, stop.Report{Epoch: int(r.Epoch), Value: m.Value})
			}
		}
		return true
	})
	return out
}
