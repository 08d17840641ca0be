package agent_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/agent"
	"atelier/worker/wire"
)

// named gives a worker its name.
func named(name string, more ...func(*agent.Config)) func(*agent.Config) {
	return func(cfg *agent.Config) {
		cfg.Name = name
		for _, f := range more {
			f(cfg)
		}
	}
}

func counted(reg *prometheus.Registry) func(*agent.Config) {
	return func(cfg *agent.Config) { cfg.Registry = reg }
}

// patient waits for trainers as long as a loaded machine makes them take.
func patient(cfg *agent.Config) { cfg.DrainGrace, cfg.StopPatience = patience, patience }

// threeMembers run a group over two workers: w1 has one of them, w2 two.
func threeMembers(t *testing.T, change func(*groupCluster), more ...func(*agent.Config)) (*groupCluster, *stage, map[string]*worker) {
	s := newStage(t)
	c := newGroupCluster(t, 3, s.training())
	if change != nil {
		change(c)
	}
	workers := map[string]*worker{"w1": startWorker(t, c, 1, named("w1", more...)), "w2": startWorker(t, c, 2, named("w2", more...))}
	c.until("three members", func() bool { return len(c.members) == 3 })
	return c, s, workers
}

// name of a member: which slot has which id is not known beforehand.
func (c *groupCluster) name(id int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		if int(l.Member) == id {
			for _, m := range l.Group.Members {
				if int(m.ID) == id {
					return m.Name()
				}
			}
		}
	}
	return ""
}

// on lists the members of a worker.
func (c *groupCluster) on(worker string) (ids []int) {
	for id := 1; id <= 8; id++ {
		if strings.HasPrefix(c.name(id), worker+"/") {
			ids = append(ids, id)
		}
	}
	return ids
}

// others of those that a group of three begins with.
func others(id int) []int {
	return slices.DeleteFunc([]int{1, 2, 3}, func(x int) bool { return x == id })
}

func TestGroupBeginsOverTwoAgents(t *testing.T) {
	for _, kind := range []wire.Kind{wire.Direct, wire.Agents} {
		t.Run(string(kind), func(t *testing.T) {
			c, s, _ := threeMembers(t, func(c *groupCluster) { c.endEpoch = 9 },
				func(cfg *agent.Config) {
					cfg.Wire = wire.New(wire.Config{Worker: cfg.Name, Address: cfg.Address, Kind: kind})
				})
			dirs := map[string]bool{}
			for id := 1; id <= 3; id++ {
				p := s.member(id)
				g := p.job.Group
				if g.Token != 40 || g.Join || g.Shards != 8 || len(g.Members) != 3 || g.Members[id-1] != (trainerproto.Fellow{Member: id, Name: c.name(id)}) || p.job.EndEpoch != 9 || p.job.Threads < 1 || p.job.Device != "cpu" {
					t.Errorf("member %d has the job %+v, %+v", id, p.job, g)
				}
				dirs[p.job.Dir] = true
				for _, to := range others(id) {
					h := p.linked(to)
					here := strings.Split(c.name(id), "/")[0] == strings.Split(c.name(to), "/")[0]
					if h.Token != 40 || h.Name != c.name(to) || h.Local != here {
						t.Errorf("member %d has the link %+v", id, h)
					}
				}
			}
			if len(dirs) != 3 {
				t.Errorf("folders %v; each member needs its own", dirs)
			}
			s.member(2).say("over the wire")
			for _, id := range others(2) {
				s.member(id).until("it is heard", func(m fromPuppet) bool { return m.Heard == "over the wire" })
			}
			c.until("all are named in heartbeats", func() bool {
				named := map[int32]bool{}
				for _, b := range c.beats[max(0, len(c.beats)-8):] {
					for _, l := range b.Leases {
						named[l.Member] = true
					}
				}
				return len(named) == 3
			})
		})
	}
}

// TestMemberThatIsKilled: its end is its own, by what happened to it, and the others
// see its links end.
func TestMemberThatIsKilled(t *testing.T) {
	c, s, _ := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(1).view(1, 1, 2, 3)
	c.until("the view came", func() bool { return len(c.events) == 1 })
	syscall.Kill(s.member(1).pid, syscall.SIGKILL) // it reports, and is gone all the same
	for _, id := range others(1) {
		s.member(id).linkEnded(1)
	}
	if end, whole := c.ended(1); whole || end.Exit != trial.ExitKilled {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	// The next one reports in its place, and its end is the run's.
	s.member(2).view(2, 2, 3)
	s.member(2).send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: 4, Metrics: trainerproto.Metrics{{Name: "val_loss", Value: 0.5}}})
	s.member(2).told(trainerproto.Control{Reported: 4})
	s.member(3).done(trainerproto.DoneLeft)
	if end, whole := c.ended(3); whole || end.Exit != trial.ExitReleased {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	s.member(2).done(trainerproto.DoneFinished)
	if end, whole := c.ended(2); !whole || end.Exit != trial.ExitFinished {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	c.with(func() {
		var views []*trial.View
		for _, e := range c.events {
			if e.View != nil {
				views = append(views, e.View)
			}
			if e.Token != 40 || e.Member < 1 {
				t.Errorf("an event of %+v", e.LeaseRef)
			}
		}
		if len(views) != 2 || !slices.Equal(views[1].Members, []int32{2, 3}) || views[0].Step != 7 || views[0].PauseMS != 250 || views[0].Reason != "start" {
			t.Errorf("views %+v", views)
		}
	})
}

// TestMemberThatHangs is ended by name, in spite of being stopped; one that is being
// prepared is not.
func TestMemberThatHangs(t *testing.T) {
	reg := prometheus.NewRegistry()
	c, s, _ := threeMembers(t, nil, func(cfg *agent.Config) {
		if cfg.Name == "w2" {
			cfg.Registry = reg
		}
	})
	id := c.on("w2")[0]
	p := s.member(id)
	for _, to := range others(id) {
		s.member(to).linked(id)
	}
	time.Sleep(500 * time.Millisecond) // its first sign of life has come
	syscall.Kill(p.pid, syscall.SIGSTOP)
	stopped := time.Now()
	end, whole := c.ended(id32(id))
	if took := time.Since(stopped); took > 3*time.Second {
		t.Logf("it took %s; a loaded machine is slow", took)
	}
	if want := c.name(id) + " gave no sign of life for 2 s"; whole || end.Exit != trial.ExitKilled || end.Message != want {
		t.Errorf("%+v, of the run: %v; want %q", end, whole, want)
	}
	for _, to := range others(id) {
		s.member(to).linkEnded(id)
	}
	if value(t, reg, "atelier_worker_members_hung_total") != 1 {
		t.Error("it is not counted")
	}
}

func id32(id int) int32 { return int32(id) }

// TestAgentThatEnds: the members of the others see their links end.
func TestAgentThatEnds(t *testing.T) {
	c, s, workers := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	w1 := c.on("w1")[0]
	workers["w1"].cancel()
	for _, id := range others(w1) {
		s.member(id).linkEnded(w1)
	}
	if end, whole := c.ended(id32(w1)); whole || end.Exit != trial.ExitReleased {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestNewcomer begins without a checkpoint, and is linked to all that it finds.
func TestNewcomer(t *testing.T) {
	c, s, _ := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	file := filepath.Join(s.member(1).job.Dir, "e1.pth")
	if err := os.WriteFile(file, []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.member(1).send(trainerproto.Event{Kind: trainerproto.EventCheckpoint, Epoch: 1, Path: file, Size: 7, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("weights")))})
	s.member(1).told(trainerproto.Control{Kept: 1})
	startWorker(t, c, 1, named("w3"))
	c.with(func() { c.joins = 1 })
	p := s.member(4)
	if g := p.job.Group; !g.Join || len(g.Members) != 4 || p.job.Resume != "" {
		t.Errorf("%+v, resume %q", g, p.job.Resume)
	}
	for id := 1; id <= 3; id++ {
		p.linked(id)
		if h := s.member(id).linked(4); h.Name != "w3/cpu0" || h.Local {
			t.Errorf("member %d has the link %+v", id, h)
		}
	}
}

// TestMembersBeginWithOneCheckpoint: a copy that two members share is there until
// both have ended.
func TestMembersBeginWithOneCheckpoint(t *testing.T) {
	text := []byte("weights of an earlier run")
	sum := fmt.Sprintf("%x", sha256.Sum256(text))
	s := newStage(t)
	c := newGroupCluster(t, 2, s.training())
	// Another worker has it.
	other := startWorker(t, newGroupCluster(t, 9, ""), 1, named("w9"))
	dir := filepath.Join(other.dir, "checkpoints", "s-group", "1", "run-3-1")
	os.MkdirAll(dir, 0o755)
	os.WriteFile(filepath.Join(dir, "e5.pth"), text, 0o644)
	at, err := other.store.Location(filepath.Join(dir, "e5.pth"))
	if err != nil {
		t.Fatal(err)
	}
	c.indexed = []trial.Checkpoint{{Sweep: "s-group", Trial: 1, Epoch: 5, Size: int64(len(text)), SHA256: sum, Location: at, Worker: "w9", Token: 3}}
	startWorker(t, c, 2, named("w1"))
	copied := s.member(1).job.Resume
	if two := s.member(2).job; copied == "" || two.Resume != copied || two.ResumeEpoch != 5 {
		t.Fatalf("they begin with %q and %q", copied, two.Resume)
	}
	s.member(1).failed(trainerproto.FailedOutOfMemory, "no room")
	if end, whole := c.ended(1); whole || end.Exit != trial.ExitOutOfMemory || end.Message != "no room" {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	if b, err := os.ReadFile(copied); string(b) != string(text) {
		t.Errorf("the other member's file is gone: %v", err)
	}
	s.member(2).view(2, 2)
	s.member(2).done(trainerproto.DoneFinished)
	if _, whole := c.ended(2); !whole {
		t.Error("the end of who reports is not the run's")
	}
	waitFor(t, "the copy goes with the last", func() bool { _, err := os.Stat(copied); return err != nil })
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// TestRetentionOfAGroup: what one member wrote goes when another one's file on the
// same machine takes its place in the index.
func TestRetentionOfAGroup(t *testing.T) {
	s := newStage(t)
	c := newGroupCluster(t, 2, s.training())
	startWorker(t, c, 2, named("w1"))
	var files []string
	for id := 1; id <= 2; id++ {
		p := s.member(id)
		text := fmt.Sprint("weights by member ", id)
		file := filepath.Join(p.job.Dir, "best.pth")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		p.send(trainerproto.Event{Kind: trainerproto.EventCheckpoint, Epoch: id, Path: file, Size: int64(len(text)), SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(text)))})
		p.told(trainerproto.Control{Kept: id})
	}
	waitFor(t, "the first file goes", func() bool { _, err := os.Stat(files[0]); return err != nil })
	if _, err := os.Stat(files[1]); err != nil {
		t.Error(err)
	}
}

// TestMemberIsAskedToLeave by the coordinators; its end is its own.
func TestMemberIsAskedToLeave(t *testing.T) {
	c, s, _ := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	c.with(func() { c.leave = []int32{2} })
	s.member(2).told(trainerproto.Control{Verdict: "leave"})
	if s.member(1).wasTold("leave") || s.member(3).wasTold("leave") {
		t.Error("others were asked too")
	}
	s.member(2).done(trainerproto.DoneLeft)
	if end, whole := c.ended(2); whole || end.Exit != trial.ExitReleased || end.Message != "left the group as it was asked to" {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestMemberThatDoesNotLeave is ended, and the end says so.
func TestMemberThatDoesNotLeave(t *testing.T) {
	c, s, _ := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	c.with(func() { c.leave = []int32{2} })
	s.member(2).told(trainerproto.Control{Verdict: "leave"})
	want := "was asked to leave the group, did not within 500ms and was ended"
	if end, whole := c.ended(2); whole || end.Exit != trial.ExitReleased || end.Message != want {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestVerdictGoesToAllMembersHere, who end as each reports.
func TestVerdictGoesToAllMembersHere(t *testing.T) {
	c, s, _ := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(1).view(1, 1, 2, 3)
	c.with(func() { c.verdict = trial.VerdictStop })
	for id := 1; id <= 3; id++ {
		s.member(id).told(trainerproto.Control{Verdict: "stop"})
	}
	for _, id := range others(1) {
		s.member(id).done(trainerproto.DoneLeft)
		if end, whole := c.ended(id32(id)); whole || end.Exit != trial.ExitReleased {
			t.Errorf("%+v, of the run: %v", end, whole)
		}
	}
	s.member(1).done(trainerproto.DoneStopped)
	if end, whole := c.ended(1); !whole || end.Exit != trial.ExitStopped {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestDrain: the members of a worker that leaves leave their group. Where all are on
// it they pause instead.
func TestDrainOfMembers(t *testing.T) {
	c, s, workers := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	two, one := c.on("w2"), c.on("w1")[0]
	s.member(1).view(1, 1, 2, 3)
	c.until("the view came", func() bool { return len(c.events) > 0 })
	workers["w2"].Drain()
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "leave"})
		s.member(id).done(trainerproto.DoneLeft)
		if end, whole := c.ended(id32(id)); whole || end.Exit != trial.ExitReleased || end.Message != "its worker is leaving" {
			t.Errorf("%+v, of the run: %v", end, whole)
		}
	}
	if err := workers["w2"].wait(t, 5*time.Second); err != nil {
		t.Error(err)
	}
	s.member(one).view(2, one)
	c.until("the view came", func() bool {
		return c.events[len(c.events)-1].View != nil && len(c.events[len(c.events)-1].View.Members) == 1
	})
	workers["w1"].Drain()
	s.member(one).told(trainerproto.Control{Verdict: "pause"})
	s.member(one).done(trainerproto.DonePaused)
	if end, _ := c.ended(id32(one)); end.Exit != trial.ExitReleased {
		t.Errorf("%+v", end)
	}
}

// TestLastMembersPauseThoughAskedToLeave: no other one is left to continue.
func TestLastMembersPauseThoughAskedToLeave(t *testing.T) {
	c, s, workers := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	two := c.on("w2")
	workers["w2"].Drain()
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "leave"})
	}
	s.member(two[0]).view(2, two...)
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "pause"})
		s.member(id).done(trainerproto.DonePaused)
	}
}

// TestFencedHalfIsKilled: the coordinators know another view of that number.
func TestFencedHalfIsKilled(t *testing.T) {
	c, s, _ := threeMembers(t, func(c *groupCluster) {
		c.fence = func(e trial.Event) bool { return e.View != nil && e.View.Number == 2 }
	})
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(3).view(2, 3)
	if end, whole := c.ended(3); whole || end.Exit != trial.ExitLost {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	for _, id := range others(3) {
		s.member(id).linkEnded(3)
	}
}

// TestTrainerWithoutGroups is refused by name.
func TestTrainerWithoutGroups(t *testing.T) {
	c := newGroupCluster(t, 2, `{}`)
	c.trainer = "alone"
	startWorker(t, c, 2, named("w1"))
	end, whole := c.ended(1)
	if !whole || end.Exit != trial.ExitBadSpec || !strings.Contains(end.Message, `trainer "alone" of worker w1 knows no groups`) {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestWorkersThatCannotReachEachOther are named both ways in the ends of the members.
func TestWorkersThatCannotReachEachOther(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	s := newStage(t)
	c := newGroupCluster(t, 2, s.training())
	c.wrong = closed
	reg := prometheus.NewRegistry()
	workers := map[string]*worker{"w1": startWorker(t, c, 1, named("w1", counted(reg))), "w2": startWorker(t, c, 1, named("w2"))}
	for id := int32(1); id <= 2; id++ {
		end, whole := c.ended(id)
		from, _, _ := strings.Cut(c.name(int(id)), "/")
		to := map[string]string{"w1": "w2", "w2": "w1"}[from]
		want := fmt.Sprintf("worker %s (%s) cannot reach worker %s (%s): connection refused", from, workers[from].address, to, closed)
		if whole || end.Exit != trial.ExitLost || end.Message != want {
			t.Errorf("member %d: %+v, of the run: %v; want %q", id, end, whole, want)
		}
	}
	if n := value(t, reg, "atelier_worker_members_unreachable_total"); n < 1 {
		t.Errorf("counted %v times", n)
	}
}

func TestGroupMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := newStage(t)
	c := newGroupCluster(t, 2, s.training())
	startWorker(t, c, 2, named("w1", counted(reg)))
	s.member(1).linked(2)
	s.member(2).linked(1)
	s.member(1).view(1, 1, 2)
	s.member(2).view(1, 1, 2) // each member tells of it
	c.until("both tell of the view", func() bool { return len(c.events) == 2 })
	s.member(1).send(trainerproto.Event{Kind: trainerproto.EventProgress, Pace: &trainerproto.Pace{Step: 0.1, Waiting: 0.2, Slowest: 2, Lag: 0.3}})
	c.until("the pace is in a heartbeat", func() bool {
		b := c.beats[len(c.beats)-1]
		return slices.ContainsFunc(b.Worker.Slots, func(s trial.Slot) bool {
			return s.Member == 1 && s.Pace != nil && *s.Pace == trial.Pace{Step: 0.1, Waiting: 0.2, Slowest: 2, Lag: 0.3}
		})
	})
	for name, want := range map[string]float64{"atelier_worker_members": 2, "atelier_worker_links": 2, "atelier_worker_links_made_total": 2, "atelier_worker_group_views_total": 1, "atelier_worker_member_ends_total": 0} {
		if got := value(t, reg, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
