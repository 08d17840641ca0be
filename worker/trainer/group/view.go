package group

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// admission is what a newcomer is sent when it is a member from now on.
type admission struct {
	Number  int    `json:"number"`
	Members []int  `json:"members"`
	Step    int64  `json:"step"`
	Reason  string `json:"reason"`
}

// handle takes a frame of a peer; an error ends its link.
func (g *Group) handle(p *peer, f frame) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil || p.gone || g.peers[p.id] != p {
		if f.fd >= 0 {
			unix.Close(f.fd)
		}
		return nil // what was sent to it is still written
	}
	if !p.greeted && f.kind != kindHello {
		return fmt.Errorf("frame of kind %d before the greeting", f.kind)
	}
	switch f.kind {
	case kindHello:
		return g.greet(p, f)
	case kindReach:
		var r reaches
		if err := json.Unmarshal(f.b, &r); err != nil {
			return fmt.Errorf("reach: %w", err)
		}
		g.reach[p.id] = r.Members
	case kindRefuse:
		return g.refused(f)
	case kindPropose:
		var q proposal
		if err := json.Unmarshal(f.b, &q); err != nil {
			return fmt.Errorf("proposal: %w", err)
		}
		if err := q.check(p.id); err != nil {
			return err
		}
		p.hosted = p.hosted || q.Host
		for _, l := range q.Lost {
			if l.Cause.dead() {
				g.absent(l.Member)
			}
		}
		g.apply(g.agree.hear(g.now(), p.id, q))
	case kindAdmit:
		var a admission
		if err := json.Unmarshal(f.b, &a); err != nil {
			return fmt.Errorf("admission: %w", err)
		}
		return g.admitted(p, a)
	case kindSegment:
		return p.map_(f)
	case kindState, kindStateEnd:
		return g.takeFrame(p, f)
	case kindPlaces, kindPart, kindPlace, kindResult, kindTail, kindMeeting:
		return g.dispatch(p, f)
	}
	return nil
}

func (q proposal) check(from int) error {
	ascending := func(ids []int) bool {
		for i, id := range ids {
			if id < 1 || i > 0 && id <= ids[i-1] {
				return false
			}
		}
		return true
	}
	subset := !slices.ContainsFunc(q.Set, func(id int) bool { return !slices.Contains(q.Members, id) })
	if !ascending(q.Members) || !ascending(q.Set) || !subset || !slices.Contains(q.Set, from) || q.Base < 0 || q.Target <= q.Base {
		return fmt.Errorf("proposal of member %d that cannot be: %+v", from, q)
	}
	return nil
}

// linkEnded is called by the reader at the end of a link.
func (g *Group) linkEnded(p *peer, why error) {
	p.mu.Lock()
	p.discard()
	p.mu.Unlock()
	p.conn.Close()
	close(p.done)
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.gone || g.peers[p.id] != p {
		return
	}
	p.gone = true
	if g.err != nil {
		return
	}
	if !p.greeted {
		g.log.Debug("a link ended before the greeting", "member", p.name, "error", why)
		delete(g.peers, p.id)
		p.release()
		if p.same {
			g.absent(p.id)
		}
		return
	}
	g.log.Info("the link to a member ended", "member", p.name, "error", why)
	if g.cfg.Job.Join && g.view.Number == 0 && !slices.ContainsFunc(g.linked(), func(q *peer) bool { return q != p }) {
		g.fail(&CutOff{"the members ended before they took this one in"})
		return
	}
	if !slices.Contains(g.view.Members, p.id) && g.view.Number > 0 { // a newcomer that was not taken in
		delete(g.peers, p.id)
		p.release()
		g.apply(g.agree.lose(g.now(), p.id, ended))
		return
	}
	if g.slept > 0 {
		g.fail(&CutOff{"this process did not run for a while, and the others continue without it"})
		return
	}
	if g.canWait(p) {
		g.deferred = append(g.deferred, p.id)
		return
	}
	g.lost(p.id, ended)
}

// absent takes a member that died before this one had its greeting out of a start:
// a link within this machine ended, or another member reports the death.
func (g *Group) absent(id int) {
	p := g.peers[id]
	if id == g.self || g.view.Number > 0 || g.agree.open || g.cfg.Job.Join || p != nil && p.greeted || !slices.Contains(g.agree.members, id) {
		return
	}
	g.lost(id, ended)
}

// canWait reports whether the end of a link changes nothing for now: the step in
// hand has all that the other adds, or there is none in hand, as at the end of a
// training. A member that needs it sooner proposes.
func (g *Group) canWait(p *peer) bool {
	if g.view.Number == 0 || g.agree.active || g.giver != 0 {
		return false
	}
	r := g.round
	return r == nil || r.over || !r.dirty && r.has(p.id) && p.page.abandoned() < r.view.Number
}

// linked are the peers that are greeted and live, by id.
func (g *Group) linked() (list []*peer) {
	for _, p := range g.peers {
		if p.greeted && !p.gone {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *peer) int { return a.id - b.id })
	return list
}

func (g *Group) lost(id int, why cause) {
	g.apply(g.agree.lose(g.now(), id, why))
	if !g.agree.open {
		g.gathered()
	}
}

// apply does what the agreement asks for.
func (g *Group) apply(out outcome) {
	for {
		if g.err != nil {
			return
		}
		if g.agree.active && g.agree.open || out.view != nil {
			g.freeze()
		}
		if out.send != nil {
			for _, p := range g.linked() {
				if slices.Contains(out.send.Members, p.id) {
					p.send(message(kindPropose, *out.send), true, -1, nil)
				}
			}
		}
		if out.cutOff != "" {
			if g.leaving {
				g.fail(ErrLeft)
			} else {
				g.fail(&CutOff{out.cutOff})
			}
			return
		}
		if out.view != nil {
			g.decided(*out.view)
		}
		if len(g.deferred) > 0 && g.agree.active {
			id := g.deferred[0]
			g.deferred = g.deferred[1:]
			out = g.agree.lose(g.now(), id, ended)
		} else if out.view != nil {
			out = g.agree.tick(g.now())
		} else {
			break
		}
	}
	g.schedule()
}

// schedule sets the timer for what the agreement waits for.
func (g *Group) schedule() {
	at, ok := g.agree.deadline()
	if !ok || g.closed {
		return
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	g.timer = time.AfterFunc(max(0, at-g.now()), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.closed {
			g.apply(g.agree.tick(g.now()))
		}
	})
}

// freeze makes the step in hand dirty: from here on nothing of the others' memory
// is read for it, and nothing of it is committed. It comes before the first
// proposal.
func (g *Group) freeze() {
	if g.round != nil && !g.round.over {
		g.round.spoil()
	}
}

// decided puts a view in force that the members agreed on.
func (g *Group) decided(d decision) {
	g.page.abandon(g.view.Number) // the trainer uses the memory again once it knows
	highest := int64(-1)
	for _, c := range d.committed {
		highest = max(highest, c)
	}
	if highest < 0 {
		g.fail(&CutOff{"all members that had the state are gone"})
		return
	}
	var behind []int
	giver := 0
	for _, id := range d.members {
		if d.committed[id] < highest {
			behind = append(behind, id)
		} else if giver == 0 {
			giver = id
		}
	}
	var reasons []string
	for _, l := range d.lost {
		reasons = append(reasons, g.reason(l))
	}
	if d.number == 1 && len(reasons) == 0 {
		reasons = []string{"start"}
	}
	for _, id := range d.members {
		if g.view.Number > 0 && !slices.Contains(g.view.Members, id) {
			reasons = append(reasons, g.name(id)+" joined")
		}
	}
	hosted := func(id int) bool { return id == g.self && g.hosted || g.peers[id] != nil && g.peers[id].hosted }
	if len(reasons) == 0 && slices.ContainsFunc(d.members, hosted) {
		reasons = []string{"sums go through the host's memory from here on"}
	}
	g.install(d.number, d.members, highest, strings.Join(reasons, ", "))
	g.hand(giver, behind)
}

func (g *Group) reason(l loss) string {
	name := g.name(l.Member)
	switch l.Cause {
	case ended:
		return name + " was lost"
	case stalled:
		return fmt.Sprintf("%s computed for more than %s", name, g.cfg.Stall)
	}
	return fmt.Sprintf("%s was silent for %s", name, g.cfg.Silence)
}

// install puts a view in force.
func (g *Group) install(number int, members []int, step int64, reason string) {
	before := g.view.Members
	rank := slices.Index(members, g.self)
	g.view = View{Number: number, Members: slices.Clone(members), Rank: rank, Step: step, Reason: reason}
	if rank >= 0 {
		g.view.From, g.view.To = Share(g.cfg.Job.Shards, len(members), rank)
	}
	g.viewChanged = g.lastCommit
	for id, p := range g.peers {
		if slices.Contains(members, id) {
			p.join, p.lost = false, false
			p.early = slices.DeleteFunc(p.early, func(f frame) bool { return f.view < number })
		} else if slices.Contains(before, id) {
			delete(g.peers, id)
			p.release()
			if !p.gone {
				g.part(p)
			}
		}
	}
	g.log.Info("view", "number", number, "members", members, "step", step, "reason", reason)
	g.cond.Broadcast()
}

// see makes the view in force known to the trainer.
func (g *Group) see() {
	g.seen = g.view
	g.tell(g.seen)
}

func (g *Group) tell(v View) {
	if g.cfg.OnView != nil {
		g.mu.Unlock()
		g.cfg.OnView(v)
		g.mu.Lock()
	}
}
