package search_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/search"
)

// two objectives pull apart: near a=0 and near a=1; b=0.3 is best for both.
func pull(p space.Point) []float64 {
	x := numbers(p)
	return []float64{x[0]*x[0] + math.Abs(x[1]-0.3), -(1 - (x[0]-1)*(x[0]-1) - math.Abs(x[1]-0.3))}
}

var pulled = []trial.Objective{{Metric: "a"}, {Metric: "b"}}

// several names the methods that learn from several objectives.
var several = []named{
	{search.Genetic, ""}, {search.Bayesian, search.GP}, {search.Bayesian, search.TPE}, {search.Random, ""}, {search.Sobol, ""},
}

func tell(history []search.Trial, p search.Proposal, result func(space.Point) search.Trial) []search.Trial {
	for _, at := range p.Points {
		t := result(at)
		t.Number, t.Point, t.Status, t.HasValue = int64(len(history)+1), at, search.Complete, true
		history = append(history, t)
	}
	return history
}

// volume is the area that a front dominates within [0, 2] x [0, 2].
func volume(history []search.Trial, numbers []int64) float64 {
	var values [][]float64
	for _, n := range numbers {
		values = append(values, history[n-1].Values)
	}
	slices.SortFunc(values, func(a, b []float64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	area, last := 0.0, 2.0
	for _, v := range values {
		if v[0] < 2 && v[1]+1 < last {
			area += (2 - v[0]) * (last - (v[1] + 1))
			last = v[1] + 1
		}
	}
	return area
}

func TestFrontsAreFound(t *testing.T) {
	s := floats(2, 0, 1)
	areas := map[string]float64{}
	for _, m := range several {
		sum := 0.0
		for seed := uint64(1); seed <= 4; seed++ {
			p := search.Problem{Space: &s, Seed: seed, Budget: 40, Objectives: pulled}
			method := newMethod(t, m.method, m.algorithm, p)
			var history []search.Trial
			for len(history) < 40 {
				got, err := method.Propose(ctx, history, 2)
				if err != nil {
					t.Fatal(err)
				}
				history = tell(history, got, func(at space.Point) search.Trial { return search.Trial{Values: pull(at)} })
			}
			sum += volume(history, search.Front(p, history)) / 4
		}
		areas[title(m.method, m.algorithm)] = sum
	}
	t.Log(areas)
	for _, m := range several[:3] {
		if name := title(m.method, m.algorithm); areas[name] < areas["random"]+0.05 {
			t.Errorf("%s dominates %.3f, random %.3f", name, areas[name], areas["random"])
		}
	}
}

func TestConstraintsAreKept(t *testing.T) {
	// The best point is beyond the limit; what is allowed is a quarter of the space.
	s := floats(3, 0, 1)
	p := search.Problem{Space: &s, Budget: 45, Constraints: []trial.Constraint{{Metric: "size", HasMax: true, Max: 0.5}, {Metric: "speed", HasMin: true, Min: 0.5}}}
	result := func(at space.Point) search.Trial {
		x := numbers(at)
		return search.Trial{Value: (1-x[0])*(1-x[0]) + x[1]*x[1] + (x[2]-0.4)*(x[2]-0.4), Constraints: []float64{x[0], x[1]}}
	}
	for _, m := range []struct {
		method, algorithm string
		near              float64
	}{{search.Genetic, "", 0.62}, {search.Bayesian, search.GP, 0.62}, {search.Bayesian, search.TPE, 0.62}, {search.Bayesian, search.CMAES, 0.8}} {
		good := 0
		for seed := uint64(1); seed <= 4; seed++ {
			p.Seed = seed
			method := newMethod(t, m.method, m.algorithm, p)
			var history []search.Trial
			for len(history) < 45 {
				got, err := method.Propose(ctx, history, 3)
				if err != nil {
					t.Fatal(err)
				}
				history = tell(history, got, result)
			}
			best := search.Front(p, history)
			if len(best) == 0 {
				continue
			}
			if v := history[best[0]-1].Value; v < 0.5 { // without constraints 0, at the corner of the limits
				t.Errorf("%v: %v is not allowed", m, v)
			} else if v < m.near {
				good++
			}
		}
		if good < 3 {
			t.Errorf("%s %s: near the best allowed point in %d of 4 runs", m.method, m.algorithm, good)
		}
	}
}

// Results of all sorts, with several objectives and constraints: proposals stay
// in the space, differ, and are a function of the history.
func TestObjectivesAndConstraintsConform(t *testing.T) {
	for _, m := range but(search.CMAES) {
		t.Run(title(m.method, m.algorithm), func(t *testing.T) {
			s := spaceFor(m.method)
			p := search.Problem{Space: s, Seed: 4, Budget: 40, Parallelism: 4, Objectives: pulled,
				Constraints: []trial.Constraint{{Metric: "c", HasMax: true, Max: 1, HasMin: true, Min: -1}}}
			run := func(chunk int, fresh bool) []string {
				method := newMethod(t, m.method, m.algorithm, p)
				var history []search.Trial
				for len(history) < 40 {
					if fresh {
						method = newMethod(t, m.method, m.algorithm, p)
					}
					from := len(history)
					for len(history)-from < 4 {
						got, err := method.Propose(ctx, history, chunk)
						if err != nil || len(got.Points) != chunk {
							t.Fatalf("%+v, %v", got, err)
						}
						for _, at := range got.Points {
							if err := s.Check(at); err != nil {
								t.Fatal(err)
							}
							history = append(history, search.Trial{Number: int64(len(history) + 1), Point: at})
						}
					}
					for i := from; i < len(history); i++ {
						r := &history[i]
						v := score(s, r.Point)
						r.Status, r.HasValue, r.Values, r.Constraints = search.Complete, true, []float64{v, -v}, []float64{v - 1}
						switch r.Number % 9 {
						case 1:
							r.Values = []float64{1}
						case 3:
							r.Values[1] = math.NaN()
						case 5:
							r.Constraints = nil
						case 7:
							r.Status = search.Failed
						case 8:
							r.Constraints[0] = math.Inf(1)
						}
					}
				}
				return encoded(s, history)
			}
			want := run(4, false)
			if got := run(1, true); !slices.Equal(got, want) {
				t.Errorf("asked one by one of fresh instances:\n%s\nof one, in chunks:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestFront(t *testing.T) {
	one := func(n int64, values ...float64) search.Trial {
		return search.Trial{Number: n, Status: search.Complete, HasValue: true, Values: values, Value: values[0]}
	}
	history := []search.Trial{one(1, 3, 3), one(2, 1, 5), one(3, 5, 1), one(4, 3, 3), one(5, 4, 4), one(6, math.NaN(), 0), one(7, 0, 0), one(8, 1, 6)}
	history[6].Status = search.Failed
	p := search.Problem{Objectives: pulled}
	if got := search.Front(p, history); !slices.Equal(got, []int64{1, 2, 3, 4}) {
		t.Error(got)
	}
	p.Objectives = []trial.Objective{{Metric: "a"}, {Metric: "b", Maximize: true}}
	if got := search.Front(p, history); !slices.Equal(got, []int64{8}) {
		t.Error(got)
	}
	p = search.Problem{Constraints: []trial.Constraint{{HasMin: true, Min: 2}}}
	for i := range history {
		history[i].Constraints = []float64{float64(i)}
	}
	if got := search.Front(p, history); !slices.Equal(got, []int64{8}) { // 1; trial 2 had 1 too, and is not allowed
		t.Error(got)
	}
	if got := search.Front(p, history[:2]); got != nil {
		t.Error(got)
	}
}

func TestNoAnswer(t *testing.T) {
	p := search.Problem{Objectives: []trial.Objective{{Metric: "acc"}}, Constraints: []trial.Constraint{{Metric: "ms", HasMax: true, Max: 5}}}
	history := []search.Trial{
		{Number: 1, Status: search.Complete, HasValue: true, Value: 1, Constraints: []float64{9}},
		{Number: 2, Status: search.Complete, HasValue: true, Value: 2, Constraints: []float64{6}},
		{Number: 3, Status: search.Complete, HasValue: true, Value: 3},
	}
	if got := search.NoAnswer(p, history); !strings.Contains(got, `none of 3 trials met the constraints; trial 2 came nearest: "ms" was 6, above max 5`) {
		t.Error(got)
	}
	if got := search.NoAnswer(search.Problem{}, history); got != "" {
		t.Error(got)
	}
	for i := range history {
		history[i].Value = math.NaN()
	}
	if got := search.NoAnswer(p, history); !strings.Contains(got, `none of 3 trials reported a finite value of "acc"`) {
		t.Error(got)
	}
	for i := range history {
		history[i].Status = search.Failed
	}
	if got := search.NoAnswer(p, history); !strings.Contains(got, "all of 3 trials failed") {
		t.Error(got)
	}
	if got := search.NoAnswer(p, nil); got != "" {
		t.Error(got)
	}
}
