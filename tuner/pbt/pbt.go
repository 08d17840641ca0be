// Package pbt is population-based training as a search method: segments of
// trainings that go on from one another's checkpoints.
//
// A proposal is a pure function of the problem and the history, as search asks
// for. The package refuses to remember who follows whom: numbers say it.
package pbt

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/tuner/search"
)

// Name of the search method in a spec.
const Name = "pbt"

// Settings of a population, as a spec has them.
type Settings spec.Population

// Default settings; Interval and Epochs have none.
func Default() Settings { return Settings{Share: 0.25, Perturb: 0.1} }

// Segments is how many segments a member trains.
func (s Settings) Segments() int64 { return int64((s.Epochs + s.Interval - 1) / s.Interval) }

// New returns the method for a problem, whose parallelism is the number of
// members.
func New(p search.Problem, s Settings) (search.Method, error) {
	switch {
	case p.Parallelism < 2:
		return nil, fmt.Errorf("pbt: a population of %d; parallelism must be 2 or more", p.Parallelism)
	case s.Interval < 1 || s.Epochs < s.Interval:
		return nil, fmt.Errorf("pbt: segments of %d of %d epochs", s.Interval, s.Epochs)
	case !(s.Share > 0 && s.Share <= 0.5) || !(s.Perturb > 0 && s.Perturb <= 1):
		return nil, fmt.Errorf("pbt: share %g, perturb %g", s.Share, s.Perturb)
	case len(p.Warm) > 0:
		return nil, fmt.Errorf("pbt: a history of %d trials to start from; its members begin from scratch", len(p.Warm))
	}
	random, err := search.New(search.Random, "", p)
	if err != nil {
		return nil, err
	}
	return &population{problem: p, set: s, random: random}, nil
}

type population struct {
	problem search.Problem
	set     Settings
	random  search.Method
}

// Propose implements search.Method.
func (m *population) Propose(ctx context.Context, history []search.Trial, n int) (search.Proposal, error) {
	members := m.problem.Parallelism
	known := int64(len(history))
	if known < members {
		return m.begin(ctx, history, int(min(int64(n), members-known)))
	}
	var out search.Proposal
	total := members * m.set.Segments()
	for k := known + 1; k <= total && len(out.Points) < n; k++ {
		if k-members > known || history[k-members-1].Status == search.Open {
			break // its member still trains the segment before
		}
		point, origin := m.follow(history, k)
		out.Points = append(out.Points, point)
		out.Origins = append(out.Origins, origin)
	}
	out.Exhausted = known >= total // asked for more than there is: a budget beyond the last segment
	return out, nil
}

// begin proposes first segments: points of random search, and where the space
// has fewer than there are members, the same again.
func (m *population) begin(ctx context.Context, history []search.Trial, n int) (search.Proposal, error) {
	out, err := m.random.Propose(ctx, history, n)
	if err != nil {
		return out, err
	}
	for k := len(history) + len(out.Points) + 1; len(out.Points) < n; k++ {
		out.Points = append(out.Points, m.anywhere(m.stream(int64(k))))
	}
	out.Exhausted = false
	return out, nil
}

// stream is trial k's own source of randomness.
func (m *population) stream(k int64) *rand.Rand {
	return rand.New(rand.NewPCG(m.problem.Seed, uint64(k)*0x9e3779b97f4a7c15))
}

// anywhere draws a point of the space.
func (m *population) anywhere(r *rand.Rand) space.Point {
	u := make([]float64, len(m.problem.Space.Params))
	for i := range u {
		u[i] = r.Float64()
	}
	return m.problem.Space.FromUnit(u)
}

// follow makes trial k out of those before it.
func (m *population) follow(history []search.Trial, k int64) (space.Point, trial.Origin) {
	before := &history[k-m.problem.Parallelism-1]
	ranked := m.ranked(history, before.Number)
	some := max(1, int(float64(len(ranked))*m.set.Share))
	at := slices.Index(ranked, before)
	// One that is as good as the best is none of the worst, though equal members
	// have to stand in some order.
	if valued(before) && (at < len(ranked)-some || m.compare(before, ranked[some-1]) <= 0) {
		return before.Point.Clone(), m.origin(before)
	}
	r := m.stream(k)
	best := ranked[r.IntN(some)]
	if !valued(best) {
		// No member has a value yet: begin anew elsewhere.
		return m.anywhere(r), trial.Origin{}
	}
	return m.explore(best.Point, r), m.origin(best)
}

// origin is the checkpoint at the end of a segment. A run ends there by itself;
// one of a version that had to be told in time may have trained on, and who goes
// on from there would have nothing left to train.
func (m *population) origin(t *search.Trial) trial.Origin {
	round := (t.Number - 1) / m.problem.Parallelism
	end := min((round+1)*int64(m.set.Interval), int64(m.set.Epochs))
	return trial.Origin{Trial: t.Number, Epoch: int32(min(t.Epoch, int(end)))}
}

// ranked lists the members' last ended segments, best first, none of a later
// round than that of trial n. That of n's member is n itself.
func (m *population) ranked(history []search.Trial, n int64) []*search.Trial {
	members := m.problem.Parallelism
	round := (n - 1) / members
	var out []*search.Trial
	for member := range members {
		for r := round; r >= 0; r-- {
			if i := r*members + member; i < int64(len(history)) && history[i].Status != search.Open {
				out = append(out, &history[i])
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b *search.Trial) int {
		return cmp.Or(m.compare(a, b), cmp.Compare(a.Number, b.Number))
	})
	return out
}

func valued(t *search.Trial) bool {
	return t.Status == search.Complete && t.HasValue && !math.IsNaN(t.Value) && !math.IsInf(t.Value, 0) && t.Epoch > 0
}

func (m *population) compare(a, b *search.Trial) int {
	switch {
	case valued(a) != valued(b):
		if valued(a) {
			return -1
		}
		return 1
	case !valued(a):
		return 0
	case m.problem.Maximize:
		return cmp.Compare(b.Value, a.Value)
	}
	return cmp.Compare(a.Value, b.Value)
}

// explore moves every number of a point along its axis, up or down.
func (m *population) explore(p space.Point, r *rand.Rand) space.Point {
	out := p.Clone()
	for i := range m.problem.Space.Params {
		a := &m.problem.Space.Params[i]
		up := r.IntN(2) == 0 // drawn for every parameter, so that one more condition changes no other draw
		if a.Kind == space.KindCategorical || out[i].IsAbsent() {
			continue
		}
		step := m.set.Perturb
		if n, finite := a.Cells(); finite {
			step = max(step, 1/float64(n))
		}
		if !up {
			step = -step
		}
		u := a.ToUnit(out[i])
		if u+step < 0 || u+step > 1 {
			step = -step
		}
		out[i] = a.FromUnit(u + step)
	}
	return m.problem.Space.Canonical(out)
}
