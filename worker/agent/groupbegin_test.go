package agent_test

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/agent"
	"atelier/worker/wire"
)

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
