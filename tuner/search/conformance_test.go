package search_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/tuner/search"
)

type named struct{ method, algorithm string }

// every method of the catalog, and of bayesian each algorithm.
var every = func() (all []named) {
	for _, m := range search.Methods {
		if m != search.Bayesian {
			all = append(all, named{m, ""})
			continue
		}
		for _, a := range search.Algorithms {
			all = append(all, named{m, a})
		}
	}
	return all
}()

// but leaves out of every what has one of these names, as method or algorithm.
func but(names ...string) (some []named) {
	for _, m := range every {
		if !slices.Contains(names, m.method) && !slices.Contains(names, m.algorithm) {
			some = append(some, m)
		}
	}
	return some
}

func title(method, algorithm string) string { return strings.TrimSpace(method + " " + algorithm) }

var sgd = []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}

// finite has every kind of finite axis, and conditions: 5*(2*3+1)*4*3*2 points.
func finite() *space.Space {
	return &space.Space{Params: []space.Parameter{
		{Name: "layers", Kind: space.KindInt, Low: 1, High: 5},
		choice("optimizer", "sgd", "adam"),
		{Name: "momentum", Kind: space.KindFloat, Low: 0.5, High: 0.9, Step: 0.2, When: sgd},
		{Name: "nesterov", Kind: space.KindCategorical, Choices: []space.Value{space.Bool(true), space.Bool(false)}, When: sgd},
		{Name: "width", Kind: space.KindInt, Low: 1, High: 8, Log: true, Values: []space.Value{space.Int(1), space.Int(2), space.Int(4), space.Int(8)}},
		{Name: "batch", Kind: space.KindInt, Low: 16, High: 48, Step: 16},
		{Name: "rate", Kind: space.KindFloat, Low: 0.01, High: 0.1, Values: []space.Value{space.Float(0.01), space.Float(0.1)}},
	}}
}

// wide has every kind of axis, and conditions; grid_search cannot take it.
func wide() *space.Space {
	s := finite()
	s.Params = append(s.Params, logFloat("lr", 1e-5, 1e-1), float("dropout", 0, 0.5),
		space.Parameter{Name: "units", Kind: space.KindInt, Low: 1, High: 1000, Log: true},
		space.Parameter{Name: "damping", Kind: space.KindFloat, Low: 0, High: 1, When: sgd})
	return s
}

func spaceFor(method string) *space.Space {
	if method == search.Grid {
		return finite()
	}
	return wide()
}

func newMethod(t testing.TB, method, algorithm string, p search.Problem) search.Method {
	t.Helper()
	m, err := search.New(method, algorithm, p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// score is a value that depends on every active parameter.
func score(s *space.Space, p space.Point) float64 {
	sum := 0.0
	for i, u := range s.Unit(p) {
		sum += (u - 0.37) * (u - 0.37) * float64(1+i%3)
	}
	return sum
}

// life gives trials results of all sorts, by number.
func life(s *space.Space, t *search.Trial) {
	t.Value, t.HasValue, t.Status, t.Epoch = score(s, t.Point), true, search.Complete, 3
	switch t.Number % 11 {
	case 3:
		t.Status, t.HasValue = search.Failed, false
	case 5:
		t.Status, t.Value = search.Diverged, math.NaN()
	case 7:
		t.Value = math.Inf(1)
	case 8:
		t.Status, t.HasValue = search.Cancelled, false
	case 9:
		t.HasValue = false
	}
}

// record runs a sweep with open trials ending out of order, asking in chunks
// of at most chunk, and returns the history; at every ask it hands check the
// history and what was proposed.
func record(t *testing.T, m search.Method, s *space.Space, trials, open, chunk int, check func(history []search.Trial, got search.Proposal, asked int)) []search.Trial {
	t.Helper()
	var history []search.Trial
	var running []int
	order := rand.New(rand.NewPCG(1, 2))
	for len(history) < trials || len(running) > 0 {
		for room := min(open-len(running), trials-len(history)); room > 0; {
			n := min(room, chunk)
			got, err := m.Propose(ctx, history, n)
			if err != nil {
				t.Fatal(err)
			}
			if check != nil {
				check(history, got, n)
			}
			if len(got.Points) == 0 {
				break
			}
			for _, p := range got.Points {
				running = append(running, len(history))
				history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p})
			}
			room -= len(got.Points)
		}
		if len(running) == 0 {
			break
		}
		k := order.IntN(len(running))
		life(s, &history[running[k]])
		running = append(running[:k], running[k+1:]...)
	}
	return history
}

func encoded(s *space.Space, history []search.Trial) []string {
	var out []string
	for _, t := range history {
		out = append(out, s.Encode(t.Point))
	}
	return out
}

func forEvery(t *testing.T, f func(t *testing.T, method, algorithm string)) {
	for _, m := range every {
		t.Run(title(m.method, m.algorithm), func(t *testing.T) { f(t, m.method, m.algorithm) })
	}
}

// Bounds, types and absent inactive parameters, with results of all sorts.
func TestPointsBelongToTheSpace(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		m := newMethod(t, method, algorithm, search.Problem{Space: s, Seed: 5, Budget: 70, Parallelism: 4})
		record(t, m, s, 70, 4, 4, func(_ []search.Trial, got search.Proposal, asked int) {
			if len(got.Points) != asked || got.Exhausted {
				t.Fatalf("asked for %d, got %+v", asked, got)
			}
			for _, p := range got.Points {
				if err := s.Check(p); err != nil {
					t.Fatal(err)
				}
				if back, err := s.Decode(s.Encode(p)); err != nil || !back.Equal(p) {
					t.Fatalf("%s does not read back: %v", s.Encode(p), err)
				}
			}
		})
	})
}

// The same history gives the same proposals: from a fresh instance at every
// ask, and whatever the size of the chunks.
func TestProposalsAreAFunctionOfTheHistory(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		p := search.Problem{Space: s, Seed: 11, Budget: 60, Parallelism: 5}
		want := encoded(s, record(t, newMethod(t, method, algorithm, p), s, 60, 5, 5, nil))
		ones := encoded(s, record(t, newMethod(t, method, algorithm, p), s, 60, 5, 1, nil))
		fresh := encoded(s, record(t, freshly{t, method, algorithm, p}, s, 60, 5, 2, nil))
		for i := range want {
			if ones[i] != want[i] {
				t.Fatalf("trial %d: %s when asked one by one, %s in chunks", i+1, ones[i], want[i])
			}
			if fresh[i] != want[i] {
				t.Fatalf("trial %d: %s from a fresh instance, %s from one that lived on", i+1, fresh[i], want[i])
			}
		}
		p.Seed = 12
		other := encoded(s, record(t, newMethod(t, method, algorithm, p), s, 60, 5, 5, nil))
		if method != search.Grid && strings.Join(other, "") == strings.Join(want, "") {
			t.Error("another seed gives the same sweep")
		}
	})
}

// freshly is a Method that is made anew for every ask, and hands over a copy
// of the history.
type freshly struct {
	t                 *testing.T
	method, algorithm string
	problem           search.Problem
}

func (f freshly) Propose(ctx context.Context, history []search.Trial, n int) (search.Proposal, error) {
	var copied []search.Trial
	for _, t := range history {
		t.Point = t.Point.Clone()
		copied = append(copied, t)
	}
	return newMethod(f.t, f.method, f.algorithm, f.problem).Propose(ctx, copied, n)
}

// One instance that is asked about unlike histories in turn answers each as a
// fresh one would.
func TestCachesDoNotLeak(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		p := search.Problem{Space: s, Seed: 3, Budget: 200, Parallelism: 4}
		a := record(t, newMethod(t, method, algorithm, p), s, 30, 4, 4, nil)
		p2 := p
		p2.Seed = 4
		b := record(t, newMethod(t, search.Random, "", p2), s, 40, 4, 4, nil)
		one := newMethod(t, method, algorithm, p)
		for round, history := range [][]search.Trial{a, b, a[:20], b[:35], nil, a, a} {
			got, err := one.Propose(ctx, history, 3)
			if err != nil {
				t.Fatal(err)
			}
			want, err := newMethod(t, method, algorithm, p).Propose(ctx, history, 3)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want.Points {
				if !got.Points[i].Equal(want.Points[i]) {
					t.Fatalf("round %d, point %d: %s, want %s", round, i, s.Encode(got.Points[i]), s.Encode(want.Points[i]))
				}
			}
		}
	})
}

// Every point of a small space is proposed once, at any parallelism, whatever
// the results; then the space is exhausted.
func TestSmallSpacesAreUsedUpWithoutRepeats(t *testing.T) {
	small := &space.Space{Params: []space.Parameter{
		{Name: "a", Kind: space.KindInt, Low: 1, High: 4}, choice("optimizer", "sgd", "adam"),
		{Name: "m", Kind: space.KindFloat, Low: 0, High: 1, Step: 0.25, When: sgd}, choice("c", "x", "y"),
	}}
	const points = 4 * (5 + 1) * 2
	forEvery(t, func(t *testing.T, method, algorithm string) {
		for _, open := range []int{1, 3, 16, 100} {
			m := newMethod(t, method, algorithm, search.Problem{Space: small, Seed: 9, Parallelism: int64(open)})
			seen := map[string]bool{}
			history := record(t, m, small, points+10, open, open, func(history []search.Trial, got search.Proposal, asked int) {
				for _, p := range got.Points {
					if key := small.Encode(p); seen[key] {
						t.Fatalf("%d open: %s is proposed twice, after %d trials", open, key, len(history))
					} else {
						seen[key] = true
					}
				}
				if done := len(history)+len(got.Points) == points; got.Exhausted != done {
					t.Fatalf("%d open: exhausted is %v at %d of %d points", open, got.Exhausted, len(history)+len(got.Points), points)
				}
			})
			if len(history) != points {
				t.Fatalf("%d open: %d trials, want %d", open, len(history), points)
			}
		}
	})
}

func TestOnePointSpace(t *testing.T) {
	one := &space.Space{Params: []space.Parameter{{Name: "x", Kind: space.KindFloat, Low: 2, High: 2}, choice("c", "only")}}
	forEvery(t, func(t *testing.T, method, algorithm string) {
		m := newMethod(t, method, algorithm, search.Problem{Space: one, Budget: 10})
		got, err := m.Propose(ctx, nil, 5)
		if err != nil || len(got.Points) != 1 || !got.Exhausted || one.Encode(got.Points[0]) != `{"x":2,"c":"only"}` {
			t.Fatalf("%+v, %v", got, err)
		}
		got, err = m.Propose(ctx, []search.Trial{{Number: 1, Point: got.Points[0]}}, 5)
		if err != nil || len(got.Points) != 0 || !got.Exhausted {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

func TestThousandChoices(t *testing.T) {
	p := space.Parameter{Name: "style", Kind: space.KindCategorical}
	for i := int64(0); i < 1000; i++ {
		p.Choices = append(p.Choices, space.Int(i))
	}
	s := &space.Space{Params: []space.Parameter{p}}
	forEvery(t, func(t *testing.T, method, algorithm string) {
		m := newMethod(t, method, algorithm, search.Problem{Space: s, Seed: 1, Budget: 40, Parallelism: 3})
		if history := record(t, m, s, 40, 3, 3, nil); len(history) != 40 {
			t.Fatalf("%d trials", len(history))
		}
	})
}

func TestAllResultsEqualAndAllFailed(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		for _, status := range []search.Status{search.Complete, search.Failed, search.Diverged, search.Cancelled} {
			m := newMethod(t, method, algorithm, search.Problem{Space: s, Seed: 2, Budget: 60})
			var history []search.Trial
			seen := map[string]bool{}
			for len(history) < 40 {
				got, err := m.Propose(ctx, history, 2)
				if err != nil || len(got.Points) != 2 {
					t.Fatalf("status %d after %d trials: %+v, %v", status, len(history), got, err)
				}
				for _, p := range got.Points {
					seen[s.Encode(p)] = true
					history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p, Status: status, Value: 1.5, HasValue: status == search.Complete})
				}
			}
			if len(seen) != 40 {
				t.Errorf("status %d: %d distinct points of 40", status, len(seen))
			}
		}
	})
}

func TestBudget(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		m := newMethod(t, method, algorithm, search.Problem{Space: s, Budget: 10})
		history := record(t, m, s, 10, 10, 10, nil)
		got, err := m.Propose(ctx, history[:7], 100)
		if err != nil || len(got.Points) != 3 || got.Exhausted {
			t.Errorf("%d points, exhausted %v, %v; want 3 and not exhausted", len(got.Points), got.Exhausted, err)
		}
		got, err = m.Propose(ctx, history, 1)
		if err != nil || len(got.Points) != 0 || got.Exhausted {
			t.Errorf("beyond the budget: %+v, %v", got, err)
		}
	})
}

func TestMaximizeMirrorsMinimize(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		var runs [2][]string
		for k, sign := range []float64{1, -1} {
			m := newMethod(t, method, algorithm, search.Problem{Space: s, Seed: 21, Budget: 40, Maximize: sign < 0})
			var history []search.Trial
			for len(history) < 40 {
				got, err := m.Propose(ctx, history, 1)
				if err != nil {
					t.Fatal(err)
				}
				p := got.Points[0]
				history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p, Status: search.Complete, Value: sign * score(s, p), HasValue: true})
			}
			runs[k] = encoded(s, history)
		}
		for i := range runs[0] {
			if runs[0][i] != runs[1][i] {
				t.Fatalf("trial %d: %s minimising, %s maximising the negative", i+1, runs[0][i], runs[1][i])
			}
		}
	})
}

// Points of another space in the history teach nothing and break nothing.
func TestForeignHistory(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		m := newMethod(t, method, algorithm, search.Problem{Space: s, Seed: 2, Budget: 100})
		var history []search.Trial
		for i := int64(1); i <= 30; i++ {
			p := space.Point{space.Int(i), space.String("stranger")}
			if i%2 == 0 {
				p = make(space.Point, len(s.Params))
			}
			history = append(history, search.Trial{Number: i, Point: p, Status: search.Complete, Value: float64(i), HasValue: true})
		}
		got, err := m.Propose(ctx, history, 4)
		if err != nil || len(got.Points) != 4 {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, p := range got.Points {
			if err := s.Check(p); err != nil {
				t.Error(err)
			}
		}
		if _, err := m.Propose(ctx, []search.Trial{{Number: 2, Point: got.Points[0]}}, 1); err == nil || !strings.Contains(err.Error(), "dense") {
			t.Errorf("a history that starts at trial 2: %v", err)
		}
	})
}

func TestParallelAsksKeepApart(t *testing.T) {
	s := floats(3, 0, 1)
	forEvery(t, func(t *testing.T, method, algorithm string) {
		switch {
		case method == search.Grid:
			t.Skip("a grid of floats is no continuous space")
		case algorithm == search.Auto:
			t.Skip("auto is gp here, which has its own turn")
		}
		m := newMethod(t, method, algorithm, search.Problem{Space: &s, Seed: 6, Budget: 300, Parallelism: 200})
		var history []search.Trial
		for i := int64(1); i <= 20; i++ {
			p := s.FromUnit([]float64{float64(i%5) / 5, float64(i%7) / 7, float64(i%3) / 3})
			history = append(history, search.Trial{Number: i, Point: p, Status: search.Complete, Value: score(&s, p), HasValue: true})
		}
		asks := 200
		if testing.Short() {
			asks = 40
		}
		got, err := m.Propose(ctx, history, asks)
		if err != nil || len(got.Points) != asks {
			t.Fatalf("%d points, %v", len(got.Points), err)
		}
		for i, p := range got.Points {
			for _, q := range got.Points[:i] {
				far := 0.0
				for j, u := range s.Unit(p) {
					far = math.Max(far, math.Abs(u-s.Unit(q)[j]))
				}
				if far < 1e-9 {
					t.Fatalf("points %s and %s", s.Encode(p), s.Encode(q))
				}
			}
		}
	})
}

func TestCancelledContext(t *testing.T) {
	gone, cancel := context.WithCancel(ctx)
	cancel()
	forEvery(t, func(t *testing.T, method, algorithm string) {
		m := newMethod(t, method, algorithm, search.Problem{Space: spaceFor(method), Budget: 10})
		if _, err := m.Propose(gone, nil, 1); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
