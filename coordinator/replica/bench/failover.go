package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// Failover is the time from a leader's death to the next acknowledged write.
type Failover struct {
	What      string  `json:"what"`
	Kills     int     `json:"kills"`
	Heartbeat float64 `json:"heartbeat_timeout_ms"`
	P50ms     float64 `json:"p50_ms"`
	P99ms     float64 `json:"p99_ms"`
	MaxMs     float64 `json:"max_ms"`
}

// measureFailover stops the leader of three nodes without notice, again and
// again, and starts it anew from its disk each time.
func measureFailover(dir string, kills int, heartbeat time.Duration) (*Failover, error) {
	nodes := map[string]*replica.Node{}
	addresses := map[string]string{}
	open := func(id, addr string, bootstrap bool) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		n, err := replica.Open(replica.Config{ID: id, DataDir: filepath.Join(dir, id), Listener: l, Bootstrap: bootstrap, ClusterID: "bench", Machine: state.New(), HeartbeatTimeout: heartbeat, ElectionTimeout: heartbeat})
		if err != nil {
			return err
		}
		nodes[id], addresses[id] = n, l.Addr().String()
		return nil
	}
	defer func() {
		for _, n := range nodes {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			n.Shutdown(ctx)
			cancel()
		}
	}()
	count := 0
	write := func() (string, error) { // through whichever node leads
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			for id, n := range nodes {
				if !n.IsLeader() {
					continue
				}
				count++
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				_, err := n.Propose(ctx, &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: "m", RaftAddress: fmt.Sprint(count)}}})
				cancel()
				if err == nil {
					return id, nil
				}
			}
		}
		return "", fmt.Errorf("no write in 30 s")
	}
	for i, id := range []string{"n1", "n2", "n3"} {
		if err := open(id, "127.0.0.1:0", i == 0); err != nil {
			return nil, err
		}
		leader, err := write()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err := nodes[leader].AddMember(ctx, id, addresses[id])
			cancel()
			if err != nil {
				return nil, err
			}
		}
	}
	var took []time.Duration
	for range kills {
		time.Sleep(300 * time.Millisecond)
		leader, err := write()
		if err != nil {
			return nil, err
		}
		victim := nodes[leader]
		delete(nodes, leader)
		start := time.Now()
		go victim.Shutdown(context.Background())
		if _, err := write(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
		if err := victim.Shutdown(context.Background()); err != nil {
			return nil, err
		}
		for {
			if err = open(leader, addresses[leader], false); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return round(d.Seconds() * 1000) }
	return &Failover{"failover", kills, ms(heartbeat), ms(took[len(took)/2]), ms(took[len(took)*99/100]), ms(took[len(took)-1])}, nil
}
