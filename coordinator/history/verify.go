package history

import (
	"context"
	"fmt"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
	"atelier/tuner/search"
)

// Difference is a proposal that is not what its prefix of the history gives.
type Difference struct {
	Trial    int64
	Recorded string // parameters as they stand in the state
	Computed string // parameters as they come out; "" for none
	Seen     int64
	Source   atelierv1.ProposalSource
}

// Verification is what came of computing a sweep's proposals again.
type Verification struct {
	Checked     int64 // search's and given points
	Unchecked   int64 // points whose prefix is not recorded, and those made by other means than search
	Differences []Difference
}

const (
	fromSearch = atelierv1.ProposalSource_PROPOSAL_SOURCE_SEARCH
	fromQueue  = atelierv1.ProposalSource_PROPOSAL_SOURCE_ENQUEUED
)

// Verify computes every proposal of a sweep again from its prefix of the
// history. A difference does not hide later ones: each prefix is of what the
// state holds.
func Verify(ctx context.Context, sw *state.Sweep) (Verification, error) {
	var v Verification
	spec, err := Spec(sw)
	if err != nil {
		return v, err
	}
	found := make([]int64, sw.Findings+1) // trial of each finding
	for t := range sw.Trials(1) {
		for _, f := range t.Findings {
			found[f.Ordinal] = t.Number
		}
	}
	methods := map[int64]search.Method{} // by budget; looked up only
	reader, seen := NewReader(spec), int64(0)
	given := int64(0)
	for n := int64(1); n <= sw.Len(); {
		first := sw.Trial(n)
		until := n + 1
		for until <= sw.Len() && sameProposal(first, sw.Trial(until)) {
			until++
		}
		switch first.Source {
		case fromQueue:
			for ; n < until; n++ {
				v.Checked++
				want := ""
				if given < int64(len(sw.Enqueued)) {
					want = sw.Enqueued[given]
				}
				given++
				if got := sw.Trial(n); got.ParamsJSON != want {
					v.Differences = append(v.Differences, differing(got, want))
				}
			}
			continue
		case fromSearch:
		default:
			v.Unchecked += until - n
			n = until
			continue
		}
		m := methods[first.ProposedBudget]
		if m == nil {
			if m, err = Method(sw, spec, first.ProposedBudget); err != nil {
				return v, err
			}
			methods[first.ProposedBudget] = m
		}
		var changed []int64
		if first.ProposedSeen >= seen {
			changed = found[seen+1 : first.ProposedSeen+1]
		} else { // only an altered record goes back
			reader = NewReader(spec)
		}
		seen = first.ProposedSeen
		prefix, err := reader.As(sw, n-1, seen, changed)
		if err != nil {
			return v, err
		}
		p, err := m.Propose(ctx, slices.Clip(prefix), int(until-n))
		if err != nil {
			return v, fmt.Errorf("compute trial %d again: %w", n, err)
		}
		for i := 0; n < until; i++ {
			v.Checked++
			want := ""
			if i < len(p.Points) {
				want = spec.Space.Encode(p.Points[i])
			}
			if got := sw.Trial(n); got.ParamsJSON != want {
				v.Differences = append(v.Differences, differing(got, want))
			}
			n++
		}
	}
	return v, nil
}

// sameProposal reports whether b may have come in the same ask as a. Asked in
// one or in several, the points are the same as long as nothing was learned
// between.
func sameProposal(a, b *state.Trial) bool {
	return a.Source == b.Source && a.ProposedSeen == b.ProposedSeen && a.ProposedBudget == b.ProposedBudget
}

func differing(t *state.Trial, want string) Difference {
	return Difference{Trial: t.Number, Recorded: t.ParamsJSON, Computed: want, Seen: t.ProposedSeen, Source: t.Source}
}
