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
)

// load is sweeps whose trials take so many slots each, for times drawn at random.
type load struct {
	sweeps, trials, slots int
	sizes                 []string      // members=
	least, most           time.Duration // of a run of one trial on its least number of slots
	seed                  uint64
}

// outcome is how the slots were used while trials waited, and how long gangs waited
// once their turn had come.
type outcome struct {
	use     float64       // share of the slots' time, while any trial waits
	longest time.Duration // that a sweep of several members had trials to give and got nothing
	took    time.Duration
	runs    int
}

// simulate lets workers with slots carry a load out in virtual time: each slot asks
// again 50 ms after its run ended, and keeps its poll for 30 s.
func simulate(t testing.TB, l load) outcome {
	st := newStage()
	st.twin = nil
	r := rand.New(rand.NewPCG(l.seed, 14))
	took := map[string]time.Duration{}
	for i := range l.sweeps {
		size := l.sizes[i%len(l.sizes)]
		st.happen(transcript.Parse(t, fmt.Sprintf("create s%d trials=%d parallelism=4 members=%s", i+1, l.trials, size)))
		for n := range l.trials {
			took[fmt.Sprintf("s%d/%d", i+1, n+1)] = l.least + time.Duration(r.Int64N(int64(l.most-l.least+1)))
		}
	}
	type slot struct {
		name  string
		asks  time.Duration // when it asks again; 0 = it has asked
		until time.Duration // when its poll is over
		poll  uint64
	}
	slots := make([]*slot, l.slots)
	worker := trial.Worker{Name: "w1", Incarnation: "i1", Address: "w1:1", Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}}
	for i := range slots {
		slots[i] = &slot{name: fmt.Sprintf("cpu%d", i), asks: time.Duration(i+1) * time.Millisecond}
		worker.Slots = append(worker.Slots, trial.Slot{Name: slots[i].name, Kind: "cpu"})
	}
	st.step(assign.Heard{Heartbeat: trial.Heartbeat{Worker: worker}})
	running := map[uint64]time.Duration{} // ends, by token
	var busy, whole time.Duration
	var out outcome
	waits := map[string]time.Duration{}
	heard := time.Duration(0)
	for {
		view := st.m.View()
		waiting, open, used := 0, 0, 0
		for _, sw := range view.Sweeps() {
			waiting += int(sw.Counts.Waiting)
			since, known := waits[sw.ID]
			switch {
			case sw.Counts.Waiting == 0:
				delete(waits, sw.ID)
			case !known:
				waits[sw.ID] = st.at
			case sw.Members.Min > 1:
				out.longest = max(out.longest, st.at-since)
			}
			for _, n := range sw.Open() {
				open++
				tr := sw.Trial(n)
				if tr.Lease == nil {
					continue
				}
				members := tr.Lease.Members
				if members == nil {
					members = []trial.GroupMember{{Slot: tr.Lease.Slot}}
				}
				used += len(members)
				if _, ok := running[tr.Lease.Token]; !ok {
					running[tr.Lease.Token] = st.at + took[fmt.Sprintf("%s/%d", sw.ID, n)]
					waits[sw.ID] = st.at
					out.runs++
				}
			}
		}
		if open == 0 {
			break
		}
		for _, sw := range view.Sweeps() {
			for _, n := range sw.Open() {
				lease := sw.Trial(n).Lease
				if lease == nil || st.at < running[lease.Token] {
					continue
				}
				var member int32
				members := []trial.GroupMember{{Slot: lease.Slot}}
				if len(lease.Members) > 0 {
					member, members = lease.Members[0].ID, lease.Members
				}
				for _, m := range members {
					at := slices.IndexFunc(slots, func(s *slot) bool { return s.name == m.Slot })
					slots[at].asks = st.at + time.Duration(20+r.IntN(60))*time.Millisecond
				}
				st.do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{
					{SweepId: sw.ID, Trial: n, Token: lease.Token, Member: member, Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: 1, Metrics: []*atelierv1.Metric{{Name: "loss", Value: 1}}}}},
					{SweepId: sw.ID, Trial: n, Token: lease.Token, Member: member, Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(trial.ExitFinished)}}},
				}}}})
			}
		}
		for _, s := range slots {
			if s.asks > 0 && st.at >= s.asks {
				s.asks, s.until = 0, st.at+30*time.Second
				s.poll = st.ask(assign.Slot{Worker: "w1", Incarnation: "i1", Request: fmt.Sprintf("%s-%d", s.name, st.waiter+1), Name: s.name, Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}})
			} else if s.asks == 0 && st.at >= s.until && st.answered[s.poll] == 0 {
				st.step(assign.Left{Waiter: s.poll})
				s.asks = st.at + 5*time.Millisecond
			}
		}
		if st.at-heard >= time.Second {
			heard = st.at
			st.step(assign.Heard{Heartbeat: trial.Heartbeat{Worker: worker, Leases: st.leases("w1")}})
			st.step(assign.Ticked{})
		}
		// On to whatever comes next.
		next := heard + time.Second
		for _, sw := range st.m.View().Sweeps() {
			for _, n := range sw.Open() {
				if lease := sw.Trial(n).Lease; lease != nil {
					if end, ok := running[lease.Token]; ok {
						next = min(next, end)
					} else {
						next = st.at // it began in this round
					}
				}
			}
		}
		for _, s := range slots {
			if s.asks > 0 {
				next = min(next, s.asks)
			} else if st.answered[s.poll] == 0 {
				next = min(next, s.until)
			}
		}
		st.out.Reset()
		next = max(next, st.at)
		if waiting > 0 {
			whole += time.Duration(l.slots) * (next - st.at)
			busy += time.Duration(used) * (next - st.at)
		}
		st.at = next
	}
	for _, b := range st.broken {
		t.Error(b)
	}
	out.use, out.took = float64(busy)/float64(whole), st.at
	return out
}

// TestMixedSizes: while trials wait nine tenths of the slots' time are used, whatever the runs take,
// and no sweep of gangs waits for ever.
func TestMixedSizes(t *testing.T) {
	for _, l := range []load{
		{trials: 4, least: 20 * time.Second, most: time.Minute},
		{trials: 4, least: time.Second, most: 3 * time.Second},
		{trials: 2, least: 5 * time.Minute, most: 15 * time.Minute},
		{trials: 4, least: 2 * time.Second, most: 100 * time.Second},
	} {
		if testing.Short() && l.trials < 4 {
			continue
		}
		l.sweeps, l.slots, l.sizes, l.seed = 40, 4, []string{"1-1", "2-2", "4-4"}, 1
		o := simulate(t, l)
		t.Logf("%d sweeps of %d trials of %v for %v to %v: %.1f %% used while trials waited, a sweep of gangs waited %v at most, %d runs in %v",
			l.sweeps, l.trials, l.sizes, l.least, l.most, 100*o.use, o.longest.Round(time.Second), o.runs, o.took.Round(time.Second))
		if o.use < 0.9 {
			t.Errorf("%.1f %% of the slots' time were used", 100*o.use)
		}
		if o.runs != l.sweeps*l.trials {
			t.Errorf("%d runs of %d trials", o.runs, l.sweeps*l.trials)
		}
	}
}
