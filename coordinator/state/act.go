package state

import (
	"fmt"
	"strings"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Act is an entry of the list of who changed what. A command that carries who asked for it makes
// one when it changed something; so does RecordAct, of what the state does not show: a refusal, a
// restore, a change of leaders. What runs report is not listed: trials have it.
type Act struct {
	Index   uint64 // of the entry
	TimeMS  int64
	By      string // name of a token, or role and name of a node
	What    string // such as "cancel sweep"
	About   string // a sweep, trial, worker, member, token; "" = none
	Refused string // why; "" = it was done
	Count   int64  // how often; 0 = once
}

// Acts returns what was done and is still listed, oldest first, and Refusals what was refused. Who
// tries many things pushes no change off the list: refusals have one of their own. The lists are
// shared: read them only.
func (v *View) Acts() []Act     { return v.acts[:len(v.acts):len(v.acts)] }
func (v *View) Refusals() []Act { return v.refusals[:len(v.refusals):len(v.refusals)] }

// addAct appends to a list, whose oldest goes where it is full. Behind a View's back the array
// only grows.
func (m *Machine) addAct(a Act) {
	a.Index = m.live.index
	list, most := &m.live.acts, maxActs
	if a.Refused != "" {
		list, most = &m.live.refusals, maxDenials
	}
	kept := *list
	if len(kept) >= most {
		kept = kept[len(kept)+1-most:]
	}
	*list = append(kept, a)
}

// noteAct keeps what a command did for somebody.
func (m *Machine) noteAct(c *logv1.Command, r *Result) {
	if c.GetBy() == "" || r.Err != nil || r.Outcome == trial.OutcomeAlready {
		return
	}
	what, about := actOf(c)
	if what == "" {
		return
	}
	m.addAct(Act{TimeMS: c.GetTimeMs(), By: m.intern(c.GetBy()), What: m.intern(what), About: about})
}

// recordAct keeps an act that is no change of the state.
func (m *Machine) recordAct(now int64, by string, c *logv1.RecordAct, r *Result) {
	a := Act{TimeMS: now, By: m.intern(by), What: m.intern(c.GetWhat()), About: c.GetAbout(), Refused: cut(c.GetRefused()), Count: c.GetCount()}
	if why := a.fault(); why != "" {
		r.Err = invalid("record an act: %s", why)
		return
	}
	m.addAct(a)
}

// fault says what cannot be in the list; "" = nothing.
func (a *Act) fault() string {
	switch {
	case a.What == "" || unfit(a.What, maxName, false) != "" || unfit(a.About, maxName, false) != "" || unfitBy(a.By):
		return "what, about and by are texts of at most 256 bytes"
	case unfit(a.Refused, maxMessage, true) != "" || a.Count < 0:
		return "its reason is not text, or its count is below 0"
	}
	return ""
}

// unfitBy reports whether a text cannot say who did something.
func unfitBy(by string) bool { return unfit(by, maxName, false) != "" }

// actOf says in words what a command asks for; "" for what is not listed.
func actOf(c *logv1.Command) (what, about string) {
	of := func(sweep string, number int64) string { return fmt.Sprintf("%s/%d", sweep, number) }
	switch op := c.GetOp().(type) {
	case *logv1.Command_CreateSweep:
		return "create sweep", op.CreateSweep.GetId()
	case *logv1.Command_ControlSweep:
		return strings.ToLower(wire.Action(op.ControlSweep.GetAction()).String()) + " sweep", op.ControlSweep.GetId()
	case *logv1.Command_ExtendSweep:
		return "extend sweep", op.ExtendSweep.GetId()
	case *logv1.Command_PrioritizeSweep:
		return fmt.Sprintf("set priority %d of sweep", op.PrioritizeSweep.GetPriority()), op.PrioritizeSweep.GetId()
	case *logv1.Command_LabelSweep:
		return "label sweep", op.LabelSweep.GetId()
	case *logv1.Command_PurgeSweep:
		return "delete sweep for good", op.PurgeSweep.GetId()
	case *logv1.Command_SetNotification:
		return "set notification of sweep", op.SetNotification.GetId()
	case *logv1.Command_EnqueueTrials:
		return fmt.Sprintf("enqueue %d trials of sweep", len(op.EnqueueTrials.GetParamsJson())), op.EnqueueTrials.GetId()
	case *logv1.Command_RetryTrial:
		return "retry trial", of(op.RetryTrial.GetId(), op.RetryTrial.GetTrial())
	case *logv1.Command_SetVerdict:
		return "stop trial", of(op.SetVerdict.GetId(), op.SetVerdict.GetTrial())
	case *logv1.Command_SetAlias:
		if op.SetAlias.GetSweepId() == "" {
			return "remove alias", op.SetAlias.GetName()
		}
		return "set alias " + op.SetAlias.GetName(), fmt.Sprintf("%s epoch %d", of(op.SetAlias.GetSweepId(), op.SetAlias.GetTrial()), op.SetAlias.GetEpoch())
	case *logv1.Command_SetDrain:
		if op.SetDrain.GetDrain() {
			return "drain worker", op.SetDrain.GetWorker()
		}
		return "undrain worker", op.SetDrain.GetWorker()
	case *logv1.Command_SetMember:
		return "set member", op.SetMember.GetId()
	case *logv1.Command_DropMember:
		return "remove member", op.DropMember.GetId()
	case *logv1.Command_CommitRestore:
		return "restore state", op.CommitRestore.GetId()
	case *logv1.Command_CreateToken:
		return "create token of " + access.Role(op.CreateToken.GetRole()).String(), op.CreateToken.GetName()
	case *logv1.Command_RevokeToken:
		return "revoke token", op.RevokeToken.GetId()
	case *logv1.Command_CreateInvite:
		return "invite " + access.Role(op.CreateInvite.GetRole()).String(), op.CreateInvite.GetId()
	case *logv1.Command_ConsumeInvite:
		return "join by invitation", op.ConsumeInvite.GetId()
	case *logv1.Command_RevokeInvite:
		return "revoke invitation", op.RevokeInvite.GetId()
	}
	return "", ""
}

// Proto returns the act as the API and snapshots have it.
func (a *Act) Proto() *atelierv1.AuditEntry {
	return &atelierv1.AuditEntry{Index: a.Index, TimeMs: a.TimeMS, By: a.By, What: a.What, About: a.About, Refused: a.Refused, Count: a.Count}
}
