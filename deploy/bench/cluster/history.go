package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"

	"golang.org/x/sync/errgroup"
)

// history: what a large history costs: memory of a coordinator, the time a
// killed one needs to serve again from its disk, and a leaderboard query.
func (b *bench) history(ctx context.Context) error {
	trials, reports := b.size(100_000, 2_000), 10
	cluster, err := local.Start(ctx, local.Config{Dir: filepath.Join(b.Dir, "history"), BinDir: b.Bin, Coordinators: 3})
	if err != nil {
		return err
	}
	defer cluster.Close()
	start := time.Now()
	id, err := fill(ctx, b, cluster, trials, reports)
	if err != nil {
		return err
	}
	filled := time.Since(start)
	if _, err := waitSweep(ctx, cluster.Client(), id, nil); err != nil {
		return err
	}
	resident := memory(cluster.Coordinators)
	var queries []time.Duration
	for range 50 {
		t := time.Now()
		r, err := cluster.Client().Leaderboard(ctx, id, 20, false, client.From{Source: "state"})
		if err != nil {
			return err
		}
		if len(r.Rows) != 20 {
			return fmt.Errorf("leaderboard of %d rows", len(r.Rows))
		}
		queries = append(queries, time.Since(t))
	}
	leader, err := cluster.Leader(ctx)
	if err != nil {
		return err
	}
	var node *local.Process
	for _, p := range cluster.Coordinators {
		if p != leader {
			node = p
		}
	}
	restart, err := restartTime(ctx, cluster, node)
	if err != nil {
		return err
	}
	b.figure("history", map[string]any{"trials": trials, "reports": trials * reports, "fill_seconds": filled.Seconds(),
		"coordinator_rss_mib": resident >> 20, "restarted_rss_mib": memory([]*local.Process{node}) >> 20,
		"restart_seconds": restart.Seconds(), "leaderboard_p50_ms": percentile(queries, 0.5), "leaderboard_p99_ms": percentile(queries, 0.99)})
	return nil
}

func fill(ctx context.Context, b *bench, cluster *local.Cluster, trials, reports int) (string, error) {
	l := newLoad(cluster.APIAddrs(), "load")
	h := &leases{held: map[int64]trial.LeaseRef{}}
	if err := l.heartbeat(ctx, h); err != nil {
		return "", err
	}
	const open = 64
	id, err := l.openSweep(ctx, trials, 4*open)
	if err != nil {
		return "", err
	}
	var g errgroup.Group
	for i := range open {
		g.Go(func() error {
			for n := i; n < trials; n += open {
				lease, err := l.acquire(ctx, fmt.Sprintf("slot%d", i))
				if err != nil {
					return err
				}
				h.add(lease)
				events := make([]trial.Event, 0, reports+1)
				for e := 1; e <= reports; e++ {
					events = append(events, report(lease, e))
				}
				if err := l.relay(ctx, append(events, ended(lease))...); err != nil {
					return err
				}
				h.drop(lease.Trial)
				if i == 0 && n%(open*100) == 0 {
					b.Say("%d of %d trials filled", n, trials)
				}
			}
			return nil
		})
	}
	return id, g.Wait()
}

// restartTime kills a coordinator and returns how long it takes, from the start
// of its process, to have applied what the cluster had committed by then.
func restartTime(ctx context.Context, cluster *local.Cluster, p *local.Process) (time.Duration, error) {
	before, err := cluster.Client().Node(ctx, p.Addr)
	if err != nil {
		return 0, err
	}
	if err := p.Kill(); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := p.Start(ctx); err != nil {
		return 0, err
	}
	for {
		r, err := cluster.Client().Node(ctx, p.Addr)
		if err == nil && r.AppliedIndex >= before.AppliedIndex {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// rss is the resident memory of a process, in bytes.
func rss(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, fmt.Errorf("statm of %d: %q", pid, b)
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}
