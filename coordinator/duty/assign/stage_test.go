package assign_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

const ttl = 8 * time.Second

// stage is a scheduler over a real state machine, with a log that may be slow,
// refuse, or tell of its changes before it answers.
type stage struct {
	m      *state.Machine
	s      *assign.Scheduler
	twin   *assign.Scheduler // gets the same events, and must want the same
	index  uint64
	epoch  time.Time
	at     time.Duration
	out    *strings.Builder
	broken []string // what should never be

	hold    bool             // the log keeps what is given to it
	failing bool             // it is out of reach
	early   bool             // changes are told before the answers
	pending []assign.Command // Grant, Regroup, End

	silent   []string                // members that are no longer named, S/N#ID
	live     []string                // workers that are heard of each second, with all that they have
	told     map[string]trial.Worker // what each was when it was last heard of
	depth    int                     // of steps that come of one another
	waiter   uint64
	answered map[uint64]int
	granting map[string]bool // trials and requests of grants under way
}

func newStage() *stage {
	st := &stage{m: state.New(), epoch: time.Unix(1_700_000_000, 0), out: &strings.Builder{}, answered: map[uint64]int{}, told: map[string]trial.Worker{}}
	st.elect()
	return st
}

// elect begins another leadership, on the state as it is.
func (st *stage) elect() {
	st.s = assign.New(ttl, st.m.View(), st.now())
	st.twin = assign.New(ttl, st.m.View(), st.now())
	st.pending, st.granting = nil, map[string]bool{}
}

func (st *stage) now() time.Time { return st.epoch.Add(st.at) }

func (st *stage) fault(format string, a ...any) {
	st.broken = append(st.broken, fmt.Sprintf(format, a...))
}

func (st *stage) sayf(format string, a ...any) {
	fmt.Fprintf(st.out, "  %5.1fs %s\n", st.at.Seconds(), fmt.Sprintf(format, a...))
}

// apply carries a command out in the state and tells of its changes.
func (st *stage) apply(c *logv1.Command) state.Result {
	st.index++
	c.TimeMs, c.Rules = cmp.Or(c.TimeMs, st.now().UnixMilli()), state.Rules
	return st.m.Apply(st.index, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
}

func (st *stage) do(c *logv1.Command) {
	res := st.apply(c)
	if res.Err != nil {
		st.sayf("refused: %v", res.Err)
	}
	for _, e := range res.Events {
		if e.Outcome != trial.OutcomeRecorded {
			st.sayf("event %s: %s", e.Outcome, e.Message)
		}
	}
	st.step(assign.Changed{Changes: res.Changes})
}

func text(commands []assign.Command) string {
	var b strings.Builder
	for _, c := range commands {
		if a, ok := c.(assign.Answer); ok && a.Lease != nil { // what it is, not where
			fmt.Fprintf(&b, "lease %v ", wire.ToLease(a.Lease))
			a.Lease = nil
			c = a
		}
		if f, ok := c.(assign.Fail); ok {
			c = assign.Fail{Panic: fmt.Sprintf("%v\n%s", f.Panic, f.Stack)}
		}
		fmt.Fprintf(&b, "%T %+v\n", c, c)
	}
	return b.String()
}

// step takes a step and carries out what is wanted.
func (st *stage) step(e assign.Event) {
	if st.depth++; st.depth > 1000 {
		panic("steps without end:\n" + st.out.String()[max(0, st.out.Len()-1500):])
	}
	defer func() { st.depth-- }()
	view := st.m.View()
	commands := st.s.Step(e, view, st.now())
	if st.twin == nil {
		// A long simulation.
	} else if x, y := text(commands), text(st.twin.Step(e, view, st.now())); x != y {
		st.fault("two schedulers that saw the same want\n%sand\n%s", x, y)
	}
	for _, c := range commands {
		switch c := c.(type) {
		case assign.Grant:
			st.checkGrant(view, c)
			st.pending = append(st.pending, c)
		case assign.Regroup:
			st.checkRegroup(view, c)
			st.pending = append(st.pending, c)
		case assign.End:
			st.pending = append(st.pending, c)
			st.sayf("end %s/%d: %s", c.Log.GetExpireLease().Id, c.Log.GetExpireLease().Trial, c.Log.GetExpireLease().Cause)
		case assign.Answer:
			if st.answered[c.Waiter]++; st.answered[c.Waiter] > 1 {
				st.fault("waiter %d is answered twice", c.Waiter)
			}
			switch {
			case c.Err != nil:
				st.sayf("answer %d: %v", c.Waiter, c.Err)
			case c.Lease == nil:
				st.sayf("answer %d: nothing", c.Waiter)
			default:
				st.sayf("answer %d: %s", c.Waiter, lease(c.Lease))
			}
		case assign.Reply:
			if text := reply(c); len(st.live) == 0 || text != " ok" {
				st.sayf("reply%s", text)
			}
		case assign.Say:
			st.sayf("say %s %v", c.Text, c.Args)
		case assign.Fail:
			st.sayf("panic %v", c.Panic)
			st.fault("panic: %v\n%s", c.Panic, c.Stack)
		}
	}
	if !st.hold {
		st.release(len(st.pending))
	}
}

// checkGrant holds a grant against what must never be.
func (st *stage) checkGrant(view *state.View, c assign.Grant) {
	g := c.Log.GetGrantLease()
	var notes string
	if g.Final {
		notes += " final"
	}
	if g.End != nil {
		notes += fmt.Sprintf(" to epoch %d", g.End.Epoch)
	}
	if g.TermMs != 0 {
		notes += fmt.Sprintf(" for %v", time.Duration(g.TermMs)*time.Millisecond)
	}
	st.sayf("grant %s/%d to %s%s", c.Sweep, c.Trial, who(g), notes)
	what := fmt.Sprintf("%s/%d", c.Sweep, c.Trial)
	if st.granting[what] {
		st.fault("%s, and a grant of it is under way", what)
	}
	st.granting[what] = true
	sw, _ := view.Sweep(c.Sweep)
	st.claim(view, what, requests(c))
	if n := int32(len(g.Members)); sw.Members.Group() && (n < sw.Members.Min || n > sw.Members.Max) {
		st.fault("%s: a gang of %d", what, n)
	}

	var running int64 = 1
	for _, p := range st.pending {
		if other, ok := p.(assign.Grant); ok && other.Sweep == c.Sweep {
			running++
		}
	}
	if t := sw.Trial(c.Trial); t.Lease != nil || sw.Counts.Running+running > sw.Parallelism {
		st.fault("%s to %s: lease %v, %d of %d run", what, who(g), t.Lease, sw.Counts.Running, sw.Parallelism)
	}
}

// claim holds those who are to get something against what must never be.
func (st *stage) claim(view *state.View, what string, requests []*atelierv1.GroupMember) {
	slots := map[string]bool{}
	for _, m := range requests {
		key := fmt.Sprintf("%s %s %s", m.Worker, m.Incarnation, m.Request)
		if st.granting[key] || view.Drained(m.Worker) || slots[m.Worker+"/"+m.Slot] {
			st.fault("%s to %s: under way %v, drained %v, twice %v", what, key, st.granting[key], view.Drained(m.Worker), slots[m.Worker+"/"+m.Slot])
		}
		st.granting[key], slots[m.Worker+"/"+m.Slot] = true, true
	}
}

// requests are those of whom a command gives something, the worker, incarnation,
// request and slot of each.
func requests(c assign.Command) []*atelierv1.GroupMember {
	switch c := c.(type) {
	case assign.Grant:
		if g := c.Log.GetGrantLease(); len(g.Members) > 0 {
			return g.Members
		} else {
			return []*atelierv1.GroupMember{{Worker: g.Worker, Incarnation: g.Incarnation, Request: g.Request, Slot: g.Slot}}
		}
	case assign.Regroup:
		return c.Log.GetChangeGroup().Add
	}
	return nil
}

// who names the slots of a grant.
func who(g *logv1.GrantLease) string {
	if len(g.Members) == 0 {
		return g.Worker + "/" + g.Slot
	}
	return names(g.Members)
}

func names(list []*atelierv1.GroupMember) string {
	var all []string
	for _, m := range list {
		all = append(all, m.Worker+"/"+m.Slot)
	}
	return strings.Join(all, "+")
}

// checkRegroup holds a change of a group against what must never be.
func (st *stage) checkRegroup(view *state.View, c assign.Regroup) {
	g := c.Log.GetChangeGroup()
	what := fmt.Sprintf("%s/%d", g.Id, g.Trial)
	if len(g.Add) > 0 {
		st.sayf("add %s to %s", names(g.Add), what)
	}
	for _, id := range g.Leave {
		st.sayf("leave %s#%d", what, id)
	}
	for _, l := range g.Lost {
		st.sayf("lost %s#%d: %s", what, l.Member, l.Cause)
	}
	st.claim(view, what, g.Add)
	sw, _ := view.Sweep(g.Id)
	l := sw.Trial(g.Trial).Lease
	if l == nil || l.Token != g.Token {
		return // it ended meanwhile
	}
	if len(l.Members)+len(g.Add) > int(sw.Members.Max) {
		st.fault("%s: %d members and %d more", what, len(l.Members), len(g.Add))
	}
	for _, m := range g.Add {
		if slices.ContainsFunc(l.Members, func(h trial.GroupMember) bool { return h.Worker == m.Worker && h.Slot == m.Slot }) {
			st.fault("%s: %s/%s is a member already", what, m.Worker, m.Slot)
		}
	}
}

// release lets the log carry out the first n of what it keeps.
func (st *stage) release(n int) {
	for ; n > 0 && len(st.pending) > 0; n-- {
		c := st.pending[0]
		st.pending = slices.Delete(st.pending, 0, 1)
		var log *logv1.Command
		switch c := c.(type) {
		case assign.Grant:
			log = c.Log
			delete(st.granting, fmt.Sprintf("%s/%d", c.Sweep, c.Trial))
		case assign.Regroup:
			log = c.Log
		case assign.End:
			log = c.Log
		}
		for _, m := range requests(c) {
			delete(st.granting, fmt.Sprintf("%s %s %s", m.Worker, m.Incarnation, m.Request))
		}
		var res state.Result
		var err error
		if st.failing {
			err = fmt.Errorf("the log is out of reach")
		} else if res = st.apply(log); res.Err != nil {
			st.sayf("refused: %v", res.Err)
		}
		if st.early {
			st.step(assign.Changed{Changes: res.Changes})
		}
		switch c := c.(type) {
		case assign.Grant:
			st.step(assign.Granted{Grant: c, Result: res, Err: cmp.Or(err, res.Err)})
		case assign.Regroup:
			st.step(assign.Regrouped{Regroup: c, Result: res, Err: cmp.Or(err, res.Err)})
		case assign.End:
			st.step(assign.Ended{End: c, Result: res, Err: err})
		}
		if !st.early {
			st.step(assign.Changed{Changes: res.Changes})
		}
	}
}

// pass lets time pass, with its ticks; stall lets it pass unnoticed.
func (st *stage) pass(d time.Duration) {
	tick := assign.Tick(ttl)
	for end := st.at + d; st.at < end; {
		before := st.at
		st.at = min(st.at+tick, end)
		if st.at/time.Second != before/time.Second {
			for _, name := range st.live {
				w := st.told[name]
				if w.Name == "" {
					w = trial.Worker{Name: name, Incarnation: "i1", Trainers: []string{"sim"}, Slots: []trial.Slot{{Name: "cpu0"}}}
				}
				st.step(assign.Heard{Heartbeat: trial.Heartbeat{Worker: w, Leases: st.leases(name)}})
			}
		}
		st.step(assign.Ticked{})
	}
}

// leases are those that a worker has.
func (st *stage) leases(worker string) (refs []trial.LeaseRef) {
	for _, sw := range st.m.View().Sweeps() {
		for _, n := range sw.Open() {
			l := sw.Trial(n).Lease
			if l == nil {
				continue
			}
			for _, m := range l.Members {
				if m.Worker == worker && !slices.Contains(st.silent, fmt.Sprintf("%s/%d#%d", sw.ID, n, m.ID)) {
					refs = append(refs, trial.LeaseRef{Sweep: sw.ID, Trial: n, Token: l.Token, Member: m.ID})
				}
			}
			if l.Members == nil && l.Worker == worker {
				refs = append(refs, trial.LeaseRef{Sweep: sw.ID, Trial: n, Token: l.Token})
			}
		}
	}
	return refs
}

func (st *stage) stall(d time.Duration) {
	st.at += d
	st.step(assign.Ticked{})
}

func (st *stage) ask(s assign.Slot) uint64 {
	st.waiter++
	st.step(assign.Asked{Waiter: st.waiter, Slot: s})
	return st.waiter
}

// ref names the present lease of a trial, S/N, or a member's part in it, S/N#ID.
func (st *stage) ref(text string) trial.LeaseRef {
	sweep, number := trialOf(text)
	r := trial.LeaseRef{Sweep: sweep, Trial: number, Member: memberOf(text)}
	if sw, ok := st.m.View().Sweep(sweep); ok {
		if t := sw.Trial(number); t != nil && t.Lease != nil {
			r.Token = t.Lease.Token
		}
	}
	return r
}

func lease(l *trial.Lease) string {
	text := fmt.Sprintf("%s/%d run %d on %s", l.Sweep, l.Trial, l.Run, l.Slot)
	if l.LastEpoch > 0 {
		text += fmt.Sprintf(" after epoch %d", l.LastEpoch)
	}
	for _, c := range l.Checkpoints {
		text += fmt.Sprintf(" from %d@%d", c.Trial, c.Epoch)
	}
	if g := l.Group; g != nil {
		text += fmt.Sprintf(" as %d of", g.Member)
		for _, m := range g.Members {
			text += fmt.Sprintf(" %d:%s@%s", m.ID, m.Name(), m.Address)
		}
		if g.Join {
			text += " joins"
		}
		if g.Member != l.Member {
			text += " UNEQUAL"
		}
	}
	return text
}

func reply(r assign.Reply) string {
	if r.Err != nil {
		return ": " + r.Err.Error()
	}
	h := r.Heartbeat
	var text string
	if h.Refused != "" {
		text += fmt.Sprintf(" refused (final %v): %s;", h.Final, h.Refused)
	}
	if h.Drain {
		text += " drain"
	}
	for _, l := range h.Lost {
		text += " lost " + name(l)
	}
	for _, l := range h.Leave {
		text += " leave " + name(l)
	}
	for _, v := range h.Verdicts {
		text += fmt.Sprintf(" %s %s", v.Verdict, name(v.Lease))
	}
	if len(h.Dropped) > 0 {
		text += fmt.Sprintf(" delete %v", h.Dropped)
	}
	return cmp.Or(text, " ok")
}

func name(l trial.LeaseRef) string {
	if l.Member > 0 {
		return fmt.Sprintf("%s/%d#%d", l.Sweep, l.Trial, l.Member)
	}
	return fmt.Sprintf("%s/%d", l.Sweep, l.Trial)
}
