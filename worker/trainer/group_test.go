//go:build libtorch

package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// crew is a run of several trainers, as whoever started them sees it.
type crew struct {
	t       *testing.T
	job     trainerproto.Job
	shards  int
	members map[int]*process
	next    int
	heard   chan heard
	told    map[int]bool // ids whose trainer has ended

	views       []trainerproto.View
	epochs      map[int][]trainerproto.Event // by number; more than one only if the first may not have arrived
	checkpoints map[int]map[string]int       // epoch: SHA-256, how often
	paths       map[int]string
	ends        map[int]trainerproto.Event // done or failed, by member
}

type heard struct {
	member int
	event  trainerproto.Event
	ended  bool
}

// groupJob is newJob with all that has a state of its own.
func groupJob(t *testing.T, base string, shards int, training map[string]any) trainerproto.Job {
	all := map[string]any{"epochs": 3, "batch_size": 24, "shards": shards, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.05, "accumulate": 2, "schedule": "cosine", "warmup_epochs": 0.5,
		"ema_decay": 0.9, "clip_norm": 1, "dropout_rate": 0.3, "augmentation": map[string]any{"cutmix": map[string]any{"enabled": true}}}
	maps.Copy(all, training)
	return newJob(t, base, all)
}

// newCrew begins a run; params are those of each member where they are not alike.
func newCrew(t *testing.T, job trainerproto.Job, shards, members int, params ...string) *crew {
	t.Helper()
	c := &crew{t: t, job: job, shards: shards, members: map[int]*process{}, heard: make(chan heard, 100), told: map[int]bool{},
		epochs: map[int][]trainerproto.Event{}, checkpoints: map[int]map[string]int{}, paths: map[int]string{}, ends: map[int]trainerproto.Event{}}
	for range members {
		c.next++
		c.members[c.next] = start(t)
	}
	for _, id := range c.ids() {
		for _, other := range c.ids() {
			if other < id {
				c.connect(other, id)
			}
		}
	}
	for i, id := range c.ids() {
		if len(params) > 0 {
			c.job.Params = []byte(params[i])
		}
		c.begin(id, false)
	}
	return c
}

func (c *crew) ids() []int { return slices.Sorted(maps.Keys(c.members)) }

func (c *crew) connect(a, b int) {
	c.t.Helper()
	end := func(id int) links.End {
		return links.End{To: c.members[id].links, Member: id, Name: fmt.Sprint("m", id)}
	}
	if err := links.Connect(7, end(a), end(b)); err != nil {
		c.t.Fatal(err)
	}
}

// begin gives a member its job, in a folder of its own, and listens to it.
func (c *crew) begin(id int, join bool) {
	c.t.Helper()
	job := c.job
	job.Dir = c.t.TempDir()
	job.Group = &trainerproto.Group{Token: 7, Member: id, Join: join, Shards: c.shards}
	for _, other := range c.ids() {
		job.Group.Members = append(job.Group.Members, trainerproto.Fellow{Member: other, Name: fmt.Sprint("m", other)})
	}
	p := c.members[id]
	p.send(job)
	go func() {
		for {
			e, err := p.events.Event()
			c.heard <- heard{id, e, err != nil}
			if err != nil {
				return
			}
		}
	}()
}

// join starts a member while the others are at work.
func (c *crew) join() int {
	c.t.Helper()
	c.next++
	id := c.next
	p := start(c.t)
	c.members[id] = p
	for _, other := range c.ids() {
		if other != id && !c.told[other] {
			// One that is dying cannot be linked; it is no member any more.
			end := func(id int) links.End {
				return links.End{To: c.members[id].links, Member: id, Name: fmt.Sprint("m", id)}
			}
			_ = links.Connect(7, end(other), end(id))
		}
	}
	c.begin(id, true)
	return id
}

func (c *crew) kill(id int) { c.members[id].cmd.Process.Signal(syscall.SIGKILL) }

func (c *crew) say(control trainerproto.Control, members ...int) {
	for _, id := range members {
		// One that has ended hears nothing.
		_ = trainerproto.NewWriter(c.members[id].stdin).Send(control)
	}
}

// finish takes events to the end of all members; on is called with each.
func (c *crew) finish(on func(member int, e trainerproto.Event)) {
	c.t.Helper()
	limit := time.After(2 * time.Minute)
	for len(c.told) < len(c.members) {
		select {
		case h := <-c.heard:
			if h.ended {
				c.told[h.member] = true
				continue
			}
			c.take(h.member, h.event)
			on(h.member, h.event)
		case <-limit:
			for id, p := range c.members {
				if !c.told[id] {
					p.cmd.Process.Signal(syscall.SIGABRT)
					p.cmd.Wait()
					c.t.Logf("member %d:\n%.6000s", id, p.stderr)
				}
			}
			c.t.Fatal("the run does not end")
		}
	}
}

// take records an event, and answers as an agent does.
func (c *crew) take(member int, e trainerproto.Event) {
	switch e.Kind {
	case trainerproto.EventView:
		if n := len(c.views); n > 0 && c.views[n-1].Number == e.View.Number {
			c.views = c.views[:n-1] // now with its pause
		}
		c.views = append(c.views, *e.View)
	case trainerproto.EventEpoch:
		c.epochs[e.Epoch] = append(c.epochs[e.Epoch], e)
		c.say(trainerproto.Control{Reported: e.Epoch}, c.ids()...)
	case trainerproto.EventCheckpoint:
		if c.checkpoints[e.Epoch] == nil {
			c.checkpoints[e.Epoch] = map[string]int{}
		}
		b, err := os.ReadFile(e.Path)
		sum := sha256.Sum256(b)
		if err != nil || hex.EncodeToString(sum[:]) != e.SHA256 {
			c.t.Errorf("checkpoint %s is not what its event tells (%v)", e.Path, err)
		}
		c.checkpoints[e.Epoch][e.SHA256]++
		c.paths[e.Epoch] = e.Path
		c.say(trainerproto.Control{Kept: e.Epoch}, c.ids()...)
	case trainerproto.EventDone, trainerproto.EventFailed:
		c.ends[member] = e
	}
}

// hashes are those of all checkpoints; each epoch has one, whoever wrote it.
func (c *crew) hashes() map[int]string {
	c.t.Helper()
	all := map[int]string{}
	for epoch, sums := range c.checkpoints {
		if len(sums) != 1 {
			c.t.Errorf("epoch %d has the checkpoints %v", epoch, sums)
		}
		for sum := range sums {
			all[epoch] = sum
		}
	}
	return all
}

func (c *crew) logs() string {
	var b strings.Builder
	for _, id := range c.ids() {
		fmt.Fprintf(&b, "member %d:\n%s\n", id, c.members[id].stderr)
	}
	return b.String()
}

// alone is the run in one process, and its checkpoints' hashes.
func alone(t *testing.T, job trainerproto.Job) ([]trainerproto.Event, map[int]string) {
	t.Helper()
	job.Dir = t.TempDir()
	events, all := finish(t, job), map[int]string{}
	for _, e := range of(events, trainerproto.EventCheckpoint) {
		all[e.Epoch] = e.SHA256
	}
	return events, all
}

// However many members carry a run out, its checkpoints have the bits of one
// process's, and its figures are the same.
func TestMembersComputeWhatOneProcessDoes(t *testing.T) {
	base := imageFolder(t, 33, 11)
	for _, c := range []struct {
		name     string
		shards   int
		members  []int
		training map[string]any
	}{
		{"all that has a state", 4, []int{1, 2, 3, 4}, nil},
		{"running statistics, a small last batch", 8, []int{2, 3}, map[string]any{"model": "mobilenet_v2", "epochs": 2, "accumulate": 1}},
		{"bf16, plateau", 4, []int{2}, map[string]any{"precision": "bf16", "schedule": "plateau", "step_epochs": 1, "class_weights": "balanced", "warmup_epochs": 0}},
		{"frozen features", 4, []int{2}, map[string]any{"model": "resnet18", "freeze_features": true, "epochs": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := groupJob(t, base, c.shards, c.training)
			events, want := alone(t, job)
			if len(want) == 0 {
				t.Fatal("no checkpoint")
			}
			for _, n := range c.members {
				crew := newCrew(t, job, c.shards, n)
				alive := map[int]int{}
				crew.finish(func(member int, e trainerproto.Event) {
					if e.Kind == trainerproto.EventAlive {
						alive[member]++
					}
				})
				if got := crew.hashes(); !maps.Equal(got, want) {
					t.Errorf("%d members: checkpoints %v, of one process %v\n%s", n, got, want, crew.logs())
				}
				for _, e := range of(events, trainerproto.EventEpoch) {
					for _, m := range e.Metrics {
						got := crew.epochs[e.Epoch]
						if len(got) != 1 {
							t.Fatalf("%d members: epoch %d is reported %d times", n, e.Epoch, len(got))
						}
						if v, _ := got[0].Metrics.Get(m.Name); v != m.Value && m.Name != "images_per_s" {
							t.Errorf("%d members, epoch %d: %s %v, of one process %v", n, e.Epoch, m.Name, v, m.Value)
						}
					}
				}
				for id := 1; id <= n; id++ {
					want := trainerproto.DoneLeft
					if id == 1 {
						want = trainerproto.DoneFinished
					}
					if crew.ends[id].Reason != want || alive[id] == 0 {
						t.Errorf("member %d of %d ended with %+v, after %d signs of life", id, n, crew.ends[id], alive[id])
					}
				}
				if n := len(crew.views); n != 1 {
					t.Errorf("%d views: %+v", n, crew.views)
				}
			}
		})
	}
}

// Members die, the one that reports as well, join and leave in mid-epoch: the
// result stays what one process computes, and each epoch is reported.
func TestMembersComeAndGo(t *testing.T) {
	base := imageFolder(t, 60, 12)
	job := groupJob(t, base, 8, map[string]any{"model": "mobilenet_v2", "epochs": 4, "accumulate": 1})
	_, want := alone(t, job)
	for _, c := range []struct {
		name    string
		members int
		script  func(c *crew) func(member int, e trainerproto.Event)
	}{
		{"the one that reports dies", 3, func(c *crew) func(int, trainerproto.Event) {
			return func(_ int, e trainerproto.Event) {
				if e.Kind == trainerproto.EventProgress && e.Epoch >= 1 || e.Kind == trainerproto.EventEpoch && e.Epoch == 1 {
					c.kill(1)
				}
			}
		}},
		{"another one dies", 3, func(c *crew) func(int, trainerproto.Event) {
			return func(_ int, e trainerproto.Event) {
				if e.Kind == trainerproto.EventEpoch && e.Epoch == 2 {
					time.Sleep(20 * time.Millisecond)
					c.kill(2)
				}
			}
		}},
		{"one joins", 1, func(c *crew) func(int, trainerproto.Event) {
			return func(_ int, e trainerproto.Event) {
				if e.Kind == trainerproto.EventEpoch && e.Epoch == 1 {
					c.join()
				}
			}
		}},
		{"one joins, the first leaves, the second dies", 2, func(c *crew) func(int, trainerproto.Event) {
			return func(_ int, e trainerproto.Event) {
				switch {
				case e.Kind == trainerproto.EventEpoch && e.Epoch == 1:
					c.join()
				case e.Kind == trainerproto.EventView && slices.Contains(e.View.Members, 3) && slices.Contains(e.View.Members, 1):
					c.say(trainerproto.Control{Verdict: "leave"}, 1)
				case e.Kind == trainerproto.EventView && slices.Equal(e.View.Members, []int{2, 3}):
					c.kill(2)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			crew := newCrew(t, job, 8, c.members)
			crew.finish(c.script(crew))
			if got := crew.hashes(); !maps.Equal(got, want) {
				t.Errorf("checkpoints %v, of one process %v\n%s", got, want, crew.logs())
			}
			for epoch := 1; epoch <= 4; epoch++ {
				if len(crew.epochs[epoch]) == 0 {
					t.Errorf("epoch %d was not reported", epoch)
				}
			}
			if len(crew.views) < 2 {
				t.Errorf("nothing has happened: %+v", crew.views)
			}
			for _, v := range crew.views {
				t.Logf("view %d of %v from step %d on, after %.0f ms: %s", v.Number, v.Members, v.Step, 1000*v.Pause, v.Reason)
			}
		})
	}
}

// A run that is paused is resumed by any number of members.
func TestGroupPausesAndResumes(t *testing.T) {
	base := imageFolder(t, 33, 11)
	job := groupJob(t, base, 4, map[string]any{"epochs": 12})
	_, want := alone(t, job)
	first := newCrew(t, job, 4, 3)
	first.finish(func(_ int, e trainerproto.Event) {
		if e.Kind == trainerproto.EventCheckpoint && e.Epoch == 1 {
			first.say(trainerproto.Control{Verdict: "pause"}, 2)
		}
	})
	if first.ends[1].Reason != trainerproto.DonePaused || first.ends[3].Reason != trainerproto.DoneLeft {
		t.Fatalf("ended with %+v\n%s", first.ends, first.logs())
	}
	last := slices.Max(slices.Collect(maps.Keys(first.paths)))
	again := job
	again.Resume, again.ResumeEpoch = first.paths[last], last
	if last == 12 {
		t.Fatal("the run was over before it was paused")
	}
	second := newCrew(t, again, 4, 2)
	second.finish(func(int, trainerproto.Event) {})
	got := first.hashes()
	maps.Copy(got, second.hashes())
	if !maps.Equal(got, want) {
		t.Errorf("checkpoints %v, of one process %v\n%s", got, want, second.logs())
	}
}

// Members whose group has other shards than the settings, or that would compute
// other bits, are refused, with what differs.
func TestMembersMustAgree(t *testing.T) {
	job := groupJob(t, imageFolder(t, 20, 6), 4, nil)
	wrong := newCrew(t, job, 8, 1)
	wrong.finish(func(int, trainerproto.Event) {})
	if e := wrong.ends[1]; e.Class != trainerproto.FailedBadSpec || !strings.Contains(e.Message, "8 shards") {
		t.Errorf("ended with %+v", e)
	}
	other := newCrew(t, job, 4, 2, `{"shard_threads":2}`, `{}`)
	other.finish(func(int, trainerproto.Event) {})
	for id := 1; id <= 2; id++ {
		if e := other.ends[id]; e.Class != trainerproto.FailedBadSpec || !strings.Contains(e.Message, "threads of a shard 2") || !strings.Contains(e.Message, "threads of a shard 1") {
			t.Errorf("member %d ended with %+v", id, e)
		}
	}
}

// Who asks for a way of sums that this machine does not have is told; auto takes
// the host's memory.
func TestGroupTransfer(t *testing.T) {
	job := groupJob(t, imageFolder(t, 20, 6), 2, map[string]any{"epochs": 1})
	for how, want := range map[string]struct{ class, text string }{
		"nccl": {trainerproto.FailedDeviceFault, "ATELIER_GROUP_TRANSFER=nccl: libtorch: device cpu has no identity"},
		"rdma": {trainerproto.FailedBadSpec, `ATELIER_GROUP_TRANSFER: "rdma" is not host, nccl or auto`},
		"auto": {"", ""},
	} {
		t.Setenv("ATELIER_GROUP_TRANSFER", how)
		c := newCrew(t, job, 2, 2)
		c.finish(func(int, trainerproto.Event) {})
		for id := 1; id <= 2; id++ {
			if e := c.ends[id]; e.Class != want.class || !strings.Contains(e.Message, want.text) || want.class == "" && e.Kind != trainerproto.EventDone {
				t.Errorf("%s: member %d ended with %+v", how, id, e)
			}
		}
	}
}

// A loss that is no number ends all members alike.
func TestGroupDiverges(t *testing.T) {
	job := groupJob(t, imageFolder(t, 33, 6), 4, map[string]any{"optimizer": "sgd", "lr": 1000, "clip_norm": 0, "schedule": "constant", "warmup_epochs": 0})
	events := func() trainerproto.Event {
		p := start(t)
		solo := job
		p.send(solo)
		all := p.until(never)
		return all[len(all)-1]
	}()
	c := newCrew(t, job, 4, 2)
	c.finish(func(int, trainerproto.Event) {})
	for id := 1; id <= 2; id++ {
		if e := c.ends[id]; e.Class != trainerproto.FailedDiverged || e.Message != events.Message {
			t.Errorf("member %d: %+v, one process %+v", id, e, events)
		}
	}
}
