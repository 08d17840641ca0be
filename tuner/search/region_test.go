package search

import (
	"testing"

	"atelier/common/space"
)

func TestRegionSize(t *testing.T) {
	const d = 12
	var done []observation
	end := func(value float64) { done = append(done, observation{value: value, result: scored}) }
	for i := 0; i < 2*d; i++ {
		end(100)
	}
	if got := regionSize(done, d); got != regionFirst {
		t.Errorf("%v after the first look round, want %v", got, regionFirst)
	}
	for i := 0; i < d; i++ {
		end(100)
	}
	if got := regionSize(done, d); got != regionFirst/2 {
		t.Errorf("%v after %d failures, want half of %v", got, d, regionFirst)
	}
	for i := 0; i < regionWins; i++ {
		end(90 - float64(i))
	}
	if got := regionSize(done, d); got != regionFirst {
		t.Errorf("%v after %d improvements, want %v", got, regionWins, regionFirst)
	}
	for i := 0; i < 8*d; i++ {
		done = append(done, observation{result: unscored})
	}
	if got := regionSize(done, d); got < regionLeast || got > regionFirst {
		t.Errorf("%v: it neither collapsed nor began again", got)
	}
}

// In few dimensions the whole cube is searched, in many a box that holds the
// best point; categories are free in either.
func TestConfine(t *testing.T) {
	for _, d := range []int{3, 14} {
		s := &space.Space{Params: []space.Parameter{{Name: "c", Kind: space.KindCategorical, Choices: []space.Value{space.Int(1), space.Int(2)}}}}
		for i := 1; i < d; i++ {
			s.Params = append(s.Params, space.Parameter{Name: string(rune('a' + i)), Kind: space.KindFloat, High: 1})
		}
		rng := stream(7, 7, 7)
		var seen []observation
		best := -1
		for i := 0; i < 60; i++ {
			o := observation{unit: make([]float64, d), result: scored}
			for j := range o.unit {
				o.unit[j] = rng.Float64()
				o.value += (o.unit[j] - 0.7) * (o.unit[j] - 0.7)
			}
			if seen = append(seen, o); best < 0 || o.value < seen[best].value {
				best = i
			}
		}
		look, ok := newGP(Problem{Space: s, Seed: 1}).searcher(61, seen)
		if !ok {
			t.Fatal("no model")
		}
		whole, holds := true, true
		for j := range look.low {
			whole = whole && look.low[j] == 0 && look.high[j] == 1
			holds = holds && (j == 0 || look.low[j] <= seen[best].unit[j] && seen[best].unit[j] <= look.high[j])
		}
		if whole != (d <= regionAxes) || !holds || look.low[0] != 0 || look.high[0] != 1 {
			t.Errorf("%d axes: from %v to %v, the best at %v", d, look.low, look.high, seen[best].unit)
		}
	}
}

// A plateau is what repeats the best without a gain; a search that closes in, or
// looks elsewhere, is none.
func TestStalled(t *testing.T) {
	history := func(last ...float64) []observation {
		var out []observation
		for _, v := range append([]float64{9, 5, 7, 4, 6, 3, 8, 1, 9, 5}, last...) {
			out = append(out, observation{result: scored, value: v})
		}
		return out
	}
	for what, x := range map[string]struct {
		done []observation
		want bool
	}{
		"the best again and again":     {history(1, 5, 1, 1.001, 7, 1, 1, 1), true},
		"all but the best":             {history(1, 1, 1, 1.002, 1, 1.001, 1.001, 1), true},
		"a gain among them":            {history(1, 1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9), false},
		"closing in":                   {history(0.9, 0.8, 0.7, 0.65, 0.6, 0.58, 0.55, 0.54), false},
		"looking elsewhere":            {history(1, 1, 1, 1, 5, 7, 3, 2, 6, 1), false},
		"too few to tell":              {history(1, 1, 1, 1)[2:], false},
		"bad results are no plateau":   {append(history(1, 4), make([]observation, 8)...), false},
		"a gain too small to go after": {history(1, 1, 0.9999, 0.9999, 0.9998, 0.9998, 0.9998, 0.9998), true},
	} {
		for i := range x.done {
			if x.done[i].result != scored {
				x.done[i].result = unscored
			}
		}
		if got := stalled(x.done); got != x.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
