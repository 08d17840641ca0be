package assign_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

// load is sweeps whose trials take so many slots each, for times drawn at random.
type load struct {
	sweeps, trials, slots int
	sizes                 []string      // MIN-MAX, of one sweep after the other
	least, most           time.Duration // of a run on its least number of slots
	seed                  uint64
}

// outcome is how the slots were used while trials waited, and what was done for it.
type outcome struct {
	use     float64       // share of the slots' time, while any trial waits
	longest time.Duration // that a sweep of gangs had trials to give and got no slots
	took    time.Duration
	runs    int
	leaves  int // members that were asked to leave
	largest int // members of a run
}

// simulation is a worker with slots that carries a load out in virtual time: a slot
// asks again some 50 ms after its run ended, keeps its poll for 30 s, and a member
// that is asked to leave does so after 300 ms.
type simulation struct {
	*stage
	load
	random  *rand.Rand
	worker  trial.Worker
	slots   []*simulatedSlot
	work    map[uint64]time.Duration // slot time that is left, by token
	leaving map[string]time.Duration // when members leave, by slot
	waits   map[string]time.Duration // since when sweeps of gangs wait
	heard   time.Duration
	outcome
}

type simulatedSlot struct {
	name  string
	asks  time.Duration // when it asks again; 0 = it has asked
	until time.Duration // when its poll is over
	poll  uint64
}

func simulate(t testing.TB, l load) outcome {
	s := &simulation{stage: newStage(), load: l, random: rand.New(rand.NewPCG(l.seed, 14)), work: map[uint64]time.Duration{}, leaving: map[string]time.Duration{}, waits: map[string]time.Duration{},
		worker: trial.Worker{Name: "w1", Incarnation: "i1", Address: "w1:1", Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}}}
	s.twin = nil
	for i := range l.sweeps {
		s.happen(transcript.Parse(t, fmt.Sprintf("create s%d trials=%d parallelism=4 members=%s", i+1, l.trials, l.sizes[i%len(l.sizes)])))
	}
	for i := range l.slots {
		s.slots = append(s.slots, &simulatedSlot{name: fmt.Sprintf("cpu%d", i), asks: time.Duration(i+1) * time.Millisecond})
		s.worker.Slots = append(s.worker.Slots, trial.Slot{Name: s.slots[i].name, Kind: "cpu"})
	}
	s.hear()
	var busy, whole time.Duration
	for {
		s.finish()
		s.ask()
		used, waiting, open := s.look()
		if open == 0 {
			break
		}
		step := s.next() - s.at
		if waiting {
			whole += time.Duration(l.slots) * step
			busy += time.Duration(used) * step
		}
		s.spend(step)
		s.at += step
		s.out.Reset()
		if s.at-s.heard >= time.Second {
			s.hear()
		}
	}
	for _, b := range s.broken {
		t.Error(b)
	}
	s.use, s.took = float64(busy)/float64(whole), s.at
	return s.outcome
}

func (s *simulation) hear() {
	s.heard = s.at
	s.step(assign.Heard{Heartbeat: trial.Heartbeat{Worker: s.worker, Leases: s.leases("w1")}})
	s.step(assign.Ticked{})
}

// each goes through the runs.
func (s *simulation) each(do func(sw *state.Sweep, t *state.Trial, members []trial.GroupMember)) {
	for _, sw := range s.m.View().Sweeps() {
		for _, n := range sw.Open() {
			if t := sw.Trial(n); t.Lease != nil {
				members := t.Lease.Members
				if members == nil {
					members = []trial.GroupMember{{Slot: t.Lease.Slot}}
				}
				do(sw, t, members)
			}
		}
	}
}

// look takes note of new runs and of who waits.
func (s *simulation) look() (used int, waiting bool, open int) {
	s.each(func(sw *state.Sweep, t *state.Trial, members []trial.GroupMember) {
		used += len(members)
		s.largest = max(s.largest, len(members))
		if _, known := s.work[t.Lease.Token]; !known {
			s.work[t.Lease.Token] = time.Duration(sw.Members.Min) * (s.least + time.Duration(s.random.Int64N(int64(s.most-s.least+1))))
			s.runs++
			delete(s.waits, sw.ID)
		}
		for _, m := range members {
			if _, known := s.leaving[m.Slot]; m.Leaving && !known {
				s.leaving[m.Slot] = s.at + 300*time.Millisecond
				s.leaves++
			}
		}
	})
	for _, sw := range s.m.View().Sweeps() {
		open += len(sw.Open())
		waiting = waiting || sw.Counts.Waiting > 0
		since, known := s.waits[sw.ID]
		switch {
		case sw.Counts.Waiting == 0 || sw.Members.Min == 1:
			delete(s.waits, sw.ID)
		case !known:
			s.waits[sw.ID] = s.at
		default:
			s.longest = max(s.longest, s.at-since)
		}
	}
	return used, waiting, open
}

// finish ends the runs whose work is done, and lets members leave.
func (s *simulation) finish() {
	record := func(events ...*atelierv1.RunEvent) {
		s.do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: events}}})
	}
	s.each(func(sw *state.Sweep, t *state.Trial, members []trial.GroupMember) {
		token := t.Lease.Token
		if left, known := s.work[token]; !known {
			return
		} else if left <= 0 {
			for _, m := range members {
				s.again(m.Slot)
			}
			record(&atelierv1.RunEvent{SweepId: sw.ID, Trial: t.Number, Token: token, Member: members[0].ID, Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: 1, Metrics: []*atelierv1.Metric{{Name: "loss", Value: 1}}}}},
				&atelierv1.RunEvent{SweepId: sw.ID, Trial: t.Number, Token: token, Member: members[0].ID, Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}})
			return
		}
		for _, m := range members {
			if at, is := s.leaving[m.Slot]; is && s.at >= at {
				s.again(m.Slot)
				record(&atelierv1.RunEvent{SweepId: sw.ID, Trial: t.Number, Token: token, Member: m.ID, Event: &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: wire.ToExit(trial.ExitReleased)}}})
			}
		}
	})
}

func (s *simulation) again(slot string) {
	delete(s.leaving, slot)
	at := slices.IndexFunc(s.slots, func(x *simulatedSlot) bool { return x.name == slot })
	s.slots[at].asks = s.at + time.Duration(20+s.random.IntN(60))*time.Millisecond
}

func (s *simulation) ask() {
	for _, x := range s.slots {
		if x.asks > 0 && s.at >= x.asks {
			x.asks, x.until = 0, s.at+30*time.Second
			x.poll = s.stage.ask(assign.Slot{Worker: "w1", Incarnation: "i1", Request: fmt.Sprintf("%s-%d", x.name, s.waiter+1), Name: x.name, Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}})
		} else if x.asks == 0 && s.at >= x.until && s.answered[x.poll] == 0 {
			s.step(assign.Left{Waiter: x.poll})
			x.asks = s.at + 5*time.Millisecond
		}
	}
}

// next is when something happens.
func (s *simulation) next() time.Duration {
	at := s.heard + time.Second
	s.each(func(_ *state.Sweep, t *state.Trial, members []trial.GroupMember) {
		at = min(at, s.at+s.work[t.Lease.Token]/time.Duration(len(members))+1)
	})
	for _, leaves := range s.leaving {
		at = min(at, leaves)
	}
	for _, x := range s.slots {
		if x.asks > 0 {
			at = min(at, x.asks)
		} else if s.answered[x.poll] == 0 {
			at = min(at, x.until)
		}
	}
	return max(at, s.at)
}

// spend does the work of a span of time.
func (s *simulation) spend(d time.Duration) {
	s.each(func(_ *state.Sweep, t *state.Trial, members []trial.GroupMember) {
		s.work[t.Lease.Token] -= d * time.Duration(len(members))
	})
}

// TestMixedSizes: while trials wait nine tenths of the slots' time are used, whatever the runs take,
// and all are carried out.
func TestMixedSizes(t *testing.T) {
	fixed, elastic := []string{"1-1", "2-2", "4-4"}, []string{"1-4", "1-1", "2-4"}
	for _, l := range []load{
		{trials: 4, sizes: fixed, least: 20 * time.Second, most: time.Minute},
		{trials: 4, sizes: fixed, least: time.Second, most: 3 * time.Second},
		{trials: 2, sizes: fixed, least: 5 * time.Minute, most: 15 * time.Minute},
		{trials: 4, sizes: fixed, least: 2 * time.Second, most: 100 * time.Second},
		{trials: 4, sizes: elastic, least: 20 * time.Second, most: time.Minute},
	} {
		if testing.Short() && l.trials < 4 {
			continue
		}
		l.sweeps, l.slots, l.seed = 40, 4, 1
		o := simulate(t, l)
		t.Logf("%d sweeps of %d trials of %v for %v to %v: %.1f %% used while trials waited, a sweep of gangs waited %v at most, %d members asked to leave, %d runs in %v",
			l.sweeps, l.trials, l.sizes, l.least, l.most, 100*o.use, o.longest.Round(time.Second), o.leaves, o.runs, o.took.Round(time.Second))
		if o.use < 0.9 {
			t.Errorf("%.1f %% of the slots' time were used", 100*o.use)
		}
		if o.runs != l.sweeps*l.trials {
			t.Errorf("%d runs of %d trials", o.runs, l.sweeps*l.trials)
		}
		if o.leaves > o.runs/10 {
			t.Errorf("%d members were asked to leave in %d runs", o.leaves, o.runs)
		}
	}
}

// TestGangAmongSmall: however many small trials there are, a gang waits for patience and one run, and for one trial of
// each sweep that has waited longer.
func TestGangAmongSmall(t *testing.T) {
	for seed := range uint64(5) {
		l := load{sweeps: 3, trials: 60, slots: 4, sizes: []string{"1-1", "1-1", "4-4"}, least: 5 * time.Second, most: 50 * time.Second, seed: seed}
		if o := simulate(t, l); o.longest > 30*time.Second+2*l.most+time.Second {
			t.Errorf("seed %d: a gang waited %v", seed, o.longest)
		}
	}
}

// TestElasticAlone: a run grows onto all slots when nothing else waits.
func TestElasticAlone(t *testing.T) {
	o := simulate(t, load{sweeps: 1, trials: 1, slots: 4, sizes: []string{"1-8"}, least: time.Minute, most: time.Minute, seed: 1})
	if o.largest != 4 || o.leaves != 0 || o.took > 17*time.Second {
		t.Errorf("%+v", o)
	}
}
