// Command search measures the search methods on the suite: the yardstick is
// regret, the best value after k trials, divided by what random search has
// after 100 at the median, floored at 0.01; the figure is the geometric mean
// over the problems of the median over the seeds. Lower is better; random
// search has 1.00 at 100. Debian's Optuna runs beside ours on the same variants.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"atelier/deploy/bench/search/landscape"
	"atelier/deploy/bench/search/suite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "search:", err)
		os.Exit(1)
	}
}

type settings struct {
	methods  string
	problems string
	seeds    int
	trials   int
	opens    string
	detail   bool
	python   string
	peer     string
	atelier  string
	journal  *journal
	measured bool // print what the journal holds, measure nothing
}

func run(ctx context.Context, args []string) error {
	var s settings
	var serveName, tables, path string
	var serveSeed uint64
	f := flag.NewFlagSet("search", flag.ContinueOnError)
	f.StringVar(&s.methods, "methods", "genetic,cmaes,tpe,gp,sobol,optuna:random,optuna:nsga2,optuna:cmaes,optuna:tpe", "methods, and optuna:`SAMPLER`, in this order")
	f.StringVar(&s.problems, "problems", "", "only problems whose name or kind holds one of these words")
	f.IntVar(&s.seeds, "seeds", 20, "seeds a problem")
	f.IntVar(&s.trials, "trials", 100, "trials a run")
	f.StringVar(&s.opens, "open", "1,8", "trials open at once, one table each")
	f.BoolVar(&s.detail, "detail", false, "print every problem")
	f.StringVar(&s.python, "python", "/usr/bin/python3", "Python that has Optuna")
	f.StringVar(&s.peer, "peer", "deploy/bench/search/peer.py", "the program that runs Optuna")
	f.StringVar(&path, "journal", "", "keep what was measured in this `FILE` and go on from there; to be deleted when a method has changed")
	f.BoolVar(&s.measured, "measured", false, "print the seeds that the journal holds for all problems, and measure nothing")
	f.StringVar(&s.atelier, "atelier", "", "also run `PROGRAM` sweep simulate on some problems and hold its trials to ours")
	f.StringVar(&serveName, "serve", "", "answer trials of this `PROBLEM` on standard input, for sweep simulate --exec")
	f.Uint64Var(&serveSeed, "seed", 0, "the variant that -serve answers for")
	f.StringVar(&tables, "tables", "", "train the landscapes anew and write their tables into this `FOLDER`")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case serveName != "":
		return serve(os.Stdin, os.Stdout, serveName, serveSeed)
	case tables != "":
		return train(tables)
	case s.seeds < 1 || s.trials < 1:
		return fmt.Errorf("-seeds %d -trials %d: want at least 1 of each", s.seeds, s.trials)
	}
	problems := chosen(suite.All(), s.problems)
	if len(problems) == 0 {
		return fmt.Errorf("-problems %q: none of the suite", s.problems)
	}
	var err error
	if s.journal, err = openJournal(path); err != nil {
		return err
	}
	defer s.journal.close()
	fmt.Printf("%d problems, %d seeds, %d trials\n", len(problems), s.seeds, s.trials)
	standard := s
	standard.seeds, standard.trials = max(s.seeds, 20), max(s.trials, 100)
	random, err := measure(ctx, standard, problems, "random", 1)
	if err != nil {
		return err
	}
	if random.seeds == 0 {
		return fmt.Errorf("-measured: the journal has no run of random on every problem, the unit of all others")
	}
	units := unitsOf(random.curves)
	for _, open := range strings.Split(s.opens, ",") {
		var n int
		if _, err := fmt.Sscan(open, &n); err != nil || n < 1 {
			return fmt.Errorf("-open %q: want numbers such as 1,8", s.opens)
		}
		fmt.Printf("\n| %d open | seeds | at 25 | at 50 | at 100 | ms a trial |\n|---|---|---|---|---|---|\n", n)
		fmt.Println(line("random", random, units, s.trials))
		for _, method := range strings.Split(s.methods, ",") {
			f, err := measure(ctx, s, problems, method, n)
			if err != nil {
				return fmt.Errorf("%s: %w", method, err)
			}
			if f.seeds == 0 {
				continue // of -measured alone
			}
			fmt.Println(line(method, f, units, s.trials))
			if s.detail {
				detail(problems, f, units, s.trials)
			}
		}
	}
	if s.atelier != "" {
		return outward(ctx, s.atelier, problems)
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

// measure has a method run on every problem, seed by seed, where the journal
// has no such run yet.
func measure(ctx context.Context, s settings, problems []suite.Problem, method string, open int) (f figures, err error) {
	do := func(p suite.Problem, seed uint64) ([]float64, error) {
		return ours(ctx, p, method, seed, s.trials, open)
	}
	if sampler, ok := strings.CutPrefix(method, "optuna:"); ok {
		peer := &optuna{settings: s, sampler: sampler, open: open}
		do = func(p suite.Problem, seed uint64) ([]float64, error) { return peer.run(ctx, p, seed) }
		defer func() {
			if e := peer.close(); err == nil {
				err = e
			}
		}()
	}
	return gather(s, problems, method, open, do)
}

func gather(s settings, problems []suite.Problem, method string, open int, do runner) (figures, error) {
	var f figures
	runs := make([][][]float64, len(problems))
	for seed := uint64(firstSeed); seed < uint64(firstSeed+s.seeds); seed++ {
		var these []trace
		for _, p := range problems {
			r, known := s.journal.runs[key{method, open, s.trials, seed, p.Name}]
			if !known && s.measured {
				break
			}
			if !known {
				began := time.Now()
				best, err := do(p, seed)
				if err != nil {
					return f, fmt.Errorf("%s: %w", p.Name, err)
				}
				r = trace{Method: method, Open: open, Trials: s.trials, Seed: seed, Problem: p.Name, Millis: float64(time.Since(began).Microseconds()) / 1000, Best: best}
				if err := s.journal.add(r); err != nil {
					return f, err
				}
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
	f.millis /= float64(len(problems) * f.seeds * s.trials)
	for i := range problems {
		f.curves = append(f.curves, median(runs[i], s.trials))
	}
	return f, nil
}

func detail(problems []suite.Problem, f figures, units []float64, trials int) {
	for i, p := range problems {
		fmt.Printf("    %-20s", p.Name)
		for _, k := range []int{25, 50, 100} {
			if k <= trials {
				fmt.Printf(" %7.3f", f.curves[i][k-1]/units[i])
			}
		}
		fmt.Println()
	}
}

// unitsOf is random search's median after 100 trials, by problem.
func unitsOf(random [][]float64) []float64 {
	units := make([]float64, len(random))
	for i := range random {
		units[i] = math.Max(random[i][99], 1e-12)
	}
	return units
}

func line(method string, f figures, units []float64, trials int) string {
	out := fmt.Sprintf("| %s | %d", method, f.seeds)
	for _, k := range []int{25, 50, 100} {
		if k > trials {
			out += " | "
			continue
		}
		sum := 0.0
		for i := range f.curves {
			sum += math.Log(math.Max(0.01, f.curves[i][k-1]/units[i]))
		}
		out += fmt.Sprintf(" | %.3f", math.Exp(sum/float64(len(f.curves))))
	}
	return out + fmt.Sprintf(" | %.2f |", f.millis)
}

func chosen(all []suite.Problem, words string) []suite.Problem {
	if words == "" {
		return all
	}
	var out []suite.Problem
	for _, p := range all {
		for _, w := range strings.Split(words, ",") {
			if strings.Contains(p.Name, w) || p.Kind == w {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// median of the runs' best values after each trial.
func median(runs [][]float64, trials int) []float64 {
	curve := make([]float64, trials)
	column := make([]float64, len(runs))
	for k := range curve {
		for r := range runs {
			column[r] = runs[r][k]
		}
		sort.Float64s(column)
		n := len(column)
		curve[k] = (column[n/2] + column[(n-1)/2]) / 2
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
