package judge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
	"atelier/tuner/stop"
)

const (
	// chunk is how many decisions go through the log side by side.
	chunk      = 64
	logTimeout = 10 * time.Second
	// refusedPause is how long a court rests after a decision that could not be
	// recorded: the state moved on, or there is no leader.
	refusedPause = 20 * time.Millisecond
)

// court judges one sweep, in one goroutine.
type court struct {
	j    *Judge
	t    *term
	id   string
	wake chan struct{}

	// Guarded by Judge.mu.
	stale   []int64       // trials that changed since the last look
	missed  bool          // look at all of them
	settled uint64        // decisions on the state at this index are in the log
	looked  chan struct{} // closed and replaced after every look
	closed  bool

	// The goroutine's own.
	book stop.Book
	put  int64 // trials 1 to put are in the book
}

// errClosed ends a court: nothing is to be judged in its sweep now.
var errClosed = errors.New("the sweep is not judged now")

func (c *court) run() {
	for {
		again, err := c.look()
		switch {
		case c.t.ctx.Err() != nil:
			return
		case errors.Is(err, errClosed):
			if c.j.close(c) {
				return
			}
		case err != nil:
			c.j.cfg.Logger.Warn("stopping rule: no decision recorded", "sweep", c.id, "error", err)
			c.rest()
			continue
		case again:
			continue
		}
		select {
		case <-c.wake:
		case <-c.t.ctx.Done():
			return
		}
	}
}

func (c *court) rest() {
	select {
	case <-time.After(refusedPause):
	case <-c.t.ctx.Done():
	}
}

// look decides on the present state once. again says that decisions were made:
// what they changed may call for more.
func (c *court) look() (again bool, err error) {
	// The marks are taken before the view: what they speak of, the view shows.
	c.j.mu.Lock()
	stale, missed := c.stale, c.missed
	c.stale, c.missed = nil, false
	c.j.mu.Unlock()
	done := false
	defer func() {
		if !done { // marks were taken and not used
			c.j.mu.Lock()
			c.missed = true
			c.j.mu.Unlock()
		}
	}()

	view := c.j.cfg.View()
	s, ok := view.Sweep(c.id)
	if !ok || !judged(s) {
		return false, errClosed
	}
	if missed || c.book == nil || s.Len() < c.put {
		set, err := stop.Parse([]byte(s.StoppingJSON))
		if err != nil {
			return false, c.fail(err)
		}
		c.book, c.put, stale = set.Book(stop.Problem{Metric: s.Objective.Metric, Maximize: s.Objective.Maximize}), 0, nil
	}
	for _, n := range stale {
		if n >= 1 && n <= c.put {
			c.book.Put(standing(s, s.Trial(n)))
		}
	}
	for t := range s.Trials(c.put + 1) {
		c.book.Put(standing(s, t))
		c.put = t.Number
	}
	unproposed := s.Unproposed()
	if s.Exhausted {
		unproposed = 0
	}
	decisions := c.book.Decide(unproposed)
	if c.t.ctx.Err() != nil {
		return false, errClosed // marks no longer come: the book may be behind the view
	}
	again, err = c.carryOut(s, decisions)
	if err != nil {
		return false, err
	}
	done = true
	c.j.mu.Lock()
	c.settled = view.Index()
	close(c.looked)
	c.looked = make(chan struct{})
	c.j.mu.Unlock()
	return again, nil
}

// carryOut puts decisions through the log, side by side, and tells whether any
// changed the state. It returns the first error; the others are made all the
// same.
func (c *court) carryOut(s *state.Sweep, decisions []stop.Decision) (changed bool, err error) {
	var mu sync.Mutex
	for len(decisions) > 0 {
		var wait sync.WaitGroup
		n := min(chunk, len(decisions))
		for _, d := range decisions[:n] {
			wait.Add(1)
			go func() {
				defer wait.Done()
				news, e := c.propose(command(s, d))
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
func (c *court) propose(cmd *logv1.Command) (news bool, err error) {
	ctx, cancel := context.WithTimeout(c.t.ctx, logTimeout)
	defer cancel()
	cmd.TimeMs = c.j.cfg.NowMS()
	res, err := c.j.cfg.Log.Propose(ctx, cmd)
	if err == nil {
		err = res.Err
	}
	return err == nil && res.Outcome != atelierv1.Outcome_OUTCOME_ALREADY, err
}

// fail ends a sweep whose rule cannot be read, which only another version's
// spec can bring about.
func (c *court) fail(reason error) error {
	_, err := c.propose(&logv1.Command{Op: &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: c.id, Reason: reason.Error()}}})
	if err == nil {
		err = errClosed
	}
	return err
}

// command is a decision as the log has it. One about a run names its lease: it
// is not for a later run.
func command(s *state.Sweep, d stop.Decision) *logv1.Command {
	if d.Action == stop.Resume {
		return &logv1.Command{Op: &logv1.Command_ResumeTrial{ResumeTrial: &logv1.ResumeTrial{Id: s.ID, Trial: d.Trial, Reason: d.Reason}}}
	}
	v := &logv1.SetVerdict{Id: s.ID, Trial: d.Trial, Verdict: atelierv1.Verdict_VERDICT_PAUSE, Reason: d.Reason}
	if d.Action == stop.Stop {
		v.Verdict = atelierv1.Verdict_VERDICT_STOP
	}
	if l := s.Trial(d.Trial).Lease; l != nil {
		v.Token = l.Token
	}
	return &logv1.Command{Op: &logv1.Command_SetVerdict{SetVerdict: v}}
}

// standing is a trial as rules see it. Its level is how often it was paused and
// let go on.
func standing(s *state.Sweep, t *state.Trial) stop.Trial {
	out := stop.Trial{Number: t.Number, Status: stop.Ended, Level: int(t.Pauses)}
	switch t.Status {
	case atelierv1.TrialStatus_TRIAL_STATUS_WAITING:
		out.Status = stop.Waiting
	case atelierv1.TrialStatus_TRIAL_STATUS_RUNNING:
		out.Status = stop.Running
	case atelierv1.TrialStatus_TRIAL_STATUS_PAUSED:
		out.Status = stop.Paused
		out.Level--
	default:
		// One that was stopped while it was paused has not gone on from there.
		if n := len(t.Runs); n > 0 && t.Runs[n-1].Exit == atelierv1.ExitClass_EXIT_CLASS_PAUSED {
			out.Level--
		}
	}
	switch t.Verdict {
	case atelierv1.Verdict_VERDICT_PAUSE:
		out.Asked = stop.Pause
	case atelierv1.Verdict_VERDICT_STOP:
		out.Asked = stop.Stop
	}
	out.Reports = make([]stop.Report, 0, t.ReportCount())
	t.Reports(func(r state.Report) bool {
		v := math.NaN()
		for _, m := range r.Metrics {
			if m.Name == s.Objective.Metric {
				v = m.Value
			}
		}
		out.Reports = append(out.Reports, stop.Report{Epoch: int(r.Epoch), Value: v})
		return true
	})
	return out
}
