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

// lease is a lease of the state with its deadline.
type lease struct {
	trialKey
	request
	token    uint64
	folder   string
	deadline time.Time
	term     time.Duration
	ending   bool // its end is on its way through the log
}

// adopt makes the table of leases that of the state. Leases known already keep
// their deadlines.
func (s *Scheduler) adopt() {
	live := map[uint64]bool{}
	for _, sw := range s.view.Sweeps() {
		if sw.Counts.Running == 0 {
			continue
		}
		for _, n := range sw.Open() {
			if l := sw.Trial(n).Lease; l != nil {
				live[l.Token] = true
				s.arm(sw.ID, n, l.Token)
			}
		}
	}
	for token := range s.leases {
		if !live[token] {
			s.drop(token)
		}
	}
}

// arm gives a lease that is not known yet its full term, if the state holds it.
func (s *Scheduler) arm(sweep string, number int64, token uint64) *lease {
	if held := s.leases[token]; held != nil {
		return held
	}
	l := s.current(sweep, number, token)
	if l == nil {
		return nil
	}
	term := s.span(l)
	held := &lease{
		trialKey: trialKey{sweep, number}, request: request{l.Worker, l.Incarnation, l.Request},
		token: token, folder: l.Folder, deadline: s.now.Add(term), term: term,
	}
	s.leases[token] = held
	s.requests[held.request] = held
	return held
}

// drop forgets a lease that has ended.
func (s *Scheduler) drop(token uint64) {
	if l := s.leases[token]; l != nil {
		delete(s.leases, token)
		if s.requests[l.request] == l {
			delete(s.requests, l.request)
		}
	}
}

// held returns the leases of which it is true, in order of their grants.
func (s *Scheduler) held(which func(*lease) bool) []*lease {
	var list []*lease
	for _, l := range s.leases {
		if which(l) {
			list = append(list, l)
		}
	}
	slices.SortFunc(list, func(a, b *lease) int { return cmp.Compare(a.token, b.token) })
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

// end ends a lease through the log.
func (s *Scheduler) end(l *lease, cause string) {
	l.ending = true
	s.want(End{l.token, l.worker, &logv1.Command{
		TimeMs: s.now.UnixMilli(),
		Op:     &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: l.sweep, Trial: l.trial, Token: l.token, Cause: cause}},
	}})
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
	held.deadline = s.now.Add(held.term)
	return nil
}

// message is a lease with all that a worker needs for the run; nil if the state
// no longer holds it.
func (s *Scheduler) message(sweep string, number int64, token uint64) *trial.Lease {
	l := s.current(sweep, number, token)
	if l == nil {
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
