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
	"atelier/coordinator/duty/attend"
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
	*attend.Seat
	cfg Config

	// Guarded by the lock of the Judge's courts.
	settled uint64        // decisions on the state at this index are in the log
	looked  chan struct{} // closed and replaced after every look
	closed  bool

	// The goroutine's own.
	book stop.Book
	put  int64                  // trials 1 to put are in the book
	open []int64                // those of them that had not ended at the last look
	seen map[int64]*state.Trial // the open ones as they were put
}

var (
	// errClosed ends a court: nothing is to be judged in its sweep now.
	errClosed = errors.New("the sweep is not judged now")
	// errReplaced ends one whose book is of a state that was replaced.
	errReplaced = errors.New("the state was replaced by a restored one")
)

func (c *court) run() {
	for {
		again, err := c.look()
		switch {
		case c.Context.Err() != nil, errors.Is(err, errReplaced):
			return
		case errors.Is(err, errClosed):
			if c.close() {
				return
			}
		case err != nil:
			c.cfg.Logger.Warn("stopping rule: no decision recorded", "sweep", c.Sweep, "error", err)
			c.rest()
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

// close gives the seat up, unless it was called for meanwhile. Who waits for the
// court is let go.
func (c *court) close() bool {
	return c.Leave(func() {
		c.closed = true
		close(c.looked)
	})
}

func (c *court) rest() {
	select {
	case <-time.After(refusedPause):
	case <-c.Context.Done():
	}
}

// look decides on the present state once. again says that decisions were made:
// what they changed may call for more.
func (c *court) look() (again bool, err error) {
	view, ok := c.View()
	if !ok {
		return false, errReplaced
	}
	s, ok := view.Sweep(c.Sweep)
	if !ok || !judged(s) {
		return false, errClosed
	}
	if c.book == nil {
		set, err := stop.Parse([]byte(s.StoppingJSON))
		if err != nil {
			return false, c.fail(err)
		}
		c.book, c.seen = set.Book(stop.Problem{Metric: s.Objective.Metric, Maximize: s.Objective.Maximize}), map[int64]*state.Trial{}
	}
	c.read(s)
	unproposed := s.Unproposed()
	if s.Exhausted {
		unproposed = 0
	}
	again, err = c.carryOut(s, c.book.Decide(unproposed))
	if err != nil {
		return false, err
	}
	c.Locked(func() {
		c.settled = view.Index()
		close(c.looked)
		c.looked = make(chan struct{})
	})
	return again, nil
}

// read puts into the book what differs from the last look. A trial that no
// command has touched is the same one in every view.
func (c *court) read(s *state.Sweep) {
	put := func(t *state.Trial) {
		if c.seen[t.Number] == t {
			return
		}
		c.book.Put(standing(s, t))
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
		if n <= c.put {
			put(s.Trial(n))
		}
	}
	for t := range s.Trials(c.put + 1) {
		put(t)
		c.put = t.Number
	}
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
func (c *court) propose(cmd *logv1.Command) (news bool, err error) {
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
func (c *court) fail(reason error) error {
	err := failSweep(c.Context, c.cfg, c.Sweep, reason.Error())
	if err == nil {
		err = errClosed
	}
	return err
}

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

// standing is a trial as rules see it. Its level is how often it was paused and
// let go on. Reports without the objective say nothing: who never reports it
// trains to the end and fails there with the metrics seen.
func standing(s *state.Sweep, t *state.Trial) stop.Trial {
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
