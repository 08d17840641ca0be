package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// fault is a way to disturb a run. It returns the members that the others have to
// do without, and when; none where there was nothing to disturb at the moment.
type fault struct {
	name    string
	what    string
	network bool // needs hosts of a network
	aside   bool // only where -kinds names it
	strike  func(ctx context.Context, a *attack) ([]hit, error)
}

// hit is one member that was taken away.
type hit struct {
	Member int32 `json:"member"`
	TimeMS int64 `json:"time_ms"`
}

// attack is what a fault is given.
type attack struct {
	*machines
	f       *follower
	random  *rand.Rand
	present []trial.GroupMember // of the newest view, by rank; two at least
	repairs func(what string, repair func(ctx context.Context) error)
}

var allFaults = []fault{
	{name: "reporter", what: "SIGKILL of the member of rank 0, which reports", strike: func(_ context.Context, a *attack) ([]hit, error) {
		return a.signal(a.present[0], syscall.SIGKILL)
	}},
	{name: "member", what: "SIGKILL of another member", strike: func(_ context.Context, a *attack) ([]hit, error) {
		return a.signal(a.present[1+a.random.IntN(len(a.present)-1)], syscall.SIGKILL)
	}},
	{name: "stop", what: "SIGSTOP of a member", strike: func(_ context.Context, a *attack) ([]hit, error) {
		return a.signal(a.present[a.random.IntN(len(a.present))], syscall.SIGSTOP)
	}},
	{name: "joining", what: "SIGKILL of a member while another joins", strike: func(ctx context.Context, a *attack) ([]hit, error) {
		first, err := a.signal(a.present[len(a.present)-1], syscall.SIGKILL)
		if err != nil || len(first) == 0 || len(a.present) < 3 {
			return first, err
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
			if slices.ContainsFunc(a.f.coming(), func(g trial.GroupMember) bool { return a.trainer(g) != 0 }) {
				break
			}
		}
		second, err := a.signal(a.present[0], syscall.SIGKILL)
		return append(first, second...), err
	}},
	{name: "agent", what: "SIGKILL of an agent, started again a second later", strike: func(_ context.Context, a *attack) ([]hit, error) {
		g := a.present[a.random.IntN(len(a.present))]
		w := a.worker(g.Worker)
		if w == nil || !w.Alive() {
			return nil, nil
		}
		var hits []hit
		for _, m := range a.present {
			if m.Worker == w.Name {
				hits = append(hits, hit{m.ID, time.Now().UnixMilli()})
			}
		}
		if len(hits) == len(a.present) { // all of them: another fault
			return nil, nil
		}
		err := w.Kill()
		a.repairs("start "+w.Name, func(ctx context.Context) error {
			time.Sleep(time.Second)
			return w.Start(ctx)
		})
		return hits, err
	}},
	{name: "leader", what: "SIGKILL of the leading coordinator, started again two seconds later", strike: func(ctx context.Context, a *attack) ([]hit, error) {
		leader, err := a.Leader(ctx)
		if err != nil {
			return nil, err
		}
		at := time.Now().UnixMilli()
		if err := leader.Kill(); err != nil {
			return nil, err
		}
		a.repairs("start "+leader.Name, func(ctx context.Context) error {
			time.Sleep(2 * time.Second)
			return a.startAgain(ctx, leader)
		})
		return []hit{{0, at}}, nil
	}},
	{name: "network", what: "a worker's network is cut for 8 s", network: true, strike: func(_ context.Context, a *attack) ([]hit, error) {
		g := a.present[a.random.IntN(len(a.present))]
		h := a.net.of(g.Worker)
		if h == nil {
			return nil, fmt.Errorf("no host of worker %s", g.Worker)
		}
		var hits []hit
		for _, m := range a.present {
			if m.Worker == g.Worker {
				hits = append(hits, hit{m.ID, time.Now().UnixMilli()})
			}
		}
		err := a.net.cut(h)
		a.repairs("mend the network of "+g.Worker, func(context.Context) error {
			time.Sleep(8 * time.Second)
			return a.net.mend(h)
		})
		return hits, err
	}},
	{name: "all", what: "SIGKILL of all members: the run resumes from its last checkpoint", aside: true, strike: func(_ context.Context, a *attack) (hits []hit, err error) {
		for _, g := range a.present {
			h, err := a.signal(g, syscall.SIGKILL)
			if err != nil {
				return nil, err
			}
			hits = append(hits, h...)
		}
		return hits, nil
	}},
}

// faultNames are those that a measurement takes by itself.
func faultNames() (names []string) {
	for _, f := range allFaults {
		if !f.aside {
			names = append(names, f.name)
		}
	}
	return names
}

func (b *bench) knownKinds() error {
	for _, k := range b.kinds {
		if !slices.ContainsFunc(allFaults, func(f fault) bool { return f.name == k }) {
			var names []string
			for _, f := range allFaults {
				names = append(names, f.name)
			}
			return fmt.Errorf("-kinds: no kind %q; there are %s", k, strings.Join(names, ", "))
		}
	}
	return nil
}

// signal reaches a member's trainer; no hit where it has ended meanwhile.
func (a *attack) signal(g trial.GroupMember, sig syscall.Signal) ([]hit, error) {
	pid := a.trainer(g)
	if pid == 0 {
		return nil, nil
	}
	at := time.Now().UnixMilli()
	if err := syscall.Kill(pid, sig); err != nil {
		return nil, nil
	}
	return []hit{{g.ID, at}}, nil
}

// startAgain starts a coordinator that was killed, and waits until all vote.
func (m *machines) startAgain(ctx context.Context, c *local.Process) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return m.AwaitVoters(ctx, len(m.Coordinators))
}
