package search_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/search"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/proposals.txt anew")

// Every method proposes the points it proposed when testdata/proposals.txt was
// written: a sweep that began under an earlier build is resumed, and
// `sweep verify` finds no difference. A method that is changed on purpose
// changes its lines (go test -run Golden -rewrite).
func TestGoldenProposals(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the last bits of a product differ where the compiler fuses it with a sum")
	}
	var got strings.Builder
	line := func(name string, s *space.Space, history []search.Trial) {
		points := encoded(s, history)
		fmt.Fprintf(&got, "%s: %d trials %x, last %s\n", name, len(points), sha256.Sum256([]byte(strings.Join(points, "\n"))), points[len(points)-1])
	}
	for _, m := range but(search.Auto) { // auto is gp here
		s := spaceFor(m.method)
		p := search.Problem{Space: s, Seed: 77, Budget: 60, Parallelism: 4}
		line(title(m.method, m.algorithm), s, record(t, newMethod(t, m.method, m.algorithm, p), s, 60, 4, 3, nil))
		p.Warm, p.Maximize = warmth(t, s, 25), true
		line(title(m.method, m.algorithm)+", warm, to be maximised", s, record(t, newMethod(t, m.method, m.algorithm, p), s, 25, 2, 1, nil))
		if m.method == search.Grid {
			continue
		}
		many := mixedAxes(24)
		line(title(m.method, m.algorithm)+", 24 axes", &many, record(t, newMethod(t, m.method, m.algorithm, search.Problem{Space: &many, Seed: 78}), &many, 40, 4, 4, nil))
	}
	for _, m := range several {
		s := floats(2, 0, 1)
		p := search.Problem{Space: &s, Seed: 79, Budget: 30, Objectives: pulled, Constraints: []trial.Constraint{{Metric: "b", HasMax: true, Max: 0.5}}}
		method := newMethod(t, m.method, m.algorithm, p)
		var history []search.Trial
		for len(history) < 30 {
			got, err := method.Propose(ctx, history, 2)
			if err != nil {
				t.Fatal(err)
			}
			history = tell(history, got, func(at space.Point) search.Trial {
				return search.Trial{Values: pull(at), Constraints: []float64{numbers(at)[1]}}
			})
		}
		line(title(m.method, m.algorithm)+", two objectives and a constraint", &s, history)
	}
	const file = "testdata/proposals.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{} // lines, in whichever order
	for l := range strings.Lines(string(want)) {
		wanted[l] = true
	}
	for l := range strings.Lines(got.String()) {
		if !wanted[l] {
			t.Errorf("%s lacks or has otherwise: %s", file, l)
		}
		delete(wanted, l)
	}
	for l := range wanted {
		t.Errorf("of %s is gone: %s", file, l)
	}
}
