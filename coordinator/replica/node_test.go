package replica_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
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
	written := func() (sum int32) {
		for n := range acked {
			sum += acked[n].Load()
		}
		return sum
	}
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
						// Of a leader that was elected a moment ago on a busy machine the time may be over before anything is written.
						if !isNotLeader(err) && !errors.Is(err, replica.ErrUnknown) && !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("propose: %v", err)
						}
						continue
					}
					// A repeat after ErrUnknown may find the first one written.
					if o := r.Events[0].Outcome; o != trial.OutcomeRecorded && o != trial.OutcomeAlready {
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
		from := written()
		c.eventually("the writers are at work", func() bool { return written() >= from+50 })
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
		t.Error("leadership went to no member")
	}
	if err := to.Transfer(c.ctx(), ""); err != nil {
		t.Error(err)
	}
	c.write(createSweep("s-a"))
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
