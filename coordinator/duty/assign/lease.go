package assign

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
	"atelier/tuner/stop"
)

// lease is a lease of the state. Whoever holds it has a deadline of his own: of a
// run that a group carries out each member.
type lease struct {
	trialKey
	token   uint64
	term    time.Duration
	ending  bool // its end is on its way through the log
	group   bool
	holders []*holder // by member
	joining int       // members whose addition is on its way
	inRow   int       // how many gangs had its slots one after the other, its own counted
	block   *block    // of its slots, once the run is at its end
	shrunk  time.Time // when a member was last asked to leave
	again   time.Time // after a change of its members was refused: when another may be asked for
}

// holder is one slot's part in a lease.
type holder struct {
	*lease
	request
	member   int32 // id in the group; 0 = one slot carries the run out alone
	slot     string
	folder   string
	deadline time.Time
	leaving  bool // it is asked to leave, or that is on its way
	losing   bool // that it is lost is on its way through the log
}

// adopt makes the table of leases that of the state. Leases known already keep
// their deadlines.
func (s *Scheduler) adopt() {
	live := map[uint64]bool{}
	s.grouped = map[string]bool{}
	for _, sw := range s.view.Sweeps() {
		if sw.Members.Group() && !sw.Ended() {
			s.grouped[sw.ID] = true
		}
		if sw.Counts.Running == 0 {
			continue
		}
		for _, n := range sw.Open() {
			if l := sw.Trial(n).Lease; l != nil {
				live[l.Token] = true
				s.follow(s.arm(sw.ID, n, l.Token), l)
			}
		}
	}
	for token := range s.leases {
		if !live[token] {
			s.drop(token)
		}
	}
}

// arm gives a lease that is not known yet its full term, if the state has it.
func (s *Scheduler) arm(sweep string, number int64, token uint64) *lease {
	if held := s.leases[token]; held != nil {
		return held
	}
	l := s.current(sweep, number, token)
	if l == nil {
		return nil
	}
	held := &lease{trialKey: trialKey{sweep, number}, token: token, term: s.span(l), group: l.Members != nil, inRow: 1}
	if g := s.granting[held.trialKey]; g != nil {
		held.inRow = g.inRow
	}
	s.leases[token] = held
	s.follow(held, l)
	return held
}

// follow makes the holders of a lease those that the state has. New ones get their
// full term.
func (s *Scheduler) follow(held *lease, l *state.Lease) {
	if l.Members == nil {
		if len(held.holders) == 0 {
			s.hold(&holder{lease: held, request: request{l.Worker, l.Incarnation, l.Request}, slot: l.Slot, folder: l.Folder})
		}
		return
	}
	if slices.EqualFunc(held.holders, l.Members, func(h *holder, m trial.GroupMember) bool { return h.member == m.ID && (h.leaving || !m.Leaving) }) {
		return
	}
	before := held.holders
	held.holders = nil
	for i := range l.Members {
		m := &l.Members[i]
		at := slices.IndexFunc(before, func(h *holder) bool { return h.member == m.ID })
		if at < 0 {
			s.hold(&holder{lease: held, request: request{m.Worker, m.Incarnation, m.Request}, member: m.ID, slot: m.Slot, folder: m.Folder, leaving: m.Leaving})
			continue
		}
		before[at].leaving = before[at].leaving || m.Leaving
		held.holders = append(held.holders, before[at])
	}
	for _, h := range before {
		if !slices.Contains(held.holders, h) {
			s.release(h)
			s.expect(h)
		}
	}
}

func (s *Scheduler) hold(h *holder) {
	h.deadline = s.now.Add(h.term)
	h.holders = append(h.holders, h)
	s.requests[h.request] = h
}

func (s *Scheduler) release(h *holder) {
	if s.requests[h.request] == h {
		delete(s.requests, h.request)
	}
}

// lasting reports whether the holder's end is not on its way.
func (h *holder) lasting() bool { return !h.ending && !h.losing }

// of returns who holds the lease as this member, nil if none does.
func (l *lease) of(member int32) *holder {
	for _, h := range l.holders {
		if h.member == member {
			return h
		}
	}
	return nil
}

// drop forgets a lease that has ended.
func (s *Scheduler) drop(token uint64) {
	if l := s.leases[token]; l != nil {
		delete(s.leases, token)
		for _, h := range l.holders {
			s.release(h)
			s.expect(h)
		}
	}
}

// held returns the holders of which it is true, in order of their grants.
func (s *Scheduler) held(which func(*holder) bool) []*holder {
	var list []*holder
	for _, l := range s.leases {
		for _, h := range l.holders {
			if which(h) {
				list = append(list, h)
			}
		}
	}
	slices.SortFunc(list, func(a, b *holder) int {
		return cmp.Or(cmp.Compare(a.token, b.token), cmp.Compare(a.member, b.member))
	})
	return list
}

// current returns a trial's lease if it has this token.
func (s *Scheduler) current(sweep string, number int64, token uint64) *state.Lease {
	sw, ok := s.view.Sweep(sweep)
	if !ok {
		return nil
	}
	t := sw.Trial(number)
	if t == nil || t.Lease == nil || t.Lease.Token != token {
		return nil
	}
	return t.Lease
}

// end takes leases away from those who hold them, through the log. Of a group the
// others continue; the last one's end is the run's. The list is in the order of held.
func (s *Scheduler) end(list []*holder, cause func(*lease) string) {
	for len(list) > 0 {
		l, n := list[0].lease, 1
		for n < len(list) && list[n].lease == l {
			n++
		}
		gone := list[:n]
		list = list[n:]
		if slices.ContainsFunc(l.holders, func(h *holder) bool { return !h.losing && !slices.Contains(gone, h) }) {
			var lost []*logv1.GroupLoss
			for _, h := range gone {
				h.losing = true
				lost = append(lost, &logv1.GroupLoss{Member: h.member, Cause: cause(l)})
			}
			s.regroup(l, &logv1.ChangeGroup{Lost: lost})
			continue
		}
		l.ending = true
		s.want(End{l.token, gone[0].worker, &logv1.Command{
			TimeMs: s.now.UnixMilli(),
			Op:     &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: l.sweep, Trial: l.trial, Token: l.token, Cause: cause(l)}},
		}})
	}
}

// ended takes in what became of that. Should it have failed, the next tick tries
// again.
func (s *Scheduler) ended(e Ended) {
	if e.Err != nil {
		if l := s.leases[e.End.Token]; l != nil {
			l.ending = false
		}
		return
	}
	s.drop(e.End.Token)
	if e.Result.Err == nil && e.Result.Outcome != trial.OutcomeAlready {
		x := e.End.Log.GetExpireLease()
		s.want(Say{Text: "lease ended", Args: []any{"sweep", x.Id, "trial", x.Trial, "token", x.Token, "worker", e.End.Worker, "cause", x.Cause}})
	}
}

// renew gives a lease of the external trainer its full term again.
func (s *Scheduler) renew(e Renewed) error {
	held := s.arm(e.Sweep, e.Trial, e.Token)
	if held == nil || held.ending {
		return fmt.Errorf("%w: lease %d of trial %d of sweep %s is over", state.ErrConflict, e.Token, e.Trial, e.Sweep)
	}
	for _, h := range held.holders {
		h.deadline = s.now.Add(held.term)
	}
	return nil
}

// message is a lease with all that a worker needs for the run; nil if in the state
// this member has it no longer.
func (s *Scheduler) message(sweep string, number int64, token uint64, member int32) *trial.Lease {
	l := s.current(sweep, number, token)
	if l == nil || (member == 0) != (l.Members == nil) {
		return nil
	}
	sw, _ := s.view.Sweep(sweep)
	t := sw.Trial(number)
	m := &trial.Lease{
		LeaseRef: trial.LeaseRef{Sweep: sweep, Trial: number, Token: token}, Kind: sw.Kind, Trainer: sw.Trainer,
		Params: []byte(t.ParamsJSON), Training: []byte(sw.TrainingJSON), Seed: trialSeed(sw.Seed, number),
		Objective: sw.Objective, TTL: s.span(l), BaseDir: sw.BaseDir, LastEpoch: t.Epoch(), Slot: l.Slot,
		Origin: t.Origin, EndEpoch: l.End.Epoch, EndVerdict: l.End.Verdict, EndReason: l.End.Reason,
	}
	for _, r := range t.Runs {
		if r.Token == token {
			m.Run = r.Number
		}
	}
	if member > 0 {
		at := slices.IndexFunc(l.Members, func(g trial.GroupMember) bool { return g.ID == member })
		if at < 0 {
			return nil
		}
		m.Member, m.Slot, m.Group = member, l.Members[at].Slot, s.groupOf(sw, l, at)
	}
	of := t
	if o := sw.Trial(t.Origin.Trial); o != nil && len(t.Checkpoints) == 0 {
		of = o // it begins where that one was
	}
	for i := range of.Checkpoints {
		if of != t && of.Checkpoints[i].Epoch > t.Origin.Epoch {
			continue // of a run that went on beyond its end: nothing would be left to train
		}
		m.Checkpoints = append(m.Checkpoints, of.Checkpoints[i].Record(sweep, of.Number))
	}
	slices.SortStableFunc(m.Checkpoints, func(x, y trial.Checkpoint) int {
		if of != t && (x.Epoch == t.Origin.Epoch) != (y.Epoch == t.Origin.Epoch) {
			return map[bool]int{true: -1, false: 1}[x.Epoch == t.Origin.Epoch]
		}
		return int(y.Epoch) - int(x.Epoch)
	})
	return m
}

// endOf returns where a run of the trial that begins now ends by itself, which the
// sweep's stopping rule may know beforehand; nil where it goes on to the spec's
// last epoch.
func endOf(s *state.Sweep, t *state.Trial) *logv1.LeaseEnd {
	if s.StoppingJSON == "" {
		return nil
	}
	set, err := stop.Read(s.StoppingJSON)
	if err != nil {
		return nil // judge fails the sweep
	}
	end, ok := set.End(t.Number, int(t.Pauses), int(t.Origin.Epoch))
	if !ok {
		return nil
	}
	e := &logv1.LeaseEnd{Epoch: int32(end.Epoch), Verdict: wire.ToVerdict(trial.VerdictPause), Reason: end.Reason}
	if end.Action == stop.Stop {
		e.Verdict = wire.ToVerdict(trial.VerdictStop)
	}
	return e
}

// span is the term of a lease.
func (s *Scheduler) span(l *state.Lease) time.Duration {
	if l.TermMS > 0 {
		return time.Duration(l.TermMS) * time.Millisecond
	}
	return s.ttl
}

// trialSeed is the seed of a trial's training: the sweep's seed and the
// trial's number through SplitMix64 (Steele, Lea and Flood, 2014).
func trialSeed(seed uint64, number int64) uint64 {
	z := seed + uint64(number)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
