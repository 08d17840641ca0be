package client

import (
	"context"
	"sync"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// follower finds the leader for its client: any node answers any call, but the
// leader answers without a second hop. It works beside calls, never before
// them, at most one inquiry at a time, and holds no goroutine between.
type follower struct {
	c    *Client
	born time.Time

	mu    sync.Mutex
	busy  bool
	doubt bool      // an attempt failed since the last inquiry
	last  time.Time // of the last inquiry
}

// A client of one or two calls is not worth an inquiry of its own.
const grace = 2 * time.Second

// After failures, inquiries come at most this often.
const doubtEvery = 250 * time.Millisecond

// suspect makes the next call an occasion to ask who leads.
func (f *follower) suspect() {
	f.mu.Lock()
	f.doubt = true
	f.mu.Unlock()
}

// maybe asks in the background, where it is time to: the call at hand does not wait for it.
func (f *follower) maybe(ctx context.Context) {
	if !f.c.opts.follow || ctx.Value(inquiry{}) != nil {
		return
	}
	now := time.Now()
	f.mu.Lock()
	due := now.Sub(f.last) >= f.c.opts.followEvery && now.Sub(f.born) >= min(grace, f.c.opts.followEvery)
	if f.doubt && now.Sub(f.last) >= doubtEvery {
		due = true
	}
	if f.busy || !due {
		f.mu.Unlock()
		return
	}
	f.busy, f.doubt, f.last = true, false, now
	f.mu.Unlock()
	go f.inquire()
}

type inquiry struct{}

// inquire asks for the members, learns their addresses, and prefers the
// leader's if it can be reached from here and says itself that it leads.
func (f *follower) inquire() {
	defer func() {
		f.mu.Lock()
		f.busy = false
		f.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), inquiry{}, true), 5*time.Second)
	defer cancel()
	resp, err := f.c.raw.Cluster.ListMembers(ctx, connect.NewRequest(&atelierv1.ListMembersRequest{}))
	if err != nil {
		f.suspect()
		return
	}
	var addrs []string
	leader := ""
	for _, m := range resp.Msg.Members {
		addrs = append(addrs, m.ApiAddress)
		if m.Id == resp.Msg.LeaderId {
			leader = m.ApiAddress
		}
	}
	f.c.set.learn(addrs)
	if leader == "" || leader == f.c.set.first() {
		return
	}
	one, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	node, err := f.c.raw.Node(leader).GetNode(one, connect.NewRequest(&atelierv1.GetNodeRequest{}))
	if err == nil && node.Msg.Role == "leader" {
		f.c.set.prefer(leader)
	}
}
