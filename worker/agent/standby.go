package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"atelier/worker/runner"
	"atelier/worker/slots"
)

const (
	standbyNames = 2                // trainers of this many names stand by in a slot
	standbyIdle  = 10 * time.Minute // and leave when none was asked for so long, but for Config.Warm
)

// standby holds the trainers that stand by in one slot: started, hello said, no
// job. They hold no device memory; that comes with a job.
type standby struct {
	a    *Agent
	spec *slots.Slot

	mu      sync.Mutex
	entries []*entry // most recently used first
	closed  bool
}

type entry struct {
	name  string
	child *runner.Child // nil while it starts
	timer *time.Timer
}

func newStandby(a *Agent, spec *slots.Slot) *standby { return &standby{a: a, spec: spec} }

func (b *standby) start(ctx context.Context, name string) (*runner.Child, error) {
	c, err := b.a.cfg.Launcher.Start(ctx, b.a.trainers[name], runner.SlotEnv{Slot: b.spec.Name, Env: b.spec.Env()})
	if ctx.Err() == nil { // else it was ended by us
		b.a.starts.note(name, err)
	}
	return c, err
}

// take returns a trainer that waits for its job: the one standing by, else a new one.
func (b *standby) take(ctx context.Context, name string) (*runner.Child, error) {
	b.mu.Lock()
	var c *runner.Child
	for _, p := range b.entries {
		if p.name == name && p.child != nil {
			c, p.child = p.child, nil
			p.timer.Stop()
			break
		}
	}
	b.mu.Unlock()
	if c != nil {
		select {
		case <-c.Exited(): // died while it stood by
			c.Discard()
		default:
			b.a.metrics.warmStarts.Inc()
			return c, nil
		}
	}
	b.a.metrics.coldStarts.Inc()
	return b.start(ctx, name)
}

// warm lets the first trainers stand by before any lease has come.
func (b *standby) warm(ctx context.Context) {
	for _, name := range b.a.cfg.Warm {
		b.mu.Lock()
		there := slices.ContainsFunc(b.entries, func(p *entry) bool { return p.name == name && p.child != nil })
		b.mu.Unlock()
		if !there {
			b.refill(ctx, name)
		}
	}
}

// refill starts the next trainer of a name, in the background of a run.
func (b *standby) refill(ctx context.Context, name string) {
	c, err := b.start(ctx, name)
	if err != nil {
		if ctx.Err() == nil {
			b.a.log.Warn("no trainer stands by", "trainer", name, "slot", b.spec.Name, "error", err)
		}
		return
	}
	b.mu.Lock()
	var out []*runner.Child
	if b.closed {
		out = append(out, c)
	} else {
		fresh := &entry{name: name, child: c}
		fresh.timer = time.AfterFunc(standbyIdle, func() {
			if !slices.Contains(b.a.cfg.Warm, name) {
				b.retire(fresh)
			}
		})
		kept := []*entry{fresh}
		for _, p := range b.entries {
			if p.name != name && len(kept) < standbyNames {
				kept = append(kept, p)
				continue
			}
			p.timer.Stop()
			if p.child != nil {
				out = append(out, p.child)
				p.child = nil
			}
		}
		b.entries = kept
	}
	b.mu.Unlock()
	for _, c := range out {
		c.Discard()
	}
}

func (b *standby) retire(p *entry) {
	b.mu.Lock()
	c := p.child
	p.child = nil
	b.mu.Unlock()
	if c != nil {
		c.Discard()
	}
}

func (b *standby) close() {
	b.mu.Lock()
	b.closed = true
	entries := b.entries
	b.entries = nil
	b.mu.Unlock()
	for _, p := range entries {
		p.timer.Stop()
		b.retire(p)
	}
}
