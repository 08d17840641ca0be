package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/confine"
	"atelier/worker/runner"
)

// outcome of carrying out a lease, for the slot.
type outcome struct {
	started bool  // a trainer took the job, or the lease needed none
	next    *poll // a lease being asked for ahead
}

// run is one lease in work.
type run struct {
	s         *slot
	h         *holding
	child     *runner.Child
	retention *retention
	began     time.Time
	started   atomic.Bool  // its first event came
	epoch     atomic.Int64 // last reported
	value     float64      // objective at that epoch; used by the event reader only
	valued    bool
	fault     error  // protocol violation by the trainer
	sent      string // what the trainer was asked last, by a control line; for watch
	acks      *acks  // of a member's reports; nil: there is no group
}

// carryOut runs one lease to its end: prepares, starts, watches, reports.
func (s *slot) carryOut(ctx context.Context, h *holding) outcome {
	l := h.lease
	s.setState("busy", l)
	defer s.setState("idle", nil)
	if cause, _ := h.lossCause(); cause != "" {
		s.a.finish(h, trial.ExitLost, cause)
		return outcome{started: true}
	}
	if v, reason, drain := h.asked(); v == trial.VerdictStop || v == trial.VerdictPause || drain || h.askedToLeave() {
		if h.askedToLeave() && !drain {
			reason = cmp.Or(reason, leftUnbegun)
		}
		s.handBack(h, cmp.Or(reason, "its worker is leaving"))
		return outcome{started: true}
	}
	r := &run{s: s, h: h, began: time.Now()}
	if h.group != nil {
		r.acks = &acks{changed: make(chan struct{}, 1)}
	}
	job, err := r.prepare(ctx)
	if job.Resume != "" && h.group == nil {
		defer s.a.cfg.Store.DropCopy(job.Resume)
	}
	if err != nil {
		return r.cannotBegin(ctx, err)
	}
	h.begin()
	memory, _ := s.spec.UsedBytes()     // of the GPU, before the run takes its own
	exited := make(chan runner.Exit, 1) // read once, by watch, which may be busy
	go func() { exited <- r.child.Run(job, s.a.logFile(l), r.onEvent) }()
	if !s.a.wantsNoWork() {
		// The run that begins goes first where cores are short.
		delay := min(s.durations.longest(l.Sweep)/10, 50*time.Millisecond)
		go func() {
			if sleep(ctx, delay) {
				s.standby.refill(ctx, l.Trainer)
			}
		}()
	}
	if h.group != nil {
		s.a.log.Info("member of a group begins", "sweep", l.Sweep, "trial", l.Trial, "run", l.Run, "member", h.name(), "id", l.Member, "joins", l.Group.Join, "members", len(l.Group.Members))
	}
	stopAcks := r.passAcks()
	logged := s.a.sendLog(h)
	exit, next := s.watch(ctx, r, exited)
	logged()
	stopAcks()
	took := time.Since(r.began)

	class, message := r.exitClass(ctx, exit)
	if exit.Silent {
		s.a.metrics.hung.Inc()
	}
	if class == trial.ExitFinished {
		s.durations.add(l.Sweep, took)
	}
	s.a.log.Info("run ended", "sweep", l.Sweep, "trial", l.Trial, "run", l.Run, "slot", s.spec.Name, "member", l.Member,
		"exit", class, "seconds", took.Seconds(), "epoch", r.epoch.Load(), "message", message)
	s.a.cfg.Store.DropEmptyRun(l)
	s.a.finish(h, class, message)
	s.awaitRefusal(ctx, h, class)
	if s.spec.Kind == "gpu" {
		s.awaitMemory(ctx, memory)
	}
	return outcome{started: true, next: next}
}

// prepare makes the job and takes a trainer for it. It is given up when the
// lease is lost: a checkpoint may take minutes to fetch.
func (r *run) prepare(ctx context.Context) (trainerproto.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.h.lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	job, err := r.makeJob(ctx)
	if err != nil {
		return job, err
	}
	name := r.h.lease.Trainer
	if _, ok := r.s.a.trainers[name]; !ok {
		return job, fmt.Errorf("this worker has no trainer %q", name)
	}
	read, err := r.s.a.cfg.Launcher.Confinement().Open(namedPaths(&job))
	if err != nil {
		return job, err
	}
	r.child, err = r.s.standby.take(ctx, name, read)
	if err != nil {
		if cannotStart(err) && r.s.a.starts.unstartable(name) {
			err = &refusedStart{worker: r.s.a.cfg.Name, err: err}
		}
		return job, err
	}
	if version := r.child.Groups(); r.h.group != nil && version != trainerproto.GroupVersion {
		err = &noGroups{trainer: name, worker: r.s.a.cfg.Name, version: version}
	} else {
		err = r.link(ctx)
	}
	if err != nil {
		r.child.Discard()
	}
	return job, err
}

// refusedStart is of a trainer that never started on this worker, time after
// time: its runs are for others.
type refusedStart struct {
	worker string
	err    error
}

func (e *refusedStart) Error() string {
	return fmt.Sprintf("worker %s has never been able to %s", e.worker, e.err)
}

func (e *refusedStart) Unwrap() error { return e.err }

// cannotBegin ends a run that has no job or no trainer. It counts as started
// where neither the trial nor this machine is at fault.
func (r *run) cannotBegin(ctx context.Context, err error) outcome {
	s, l := r.s, r.h.lease
	if cause, _ := r.h.lossCause(); cause != "" {
		s.a.finish(r.h, trial.ExitLost, cause)
		return outcome{started: true}
	}
	if ctx.Err() != nil {
		s.a.finish(r.h, trial.ExitReleased, "its worker is leaving")
		return outcome{started: true}
	}
	if apart := (*unreachable)(nil); errors.As(err, &apart) {
		s.a.log.Error("member of a group cannot begin", "sweep", l.Sweep, "trial", l.Trial, "run", l.Run, "member", r.h.name(), "error", err)
		s.a.finish(r.h, trial.ExitLost, err.Error())
		return outcome{started: true}
	}
	class := trial.ExitCrashed
	refused, unfit, outside := (*refusedStart)(nil), (*noGroups)(nil), (*confine.Outside)(nil)
	switch {
	case errors.As(err, &refused), errors.As(err, &unfit), errors.Is(err, errNoModel):
		class = trial.ExitBadSpec
	case errors.As(err, &outside): // another worker may have it elsewhere, or open it
		class = trial.ExitDataMissing
	case isDiskFull(err):
		class = trial.ExitDiskFull
	}
	s.a.log.Error("run cannot start", "sweep", l.Sweep, "trial", l.Trial, "run", l.Run, "slot", s.spec.Name, "error", err)
	s.a.finish(r.h, class, err.Error())
	s.awaitRefusal(ctx, r.h, class)
	return outcome{}
}

// watch waits for the run's end, passes on what is asked of it, and asks for
// the next lease shortly before the end it expects.
func (s *slot) watch(ctx context.Context, r *run, exited <-chan runner.Exit) (runner.Exit, *poll) {
	// A nil channel is never ready: what has been dealt with is set to nil.
	var next *poll
	var held <-chan struct{} // next has its lease
	var prefetch, tooLong, patience <-chan time.Time
	if after, ok := prefetchAfter(s.durations.longest(r.h.lease.Sweep)); ok {
		t := time.NewTimer(after)
		defer t.Stop()
		prefetch = t.C
	}
	lost, done := r.h.lost, ctx.Done()
	for {
		select {
		case exit := <-exited:
			return exit, next
		case <-lost: // nothing that it does counts any more
			lost = nil
			r.child.Kill()
		case <-done: // the grace time of a drain is over, or this program has to end
			done = nil
			r.child.Kill()
		case <-r.h.signal:
			if t := r.sendAsked(); t != nil {
				defer t.Stop()
				patience = t.C
			}
		case <-patience:
			s.a.log.Warn("trainer does not obey; ending it", "sweep", r.h.lease.Sweep, "trial", r.h.lease.Trial, "member", r.h.name())
			r.child.Stop()
		case <-prefetch:
			if next == nil && !s.a.wantsNoWork() {
				next = s.poll(ctx, time.Second)
				held = next.done
				hold := time.NewTimer(s.a.cfg.PrefetchHold)
				defer hold.Stop()
				tooLong = hold.C
			}
		case <-held:
			held = nil
			if next.lease == nil { // given up: there was none
				next = nil
			}
		case <-tooLong:
			// This run is longer than the ones before: let others have the lease.
			if next != nil {
				go next.giveUp(s, "its slot stays busy longer than expected")
				next, held = nil, nil
			}
		}
	}
}

// leave is the control line to a member that is to leave its group.
const leave = "leave"

// wanted is what the trainer is to be asked now: stop, pause or leave; "" for
// nothing. Urgent: it is ended if it does not obey within the patience.
func (r *run) wanted() (line string, urgent bool) {
	h := r.h
	v, _, drain := h.asked()
	switch {
	case v == trial.VerdictStop:
		return "stop", true
	case v == trial.VerdictPause:
		return "pause", true
	case h.group != nil && h.askedToLeave():
		return leave, true
	case drain && h.group != nil && !h.group.allHere(h.lease):
		return leave, false // the others continue elsewhere
	case drain:
		return "pause", false // the drain has its own grace time
	}
	return "", false
}

// sendAsked tells the trainer what is asked of it, and returns the timer after which
// it is ended all the same; nil where there is none. What was asked before is asked
// again only where it is more: a member that leaves may have to pause, since the
// others left too.
func (r *run) sendAsked() *time.Timer {
	order := []string{"", leave, "pause", "stop"}
	line, urgent := r.wanted()
	if slices.Index(order, line) <= slices.Index(order, r.sent) {
		return nil
	}
	r.sent = line
	go func() { // a trainer that does not read would hold up the watch
		if err := r.child.SendVerdict(line); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.EPIPE) {
			r.s.a.log.Warn("trainer does not take a control line", "verdict", line, "error", err)
		}
	}()
	if urgent {
		return time.NewTimer(r.s.a.cfg.StopPatience)
	}
	return nil
}
