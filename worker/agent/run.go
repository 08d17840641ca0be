package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"atelier/common/trial"
	"atelier/worker/runner"
)

// outcome of carrying out a lease, for the slot.
type outcome struct {
	started bool  // a trainer took the job, or the lease needed none
	next    *poll // a lease being asked for ahead
}

// run is one lease in work.
type run struct {
	s      *slot
	h      *holding
	child  *runner.Child
	keep   *retention
	began  time.Time
	first  atomic.Bool  // an event came
	last   atomic.Int64 // epoch last reported
	value  float64      // objective at that epoch; used by the event reader only
	valued bool
	fault  error // protocol violation by the trainer
}

// carryOut runs one lease to its end: prepares, starts, watches, reports.
func (s *slot) carryOut(ctx context.Context, h *holding) outcome {
	l := h.lease
	s.set("busy", l)
	defer s.set("idle", nil)
	log := s.a.log.With("sweep", l.SweepId, "trial", l.Trial, "run", l.Run, "slot", s.spec.Name)
	if cause, _ := h.isLost(); cause != "" {
		s.a.finish(h, trial.ExitLost, cause)
		return outcome{started: true}
	}
	if v, reason, drain := h.wishes(); v == trial.VerdictStop || v == trial.VerdictPause || drain {
		s.handBack(h, cmp.Or(reason, "its worker is leaving"))
		return outcome{started: true}
	}
	r := &run{s: s, h: h, began: time.Now()}
	// What takes long here must end when the lease does.
	prep, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.lost:
			cancel()
		case <-prep.Done():
		}
	}()
	refused := false
	job, copied, err := r.prepare(prep)
	if err == nil {
		if _, ok := s.a.trainers[l.Trainer]; !ok {
			err = fmt.Errorf("this worker has no trainer %q", l.Trainer)
		} else {
			r.child, err = s.standby.take(prep, l.Trainer)
			refused = err != nil && cannotStart(err) && s.a.starts.unstartable(l.Trainer)
		}
	}
	if copied != "" {
		defer s.a.cfg.Store.DropCopy(copied)
	}
	if err != nil {
		class, message, ours := trial.ExitCrashed, err.Error(), false
		switch {
		case refused:
			class, message = trial.ExitBadSpec, fmt.Sprintf("worker %s has never been able to %s", s.a.cfg.Name, message)
		case errors.Is(err, errNoModel):
			class = trial.ExitBadSpec
		case isDiskFull(err):
			class = trial.ExitDiskFull
		}
		if cause, _ := h.isLost(); cause != "" {
			class, message, ours = trial.ExitLost, cause, true
		} else if ctx.Err() != nil {
			class, message, ours = trial.ExitReleased, "its worker is leaving", true
		} else {
			log.Error("run cannot start", "error", err)
		}
		s.a.finish(h, class, message)
		s.awaitRefusal(ctx, h, class)
		return outcome{started: ours}
	}
	before, _ := s.spec.UsedBytes()
	exited := make(chan runner.Exit, 1)
	go func() { exited <- r.child.Run(job, s.a.logFile(l), r.event) }()
	if !s.a.refuses() {
		// The run that begins goes first where cores are short.
		delay := min(s.past.longest(l.SweepId)/10, 50*time.Millisecond)
		go func() {
			if sleep(ctx, delay) {
				s.standby.refill(ctx, l.Trainer)
			}
		}()
	}
	exit, next := s.watch(ctx, r, exited)
	took := time.Since(r.began)

	class, message := r.class(ctx, exit)
	if class == trial.ExitFinished {
		s.past.add(l.SweepId, took)
	}
	log.Info("run ended", "exit", class, "seconds", took.Seconds(), "epoch", r.last.Load(), "message", message)
	s.a.cfg.Store.DropEmptyRun(l.SweepId, l.Trial, l.Token)
	s.a.finish(h, class, message)
	s.awaitRefusal(ctx, h, class)
	if s.spec.Kind == "gpu" {
		s.awaitMemory(ctx, before)
	}
	return outcome{started: true, next: next}
}

// watch waits for the run's end, passes on what is asked of it, and asks for
// the next lease shortly before the end it expects.
func (s *slot) watch(ctx context.Context, r *run, exited <-chan runner.Exit) (runner.Exit, *poll) {
	var next *poll
	var held <-chan struct{} // next has its lease
	var tooLong <-chan time.Time
	prefetch := make(<-chan time.Time)
	if after, ok := prefetchAfter(s.past.longest(r.h.lease.SweepId)); ok {
		t := time.NewTimer(after)
		defer t.Stop()
		prefetch = t.C
	}
	patience := make(<-chan time.Time)
	lost, done := r.h.lost, ctx.Done()
	for {
		select {
		case exit := <-exited:
			return exit, next
		case <-lost:
			lost = nil
			r.child.Kill()
		case <-done:
			done = nil
			r.child.Kill()
		case <-r.h.signal:
			v, _, drain := r.h.wishes()
			if t := r.tell(v, drain); t != nil {
				defer t.Stop()
				patience = t.C
			}
		case <-patience:
			s.a.log.Warn("trainer does not obey; ending it", "sweep", r.h.lease.SweepId, "trial", r.h.lease.Trial)
			r.child.Stop()
		case <-prefetch:
			if next == nil && !s.a.refuses() {
				next = s.poll(ctx, time.Second)
				held = next.done
				hold := time.NewTimer(s.a.cfg.PrefetchHold)
				defer hold.Stop()
				tooLong = hold.C
			}
		case <-held:
			held = nil
			if next.lease == nil {
				next = nil
			}
		case <-tooLong:
			// This run is longer than the ones before: let others have the lease.
			if next != nil {
				go next.drop(s, "its slot stays busy longer than expected")
				next, held = nil, nil
			}
		}
	}
}

// tell passes a wish on, once each, and returns the timer of its patience.
func (r *run) tell(v trial.Verdict, drain bool) *time.Timer {
	verdict := ""
	switch {
	case v == trial.VerdictStop:
		verdict = "stop"
	case v == trial.VerdictPause || drain:
		verdict = "pause"
	default:
		return nil
	}
	go func() {
		if err := r.child.Tell(verdict); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.EPIPE) {
			r.s.a.log.Warn("trainer does not take a control line", "verdict", verdict, "error", err)
		}
	}()
	if v == trial.VerdictStop || v == trial.VerdictPause {
		return time.NewTimer(r.s.a.cfg.StopPatience)
	}
	return nil // the drain has its own grace time
}
