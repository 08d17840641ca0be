package group

import (
	"fmt"
	"slices"
	"time"
)

// Times of the watch.
const (
	watchEach = 100 * time.Millisecond
	pingEach  = 200 * time.Millisecond
)

// watch sends pings, and notices who is silent or computes for ever.
func (g *Group) watch() {
	ticker := time.NewTicker(watchEach)
	defer ticker.Stop()
	last := g.now()
	for {
		select {
		case <-g.stop:
			return
		case <-ticker.C:
		}
		now := g.now()
		g.look(now, now-last)
		last = now
	}
}

func (g *Group) look(now, gap time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return
	}
	if gap > g.cfg.Silence/2 { // this process did not run: it heard nothing, and read nothing
		for _, p := range g.peers {
			p.heard.Store(int64(now))
		}
		if gap > g.cfg.Silence {
			g.slept = now
		}
	}
	for _, p := range g.linked() {
		if now-time.Duration(p.sent.Load()) >= pingEach {
			p.send(header{kind: kindPing}.append(nil), true, -1, nil)
		}
		if now-time.Duration(p.heard.Load()) < g.cfg.Silence || p.lost {
			continue
		}
		p.lost = true
		if !slices.Contains(g.agree.members, p.id) {
			p.conn.Close()
		} else if p.local {
			g.lost(p.id, hung)
		} else {
			g.lost(p.id, silent)
		}
	}
	if r := g.round; r != nil && r.mine && !r.over && !r.dirty && g.cfg.Stall > 0 && time.Since(r.waiting) > g.cfg.Stall {
		for _, id := range r.view.Members {
			if _, came := r.tails[id]; !came {
				g.lost(id, stalled)
			}
		}
	}
	if g.round != nil {
		g.round.stuck(time.Now())
	}
	g.late(now)
	g.orphaned(now)
}

// orphaned ends a newcomer that for Term has had links to newcomers alone. None of them
// has the state; one that was taken in meanwhile would have taken this one in, too, at
// the end of a step. A link over which no greeting came yet may be to one that has it.
func (g *Group) orphaned(now time.Duration) {
	if !g.cfg.Job.Join || g.view.Number != 0 || g.err != nil {
		return
	}
	newcomers := false
	for _, p := range g.peers {
		if p.gone {
			continue
		}
		if !p.greeted || !p.join {
			g.orphan = 0
			return
		}
		newcomers = true
	}
	switch {
	case !newcomers: // no link at all: late and linkEnded see to that
		g.orphan = 0
	case g.orphan == 0:
		g.orphan = now
	case now-g.orphan >= g.cfg.Term:
		g.fail(&CutOff{fmt.Sprintf("for %s only newcomers are left, and none of them has the state", g.cfg.Term)})
	}
}
