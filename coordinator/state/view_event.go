package state

import (
	"fmt"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// What members of a group report of themselves. Who computes together they agree
// on without asking; the view that is recorded first of two with one number is the
// run's, and the half that made the other has to stop.

// speaks is the fence within a group: whether a member may speak for the run. One that
// left, was lost or is of another half is fenced. Its own end each member may report,
// and that the training is finished each of the view that was the last to commit.
func (m *Machine) speaks(t *Trial, e *atelierv1.RunEvent, a *EventResult) bool {
	fence := func(why string) bool {
		a.Outcome, a.Verdict, a.Message = trial.OutcomeFenced, trial.VerdictStop, why
		return false
	}
	g, id := t.Group(), e.GetMember()
	_, ended := e.GetEvent().(*atelierv1.RunEvent_MemberEnded)
	_, seen := e.GetEvent().(*atelierv1.RunEvent_View)
	switch {
	case g == nil && (id != 0 || ended || seen):
		return fence("the run is one slot's")
	case g == nil:
	case ended && id >= 1 && id <= g.Joined && g.At(id) < 0:
		a.Outcome, a.Verdict = trial.OutcomeAlready, trial.VerdictStop
		return false
	case g.At(id) < 0:
		return fence(fmt.Sprintf("member %d is not of the group", id))
	case !ended && !seen && g.View() != nil && !slices.Contains(g.View().Members, id) && !m.finishes(g, e):
		return fence(fmt.Sprintf("member %d is not in view %d: the others continue without it", id, g.View().Number))
	}
	return true
}

// finishes reports whether an event is the report, the checkpoint or the end of a
// member whose view, the last one that is known to have committed a step, was followed
// by one without it. Until the later one commits both compute the same, and what this
// one finished is finished: whoever is in the later view may be gone before it is.
func (m *Machine) finishes(g *trial.RunGroup, e *atelierv1.RunEvent) bool {
	if m.rules < 4 {
		return false
	}
	if end := e.GetEnded(); end != nil && wire.Exit(end.GetExit()) != trial.ExitFinished {
		return false
	}
	v := committed(g)
	return v != nil && slices.Contains(v.Members, e.GetMember())
}

// committed is the newest view that is known to have committed a step: its pause was
// told, or it is the first one kept. nil where there is no view.
func committed(g *trial.RunGroup) *trial.View {
	for i := range slices.Backward(g.Views) {
		if i == 0 || g.Views[i].PauseMS > 0 {
			return &g.Views[i]
		}
	}
	return nil
}

// endsRun reports whether a member's end is its run's: that of the one that reports,
// in the newest view, or in the one before where that member finished (finishes).
func (m *Machine) endsRun(g *trial.RunGroup, e *atelierv1.RunEvent) bool {
	id := e.GetMember()
	if g == nil || g.At(id) == g.Reporter() {
		return true
	}
	if v := g.View(); v == nil || slices.Contains(v.Members, id) {
		return false
	}
	v := committed(g)
	first := slices.IndexFunc(v.Members, func(id int32) bool { return g.At(id) >= 0 })
	return m.finishes(g, e) && v.Members[first] == id
}

// recorded is what a view is beside those that are known: OutcomeRecorded for a new
// one, OutcomeAlready for a known one and one that a later one followed, OutcomeFenced
// for the other half's.
func recorded(g *trial.RunGroup, v *atelierv1.GroupView) trial.Outcome {
	last := g.View()
	if last == nil || v.GetNumber() > last.Number {
		return trial.OutcomeRecorded
	}
	for i := range g.Views {
		if g.Views[i].Number == v.GetNumber() && !slices.Equal(g.Views[i].Members, v.GetMembers()) {
			return trial.OutcomeFenced
		}
	}
	return trial.OutcomeAlready
}

// recordView takes a view that members made, from any of them. It has a member of the
// newest one, whose state the others continue: so no half that was fenced comes back
// by counting on. Members report all views they were in, in order: of a view whose
// reporter is gone another one's word stands.
func (m *Machine) recordView(now int64, s *Sweep, t *Trial, member int32, v *atelierv1.GroupView, a *EventResult) {
	g, ids := t.Group(), v.GetMembers()
	if v.GetNumber() < 1 || !slices.Contains(ids, member) || len(ids) == 0 || !sortedUnique(ids) || ids[0] < 1 || ids[len(ids)-1] > g.Joined || len(ids) > maxGroup || v.GetStep() < 0 || v.GetPauseMs() < 0 {
		a.Outcome, a.Message = trial.OutcomeRefused, fmt.Sprintf("a view has a number from 1 and members in order, who reports it too, of the %d there were", g.Joined)
		return
	}
	a.Outcome = recorded(g, v)
	if last := g.View(); last != nil && a.Outcome == trial.OutcomeRecorded && !slices.ContainsFunc(ids, func(id int32) bool { return slices.Contains(last.Members, id) }) {
		a.Outcome, a.Verdict, a.Message = trial.OutcomeFenced, trial.VerdictStop, fmt.Sprintf("none of view %d is in view %d: the others continue without these", last.Number, v.GetNumber())
		return
	}
	if a.Outcome == trial.OutcomeAlready && m.learnPause(s, t, v) {
		a.Outcome = trial.OutcomeRecorded
		return
	}
	if a.Outcome != trial.OutcomeRecorded {
		if a.Outcome == trial.OutcomeFenced {
			a.Verdict, a.Message = trial.VerdictStop, fmt.Sprintf("view %d has other members: the others continue without these", v.GetNumber())
		}
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	view := wire.View(v)
	view.Reason = cutTo(view.Reason, maxReason)
	if view.TimeMS <= 0 {
		view.TimeMS = now
	}
	next := *g
	next.Views = newest(g.Views, view)
	m.setGroup(s, t, &next)
	m.note(Change{Kind: ViewRecorded, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token, Member: view.Members[0]})
}

// learnPause notes how long the members paused for the newest view: who reports it does
// so again after its first step.
func (m *Machine) learnPause(s *Sweep, t *Trial, v *atelierv1.GroupView) bool {
	g := t.Group()
	if last := g.View(); last.Number != v.GetNumber() || last.PauseMS != 0 || v.GetPauseMs() == 0 {
		return false
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	next := *g
	next.Views = slices.Clone(g.Views)
	next.View().PauseMS = v.GetPauseMs()
	m.setGroup(s, t, &next)
	m.note(Change{Kind: ViewRecorded, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token, Member: v.GetMembers()[0]})
	return true
}

// memberEnded takes a member off that ended itself; the others continue.
func (m *Machine) memberEnded(now int64, s *Sweep, t *Trial, id int32, class trial.Exit, message string, a *EventResult) {
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	next := *t.Group()
	a.Outcome = trial.OutcomeRecorded
	m.leaveGroup(now, s, t, &next, []trial.GroupEnd{endOfMember(now, &next.Members[next.At(id)], class, message)})
}

// faultOf is what is wrong with a snapshot's group; "" for nothing.
func faultOf(g *trial.RunGroup) string {
	if g == nil {
		return ""
	}
	fault := func(what string, n int32) string { return fmt.Sprintf("its group has %s %d", what, n) }
	if g.Min < 1 || g.Max < g.Min || g.Max > maxGroup || g.Shards < g.Max || g.Shards > maxShards || g.Joined > maxJoined || len(g.Views) > maxViews || len(g.Ended) > maxViews {
		return fmt.Sprintf("its group has %d to %d members, %d shards, %d views, %d ends", g.Min, g.Max, g.Shards, len(g.Views), len(g.Ended))
	}
	if len(g.Members) == 0 || len(g.Members) > int(g.Max) {
		return fault("members:", int32(len(g.Members)))
	}
	for i := range g.Members {
		b := &g.Members[i]
		if b.ID < 1 || b.ID > g.Joined || i > 0 && b.ID <= g.Members[i-1].ID || slices.ContainsFunc(g.Members[:i], func(o trial.GroupMember) bool { return o.Worker == b.Worker && o.Slot == b.Slot }) {
			return fault("a member out of place:", b.ID)
		}
	}
	for i := range g.Views {
		v := &g.Views[i]
		if v.Number < 1 || i > 0 && v.Number <= g.Views[i-1].Number || len(v.Members) == 0 || len(v.Members) > maxGroup || !sortedUnique(v.Members) || v.Members[0] < 1 || v.Members[len(v.Members)-1] > g.Joined {
			return fault("a view out of place:", v.Number)
		}
	}
	for i := range g.Ended {
		if e := &g.Ended[i]; e.Member < 1 || e.Member > g.Joined {
			return fault("the end of a member that it never had:", e.Member)
		}
	}
	return ""
}
