package assign_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"atelier/common/trial"
	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/duty/assign"
	"atelier/coordinator/state"
)

// choices are decisions taken from bytes; noughts once they are used up.
type choices []byte

func (c *choices) of(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

// live lets bytes decide what happens, and returns what should never be. What is
// checked at each grant stands in stage.checkGrant.
func live(t testing.TB, c choices) []string {
	st := newStage()
	began := map[uint64]string{} // waiters and their requests
	sweeps, views, trials := 0, 0, map[string]int64{}
	pick := func() (string, int64) {
		if sweeps == 0 {
			return "s0", 1
		}
		s := fmt.Sprintf("s%d", 1+c.of(sweeps))
		return s, 1 + int64(c.of(int(trials[s])))
	}
	happen := func(format string, a ...any) {
		st.happen(transcript.Parse(t, fmt.Sprintf(format, a...)))
	}
	incarnation := map[string]int{}
	for len(c) > 0 {
		worker := fmt.Sprintf("w%d", 1+c.of(3))
		switch c.of(16) {
		case 0:
			if sweeps < 4 {
				sweeps++
				s := fmt.Sprintf("s%d", sweeps)
				trials[s] = int64(1 + c.of(6))
				trainer, members := []string{"sim", "sim", "sim", "external"}[c.of(4)], []string{"1-1", "1-1", "2-2", "1-4", "2-3", "4-4"}[c.of(6)]
				if trainer == "external" {
					members = "1-1"
				}
				happen("create %s trials=%d parallelism=%d priority=%d trainer=%s members=%s", s, trials[s], 1+c.of(4), c.of(3), trainer, members)
			}
		case 1, 2, 3:
			if c.of(8) == 0 {
				s, _ := pick()
				happen("ask external/external incarnation=external trainers=external sweep=%s request=x%d term=%ds", s, c.of(6), 1+c.of(20))
			} else {
				happen("ask %s/slot%d request=r%d incarnation=i%d", worker, c.of(3), c.of(12), incarnation[worker]+c.of(2))
			}
			began[st.waiter] = worker
		case 4:
			happen("leave %d", c.of(int(st.waiter)+1))
		case 5, 6:
			if c.of(6) == 0 {
				incarnation[worker]++
			}
			var held []string
			for _, l := range st.leases(worker) {
				if c.of(4) > 0 {
					held = append(held, name(l))
				}
			}
			happen("beat %s incarnation=i%d folder=%s slots=slot0,slot1,%s leases=%s", worker, incarnation[worker], []string{"", "", "f1", "f2"}[c.of(4)], []string{"slot2", "gpu0"}[c.of(2)], strings.Join(held, ","))
		case 7, 8, 9:
			s, n := pick()
			member, all := "", []trial.GroupMember(nil)
			if sw, ok := st.m.View().Sweep(s); ok && sw.Trial(n) != nil && sw.Trial(n).Lease != nil && sw.Members.Group() {
				all = sw.Trial(n).Lease.Members
				member = fmt.Sprintf("#%d", all[c.of(len(all))].ID)
			}
			if member != "" && c.of(3) == 0 {
				var ids []string
				for _, h := range all {
					ids = append(ids, fmt.Sprint(h.ID))
				}
				views++
				happen("view %s/%d%s number=%d members=%s", s, n, member, views, strings.Join(ids, ","))
				break
			}
			happen("%s %s/%d%s %s", []string{"exit", "gone", "gone"}[c.of(3)], s, n, member, []string{"finished", "bad_spec", "data_missing", "device_fault", "disk_full", "crashed", "diverged", "stopped"}[c.of(8)])
		case 10:
			s, n := pick()
			happen("report %s/%d epoch=%d", s, n, 1+c.of(5))
		case 11:
			s, n := pick()
			happen("%s", []string{"pause " + s, "resume " + s, "resume " + s, "cancel " + s, fmt.Sprintf("priority %s %d", s, c.of(5)), fmt.Sprintf("renew %s/%d", s, n)}[c.of(6)])
		case 12:
			happen("%s", []string{"drain ", "undrain ", "undrain "}[c.of(3)]+worker)
		case 13:
			happen("%s", []string{"log hold", "log release", "log release", "log fail", "log heal", "log heal"}[c.of(6)])
			st.early = c.of(2) == 0
			if st.hold {
				st.release(c.of(3))
			}
		case 14:
			happen("%s", []string{"wait 300ms", "wait 1s", "wait 6s", "wait 9s", "stall 3s", "stall 20s"}[c.of(6)])
		case 15:
			if c.of(8) == 0 {
				happen("elect")
				began = map[uint64]string{}
			} else {
				happen("resync")
			}
		}
	}
	// In the end the log answers, everybody leaves and nobody is heard of.
	happen("log heal")
	happen("log release")
	for waiter := range began {
		happen("leave %d", waiter)
		if st.answered[waiter] != 1 {
			st.fault("waiter %d has %d answers", waiter, st.answered[waiter])
		}
	}
	happen("wait 30s")
	for _, sw := range st.m.View().Sweeps() {
		for _, n := range sw.Open() {
			if l := sw.Trial(n).Lease; l != nil {
				st.fault("a term after its last word %s/%d is still leased: %+v", sw.ID, n, l)
			}
		}
	}
	// A worker that comes now gets something on each of its slots, if there is something
	// for it; what it has it keeps.
	happen("undrain w9")
	happen("beat w9 slots=slot0,slot1,slot2,slot3")
	happen("live w9")
	var polls []uint64
	for i := range 4 {
		happen("ask w9/slot%d", i)
		polls = append(polls, st.waiter)
	}
	happen("wait 40s")
	idle := 0
	for _, p := range polls {
		if st.answered[p] == 0 {
			idle++
		}
	}
	larger, fitting := false, ""
	for _, sw := range st.m.View().Sweeps() {
		if sw.Trainer != "sim" || sw.Counts.Waiting == 0 || sw.Room() == 0 || sw.Status != trial.SweepRunning {
			continue
		}
		if int(sw.Members.Min) > idle {
			larger = larger || sw.Members.Min <= 4
		} else {
			fitting = fmt.Sprintf("%d trials of %s", sw.Counts.Waiting, sw.ID)
		}
	}
	if idle > 0 && fitting != "" && !larger {
		st.fault("%d slots of w9 wait, and so do %s", idle, fitting)
	}
	return st.broken
}

// FuzzScheduler: whatever happens in whatever order, no trial is granted twice, no
// request has two grants, nobody is answered twice or never, no lease outlives its
// holder, and two schedulers that saw the same want the same.
func FuzzScheduler(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(random(seed, 200))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if broken := live(t, b[:min(len(b), 2000)]); len(broken) > 0 {
			t.Error(broken[0])
		}
	})
}

func TestWhateverHappens(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		if broken := live(t, random(seed, 400)); len(broken) > 0 {
			t.Fatalf("seed %d: %s", seed, broken[0])
		}
	}
}

func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(256))
	}
	return b
}

// BenchmarkStep is one trial's way through the scheduler beside the state's: a slot
// asks, is granted, and the run ends, with others waiting.
func BenchmarkStep(b *testing.B) {
	for _, slots := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(slots), func(b *testing.B) {
			st := newStage()
			st.happen(transcript.Parse(b, "create s1 trials=1000 parallelism=1000"))
			s := assign.New(ttl, st.m.View(), st.now())
			for i := range slots {
				s.Step(assign.Asked{Waiter: uint64(i + 1), Slot: assign.Slot{Worker: "w", Incarnation: "i", Request: fmt.Sprint(i), Name: "s", Trainers: []string{"other"}}}, st.m.View(), st.now())
			}
			view := st.m.View()
			changes := []state.Change{{Kind: state.TrialEnded, Sweep: "s1", Trial: 1}}
			for b.Loop() {
				s.Step(assign.Changed{Changes: changes}, view, st.now().Add(time.Second))
			}
		})
	}
}
