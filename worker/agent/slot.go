package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"atelier/common/client"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/slots"
)

const (
	pollWait      = 15 * time.Second // a long poll of an idle slot
	failurePause  = 500 * time.Millisecond
	failureLimit  = 30 * time.Second
	prefetchLimit = 2 * time.Second // at most this long before a run's expected end
)

// slot takes one run at a time. One goroutine serves it; the fields below mu are
// read by others.
type slot struct {
	a       *Agent
	spec    *slots.Slot
	standby *standby
	polls   int // numbers its requests

	durations durations // how long runs of a sweep took here

	mu    sync.Mutex
	state string // idle | busy | quarantined
	lease *trial.Lease
	pace  *trial.Pace // of the member's group, as its trainer sees it; nil = not known
}

func newSlot(a *Agent, spec *slots.Slot) *slot {
	s := &slot{a: a, spec: spec, state: "idle", durations: durations{}}
	s.standby = newStandby(a, spec)
	return s
}

// setState is what heartbeats and metrics tell of the slot.
func (s *slot) setState(state string, l *trial.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.lease, s.pace = state, l, nil
}

// setPace takes what a member's trainer reports of its group's steps.
func (s *slot) setPace(p *trainerproto.Pace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace = &trial.Pace{Step: trial.Number(p.Step), Waiting: trial.Number(p.Waiting), Slowest: int32(p.Slowest), Lag: trial.Number(p.Lag)}
}

// describe is the slot as heartbeats carry it.
func (s *slot) describe() trial.Slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := trial.Slot{Name: s.spec.Name, Kind: s.spec.Kind, Device: s.spec.Device, Description: s.spec.Description,
		Threads: int32(s.spec.Threads), MemoryBytes: s.spec.MemoryBytes, State: s.state}
	if s.lease != nil {
		p.Sweep, p.Trial, p.Member, p.Pace = s.lease.Sweep, s.lease.Trial, s.lease.Member, s.pace
	}
	return p
}

// serve works until ctx ends or a drain finds the slot idle.
func (s *slot) serve(ctx context.Context) {
	// A first heartbeat ends the leases of this worker's former start; one asked
	// for before it could be taken for such a lease.
	select {
	case <-s.a.admitted:
	case <-s.a.drain:
		return
	case <-ctx.Done():
		return
	}
	var next *poll
	failures := 0
	for ctx.Err() == nil {
		if next == nil {
			if s.a.draining.Load() {
				return
			}
			next = s.poll(ctx, pollWait)
		}
		h := next.wait()
		next = nil
		if h == nil {
			continue
		}
		if s.a.draining.Load() {
			s.handBack(h, "its worker is leaving")
			continue
		}
		outcome := s.carryOut(ctx, h)
		next = outcome.next
		if outcome.started {
			failures = 0
			continue
		}
		// A slot that cannot start anything must not burn through all trials.
		failures++
		if next != nil {
			next.giveUp(s, "its worker cannot start a trainer")
			next = nil
		}
		s.pauseFor(ctx, min(failurePause<<min(failures-1, 10), failureLimit))
	}
	if next != nil {
		next.giveUp(s, "its worker is leaving")
	}
}

// pauseFor waits after a failure; a drain and the end of ctx cut it short.
func (s *slot) pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.a.drain:
	}
}

// handBack gives a lease that was never started back.
func (s *slot) handBack(h *holding, why string) {
	class := trial.ExitReleased
	switch v, reason, _ := h.asked(); v {
	case trial.VerdictStop:
		class, why = trial.ExitStopped, reason
	case trial.VerdictPause:
		class, why = trial.ExitPaused, reason
	}
	s.a.finish(h, class, why)
}

// poll is one lease being asked for: the same request id until it is answered
// with a lease, so that a lost answer costs nothing.
type poll struct {
	done  chan struct{}
	lease *holding // once done; nil: given up
	quit  atomic.Bool
}

// poll starts to ask. It goes on until there is a lease, ctx ends, a drain
// begins or quit is set; a call in flight is heard out in the last case, since
// it may bring a lease.
func (s *slot) poll(ctx context.Context, wait time.Duration) *poll {
	s.polls++
	p := &poll{done: make(chan struct{})}
	req := client.AcquireRequest{RequestID: fmt.Sprintf("%s-%s-%d", s.a.incarnation, s.spec.Name, s.polls), Worker: s.a.cfg.Name,
		Incarnation: s.a.incarnation, Slot: s.spec.Name, Trainers: s.a.offered, GroupTrainers: s.a.offered, Wait: wait, Labels: s.a.cfg.Labels, Folder: s.a.cfg.Folder}
	go func() {
		defer close(p.done)
		for !p.quit.Load() {
			if s.a.drainAsked.Load() && !s.a.draining.Load() && ctx.Err() == nil {
				s.pauseFor(ctx, failurePause) // drained by the coordinators; may be undone
				continue
			}
			if s.a.draining.Load() || ctx.Err() != nil {
				return
			}
			h, err := s.acquire(ctx, req)
			if h != nil {
				p.lease = h
				return
			}
			if err != nil && ctx.Err() == nil && !s.a.draining.Load() {
				s.a.log.Debug("no answer to a request for work", "slot", s.spec.Name, "error", err)
				s.pauseFor(ctx, failurePause)
			}
		}
	}()
	return p
}

// acquire makes one call. When it has to be broken off, one short repeat of the
// same request finds out whether a lease was granted meanwhile.
func (s *slot) acquire(ctx context.Context, req client.AcquireRequest) (*holding, error) {
	call, cancel := context.WithTimeout(ctx, req.Wait+10*time.Second)
	defer cancel()
	undrained := make(chan struct{})
	defer close(undrained)
	go func() {
		select {
		case <-s.a.drain:
			cancel()
		case <-undrained:
		}
	}()
	l, err := s.a.cfg.Coordinator.Acquire(call, req)
	if err != nil && (ctx.Err() != nil || s.a.draining.Load()) {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		req.Wait = time.Millisecond
		l, err = s.a.cfg.Coordinator.Acquire(last, req)
	}
	if l == nil || err != nil {
		return nil, err
	}
	if l.Token == 0 || l.Sweep == "" || l.Trial < 1 {
		return nil, errors.New("a lease without a token, sweep or trial")
	}
	if err := s.checkGroup(l); err != nil {
		return nil, err
	}
	ttl := l.TTL
	if ttl <= 0 {
		ttl = s.a.term()
	}
	// When the grant was made is not known here: the answer may have been long
	// on its way. Half a term is lent until a heartbeat confirms it, at once.
	h := newHolding(l, bootTime()+ttl/2)
	if l.EndEpoch > 0 && l.LastEpoch >= l.EndEpoch {
		h.setVerdict(l.EndVerdict, l.EndReason) // nothing is left to train
	}
	if l.Group != nil {
		if err := s.a.joinGroup(h); err != nil {
			return nil, err
		}
	}
	if !s.a.held.add(h) {
		s.a.leaveGroup(h)
		return nil, fmt.Errorf("lease %d was granted twice", l.Token)
	}
	s.a.heartbeatSoon()
	return h, nil
}

// wait returns the lease once there is one; nil: given up.
func (p *poll) wait() *holding {
	<-p.done
	return p.lease
}

// giveUp asks no more and hands back what comes all the same.
func (p *poll) giveUp(s *slot, why string) {
	p.quit.Store(true)
	if h := p.wait(); h != nil {
		s.handBack(h, why)
	}
}

// durations remember how long runs of a sweep took lately.
type durations map[string][]time.Duration

func (d durations) add(sweep string, t time.Duration) {
	if len(d) > 64 && d[sweep] == nil {
		clear(d)
	}
	recent := append(d[sweep], t)
	d[sweep] = recent[max(0, len(recent)-8):]
}

// longest of the recent ones; 0 when there is none.
func (d durations) longest(sweep string) time.Duration {
	var m time.Duration
	for _, t := range d[sweep] {
		m = max(m, t)
	}
	return m
}

// prefetchAfter says how long into a run the next lease is asked for: shortly
// before the end the last runs of the sweep suggest. A lease held for a busy
// slot is one that an idle slot elsewhere does not get, so there is none when
// nothing is known, and hardly any time for it to lie here.
func prefetchAfter(expected time.Duration) (time.Duration, bool) {
	if expected <= 0 {
		return 0, false
	}
	return expected - min(expected/4, prefetchLimit), true
}
