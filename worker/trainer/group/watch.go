package group

import (
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
	g.late(now)
}
