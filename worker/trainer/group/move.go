package group

import (
	"errors"
	"fmt"
	"time"
)

// Mover carries sums from one member's device to another's, past the host's memory
// (torchx.NCCL). Sums are still made along the tree, by the members themselves, so
// the bits are those of the way through the host.
type Mover interface {
	// Kind is what two members must have in common: a library and its version.
	Kind() string
	// Device names the member's device among all there are. Two members on one
	// device move nothing.
	Device() string
	// Meeting makes an id, at most 256 bytes and at least one, by which the members
	// of a view find each other. Rank 0 asks for it.
	Meeting() ([]byte, error)
	// Meet is a member's part in a meeting. It does not wait for the others.
	Meet(id []byte, rank, members int) (Carrier, error)
}

// Carrier is a meeting of the members of one view.
type Carrier interface {
	// Exchange brings the sums over all members into m, bucket by bucket in the
	// order of their numbers, the same in all members; came is called after each.
	// When stop is closed, or something fails, it ends what is under way here, and
	// returns with an error when nothing reads or writes m any more. The carrier is
	// of no use after that.
	Exchange(m Memory, p Plan, stop <-chan struct{}, came func(bucket int)) error
	// Close ends it, with what is under way. Closing twice is harmless.
	Close()
}

// Plan is what an exchange of a step's sums is made of.
type Plan struct {
	Rank   int
	First  []int   // the index of each rank's first node among those of all; one more at the end
	Merges []Merge // complete the tree over all nodes; the sum is in the first
}

// Cuts are the ends of the pieces of a bucket of so many floats: rank r sums
// [Cuts[r], Cuts[r+1]).
func (p Plan) Cuts(floats int) []int {
	members := len(p.First) - 1
	cuts := make([]int, members+1)
	for rank := range members {
		_, cuts[rank+1] = piece(floats, members, rank)
	}
	return cuts
}

// maxMeeting bounds the id of a meeting, in bytes.
const maxMeeting = 256

// word is what the member of rank 0 says of a view: its sums are moved between
// devices by those who meet under an id, or, where that is empty, go through the
// host's memory.
type word struct {
	view int
	id   []byte
}

// offers reports whether this member takes part in moving sums in the view: it
// waits for the word of rank 0 then. A rank 0 that does not says so at once.
func (r *Round) offers() bool {
	g := r.g
	if g.cfg.Mover == nil && r.view.Rank == 0 && len(r.view.Members) > 1 && g.word.view != r.view.Number {
		r.say(nil)
	}
	return g.cfg.Mover != nil && len(r.view.Members) > 1
}

// move takes the step's sums to where they belong, as the view's word has it.
func (r *Round) move() {
	defer close(r.pumped)
	c, err := r.meet()
	if errors.Is(err, errStopped) {
		return
	}
	if err == nil && c == nil {
		r.throughHost()
		return
	}
	if err == nil {
		plan := Plan{Rank: r.view.Rank, First: r.first, Merges: r.merges}
		err = c.Exchange(r.mem, plan, r.stop, r.came)
	}
	g := r.g
	g.mu.Lock()
	if err == nil {
		// All have begun this step, so none waits for something of an earlier view.
		old := g.retired
		g.retired = nil
		g.mu.Unlock()
		for _, c := range old {
			c.Close()
		}
		return
	}
	defer g.mu.Unlock()
	if r.dirty || r.over {
		return
	}
	g.log.Warn("moving sums between devices failed", "view", r.view.Number, "step", r.step, "error", err)
	r.failed = time.Now() // a member that died is known soon; else look gives up
	g.loseDeferred()
}

var errStopped = errors.New("the step is dirty")

// throughHost is the way that sums go otherwise.
func (r *Round) throughHost() {
	g := r.g
	g.mu.Lock()
	r.moving = false
	if r.dirty {
		g.mu.Unlock()
		return
	}
	if r.first[r.view.Rank] == r.first[r.view.Rank+1] {
		for b := range r.sizes {
			r.contribute(b)
		}
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	r.pump()
}

// meet is the carrier of the view, nil where its sums go through the host.
func (r *Round) meet() (Carrier, error) {
	g := r.g
	if r.view.Rank == 0 {
		if err := r.decide(); err != nil {
			return nil, err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for !r.dirty && g.word.view != r.view.Number {
		g.cond.Wait()
	}
	switch {
	case r.dirty:
		return nil, errStopped
	case len(g.word.id) == 0:
		return nil, nil
	case g.hosted:
		g.withdraw("this member had to give up moving sums before")
		return nil, errStopped
	case g.carrier != nil && g.carried == r.view.Number:
		return g.carrier, nil
	}
	if g.carrier != nil {
		g.retired = append(g.retired, g.carrier)
		g.carrier = nil
	}
	id := g.word.id
	g.mu.Unlock()
	c, err := g.cfg.Mover.Meet(id, r.view.Rank, len(r.view.Members))
	g.mu.Lock()
	if err == nil {
		g.carrier, g.carried = c, r.view.Number
	}
	return c, err
}

// decide gives the word for the view, at rank 0, once.
func (r *Round) decide() error {
	g := r.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.dirty {
		return errStopped
	}
	if g.word.view == r.view.Number {
		return nil
	}
	var id []byte
	if why := g.apart(r.view); why != "" {
		g.log.Info("sums go through the host's memory", "view", r.view.Number, "reason", why)
	} else {
		g.mu.Unlock()
		made, err := g.cfg.Mover.Meeting()
		g.mu.Lock()
		if err != nil {
			return err
		}
		if len(made) == 0 || len(made) > maxMeeting {
			return fmt.Errorf("group: the id of a meeting has %d bytes; from 1 to %d can be sent", len(made), maxMeeting)
		}
		if r.dirty {
			return errStopped
		}
		g.log.Info("sums are moved between devices", "view", r.view.Number, "by", g.cfg.Mover.Kind())
		id = made
	}
	r.say(id)
	return nil
}

// say gives the word for the view to all.
func (r *Round) say(id []byte) {
	g := r.g
	h := header{kind: kindMeeting, view: r.view.Number, payload: len(id)}
	for _, member := range r.view.Members {
		if p := g.peers[member]; p != nil {
			p.send(append(h.append(nil), id...), false, -1, nil)
		}
	}
	g.word = word{r.view.Number, id}
	g.cond.Broadcast()
}

// apart is why sums cannot be moved between the devices of a view's members;
// empty: they can.
func (g *Group) apart(v View) string {
	on := map[string]string{g.cfg.Mover.Device(): g.name(g.self)}
	if g.hosted {
		return g.name(g.self) + " had to give it up"
	}
	for _, id := range v.Members {
		p := g.peers[id]
		switch {
		case id == g.self:
			continue
		case p == nil || p.mover == "":
			return fmt.Sprintf("%s does not take part in it", g.name(id))
		case p.hosted:
			return g.name(id) + " had to give it up"
		case p.mover != g.cfg.Mover.Kind():
			return fmt.Sprintf("%s has %s, %s has %s", g.name(g.self), g.cfg.Mover.Kind(), g.name(id), p.mover)
		case on[p.device] != "":
			return fmt.Sprintf("%s and %s are on one device, %s", on[p.device], g.name(id), p.device)
		}
		on[p.device] = g.name(id)
	}
	return ""
}

// meeting takes the word of rank 0.
func (g *Group) meeting(p *peer, f frame) error {
	switch {
	case f.view < g.view.Number:
		return nil
	case f.view > g.view.Number:
		if len(p.early) >= maxEarly {
			return fmt.Errorf("more than %d frames of steps to come", maxEarly)
		}
		p.early = append(p.early, f)
		return nil
	case p.id != g.view.Members[0]:
		return fmt.Errorf("member %d decides how the sums of view %d go, which is member %d's part", p.id, f.view, g.view.Members[0])
	case g.word.view == f.view:
		return fmt.Errorf("the way of view %d's sums twice", f.view)
	}
	g.word = word{f.view, f.b}
	g.cond.Broadcast()
	return nil
}

// came counts a bucket whose sums over all members are in the memory.
func (r *Round) came(bucket int) {
	g := r.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.dirty || r.over {
		return
	}
	b := &r.buckets[bucket]
	for rank := range r.view.Members {
		lo, hi := piece(r.sizes[bucket], len(r.view.Members), rank)
		if lo < hi && !b.got[rank] {
			r.pending--
		}
		b.came[rank], b.got[rank] = true, true
	}
	r.progress = time.Now()
	r.check()
}

// stuck gives moving up where it failed although all members live, or where
// nothing moves although all have computed what there is.
func (r *Round) stuck(now time.Time) {
	if r.over || r.dirty || !r.moving {
		return
	}
	g := r.g
	if !r.failed.IsZero() && now.Sub(r.failed) > g.cfg.Silence {
		g.withdraw("moving sums between devices failed although all members live")
	} else if r.failed.IsZero() && r.mine && r.pending > 0 && len(r.tails) == len(r.view.Members) && now.Sub(r.progress) > g.cfg.Stuck {
		g.withdraw(fmt.Sprintf("no sums came from the other devices for %s although all members live", g.cfg.Stuck))
	}
}

// withdraw asks for a view of the same members whose sums go through the host's
// memory: the step in hand is done again there.
func (g *Group) withdraw(why string) {
	g.log.Warn("sums go through the host's memory from here on", "reason", why)
	g.hosted, g.agree.host = true, true
	g.apply(g.agree.begin(g.now()))
}
