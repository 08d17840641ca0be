// Package assign decides which waiting worker gets which waiting trial, and when a
// lease is taken back.
//
// It is a function of events and times: Step takes one event, the state and the
// time, and returns commands. Package assigner carries them out. What counts is in
// the log: the grant of a lease and its end. Who waits, who was heard of when, and
// when a lease runs out is known here and begins anew with each leader, every lease
// with its full term. The package refuses to have a clock, a goroutine or a lock; to
// hand out a lease before its grant is durable; and to end one by any other way
// than the log.
package assign

import (
	"fmt"
	"runtime/debug"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

const (
	// otherSlotFor is how long a trial that met a device fault waits for
	// another slot than the one it met it on.
	otherSlotFor = 5 * time.Second
	// forgetAfter is how long a silent worker is listed.
	forgetAfter = time.Hour
)

// An Event is something that happened. It is one of the types below.
type Event interface{ happened() }

type (
	// Asked: a slot waits for a trial, under a number that no other waiter has.
	Asked struct {
		Waiter uint64
		Slot   Slot
	}
	// Left: a waiter's time is over. Where a grant is on its way to it, it is still
	// answered; else it is at once.
	Left struct{ Waiter uint64 }
	// Granted: what became of a Grant.
	Granted struct {
		Grant  Grant
		Result state.Result
		Err    error // the log's, or the result's
	}
	// Ended: what became of an End.
	Ended struct {
		End    End
		Result state.Result
		Err    error // the log's
	}
	// Regrouped: what became of a Regroup.
	Regrouped struct {
		Regroup Regroup
		Result  state.Result
		Err     error // the log's, or the result's
	}
	// Heard: a heartbeat came.
	Heard struct{ Heartbeat trial.Heartbeat }
	// Renewed: the holder of a lease of the external trainer was heard of.
	Renewed struct {
		Sweep string
		Trial int64
		Token uint64
	}
	// Changed: the state changed.
	Changed struct{ Changes []state.Change }
	// Resynced: changes were missed, or the state was replaced.
	Resynced struct{}
	// Ticked: time passed. It comes every Tick.
	Ticked struct{}
)

func (Asked) happened()     {}
func (Left) happened()      {}
func (Granted) happened()   {}
func (Ended) happened()     {}
func (Regrouped) happened() {}
func (Heard) happened()     {}
func (Renewed) happened()   {}
func (Changed) happened()   {}
func (Resynced) happened()  {}
func (Ticked) happened()    {}

// A Command is something to be done. It is one of the types below.
type Command interface{ wanted() }

type (
	// Grant puts a lease into the log. A Granted follows.
	Grant struct {
		Sweep string
		Trial int64
		Log   *logv1.Command
	}
	// End puts the end of a lease into the log. An Ended follows.
	End struct {
		Token  uint64
		Worker string
		Log    *logv1.Command
	}
	// Regroup puts a change of a run's members into the log. A Regrouped follows.
	Regroup struct {
		Token uint64
		Log   *logv1.Command
	}
	// Answer is the last word to a waiter: a lease, an error, or neither.
	Answer struct {
		Waiter uint64
		Lease  *trial.Lease
		Err    error
	}
	// Reply answers a Heard or a Renewed, in the same step; Heartbeat is of the former.
	Reply struct {
		Heartbeat trial.HeartbeatAnswer
		Err       error
	}
	// Say tells the operator.
	Say struct {
		Warning bool
		Text    string
		Args    []any
	}
	// Fail says that the step panicked. What came before it is to be done all the same.
	Fail struct {
		Panic any
		Stack []byte
	}
)

func (Grant) wanted()   {}
func (End) wanted()     {}
func (Regroup) wanted() {}
func (Answer) wanted()  {}
func (Reply) wanted()   {}
func (Say) wanted()     {}
func (Fail) wanted()    {}

// Scheduler is what one leadership knows. It is for one goroutine at a time.
type Scheduler struct {
	ttl time.Duration // term of a lease

	leases   map[uint64]*lease
	requests map[request]*holder
	granting map[trialKey]*grant // on their way through the log
	promised map[request]*waiter // with a lease on its way through the log
	waiters  []*waiter           // in order of arrival
	workers  map[string]*worker
	faults   map[trialKey]time.Time      // trials that look for another slot, since
	dropped  map[string][]trial.Location // by worker: files that nobody needs, until it has been told twice
	told     map[string]int              // by worker: how many of them it was told once
	refusals map[refusalKey]refusal      // looked up, and walked to forget
	claims   map[claimKey]time.Time      // names refused to a second folder, since
	began    time.Time
	ticked   time.Time
	fresh    bool // it began without a sweep: a new cluster, where nobody is missed

	grouped map[string]bool      // sweeps whose runs groups carry out, and that have not ended
	waits   map[string]time.Time // while there are any, by sweep: since when it has trials to give and got nothing
	blocks  []*block             // slots that gangs left together, oldest first
	coming  map[place]time.Time  // slots whose run is over, until when they are expected to ask
	idle    map[place]idleSlot   // slots whose poll is over, for its repeat

	// Of the present step.
	view     *state.View
	now      time.Time
	free     bool // a slot or a trial became free: match
	commands []Command
}

type trialKey struct {
	sweep string
	trial int64
}

// request names an Asked, so that its repeat gets the same lease.
type request struct{ worker, incarnation, id string }

// New begins a leadership: every lease of the state gets its full term from now.
func New(ttl time.Duration, view *state.View, now time.Time) *Scheduler {
	s := &Scheduler{
		ttl: ttl, leases: map[uint64]*lease{}, requests: map[request]*holder{},
		granting: map[trialKey]*grant{}, promised: map[request]*waiter{}, workers: map[string]*worker{},
		waits: map[string]time.Time{}, idle: map[place]idleSlot{}, coming: map[place]time.Time{}, claims: map[claimKey]time.Time{}, began: now, ticked: now, fresh: len(view.Sweeps()) == 0,
	}
	s.forgetState()
	s.view, s.now = view, now
	s.adopt()
	return s
}

// Tick is how often a Ticked is to come.
func Tick(ttl time.Duration) time.Duration { return min(200*time.Millisecond, ttl/8) }

// Matters reports whether a change means anything here.
func Matters(c state.Change) bool {
	switch c.Kind {
	case state.LeaseGranted, state.CheckpointDropped, state.LeaseEnded, state.SweepChanged, state.SweepCreated,
		state.TrialsProposed, state.TrialReopened, state.TrialEnded, state.DrainChanged,
		state.MemberJoined, state.MemberLeaving, state.MemberGone:
		return true
	}
	return false
}

// Step takes in what happened and returns what is to be done, in order. The view
// shows at least what the event tells of; now carries the monotonic clock and
// never runs backwards.
func (s *Scheduler) Step(e Event, view *state.View, now time.Time) (commands []Command) {
	s.view, s.now, s.free, s.commands = view, now, false, nil
	defer func() {
		if fault := recover(); fault != nil {
			s.want(Fail{fault, debug.Stack()})
		}
		commands, s.commands = s.commands, nil
	}()
	switch e := e.(type) {
	case Asked:
		s.enqueue(e)
	case Left:
		s.leave(e.Waiter)
	case Granted:
		s.granted(e)
	case Ended:
		s.ended(e)
	case Regrouped:
		s.regrouped(e)
	case Heard:
		resp, err := s.hear(e.Heartbeat)
		s.want(Reply{resp, err})
	case Renewed:
		s.want(Reply{Err: s.renew(e)})
	case Changed:
		s.changed(e.Changes)
	case Resynced:
		s.forgetState()
		s.adopt()
		s.free = true
	case Ticked:
		s.tick()
	}
	if s.free {
		s.match()
	}
	return nil
}

// want has a command carried out after the step.
func (s *Scheduler) want(c Command) { s.commands = append(s.commands, c) }

// changed takes what the log brought: leases armed and dropped, files to delete, refusals judged;
// and whether anything may be free now.
func (s *Scheduler) changed(changes []state.Change) {
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case state.LeaseGranted:
			s.arm(c.Sweep, c.Trial, c.Token)
		case state.CheckpointDropped:
			s.discard(c)
		case state.LeaseEnded:
			s.gather(s.leases[c.Token])
			s.drop(c.Token)
			s.judge(c)
			s.free = true
		case state.MemberJoined, state.MemberLeaving, state.MemberGone:
			s.memberChanged(c)
		case state.SweepChanged, state.SweepCreated:
			if sw, ok := s.view.Sweep(c.Sweep); ok && sw.Ended() {
				s.forgive(c.Sweep)
				delete(s.grouped, c.Sweep)
			} else if ok && sw.Members.Group() {
				s.grouped[c.Sweep] = true
			}
			s.free = true
		case state.TrialsProposed, state.TrialReopened, state.TrialEnded, state.DrainChanged:
			s.free = true
		}
	}
}

// forgetState forgets what is known of a state that may be gone: which files nobody
// needs, which worker refused what. A file that was to be deleted may be needed again.
func (s *Scheduler) forgetState() {
	s.faults, s.refusals = map[trialKey]time.Time{}, map[refusalKey]refusal{}
	s.dropped, s.told = map[string][]trial.Location{}, map[string]int{}
}

// tick ends the leases that ran out and forgets what is old.
func (s *Scheduler) tick() {
	gap := s.now.Sub(s.ticked)
	s.ticked = s.now
	// A process that stood still (stopped, swapped, a slow machine) has heard
	// nobody in that time: it is not the workers that were silent.
	if gap > 10*Tick(s.ttl) {
		for _, h := range s.held(func(*holder) bool { return true }) {
			h.deadline = h.deadline.Add(gap)
		}
		for _, w := range s.workers {
			w.seen = w.seen.Add(gap)
		}
		for k, since := range s.claims {
			s.claims[k] = since.Add(gap)
		}
		s.began = s.began.Add(gap)
	}
	silent := s.held(func(h *holder) bool { return h.lasting() && s.now.After(h.deadline) })
	s.end(silent, func(l *lease) string { return fmt.Sprintf("nothing was heard of it for %v", l.term) })
	for name, w := range s.workers {
		if s.now.Sub(w.seen) > forgetAfter {
			delete(s.workers, name)
		}
	}
	for k, since := range s.faults {
		if s.now.Sub(since) > 10*otherSlotFor {
			delete(s.faults, k)
		}
	}
	for k, since := range s.claims {
		if s.now.Sub(since) > forgetAfter {
			delete(s.claims, k)
		}
	}
	s.forgetIdle()
	s.free = len(s.faults)+len(s.refusals)+len(s.grouped) > 0
}
