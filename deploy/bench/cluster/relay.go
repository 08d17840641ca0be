package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
	"atelier/deploy/bench/harness"

	"golang.org/x/sync/errgroup"
	"sync/atomic"
)

// relay: durable reports a second with one report a call, beside commits a
// second of the bare raft library, in turn.
func (b *bench) relay(ctx context.Context) error {
	seconds := b.size(5, 1)
	bare := filepath.Join(b.Dir, "bare-raft")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bare, "./coordinator/replica/bench").CombinedOutput(); err != nil {
		return fmt.Errorf("build of the bare raft program: %w: %s", err, out)
	}
	for _, clients := range []int{1, 64, 256} {
		var ours, theirs []float64
		var last relayFigure
		for range b.size(3, 1) {
			f, err := relayOnce(ctx, b, clients, time.Duration(seconds)*time.Second)
			if err != nil {
				return err
			}
			r, err := bareRaft(ctx, bare, clients, seconds)
			if err != nil {
				return err
			}
			ours, theirs, last = append(ours, f.perSecond), append(theirs, r), f
			b.Say("%4d clients: %.0f reports/s over the API, %.0f commits/s bare", clients, f.perSecond, r)
		}
		o, t := harness.Median(ours), harness.Median(theirs)
		b.figure("relay", map[string]any{"clients": clients, "reports_per_s": o, "p50_ms": last.p50, "p99_ms": last.p99,
			"bare_raft_per_s": t, "ratio": o / t, "all_reports_per_s": ours, "all_bare_per_s": theirs})
	}
	return nil
}

type relayFigure struct{ perSecond, p50, p99 float64 }

func relayOnce(ctx context.Context, b *bench, clients int, d time.Duration) (relayFigure, error) {
	dir, err := os.MkdirTemp(b.Dir, "relay-")
	if err != nil {
		return relayFigure{}, err
	}
	cluster, err := local.Start(ctx, local.Config{Dir: dir, BinDir: b.Bin, Coordinators: 3})
	if err != nil {
		return relayFigure{}, err
	}
	defer cluster.Close()
	l, held, err := newHolder(ctx, cluster.APIAddrs(), clients, clients)
	if err != nil {
		return relayFigure{}, err
	}
	warm := time.Now().Add(time.Second)
	from, until := warm, warm.Add(d)
	var mu sync.Mutex
	var took []time.Duration
	var g errgroup.Group
	for _, lease := range held {
		g.Go(func() error {
			mine := make([]time.Duration, 0, 1<<14)
			for epoch := 1; ; epoch++ {
				t := time.Now()
				if t.After(until) {
					break
				}
				if err := l.relay(ctx, report(lease, epoch)); err != nil {
					return err
				}
				if t.After(from) {
					mine = append(mine, time.Since(t))
				}
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return relayFigure{}, err
	}
	return relayFigure{float64(len(took)) / d.Seconds(), percentile(took, 0.5), percentile(took, 0.99)}, nil
}

// newHolder makes a sweep and takes n of its leases.
func newHolder(ctx context.Context, addrs []string, n, parallelism int) (*load, []*trial.Lease, error) {
	l := newLoad(addrs, "load")
	h := &leases{held: map[int64]trial.LeaseRef{}}
	if err := l.heartbeat(ctx, h); err != nil {
		return nil, nil, err
	}
	if _, err := l.openSweep(ctx, n, parallelism); err != nil {
		return nil, nil, err
	}
	held := make([]*trial.Lease, n)
	var g errgroup.Group
	g.SetLimit(64)
	for i := range held {
		g.Go(func() (err error) {
			if held[i], err = l.acquire(ctx, fmt.Sprintf("slot%d", i)); err == nil {
				h.add(held[i])
			}
			return err
		})
	}
	return l, held, g.Wait()
}

func bareRaft(ctx context.Context, bin string, clients, seconds int) (float64, error) {
	cmd := exec.CommandContext(ctx, bin, "-clients", fmt.Sprint(clients), "-seconds", fmt.Sprint(seconds), "-stores", "raft-wal", "-what", "bare")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("bare raft: %w", err)
	}
	var f struct {
		CommitsPerS float64 `json:"writes_per_s"`
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return 0, fmt.Errorf("bare raft printed %.200q: %w", out, err)
	}
	if f.CommitsPerS == 0 {
		return 0, errors.New("bare raft measured nothing")
	}
	return f.CommitsPerS, nil
}

// failover: the leader is killed while one client reports without pause;
// from the kill to the first report acknowledged after it.
func (b *bench) failover(ctx context.Context) error {
	cluster, err := local.Start(ctx, local.Config{Dir: filepath.Join(b.Dir, "failover"), BinDir: b.Bin, Coordinators: 3})
	if err != nil {
		return err
	}
	defer cluster.Close()
	l, held, err := newHolder(ctx, cluster.APIAddrs(), 1, 1)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var acked atomic.Int64 // when the last acknowledged report was sent, Unix ns
	done := make(chan error, 1)
	go func() {
		for epoch := 1; ctx.Err() == nil; epoch++ {
			sent := time.Now()
			if err := l.relay(ctx, report(held[0], epoch)); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			acked.Store(max(acked.Load(), sent.UnixNano()))
			time.Sleep(time.Millisecond)
		}
		done <- nil
	}()
	var gaps []time.Duration
	for range b.size(20, 2) {
		time.Sleep(2 * time.Second)
		if err := cluster.AwaitVoters(ctx, 3); err != nil {
			stop()
			return err
		}
		leader, err := cluster.Leader(ctx)
		if err != nil {
			stop()
			return err
		}
		gap, err := killAndWait(ctx, leader, &acked, done)
		if err != nil {
			stop()
			return err
		}
		gaps = append(gaps, gap)
		b.Say("killed %s: next acknowledged report after %.0f ms", leader.Name, float64(gap.Microseconds())/1000)
		if err := leader.Start(ctx); err != nil {
			stop()
			return err
		}
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	b.figure("failover", map[string]any{"kills": len(gaps), "p50_ms": percentile(gaps, 0.5), "p99_ms": percentile(gaps, 0.99), "max_ms": percentile(gaps, 1)})
	return nil
}

// killAndWait returns the time from the kill until a report sent after it is
// acknowledged, which only a later leader can do.
func killAndWait(ctx context.Context, leader *local.Process, acked *atomic.Int64, done <-chan error) (time.Duration, error) {
	if err := leader.Kill(); err != nil {
		return 0, err
	}
	killed := time.Now()
	for {
		select {
		case err := <-done:
			return 0, fmt.Errorf("reporting ended: %w", err)
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
		if acked.Load() > killed.UnixNano() {
			return time.Since(killed), nil
		}
	}
}
