package group

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// rearrange puts the view after a boundary in force.
func (g *Group) rearrange(stay, leavers, joiners []int) {
	if len(leavers)+len(joiners) == 0 {
		return
	}
	if slices.Contains(leavers, g.self) {
		g.round.left = true
		return
	}
	var reasons []string
	for _, id := range leavers {
		reasons = append(reasons, g.name(id)+" left")
	}
	for _, id := range joiners {
		reasons = append(reasons, g.name(id)+" joined")
	}
	members := slices.Sorted(slices.Values(slices.Concat(stay, joiners)))
	number, reason := g.view.Number+1, strings.Join(reasons, ", ")
	g.agree.enter(number, members)
	g.install(number, members, g.committed, reason)
	if stay[0] == g.self {
		for _, id := range joiners {
			if p := g.peers[id]; p != nil {
				p.send(message(kindAdmit, admission{number, members, g.committed, reason}), true, -1, nil)
			}
		}
	}
	g.hand(stay[0], joiners)
	g.deferred = slices.DeleteFunc(g.deferred, func(id int) bool { return !slices.Contains(members, id) })
	g.apply(g.agree.tick(g.now()))
}

// hand notes who gives the state to whom in the view in force.
func (g *Group) hand(giver int, behind []int) {
	g.giver, g.owed, g.incoming = 0, nil, nil
	if giver == g.self {
		g.owed = slices.Clone(behind)
	}
	if slices.Contains(behind, g.self) {
		g.giver = giver
		g.incoming = &statePipe{g: g, view: g.view.Number}
		if p := g.peers[giver]; p != nil {
			early := p.early
			p.early = nil
			for _, f := range early {
				if f.kind == kindState || f.kind == kindStateEnd {
					g.takeFrame(p, f)
				} else {
					p.early = append(p.early, f)
				}
			}
		}
	}
}

// admitted makes a newcomer a member.
func (g *Group) admitted(p *peer, a admission) error {
	if !g.cfg.Job.Join || g.view.Number > 0 || g.agree.base > 0 {
		return nil // what a proposal brought about already
	}
	if !slices.IsSorted(a.Members) || !slices.Contains(a.Members, g.self) || !slices.Contains(a.Members, p.id) || len(a.Members) > g.cfg.Job.Shards {
		return fmt.Errorf("admission that cannot be: %+v", a)
	}
	g.agree.enter(a.Number, a.Members)
	g.install(a.Number, a.Members, a.Step, a.Reason)
	g.hand(p.id, []int{g.self})
	g.apply(g.agree.tick(g.now()))
	return nil
}

// statePipe is the state as it comes in. Its fields are guarded by the group's mutex.
type statePipe struct {
	g      *Group
	view   int
	chunks [][]byte
	ended  bool
	broken bool // of a view that is no longer in force
	step   int64
}

var errGiverLost = errors.New("the member that gave the state was lost")

func (s *statePipe) Read(b []byte) (int, error) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for {
		switch {
		case s.broken || s.g.incoming != s || s.g.err != nil:
			return 0, errGiverLost
		case len(s.chunks) > 0:
			n := copy(b, s.chunks[0])
			if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
				s.chunks = s.chunks[1:]
			}
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.g.cond.Wait()
	}
}

// takeFrame takes a part of the state.
func (g *Group) takeFrame(p *peer, f frame) error {
	s := g.incoming
	if f.view > g.view.Number {
		if len(p.early) >= maxEarly {
			return fmt.Errorf("more than %d frames of views to come", maxEarly)
		}
		p.early = append(p.early, f)
		return nil
	}
	if s == nil || f.view != s.view || p.id != g.giver || s.ended {
		return nil
	}
	if f.kind == kindStateEnd {
		s.ended, s.step = true, f.step
	} else {
		s.chunks = append(s.chunks, f.b)
	}
	g.cond.Broadcast()
	return nil
}

// takeState has the caller's State read what the giver sends, and reports whether
// it is in its place.
func (g *Group) takeState() bool {
	s := g.incoming
	g.mu.Unlock()
	err := g.cfg.State.Read(s)
	if err == nil {
		_, err = io.Copy(io.Discard, s) // what the state does not need
	}
	g.mu.Lock()
	switch {
	case g.err != nil:
		return false
	case g.incoming != s || g.agree.active: // another view: from the start
		for g.agree.active && g.err == nil {
			g.cond.Wait()
		}
		return false
	case err != nil:
		g.fail(fmt.Errorf("group: take the state of step %d from %s: %w", g.view.Step, g.name(g.giver), err))
		return false
	}
	g.committed, g.agree.committed = s.step, s.step
	g.giver, g.incoming = 0, nil
	return true
}

// give hands the state to those that lack it.
func (g *Group) give() {
	for len(g.owed) > 0 && g.err == nil && !g.agree.active {
		view, to := g.view.Number, g.owed
		w := &stateWriter{h: header{kind: kindState, view: view, step: g.committed}}
		for _, id := range to {
			if p := g.peers[id]; p != nil {
				w.to = append(w.to, p)
			}
		}
		g.mu.Unlock()
		err := g.cfg.State.Write(w)
		w.flush()
		g.mu.Lock()
		if err != nil {
			g.fail(fmt.Errorf("group: hand over the state of step %d: %w", g.committed, err))
			return
		}
		w.end()
		if g.view.Number == view {
			g.owed = nil
		}
	}
}

// stateWriter sends what is written in frames.
type stateWriter struct {
	h   header
	to  []*peer
	buf []byte
}

func (w *stateWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), maxPayload-len(w.buf))
		w.buf = append(w.buf, b[:k]...)
		b = b[k:]
		if len(w.buf) == maxPayload {
			w.flush()
		}
	}
	return n, nil
}

func (w *stateWriter) flush() {
	if len(w.buf) > 0 {
		h := w.h
		h.payload = len(w.buf)
		for _, p := range w.to {
			p.send(append(h.append(make([]byte, 0, headerSize+len(w.buf))), w.buf...), false, -1, nil)
		}
		w.buf = w.buf[:0]
	}
}

func (w *stateWriter) end() {
	h := w.h
	h.kind = kindStateEnd
	for _, p := range w.to {
		p.send(h.append(nil), false, -1, nil)
	}
}
