package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

// boardCluster is one of the clusters whose leaderboard is asked for.
type boardCluster struct {
	name    string
	cluster *local.Cluster
	sweep   string
	near    *client.Client // a follower alone
	took    []time.Duration
	redis   int // answers from Redis
}

// boards: a leaderboard over the API of a follower with Redis, while four
// trials report: this build beside another one, calls in turn.
func (b *bench) boards(ctx context.Context) error {
	if b.base == "" {
		return errors.New("give the folder of another build's programs: --base FOLDER")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var both []*boardCluster
	for _, build := range []struct{ name, bin string }{{"this", b.Bin}, {"base", b.base}} {
		c, err := startBoards(ctx, b, build.name, build.bin)
		if err != nil {
			return fmt.Errorf("%s: %w", build.name, err)
		}
		defer c.cluster.Close()
		both = append(both, c)
	}
	if err := harness.Turns(b.size(500, 5), len(both), func(_, side int) error {
		c := both[side]
		began := time.Now()
		r, err := c.near.Leaderboard(ctx, c.sweep, 20, false, client.From{})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.took = append(c.took, time.Since(began))
		if r.Source == "redis" {
			c.redis++
		}
		return nil
	}); err != nil {
		return err
	}
	for _, c := range both {
		b.figure("boards", map[string]any{"build": c.name, "calls": len(c.took), "from_redis": c.redis,
			"p50_ms": percentile(c.took, 0.5), "p90_ms": percentile(c.took, 0.9), "max_ms": percentile(c.took, 1)})
	}
	b.figure("boards", map[string]any{"p50_ratio": percentile(both[0].took, 0.5) / percentile(both[1].took, 0.5)})
	return nil
}

// startBoards fills a sweep and leaves four trials of it reporting, ten times a
// second each, until ctx ends.
func startBoards(ctx context.Context, b *bench, name, bin string) (*boardCluster, error) {
	cluster, err := local.Start(ctx, local.Config{Dir: filepath.Join(b.Dir, "boards-"+name), BinDir: bin, Coordinators: 3, Redis: true})
	if err != nil {
		return nil, err
	}
	c := &boardCluster{name: name, cluster: cluster}
	fail := func(err error) (*boardCluster, error) { return nil, errors.Join(err, cluster.Close()) }
	leader, err := cluster.Leader(ctx)
	if err != nil {
		return fail(err)
	}
	for _, p := range cluster.Coordinators {
		if p != leader {
			c.near = client.New([]string{p.Addr}, client.WithoutFollowing())
		}
	}
	l := newLoad(cluster.APIAddrs(), "load")
	h := &leases{held: map[int64]trial.LeaseRef{}}
	if err := l.heartbeat(ctx, h); err != nil {
		return fail(err)
	}
	const open = 4
	full := b.size(100, 10)
	if c.sweep, err = l.openSweep(ctx, full+open, 2*open); err != nil {
		return fail(err)
	}
	for n := range full + open {
		lease, err := l.acquire(ctx, fmt.Sprint("slot", n%open))
		if err != nil {
			return fail(err)
		}
		events := []trial.Event{report(lease, 1)}
		if n < full {
			events = append(events, ended(lease))
		}
		if err := l.relay(ctx, events...); err != nil {
			return fail(err)
		}
		if n < full {
			continue
		}
		h.add(lease)
		go func() {
			for epoch := 2; l.relay(ctx, report(lease, epoch)) == nil; epoch++ {
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}()
	}
	return c, nil
}
