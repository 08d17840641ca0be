package duty_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"atelier/coordinator/duty"
	"atelier/coordinator/state"
)

// batches is a source of a few batches.
type batches [][]state.Change

func (b *batches) Next(context.Context) ([]state.Change, bool, error) {
	if len(*b) == 0 {
		return nil, false, errors.New("over")
	}
	next := (*b)[0]
	*b = (*b)[1:]
	return next, next == nil, nil
}

type watcher struct {
	heard []string
	fears string // sweep at which it panics
}

func (w *watcher) Resync() { w.heard = append(w.heard, "resync") }
func (w *watcher) Changed(changes []state.Change) {
	for _, c := range changes {
		if c.Sweep == w.fears && w.fears != "" {
			var nobody *state.Sweep
			_ = nobody.ID
		}
		w.heard = append(w.heard, c.Sweep)
	}
}

func of(sweeps ...string) (out []state.Change) {
	for _, s := range sweeps {
		out = append(out, state.Change{Kind: state.SweepChanged, Sweep: s})
	}
	return out
}

// What came before a restore is of a state that is gone; what comes after it is
// heard after everybody has begun anew.
func TestARestoreIsAResync(t *testing.T) {
	restore := state.Change{Kind: state.Restored}
	w := &watcher{}
	from := &batches{of("a"), append(append(of("gone", "too"), restore), of("b")...), nil, {restore}, of("c")}
	duty.Tell(context.Background(), from, func(sweep string, p any, _ []byte) { t.Errorf("%s: %v", sweep, p) }, w)
	if want := []string{"a", "resync", "b", "resync", "resync", "c"}; !slices.Equal(w.heard, want) {
		t.Errorf("heard %v, want %v", w.heard, want)
	}
}

// A watcher that panics begins anew, hears all other changes, and the sweep at
// fault is named. Other watchers do not notice.
func TestAPanicOfAWatcherNamesTheSweep(t *testing.T) {
	bad, good := &watcher{fears: "b"}, &watcher{}
	var faults []string
	from := &batches{of("a", "b", "c"), of("d")}
	duty.Tell(context.Background(), from, func(sweep string, p any, stack []byte) {
		if len(stack) == 0 {
			t.Error("no stack")
		}
		faults = append(faults, fmt.Sprint(sweep, ": ", p))
	}, bad, good)
	if want := []string{"a", "resync", "a", "c", "d"}; !slices.Equal(bad.heard, want) {
		t.Errorf("heard %v, want %v", bad.heard, want)
	}
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(good.heard, want) {
		t.Errorf("the other heard %v, want %v", good.heard, want)
	}
	if len(faults) != 1 || faults[0] != "b: runtime error: invalid memory address or nil pointer dereference" {
		t.Errorf("faults %v", faults)
	}
}
