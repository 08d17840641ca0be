package search_test

import (
	"fmt"
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/tuner/search"
)

func TestCatalogRefuses(t *testing.T) {
	for _, c := range []struct {
		method, algorithm string
		space             *space.Space
		want              string
	}{
		{"simplex", "", finite(), "grid_search, bayesian, genetic, random, sobol"},
		{search.Bayesian, "forest", finite(), "auto, gp, tpe, cmaes"},
		{search.Random, "", nil, "no parameter"},
		{search.Random, "", &space.Space{}, "no parameter"},
		{search.Grid, "", wide(), "float without step"},
	} {
		_, err := search.New(c.method, c.algorithm, search.Problem{Space: c.space})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v; want %q in it", c.method, c.algorithm, err, c.want)
		}
	}
}

func TestResolve(t *testing.T) {
	few, many := floats(5, 0, 1), floats(140, 0, 1)
	for _, c := range []struct {
		method, algorithm string
		space             *space.Space
		budget            int64
		want              string
	}{
		{search.Bayesian, search.Auto, &few, 40, search.GP}, {search.Bayesian, "", &few, 200, search.GP},
		{search.Bayesian, search.Auto, &few, 5000, search.Both}, {search.Bayesian, search.Auto, &few, 0, search.Both},
		{search.Bayesian, search.Auto, &many, 40, search.TPE}, {search.Bayesian, search.CMAES, &few, 40, search.CMAES},
		{search.Random, search.Auto, &few, 40, ""},
	} {
		if got := search.Resolve(c.method, c.algorithm, search.Problem{Space: c.space, Budget: c.budget}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// gp+tpe is gp at first and tpe in a long sweep.
func TestHandOver(t *testing.T) {
	s := floats(3, 0, 1)
	for _, c := range []struct {
		trials int
		like   string
	}{{499, search.GP}, {500, search.TPE}} {
		history := ended(t, &s, c.trials)
		p := search.Problem{Space: &s, Seed: 5, Budget: 1000}
		got, err := newMethod(t, search.Bayesian, search.Both, p).Propose(ctx, history, 1)
		if err != nil {
			t.Fatal(err)
		}
		want, err := newMethod(t, search.Bayesian, c.like, p).Propose(ctx, history, 1)
		if err != nil || !got.Points[0].Equal(want.Points[0]) {
			t.Errorf("trial %d is not that of %s: %v", c.trials+1, c.like, err)
		}
	}
}

// A budget that is extended, or another parallelism, changes no proposal.
func TestBudgetAndParallelismChangeNoProposal(t *testing.T) {
	forEvery(t, func(t *testing.T, method, algorithm string) {
		s := spaceFor(method)
		p := search.Problem{Space: s, Seed: 31, Budget: 30, Parallelism: 2}
		want := encoded(s, record(t, newMethod(t, method, algorithm, p), s, 30, 2, 2, nil))
		p.Budget, p.Parallelism = 5000, 64
		got := encoded(s, record(t, newMethod(t, method, algorithm, p), s, 30, 2, 2, nil))
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Error("the proposals differ")
		}
	})
}

// A grid is early everywhere: its first points touch every value of every axis.
func TestGridOrder(t *testing.T) {
	for _, sizes := range [][]float64{{4, 4, 4}, {3, 2, 4}, {10, 10}, {2, 2, 2, 2, 2, 2}, {7, 5, 3}, {100, 100}} {
		s := &space.Space{}
		points, longest := 1, 0
		for i, n := range sizes {
			s.Params = append(s.Params, integer(fmt.Sprint("p", i), 1, n))
			points *= int(n)
			longest = max(longest, int(n))
		}
		m := newMethod(t, search.Grid, "", search.Problem{Space: s})
		got, err := m.Propose(ctx, nil, points+1)
		if err != nil || len(got.Points) != points || !got.Exhausted {
			t.Fatalf("%v: %d points, %v", sizes, len(got.Points), err)
		}
		touched := map[string]bool{}
		values := 0.0
		for i, n := range sizes {
			values += n
			for _, p := range got.Points[:min(points, 4*longest)] {
				touched[fmt.Sprint(i, p[i])] = true
			}
		}
		if float64(len(touched)) < values {
			t.Errorf("%v: the first %d points touch %d of %v values", sizes, 4*longest, len(touched), values)
		}
	}
}

// Trials have streams of their own: random search is even on every axis.
func TestRandomIsEven(t *testing.T) {
	s := floats(3, 0, 1)
	got, err := newMethod(t, search.Random, "", search.Problem{Space: &s, Seed: 8}).Propose(ctx, nil, 2000)
	if err != nil {
		t.Fatal(err)
	}
	for j := range s.Params {
		var tenths [10]int
		for _, p := range got.Points {
			u, _ := p[j].Float()
			tenths[min(9, int(10*u))]++
		}
		for k, n := range tenths {
			if n < 150 || n > 250 { // 200 expected, standard deviation 13
				t.Errorf("axis %d: %d of 2000 draws in tenth %d", j, n, k)
			}
		}
	}
}
