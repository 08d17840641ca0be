package history

import (
	"context"
	"fmt"
	"slices"

	"atelier/common/trial"
	"atelier/coordinator/state"
	"atelier/tuner/search"
)

// Difference is a proposal that is not what its prefix of the history gives.
type Difference struct {
	Trial    int64
	Recorded Proposed // as it stands in the state
	Computed Proposed // as it comes out; no parameters: nothing comes
	Seen     int64
	Source   trial.Source
}

// Proposed is what a proposal says of one trial.
type Proposed struct {
	Params string // canonical JSON
	Origin trial.Origin
}

// Verification is what came of computing a sweep's proposals again.
type Verification struct {
	Checked     int64 // search's and given points
	Unchecked   int64 // points whose prefix is not recorded, and those made by other means than search
	Through     int64 // the last trial looked at
	Differences []Difference
}

const (
	fromSearch = trial.SourceSearch
	fromQueue  = trial.SourceEnqueued
)

// portion is how many proposals are computed between two looks at the time.
const portion = 32

// Verify computes the proposals of a sweep behind trial after again, each from
// its prefix of the history, until enough is true (nil = never). A difference
// does not hide later ones: each prefix is of what the state holds.
func Verify(ctx context.Context, sw *state.Sweep, after int64, enough func() bool) (Verification, error) {
	v := Verification{Through: min(max(after, 0), sw.Len())}
	w := verifier{sw: sw, methods: map[int64]search.Method{}, found: make([]int64, sw.Findings+1)}
	for t := range sw.Trials(1) {
		for _, f := range t.Findings {
			w.found[f.Ordinal] = t.Number
		}
		if t.Source == fromQueue && t.Number <= v.Through {
			w.given++
		}
	}
	for v.Through < sw.Len() && (enough == nil || !enough()) {
		first := sw.Trial(v.Through + 1)
		last := first.Number
		for last < sw.Len() && last-v.Through < portion && sameProposal(first, sw.Trial(last+1)) {
			last++
		}
		if first.Source != fromSearch && first.Source != fromQueue {
			v.Unchecked += last - v.Through
			v.Through = last
			continue
		}
		computed, err := w.compute(ctx, first, int(last-v.Through))
		if err != nil {
			return v, err
		}
		for _, want := range computed {
			v.Through++
			v.Checked++
			t := sw.Trial(v.Through)
			if is := (Proposed{t.ParamsJSON, t.Origin}); is != want && !overshot(sw, t, is, want) {
				v.Differences = append(v.Differences, Difference{Trial: t.Number, Recorded: is, Computed: want, Seen: t.ProposedSeen, Source: t.Source})
			}
		}
	}
	return v, nil
}

type verifier struct {
	sw      *state.Sweep
	found   []int64                 // trial of each finding
	methods map[int64]search.Method // by budget; looked up only
	reader  *Reader
	seen    int64 // by the reader
	given   int64 // points of the queue that were trials before
}

// compute returns n proposals from trial first on, without parameters where
// nothing comes.
func (w *verifier) compute(ctx context.Context, first *state.Trial, n int) ([]Proposed, error) {
	out := make([]Proposed, n)
	if first.Source == fromQueue {
		for i := range out {
			if w.given < int64(len(w.sw.Enqueued)) {
				out[i].Params = w.sw.Enqueued[w.given]
			}
			w.given++
		}
		return out, nil
	}
	m := w.methods[first.ProposedBudget]
	if m == nil {
		var err error
		if m, err = Method(w.sw, first.ProposedBudget); err != nil {
			return nil, err
		}
		w.methods[first.ProposedBudget] = m
	}
	var changed []int64
	if w.reader != nil && first.ProposedSeen >= w.seen {
		changed = w.found[w.seen+1 : first.ProposedSeen+1]
	} else { // the first look; only an altered record goes back
		w.reader = NewReader(&w.sw.Space)
	}
	w.seen = first.ProposedSeen
	prefix, err := w.reader.As(w.sw, first.Number-1, w.seen, changed)
	if err != nil {
		return nil, err
	}
	p, err := m.Propose(ctx, slices.Clip(prefix), n)
	if err != nil {
		return nil, fmt.Errorf("compute trial %d again: %w", first.Number, err)
	}
	for i, point := range p.Points {
		out[i].Params = w.sw.Space.Encode(point)
		if i < len(p.Origins) {
			out[i].Origin = p.Origins[i]
		}
	}
	return out, nil
}

// overshot reports whether the proposals differ only in how far the origin had
// trained: before runs ended by themselves one could miss its end, and its whole
// way was taken over.
func overshot(sw *state.Sweep, t *state.Trial, is, want Proposed) bool {
	of := sw.Trial(is.Origin.Trial)
	if of == nil || is.Params != want.Params || is.Origin.Trial != want.Origin.Trial || is.Origin.Epoch < want.Origin.Epoch {
		return false
	}
	f, ok := of.Known(t.ProposedSeen)
	return ok && f.Epoch == is.Origin.Epoch
}

// sameProposal reports whether b may have come in the same ask as a. Asked in
// one or in several, the points are the same as long as nothing was learned
// between.
func sameProposal(a, b *state.Trial) bool {
	return a.Source == b.Source && a.ProposedSeen == b.ProposedSeen && a.ProposedBudget == b.ProposedBudget
}
