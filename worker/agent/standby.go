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
// job. They hold no device memory; that comes with a job. Where trainers are
// confined they may read what the latest runs of their trainer read.
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
	timer *time.Timer   // ends it when nobody has asked for it
}

func newStandby(a *Agent, spec *slots.Slot) *standby { return &standby{a: a, spec: spec} }

// start starts a trainer and notes whether it could be.
func (s *standby) start(ctx context.Context, name string) (*runner.Child, error) {
	c, err := s.a.cfg.Launcher.Start(ctx, s.a.trainers[name], runner.SlotEnv{Slot: s.spec.Name, Env: s.spec.Env(), Read: s.a.opened.of(name)})
	if ctx.Err() == nil { // else it was ended by us
		s.a.starts.note(name, err)
	}
	return c, err
}

// take returns a trainer that waits for its job and may read what that names: the
// one standing by, else a new one.
func (s *standby) take(ctx context.Context, name string, read []string) (*runner.Child, error) {
	s.a.opened.note(name, read)
	s.mu.Lock()
	var c *runner.Child
	for _, p := range s.entries {
		if p.name == name && p.child != nil {
			c, p.child = p.child, nil
			p.timer.Stop()
			break
		}
	}
	s.mu.Unlock()
	if c != nil {
		select {
		case <-c.Exited(): // died while it stood by
			c.Discard()
		default:
			if !c.MayRead(read) { // it was started before anybody named this
				c.Discard()
				break
			}
			s.a.metrics.warmStarts.Inc()
			return c, nil
		}
	}
	s.a.metrics.coldStarts.Inc()
	return s.start(ctx, name)
}

// warm lets the first trainers stand by before any lease has come.
func (s *standby) warm(ctx context.Context) {
	for _, name := range s.a.cfg.Warm {
		s.mu.Lock()
		there := slices.ContainsFunc(s.entries, func(p *entry) bool { return p.name == name && p.child != nil })
		s.mu.Unlock()
		if !there {
			s.refill(ctx, name)
		}
	}
}

// refill starts the next trainer of a name, in the background of a run. Of the
// others the most recently used stay, as many as may stand by.
func (s *standby) refill(ctx context.Context, name string) {
	c, err := s.start(ctx, name)
	if err != nil {
		if ctx.Err() == nil {
			s.a.log.Warn("no warm trainer is ready", "trainer", name, "slot", s.spec.Name, "error", err)
		}
		return
	}
	s.mu.Lock()
	var out []*runner.Child
	if s.closed {
		out = append(out, c)
	} else {
		fresh := &entry{name: name, child: c}
		fresh.timer = time.AfterFunc(standbyIdle, func() {
			if !slices.Contains(s.a.cfg.Warm, name) {
				s.retire(fresh)
			}
		})
		kept := []*entry{fresh}
		for _, p := range s.entries {
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
		s.entries = kept
	}
	s.mu.Unlock()
	for _, c := range out {
		c.Discard()
	}
}

// retire ends a trainer that stands by, unless it was taken meanwhile.
func (s *standby) retire(p *entry) {
	s.mu.Lock()
	c := p.child
	p.child = nil
	s.mu.Unlock()
	if c != nil {
		c.Discard()
	}
}

// close ends all that stand by; one that starts yet is ended by refill.
func (s *standby) close() {
	s.mu.Lock()
	s.closed = true
	entries := s.entries
	s.entries = nil
	s.mu.Unlock()
	for _, p := range entries {
		p.timer.Stop()
		s.retire(p)
	}
}
