package agent_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/agent"
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

func id32(id int) int32 { return int32(id) }

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
