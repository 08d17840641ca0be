package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// heartbeatSpacing bounds how often new leases make the agent speak up.
const heartbeatSpacing = 200 * time.Millisecond

// sayAgain is how often a trouble that lasts is written to the log.
const sayAgain = 10 * time.Second

// heartbeatSoon has the next heartbeat sent without waiting for its turn.
func (a *Agent) heartbeatSoon() {
	select {
	case a.beatNow <- struct{}{}:
	default:
	}
}

// heartbeats renews all leases every quarter of their term, and soon after a
// new one came: only an answered heartbeat proves that a lease is still held.
func (a *Agent) heartbeats(ctx context.Context) {
	for ctx.Err() == nil && !a.isRejected() {
		began := time.Now()
		err := a.heartbeat(ctx)
		pause := a.term() / 4 // as this answer says
		if err != nil && ctx.Err() == nil {
			a.metrics.heartbeatFailures.Inc()
			a.unanswered(client.Message(err))
			a.sparse.Warn("heartbeat", "no coordinator answers this worker's heartbeat", "error", err)
			pause = heartbeatSpacing
		} else if a.nameTaken.Load() {
			pause = min(pause, time.Second)
		}
		timer := time.NewTimer(pause - min(pause, time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-a.beatNow:
			sleep(ctx, heartbeatSpacing-time.Since(began))
		}
		timer.Stop()
	}
	<-ctx.Done()
	if a.isRejected() {
		return
	}
	// A last word, so that the roster shows a worker that left and not one that died.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 500*time.Millisecond)
	defer cancel()
	a.heartbeat(last)
}

// term is the time to live of leases, as the coordinators last said.
func (a *Agent) term() time.Duration { return time.Duration(a.ttl.Load()) }

// margin is how long before the end of its lease a run is ended.
func margin(ttl time.Duration) time.Duration { return ttl / 8 }

// heartbeat names the leases held, also those of runs that have ended and whose
// end is not acknowledged, and acts on the answer.
func (a *Agent) heartbeat(ctx context.Context) error {
	live := a.held.live()
	req := trial.Heartbeat{Worker: a.describe(), Folder: a.cfg.Folder, Admitted: a.isAdmitted()}
	for _, h := range live {
		req.Leases = append(req.Leases, h.lease.LeaseRef)
	}
	ctx, cancel := context.WithTimeout(ctx, a.term()/4)
	defer cancel()
	// The coordinators count the new term from when they got this, which is later:
	// here it has run out first.
	sent := bootTime()
	m, err := a.cfg.Coordinator.Heartbeat(ctx, req)
	if unreachable := new(client.UnreachableError); err != nil && ctx.Err() != nil && !errors.As(err, &unreachable) {
		return fmt.Errorf("no answer within %s, perhaps there is no leader", a.term()/4)
	}
	if err != nil {
		return err
	}
	if a.cfg.Learn != nil && len(m.Coordinators) > 0 {
		a.cfg.Learn(m.Coordinators)
	}
	if m.Refused != "" {
		a.refused(m, live)
		return nil
	}
	a.nameTaken.Store(false)
	a.answer()
	a.admitOnce.Do(func() { close(a.admitted) })
	a.obey(m, live, sent)
	return nil
}

// obey acts on the answer to a heartbeat that was sent then and named these leases.
func (a *Agent) obey(m trial.HeartbeatAnswer, live []*holding, sent time.Duration) {
	if m.TTL > 0 {
		a.ttl.Store(int64(m.TTL))
	}
	ttl := a.term()
	for _, h := range live {
		if slices.Contains(m.Lost, h.lease.LeaseRef) {
			a.cleanUpSoon() // by a restore all are lost, and the index is another
			if h.lose("lease expired", false) {
				a.log.Warn("lease lost", "sweep", h.lease.Sweep, "trial", h.lease.Trial, "token", h.lease.Token, "member", h.name())
			}
			continue
		}
		h.renew(sent + ttl - margin(ttl))
	}
	for _, v := range m.Verdicts {
		for _, h := range a.held.of(v.Lease.Token) {
			h.setVerdict(v.Verdict, v.Reason)
		}
	}
	for _, ref := range m.Leave {
		if h := a.held.get(ref); h != nil {
			h.leave()
		}
	}
	if len(m.Dropped) > 0 {
		go a.deleteDropped(m.Dropped) // large files take a while to go
	}
	if was := a.drainAsked.Swap(m.Drain); was != m.Drain {
		a.log.Info("the coordinators changed draining", "drain", m.Drain)
		if m.Drain {
			a.held.pauseAll()
		} else if !a.draining.Load() {
			a.held.reopen()
		}
	}
}

// isAdmitted reports whether a leader has taken this start of the agent in.
func (a *Agent) isAdmitted() bool {
	select {
	case <-a.admitted:
		return true
	default:
		return false
	}
}

// refused gives up what this agent holds: its name is another's. Where that may
// change soon it waits.
func (a *Agent) refused(m trial.HeartbeatAnswer, live []*holding) {
	for _, h := range live {
		h.lose("lease expired", false)
	}
	a.unanswered(m.Refused)
	if m.Final {
		a.log.Error("not taken in by the coordinators; ending", "reason", m.Refused)
		a.reject(errors.New(m.Refused))
		return
	}
	a.nameTaken.Store(true)
	a.sparse.Warn("name", "not taken in by the coordinators yet; waiting whether the name becomes free", "reason", m.Refused)
}

// describe is this worker as heartbeats tell of it, with what its slots do now. This
// agent can carry out members; whether a trainer can, its hello says when a run starts
// (noGroups), so that who asked for it is answered in words and does not wait for ever.
func (a *Agent) describe() trial.Worker {
	w := trial.Worker{Name: a.cfg.Name, Address: a.cfg.Address, Incarnation: a.incarnation, Draining: a.draining.Load(),
		Labels: a.cfg.Labels, Trainers: a.offered, GroupTrainers: a.offered, Version: a.cfg.Version}
	for _, s := range a.slots {
		w.Slots = append(w.Slots, s.describe())
	}
	if a.cfg.Usage != nil {
		w.Usage = a.cfg.Usage()
	}
	return w
}

// watchDeadlines ends each run whose lease was not renewed in time. It looks at
// a clock that goes on while this process is stopped, and looks at once when it
// is continued.
func (a *Agent) watchDeadlines(ctx context.Context) {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-continued:
		}
		t := bootTime()
		for _, h := range a.held.live() {
			if h.expired(t) && h.lose("the lease could not be renewed in time", true) {
				a.metrics.leasesRunOut.Inc()
				a.log.Warn("lease not renewed in time; ending the run", "sweep", h.lease.Sweep, "trial", h.lease.Trial, "token", h.lease.Token)
			}
		}
	}
}

// sleep waits for d or the end of ctx, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
