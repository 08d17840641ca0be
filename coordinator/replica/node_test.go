package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// TestLeaderKilled kills leaders under load, three times: writes go on, and every
// acknowledged report is on every node in the end, once.
func TestLeaderKilled(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.write(createSweep("s-a"))
	const writers = 8
	tokens := make([]uint64, writers+1)
	for n := int64(1); n <= writers; n++ {
		c.write(propose("s-a", n))
		tokens[n] = c.write(grantLease("s-a", n)).Token
	}

	// The writers see only a list of nodes, as clients do.
	var mu sync.RWMutex
	var nodes []*member
	show := func() {
		mu.Lock()
		defer mu.Unlock()
		nodes = nil
		for _, m := range c.nodes {
			nodes = append(nodes, m)
		}
	}
	show()
	var acked [writers + 1]atomic.Int32
	var lastAck atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := int64(1); n <= writers; n++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for epoch := int32(1); ; {
				select {
				case <-stop:
					return
				default:
				}
				mu.RLock()
				list := slices.Clone(nodes)
				mu.RUnlock()
				done := false
				for _, m := range list {
					if !m.IsLeader() {
						continue
					}
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					r, err := m.Propose(ctx, report("s-a", n, tokens[n], epoch))
					cancel()
					if err != nil {
						if !isNotLeader(err) && !errors.Is(err, replica.ErrUnknown) {
							t.Errorf("propose: %v", err)
						}
						continue
					}
					// A repeat after ErrUnknown may find the first one written.
					if o := r.Events[0].Outcome; o != atelierv1.Outcome_OUTCOME_RECORDED && o != atelierv1.Outcome_OUTCOME_ALREADY {
						t.Errorf("trial %d epoch %d: %v", n, epoch, r.Events[0])
					}
					acked[n].Store(epoch)
					lastAck.Store(time.Now().UnixNano())
					done = true
					break
				}
				if done {
					epoch++
				} else {
					time.Sleep(2 * time.Millisecond)
				}
			}
		}()
	}
	var gaps []time.Duration
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		victim := c.leader()
		killed := time.Now()
		c.stop(victim.id)
		show()
		before := time.Now().UnixNano()
		c.eventually("an acknowledged write after the leader died", func() bool { return lastAck.Load() > before })
		gaps = append(gaps, time.Since(killed))
		c.start(victim.id, victim.addr, false)
		show()
	}
	close(stop)
	wg.Wait()
	c.agree()
	t.Logf("leader killed to next acknowledged write: %v", gaps)
	for _, m := range c.nodes {
		s, _ := m.machine.View().Sweep("s-a")
		for n := int64(1); n <= writers; n++ {
			if got, want := s.Trial(n).ReportCount(), int(acked[n].Load()); got < want || got > want+1 {
				t.Errorf("%s: trial %d has %d reports, %d were acknowledged", m.id, n, got, want)
			}
			if acked[n].Load() == 0 {
				t.Errorf("trial %d never got a report through", n)
			}
		}
	}
	for _, gap := range gaps {
		if gap > 10*time.Second {
			t.Errorf("%v from the leader's death to the next write", gap)
		}
	}
}

func TestRestartFromDisk(t *testing.T) {
	for _, store := range []replica.LogStore{replica.RaftWAL, replica.RaftBoltDB} {
		t.Run(string(store), func(t *testing.T) {
			c := newCluster(t, 1, func(cfg *replica.Config) {
				cfg.LogStore = store
				cfg.SnapshotThreshold = 50
				cfg.SnapshotInterval = 20 * time.Millisecond
				cfg.TrailingLogs = 10
			})
			first := c.leader()
			if first.HasState() {
				t.Error("a new node has a state")
			}
			for i := range 120 {
				c.write(createSweep(fmt.Sprintf("s-%d", i)))
			}
			c.eventually("the cluster's id", func() bool { return first.machine.View().ClusterID() == "test" })
			want := first.machine.View()
			c.stop("n1")
			again := c.start("n1", "", true) // another port, too
			if !again.HasState() {
				t.Error("a node with a log has no state")
			}
			c.leader()
			if got := again.machine.View(); got.Hash() != want.Hash() || len(got.Sweeps()) != 120 {
				t.Errorf("index %d with %d sweeps, was %d", got.Index(), len(got.Sweeps()), want.Index())
			}
			c.eventually("the new address in the configuration", func() bool {
				list := again.Configuration()
				return len(list) == 1 && list[0].Address == again.addr
			})
		})
	}
}

// TestLaggingNodeGetsASnapshot keeps a node away until the log it needs is gone.
// With raft-wal, entries before the first index can still be read until their
// 64 MiB segment goes, so that the test would need more than that.
func TestLaggingNodeGetsASnapshot(t *testing.T) {
	c := newCluster(t, 3, func(cfg *replica.Config) {
		cfg.LogStore = replica.RaftBoltDB
		cfg.SnapshotThreshold = 40
		cfg.SnapshotInterval = 20 * time.Millisecond
		cfg.TrailingLogs = 5
	})
	lagging := c.stop(c.follower().id)
	for i := range 200 {
		c.write(createSweep(fmt.Sprintf("s-%d", i)))
	}
	leader := c.leader()
	c.eventually("a snapshot beyond what the node has", func() bool { return leader.Stats().SnapshotIndex > 150 })
	back := c.start(lagging.id, lagging.addr, false)
	c.agree()
	if got := back.Stats().Restores; got < 1 {
		t.Errorf("%d snapshots restored: the node was to be brought up by one", got)
	}
}

func TestTransfer(t *testing.T) {
	c := newCluster(t, 3, nil)
	from, to := c.leader(), c.follower()
	losses := from.LeaderCh()
	for len(losses) > 0 {
		<-losses
	}
	start := time.Now()
	if err := from.Transfer(c.ctx(), to.id); err != nil {
		t.Fatal(err)
	}
	if got := c.leader(); got.id != to.id {
		t.Errorf("%s leads, not %s", got.id, to.id)
	}
	t.Logf("transfer took %v", time.Since(start))
	select {
	case leads := <-losses:
		if leads {
			t.Error("a gain where a loss was due")
		}
	case <-time.After(5 * time.Second):
		t.Error("the loss was not told")
	}
	_, err := from.Propose(c.ctx(), createSweep("s-a"))
	var notLeader *replica.NotLeaderError
	if !errors.As(err, &notLeader) {
		t.Fatalf("a follower took a command: %v", err)
	}
	c.eventually("the old leader knows the new one", func() bool {
		id, addr := from.Leader()
		return id == to.id && addr == to.addr
	})
	if err := to.Transfer(c.ctx(), "n9"); err == nil {
		t.Error("leadership went to a node that is none")
	}
	if err := to.Transfer(c.ctx(), ""); err != nil {
		t.Error(err)
	}
	c.write(createSweep("s-a"))
}

func TestMembersComeAndGo(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.write(createSweep("s-a"))
	leader := c.leader()
	gone := c.follower()
	c.stop(gone.id)

	// It comes back elsewhere.
	moved := c.start(gone.id, "", false)
	if err := leader.AddMember(c.ctx(), moved.id, moved.addr); err != nil {
		t.Fatal(err)
	}
	c.agree()
	if list := leader.Configuration(); len(list) != 3 || !slices.Contains(list, replica.Server{ID: moved.id, Address: moved.addr, Voter: true}) {
		t.Errorf("configuration %v, want %s voting at %s", list, moved.id, moved.addr)
	}

	// Removed, it counts no more: two of two go on.
	if err := leader.RemoveMember(c.ctx(), moved.id); err != nil {
		t.Fatal(err)
	}
	if err := leader.RemoveMember(c.ctx(), moved.id); err == nil {
		t.Error("removed twice")
	}
	c.stop(moved.id)
	c.write(createSweep("s-b"))

	// A new node with a new id takes the place.
	fresh := c.start("n4", "", false)
	if err := leader.AddMember(c.ctx(), "n4", fresh.addr); err != nil {
		t.Fatal(err)
	}
	c.agree()

	// A node that cannot be reached stays without a vote and hinders nobody.
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := leader.AddMember(ctx, "n5", "127.0.0.1:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an unreachable member: %v", err)
	}
	if list := leader.Configuration(); !slices.Contains(list, replica.Server{ID: "n5", Address: "127.0.0.1:1"}) {
		t.Errorf("configuration %v, want n5 without a vote", list)
	}
	if err := leader.RemoveMember(c.ctx(), "n5"); err != nil {
		t.Error(err)
	}
	c.write(createSweep("s-c"))
	if err := fresh.AddMember(c.ctx(), "n6", "127.0.0.1:1"); !isNotLeader(err) {
		t.Errorf("a follower added a member: %v", err)
	}
}

// TestMinorityWritesNothing cuts a leader off by stopping both others.
func TestMinorityWritesNothing(t *testing.T) {
	c := newCluster(t, 3, nil)
	c.write(createSweep("s-a"))
	leader := c.leader()
	for _, id := range []string{"n1", "n2", "n3"} {
		if id != leader.id {
			c.stop(id)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if r, err := leader.Propose(ctx, createSweep("s-b")); err == nil {
		t.Errorf("one of three acknowledged a write: %+v", r)
	} else if !errors.Is(err, replica.ErrUnknown) && !isNotLeader(err) {
		t.Errorf("one of three: %v", err)
	}
	if err := leader.VerifyLeader(ctx); err == nil {
		t.Error("one of three is sure that it leads")
	}
}

func TestSaveAndRestoreSnapshot(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, id := range []string{"n1", "n2", "n3"} {
		c.write(member1(id))
	}
	c.write(createSweep("s-kept"))
	var saved bytes.Buffer
	if err := c.leader().SaveSnapshot(c.ctx(), &saved); err != nil {
		t.Fatal(err)
	}
	c.write(createSweep("s-later"))
	sub := c.follower().Subscribe(16)

	leader := c.leader()
	broken := bytes.Clone(saved.Bytes())
	if err := leader.RestoreSnapshot(c.ctx(), bytes.NewReader(broken[:len(broken)/2])); err == nil {
		t.Fatal("half a snapshot was restored")
	}
	if _, ok := leader.machine.View().Sweep("s-later"); !ok {
		t.Fatal("a refused snapshot changed the state")
	}
	if err := c.follower().RestoreSnapshot(c.ctx(), bytes.NewReader(broken)); !isNotLeader(err) {
		t.Errorf("a follower restored a snapshot: %v", err)
	}
	if err := leader.RestoreSnapshot(c.ctx(), bytes.NewReader(broken)); err != nil {
		t.Fatal(err)
	}
	c.agree()
	for _, m := range c.nodes {
		v := m.machine.View()
		_, kept := v.Sweep("s-kept")
		_, later := v.Sweep("s-later")
		if !kept || later || len(v.Members()) != 3 {
			t.Errorf("%s: kept %v, later %v, members %v", m.id, kept, later, v.Members())
		}
	}
	c.eventually("the subscription is told", sub.Lost)
	c.write(createSweep("s-after"))

	// Into another cluster, whose members stay its own.
	other := newCluster(t, 1, nil)
	other.write(member1("n1"))
	if err := other.leader().RestoreSnapshot(other.ctx(), &saved); err != nil {
		t.Fatal(err)
	}
	v := other.leader().machine.View()
	if _, ok := v.Sweep("s-kept"); !ok || len(v.Members()) != 1 {
		t.Errorf("members %v, sweeps %v", v.Members(), v.Sweeps())
	}
	want := v.Hash()
	other.stop("n1")
	other.start("n1", "", true)
	if other.leader().machine.View().Hash() != want {
		t.Error("after a restart the restored state is another")
	}
}

func TestSubscription(t *testing.T) {
	c := newCluster(t, 3, nil)
	follower := c.follower()
	wide, narrow := follower.Subscribe(1000), follower.Subscribe(1)
	for i := range 50 {
		c.write(createSweep(fmt.Sprintf("s-%02d", i)))
	}
	c.agree()
	var got []string
	last := uint64(0)
	for len(wide.C) > 0 {
		for _, change := range <-wide.C {
			if change.Index < last {
				t.Errorf("index %d after %d", change.Index, last)
			}
			last = change.Index
			if change.Kind == state.SweepCreated {
				got = append(got, change.Sweep)
			}
		}
	}
	if len(got) != 50 || !sort.StringsAreSorted(got) || wide.Lost() {
		t.Errorf("%d of 50 sweeps created were told, lost %v: %v", len(got), wide.Lost(), got)
	}
	if !narrow.Lost() || narrow.Lost() {
		t.Error("a full subscription is to say once that it lost changes")
	}
	wide.Close()
	if _, open := <-wide.C; open {
		t.Error("a closed subscription is open")
	}
	c.write(createSweep("s-z"))
}

// TestConcurrentCallersShareEntries checks group commit and that each caller gets
// its own answer.
func TestConcurrentCallersShareEntries(t *testing.T) {
	c := newCluster(t, 3, nil)
	leader := c.leader()
	before := leader.Stats()
	const callers = 300
	var wg sync.WaitGroup
	for i := range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			id := fmt.Sprintf("s-%d", i)
			r, err := leader.Propose(c.ctx(), createSweep(id))
			if err != nil || r.Err != nil || r.Sweep != id || r.Index == 0 {
				t.Errorf("%s: %+v, %v", id, r, err)
			}
		}()
	}
	wg.Wait()
	after := leader.Stats()
	if got := after.Commands - before.Commands; got != callers {
		t.Errorf("%d commands, want %d", got, callers)
	}
	if got := after.Entries - before.Entries; got > callers/3 {
		t.Errorf("%d commands went into %d entries", callers, got)
	}
	c.agree()

	// Too large a command is refused, and nobody else suffers.
	if _, err := leader.Propose(c.ctx(), &logv1.Command{RequestId: string(make([]byte, 5<<20))}); err == nil {
		t.Error("a command of 5 MiB was taken")
	}
	if _, err := leader.Propose(c.ctx(), &logv1.Command{RequestId: "\xff"}); err == nil {
		t.Error("a command with broken text was taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := leader.Propose(ctx, createSweep("s-x")); err == nil {
		t.Error("a cancelled call succeeded")
	}
	c.write(createSweep("s-y"))
}

// TestFolderBelongsToOneNode: a second process, another id or another log store
// in the same folder is refused with words that help.
func TestFolderBelongsToOneNode(t *testing.T) {
	c := newCluster(t, 1, nil)
	dir := filepath.Join(c.dir, "n1")
	open := func(id string, store replica.LogStore) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n, err := replica.Open(replica.Config{ID: id, DataDir: dir, Listener: l, Bootstrap: true, Machine: state.New(), LogStore: store})
		if err == nil {
			n.Shutdown(c.ctx())
		}
		l.Close()
		return err
	}
	if err := open("n1", replica.RaftWAL); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a folder in use: %v", err)
	}
	c.stop("n1")
	if err := open("n2", replica.RaftWAL); err == nil || !strings.Contains(err.Error(), `is of node "n1"`) {
		t.Errorf("another node's folder: %v", err)
	}
	if err := open("n1", replica.RaftBoltDB); err == nil || !strings.Contains(err.Error(), "raft-wal") {
		t.Errorf("another log store's folder: %v", err)
	}
	if err := open("n1", replica.RaftWAL); err != nil {
		t.Errorf("its own folder: %v", err)
	}
	if err := open("n1", "sqlite"); err == nil {
		t.Error("a log store that is none was taken")
	}
}
