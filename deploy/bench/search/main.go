// Command search measures the search methods on the suite: the yardstick is
// regret, the best value after k trials, divided by what random search has
// after 100 at the median, floored at 0.01; the figure is the geometric mean
// over the problems of the median over the seeds. Lower is better; random
// search has 1.00 at 100. Debian's Optuna runs beside ours on the same variants.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/deploy/bench/harness"
	"atelier/deploy/bench/search/landscape"
	"atelier/deploy/bench/search/suite"
)

type bench struct {
	*harness.Session

	methods []string
	words   []string // of the problems
	seeds   int
	trials  int
	opens   []int
	detail  bool
	peer    string
	atelier string
	serve   string // a problem, whose trials are answered on standard input
	variant uint64
	tables  string
}

func main() {
	harness.Main("search", os.Args[1:], func(s *harness.Session) {
		b := &bench{Session: s}
		s.PythonFlag("Optuna")
		s.JournalFlags("")
		s.Quiet = true
		s.Strings(&b.methods, "methods", "methods, and optuna:SAMPLER, in this order", "genetic", "cmaes", "tpe", "gp", "sobol", "optuna:random", "optuna:nsga2", "optuna:cmaes", "optuna:tpe")
		s.Strings(&b.words, "problems", "only problems whose name or kind contains one of these words")
		s.Numbers(&b.opens, "open", "trials open at once, one table each", 1, 8)
		s.Flags.IntVar(&b.seeds, "seeds", 20, "seeds a problem")
		s.Flags.IntVar(&b.trials, "trials", 100, "trials a run")
		s.Flags.BoolVar(&b.detail, "detail", false, "print every problem")
		s.Flags.StringVar(&b.peer, "peer", "deploy/bench/search/peer.py", "the program that runs Optuna")
		s.Flags.StringVar(&b.atelier, "atelier", "", "also run `PROGRAM` sweep simulate on some problems and compare its trials with ours")
		s.Flags.StringVar(&b.serve, "serve", "", "answer trials of this `PROBLEM` on standard input, for sweep simulate --exec")
		s.Flags.Uint64Var(&b.variant, "seed", 0, "the variant that -serve answers for")
		s.Flags.StringVar(&b.tables, "tables", "", "train the landscapes again and write their tables into this `FOLDER`")
		s.Check = func() error {
			if b.seeds < 1 || b.trials < 1 {
				return fmt.Errorf("-seeds %d -trials %d: want at least 1 of each", b.seeds, b.trials)
			}
			return nil
		}
		s.Parts = []harness.Part{{Name: "search", What: "regret of search methods", Run: b.run}}
	})
}

func (b *bench) run(ctx context.Context) error {
	switch {
	case b.serve != "":
		return serve(os.Stdin, os.Stdout, b.serve, b.variant)
	case b.tables != "":
		return train(b.tables)
	}
	problems := chosen(suite.All(), b.words)
	if len(problems) == 0 {
		return fmt.Errorf("-problems %q: none of the suite", strings.Join(b.words, ","))
	}
	b.Printf("%d problems, %d seeds, %d trials\n", len(problems), b.seeds, b.trials)
	unit := *b
	unit.seeds, unit.trials = max(b.seeds, 20), max(b.trials, 100)
	random, err := unit.measure(ctx, problems, "random", 1)
	if err != nil {
		return err
	}
	if random.seeds == 0 {
		return errors.New("-print: the journal has no run of random on every problem, the unit of all others")
	}
	units := unitsOf(random.curves)
	for _, open := range b.opens {
		table := harness.NewTable(fmt.Sprintf("%d open", open), "seeds", "at 25", "at 50", "at 100", "ms a trial")
		table.Row("%s", line("random", random, units, b.trials))
		var details strings.Builder
		for _, method := range b.methods {
			f, err := b.measure(ctx, problems, method, open)
			if err != nil {
				return fmt.Errorf("%s: %w", method, err)
			}
			if f.seeds == 0 {
				continue // of -print alone
			}
			row := line(method, f, units, b.trials)
			b.Say("%s", row)
			table.Row("%s", row)
			if b.detail {
				fmt.Fprintf(&details, "%s, %d open\n%s", method, open, detail(problems, f, units, b.trials))
			}
		}
		b.Printf("\n%s%s", table, &details)
	}
	if b.atelier != "" {
		return b.outward(ctx, problems)
	}
	return nil
}

// figures of a method on all problems.
type figures struct {
	seeds  int
	curves [][]float64 // by problem, the median over the seeds of the best value after each trial
	millis float64     // a trial
}

// runner carries out one run and returns the best value after each trial.
type runner func(p suite.Problem, seed uint64) ([]float64, error)

// trace is one run: a method on one variant of one problem.
type trace struct {
	Millis float64   `json:"ms"`   // wall time of the whole run
	Best   []float64 `json:"best"` // after each trial
}

// measure has a method run on every problem, seed by seed, where the journal
// has no such run yet. The journal knows nothing of the code that was measured:
// after a change to a method, -again.
func (b *bench) measure(ctx context.Context, problems []suite.Problem, method string, open int) (f figures, err error) {
	do := func(p suite.Problem, seed uint64) ([]float64, error) {
		return ours(ctx, p, method, seed, b.trials, open)
	}
	if sampler, ok := strings.CutPrefix(method, "optuna:"); ok {
		peer := &optuna{bench: b, sampler: sampler, open: open}
		do = func(p suite.Problem, seed uint64) ([]float64, error) { return peer.run(ctx, p, seed) }
		defer func() {
			if e := peer.close(); err == nil {
				err = e
			}
		}()
	}
	return b.gather(problems, method, open, do)
}

func (b *bench) gather(problems []suite.Problem, method string, open int, do runner) (figures, error) {
	var f figures
	runs := make([][][]float64, len(problems))
	for seed := uint64(firstSeed); seed < uint64(firstSeed+b.seeds); seed++ {
		var these []trace
		for _, p := range problems {
			key := fmt.Sprintf("search method=%s open=%d trials=%d seed=%d problem=%s", method, open, b.trials, seed, p.Name)
			var r trace
			if b.Print {
				if !b.Journal.Newest(key, &r) {
					break
				}
			} else if _, err := harness.Measure(b.Session, key, func() (trace, error) {
				began := time.Now()
				best, err := do(p, seed)
				return trace{float64(time.Since(began).Microseconds()) / 1000, best}, err
			}); err != nil {
				return f, err
			} else if !b.Journal.Last(key, &r) || len(r.Best) != b.trials {
				return f, fmt.Errorf("%s: %d values of %d trials; -again repeats it", key, len(r.Best), b.trials)
			}
			these = append(these, r)
		}
		if len(these) < len(problems) {
			continue
		}
		f.seeds++
		for i, r := range these {
			runs[i] = append(runs[i], r.Best)
			f.millis += r.Millis
		}
	}
	if f.seeds == 0 {
		return f, nil
	}
	f.millis /= float64(len(problems) * f.seeds * b.trials)
	for i := range problems {
		f.curves = append(f.curves, medians(runs[i], b.trials))
	}
	return f, nil
}

// detail is a row for each problem, regret in units of random search.
func detail(problems []suite.Problem, f figures, units []float64, trials int) string {
	var b strings.Builder
	for i, p := range problems {
		fmt.Fprintf(&b, "    %-20s", p.Name)
		for _, k := range []int{25, 50, 100} {
			if k <= trials {
				fmt.Fprintf(&b, " %7.3f", f.curves[i][k-1]/units[i])
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// unitsOf is random search's median after 100 trials, by problem.
func unitsOf(random [][]float64) []float64 {
	units := make([]float64, len(random))
	for i := range random {
		units[i] = math.Max(random[i][99], 1e-12)
	}
	return units
}

// line is a row of the table, its cells between " | ".
func line(method string, f figures, units []float64, trials int) string {
	out := fmt.Sprintf("%s | %d", method, f.seeds)
	for _, k := range []int{25, 50, 100} {
		if k > trials {
			out += " | "
			continue
		}
		var regrets []float64
		for i := range f.curves {
			regrets = append(regrets, math.Max(0.01, f.curves[i][k-1]/units[i]))
		}
		out += fmt.Sprintf(" | %.3f", harness.GeometricMean(regrets))
	}
	return out + fmt.Sprintf(" | %.2f", f.millis)
}

func chosen(all []suite.Problem, words []string) []suite.Problem {
	if len(words) == 0 {
		return all
	}
	var out []suite.Problem
	for _, p := range all {
		for _, w := range words {
			if strings.Contains(p.Name, w) || p.Kind == w {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// medians over the runs of the best value after each trial.
func medians(runs [][]float64, trials int) []float64 {
	curve := make([]float64, trials)
	column := make([]float64, len(runs))
	for k := range curve {
		for r := range runs {
			column[r] = runs[r][k]
		}
		curve[k] = harness.Median(column)
	}
	return curve
}

func train(folder string) error {
	for _, t := range landscape.Tables() {
		began := time.Now()
		var b strings.Builder
		for k := range t.Size() {
			fmt.Fprintf(&b, "%.5g\n", t.Value(k))
		}
		if err := os.WriteFile(filepath.Join(folder, t.Name+".txt"), []byte(b.String()), 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: %v\n", t.Name, time.Since(began).Round(time.Second))
	}
	return nil
}
