package agent

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"time"

	"atelier/common/trainerproto"
	"atelier/common/trial"
)

// onEvent takes one event of the trainer. It blocks while the queue is full, and
// so does the trainer then.
func (r *run) onEvent(e trainerproto.Event) {
	if r.started.CompareAndSwap(false, true) {
		r.s.a.metrics.firstEvent.Observe(time.Since(r.began).Seconds())
	}
	if r.fault != nil {
		return
	}
	l := r.h.lease
	if e.Pace != nil && r.h.group != nil {
		r.s.setPace(e.Pace)
	}
	switch e.Kind { // progress within an epoch is for the command that trains here
	case trainerproto.EventEpoch:
		if r.reportedLast() {
			return // of a trainer that knows of no end
		}
		r.epoch.Store(int64(e.Epoch))
		r.value, r.valued = e.Metrics.Get(l.Objective.Metric)
		report := &trial.Report{Epoch: int32(e.Epoch), TimeMS: time.Now().UnixMilli(), Metrics: e.Reported(), Data: e.Data}
		r.push(trial.Event{LeaseRef: l.LeaseRef, Report: report}, func(res trial.EventResult) {
			if safe(res) {
				r.acks.note(e.Epoch, 0)
			}
		})
		if r.reportedLast() {
			r.h.setVerdict(l.EndVerdict, cmp.Or(l.EndReason, "the run's last epoch is reported"))
		}
	case trainerproto.EventCheckpoint:
		if r.reportedLast() && int64(e.Epoch) > r.epoch.Load() {
			return // of an epoch beyond the last, which is not reported
		}
		c, err := r.checkpoint(e)
		if err != nil { // a trainer that says what is not so is not believed further
			r.fault = err
			r.child.Kill()
			return
		}
		r.push(trial.Event{LeaseRef: l.LeaseRef, Checkpoint: &c}, func(res trial.EventResult) {
			r.retention.acknowledged(c, res)
			if safe(res) {
				r.acks.note(0, e.Epoch)
			}
		})
	case trainerproto.EventView:
		r.viewed(e.View)
	}
}

// safe reports whether an event is with the coordinators and will not be lost.
func safe(res trial.EventResult) bool {
	return res.Outcome == trial.OutcomeRecorded || res.Outcome == trial.OutcomeAlready
}

// viewed takes a view that the members agreed on. Where the coordinators know another
// of its number this one's members are fenced.
func (r *run) viewed(v *trainerproto.View) {
	g, l := r.h.group, r.h.lease
	if g == nil || v == nil {
		return
	}
	view := &trial.View{Number: int32(v.Number), TimeMS: time.Now().UnixMilli(), Step: v.Step, Reason: v.Reason, PauseMS: int64(math.Round(v.Pause * 1000))}
	for _, id := range v.Members {
		view.Members = append(view.Members, int32(id))
	}
	if g.setView(view) {
		r.s.a.metrics.views.Inc()
		r.s.a.log.Info("the group's members changed", "sweep", l.Sweep, "trial", l.Trial, "view", v.Number, "members", v.Members, "step", v.Step, "reason", v.Reason, "reported_by", r.h.name())
	}
	r.push(trial.Event{LeaseRef: l.LeaseRef, View: view}, nil)
}

// reportedLast reports whether the run has reported the last epoch that its lease
// is for. It ends by itself then, whether a coordinator can be reached or not.
func (r *run) reportedLast() bool {
	end := int64(r.h.lease.EndEpoch)
	return end > 0 && r.epoch.Load() >= end
}

// push queues an event, which is answered later by a.answered and then. What a run
// says that has lost its lease would only be fenced: it is dropped, and counted.
func (r *run) push(e trial.Event, then func(trial.EventResult)) {
	h, a := r.h, r.s.a
	if cause, _ := h.lossCause(); cause != "" {
		a.metrics.dropped.Inc()
		return
	}
	if !a.relay.push(e, h.lost, func(res trial.EventResult) {
		a.answered(h, res)
		if then != nil {
			then(res)
		}
	}) {
		a.metrics.dropped.Inc()
	}
}

// answered acts on what the coordinators say to an event.
func (a *Agent) answered(h *holding, res trial.EventResult) {
	switch res.Outcome {
	case trial.OutcomeFenced:
		a.cleanUpSoon()
		if h.lose("the coordinators refused its token", false) {
			a.log.Warn("run fenced off", "sweep", h.lease.Sweep, "trial", h.lease.Trial, "token", h.lease.Token, "member", h.name(), "message", res.Message)
		}
		return
	case trial.OutcomeRefused:
		if res.Verdict > trial.VerdictContinue { // it comes too late, as can be
			a.log.Info("an event does not count any more", "sweep", h.lease.Sweep, "trial", h.lease.Trial, "message", res.Message)
			break
		}
		a.log.Error("an event was refused", "sweep", h.lease.Sweep, "trial", h.lease.Trial, "message", res.Message)
	}
	h.setVerdict(res.Verdict, cmp.Or(res.Message, "verdict of the coordinators"))
}

// checkpoint is what the index is told of a file that the trainer wrote: a
// checkpoint, or the results of a run of inference. It checks what the trainer says
// of it; the bytes are checked against the hash by whoever fetches them.
func (r *run) checkpoint(e trainerproto.Event) (trial.Checkpoint, error) {
	l := r.h.lease
	location, err := r.s.a.cfg.Store.Location(e.Path)
	if err != nil {
		return trial.Checkpoint{}, err
	}
	info, err := os.Stat(e.Path)
	if err != nil {
		return trial.Checkpoint{}, fmt.Errorf("checkpoint of epoch %d: %w", e.Epoch, err)
	}
	if info.Size() != e.Size {
		return trial.Checkpoint{}, fmt.Errorf("checkpoint of epoch %d: the trainer reports %d bytes, the file has %d", e.Epoch, e.Size, info.Size())
	}
	if len(e.SHA256) != 64 {
		return trial.Checkpoint{}, fmt.Errorf("checkpoint of epoch %d: the trainer gives no SHA-256", e.Epoch)
	}
	c := trial.Checkpoint{Sweep: l.Sweep, Trial: l.Trial, Epoch: int32(e.Epoch), Size: e.Size, SHA256: e.SHA256, Location: location,
		Worker: r.s.a.cfg.Name, CreatedMS: time.Now().UnixMilli(), Token: l.Token}
	// The objective's value at that epoch: said with the file, else with the report.
	v, ok := e.Metrics.Get(l.Objective.Metric)
	if !ok && r.valued && int64(e.Epoch) == r.epoch.Load() {
		v, ok = r.value, true
	}
	if ok && !math.IsNaN(v) {
		c.Metric = new(trial.Number(v))
	}
	return c, nil
}
