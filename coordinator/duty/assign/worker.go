package assign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// worker is an agent as its heartbeats tell.
type worker struct {
	told       *atelierv1.Worker
	seen       time.Time
	superseded map[string]bool // incarnations that ended before the present one
	folder     string          // id of its data folder; empty for an agent from before there were any
	admitted   bool            // when it was first heard of here, an earlier leader had taken it in
}

// States of a worker.
const (
	StateReady    = "ready"
	StateDraining = "draining"
	StateLost     = "lost"
)

// hear renews the leases that a heartbeat names and ends those of earlier
// incarnations. Whoever took the heartbeat has made sure that this node leads
// still: what is renewed here a worker relies on.
func (s *Scheduler) hear(req *atelierv1.HeartbeatRequest) (*atelierv1.HeartbeatResponse, error) {
	name, incarnation := req.GetWorker().GetName(), req.GetWorker().GetIncarnation()
	if name == "" || incarnation == "" {
		return nil, fmt.Errorf("%w: heartbeat needs the worker's name and incarnation", state.ErrInvalid)
	}
	resp := &atelierv1.HeartbeatResponse{TtlMs: s.ttl.Milliseconds(), Drain: s.view.Drained(name)}
	for _, m := range s.view.Members() {
		if m.APIAddress != "" {
			resp.Coordinators = append(resp.Coordinators, m.APIAddress)
		}
	}
	if resp.Refused, resp.Final = s.refused(req); resp.Refused != "" {
		resp.Lost = req.Leases
		return resp, nil
	}
	w := s.workers[name]
	if w == nil {
		w = &worker{superseded: map[string]bool{}}
		s.workers[name] = w
	}
	s.supersede(w, name, incarnation)
	if w.told.GetIncarnation() != incarnation {
		w.folder, w.admitted = req.Folder, req.Admitted
	}
	w.told, w.seen = req.Worker, s.now
	resp.Dropped = s.files(name)

	for _, l := range s.held(func(l *lease) bool { return l.worker == name && l.incarnation != incarnation && !l.ending }) {
		s.end(l, "the agent was started again")
	}
	for _, ref := range req.Leases {
		l := s.current(ref.SweepId, ref.Trial, ref.Token)
		if l == nil || l.Worker != name || l.Incarnation != incarnation {
			resp.Lost = append(resp.Lost, ref)
			continue
		}
		held := s.arm(ref.SweepId, ref.Trial, ref.Token)
		if held.ending {
			// Its end is being written; who comes first decides, and a worker told
			// so early loses less.
			resp.Lost = append(resp.Lost, ref)
			continue
		}
		held.deadline = s.now.Add(held.term)
		sw, _ := s.view.Sweep(ref.SweepId)
		tr := sw.Trial(ref.Trial)
		if tr.Verdict == trial.VerdictStop || tr.Verdict == trial.VerdictPause {
			resp.Verdicts = append(resp.Verdicts, &atelierv1.LeaseVerdict{Lease: ref, Verdict: wire.ToVerdict(tr.Verdict), Reason: tr.StopReason})
		}
	}
	return resp, nil
}

// Workers lists the workers heard of under this leader, by name. The slots of
// one that is lost do nothing.
func (s *Scheduler) Workers(view *state.View, now time.Time) []*atelierv1.Worker {
	out := make([]*atelierv1.Worker, 0, len(s.workers))
	for name, w := range s.workers {
		m := proto.CloneOf(w.told)
		unseen := now.Sub(w.seen)
		m.LastSeenMs = now.Add(-unseen).UnixMilli() // by the clock on the wall as it is now
		m.Note = s.lacking(name)
		m.Draining = m.Draining || view.Drained(name)
		switch {
		case unseen > s.ttl:
			m.State = StateLost
			for _, slot := range m.Slots { // what it did last is over
				slot.SweepId, slot.Trial, slot.State = "", 0, ""
			}
		case m.Draining:
			m.State = StateDraining
		default:
			m.State = StateReady
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *atelierv1.Worker) int { return strings.Compare(a.Name, b.Name) })
	return out
}
