package assign

import (
	"fmt"
	"sort"
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

// Heartbeat renews the leases named and ends those of earlier incarnations.
// The caller has made sure that this node leads still: what is renewed here a
// worker relies on.
func (a *Assigner) Heartbeat(req *atelierv1.HeartbeatRequest) (*atelierv1.HeartbeatResponse, error) {
	name, incarnation := req.GetWorker().GetName(), req.GetWorker().GetIncarnation()
	if name == "" || incarnation == "" {
		return nil, fmt.Errorf("%w: heartbeat needs the worker's name and incarnation", state.ErrInvalid)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.term
	if t == nil {
		return nil, ErrNotLeading
	}
	now := a.cfg.Now()
	view := a.cfg.View()
	resp := &atelierv1.HeartbeatResponse{TtlMs: a.cfg.TTL.Milliseconds(), Drain: view.Drained(name)}
	for _, m := range view.Members() {
		if m.APIAddress != "" {
			resp.Coordinators = append(resp.Coordinators, m.APIAddress)
		}
	}

	if resp.Refused, resp.Final = a.refused(t, req, now); resp.Refused != "" {
		resp.Lost = req.Leases
		return resp, nil
	}
	w := t.workers[name]
	if w == nil {
		w = &worker{superseded: map[string]bool{}}
		t.workers[name] = w
	}
	a.supersede(t, w, name, incarnation)
	if w.told.GetIncarnation() != incarnation {
		w.folder, w.admitted = req.Folder, req.Admitted
	}
	w.told, w.seen = req.Worker, now
	resp.Dropped = t.files(name)

	for _, l := range t.leases {
		if l.worker == name && l.incarnation != incarnation && !l.ending {
			a.end(t, l, "the agent was started again")
		}
	}
	for _, ref := range req.Leases {
		l := current(view, ref.SweepId, ref.Trial, ref.Token)
		if l == nil || l.Worker != name || l.Incarnation != incarnation {
			resp.Lost = append(resp.Lost, ref)
			continue
		}
		held := t.leases[ref.Token]
		if held == nil {
			held = a.arm(t, view, ref.SweepId, ref.Trial, ref.Token)
		}
		if held.ending {
			// Its end is being written; who comes first decides, and a worker told
			// so early loses less.
			resp.Lost = append(resp.Lost, ref)
			continue
		}
		held.deadline = now.Add(held.term)
		s, _ := view.Sweep(ref.SweepId)
		tr := s.Trial(ref.Trial)
		if tr.Verdict == trial.VerdictStop || tr.Verdict == trial.VerdictPause {
			resp.Verdicts = append(resp.Verdicts, &atelierv1.LeaseVerdict{Lease: ref, Verdict: wire.ToVerdict(tr.Verdict), Reason: tr.StopReason})
		}
	}
	return resp, nil
}

// Workers lists the workers heard of under this leader, by name. The slots of
// one that is lost do nothing.
func (a *Assigner) Workers() ([]*atelierv1.Worker, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.term
	if t == nil {
		return nil, ErrNotLeading
	}
	view := a.cfg.View()
	now := a.cfg.Now()
	out := make([]*atelierv1.Worker, 0, len(t.workers))
	for name, w := range t.workers {
		m := proto.CloneOf(w.told)
		silent := now.Sub(w.seen)
		m.LastSeenMs = now.Add(-silent).UnixMilli()
		m.Note = t.lacking(name)
		m.Draining = m.Draining || view.Drained(name)
		switch {
		case silent > a.cfg.TTL:
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
	sort.Slice(out, func(i, j int) bool { return strings.Compare(out[i].Name, out[j].Name) < 0 })
	return out, nil
}
