package simtrainer_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/child"
	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/worker/simtrainer"
)

// TestMain makes this test binary a trainer when it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv("SIMTRAINER") == "" {
		os.Exit(m.Run())
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	os.Exit(simtrainer.Main(os.Stdin, os.NewFile(trainerproto.EventsFD, "events"), os.Stderr, signals))
}

// said is an event of a member; none is its end.
type said struct {
	member int
	e      trainerproto.Event
	err    error
}

// host is what an agent is to the members of a run.
type host struct {
	t        *testing.T
	job      trainerproto.Job
	shards   int
	live     map[int]*child.Trainer
	said     chan said
	next     int
	reported int
	kept     int
	epochs   []int                    // reported, in order
	sums     map[int]string           // SHA-256 of the checkpoint of each epoch
	ends     map[int]string           // done reason, failed class, or exit
	views    []trainerproto.View      // as reported
	after    func(h *host, epoch int) // a report
	acks     bool
}

func newHost(t *testing.T, training string, shards int) *host {
	return &host{t: t, shards: shards, live: map[int]*child.Trainer{}, said: make(chan said), next: 1, sums: map[int]string{}, ends: map[int]string{}, acks: true,
		job: trainerproto.Job{Protocol: trainerproto.Version, Seed: 5, Metric: "val_loss", Training: json.RawMessage(training), Dir: t.TempDir()}}
}

// start starts n members; with join they come to those that are there.
func (h *host) start(n int, join bool) {
	h.t.Helper()
	before := len(h.live)
	fresh := []int{}
	for range n {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SIMTRAINER=1")
		cmd.Stderr = os.Stderr
		c, err := child.StartTrainer(cmd, child.Options{})
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { c.Kill(); <-c.Exited() })
		if hello, err := c.Hello(time.Minute); err != nil || hello.Groups != trainerproto.GroupVersion {
			h.t.Fatalf("%+v, %v", hello, err)
		}
		for id, other := range h.live {
			links.Connect(7, end(id, other), end(h.next, c)) // one may be dying
		}
		h.live[h.next] = c
		fresh = append(fresh, h.next)
		h.next++
	}
	var fellows []trainerproto.Fellow
	for id := range h.next {
		if h.live[id] != nil {
			fellows = append(fellows, trainerproto.Fellow{Member: id, Name: name(id)})
		}
	}
	for _, id := range fresh {
		job := h.job
		job.Group = &trainerproto.Group{Token: 7, Member: id, Members: fellows, Join: join && before > 0, Shards: h.shards}
		if err := h.live[id].Send(job); err != nil {
			h.t.Fatal(err)
		}
		go h.listen(id, h.live[id])
	}
}

func name(id int) string { return fmt.Sprintf("w1/cpu%d", id) }

func end(id int, c *child.Trainer) links.End {
	return links.End{To: c.Links(), Member: id, Name: name(id)}
}

func (h *host) listen(id int, c *child.Trainer) {
	for {
		e, err := c.EventWithin(2 * time.Second)
		if errors.Is(err, child.ErrSilent) {
			c.Kill()
		}
		if err != nil {
			c.CloseInput()
			<-c.Exited()
			if err == io.EOF {
				err = fmt.Errorf("%s", c.State())
			}
			c.Close()
			h.said <- said{member: id, err: err}
			return
		}
		h.said <- said{member: id, e: e}
	}
}

// run takes what the members report until all have ended.
func (h *host) run() {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for len(h.live) > 0 {
		var s said
		select {
		case s = <-h.said:
		case <-deadline:
			h.t.Fatalf("members %v do not end; reported %v", h.live, h.epochs)
		}
		switch e := s.e; {
		case s.err != nil:
			delete(h.live, s.member)
			if h.ends[s.member] == "" {
				h.ends[s.member] = s.err.Error()
			}
		case e.Kind == trainerproto.EventDone:
			h.ends[s.member] = e.Reason
		case e.Kind == trainerproto.EventFailed:
			h.ends[s.member] = e.Class
		case e.Kind == trainerproto.EventView:
			h.views = append(h.views, *e.View)
		case e.Kind == trainerproto.EventEpoch && e.Epoch > h.reported:
			h.reported = e.Epoch
			h.epochs = append(h.epochs, e.Epoch)
			h.ack()
			if h.after != nil {
				h.after(h, e.Epoch)
			}
		case e.Kind == trainerproto.EventCheckpoint && e.Epoch > h.kept:
			h.kept = e.Epoch
			h.sums[e.Epoch] = e.SHA256
			h.ack()
		}
	}
}

func (h *host) ack() {
	if h.acks {
		h.tell(trainerproto.Control{Reported: h.reported, Kept: h.kept})
	}
}

func (h *host) tell(c trainerproto.Control) {
	for _, m := range h.live {
		m.Send(c)
	}
}

// lowest is the member that reports.
func (h *host) lowest() int {
	for id := range h.next {
		if h.live[id] != nil {
			return id
		}
	}
	h.t.Fatal("no member lives")
	return 0
}

// alone is what the same training comes to in one process: checkpoints by epoch.
func alone(t *testing.T, job trainerproto.Job, shards int) (sums map[int]string, events []trainerproto.Event) {
	t.Helper()
	job.Dir = t.TempDir()
	job.Training = json.RawMessage(strings.Replace(string(job.Training), "{", fmt.Sprintf(`{"shards":%d,"batch_size":%d,`, shards, 8*shards), 1))
	events, code := session(t, job, nil)
	if code != 0 {
		t.Fatalf("code %d: %+v", code, events)
	}
	sums = map[int]string{}
	for _, e := range events {
		if e.Kind == "checkpoint" {
			sums[e.Epoch] = e.SHA256
		}
	}
	return sums, events
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// whole checks that each epoch was reported once and every checkpoint is that of
// one process.
func (h *host) whole(epochs int) {
	h.t.Helper()
	if !slices.Equal(h.epochs, upTo(epochs)) {
		h.t.Errorf("reported %v", h.epochs)
	}
	want, _ := alone(h.t, h.job, h.shards)
	for epoch, sum := range want {
		if h.sums[epoch] != sum {
			h.t.Errorf("checkpoint of epoch %d: %.8s, of one process %.8s", epoch, h.sums[epoch], sum)
		}
	}
	finished := 0
	for _, why := range h.ends {
		if why == trainerproto.DoneFinished {
			finished++
		}
	}
	if finished != 1 {
		h.t.Errorf("ends %v", h.ends)
	}
}

const slow = `{"epochs":5,"epoch_seconds":0.4,"checkpoint_every":1}`

// Any number of members comes to what one process comes to, and shards matter.
func TestMembersComeToTheSame(t *testing.T) {
	for _, shards := range []int{4, 5, 8} {
		for _, n := range []int{1, 2, 3, 4} {
			h := newHost(t, `{"epochs":4,"epoch_seconds":0}`, shards)
			h.start(n, false)
			h.run()
			h.whole(4)
			if len(h.views) == 0 || len(h.views[0].Members) != n || len(h.ends) != n {
				t.Errorf("%d members: views %+v, ends %v", n, h.views, h.ends)
			}
		}
	}
	job := newHost(t, `{"epochs":2,"epoch_seconds":0}`, 0).job
	four, _ := alone(t, job, 4)
	five, _ := alone(t, job, 5)
	if four[2] == five[2] {
		t.Error("four shards and five come to the same state")
	}
	one, events := alone(t, job, 1)
	if _, more := alone(t, job, 4); curveOf(events) != curveOf(more) || one[2] == four[2] {
		t.Error("the learning curve depends on shards, or the checkpoint does not")
	}
}

// Members are killed, stopped, come and leave; nothing of the result changes.
func TestMembersChange(t *testing.T) {
	for what, after := range map[string]func(h *host, epoch int){
		"the reporting one is killed": func(h *host, epoch int) {
			if epoch == 2 {
				h.live[h.lowest()].Kill()
			}
		},
		"another is killed between": func(h *host, epoch int) {
			if epoch == 2 {
				other := h.live[3]
				time.AfterFunc(130*time.Millisecond, other.Kill)
			}
		},
		"one hangs": func(h *host, epoch int) {
			if epoch == 2 {
				h.live[2].SignalLeader(syscall.SIGSTOP)
			}
		},
		"killed and replaced": func(h *host, epoch int) {
			if epoch == 2 {
				h.live[2].Kill()
				h.start(1, true)
			}
		},
		"one leaves, two come": func(h *host, epoch int) {
			switch epoch {
			case 1:
				h.live[h.lowest()].Send(trainerproto.Control{Verdict: "leave"})
			case 2:
				h.start(2, true)
			}
		},
		"one is asked to end": func(h *host, epoch int) {
			if epoch == 2 {
				h.live[2].SignalLeader(syscall.SIGTERM)
			}
		},
		"no host acknowledges, the reporting ones are killed": func(h *host, epoch int) {
			h.acks = false
			if epoch < 3 {
				h.live[h.lowest()].Kill()
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, slow, 8)
			h.after = after
			h.start(3, false)
			h.run()
			h.whole(5)
			if len(h.views) < 2 {
				t.Errorf("views %+v", h.views)
			}
		})
	}
}

// A pause of one is a pause of all, with the checkpoint of the last whole epoch,
// from which any number continues.
func TestMembersPauseAndContinue(t *testing.T) {
	h := newHost(t, `{"epochs":5,"epoch_seconds":0.2,"checkpoint_every":4}`, 8)
	h.after = func(h *host, epoch int) {
		if epoch == 2 {
			h.live[2].Send(trainerproto.Control{Verdict: "pause"})
		}
	}
	h.start(3, false)
	h.run()
	if h.ends[1] != trainerproto.DonePaused || h.ends[2] != trainerproto.DoneLeft || h.ends[3] != trainerproto.DoneLeft || h.kept != h.reported || h.kept < 2 || h.kept > 3 {
		t.Fatalf("ends %v, reported %d, kept %d", h.ends, h.reported, h.kept)
	}
	h.job.Resume, h.job.ResumeEpoch, h.after = filepath.Join(h.job.Dir, fmt.Sprintf("epoch-%04d.sim", h.kept)), h.kept, nil
	h.ends = map[int]string{}
	h.start(2, false)
	h.run()
	h.job.Resume, h.job.ResumeEpoch = "", 0
	h.whole(5)
}

// Faults that are asked for are of all members, or of one.
func TestMembersFail(t *testing.T) {
	h := newHost(t, `{"epochs":4,"epoch_seconds":0.1,"nan_at_epoch":2}`, 4)
	h.start(2, false)
	h.run()
	if h.ends[1] != trainerproto.FailedDiverged || !slices.Equal(h.epochs, upTo(2)) {
		t.Errorf("diverged: %v, reported %v", h.ends, h.epochs)
	}
	h = newHost(t, `{"epochs":4,"epoch_seconds":0.1,"crash_signal":9,"fail_at_epoch":2,"fail_member":1}`, 4)
	h.start(3, false)
	h.run()
	h.job.Training = json.RawMessage(`{"epochs":4,"epoch_seconds":0}`)
	h.whole(4)
	if !strings.Contains(h.ends[1], "killed") {
		t.Errorf("ends %v", h.ends)
	}
	h = newHost(t, `{"epochs":4,"epoch_seconds":0.1,"fail_class":"out_of_memory"}`, 4)
	h.start(2, false)
	h.run()
	if h.ends[1] != trainerproto.FailedOutOfMemory || h.ends[2] != trainerproto.FailedOutOfMemory {
		t.Errorf("ends %v", h.ends)
	}
}

// Members of another training are refused, by name.
func TestMembersOfOtherTrainings(t *testing.T) {
	h := newHost(t, `{"epochs":4,"epoch_seconds":0.1}`, 4)
	h.start(1, false)
	// The second one's job is another: it is given by hand, to see both sides.
	h.job.Seed++
	h.start(1, true)
	h.run()
	if h.ends[1] != trainerproto.DoneFinished || h.ends[2] != trainerproto.FailedCutOff {
		t.Errorf("ends %v", h.ends)
	}
}
