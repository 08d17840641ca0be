package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/gossip"
	"atelier/coordinator/replica"
)

const (
	// seedPatience bounds how long a node that is to begin a cluster listens for one
	// that is there already.
	seedPatience = 10 * time.Second

	joinPause    = 200 * time.Millisecond
	joinPauseMax = 2 * time.Second
	joinTimeout  = 15 * time.Second
	askedEvery   = 10 * time.Second // between warnings that nobody answers
)

// mayBegin refuses to begin a cluster where --join leads to one: that would make
// a second cluster of machines that are meant to be one.
func (m *Member) mayBegin(ctx context.Context) error {
	if len(m.cfg.Join) == 0 {
		return nil
	}
	select {
	case <-m.pool.Tried():
	case <-time.After(seedPatience):
	case <-ctx.Done():
		return ctx.Err()
	}
	for id, addrs := range m.pool.Clusters() {
		return fmt.Errorf("--bootstrap would begin a second cluster: --join leads to cluster %s (API %s): leave --bootstrap out to join it, or --join to begin one beside it", id, strings.Join(addrs, ", "))
	}
	return nil
}

// mayJoin finds out, before raft starts here, which cluster there is to join and
// whether this node's id is free in it. A member with an empty folder has
// forgotten its votes and may not act under its old name.
func (m *Member) mayJoin(ctx context.Context) (clusterID string, err error) {
	select {
	case <-m.pool.Tried():
	case <-time.After(seedPatience):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	err = m.asking(ctx, "ask the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		if seen := m.pool.Clusters(); len(seen) > 1 {
			return true, &gossip.ErrTwoClusters{Clusters: seen}
		}
		id, members, err := c.Identity(ctx)
		if err != nil {
			return false, err
		}
		clusterID = id
		if clusterID == "" {
			return true, errors.New("the cluster does not report its id: its coordinators run an earlier version; stop them all and start them in this one first")
		}
		for _, b := range members {
			if b.ID == m.cfg.ID && b.Suffrage == "voter" {
				return true, fmt.Errorf("the cluster has a member %s already and %s has no state of it: if its disk was lost, `atelier cluster remove %s` first; else choose another --id", b.ID, m.cfg.Data, b.ID)
			}
		}
		return true, nil
	})
	return clusterID, err
}

// Stay makes the cluster know this node's present addresses, now and whenever no
// leader was heard of for a while: this node may have been removed meanwhile, or
// all others have moved.
func (m *Member) Stay(ctx context.Context) error {
	if err := m.join(ctx, m.lead.Ready); err != nil {
		return err
	}
	const silence = 2 * time.Second
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	heard := time.Now()
	led := func() bool { id, _ := m.node.Leader(); return id != "" }
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if led() {
			heard = time.Now()
		}
		if time.Since(heard) < silence {
			continue
		}
		if err := m.join(ctx, led); err != nil {
			return err
		}
		heard = time.Now()
	}
}

// join tells the cluster where this node is, until a leader has taken it in or
// needless says that nobody has to.
func (m *Member) join(ctx context.Context, needless func() bool) error {
	ask, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for ask.Err() == nil && !needless() {
			select {
			case <-ask.Done():
			case <-m.lead.Changed():
			case <-time.After(250 * time.Millisecond):
			}
		}
		cancel()
	}()
	err := m.asking(ask, "find the leader", func(ctx context.Context, c *client.Client) (bool, error) {
		cluster, err := c.Join(ctx, client.Joining{
			ID: m.cfg.ID, RaftAddress: m.addresses.Raft, APIAddress: m.addresses.API, GossipAddress: m.addresses.Gossip,
			ClusterID: m.node.Identity().ClusterID, FolderID: m.node.Identity().FolderID, HasState: m.node.HasState(),
		})
		if refusal := client.RefusalOf(err); refusal.Cluster != "" && refusal.Cluster == m.node.Identity().ClusterID && client.CodeOf(err) == client.CodeFailedPrecondition {
			if refusal.Reason == client.ReasonRemoved {
				m.removed(client.Message(err))
				return true, &replica.RemovedError{Why: client.Message(err)}
			}
			return true, fmt.Errorf("refused by the cluster: %w", err)
		}
		if err != nil {
			return false, err
		}
		if !m.told {
			m.told = true
			m.log.Info("member of the cluster", "cluster", cluster)
		}
		return true, nil
	})
	if ctx.Err() != nil || ask.Err() != nil && needless() {
		return nil
	}
	return err
}

// others are the API addresses of the other coordinators, as gossip and the
// state know them.
func (m *Member) others() []string {
	var out []string
	add := func(addr string) {
		if addr != "" && addr != m.addresses.API && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	for _, p := range m.pool.Peers() {
		if p.Meta.Role == gossip.RoleCoordinator && p.Alive {
			add(p.Meta.API)
		}
	}
	if m.machine != nil {
		for _, b := range m.machine.View().Members() {
			if b.ID != m.cfg.ID {
				add(b.APIAddress)
			}
		}
	}
	return out
}

// asking repeats a question to the other coordinators until one answers it, the
// question says that it is settled, or ctx ends.
func (m *Member) asking(ctx context.Context, what string, ask func(context.Context, *client.Client) (settled bool, err error)) error {
	pause := joinPause
	began := time.Now()
	said := began.Add(time.Second - askedEvery)
	for {
		var err error
		addrs := m.others()
		for _, addr := range addrs {
			c := client.New([]string{addr}, client.WithoutFollowing(), client.WithTLS(m.ClientTLS()), client.WithRetryFor(time.Millisecond), client.WithAttemptTimeout(joinTimeout))
			var settled bool
			if settled, err = ask(ctx, c); settled {
				return err
			}
		}
		if len(addrs) == 0 {
			err = errors.New("gossip knows no other coordinator yet")
			if why := m.pool.Trouble(); why != "" {
				err = fmt.Errorf("no node of --join answers: %s", why)
			}
		}
		if time.Since(said) > askedEvery {
			said = time.Now()
			m.log.Warn("waiting to "+what, "tried", addrs, "error", err, "for", said.Sub(began).Round(time.Second))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %v)", what, ctx.Err(), err)
		case <-m.pool.Changed():
			if len(addrs) > 0 {
				pause = joinPause
			}
		case <-time.After(pause):
			pause = min(2*pause, joinPauseMax)
		}
	}
}

// Leave takes this node off the cluster's list.
func (m *Member) Leave(ctx context.Context) error {
	if m.node.IsLeader() {
		if err := m.node.Transfer(ctx, ""); err != nil {
			return err
		}
	}
	err := m.asking(ctx, "leave the cluster", func(ctx context.Context, c *client.Client) (bool, error) {
		err := c.RemoveMember(ctx, m.cfg.ID)
		switch client.CodeOf(err) {
		case client.CodeNotFound:
			return true, nil
		case client.CodeFailedPrecondition:
			return true, err
		}
		return err == nil, err
	})
	if err == nil {
		m.removed(m.cfg.ID + " left its cluster for good (--leave-on-term): to take the machine back, empty its --data folder and --join again")
	}
	return err
}
