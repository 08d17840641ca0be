package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"atelier/common/client"
	"atelier/common/files"
	"atelier/common/gossip"
	"atelier/common/trial"
	"atelier/worker/agent"
)

// home is which cluster the worker's data folder belongs to and where its nodes
// were seen last: DIR/cluster.json. A folder serves one cluster: its checkpoints
// and trials are known to no other.
type home struct {
	path string
	log  *slog.Logger

	mu sync.Mutex
	homeRecord
}

// homeRecord is the file.
type homeRecord struct {
	Cluster string   `json:"cluster_id,omitempty"` // "" until a leader has said it
	Seeds   []string `json:"seeds,omitempty"`      // gossip addresses
	APIs    []string `json:"coordinators,omitempty"`
}

// openHome reads the file; a folder without one is new and may serve any cluster. A damaged one is
// an error: guessing could bring another cluster's trials into the folder.
func openHome(dir string, log *slog.Logger) (*home, error) {
	h := &home{path: filepath.Join(dir, "cluster.json"), log: log}
	b, err := os.ReadFile(h.path)
	if errors.Is(err, os.ErrNotExist) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h.homeRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): remove it if the folder is to serve whichever cluster --join or --addr names", h.path, err)
	}
	return h, nil
}

// cluster is "" until a leader has said which it is.
func (h *home) cluster() string { h.mu.Lock(); defer h.mu.Unlock(); return h.Cluster }

// known is the record as it stands.
func (h *home) known() homeRecord { h.mu.Lock(); defer h.mu.Unlock(); return h.homeRecord }

// change writes down what f makes of the record.
func (h *home) change(f func(*homeRecord)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := homeRecord{h.Cluster, slices.Clone(h.Seeds), slices.Clone(h.APIs)}
	f(&next)
	if next.Cluster == h.Cluster && slices.Equal(next.Seeds, h.Seeds) && slices.Equal(next.APIs, h.APIs) {
		return nil
	}
	b, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := files.Write(h.path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	h.homeRecord = next
	return nil
}

// clusterGuard lets the agent serve the cluster of its data folder and no other.
type clusterGuard struct {
	agent.Coordinator
	home   *home
	joined func(cluster string) // a leader has said which cluster it is
	refuse func(error)          // another cluster answers: ends the worker

	confirmed atomic.Bool // the own cluster has answered since the start
}

// Heartbeat names the folder's cluster and refuses the answer of another one.
func (g *clusterGuard) Heartbeat(ctx context.Context, req trial.Heartbeat) (trial.HeartbeatAnswer, error) {
	mine := g.home.cluster()
	req.Cluster = mine
	answer, err := g.Coordinator.Heartbeat(ctx, req)
	if err != nil {
		if r := client.RefusalOf(err); r.Reason == client.ReasonOtherCluster && mine != "" && r.Cluster != mine {
			err = g.otherCluster(errors.New(r.Text))
		}
		return answer, err
	}
	theirs := answer.Cluster
	switch {
	case theirs == "" || theirs == mine:
		g.confirmed.Store(true)
		return answer, nil
	case mine != "" && !slices.Contains(answer.FormerClusters, mine):
		return answer, g.otherCluster(fmt.Errorf("data folder %s belongs to cluster %s, cluster %s answers: give the worker the addresses of its own cluster, or an empty --data folder", filepath.Dir(g.home.path), mine, theirs))
	}
	if err := g.home.change(func(r *homeRecord) { r.Cluster = theirs }); err != nil {
		return answer, err
	}
	g.joined(theirs)
	g.confirmed.Store(true)
	return answer, nil
}

// otherCluster acts on the answer of another cluster and returns err. At the
// start the worker was given wrong addresses, and ends; later one of them has
// gone to another cluster, and the client asks the next.
func (g *clusterGuard) otherCluster(err error) error {
	if !g.confirmed.Load() {
		g.refuse(err)
	}
	return err
}

// trackGossip follows what gossip shows: it tells the client where the
// coordinators' APIs are, should all have moved, and writes down where they were
// seen.
func (h *home) trackGossip(ctx context.Context, pool *gossip.Pool, learn func([]string)) {
	var learned []string
	for {
		changed := pool.Changed()
		var seeds, apis []string
		for _, p := range pool.Peers() {
			if !p.Alive {
				continue
			}
			seeds = append(seeds, p.Addr)
			if p.Meta.Role == gossip.RoleCoordinator && p.Meta.API != "" {
				apis = append(apis, p.Meta.API)
			}
		}
		slices.Sort(apis)
		if len(apis) > 0 && !slices.Equal(apis, learned) {
			learned = apis
			learn(apis)
		}
		if len(apis) > 0 && h.cluster() != "" {
			if err := h.change(func(r *homeRecord) { r.Seeds, r.APIs = seeds[:min(len(seeds), maxSeeds)], apis }); err != nil {
				h.log.Warn("where the cluster is was not written down", "error", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		select { // changes come in swarms
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// maxSeeds bounds the gossip addresses written down.
const maxSeeds = 32
