package persweep_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/duty/persweep"
	"atelier/coordinator/state"
)

type clerk struct {
	*persweep.Handle
	marks int // guarded by the group
	work  *office
}

type office struct {
	group *persweep.Group[*clerk]
	begun atomic.Int64
	done  atomic.Int64 // marks that were worked off
	left  atomic.Int64
	stay  atomic.Bool // clerks do not leave
}

func newOffice() *office {
	o := &office{}
	m := state.New()
	o.group = persweep.New(persweep.Config[*clerk]{View: m.View, Run: (*clerk).run, Logger: slog.New(slog.DiscardHandler),
		Begin: func(s *persweep.Handle) *clerk { o.begun.Add(1); return &clerk{Handle: s, work: o} }})
	return o
}

// run works marks off and leaves when there is none.
func (c *clerk) run() {
	for {
		n := 0
		c.Locked(func() { n, c.marks = c.marks, 0 })
		c.work.done.Add(int64(n))
		if n > 0 {
			continue // its mark may be of this work, or of none that is left
		}
		if !c.work.stay.Load() && c.Leave(func() { c.work.left.Add(1) }) {
			return
		}
		select {
		case <-c.Woken:
		case <-c.Context.Done():
			return
		}
	}
}

func (o *office) call(sweep string) {
	o.group.Do(func(r persweep.Registry[*clerk]) { r.Ensure(sweep).marks++ })
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// No mark is lost, however often actors leave and are called again.
func TestNoMarkIsLost(t *testing.T) {
	o := newOffice()
	o.group.Start(func(r persweep.Registry[*clerk]) { r.Ensure("s-0").marks++ })
	defer o.group.Stop()
	const callers, calls = 4, 2000
	for k := range callers {
		go func() {
			for i := range calls {
				o.call(fmt.Sprintf("s-%d", (i+k)%3))
			}
		}()
	}
	until(t, "marks are lost", func() bool { return o.done.Load() == callers*calls+1 })
	until(t, "somebody stays with nothing to do", func() bool { return o.left.Load() == o.begun.Load() })
	o.group.Do(func(r persweep.Registry[*clerk]) {
		r.Each(func(sweep string, _ *clerk) { t.Errorf("%s is still on the roll", sweep) })
		if _, ok := r.Find("s-0"); ok {
			t.Error("s-0 is found")
		}
		if _, ok := r.Wake("s-1"); ok {
			t.Error("s-1 was woken, and nobody was there")
		}
	})
}

// With the leadership everybody goes, and nobody is called before the next.
func TestLeadershipsAreApart(t *testing.T) {
	o := newOffice()
	o.stay.Store(true)
	o.call("early")
	o.group.Start(func(persweep.Registry[*clerk]) {})
	var first *clerk
	o.group.Do(func(r persweep.Registry[*clerk]) { first = r.Ensure("s-a") })
	o.group.Do(func(r persweep.Registry[*clerk]) {
		if again := r.Ensure("s-a"); again != first {
			t.Error("a second actor for the same sweep")
		}
		if actor, ok := r.Find("s-a"); !ok || actor != first || r.Context() != first.Context {
			t.Error("the roll does not hold who was called")
		}
	})
	o.group.Stop()
	until(t, "the leadership's context does not end", func() bool { return first.Context.Err() != nil })
	o.call("late")
	if n := o.begun.Load(); n != 1 {
		t.Errorf("%d were called, one of them within a leadership", n)
	}
	o.group.Start(func(r persweep.Registry[*clerk]) { r.Ensure("s-a") })
	o.group.Do(func(r persweep.Registry[*clerk]) {
		if actor, _ := r.Find("s-a"); actor == first {
			t.Error("an actor outlived its leadership")
		}
	})
	o.group.Stop()
	o.group.Stop()
}

// replace puts a restored state, an empty one, in the entry of the present one.
func replace(t *testing.T, m *state.Machine) {
	t.Helper()
	var stream bytes.Buffer
	if _, err := state.New().View().WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(stream.Bytes())
	for _, r := range m.Apply(m.View().Index()+1, &logv1.Entry{Commands: []*logv1.Command{
		{Op: &logv1.Command_BeginRestore{BeginRestore: &logv1.BeginRestore{Id: "r", Bytes: int64(stream.Len()), Sha256: sum[:], Format: state.StreamFormat}}},
		{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: "r", Data: stream.Bytes()}}},
		{Op: &logv1.Command_CommitRestore{CommitRestore: &logv1.CommitRestore{Id: "r"}}},
	}}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

// A handle shows no state but that of its own past: from the moment of a restore
// on, before anybody is told, its actor sees nothing. After Restart new ones
// be there.
func TestARestoreEndsActors(t *testing.T) {
	m := state.New()
	var begun, gone atomic.Int64
	g := persweep.New(persweep.Config[*persweep.Handle]{View: m.View, Logger: slog.New(slog.DiscardHandler),
		Begin: func(s *persweep.Handle) *persweep.Handle { begun.Add(1); return s },
		Run: func(s *persweep.Handle) {
			for s.Context.Err() == nil {
				if _, ok := s.View(); !ok {
					gone.Add(1)
					return
				}
				time.Sleep(time.Millisecond)
			}
		}})
	adopt := func(r persweep.Registry[*persweep.Handle]) { r.Ensure("s-a") }
	g.Start(adopt)
	defer g.Stop()
	time.Sleep(5 * time.Millisecond)
	if gone.Load() != 0 {
		t.Fatal("a handle shows nothing though nothing was restored")
	}
	replace(t, m)
	until(t, "an actor goes on with a state that was replaced", func() bool { return gone.Load() == 1 })
	g.Restart(adopt)
	if begun.Load() != 2 {
		t.Errorf("%d actors began", begun.Load())
	}
	time.Sleep(5 * time.Millisecond)
	if gone.Load() != 1 {
		t.Error("the next actor sees nothing")
	}
}

// A panic ends the sweep it came from, with the reason, as soon as that can be
// written; none is begun until then, and the others do not notice.
func TestAPanicFailsItsSweep(t *testing.T) {
	m := state.New()
	var failed atomic.Pointer[string]
	var refusals, worked, begun atomic.Int64
	refusals.Store(2)
	g := persweep.New(persweep.Config[*persweep.Handle]{View: m.View, Logger: slog.New(slog.DiscardHandler),
		Begin: func(s *persweep.Handle) *persweep.Handle { begun.Add(1); return s },
		Run: func(s *persweep.Handle) {
			if s.Sweep == "s-bad" {
				var nobody *state.Trial
				_ = nobody.Status
			}
			for {
				select {
				case <-s.Woken:
					worked.Add(1)
				case <-s.Context.Done():
					return
				}
			}
		},
		Fail: func(_ context.Context, sweep, reason string) error {
			if refusals.Add(-1) >= 0 {
				return errors.New("no leader")
			}
			what := sweep + ": " + reason
			failed.Store(&what)
			return nil
		}})
	g.Start(func(r persweep.Registry[*persweep.Handle]) { r.Ensure("s-bad"); r.Ensure("s-good") })
	defer g.Stop()
	g.Do(func(r persweep.Registry[*persweep.Handle]) { r.Ensure("s-bad") })
	if begun.Load() != 2 {
		t.Errorf("%d began: the next one would have met the same", begun.Load())
	}
	until(t, "the sweep does not fail", func() bool { return failed.Load() != nil })
	if got := *failed.Load(); !strings.HasPrefix(got, "s-bad: ") || !strings.Contains(got, "nil pointer") {
		t.Errorf("failed with %q", got)
	}
	until(t, "its entry stays", func() (free bool) {
		g.Do(func(r persweep.Registry[*persweep.Handle]) { _, taken := r.Find("s-bad"); free = !taken })
		return free
	})
	before := worked.Load()
	g.Do(func(r persweep.Registry[*persweep.Handle]) { r.Wake("s-good") })
	until(t, "the other sweep is not attended any more", func() bool { return worked.Load() > before })
}
