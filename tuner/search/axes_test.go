package search_test

import (
	"fmt"
	"math"
	"testing"

	"atelier/common/space"
	"atelier/tuner/search"
)

// BenchmarkAxes measures one proposal in spaces of many axes, numbers or a mix
// with integers and categories, after so many results, from an instance that has
// followed the sweep.
func BenchmarkAxes(b *testing.B) {
	for _, axes := range []int{100, 1000} {
		continuous := floats(axes, 0, 1)
		mixed := mixedAxes(axes)
		for k, s := range []*space.Space{&continuous, &mixed} {
			for _, m := range but(search.Grid, search.Auto) {
				for _, n := range []int{50, 350} {
					b.Run(fmt.Sprintf("%s/%d/%s/%d", title(m.method, m.algorithm), axes, []string{"floats", "mixed"}[k], n), func(b *testing.B) {
						history := ended(b, s, n)
						method := newMethod(b, m.method, m.algorithm, search.Problem{Space: s, Seed: 1, Budget: 10000, Parallelism: 1})
						step := func() {
							got, err := method.Propose(ctx, history, 1)
							if err != nil {
								b.Fatal(err)
							}
							history = tell(history, got, func(p space.Point) search.Trial { return search.Trial{Value: score(s, p)} })
						}
						step()
						b.ResetTimer()
						spent := processorTime(b)
						for i := 0; i < b.N; i++ {
							step()
						}
						b.ReportMetric(float64(processorTime(b)-spent)/1e6/float64(b.N), "cpu-ms/op")
					})
				}
			}
		}
	}
}

// mixedAxes is a third each of floats, integers and categories.
func mixedAxes(axes int) space.Space {
	s := floats(axes, 0, 1)
	for i := range s.Params {
		switch i % 3 {
		case 1:
			s.Params[i] = integer(s.Params[i].Name, 1, 50)
		case 2:
			s.Params[i] = choice(s.Params[i].Name, "a", "b", "c", "d")
		}
	}
	return s
}

// BenchmarkManyAxes reports how good the best of many axes is, the geometric
// mean over seeds, halfway and at the end.
func BenchmarkManyAxes(b *testing.B) {
	at := func(i int) float64 { return math.Mod(float64(i)*0.618, 1) }
	for _, c := range []struct {
		name          string
		axes          []int
		mixed         bool
		seeds, trials int
		value         func(u []float64) float64
	}{
		{"sphere", []int{40}, false, 3, 200, func(u []float64) (v float64) {
			for i, x := range u {
				v += math.Pow(x-0.2-0.6*at(i), 2)
			}
			return v
		}},
		{"ellipsoid", []int{40, 100}, false, 3, 200, func(u []float64) (v float64) {
			for i, x := range u {
				v += math.Pow(x-0.2-0.6*at(i), 2) * math.Pow(1000, math.Mod(float64(i)*0.414, 1))
			}
			return v
		}},
		{"rosenbrock", []int{40, 100}, false, 3, 200, func(u []float64) (v float64) {
			for i := range len(u) - 1 {
				x, y := 4*u[i]-2, 4*u[i+1]-2
				v += 100*math.Pow(y-x*x, 2) + math.Pow(1-x, 2)
			}
			return v
		}},
		{"mixed", []int{60, 100}, true, 2, 150, func(u []float64) (v float64) {
			for i, x := range u {
				off := math.Pow(x-at(i), 2)
				if i%3 == 2 {
					off = 0.1 * math.Abs(math.Floor(4*x)-math.Floor(4*at(i)))
				}
				v += off * math.Pow(30, math.Mod(float64(i)*0.414, 1))
			}
			return v
		}},
	} {
		for _, axes := range c.axes {
			s := floats(axes, 0, 1)
			if c.mixed {
				s = mixedAxes(axes)
			}
			for _, m := range but(search.Grid, search.Random, search.Sobol, search.Auto) {
				b.Run(fmt.Sprintf("%s/%d/%s", c.name, axes, title(m.method, m.algorithm)), func(b *testing.B) {
					first, last := 0.0, 0.0
					for range b.N {
						first, last = 0, 0
						for seed := range c.seeds {
							history := grown(b, newMethod(b, m.method, m.algorithm, search.Problem{Space: &s, Seed: uint64(seed), Budget: 1000}), c.trials,
								func(p space.Point) float64 { return c.value(s.Unit(p)) })
							best := math.Inf(1)
							for i, h := range history {
								best = math.Min(best, h.Value)
								if i+1 == 100 {
									first += math.Log(best) / float64(c.seeds)
								}
							}
							last += math.Log(best) / float64(c.seeds)
						}
					}
					b.ReportMetric(math.Exp(first), "at-100")
					b.ReportMetric(math.Exp(last), "at-end")
				})
			}
		}
	}
}
