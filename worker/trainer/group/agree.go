package group

import (
	"cmp"
	"slices"
	"time"
)

// cause is why a member has lost another.
type cause string

const (
	ended   cause = "ended"   // its link ended: the process is dead, or the connection
	hung    cause = "hung"    // silent, on the same machine, where no network can be cut: as good as dead
	silent  cause = "silent"  // nothing heard: it may live behind a partition
	stalled cause = "stalled" // it computes for ever
)

func (c cause) dead() bool { return c == ended || c == hung }

// loss is a member that another has lost.
type loss struct {
	Member int   `json:"member"`
	Cause  cause `json:"cause"`
}

// proposal is what a member would have the next view be. Sets are ascending.
type proposal struct {
	Base      int    `json:"base"`           // number of the view that it is in
	Members   []int  `json:"members"`        // of that view
	Target    int    `json:"target"`         // number of the next
	Set       []int  `json:"set"`            // who would be in it
	Lost      []loss `json:"lost"`           // whom it has lost itself, by id, also while they are in the set yet
	Committed int64  `json:"committed"`      // its last committed step; below 0: it has no state
	Host      bool   `json:"host,omitempty"` // it moves no sums between devices any more
}

// agreement is how a member comes to the next view after a loss: a core without
// clock, goroutine or input and output. Events come in with the time since any
// fixed moment; what follows goes out as an outcome.
//
// Each member proposes the set of those it has not lost, without those that the
// others propose to leave out, again at each change, until all in the set have
// proposed the same set and target. A set only shrinks while the base stays, so
// this ends; and who has decided for a view has had the same proposal from all
// its members, so no member that stays can decide for another set under that
// number: it hears a target beyond it first (DESIGN.md).
type agreement struct {
	self            int
	patience, grace time.Duration // before one of a higher rank gives up a lower one; before a minority ends

	host      bool // of the proposals from here on
	open      bool // it takes part: a founder has reached all, a newcomer was taken in
	base      int
	members   []int // of the view in force
	committed int64

	active bool
	target int
	set    []int
	gone   map[int]loss // with the cause, of those in members
	since  map[int]time.Duration
	heard  map[int]proposal
	last   *proposal // as sent
	minor  *time.Duration
}

// outcome is what an event leads to; zero: nothing.
type outcome struct {
	send   *proposal // to all members of the view in force that can be reached
	view   *decision
	cutOff string // why the others continue without this member
}

// Reasons of a cut-off.
const (
	leftOut = "the others continue without this member, which they did not hear"
	tooFew  = "half of the members or more are not heard any more; they may continue, this one cannot know"
)

type decision struct {
	number    int
	members   []int
	committed map[int]int64 // of each
	lost      []loss        // why members of the view before are not in it, by id
}

func newAgreement(self int, patience, grace time.Duration) *agreement {
	return &agreement{self: self, patience: patience, grace: grace, committed: -1,
		gone: map[int]loss{}, since: map[int]time.Duration{}, heard: map[int]proposal{}}
}

// enter puts a view in force. Where one of its members is lost already, the next
// tick proposes the view after it.
func (a *agreement) enter(number int, members []int) {
	a.open, a.base, a.members = true, number, slices.Clone(members)
	a.active, a.target, a.set, a.last, a.minor = false, 0, nil, nil, nil
	clear(a.heard)
	for id := range a.gone {
		if !slices.Contains(members, id) {
			delete(a.gone, id)
			delete(a.since, id)
			continue
		}
		a.activate()
	}
}

// begin asks for the next view without a loss: the first, or one in which sums go
// another way.
func (a *agreement) begin(now time.Duration) outcome {
	a.open = true
	a.activate()
	return a.step(now)
}

// lose records that this member has lost another.
func (a *agreement) lose(now time.Duration, id int, why cause) outcome {
	if was, ok := a.gone[id]; id == a.self || ok && (was.Cause.dead() || !why.dead()) {
		return outcome{}
	} else if !ok {
		a.since[id] = now
	}
	a.gone[id] = loss{id, why}
	if !slices.Contains(a.members, id) {
		return outcome{} // remembered: a view with it may be in force at others
	}
	if a.open {
		a.activate()
	}
	return a.step(now)
}

func (a *agreement) activate() {
	if !a.active {
		a.active, a.target, a.set = true, max(a.target, a.base+1), slices.Clone(a.members)
	}
}

// hear takes the proposal of another member.
func (a *agreement) hear(now time.Duration, from int, p proposal) outcome {
	if p.Base > a.base { // it committed a step that changed the members
		if !slices.Contains(p.Members, a.self) {
			return outcome{cutOff: leftOut}
		}
		a.open, a.base, a.members = true, p.Base, slices.Clone(p.Members)
		a.active, a.last = false, nil
		a.activate()
	}
	inForce := slices.Equal(p.Set, a.members) && p.Target <= a.base
	if inForce && !slices.ContainsFunc(p.Lost, func(l loss) bool { return slices.Contains(a.members, l.Member) }) {
		return outcome{} // it is about to decide for the view that is in force here
	}
	if !slices.Contains(a.members, from) || a.active && !slices.Contains(a.set, from) {
		return outcome{}
	}
	if a.open {
		a.activate()
	}
	if !slices.Contains(p.Set, a.self) {
		if quorum(p.Set, p.Members, p.dead()) {
			return outcome{cutOff: leftOut}
		}
		return a.lose(now, from, silent) // it does not hear this one: the pair is broken
	}
	a.target = max(a.target, p.Target, a.base+1)
	a.heard[from] = p
	return a.step(now)
}

// tick is called when deadline is over.
func (a *agreement) tick(now time.Duration) outcome { return a.step(now) }

// deadline is when tick has to be called next.
func (a *agreement) deadline() (at time.Duration, ok bool) {
	if !a.active || !a.open {
		return 0, false
	}
	earlier := func(t time.Duration) {
		if !ok || t < at {
			at, ok = t, true
		}
	}
	for _, id := range a.set {
		if _, lost := a.gone[id]; lost {
			earlier(a.since[id] + a.patience)
		}
	}
	if a.minor != nil {
		earlier(*a.minor + a.grace)
	}
	return at, ok
}

func (a *agreement) step(now time.Duration) outcome {
	if !a.active || !a.open {
		return outcome{}
	}
	for _, from := range slices.Clone(a.set) {
		if p, ok := a.heard[from]; ok && slices.Contains(a.set, from) {
			a.set = without(a.set, func(id int) bool {
				return id != a.self && slices.Contains(p.Members, id) && !slices.Contains(p.Set, id)
			})
		}
	}
	for again := true; again; {
		n := len(a.set)
		a.set = without(a.set, func(id int) bool { return a.givesUp(now, id) })
		again = len(a.set) < n
	}
	var out outcome
	p := proposal{Base: a.base, Members: a.members, Target: a.target, Set: a.set, Lost: a.losses(), Committed: a.committed, Host: a.host}
	if a.last == nil || !p.equal(*a.last) {
		p.Members, p.Set = slices.Clone(p.Members), slices.Clone(p.Set)
		a.last = &p
		out.send = &p
	}
	dead := p.dead()
	for _, from := range a.set {
		dead = append(dead, a.heard[from].dead()...)
	}
	if !quorum(a.set, a.members, dead) {
		if a.minor == nil {
			a.minor = &now
		}
		if now-*a.minor >= a.grace {
			out.cutOff = tooFew
		}
		return out
	}
	a.minor = nil
	committed := map[int]int64{a.self: a.committed}
	for _, from := range a.set {
		q := a.heard[from]
		if from != a.self && (q.Base != a.base || q.Target != a.target || !slices.Equal(q.Set, a.set)) {
			return out
		}
		if from != a.self {
			committed[from] = q.Committed
		}
	}
	out.view = &decision{number: a.target, members: slices.Clone(a.set), committed: committed, lost: a.reasons()}
	a.enter(a.target, a.set)
	return out
}

// givesUp reports whether a lost member is left out now. The lower rank of a
// broken pair leaves the other out at once; the higher one when all others have
// lost it too, or none of them was heard to prefer it for a while.
func (a *agreement) givesUp(now time.Duration, id int) bool {
	if _, lost := a.gone[id]; !lost {
		return false
	}
	if a.self < id || now-a.since[id] >= a.patience {
		return true
	}
	for _, other := range a.set {
		_, lost := a.gone[other]
		p, heard := a.heard[other]
		if other == a.self || other == id || lost {
			continue
		}
		if !heard || !slices.ContainsFunc(p.Lost, func(l loss) bool { return l.Member == id }) {
			return false
		}
	}
	return true
}

// losses are the members of the view that this one has lost, by id.
func (a *agreement) losses() (list []loss) {
	for id, l := range a.gone {
		if slices.Contains(a.members, id) {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b loss) int { return cmp.Compare(a.Member, b.Member) })
	return list
}

// reasons are why members are left out, from this member's losses or else from
// what others lost.
func (a *agreement) reasons() (list []loss) {
	for _, id := range a.members {
		if slices.Contains(a.set, id) {
			continue
		}
		l, ok := a.gone[id]
		for _, from := range a.set {
			for _, theirs := range a.heard[from].Lost {
				if !ok && theirs.Member == id {
					l, ok = theirs, true
				}
			}
		}
		if !ok {
			l = loss{id, silent}
		}
		list = append(list, l)
	}
	return list
}

func (p proposal) equal(q proposal) bool {
	return p.Base == q.Base && p.Target == q.Target && p.Committed == q.Committed && p.Host == q.Host && slices.Equal(p.Set, q.Set) &&
		slices.Equal(p.Lost, q.Lost) && slices.Equal(p.Members, q.Members)
}

// dead are those that it knows to be dead.
func (p proposal) dead() (list []int) {
	for _, l := range p.Lost {
		if l.Cause.dead() {
			list = append(list, l.Member)
		}
	}
	return list
}

// quorum reports whether set may continue: it is more than half of those members
// not known to be dead, or half of them with the lowest rank.
func quorum(set, members, dead []int) bool {
	alive, lowest := 0, 0
	for _, id := range members {
		if slices.Contains(dead, id) && !slices.Contains(set, id) {
			continue
		}
		if alive == 0 {
			lowest = id
		}
		alive++
	}
	return 2*len(set) > alive || 2*len(set) == alive && slices.Contains(set, lowest)
}

// without is list, which is not changed, without those that out is true of.
func without(list []int, out func(id int) bool) (rest []int) {
	for _, id := range list {
		if !out(id) {
			rest = append(rest, id)
		}
	}
	return rest
}
