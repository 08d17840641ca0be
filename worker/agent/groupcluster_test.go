package agent_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// groupCluster is a coordinator whose one trial is carried out by a group: it grants
// to so many slots at once as it is told, and notes what it hears.
type groupCluster struct {
	t        *testing.T
	training string
	trainer  string
	begin    int // members of the start

	mu        sync.Mutex
	changed   chan struct{}
	token     uint64
	addresses map[string]string // by worker
	wrong     string            // address that leases name for all workers; "" = their own
	asking    []trial.GroupMember
	members   []trial.GroupMember // that hold the lease
	leases    map[string]*trial.Lease
	joined    int32
	joins     int    // newcomers that are let in
	from      string // worker that they are taken from; "" = any
	indexed   []trial.Checkpoint
	events    []trial.Event
	beats     []trial.Heartbeat
	fence     func(trial.Event) bool
	verdict   trial.Verdict
	leave     []int32
	drained   map[string]bool
	endEpoch  int32
}

func newGroupCluster(t *testing.T, begin int, training string) *groupCluster {
	return &groupCluster{t: t, training: training, trainer: "puppet", begin: begin, changed: make(chan struct{}), addresses: map[string]string{},
		leases: map[string]*trial.Lease{}, drained: map[string]bool{}, token: 40}
}

func (c *groupCluster) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *groupCluster) until(what string, f func() bool) {
	c.t.Helper()
	for deadline := time.After(patience); ; {
		c.mu.Lock()
		ok, changed := f(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, e := range c.events {
				switch end := cmp.Or(e.Ended, e.MemberEnded); {
				case e.Report != nil:
					c.t.Logf("member %d reports epoch %d", e.Member, e.Report.Epoch)
				case e.Checkpoint != nil:
					c.t.Logf("member %d has a checkpoint of epoch %d", e.Member, e.Checkpoint.Epoch)
				case e.View != nil:
					c.t.Logf("member %d reports the view %+v", e.Member, *e.View)
				case end != nil:
					c.t.Logf("member %d ended %+v, the run: %v", e.Member, *end, e.Ended != nil)
				}
			}
			c.t.Fatalf("never: %s; members %+v", what, c.members)
		}
	}
}

// ended waits for the end of a member, the run's or its own.
func (c *groupCluster) ended(member int32) (end trial.Ended, whole bool) {
	c.t.Helper()
	c.until("a member ends", func() bool {
		for _, e := range c.events {
			if e.Member == member && (e.Ended != nil || e.MemberEnded != nil) {
				whole, end = e.Ended != nil, *cmp.Or(e.Ended, e.MemberEnded)
				return true
			}
		}
		return false
	})
	return end, whole
}

func (c *groupCluster) Heartbeat(_ context.Context, r trial.Heartbeat) (a trial.HeartbeatAnswer, err error) {
	c.with(func() {
		c.beats = append(c.beats, r)
		c.addresses[r.Worker.Name] = r.Worker.Address
		a.TTL, a.Drain = 2*time.Second, c.drained[r.Worker.Name]
		for _, l := range r.Leases {
			i := slices.IndexFunc(c.members, func(m trial.GroupMember) bool { return m.ID == l.Member })
			if i < 0 || l.Token != c.token {
				a.Lost = append(a.Lost, l)
				continue
			}
			if c.verdict != 0 {
				a.Verdicts = append(a.Verdicts, trial.LeaseVerdict{Lease: l, Verdict: c.verdict, Reason: "a person"})
			}
			if slices.Contains(c.leave, l.Member) {
				a.Leave = append(a.Leave, l)
			}
		}
	})
	return a, nil
}

// grant gives the lease to who asks, all at once, and then to newcomers.
func (c *groupCluster) grant() {
	n := c.joins
	if c.joined == 0 {
		n = c.begin
	}
	fits := func(m trial.GroupMember) bool { return c.from == "" || m.Worker == c.from }
	var fresh, rest []trial.GroupMember
	for _, m := range c.asking {
		if fits(m) && len(fresh) < n {
			fresh = append(fresh, m)
		} else {
			rest = append(rest, m)
		}
	}
	if len(fresh) < n || n == 0 {
		return
	}
	join := c.joined > 0
	if join {
		c.joins = 0
	}
	c.asking = rest
	for i := range fresh {
		c.joined++
		fresh[i].ID, fresh[i].Address = c.joined, c.addresses[fresh[i].Worker]
		if c.wrong != "" {
			fresh[i].Address = c.wrong
		}
		c.members = append(c.members, fresh[i])
	}
	for _, m := range fresh {
		ref := trial.LeaseRef{Sweep: "s-group", Trial: 1, Token: c.token, Member: m.ID}
		c.leases[m.Request] = &trial.Lease{LeaseRef: ref, Run: 1, Slot: m.Slot, Trainer: c.trainer, Params: []byte(`{}`), Training: []byte(c.training), Seed: 3,
			Objective: trial.Objective{Metric: "val_loss"}, TTL: 2 * time.Second, Checkpoints: c.indexed, EndEpoch: c.endEpoch,
			Group: &trial.Group{Member: m.ID, Members: slices.Clone(c.members), Join: join, Min: 1, Max: 8, Shards: 8}}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *groupCluster) Acquire(ctx context.Context, r client.AcquireRequest) (l *trial.Lease, err error) {
	end := time.After(r.Wait)
	for {
		c.mu.Lock()
		asks := slices.ContainsFunc(c.asking, func(m trial.GroupMember) bool { return m.Request == r.RequestID })
		if c.leases[r.RequestID] == nil && !asks {
			c.asking = append(c.asking, trial.GroupMember{Worker: r.Worker, Slot: r.Slot, Incarnation: r.Incarnation, Request: r.RequestID})
		}
		c.grant()
		l = c.leases[r.RequestID]
		changed := c.changed
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-end:
			return nil, nil
		case <-ctx.Done():
			c.with(func() {
				c.asking = slices.DeleteFunc(c.asking, func(m trial.GroupMember) bool { return m.Request == r.RequestID })
			})
			return nil, ctx.Err()
		}
	}
}

func (c *groupCluster) Relay(_ context.Context, _, _ string, events []trial.Event) (results []trial.EventResult, err error) {
	c.with(func() {
		for _, e := range events {
			c.events = append(c.events, e)
			res := trial.EventResult{Outcome: trial.OutcomeRecorded, Verdict: trial.VerdictContinue}
			switch {
			case c.fence != nil && c.fence(e):
				res = trial.EventResult{Outcome: trial.OutcomeFenced, Verdict: trial.VerdictStop, Message: "the others continue without it"}
			case e.Checkpoint != nil:
				c.indexed = []trial.Checkpoint{*e.Checkpoint}
				res.Kept = []trial.Location{e.Checkpoint.Location}
			case e.MemberEnded != nil:
				c.members = slices.DeleteFunc(slices.Clone(c.members), func(m trial.GroupMember) bool { return m.ID == e.Member })
			case e.Ended != nil:
				c.members = nil
			}
			results = append(results, res)
		}
	})
	return results, nil
}

func (c *groupCluster) IndexedCheckpoints(context.Context, string, int64) ([]trial.Checkpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.indexed, nil
}
