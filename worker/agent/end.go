package agent

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"atelier/common/trial"
	"atelier/worker/runner"
)

// exitClass is what the end of the process means for the run. A member that failed
// without a link to another one names the workers.
func (r *run) exitClass(ctx context.Context, exit runner.Exit) (trial.Exit, string) {
	class, message := r.classify(ctx, exit)
	switch class {
	case trial.ExitFinished, trial.ExitStopped, trial.ExitPaused, trial.ExitReleased:
	default:
		if r.h.seat != nil {
			if why := r.h.seat.Trouble(); why != "" {
				message = why + "; its trainer: " + message
			}
		}
	}
	return class, message
}

// classify puts what was asked of the run before what the process looked like.
func (r *run) classify(ctx context.Context, exit runner.Exit) (trial.Exit, string) {
	if cause, _ := r.h.lossCause(); cause != "" {
		return trial.ExitLost, cause
	}
	v, reason, drain := r.h.asked()
	drain = drain || ctx.Err() != nil
	switch {
	case exit.Silent:
		return exit.Class, cmp.Or(r.h.name(), "trainer") + " " + exit.Message
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
		case r.h.askedToLeave() && exit.Terminated:
			return trial.ExitReleased, fmt.Sprintf("was asked to leave the group, did not within %s and was ended", r.s.a.cfg.StopPatience)
		case r.h.askedToLeave():
			return trial.ExitReleased, leftAsAsked
		case exit.Terminated:
			return exit.Class, exit.Message
		}
		// It was asked by somebody else to end, and did so in good order.
		return trial.ExitReleased, "the trainer ended with a checkpoint before it was done"
	case exit.Class == trial.ExitReleased: // it left its group
		switch {
		case exit.Message != "":
		case drain:
			return exit.Class, "its worker is leaving"
		case r.h.askedToLeave():
			return exit.Class, leftAsAsked
		default:
			return exit.Class, "left the group"
		}
	case exit.Class == trial.ExitStopped && exit.Message == "":
		return exit.Class, reason
	}
	return exit.Class, exit.Message
}

// Why a member is gone that the coordinators needed elsewhere: it left, or had not
// begun.
const (
	leftAsAsked = "left the group as it was asked to"
	leftUnbegun = "was asked to leave before it took part"
)

// endsRun reports whether the end of a slot's part is that of the run. Of a group it
// is where the member that reports says so and the others would come to the same;
// all else is that member's own, and the others continue. The coordinators take the
// last member's end for the run's.
func (h *holding) endsRun(class trial.Exit) bool {
	if h.group == nil {
		return true
	}
	switch class {
	case trial.ExitFinished, trial.ExitStopped, trial.ExitPaused, trial.ExitDiverged, trial.ExitBadSpec:
		return h.group.reports(h.lease)
	}
	return false
}

// finish queues a run's end. The lease stays held, and is renewed, until it is
// acknowledged. An end the coordinators brought about is not told to them; one
// by the agent's own clock is, since they may still wait for this run. A member's
// always is: they may have fenced it and count it still.
func (a *Agent) finish(h *holding, class trial.Exit, message string) {
	h.end()
	whole := h.endsRun(class)
	a.leaveGroup(h)
	if whole {
		a.metrics.runs.WithLabelValues(class.String()).Inc()
	} else {
		a.metrics.members.WithLabelValues(class.String()).Inc()
	}
	if cause, local := h.lossCause(); cause != "" && !local && h.group == nil {
		a.held.drop(h)
		return
	}
	l := h.lease
	e := trial.Event{LeaseRef: l.LeaseRef}
	if end := (&trial.Ended{Exit: class, Message: message, TimeMS: time.Now().UnixMilli()}); whole {
		e.Ended = end
	} else {
		e.MemberEnded = end
	}
	a.relay.push(e, nil, func(res trial.EventResult) {
		a.held.drop(h)
		close(h.acked)
		switch res.Outcome {
		case trial.OutcomeRefused:
			a.log.Error("the end of a run was refused", "sweep", l.Sweep, "trial", l.Trial, "message", res.Message)
		case trial.OutcomeFenced:
			a.log.Warn("the end of a run came too late to count", "sweep", l.Sweep, "trial", l.Trial, "exit", class, "message", res.Message)
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
