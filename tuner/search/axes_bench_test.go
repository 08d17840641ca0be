package search_test

import (
	"fmt"
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
		mixed := floats(axes, 0, 1)
		for i := range mixed.Params {
			switch i % 3 {
			case 1:
				mixed.Params[i] = integer(mixed.Params[i].Name, 1, 50)
			case 2:
				mixed.Params[i] = choice(mixed.Params[i].Name, "a", "b", "c", "d")
			}
		}
		for k, s := range []*space.Space{&continuous, &mixed} {
			for _, m := range every[1:7] {
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
