package search_test

import (
	"fmt"
	"testing"

	"atelier/tuner/search"
)

// BenchmarkAxes measures one proposal in spaces of many axes, from an instance
// that has followed the sweep: a tenth as many trials as there are axes, then
// 200 have ended.
func BenchmarkAxes(b *testing.B) {
	for _, axes := range []int{100, 1000} {
		s := floats(axes, 0, 1)
		for _, m := range every[1:7] {
			for _, n := range []int{50, 200} {
				b.Run(fmt.Sprintf("%s/%d/%d", title(m.method, m.algorithm), axes, n), func(b *testing.B) {
					history := ended(b, &s, n)
					method := newMethod(b, m.method, m.algorithm, search.Problem{Space: &s, Seed: 1, Budget: 10000, Parallelism: 1})
					step := func() {
						got, err := method.Propose(ctx, history, 1)
						if err != nil {
							b.Fatal(err)
						}
						p := got.Points[0]
						history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p, Status: search.Complete, Value: score(&s, p), HasValue: true})
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
