package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"atelier/deploy/bench/harness"
	"atelier/deploy/bench/search/suite"
	"atelier/tuner/search"
	"atelier/tuner/sweep"
)

// The spec of a problem reads back as the problem's space.
func TestSpecs(t *testing.T) {
	for _, p := range suite.All() {
		text := spec(p.Space, "random", "", 7, 3)
		s, err := sweep.Parse("suite.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v\n%s", p.Name, err, text)
			continue
		}
		if !reflect.DeepEqual(s.Space, *p.Space) {
			t.Errorf("%s: %+v, want %+v", p.Name, s.Space, *p.Space)
		}
	}
}

// What the command line would ask is answered as the problem has it.
func TestServe(t *testing.T) {
	p := suite.All()[0]
	m, err := search.New(search.Random, "", search.Problem{Space: p.Space, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	points, best, err := sweepOf(t.Context(), m, p.Variant(4), 5, 2)
	if err != nil {
		t.Fatal(err)
	}
	var in, out bytes.Buffer
	for i, at := range points {
		fmt.Fprintf(&in, "{\"trial\":%d,\"params\":%s}\n", i+1, p.Space.Encode(at))
	}
	if err := serve(&in, &out, p.Name, 4); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	least := math.Inf(1)
	for _, l := range lines {
		var n int
		var v float64
		if _, err := fmt.Sscanf(l, `{"trial":%d,"value":%g}`, &n, &v); err != nil {
			t.Fatal(l, err)
		}
		least = math.Min(least, v)
	}
	if len(lines) != 5 || least != best[4] {
		t.Errorf("best %v of %d answers, want %v of 5", least, len(lines), best[4])
	}
	if err := serve(&in, &out, "no such problem", 4); err == nil {
		t.Error("a problem that does not exist is served")
	}
}

// The yardstick itself: random search stands at 1.
func TestLine(t *testing.T) {
	random := [][]float64{make([]float64, 100), make([]float64, 100)}
	for k := 0; k < 100; k++ {
		random[0][k], random[1][k] = 200-float64(k), 0.5
	}
	units := unitsOf(random)
	if got := line("random", figures{seeds: 3, curves: random}, units, 100); !strings.HasPrefix(got, "random | 3 |") || !strings.Contains(got, "| 1.000 |") {
		t.Error(got)
	}
	half := [][]float64{make([]float64, 100), make([]float64, 100)}
	half[0][99], half[1][99] = units[0]/2, 0 // a half, and the floor of 0.01
	if got := line("half", figures{curves: half}, units, 100); !strings.Contains(got, fmt.Sprintf("| %.3f |", math.Sqrt(0.5*0.01))) {
		t.Error(got)
	}
	if m := medians([][]float64{{3, 1}, {2, 5}, {9, 4}, {4, 0}}, 2); m[0] != 3.5 || m[1] != 2.5 {
		t.Error(m)
	}
}

// A measurement that was cut off goes on, with the same figures as one that was
// not, and without a run made twice.
func TestMeasurementGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.jsonl")
	problems := suite.All()[:2]
	of := func(path string, seeds int, print bool) *bench {
		j, err := harness.OpenJournal(path, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		return &bench{Session: &harness.Session{Journal: j, Print: print, Quiet: true}, seeds: seeds, trials: 4}
	}
	want, err := of("", 3, false).gather(problems, "m", 2, invented(new(int), 100))
	if err != nil || want.seeds != 3 {
		t.Fatal(want, err)
	}
	made := 0
	for _, limit := range []int{1, 3, 6} { // runs until the interrupt
		got, err := of(path, 3, false).gather(problems, "m", 2, invented(&made, limit))
		if limit < 6 && err == nil {
			t.Fatal("no interrupt")
		}
		if limit == 6 && (err != nil || !reflect.DeepEqual(got.curves, want.curves) || got.seeds != 3) {
			t.Errorf("%+v, want %+v, %v", got, want, err)
		}
	}
	if made != 6 {
		t.Errorf("%d runs made, want 6", made)
	}
	if got, err := of(path, 9, true).gather(problems, "m", 2, nil); err != nil || got.seeds != 3 || !reflect.DeepEqual(got.curves, want.curves) {
		t.Errorf("%+v of the journal alone, %v", got, err)
	}
	short := func(suite.Problem, uint64) ([]float64, error) { return []float64{1}, nil }
	if _, err := of("", 1, false).gather(problems, "m", 2, short); err == nil || !strings.Contains(err.Error(), "1 values of 4 trials") {
		t.Error(err)
	}
}

// invented makes runs up, and is interrupted after so many in all.
func invented(made *int, limit int) runner {
	return func(p suite.Problem, seed uint64) ([]float64, error) {
		if *made == limit {
			return nil, errors.New("interrupted")
		}
		*made++
		v := float64(seed%7) + float64(len(p.Name))
		return []float64{v, v / 2, v / 3, v / 4}, nil
	}
}
