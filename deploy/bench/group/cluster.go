package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

// machines is a cluster on this machine; its workers' trainers can be found.
type machines struct {
	*local.Cluster
	net *network // nil: all on the loopback
}

// startMachines starts coordinators and workers, which are warm when it returns.
func (b *bench) startMachines(ctx context.Context, name string, coordinators, workers, slots int, trainer string, net *network) (*machines, error) {
	dir, err := b.scratch(name)
	if err != nil {
		return nil, err
	}
	c := local.Config{Dir: dir, BinDir: b.Bin, Coordinators: coordinators, Workers: workers, SlotsPerWorker: slots, ThreadsPerSlot: 1,
		ExtraArgs: map[string][]string{"worker": {"--warm", trainer, "--trainer-bin", b.trainer()}}}
	if net != nil {
		if c.BinDir, err = net.programs(dir, b.Bin); err != nil {
			return nil, err
		}
		for _, h := range net.hosts {
			for _, name := range h.names {
				if strings.HasPrefix(name, "c") {
					c.ExtraArgs[name] = []string{"--insecure", "--api", h.addr + ":7600", "--raft", h.addr + ":7601", "--gossip", h.addr + ":7602"}
				} else {
					c.ExtraArgs[name] = []string{"--insecure", "--listen", h.addr + ":7610", "--gossip", h.addr + ":7612"}
				}
			}
		}
	}
	cluster, err := local.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	m := &machines{Cluster: cluster, net: net}
	return m, m.warm(ctx, slots)
}

// warm waits until a trainer stands by in each slot.
func (m *machines) warm(ctx context.Context, slots int) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ready := 0
		for _, w := range m.Workers {
			ready += len(trainersOf(w))
		}
		if ready >= slots*len(m.Workers) {
			time.Sleep(time.Second) // they have started; now they load their library
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%d trainers are ready after a minute, want %d; logs are in %s", ready, slots*len(m.Workers), m.Dir)
		}
	}
}

// process is a trainer of a worker.
type process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks since boot
	Slot    string `json:"slot"`
	Trainer string `json:"trainer"`
}

// trainersOf lists a worker's trainers that live, the oldest first.
func trainersOf(w *local.Process) (all []process) {
	names, _ := filepath.Glob(filepath.Join(w.Dir, "pids", "*.json"))
	for _, name := range names {
		var p process
		data, err := os.ReadFile(name)
		if err != nil || json.Unmarshal(data, &p) != nil || syscall.Kill(p.PID, 0) != nil {
			continue // ended meanwhile
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b process) int { return cmp.Compare(a.Start, b.Start) })
	return all
}

// inGroup reports whether a trainer is a member of a group at work: it has memory
// that it shares with others. One that stands by has none.
func (p process) inGroup() bool {
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
	return slices.ContainsFunc(open, func(fd string) bool {
		to, err := os.Readlink(fd)
		return err == nil && strings.HasPrefix(to, "/memfd:")
	})
}

// trainer is the process of a member; 0 where there is none.
func (m *machines) trainer(of trial.GroupMember) int {
	for _, w := range m.Workers {
		if w.Name != of.Worker {
			continue
		}
		for _, p := range trainersOf(w) {
			if p.Slot == of.Slot && p.inGroup() {
				return p.PID
			}
		}
	}
	return 0
}

// stoodBy reports whether the trainer of a member was there a second before its
// slot was granted.
func (m *machines) stoodBy(of trial.GroupMember) bool {
	pid := m.trainer(of)
	up, err := os.ReadFile("/proc/uptime")
	if pid == 0 || err != nil {
		return false
	}
	var seconds float64
	fmt.Sscan(string(up), &seconds)
	for _, w := range m.Workers {
		for _, p := range trainersOf(w) {
			if p.PID == pid {
				const tick = 100 // USER_HZ, what /proc counts in
				started := float64(time.Now().UnixMilli()) - 1000*(seconds-float64(p.Start)/tick)
				return started < float64(of.GrantedMS)-1000
			}
		}
	}
	return false
}

// worker is the process of a name.
func (m *machines) worker(name string) *local.Process {
	i := slices.IndexFunc(m.Workers, func(w *local.Process) bool { return w.Name == name })
	if i < 0 {
		return nil
	}
	return m.Workers[i]
}

// close ends the cluster, also stopped processes in it, and its network.
func (m *machines) close() {
	for _, w := range m.Workers {
		for _, p := range trainersOf(w) {
			_ = syscall.Kill(p.PID, syscall.SIGCONT)
		}
	}
	_ = m.Close()
	if m.net != nil {
		m.net.close()
	}
}

// follower looks at the one trial of a sweep again and again, and keeps each view
// that its runs ever had.
type follower struct {
	m     *machines
	sweep string

	mu      sync.Mutex
	last    *trial.Trial
	views   []seenView
	granted []grant
	waits   []float64 // shares of a step's time, as the workers show them
	steps   []float64 // seconds of a step
}

// seenView is a view of a run.
type seenView struct {
	Run int32 `json:"run"`
	trial.View
}

// follow begins to look at the sweep of a training, once it has one.
func (m *machines) follow(ctx context.Context, t *training) (*follower, error) {
	f := &follower{m: m}
	err := t.until("the sweep is made", time.Minute, func() bool {
		var r struct {
			Sweep string `json:"sweep"`
		}
		data, err := os.ReadFile(filepath.Join(t.out, "resume", "run.json"))
		f.sweep = r.Sweep
		if err == nil && json.Unmarshal(data, &r) == nil {
			f.sweep = r.Sweep
		}
		return f.sweep != ""
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for ctx.Err() == nil {
			f.look(ctx)
			select {
			case <-t.ended:
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
	}()
	return f, nil
}

// look takes the trial as it is now; without a leader it stays as it was.
func (f *follower) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	t, err := f.m.Client().Trial(ctx, f.sweep, 1)
	if err != nil {
		return
	}
	workers, _ := f.m.Client().Workers(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = t
	for _, r := range t.Runs {
		if r.Group == nil {
			continue
		}
		for _, g := range r.Group.Members {
			if !slices.ContainsFunc(f.granted, func(o grant) bool { return o.run == r.Number && o.ID == g.ID }) {
				f.granted = append(f.granted, grant{g, r.Number, f.m.stoodBy(g)})
			}
		}
		for _, v := range r.Group.Views {
			i := slices.IndexFunc(f.views, func(s seenView) bool { return s.Run == r.Number && s.Number == v.Number })
			if i < 0 {
				f.views = append(f.views, seenView{r.Number, v})
			} else {
				f.views[i].View = v // its pause is known later
			}
		}
	}
	for _, w := range workers {
		for _, s := range w.Slots {
			if s.Sweep == f.sweep && s.Pace != nil {
				f.waits, f.steps = append(f.waits, float64(s.Pace.Waiting)), append(f.steps, float64(s.Pace.Step))
			}
		}
	}
}

// now is the trial and its newest run; nil before the first.
func (f *follower) now() (*trial.Trial, *trial.Run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || len(f.last.Runs) == 0 {
		return f.last, nil
	}
	return f.last, &f.last.Runs[len(f.last.Runs)-1]
}

// present are the members of the newest view that still have the lease, by rank.
func (f *follower) present() (all []trial.GroupMember) {
	_, run := f.now()
	if run == nil || run.Group == nil || run.Group.View() == nil {
		return nil
	}
	for _, id := range run.Group.View().Members {
		if at := run.Group.At(id); at >= 0 {
			all = append(all, run.Group.Members[at])
		}
	}
	return all
}

// coming are the members that are granted and not yet in the newest view.
func (f *follower) coming() (all []trial.GroupMember) {
	_, run := f.now()
	if run == nil || run.Group == nil || run.Group.View() == nil {
		return nil
	}
	for _, g := range run.Group.Members {
		if !slices.Contains(run.Group.View().Members, g.ID) {
			all = append(all, g)
		}
	}
	return all
}

// seen are all views, in the order in which they were in force.
func (f *follower) seen() []seenView {
	f.mu.Lock()
	defer f.mu.Unlock()
	views := slices.Clone(f.views)
	slices.SortFunc(views, func(a, b seenView) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Number, b.Number))
	})
	return views
}

// shape is the number of members view by view: "1 4 2".
func shape(views []seenView) string {
	var words []string
	for _, v := range views {
		words = append(words, strconv.Itoa(len(v.Members)))
	}
	return strings.Join(words, " ")
}

// addresses of the API.
func (m *machines) addresses() []string { return m.APIAddrs() }

// reported is the trial's curve, epoch by epoch.
func (m *machines) reported(ctx context.Context, sweep string) (epochs []int, err error) {
	curve, err := m.Client().Curve(ctx, sweep, 1)
	for _, r := range curve {
		epochs = append(epochs, int(r.Epoch))
	}
	return epochs, err
}

// awaitRunning waits until so many trials of a sweep run.
func (m *machines) awaitRunning(ctx context.Context, sweep string, n int) error {
	for {
		s, err := m.Client().Sweep(ctx, sweep)
		if err != nil {
			return err
		}
		if int(s.Counts.Running) >= n {
			return nil
		}
		if s.Status.Over() {
			return fmt.Errorf("sweep %s ended: %s %s", sweep, s.Status, s.Failure)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d trials of sweep %s run, want %d: %w", s.Counts.Running, sweep, n, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cancel ends a sweep.
func (m *machines) cancel(ctx context.Context, sweep string) error {
	_, err := m.Client().Control(ctx, client.NewRequestID(), sweep, trial.ActionCancel)
	return err
}
