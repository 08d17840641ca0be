package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// watch looks after what raft does not: a disk that hangs while heartbeats go on
// (hashicorp/raft issues 503, 666), and a follower that stands still (issue 612).
//
// An idle leader appends nothing, so a hung disk would go unseen: when nothing
// was appended for half the time-out, a canary goes through the log.
//
// What stood still may be this process (SIGSTOP, a machine that is suspended or
// moved) and not the disk: then nothing is held against the disk that began before.
func (n *Node) watch() {
	defer n.loops.Done()
	timeout := n.cfg.DiskTimeout
	tick := time.NewTicker(timeout / 10)
	defer tick.Stop()
	var canary chan error
	var canarySince, warned time.Time
	ran := running{longest: timeout / 2, last: time.Now()}
	for {
		select {
		case <-n.stop:
			return
		case err := <-canary:
			canary = nil
			if err != nil {
				n.log.Debug("canary", "error", err)
			}
			continue
		case <-tick.C:
		}
		now := time.Now()
		since := ran.since(now)
		leads := n.raft.State() == raft.Leader
		hung := ""
		began := n.store.began.Load()
		if began != 0 && now.Sub(later(n.store.opened.Add(time.Duration(began)), since)) > timeout {
			hung = fmt.Sprintf("an append to the log in %s takes longer than %s: the disk hangs", n.cfg.DataDir, timeout)
		}
		switch {
		case hung != "" || !leads:
		case canary != nil && began != 0: // the append has a time-out of its own
		case canary == nil && now.Sub(n.store.opened.Add(time.Duration(n.store.appended.Load()))) > timeout/2:
			canary, canarySince = make(chan error, 1), now
			go func(to chan error) { to <- n.raft.Barrier(timeout).Error() }(canary)
		case canary != nil && now.Sub(later(canarySince, since)) > timeout && n.raft.AppliedIndex() < n.raft.CommitIndex():
			hung = fmt.Sprintf("a canary was committed and not applied within %s", timeout)
		case canary != nil && now.Sub(later(canarySince, since)) > timeout && n.raft.LastIndex() == n.raft.CommitIndex():
			hung = fmt.Sprintf("a canary did not reach the log within %s", timeout)
		}
		if hung != "" && leads {
			n.giveUp(hung)
			return
		}
		if hung != "" && now.Sub(warned) > 30*time.Second {
			n.log.Warn("this follower acknowledges nothing", "reason", hung)
			warned = now
		}
		if !leads {
			continue
		}
		if now.Sub(warned) > 30*time.Second && n.warnStandstill(now) {
			warned = now
		}
	}
}

// running tells since when this process has run without standing still.
type running struct {
	longest  time.Duration // between two looks; after more the process stood still
	last     time.Time
	standing time.Time // until then it did
}

func (r *running) since(now time.Time) time.Time {
	if now.Sub(r.last) > r.longest {
		r.standing = now
	}
	r.last = now
	return r.standing
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// giveUp hands leadership over if that is still possible, and ends the process.
// A follower whose disk hangs acknowledges nothing and harms nobody: it is left
// to come back.
func (n *Node) giveUp(why string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := await(ctx, n.raft.LeadershipTransfer()); err != nil {
		n.log.Warn("leadership was not handed over; the others will elect", "error", err)
	}
	n.fail(errors.New(why))
}

// warnStandstill names followers that are reached and yet confirm nothing new, and reports whether there are any.
func (n *Node) warnStandstill(now time.Time) bool {
	last, found := n.raft.LastIndex(), false
	for _, s := range n.Configuration() {
		p := n.transport.progress(raft.ServerID(s.ID))
		if s.ID == n.cfg.ID || p.contact.IsZero() || p.match >= last {
			continue
		}
		if now.Sub(p.contact) < 5*time.Second && now.Sub(p.moved) > 30*time.Second {
			n.log.Warn("a follower answers but its log does not grow; restart it", "id", s.ID, "has", p.match, "of", last)
			found = true
		}
	}
	return found
}
