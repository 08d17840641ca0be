package harness_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"atelier/deploy/bench/harness"
)

func TestFigures(t *testing.T) {
	mean, deviation := harness.MeanDeviation([]float64{2, 4, 6})
	hundreds := make([]float64, 200)
	for i := range hundreds {
		hundreds[i] = float64(200 - i)
	}
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"median of odd", harness.Median([]float64{9, 1, 2}), 2},
		{"median of even", harness.Median([]float64{4, 1, 2, 9}), 3},
		{"geometric mean", harness.GeometricMean([]float64{1, 4, 16}), 4},
		{"mean", mean, 4},
		{"deviation", deviation, 2},
		// 2/1, 30/20, 4/4: rounds are compared with one another, not medians.
		{"ratio", harness.Ratio([]float64{2, 30, 4}, []float64{1, 20, 4}), 1.5},
		{"p50", harness.Quantile(hundreds, 0.5), 100},
		{"p99", harness.Quantile(hundreds, 0.99), 198},
		{"most", harness.Quantile(hundreds, 1), 200},
		{"p99 of one", harness.Quantile([]float64{7}, 0.99), 7},
		{"least of one", harness.Quantile([]float64{7}, 0), 7},
	} {
		if math.Abs(c.got-c.want) > 1e-12 {
			t.Errorf("%s: %g, want %g", c.name, c.got, c.want)
		}
	}
	if !math.IsNaN(harness.Median(nil)) || !math.IsNaN(harness.GeometricMean(nil)) || !math.IsNaN(harness.Quantile(nil, 0.5)) {
		t.Error("of nothing: want NaN")
	}
}

func TestTable(t *testing.T) {
	table := harness.NewTable("model", "px", "")
	table.Row("%s | %d | %.1f", "resnet18", 64, 0.25)
	table.Cells("mean", "", "-")
	const want = "| model | px | |\n|---|---|---|\n| resnet18 | 64 | 0.2 |\n| mean | | - |\n"
	if got := table.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestTurns(t *testing.T) {
	var order []string
	turn := func(round, side int) error {
		if round == 2 && side == 1 {
			return errors.New("side 1")
		}
		order = append(order, fmt.Sprint(round, side))
		return nil
	}
	if err := harness.Turns(3, 3, turn); err == nil || fmt.Sprint(order) != "[0 0 0 1 0 2 1 2 1 1 1 0 2 0]" {
		t.Error(order, err)
	}
}

// bench measures keys, counts how often, and prints the journal.
func bench(keys *[]string, taken *int, program string, scripts fstest.MapFS) func(*harness.Session) {
	return func(s *harness.Session) {
		s.JournalFlags("")
		s.Strings(keys, "keys", "what is measured")
		if program != "" {
			s.Measured = func() []string { return []string{program} }
		}
		s.Scripts = scripts
		s.Quiet = true
		s.Parts = []harness.Part{{Name: "count", Run: func(context.Context) error {
			for _, k := range *keys {
				if _, err := harness.Measure(s, "count "+k, func() (int, error) { *taken++; return *taken, nil }); err != nil {
					return err
				}
			}
			return nil
		}, Table: func() string {
			text := ""
			for _, k := range s.Journal.Keys("count") {
				var n int
				if s.Journal.Newest(k, &n) {
					text += fmt.Sprintf("%s=%d ", strings.TrimPrefix(k, "count "), n)
				}
			}
			return text
		}}}
	}
}

// A measurement that was interrupted, its last line cut off, goes on; what
// other programs or scripts did is measured again; -print measures nothing.
func TestGoesOn(t *testing.T) {
	dir := t.TempDir()
	path, program := filepath.Join(dir, "deep", "journal.jsonl"), filepath.Join(dir, "program")
	scripts := fstest.MapFS{"peer.py": {Data: []byte("one")}}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	taken := 0
	session := func(want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := harness.Run(t.Context(), "bench", append([]string{"-journal", path}, args...), &out, bench(&keys, &taken, program, scripts)); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != want {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}
	write(program, "first build")
	session("a=1 b=2", "-keys", "a,b")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"key":"count c","programs":"one","resu`)
	f.Close()
	session("a=1 b=2 c=3", "-keys", "a, b,c")
	write(program, "second build")
	session("a=1 b=2 c=3", "-print", "-keys", "d")
	session("a=4 b=2 c=3", "-keys", "a")
	write(program, "first build")
	session("a=4 b=2 c=3", "-keys", "a,b")
	scripts["peer.py"] = &fstest.MapFile{Data: []byte("two")}
	session("a=5 b=2 c=3", "-keys", "a")
	session("a=6 b=2 c=3", "-keys", "a", "-again")

	write(path, "{}\n"+`{"key":"a"}`+"\n")
	err = harness.Run(t.Context(), "bench", []string{"-journal", path}, &bytes.Buffer{}, bench(&keys, &taken, program, nil))
	if err == nil || !strings.Contains(err.Error(), path+", line 1") {
		t.Errorf("a broken line: %v", err)
	}
	write(path, "")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := harness.Run(t.Context(), "bench", []string{"-journal", path}, &bytes.Buffer{}, bench(&keys, &taken, program, nil)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the program: %v", err)
	}
}

// Parts are measured in the program's order; one set aside where it is named.
func TestParts(t *testing.T) {
	var done []string
	var sizes []int
	var scratch string
	setup := func(s *harness.Session) {
		s.RoundsFlag(3, "turns")
		s.Numbers(&sizes, "sizes", "sides", 64, 224)
		for _, name := range []string{"one", "two", "three"} {
			s.Parts = append(s.Parts, harness.Part{Name: name, Aside: name == "two", Run: func(context.Context) error {
				scratch = s.Dir
				if _, err := os.Stat(s.Dir); err != nil {
					t.Error(err)
				}
				done = append(done, fmt.Sprintf("%s%d%v", name, s.Rounds, sizes))
				return nil
			}})
		}
	}
	for _, c := range []struct{ args, want string }{
		{"", "[one3[64 224] three3[64 224]]"},
		{"-parts three,two -rounds 1 -sizes 32", "[two1[32] three1[32]]"},
		{"-parts four", "no part \"four\"; there are one, two, three"},
		{"-rounds 0", "-rounds must be above 0"},
		{"-sizes 0", "want numbers above 0"},
		{"more", "unknown argument \"more\""},
		{"-h", flag.ErrHelp.Error()},
	} {
		done = nil
		err := harness.Run(t.Context(), "bench", strings.Fields(c.args), &bytes.Buffer{}, setup)
		got := fmt.Sprint(done)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q: %s, want %s", c.args, got, c.want)
		}
	}
	if _, err := os.Stat(scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the scratch folder stays: %v", err)
	}
}

func TestUse(t *testing.T) {
	out, u, err := harness.Use(exec.Command("/bin/sh", "-c", "echo said; echo warned >&2"))
	if err != nil || string(out) != "said\n" || u.Wall <= 0 || u.Peak <= 0 {
		t.Error(string(out), u, err)
	}
	if _, _, err := harness.Use(exec.Command("/bin/sh", "-c", "echo no such model >&2; exit 3")); err == nil || !strings.Contains(err.Error(), "exit status 3\nno such model") {
		t.Error(err)
	}
}
