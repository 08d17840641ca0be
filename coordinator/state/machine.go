package state

import (
	"maps"
	"sync"
	"sync/atomic"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// MaxCommands bounds an entry: a token is the entry's index (plus an offset that
// only a restore or a recovery moves) times this, plus the command's place in it. Commands beyond are refused.
const MaxCommands = 1024

// Machine is the state machine. Apply and Restore are for one goroutine, the log
// reader; View is for all.
type Machine struct {
	mu        sync.Mutex // Apply, Restore and the making of a View
	published atomic.Pointer[View]
	// A View is a copy of live: everything below it is shared, and copied when it is next changed. Making a View
	// moves gen on, so that a node stamped with an older one may be in some View and is copied first; one with
	// the present stamp was made since and is changed where it lies.
	gen    uint64
	live   View
	shared bool // live.byID is in a View

	// Indexes over live; none of them is part of a View, a snapshot or the hash.
	leases   map[leaseKey]leaseAt // present ones, by who asked for them: a repeated Acquire finds its lease
	requests map[string]string    // results by request id, of what is not kept with a sweep, and of each sweep's making
	interned map[string]string    // texts that many trials have, such as workers' names, kept once
	staging  *staging             // of live.staged
	pins     map[pin]bool         // checkpoints that live.aliases keep

	changes []Change // of the present command
	rules   uint32   // of the present command
}

type leaseKey struct{ worker, incarnation, request string }
type leaseAt struct {
	sweep  string
	trial  int64
	member int32 // of a group; 0 = there is none
}

// New returns an empty machine.
func New() *Machine {
	return &Machine{
		gen:      1,
		live:     View{byID: map[string]int{}},
		leases:   map[leaseKey]leaseAt{},
		requests: map[string]string{},
		interned: map[string]string{},
	}
}

// View returns the state as of the last Apply that has returned. It is O(1); it
// waits for an Apply that is under way.
func (m *Machine) View() *View {
	if v := m.published.Load(); v != nil {
		return v
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.published.Load(); v != nil {
		return v
	}
	v := m.live
	m.gen++
	m.shared = true
	m.published.Store(&v)
	return &v
}

// Apply carries out the commands of one log entry, in order, and returns one
// Result a command. Indexes must ascend: an entry at an index not beyond the
// last one is refused whole. It never panics, whatever the entry holds.
func (m *Machine) Apply(index uint64, e *logv1.Entry) []Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	commands := e.GetCommands()
	results := make([]Result, len(commands))
	if index <= m.live.index {
		for i := range results {
			results[i] = Result{Index: index, Err: conflict("entry %d comes after entry %d", index, m.live.index), Outcome: trial.OutcomeRefused}
		}
		return results
	}
	m.published.Store(nil)
	m.live.index = index
	m.changes = make([]Change, 0, 2*len(commands))
	for i, c := range commands {
		from := len(m.changes)
		r := &results[i]
		r.Index = index
		r.Outcome = trial.OutcomeRecorded
		if i >= MaxCommands {
			r.Err = invalid("command %d of entry %d: an entry has at most %d", i, index, MaxCommands)
		} else {
			m.do((index+m.live.tokenOffset)<<10|uint64(i), c, r)
			m.noteAct(c, r)
		}
		if r.Err != nil {
			if r.Outcome == trial.OutcomeRecorded {
				r.Outcome = trial.OutcomeRefused
			}
			continue
		}
		if len(m.changes) > from {
			r.Changes = m.changes[from:len(m.changes):len(m.changes)]
		}
	}
	m.changes = nil
	return results
}

// Rules is the newest number of Command.rules, which says how a command is
// carried out. What is in a log was carried out once, and is when it is played
// again: a later version that does better does so for commands of a higher number.
//
//	0  as before there were numbers
//	1  request ids stay with their sweeps; a refusal by one worker is not the
//	   trial's while another could try; a run that was told to stop, or had nothing
//	   left to train, does not fail its trial for want of a report
//	2  a sweep is archived and deleted by ControlSweep, which refused these actions
//	3  an attempt to post a sweep's end counts for the address it was made at alone
//	4  a member that finished in a view after which none is known to have committed a
//	   step ends the run; a run that reports an epoch it was to go on from began earlier
const Rules = 4

// do carries out one command. token is unique to it and greater than all before.
//
// It is the map from the log to the state. Each command checks all it was given, then changes the state, or nothing:
// an error leaves everything as it was. What makes a repeat harmless differs:
//
//	RecordEvents                    the run's token and the epoch of each event (events.go)
//	GrantLease                      worker, incarnation and request of who asked (lease.go)
//	ChangeGroup                     the same of who is added; of the others the member's id (group.go)
//	ExpireLease, SetVerdict,        the token or the status they find: what is over does not end twice
//	ResumeTrial, EndOverdue,        (lease.go, trial.go, budget.go, control.go)
//	FailSweep, PurgeSweep,
//	RecordNotification
//	ProposeTrials                   the number of the first trial, which has to be the next (propose.go)
//	what a person asks for          the request id, remembered with the result (once)
//	SetMember, DropMember, SetDrain what they say, which stays true when it is said again (member.go)
//	CreateToken, CreateInvite,      the id, and of who joins its name and key (access.go)
//	RevokeToken, RevokeInvite,
//	ConsumeInvite
//	RecordAct                       nothing: it is a line of a list (act.go)
//	BeginRestore to AbortRestore    the restore's id and the offset of each part (stage.go)
//
// MarkHash and CompareHash are read by the audit; here they only move the index.
func (m *Machine) do(token uint64, c *logv1.Command, r *Result) {
	now := c.GetTimeMs()
	m.rules = c.GetRules()
	if unfitBy(c.GetBy()) {
		r.Err = invalid("the name of who asks for a command must be text of at most %d bytes", maxName)
		return
	}
	switch op := c.GetOp().(type) {
	case *logv1.Command_RecordEvents:
		m.recordEvents(now, op.RecordEvents, r)
	case *logv1.Command_GrantLease:
		m.grantLease(now, token, op.GrantLease, r)
	case *logv1.Command_ProposeTrials:
		m.proposeTrials(now, op.ProposeTrials, r)
	case *logv1.Command_ExpireLease:
		m.expireLease(now, op.ExpireLease, r)
	case *logv1.Command_ChangeGroup:
		m.changeGroup(now, op.ChangeGroup, r)
	case *logv1.Command_SetVerdict:
		m.setVerdict(now, op.SetVerdict, r)
	case *logv1.Command_CreateSweep:
		m.once("create", c.GetRequestId(), op.CreateSweep.GetId(), r, func() { m.createSweep(now, op.CreateSweep, r) })
	case *logv1.Command_ControlSweep:
		m.once("control", c.GetRequestId(), op.ControlSweep.GetId(), r, func() { m.controlSweep(now, op.ControlSweep, r) })
	case *logv1.Command_ExtendSweep:
		m.once("extend", c.GetRequestId(), op.ExtendSweep.GetId(), r, func() { m.extendSweep(now, op.ExtendSweep, r) })
	case *logv1.Command_FailSweep:
		m.failSweep(now, op.FailSweep, r)
	case *logv1.Command_RetryTrial:
		m.once("retry", c.GetRequestId(), op.RetryTrial.GetId(), r, func() { m.retryTrial(now, op.RetryTrial, r) })
	case *logv1.Command_ResumeTrial:
		m.resumeTrial(op.ResumeTrial, r)
	case *logv1.Command_EnqueueTrials:
		m.once("enqueue", c.GetRequestId(), op.EnqueueTrials.GetId(), r, func() { m.enqueueTrials(now, op.EnqueueTrials, r) })
	case *logv1.Command_PrioritizeSweep:
		m.once("prioritize", c.GetRequestId(), op.PrioritizeSweep.GetId(), r, func() { m.prioritizeSweep(now, op.PrioritizeSweep, r) })
	case *logv1.Command_LabelSweep:
		m.once("label", c.GetRequestId(), op.LabelSweep.GetId(), r, func() { m.labelSweep(now, op.LabelSweep, r) })
	case *logv1.Command_PurgeSweep:
		m.purgeSweep(op.PurgeSweep, r)
	case *logv1.Command_SetNotification:
		m.once("notify", c.GetRequestId(), op.SetNotification.GetId(), r, func() { m.setNotification(now, op.SetNotification, r) })
	case *logv1.Command_RecordNotification:
		m.recordNotification(now, op.RecordNotification, r)
	case *logv1.Command_SetAlias:
		m.once("alias", c.GetRequestId(), "", r, func() { m.setAlias(now, op.SetAlias, r) })
	case *logv1.Command_EndOverdue:
		m.endOverdue(now, op.EndOverdue, r)
	case *logv1.Command_SetDrain:
		m.once("drain", c.GetRequestId(), "", r, func() { m.setDrain(op.SetDrain, r) })
	case *logv1.Command_SetMember:
		m.setMember(op.SetMember, r)
	case *logv1.Command_DropMember:
		m.dropMember(op.DropMember, r)
	case *logv1.Command_MarkHash, *logv1.Command_CompareHash: // about the state, no part of it
	case *logv1.Command_BeginRestore:
		m.beginRestore(op.BeginRestore, r)
	case *logv1.Command_StageRestore:
		m.stageRestore(op.StageRestore, r)
	case *logv1.Command_CommitRestore:
		m.commitRestore(now, op.CommitRestore, r)
	case *logv1.Command_AbortRestore:
		m.abortRestore(op.AbortRestore, r)
	case *logv1.Command_CreateToken:
		m.createToken(now, c.GetBy(), op.CreateToken, r)
	case *logv1.Command_RevokeToken:
		m.revokeToken(now, op.RevokeToken, r)
	case *logv1.Command_CreateInvite:
		m.createInvite(now, c.GetBy(), op.CreateInvite, r)
	case *logv1.Command_ConsumeInvite:
		m.consumeInvite(now, op.ConsumeInvite, r)
	case *logv1.Command_RevokeInvite:
		m.revokeInvite(now, op.RevokeInvite, r)
	case *logv1.Command_RecordAct:
		m.recordAct(now, c.GetBy(), op.RecordAct, r)
	default:
		r.Err = invalid("a command without an operation this version knows")
	}
}

// once runs a command unless its request id is remembered, and remembers it when
// it succeeded. A refused command changed nothing and may be tried again.
func (m *Machine) once(kind, request, sweep string, r *Result, run func()) {
	if request == "" {
		run()
		return
	}
	if len(request) > maxName {
		r.Err = invalid("request id of %d bytes: at most %d", len(request), maxName)
		return
	}
	key := requestKey(kind, request)
	first, known := m.requests[key]
	if s, ok := m.peek(sweep); !known && ok {
		first, known = s.requests.of(key)
	}
	if known {
		r.Index, r.Sweep, _ = parseRemembered(first)
		r.Outcome = trial.OutcomeAlready
		return
	}
	run()
	if r.Err != nil {
		return
	}
	result := rememberedResult(m.live.index, sweep)
	if m.rules >= 1 {
		m.rememberAt(kind, request, sweep, result, r)
		return
	}
	if gone := m.live.requests.remember(key, result); gone != "" {
		delete(m.requests, gone)
	}
	m.requests[key] = result
}

// rememberAt keeps a request id where its command belongs: with its sweep, or
// beside the sweeps where it is about none.
func (m *Machine) rememberAt(kind, request, sweep, result string, r *Result) {
	key := requestKey(kind, request)
	if sweep == "" {
		if gone := m.live.requests.rememberOfKind(kind, key, result); gone != "" {
			delete(m.requests, gone)
		}
		m.requests[key] = result
		return
	}
	s, _ := m.sweep(sweep)
	switch {
	case kind != "create":
		s.requests.rememberOfKind(kind, key, result)
	case r.Outcome == trial.OutcomeRecorded:
		s.CreateRequest, s.CreatedIndex = request, m.live.index
		m.requests[key] = result
	}
}

// note records a change of the present command.
func (m *Machine) note(c Change) {
	c.Index = m.live.index
	m.changes = append(m.changes, c)
}

// sweep returns a sweep that may be changed; its modified index moves.
func (m *Machine) sweep(id string) (*Sweep, bool) {
	i, ok := m.live.byID[id]
	if !ok {
		return nil, false
	}
	s := m.live.sweeps.at(i)
	if s.gen != m.gen {
		c := *s
		c.gen = m.gen
		s = &c
		*m.live.sweeps.slot(m.gen, i) = s
	}
	return s, true
}

// peek returns a sweep to look at.
func (m *Machine) peek(id string) (*Sweep, bool) { return m.live.Sweep(id) }

// trial returns a trial that may be changed.
func (m *Machine) trial(s *Sweep, n int64) *Trial {
	t := s.trials.at(int(n - 1))
	if t.gen != m.gen {
		c := *t
		c.gen = m.gen
		t = &c
		*s.trials.slot(m.gen, int(n-1)) = t
	}
	return t
}

// addSweep appends a sweep; the index of ids is copied if a View has it.
func (m *Machine) addSweep(s *Sweep) {
	if m.shared {
		m.live.byID = maps.Clone(m.live.byID)
		m.shared = false
	}
	m.live.byID[s.ID] = m.live.sweeps.len()
	s.gen = m.gen
	m.live.sweeps.push(m.gen, s)
}

// intern returns one copy of a string that comes again and again.
func (m *Machine) intern(s string) string {
	if known, ok := m.interned[s]; ok {
		return known
	}
	if len(m.interned) >= 4096 {
		clear(m.interned)
	}
	m.interned[s] = s
	return s
}
