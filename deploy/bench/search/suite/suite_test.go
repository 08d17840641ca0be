package suite_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"atelier/common/space"
	"atelier/deploy/bench/search/landscape"
	"atelier/deploy/bench/search/suite"
)

func draw(s *space.Space, rng *rand.Rand) space.Point {
	u := make([]float64, len(s.Params))
	for j := range u {
		u[j] = rng.Float64()
	}
	return s.FromUnit(u)
}

func TestProblems(t *testing.T) {
	all := suite.All()
	if len(all) < 14 {
		t.Fatalf("%d problems", len(all))
	}
	names, kinds := map[string]bool{}, map[string]int{}
	for _, p := range all {
		if err := p.Space.Validate(); err != nil || names[p.Name] {
			t.Errorf("%s: %v, or the name appears twice", p.Name, err)
		}
		names[p.Name] = true
		kinds[p.Kind]++
		rng := rand.New(rand.NewPCG(1, 2))
		f, g := p.Variant(1), p.Variant(1)
		distinct := map[float64]bool{}
		for i := 0; i < 2000; i++ {
			at := draw(p.Space, rng)
			v := f(at)
			if !(v >= -1e-6) || math.IsInf(v, 0) {
				t.Fatalf("%s: %v at %s: the least value is 0", p.Name, v, p.Space.Encode(at))
			}
			if g(at) != v {
				t.Fatalf("%s: one variant, two values", p.Name)
			}
			distinct[v] = true
		}
		if len(distinct) < 10 {
			t.Errorf("%s: %d distinct values", p.Name, len(distinct))
		}
	}
	for _, k := range []string{"continuous", "log", "integer", "categorical", "conditional", "table"} {
		if kinds[k] < 2 {
			t.Errorf("%d problems are %s", kinds[k], k)
		}
	}
}

// Random search must fare alike on every variant, and one point must not.
func TestVariantsMoveTheOptimumOnly(t *testing.T) {
	for _, p := range suite.All() {
		var means [6]float64
		moved := false
		for seed := range means {
			rng := rand.New(rand.NewPCG(9, uint64(seed)))
			f := p.Variant(uint64(seed))
			const n = 4000
			for i := 0; i < n; i++ {
				means[seed] += math.Log1p(f(draw(p.Space, rng))) / n
			}
			at := draw(p.Space, rand.New(rand.NewPCG(3, 3)))
			moved = moved || f(at) != p.Variant(0)(at)
			if math.Abs(means[seed]-means[0]) > 0.1*means[0]+0.02 {
				t.Errorf("%s: mean %.3f of variant %d, %.3f of variant 0", p.Name, means[seed], seed, means[0])
			}
		}
		if !moved {
			t.Errorf("%s: all variants agree at a point", p.Name)
		}
	}
}

// The tables hold what the trainings give: a few settings are trained again.
func TestTablesAreTrainings(t *testing.T) {
	for _, table := range landscape.Tables() {
		recorded := suite.Recorded(table)
		if len(recorded) != table.Size() {
			t.Fatalf("%s: %d values for %d settings", table.Name, len(recorded), table.Size())
		}
		for i := 0; i < 7; i++ {
			k := (i*7919 + 13) % table.Size()
			if v := table.Value(k); math.Abs(v-recorded[k]) > 0.02*recorded[k] {
				t.Errorf("%s: setting %d trains to %.5g, on file is %.5g", table.Name, k, v, recorded[k])
			}
		}
	}
}
