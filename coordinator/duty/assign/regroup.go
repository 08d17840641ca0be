package assign

import (
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// carryChange has a change of a group carried out. Those who are added are told from
// those the run was granted with by the time.
func (s *Scheduler) carryChange(c *change) {
	if len(c.add)+len(c.leave) == 0 {
		return
	}
	g := &logv1.ChangeGroup{Leave: c.leave}
	for _, w := range c.add {
		g.Add = append(g.Add, wire.ToGroupMember(w.member(0)))
	}
	c.joining += len(g.Add)
	s.regroup(c.lease, g)
}

// regroup puts a change of a run's members into the log.
func (s *Scheduler) regroup(l *lease, g *logv1.ChangeGroup) {
	g.Id, g.Trial, g.Token = l.sweep, l.trial, l.token
	at := s.now.UnixMilli()
	if is := s.current(l.sweep, l.trial, l.token); is != nil {
		at = max(at, is.GrantedMS+1)
	}
	s.want(Regroup{l.token, &logv1.Command{TimeMs: at, Op: &logv1.Command_ChangeGroup{ChangeGroup: g}}})
}

// regrouped takes in what became of that. What failed is looked at again a second
// later.
func (s *Scheduler) regrouped(e Regrouped) {
	g, l := e.Regroup.Log.GetChangeGroup(), s.leases[e.Regroup.Token]
	s.free = true
	if l != nil {
		if e.Err != nil {
			l.again = s.now.Add(time.Second)
		}
		l.joining -= len(g.Add)
		if is := s.current(l.sweep, l.trial, l.token); is != nil {
			s.follow(l, is)
		}
		for _, x := range g.Lost {
			if h := l.of(x.Member); h != nil {
				h.losing = false
			}
		}
		for _, id := range g.Leave {
			if h := l.of(id); h != nil && e.Err != nil {
				h.leaving = false
			}
		}
	}
	if e.Err == nil && e.Result.Outcome != trial.OutcomeAlready {
		for _, x := range g.Lost {
			s.want(Say{Text: "member lost", Args: []any{"sweep", g.Id, "trial", g.Trial, "token", g.Token, "member", x.Member, "cause", x.Cause}})
		}
	}
	var ws []*waiter
	for _, m := range g.Add {
		ws = s.promises(ws, request{m.Worker, m.Incarnation, m.Request})
	}
	if len(ws) == 0 {
		return
	}
	if e.Err != nil {
		s.undo(ws, "add members to the run of trial", e.Err)
		return
	}
	s.join(ws, l)
}

// join answers those who were added to a run; one whose run is over by now waits
// again.
func (s *Scheduler) join(ws []*waiter, l *lease) {
	var again []*waiter
	for _, w := range ws {
		if l == nil || !s.given(w) {
			again = append(again, w)
		}
	}
	s.requeue(again)
}
