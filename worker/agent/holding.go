package agent

import (
	"sync"
	"time"

	"atelier/common/trial"
	"atelier/worker/wire"
)

// holding is one lease this agent has, from the grant until the run's end is
// acknowledged. It is named in heartbeats all that time: a lease whose last
// report is still on its way must not run out. Of a group's lease it is one
// member's part; several of one run may be here.
type holding struct {
	lease *trial.Lease
	group *group     // nil: one slot carries the run out alone
	seat  *wire.Seat // its links; nil as group is

	mu       sync.Mutex
	deadline time.Duration // end the run then, unless renewed
	ended    bool          // the run is over, its end is queued
	cause    string        // why it is lost
	local    bool          // lost by the agent's own clock, not by a coordinator's word
	verdict  trial.Verdict
	reason   string
	signal   chan struct{} // a verdict or a pause came; capacity 1
	paused   bool          // drain: end with a checkpoint
	working  bool          // its trainer has the job
	leaving  bool          // the coordinators want this member to leave its group
	lost     chan struct{} // closed: nothing this run does counts any more
	acked    chan struct{} // closed: the coordinators know of its end
}

// newHolding is a lease with the time, on this machine's clock, until which it may be believed.
func newHolding(l *trial.Lease, deadline time.Duration) *holding {
	return &holding{lease: l, deadline: deadline, signal: make(chan struct{}, 1), lost: make(chan struct{}), acked: make(chan struct{})}
}

// lose ends the run's right. The first cause stays. It reports whether a run in
// work has to end now.
func (h *holding) lose(cause string, local bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause != "" {
		return false
	}
	h.cause, h.local = cause, local
	close(h.lost)
	return !h.ended
}

// lossCause returns why the lease is no longer this agent's; "" while it is.
func (h *holding) lossCause() (cause string, local bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause, h.local
}

// setVerdict notes a verdict; stop outranks pause.
func (h *holding) setVerdict(v trial.Verdict, reason string) {
	if v != trial.VerdictStop && v != trial.VerdictPause {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.verdict == v || h.verdict == trial.VerdictStop {
		return
	}
	h.verdict, h.reason = v, reason
	h.notify()
}

// pause asks for the run's end with a checkpoint, for a drain.
func (h *holding) pause() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paused = true
	h.notify()
}

// leave asks a member to leave its group; the others continue.
func (h *holding) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.leaving {
		h.leaving = true
		h.notify()
	}
}

// askedToLeave reports whether leave was called.
func (h *holding) askedToLeave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaving
}

// name of the slot's part in a group, for people: worker/slot. Else "".
func (h *holding) name() string {
	if h.group == nil {
		return ""
	}
	return memberOf(h.lease).Name()
}

// notify wakes who watches the run, once for all that came since it looked.
func (h *holding) notify() {
	select {
	case h.signal <- struct{}{}:
	default:
	}
}

// asked returns what is asked of the run: a verdict, or the end for a drain.
func (h *holding) asked() (v trial.Verdict, reason string, drain bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.verdict, h.reason, h.paused
}

// renew moves the deadline on; never back, as answers may overtake one another.
func (h *holding) renew(until time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = max(h.deadline, until)
}

// expired reports whether a run in work has to end for want of a renewal.
func (h *holding) expired(t time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.ended && h.cause == "" && t >= h.deadline
}

// begin notes that the trainer gets its job.
func (h *holding) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.working = true
}

// end notes that the run is over: its lease is kept until that is acknowledged, and
// losing it ends nothing any more.
func (h *holding) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}

// holdingKey names a holding: a lease, and of a group's the member.
type holdingKey struct {
	token  uint64
	member int32
}

func keyOf(l trial.LeaseRef) holdingKey { return holdingKey{l.Token, l.Member} }

// holdings are all leases of this agent.
type holdings struct {
	mu      sync.Mutex
	all     map[holdingKey]*holding
	closing bool // a drain has begun: what is added is paused at once
}

// add returns false for a lease that is held already (a repeated answer).
func (t *holdings) add(h *holding) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all[keyOf(h.lease.LeaseRef)] != nil {
		return false
	}
	t.all[keyOf(h.lease.LeaseRef)] = h
	if t.closing {
		h.pause()
	}
	return true
}

func (t *holdings) drop(h *holding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := keyOf(h.lease.LeaseRef); t.all[k] == h {
		delete(t.all, k)
	}
}

func (t *holdings) get(ref trial.LeaseRef) *holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[keyOf(ref)]
}

// of lists what is held of a run: what is asked of it is asked of all its members here.
func (t *holdings) of(token uint64) (out []*holding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, h := range t.all {
		if k.token == token {
			out = append(out, h)
		}
	}
	return out
}

// live lists what is to be renewed.
func (t *holdings) live() []*holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*holding, 0, len(t.all))
	for _, h := range t.all {
		if cause, _ := h.lossCause(); cause == "" {
			out = append(out, h)
		}
	}
	return out
}

// pauseAll asks every run, and those of leases that still come, to end with a
// checkpoint and be given back.
func (t *holdings) pauseAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = true
	for _, h := range t.all {
		h.pause()
	}
}

// reopen undoes what pauseAll says of leases to come: a drain was taken back.
func (t *holdings) reopen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = false
}

// hasTrial reports whether a trial is in work here.
func (t *holdings) hasTrial(sweep string, number int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.all {
		if h.lease.Sweep == sweep && h.lease.Trial == number {
			return true
		}
	}
	return false
}
