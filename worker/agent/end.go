package agent

import (
	"cmp"
	"context"
	"time"

	"atelier/common/trial"
	"atelier/worker/runner"
)

// exitClass says what the end of the process means for the run: what was asked of
// it comes before what the process looked like.
func (r *run) exitClass(ctx context.Context, exit runner.Exit) (trial.Exit, string) {
	if cause, _ := r.h.lossCause(); cause != "" {
		return trial.ExitLost, cause
	}
	v, reason, drain := r.h.asked()
	drain = drain || ctx.Err() != nil
	switch {
	// What was done in spite of a fault is done.
	case r.fault != nil && exit.Class != trial.ExitFinished:
		return trial.ExitCrashed, r.fault.Error()
	case exit.Class == trial.ExitPaused || exit.Terminated:
		// It obeyed, or was ended for not obeying: that comes to the same.
		switch {
		case v == trial.VerdictStop:
			return trial.ExitStopped, cmp.Or(exit.Message, reason)
		case v == trial.VerdictPause:
			return trial.ExitPaused, cmp.Or(exit.Message, reason)
		case drain:
			return trial.ExitReleased, "its worker is leaving"
		case exit.Terminated:
			return exit.Class, exit.Message
		}
		// It was asked by somebody else to end, and did so in good order.
		return trial.ExitReleased, "the trainer ended with a checkpoint before it was done"
	case exit.Class == trial.ExitStopped && exit.Message == "":
		return exit.Class, reason
	}
	return exit.Class, exit.Message
}

// finish queues a run's end. The lease stays held, and is renewed, until it is
// acknowledged. An end the coordinators brought about is not told to them; one
// by the agent's own clock is, since they may still wait for this run.
func (a *Agent) finish(h *holding, class trial.Exit, message string) {
	h.end()
	a.metrics.runs.WithLabelValues(class.String()).Inc()
	if cause, local := h.lossCause(); cause != "" && !local {
		a.held.drop(h)
		return
	}
	l := h.lease
	e := trial.Event{LeaseRef: l.LeaseRef, Ended: &trial.Ended{Exit: class, Message: message, TimeMS: time.Now().UnixMilli()}}
	a.relay.push(e, nil, func(res trial.EventResult) {
		a.held.drop(h)
		close(h.acked)
		if res.Outcome == trial.OutcomeRefused {
			a.log.Error("the end of a run was refused", "sweep", l.Sweep, "trial", l.Trial, "message", res.Message)
		}
	})
}

// awaitRefusal waits until the coordinators know that this worker refused a trial:
// asked before, they would give it the next one of the same sweep.
func (s *slot) awaitRefusal(ctx context.Context, h *holding, class trial.Exit) {
	if class != trial.ExitBadSpec && class != trial.ExitDataMissing {
		return
	}
	select {
	case <-h.acked:
	case <-h.lost:
	case <-ctx.Done():
	case <-s.a.drain:
	}
}

// awaitMemory keeps a GPU out of use until the memory of its last run is back.
func (s *slot) awaitMemory(ctx context.Context, before int64) {
	if s.spec.WaitMemory(ctx, before, s.a.cfg.MemoryWait) || ctx.Err() != nil {
		return
	}
	s.a.log.Error("GPU memory of an ended run is not given back; slot quarantined until it is", "slot", s.spec.Name)
	s.setState("quarantined", nil)
	s.a.heartbeatSoon()
	for ctx.Err() == nil && !s.a.draining.Load() && !s.spec.WaitMemory(ctx, before, 10*time.Second) {
	}
}
