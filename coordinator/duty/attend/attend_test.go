package attend_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"atelier/coordinator/duty/attend"
)

type clerk struct {
	*attend.Seat
	marks int // guarded by the group
	work  *office
}

type office struct {
	group *attend.Group[*clerk]
	begun atomic.Int64
	done  atomic.Int64 // marks that were worked off
	left  atomic.Int64
	stay  atomic.Bool // clerks do not leave
}

func newOffice() *office {
	o := &office{}
	o.group = attend.New(func(s *attend.Seat) *clerk { o.begun.Add(1); return &clerk{Seat: s, work: o} }, (*clerk).run)
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
	o.group.Do(func(r attend.Roll[*clerk]) { r.Call(sweep).marks++ })
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// No mark is lost, however often attendants leave and are called again.
func TestNoMarkIsLost(t *testing.T) {
	o := newOffice()
	o.group.Start(func(r attend.Roll[*clerk]) { r.Call("s-0").marks++ })
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
	o.group.Do(func(r attend.Roll[*clerk]) {
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
	o.group.Start(func(attend.Roll[*clerk]) {})
	var first *clerk
	o.group.Do(func(r attend.Roll[*clerk]) { first = r.Call("s-a") })
	o.group.Do(func(r attend.Roll[*clerk]) {
		if again := r.Call("s-a"); again != first {
			t.Error("a second attendant for the same sweep")
		}
		if who, ok := r.Find("s-a"); !ok || who != first || r.Context() != first.Context {
			t.Error("the roll does not hold who was called")
		}
	})
	o.group.Stop()
	until(t, "the leadership's context does not end", func() bool { return first.Context.Err() != nil })
	o.call("late")
	if n := o.begun.Load(); n != 1 {
		t.Errorf("%d were called, one of them within a leadership", n)
	}
	o.group.Start(func(r attend.Roll[*clerk]) { r.Call("s-a") })
	o.group.Do(func(r attend.Roll[*clerk]) {
		if who, _ := r.Find("s-a"); who == first {
			t.Error("an attendant outlived its leadership")
		}
	})
	o.group.Stop()
	o.group.Stop()
}
