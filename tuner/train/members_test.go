package train_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/tuner/session"
	"atelier/tuner/train"
)

// grouped is a pretended member of a group. How far the training is it learns from
// control lines, as a real one does from the others.
type grouped struct {
	mu             sync.Mutex
	self           int
	live           []int
	conns          []net.Conn
	reported, kept int
	ended          bool // whoever reports has finished
	views          int
	changed        chan bool
	send           func(trainerproto.Event)
}

// joinGroup waits until the member is the one that reports, the lowest whose links
// are open. over reports that it is not to any more.
func joinGroup(job trainerproto.Job, in *trainerproto.Reader, send func(trainerproto.Event)) (g *grouped, over bool) {
	g = &grouped{self: job.Group.Member, reported: job.ResumeEpoch, kept: job.ResumeEpoch, changed: make(chan bool, 100), send: send}
	go func() {
		for range time.Tick(trainerproto.AlivePause) {
			send(trainerproto.Event{Kind: trainerproto.EventAlive})
		}
	}()
	for _, m := range job.Group.Members {
		g.live = append(g.live, m.Member)
	}
	go g.takeLinks(job.Group.Token)
	go func() {
		for {
			c, err := in.Control()
			if err != nil {
				os.Exit(3)
			}
			g.mu.Lock()
			g.reported, g.kept = max(g.reported, c.Reported), max(g.kept, c.Kept)
			g.mu.Unlock()
			if c.Verdict == "pause" {
				send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: trainerproto.DonePaused})
				os.Exit(0)
			}
		}
	}()
	for {
		g.mu.Lock()
		first, ended := g.self == slices.Min(g.live), g.ended
		if first {
			g.view()
		}
		g.mu.Unlock()
		switch {
		case ended:
			send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: trainerproto.DoneLeft})
			return g, true
		case first:
			time.Sleep(100 * time.Millisecond) // for control lines on their way
			return g, false
		}
		<-g.changed
	}
}

func (g *grouped) view() {
	g.views++
	g.send(trainerproto.Event{Kind: trainerproto.EventView, View: &trainerproto.View{Number: 100*g.self + g.views, Members: slices.Sorted(slices.Values(g.live)), Reason: "changed"}})
}

func (g *grouped) takeLinks(token uint64) {
	r := links.NewReceiver(os.NewFile(trainerproto.LinksFD, "links"))
	for {
		l, err := r.Next()
		if err != nil {
			return
		}
		if l.Token != token || l.Member == g.self || !l.Local {
			g.send(trainerproto.Event{Kind: "failed", Class: "bad_spec", Message: fmt.Sprintf("link %+v", l.Header)})
			os.Exit(1)
		}
		g.mu.Lock()
		g.conns = append(g.conns, l.Conn)
		if !slices.Contains(g.live, l.Member) {
			g.live = append(g.live, l.Member)
			if g.self == slices.Min(g.live) {
				g.view()
			}
		}
		g.mu.Unlock()
		go func() {
			b, _ := io.ReadAll(l.Conn)
			g.mu.Lock()
			g.live = slices.DeleteFunc(g.live, func(m int) bool { return m == l.Member })
			g.ended = g.ended || len(b) > 0
			g.mu.Unlock()
			g.changed <- true
		}()
	}
}

// finish tells the others that the training is at its end.
func (g *grouped) finish() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Write([]byte("end"))
	}
}

// together trains with members on a machine of two cores.
func together(t *testing.T, ctx context.Context, p *train.Plan, fake string, w *watcher) (*train.Result, error) {
	t.Helper()
	if err := p.Divide(train.Machine{Cores: 2}); err != nil {
		t.Fatal(err)
	}
	return local(t, ctx, p, fake, w)
}

// whole is what a training comes to that nothing happens to.
func same(t *testing.T, r *train.Result, whole *train.Result) {
	t.Helper()
	for _, f := range []string{"best_model.pth", "final_model.pth"} {
		if got, want := weight(t, filepath.Join(r.Folder, f)), weight(t, filepath.Join(whole.Folder, f)); got != want {
			t.Errorf("%s: %v, of one trainer %v", f, got, want)
		}
	}
	h, err := train.ReadHistory(filepath.Join(r.Folder, "training_history.json"))
	if err != nil || !slices.Equal(h.Epochs, whole.History.Epochs) || !slices.Equal(h.ValLoss, whole.History.ValLoss) || h.Status != train.Finished {
		t.Errorf("history %+v, %v", h, err)
	}
}

// A member that is lost, however, costs the training nothing: another takes its
// place, and each epoch is recorded once.
func TestMembersAreReplaced(t *testing.T) {
	base := folders(t)
	whole, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=whole"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for fake, lost := range map[string]string{
		"":                "",
		"killed@2":        "member 1 was killed from outside (SIGKILL); the other 2 continue",
		"abort@1":         "member 1 ended (exit status 134); the other 2 continue",
		"between@3":       "member 1 was killed from outside (SIGKILL); the other 2 continue",
		"hangs@4":         "member 1 did not answer and was ended; the other 2 continue",
		"out_of_memory@2": "member 1 failed (out of memory: it went wrong in epoch 2); the other 2 continue",
	} {
		t.Run(fake, func(t *testing.T) {
			w := &watcher{}
			r, err := together(t, t.Context(), plan(t, base, "checkpoints_dir="+fake+"x", "members=3"), fake, w)
			if err != nil {
				t.Fatal(err)
			}
			same(t, r, whole)
			took := slices.Contains(w.lines, "member 4 takes part")
			if lost == "" && (took || len(w.lines) != 6) || lost != "" && (!slices.Contains(w.lines, lost) || !took) {
				t.Errorf("shown %q", w.lines)
			}
			if n := strings.Count(strings.Join(w.said, "\n"), "packing"); n != 1 {
				t.Errorf("what each member says before the first step is shown %d times", n)
			}
			text, err := os.ReadFile(filepath.Join(r.Folder, "training_diagnostics.txt"))
			if err != nil || !strings.Contains(string(text), "3, of 1 thread each") || !strings.Contains(string(text), lost) {
				t.Errorf("diagnostics %s, %v", text, err)
			}
			if n := strings.Count(string(text), "image skipped"); n != 1 {
				t.Errorf("a warning that all have is listed %d times", n)
			}
		})
	}
}

// A trainer that is lost before it has reported anything is one member less at the
// start, and no end of the others.
func TestMembersBeginWithoutOne(t *testing.T) {
	base := folders(t)
	whole, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=whole"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{}
	r, err := together(t, t.Context(), plan(t, base, "members=3"), "absent@"+filepath.Join(t.TempDir(), "once"), w)
	if err != nil {
		t.Fatal(err)
	}
	same(t, r, whole)
	if !slices.ContainsFunc(w.lines, func(l string) bool {
		return strings.HasPrefix(l, "no trainer could be started in place ") && strings.Contains(l, "; the other 2 continue: ") && strings.Contains(l, "signal: killed")
	}) {
		t.Errorf("shown %q", w.lines)
	}
	for _, pid := range children(t) {
		t.Errorf("process %d is left", pid)
	}
}

// The reporting member is lost in each epoch: after a few replacements the others
// continue without, and when the last one is lost the training ends, to be resumed
// with any number of members.
func TestMembersRunOut(t *testing.T) {
	base := folders(t)
	whole, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=whole"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{}
	r, err := together(t, t.Context(), plan(t, base, "members=2"), "every@3", w)
	var f *session.Failure
	if !errors.As(err, &f) || !f.Killed || f.Class != trainerproto.FailedOutOfMemory || len(r.History.Epochs) != 2 {
		t.Fatalf("%v, %+v", err, r.History)
	}
	if !slices.Contains(w.lines, "3 members were replaced within 1m0s: no further one for now") || !slices.Contains(w.lines, "member 4 was killed from outside (SIGKILL); the other one continues") {
		t.Errorf("shown %q", w.lines)
	}
	for _, members := range []string{"1", "2"} {
		p := resume(t, base, r.Folder, "members="+members)
		if members == "1" {
			if r, err = together(t, t.Context(), p, "killed@4", nil); err == nil || len(r.History.Epochs) != 3 {
				t.Fatalf("%v, %+v", err, r.History)
			}
			continue
		}
		if r, err = together(t, t.Context(), p, "", nil); err != nil {
			t.Fatal(err)
		}
		if p.Settings.Shards != 2 || p.Settings.ShardThreads != 1 {
			t.Errorf("resumed with %d shards of %d threads", p.Settings.Shards, p.Settings.ShardThreads)
		}
	}
	same(t, r, whole)
}

// What all members share ends all of them; an interrupt pauses them.
func TestMembersEndTogether(t *testing.T) {
	base := folders(t)
	w := &watcher{}
	r, err := together(t, t.Context(), plan(t, base, "checkpoints_dir=a", "members=2"), "diverged@3", w)
	var f *session.Failure
	if !errors.As(err, &f) || f.Class != trainerproto.FailedDiverged || r.History.Status != train.Diverged || len(w.lines) != 3 {
		t.Errorf("%v, %q", err, w.lines)
	}
	if _, err := together(t, t.Context(), plan(t, base, "checkpoints_dir=b", "members=2"), "mute", nil); err == nil || !strings.Contains(err.Error(), "libtorch.so") {
		t.Errorf("trainers that do not start: %v", err)
	}
	if _, err := together(t, t.Context(), plan(t, base, "checkpoints_dir=b", "members=2"), "old", nil); err == nil || !strings.Contains(err.Error(), "does not train in groups") {
		t.Errorf("trainers that know no groups: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err = together(t, ctx, plan(t, base, "checkpoints_dir=c", "members=2"), "", &watcher{after: func(epoch int) {
		if epoch == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, session.ErrInterrupted) || r.History.Status != train.Interrupted {
		t.Fatalf("%v, %+v", err, r.History)
	}
	if r, err = together(t, t.Context(), resume(t, base, r.Folder), "", nil); err != nil {
		t.Fatal(err)
	}
	whole, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=whole"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, r, whole)
	for _, pid := range children(t) {
		t.Errorf("process %d is left", pid)
	}
}

// children are the processes that this one has.
func children(t *testing.T) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var state string
		var parent, pid int
		_, after, _ := strings.Cut(string(b), ") ")
		fmt.Sscan(after, &state, &parent)
		if fmt.Sscan(string(b), &pid); parent == syscall.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// How a training is shared out over a machine, and what is refused.
func TestDivide(t *testing.T) {
	base := folders(t)
	for _, x := range []struct {
		settings string
		machine  train.Machine
		members  int
		threads  int // of each
		shards   int
		note     string // "" = none of these
		fault    string
	}{
		{"", train.Machine{Cores: 4}, 1, 1, 1, "", ""},
		{"members=2", train.Machine{Cores: 2}, 2, 1, 2, "", ""},
		{"members=2 threads=8", train.Machine{Cores: 8}, 2, 1, 2, "2 of 8 cores are used: 2 members of 1 thread; --set shard_threads=4 uses 8, for another result in the last digits", ""},
		{"members=3 threads=4", train.Machine{Cores: 4}, 3, 1, 4, "3 of 4 cores are used: 3 members of 1 thread (--members)", ""},
		{"members=4", train.Machine{Cores: 2}, 4, 1, 4, "warning: 4 members on 2 cores: each has a part of a core", ""},
		{"members=2 shard_threads=3", train.Machine{Cores: 4}, 2, 3, 2, "warning: 2 members of 3 threads on 4 cores", ""},
		{"members.max=8 threads=3", train.Machine{Cores: 3}, 3, 1, 8, "", ""},
		{"members=1-8 threads=2", train.Machine{Cores: 2}, 2, 1, 8, "", ""},
		{"shards=2 threads=2", train.Machine{Cores: 2}, 1, 1, 2, "1 of 2 cores are used", ""},
		{"members=2 device=auto", train.Machine{Cores: 2, GPUs: 4}, 2, 1, 2, "", ""},
		{"members=1-8 device=cuda", train.Machine{Cores: 2, GPUs: 2}, 2, 1, 8, "2 members, a GPU each, of up to 8", ""},
		{"members=4 device=auto", train.Machine{Cores: 8, GPUs: 2}, 0, 0, 0, "", "--set members: 4 members, and this machine has 2 GPUs"},
		{"members=2 device=cuda:1", train.Machine{Cores: 8, GPUs: 2}, 0, 0, 0, "", "device names one (cuda:1)"},
	} {
		p := plan(t, base, strings.Fields(x.settings)...)
		err := p.Divide(x.machine)
		if x.fault != "" {
			if err == nil || !strings.Contains(err.Error(), x.fault) {
				t.Errorf("%s: %v, want %s", x.settings, err, x.fault)
			}
			continue
		}
		if err != nil || p.Members() != x.members || p.TrainerThreads() != x.threads || p.Settings.Shards != x.shards {
			t.Errorf("%s: %d members of %d threads, %d shards, %v", x.settings, p.Members(), p.TrainerThreads(), p.Settings.Shards, err)
		}
		if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, x.note) || x.note == "" && strings.Contains(notes, "member") {
			t.Errorf("%s: notes %q", x.settings, notes)
		}
		if p.Settings.Shards > 1 && (!strings.Contains(string(p.Training), fmt.Sprintf(`"shards":%d`, x.shards)) || !strings.Contains(string(p.Training), fmt.Sprintf(`"shard_threads":%d`, x.threads))) {
			t.Errorf("%s: not in the training's settings: %s", x.settings, p.Training)
		}
	}
}
