package state

import (
	"fmt"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// A run of a sweep whose Members.Max is above 1 is carried out by a group, be it of
// one member for now. Its members hold the run's one lease together. Always so:
//
//   - Run.Group is not nil, and while the run continues Lease.Members is its Members:
//     at least one, at most Max, by ascending ids; no two of one worker's slot.
//   - Ids count from 1 in the run and are never given twice: Joined is the greatest.
//   - Each member's worker, incarnation and request leads to this lease and to no
//     other (Machine.leases), so that an answer may be lost and asked for again.
//   - Views ascend by number. Members of the newest one that still hold the lease
//     speak for the run; before there is a view all members do.
//   - Lease.Worker and what belongs to it, Run.Worker and Run.Slot are those of the
//     member that reports (trial.RunGroup.Reporter).
//   - The last member that goes ends the run.
//
// Parallelism, budgets, retries and lost runs count runs, never members.

// heldKey is one slot's claim to a lease.
type heldKey struct {
	leaseKey
	member int32 // of a group; 0 = there is none
}

// keys are the claims to a lease.
func (l *Lease) keys() []heldKey {
	if l.Members == nil {
		return []heldKey{{leaseKey{l.Worker, l.Incarnation, l.Request}, 0}}
	}
	keys := make([]heldKey, len(l.Members))
	for i := range l.Members {
		keys[i] = heldKey{memberKey(&l.Members[i]), l.Members[i].ID}
	}
	return keys
}

func memberKey(m *trial.GroupMember) leaseKey { return leaseKey{m.Worker, m.Incarnation, m.Request} }

// hold lets the lease's holders find it, unhold forgets them.
func (m *Machine) hold(s *Sweep, t *Trial) {
	for _, key := range t.Lease.keys() {
		m.leases[key.leaseKey] = leaseAt{s.ID, t.Number, key.member}
	}
}

func (m *Machine) unhold(l *Lease) {
	for _, key := range l.keys() {
		delete(m.leases, key.leaseKey)
	}
}

// noteMember records a change about a member.
func (m *Machine) noteMember(kind ChangeKind, s *Sweep, t *Trial, of *trial.GroupMember) {
	m.note(Change{Kind: kind, Sweep: s.ID, Trial: t.Number, Worker: of.Worker, Token: t.Lease.Token, Member: of.ID})
}

// Group is the group of the run under way; nil where there is no run or one slot carries it out alone.
func (t *Trial) Group() *trial.RunGroup {
	if t.Lease == nil || t.Lease.Members == nil {
		return nil
	}
	return t.Runs[len(t.Runs)-1].Group
}

// GroupSizes counts the runs under way that groups carry out, by their members now.
func (s *Sweep) GroupSizes() []trial.GroupSize {
	if !s.Members.Group() {
		return nil
	}
	runs := make([]int64, s.Members.Max+1)
	for _, n := range s.open.list {
		if g := s.Trial(n).Group(); g != nil {
			runs[len(g.Members)]++
		}
	}
	var sizes []trial.GroupSize
	for members, n := range runs {
		if n > 0 {
			sizes = append(sizes, trial.GroupSize{Members: int32(members), Runs: n})
		}
	}
	return sizes
}

// validGroup checks the members that a grant names: all are granted or none.
func (m *Machine) validGroup(s *Sweep, t *Trial, c *logv1.GrantLease) error {
	refuse := func(format string, a ...any) error {
		return conflict("grant lease for trial %d of sweep %s: "+format, append([]any{t.Number, s.ID}, a...)...)
	}
	members := c.GetMembers()
	if n := int32(len(members)); !s.Members.Group() {
		if n > 0 {
			return refuse("%d members: its runs are each one slot's", n)
		}
		return nil
	} else if n < s.Members.Min || n > s.Members.Max {
		return refuse("%d members: %d to %d", n, s.Members.Min, s.Members.Max)
	}
	first := members[0]
	if first.GetWorker() != c.GetWorker() || first.GetIncarnation() != c.GetIncarnation() || first.GetRequest() != c.GetRequest() || first.GetSlot() != c.GetSlot() || first.GetFolder() != c.GetFolder() {
		return refuse("its first member is %s/%s, not %s/%s who asks", first.GetWorker(), first.GetSlot(), c.GetWorker(), c.GetSlot())
	}
	for i, p := range members {
		if p.GetId() != int32(i+1) {
			return refuse("member %d has id %d: ids count from 1", i+1, p.GetId())
		}
		if why := m.unfitMember(p, members[:i], nil); why != "" {
			return refuse("%s", why)
		}
	}
	return nil
}

// unfitMember is why a slot cannot become a member beside those named before it in
// the command and those that are there; "" if it can.
func (m *Machine) unfitMember(p *atelierv1.GroupMember, before []*atelierv1.GroupMember, there []trial.GroupMember) string {
	who := p.GetWorker() + "/" + p.GetSlot()
	for _, text := range []string{p.GetWorker(), p.GetIncarnation(), p.GetRequest(), p.GetSlot()} {
		if text == "" || len(text) > maxName || len(p.GetFolder()) > maxName {
			return "a member's worker, incarnation, request and slot must be of 1 to 256 bytes"
		}
	}
	same := func(b *atelierv1.GroupMember) bool {
		return b.GetWorker() == p.GetWorker() && (b.GetSlot() == p.GetSlot() || b.GetIncarnation() == p.GetIncarnation() && b.GetRequest() == p.GetRequest())
	}
	if slices.ContainsFunc(before, same) || slices.ContainsFunc(there, func(b trial.GroupMember) bool { return b.Worker == p.GetWorker() && b.Slot == p.GetSlot() }) {
		return "slot " + who + " would be a member twice"
	}
	if _, held := m.leases[leaseKey{p.GetWorker(), p.GetIncarnation(), p.GetRequest()}]; held {
		return "the request of slot " + who + " has a lease"
	}
	if m.live.Drained(p.GetWorker()) {
		return "worker " + p.GetWorker() + " is drained"
	}
	return ""
}

// newMember is a member as it is kept.
func (m *Machine) newMember(now int64, id int32, p *atelierv1.GroupMember) trial.GroupMember {
	return trial.GroupMember{ID: id, Worker: m.intern(p.GetWorker()), Slot: m.intern(p.GetSlot()), Incarnation: m.intern(p.GetIncarnation()), Request: p.GetRequest(),
		Folder: m.intern(p.GetFolder()), GrantedMS: now}
}

// newGroup is the group of a run that is granted now.
func (m *Machine) newGroup(now int64, s *Sweep, c *logv1.GrantLease) *trial.RunGroup {
	g := &trial.RunGroup{Min: s.Members.Min, Max: s.Members.Max, Shards: s.Shards, Joined: int32(len(c.GetMembers()))}
	for i, p := range c.GetMembers() {
		g.Members = append(g.Members, m.newMember(now, int32(i+1), p))
	}
	return g
}

// setGroup gives the run under way another group, and the lease what follows from
// it. The one before may be in Views.
func (m *Machine) setGroup(s *Sweep, t *Trial, g *trial.RunGroup) {
	m.unhold(t.Lease)
	t.Runs = slices.Clone(t.Runs)
	run, lease := &t.Runs[len(t.Runs)-1], *t.Lease
	r := &g.Members[g.Reporter()]
	run.Group, run.Worker, run.Slot = g, r.Worker, r.Slot
	lease.Members, lease.Worker, lease.Incarnation, lease.Slot, lease.Request, lease.Folder = g.Members, r.Worker, r.Incarnation, r.Slot, r.Request, r.Folder
	t.Lease = &lease
	m.hold(s, t)
	s.ModifiedIndex = m.live.index
}

// changeGroup lets members join a run's group, asks some to leave, and takes off
// those that were lost: all of it or nothing. What is so already changes nothing.
func (m *Machine) changeGroup(now int64, c *logv1.ChangeGroup, r *Result) {
	s, t := m.findTrial(c.GetId(), c.GetTrial(), r)
	if t == nil {
		return
	}
	r.Token = c.GetToken()
	refuse := func(format string, a ...any) {
		r.Err = conflict("change the group of trial %d of sweep %s: "+format, append([]any{t.Number, s.ID}, a...)...)
	}
	if t.Lease == nil || t.Lease.Token != c.GetToken() {
		switch {
		case t.run(c.GetToken()) == nil:
			r.Outcome = trial.OutcomeFenced
			refuse("it never had lease %d", c.GetToken())
		case len(c.GetAdd()) > 0:
			r.Outcome = trial.OutcomeFenced
			refuse("the run of lease %d is over", c.GetToken())
		default:
			r.Outcome = trial.OutcomeAlready
		}
		return
	}
	g := t.Group()
	if g == nil {
		refuse("its run is one slot's")
		return
	}
	added, ids, why := m.joining(s, t, c.GetAdd())
	if why != "" {
		refuse("%s", why)
		return
	}
	lost, why := leavers(g, c.GetLost(), (*logv1.GroupLoss).GetMember)
	if why != "" {
		refuse("%s", why)
		return
	}
	leaving, why := leavers(g, c.GetLeave(), func(id int32) int32 { return id })
	if why != "" {
		refuse("%s", why)
		return
	}
	if len(added) > 0 && len(lost) == len(g.Members) {
		refuse("no member is left that others could join")
		return
	}
	leaving = slices.DeleteFunc(leaving, func(at int) bool { return g.Members[at].Leaving || slices.Contains(lost, at) })
	if why := m.mayLeave(g, leaving, lost); why != "" {
		refuse("%s", why)
		return
	}
	r.Members = ids
	if len(added)+len(lost)+len(leaving) == 0 {
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	next := *g
	next.Members = slices.Clone(g.Members)
	var gone []trial.GroupEnd
	for _, at := range leaving {
		next.Members[at].Leaving = true
		m.noteMember(MemberLeaving, s, t, &next.Members[at])
	}
	for _, at := range lost {
		loss := c.GetLost()[slices.IndexFunc(c.GetLost(), func(l *logv1.GroupLoss) bool { return l.GetMember() == g.Members[at].ID })]
		gone = append(gone, endOfMember(now, &g.Members[at], trial.ExitLost, loss.GetCause()))
	}
	for _, p := range added {
		next.Joined++
		next.Members = append(next.Members, m.newMember(now, next.Joined, p))
	}
	m.leaveGroup(now, s, t, &next, gone)
	if t.Lease == nil {
		return
	}
	for i := range next.Members {
		if member := &next.Members[i]; member.ID > g.Joined {
			m.noteMember(MemberJoined, s, t, member)
		}
	}
}

// joining are those of add that are not there yet, with an id for each of add: of
// the new ones the next.
func (m *Machine) joining(s *Sweep, t *Trial, add []*atelierv1.GroupMember) (fresh []*atelierv1.GroupMember, ids []int32, why string) {
	g := t.Group()
	next := g.Joined
	for _, p := range add {
		if held, ok := m.leases[leaseKey{p.GetWorker(), p.GetIncarnation(), p.GetRequest()}]; ok && held.sweep == s.ID && held.trial == t.Number {
			ids = append(ids, held.member)
			continue
		}
		if why := m.unfitMember(p, fresh, g.Members); why != "" {
			return nil, nil, why
		}
		fresh = append(fresh, p)
		next++
		ids = append(ids, next)
	}
	switch {
	case len(fresh) == 0:
	case s.Status != trial.SweepRunning:
		return nil, nil, "the sweep is " + s.Status.String()
	case t.Verdict > trial.VerdictContinue:
		return nil, nil, "its run is asked to " + t.Verdict.String()
	case len(g.Members)+len(fresh) > int(g.Max):
		return nil, nil, fmt.Sprintf("it has %d members, and at most %d compute together", len(g.Members), g.Max)
	case next > maxJoined:
		return nil, nil, fmt.Sprintf("its run had %d members in all", g.Joined)
	}
	return fresh, ids, ""
}

// leavers are the places of those named that hold the lease, in order; why is set
// for an id that was never given.
func leavers[T any](g *trial.RunGroup, named []T, id func(T) int32) (places []int, why string) {
	for _, n := range named {
		if id(n) < 1 || id(n) > g.Joined {
			return nil, fmt.Sprintf("its run never had member %d", id(n))
		}
		if at := g.At(id(n)); at >= 0 && !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	slices.Sort(places)
	return places, ""
}

// mayLeave is why members may not be asked to leave: enough must stay, but nothing
// keeps a drained worker's.
func (m *Machine) mayLeave(g *trial.RunGroup, leaving, lost []int) string {
	stay, drained := 0, true
	for at := range g.Members {
		if !slices.Contains(lost, at) && !slices.Contains(leaving, at) && !g.Members[at].Leaving {
			stay++
		}
	}
	for _, at := range leaving {
		drained = drained && m.live.Drained(g.Members[at].Worker)
	}
	switch {
	case len(leaving) == 0:
	case stay == 0:
		return "no member would stay"
	case stay < int(g.Min) && !drained:
		return fmt.Sprintf("%d members would stay, and at least %d compute together", stay, g.Min)
	}
	return ""
}

// atWork reports whether, once a member is gone, one is left whose state newcomers
// can take: of the newest view, or, before the first, one of those that the run
// was granted with at began.
func atWork(g *trial.RunGroup, left []trial.GroupMember, gone int32, began int64) bool {
	v := g.View()
	return slices.ContainsFunc(left, func(b trial.GroupMember) bool {
		return b.ID != gone && (v == nil && b.GrantedMS <= began || v != nil && slices.Contains(v.Members, b.ID))
	})
}

// endOfMember is how a member's part ended.
func endOfMember(now int64, of *trial.GroupMember, class trial.Exit, message string) trial.GroupEnd {
	return trial.GroupEnd{Member: of.ID, Worker: of.Worker, Slot: of.Slot, Exit: class, Message: cutTo(message, maxReason), TimeMS: now}
}

// leaveGroup takes members off the group next, which is new, and lets it be the
// run's. The last one that goes ends the run (lastEnd), and so does the last that was
// at work: newcomers would wait for ever for a state that nobody has.
func (m *Machine) leaveGroup(now int64, s *Sweep, t *Trial, next *trial.RunGroup, gone []trial.GroupEnd) {
	left := slices.Clone(next.Members)
	began := t.Runs[len(t.Runs)-1].StartedMS
	for i, end := range gone {
		at := slices.IndexFunc(left, func(b trial.GroupMember) bool { return b.ID == end.Member })
		if len(left) > 1 && (i+1 < len(gone) || atWork(next, left, end.Member, began)) {
			m.noteMember(MemberGone, s, t, &left[at])
			left = slices.Delete(left, at, at+1)
			next.Ended = newest(next.Ended, end)
			continue
		}
		next.Members = left
		next.Ended = newest(next.Ended, end)
		m.setGroup(s, t, next)
		last := lastEnd(next)
		run := &t.Runs[len(t.Runs)-1]
		run.Worker, run.Slot = last.Worker, last.Slot
		t.Lease.Worker = last.Worker // setGroup copied it
		m.endRun(now, s, t, last.Exit, last.Message)
		return
	}
	next.Members = left
	m.setGroup(s, t, next)
}

// lastEnd is the end of a member that is its run's: the last one's, for the others
// continued without those before. Of a group that never computed, whose members
// could but fail one another, it is the one that says why.
func lastEnd(g *trial.RunGroup) trial.GroupEnd {
	if len(g.Views) == 0 {
		for _, class := range []trial.Exit{trial.ExitBadSpec, trial.ExitDataMissing, trial.ExitOutOfMemory, trial.ExitDeviceFault, trial.ExitDiskFull} {
			if at := slices.IndexFunc(g.Ended, func(e trial.GroupEnd) bool { return e.Exit == class }); at >= 0 {
				return g.Ended[at]
			}
		}
	}
	return g.Ended[len(g.Ended)-1]
}

// newest appends to the last few.
func newest[T any](list []T, one T) []T {
	return append(slices.Clone(list[max(0, len(list)+1-maxViews):]), one)
}
