package search_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"atelier/common/space"
	"atelier/tuner/search"
)

// ended is a history of n random trials with results.
func ended(tb testing.TB, s *space.Space, n int) []search.Trial {
	tb.Helper()
	m := newMethod(tb, search.Random, "", search.Problem{Space: s, Seed: 99})
	got, err := m.Propose(ctx, nil, n)
	if err != nil {
		tb.Fatal(err)
	}
	var history []search.Trial
	for i, p := range got.Points {
		history = append(history, search.Trial{Number: int64(i + 1), Point: p, Status: search.Complete, Value: score(s, p), HasValue: true})
	}
	return history
}

// BenchmarkSuggest measures one proposal after n results, five continuous
// parameters, from an instance that has followed the sweep; the last result is
// new, so a model is fitted.
func BenchmarkSuggest(b *testing.B) {
	s := floats(5, 0, 1)
	for _, m := range but(search.Grid, search.Auto) {
		for _, n := range []int{100, 300, 1000, 5000} {
			b.Run(fmt.Sprintf("%s/%d", title(m.method, m.algorithm), n), func(b *testing.B) {
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

// BenchmarkWideTPE is a whole sweep of 1,000 trials over 40 parameters.
func BenchmarkWideTPE(b *testing.B) {
	s := floats(40, 0, 1)
	spent := processorTime(b)
	for i := 0; i < b.N; i++ {
		m := newMethod(b, search.Bayesian, search.TPE, search.Problem{Space: &s, Seed: uint64(i), Budget: 1000})
		var history []search.Trial
		for len(history) < 1000 {
			got, err := m.Propose(ctx, history, 1)
			if err != nil {
				b.Fatal(err)
			}
			history = tell(history, got, func(p space.Point) search.Trial { return search.Trial{Value: score(&s, p)} })
		}
	}
	b.ReportMetric(float64(processorTime(b)-spent)/1e9/float64(b.N), "cpu-s/sweep")
}

// processorTime is what the process has used of processors, which a loaded
// machine does not stretch as it does the clock.
func processorTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A coordinator asks for one or a few points at a time, with the whole history
// each time: ten thousand trials must not cost the square of that.
func TestLongSweepsStayCheap(t *testing.T) {
	const trials = 10000
	for _, c := range []struct {
		method string
		space  *space.Space
	}{
		{search.Random, wide()},
		{search.Random, &space.Space{Params: []space.Parameter{integer("a", 1, 100), integer("b", 1, 120)}}},
		{search.Grid, &space.Space{Params: []space.Parameter{integer("a", 1, 100), integer("b", 1, 100)}}},
	} {
		m := newMethod(t, c.method, "", search.Problem{Space: c.space, Budget: trials, Parallelism: 4})
		history := make([]search.Trial, 0, trials)
		began := time.Now()
		for len(history) < trials {
			got, err := m.Propose(ctx, history, 4)
			if err != nil || len(got.Points) != 4 {
				t.Fatal(len(got.Points), err)
			}
			for _, p := range got.Points {
				history = append(history, search.Trial{Number: int64(len(history) + 1), Point: p, Status: search.Complete, HasValue: true})
			}
		}
		took := time.Since(began)
		t.Logf("%s: %d trials, four at a time, in %v", c.method, trials, took)
		if took > 10*time.Second {
			t.Errorf("%s: %v for %d trials", c.method, took, trials)
		}
	}
}
