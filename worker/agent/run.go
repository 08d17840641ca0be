package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"atelier/common/inference"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/worker/runner"
	"atelier/worker/store"
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

// prepare makes the job: folders, settings, the checkpoint to go on from.
func (r *run) prepare(ctx context.Context) (job trainerproto.Job, copied string, err error) {
	a, l := r.s.a, r.h.lease
	dir, err := a.cfg.Store.RunDir(l.SweepId, l.Trial, l.Token)
	if err != nil {
		return job, "", err
	}
	r.keep = newRetention(a.cfg.Store, l, a.log)
	job = trainerproto.Job{Sweep: l.SweepId, Trial: l.Trial, Run: l.Run, Seed: l.Seed, Params: object(l.ParamsJson), Training: object(l.TrainingJson), Kind: wire.Kind(l.Kind).String(),
		Metric: l.GetObjective().GetMetric(), Maximize: wire.Objective(l.GetObjective()).Maximize,
		Device: r.s.spec.JobDevice(), Threads: r.s.spec.Threads, Dir: dir, BaseDir: l.BaseDir, CacheDir: a.cfg.CacheDir, EndEpoch: int(l.EndEpoch)}
	if wire.Kind(l.Kind) == trial.Inference {
		// Its own checkpoints are results: it begins anew. What is wrong with the task the trainer says.
		if task, err := inference.ParseTask(job.Training); err == nil && task.Checkpoint != nil {
			job.Resume, err = a.model(ctx, task.Checkpoint)
			return job, job.Resume, err
		}
		return job, "", nil
	}
	for _, c := range l.Checkpoints {
		file, err := a.cfg.Store.Fetch(ctx, c)
		if err == nil {
			job.Resume, job.ResumeEpoch = file, int(c.Epoch)
			return job, file, nil
		}
		if ctx.Err() != nil {
			return job, "", ctx.Err()
		}
		a.log.Warn("a checkpoint cannot be used; trying an older one or from scratch", "sweep", l.SweepId, "trial", l.Trial, "error", err)
		if errors.Is(err, store.ErrGone) {
			a.tellGone(c)
		}
	}
	return job, "", nil
}

// errNoModel is of a task that names a checkpoint which the index does not have.
var errNoModel = errors.New("the cluster has no such checkpoint")

// model fetches the checkpoint that a task of inference names.
func (a *Agent) model(ctx context.Context, k *inference.Stored) (file string, err error) {
	if a.cfg.Index == nil {
		return "", errors.New("this worker has no index to find checkpoints in")
	}
	resp, err := a.cfg.Index.ListCheckpoints(ctx, connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: k.Sweep, Trial: k.Trial, Source: "state"}))
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		return "", fmt.Errorf("find the checkpoint of sweep %s, trial %d: %w", k.Sweep, k.Trial, err)
	}
	if err == nil {
		for _, c := range resp.Msg.Checkpoints {
			if int(c.Epoch) == k.Epoch {
				file, err := a.cfg.Store.Fetch(ctx, c)
				if errors.Is(err, store.ErrGone) {
					a.tellGone(c)
				}
				return file, err
			}
		}
	}
	return "", fmt.Errorf("%w: sweep %s, trial %d, epoch %d", errNoModel, k.Sweep, k.Trial, k.Epoch)
}

func object(s string) json.RawMessage {
	if s == "" {
		return json.RawMessage("{}")
	}
	return json.RawMessage(s)
}

func (a *Agent) logFile(l *atelierv1.Lease) string {
	return filepath.Join(a.cfg.LogDir, l.SweepId, strconv.FormatInt(l.Trial, 10), fmt.Sprintf("run-%d.log", l.Run))
}

// event takes one event of the trainer. It blocks while the queue is full, and
// so does the trainer then.
func (r *run) event(e trainerproto.Event) {
	if r.first.CompareAndSwap(false, true) {
		r.s.a.metrics.firstEvent.Observe(time.Since(r.began).Seconds())
	}
	if r.fault != nil {
		return
	}
	l := r.h.lease
	switch e.Kind {
	case trainerproto.EventEpoch:
		if r.over() {
			return // of a trainer that knows of no end
		}
		r.last.Store(int64(e.Epoch))
		rep := &atelierv1.Report{Epoch: int32(e.Epoch), TimeMs: time.Now().UnixMilli(), Data: e.Data}
		for _, m := range e.Metrics {
			rep.Metrics = append(rep.Metrics, &atelierv1.Metric{Name: m.Name, Value: m.Value})
		}
		r.value, r.valued = e.Metrics.Get(l.GetObjective().GetMetric())
		r.push(&atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Report{Report: rep}}, nil)
		if r.over() {
			r.h.judge(wire.Verdict(l.EndVerdict), cmp.Or(l.EndReason, "the run's last epoch is reported"))
		}
	case trainerproto.EventCheckpoint:
		if r.over() && int64(e.Epoch) > r.last.Load() {
			return
		}
		c, err := r.checkpoint(e)
		if err != nil {
			r.fault = err
			r.child.Kill()
			return
		}
		r.push(&atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token, Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: c}},
			func(res *atelierv1.EventResult) { r.keep.acknowledged(c, res) })
	}
}

// over reports whether the run has reported the last epoch its lease is for. It
// ends by itself then, whether a coordinator can be reached or not.
func (r *run) over() bool {
	end := int64(r.h.lease.EndEpoch)
	return end > 0 && r.last.Load() >= end
}

func (r *run) push(e *atelierv1.RunEvent, then func(*atelierv1.EventResult)) {
	h, a := r.h, r.s.a
	if cause, _ := h.isLost(); cause != "" {
		a.metrics.dropped.Inc()
		return
	}
	if !a.relay.push(e, h.lost, func(res *atelierv1.EventResult) {
		a.answered(h, res)
		if then != nil {
			then(res)
		}
	}) {
		a.metrics.dropped.Inc()
	}
}

// answered acts on what the coordinators say to an event.
func (a *Agent) answered(h *holding, res *atelierv1.EventResult) {
	switch wire.Outcome(res.Outcome) {
	case trial.OutcomeFenced:
		a.auditSoon()
		if h.lose("the coordinators refused its token", false) {
			a.log.Warn("run fenced off", "sweep", h.lease.SweepId, "trial", h.lease.Trial, "token", h.lease.Token)
		}
		return
	case trial.OutcomeRefused:
		if wire.Verdict(res.Verdict) > trial.VerdictContinue { // it comes too late, as can be
			a.log.Info("an event does not count any more", "sweep", h.lease.SweepId, "trial", h.lease.Trial, "message", res.Message)
			break
		}
		a.log.Error("an event was refused", "sweep", h.lease.SweepId, "trial", h.lease.Trial, "message", res.Message)
	}
	h.judge(wire.Verdict(res.Verdict), cmp.Or(res.Message, "verdict of the coordinators"))
}

// checkpoint checks what the trainer says of its file; the bytes are checked
// against the hash by whoever fetches them.
func (r *run) checkpoint(e trainerproto.Event) (*atelierv1.Checkpoint, error) {
	l := r.h.lease
	location, err := r.s.a.cfg.Store.Location(e.Path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(e.Path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of epoch %d: %w", e.Epoch, err)
	}
	if info.Size() != e.Size {
		return nil, fmt.Errorf("checkpoint of epoch %d: the trainer says %d bytes, the file has %d", e.Epoch, e.Size, info.Size())
	}
	if len(e.SHA256) != 64 {
		return nil, fmt.Errorf("checkpoint of epoch %d: the trainer gives no SHA-256", e.Epoch)
	}
	c := &atelierv1.Checkpoint{SweepId: l.SweepId, Trial: l.Trial, Epoch: int32(e.Epoch), Size: e.Size, Sha256: e.SHA256, Location: location,
		Worker: r.s.a.cfg.Name, CreatedMs: time.Now().UnixMilli(), Token: l.Token}
	v, ok := e.Metrics.Get(l.GetObjective().GetMetric())
	if !ok && r.valued && int64(e.Epoch) == r.last.Load() {
		v, ok = r.value, true
	}
	if ok && !math.IsNaN(v) {
		c.Metric, c.HasMetric = v, true
	}
	return c, nil
}

// class says what the end of the process means for the run: what was asked of
// it comes before what the process looked like.
func (r *run) class(ctx context.Context, exit runner.Exit) (trial.Exit, string) {
	if cause, _ := r.h.isLost(); cause != "" {
		return trial.ExitLost, cause
	}
	v, reason, drain := r.h.wishes()
	drain = drain || ctx.Err() != nil
	switch {
	case r.fault != nil && exit.Class != trial.ExitFinished:
		return trial.ExitCrashed, r.fault.Error()
	case exit.Class == trial.ExitPaused || exit.Terminated:
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
	if cause, local := h.isLost(); cause != "" && !local {
		a.held.drop(h)
		return
	}
	l := h.lease
	e := &atelierv1.RunEvent{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token,
		Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(class), Message: message, TimeMs: time.Now().UnixMilli()}}}
	a.relay.push(e, nil, func(res *atelierv1.EventResult) {
		a.held.drop(h)
		close(h.acked)
		if wire.Outcome(res.Outcome) == trial.OutcomeRefused {
			a.log.Error("the end of a run was refused", "sweep", l.SweepId, "trial", l.Trial, "message", res.Message)
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
	s.set("quarantined", nil)
	s.a.heartbeatSoon()
	for ctx.Err() == nil && !s.a.draining.Load() && !s.spec.WaitMemory(ctx, before, 10*time.Second) {
	}
}
