// Package report writes what came of a sweep: tuning_results.json,
// diagnostics_summary.txt, one folder a trial, and charts.
//
// It is a function of a plain struct: no cluster, no clock. What cannot be
// drawn is told and never an error.
package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"atelier/common/files"
	"atelier/common/plot"
	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/importance"
	"atelier/tuner/search"
)

// Sweep is a sweep with all its trials. Times are Unix milliseconds, 0 = not yet.
type Sweep struct {
	ID, Name     string
	Model        string // "" where the space chooses it, or the trainer has none
	SearchMethod string
	Algorithm    string // of bayesian
	Trainer      string
	Seed         uint64
	Metric       string // objective; the first where there are several
	Maximize     bool
	Objectives   []trial.Objective // all of them, that of Metric first; fewer than two where there is one
	Status       trial.SweepStatus
	Ending       string // why it ended, or failed
	Space        space.Space
	Data         string          // folder of all training images, of which trials may have a part; "" = as Training says
	Validation   string          // likewise of validation images
	Base         string          // folder that relative paths of Training start from; "" = the one that commands are run in
	Training     json.RawMessage // settings of every trial, a JSON object; nil = {}
	Budget       int64           // trials; 0 = no limit of them
	Parallelism  int64

	CreatedMS, EndedMS int64
	Trials             []Trial // by number
}

// Trial is one point that was tried.
type Trial struct {
	Number     int64
	Status     trial.Status
	Point      space.Point
	HasValue   bool
	Value      float64 // best of the objective
	ValueEpoch int
	Epochs     int // last reported

	StartedMS, EndedMS  int64
	Failure, StopReason string
	Runs                []trial.Run
	Curve               []trial.Report
	Model               string // file of the best model, from the report's folder on; "" = none
	OtherData           bool   // it was trained or validated on other data than the first
}

// Files of a report, beside the charts.
const (
	ResultsFile = "tuning_results.json"
	SummaryFile = "diagnostics_summary.txt"
	TrialsDir   = "trials"
	TrialFile   = "trial.json"
)

// TrialDir is a trial's folder, from the report's folder on.
func TrialDir(number int64) string {
	return filepath.Join(TrialsDir, fmt.Sprintf("trial_%04d", number))
}

// Options of Write.
type Options struct {
	NoPlots bool
}

// Written is what Write left.
type Written struct {
	Files   []string // names in the folder, the trials' not counted
	Omitted []Omission
}

// Omission is a chart that could not be drawn.
type Omission struct{ Name, Reason string }

// Write puts the report of a sweep into a folder, made if missing. Charts of
// an earlier report that are not drawn again are removed.
func Write(dir string, s *Sweep, o Options) (*Written, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	v := newView(s)
	w := &Written{Files: []string{ResultsFile, SummaryFile}}
	for _, p := range charts {
		path := filepath.Join(dir, p.name)
		why := "charts are switched off"
		about := !p.several || len(s.Objectives) > 1
		if !o.NoPlots && about {
			figure, panels, reason := v.figure(p)
			if why = reason; why == "" {
				if err := figure.Save(path, panels...); err != nil {
					return nil, err
				}
				w.Files = append(w.Files, p.name, plot.SVG(p.name))
				continue
			}
		}
		for _, path := range []string{path, plot.SVG(path)} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		if about {
			w.Omitted = append(w.Omitted, Omission{p.name, why})
		}
	}
	results, err := v.results()
	if err != nil {
		return nil, err
	}
	if err := v.writeTrials(dir); err != nil {
		return nil, err
	}
	if err := files.WriteUnsynced(filepath.Join(dir, ResultsFile), results, 0o644); err != nil {
		return nil, err
	}
	return w, files.WriteUnsynced(filepath.Join(dir, SummaryFile), []byte(v.summary(w, o)), 0o644)
}

// view is a sweep with what several parts of a report need.
type view struct {
	*Sweep
	ranked []*Trial // ended with a finite value, the best first
	ended  []*Trial // the same, in the order of their ends
	rank   map[int64]int
	scores []importance.Score // the most important first; nil = cannot be said
	unsaid string             // why
}

// newView ranks the trials and asks which parameters mattered, once for all parts.
func newView(s *Sweep) *view {
	v := &view{Sweep: s, rank: map[int64]int{}}
	for i := range s.Trials {
		t := &s.Trials[i]
		if t.Status.Over() && t.HasValue && finite(t.Value) {
			v.ranked = append(v.ranked, t)
		}
	}
	v.ended = slices.Clone(v.ranked)
	slices.SortStableFunc(v.ended, func(a, b *Trial) int {
		return cmp.Or(cmp.Compare(a.EndedMS, b.EndedMS), cmp.Compare(a.Number, b.Number))
	})
	slices.SortStableFunc(v.ranked, func(a, b *Trial) int {
		if v.better(a.Value, b.Value) {
			return -1
		}
		if v.better(b.Value, a.Value) {
			return 1
		}
		return cmp.Compare(a.Number, b.Number)
	})
	for i, t := range v.ranked {
		v.rank[t.Number] = i + 1
	}
	v.score()
	return v
}

func (v *view) better(a, b float64) bool {
	if v.Maximize {
		return a > b
	}
	return a < b
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// score asks which parameters mattered.
func (v *view) score() {
	known := map[trial.Status]search.Status{trial.Finished: search.Complete, trial.Stopped: search.Complete, trial.Cancelled: search.Cancelled}
	var history []search.Trial
	for _, t := range v.ranked {
		if status, ok := known[t.Status]; ok {
			history = append(history, search.Trial{Number: t.Number, Point: t.Point, Status: status, Value: t.Value, HasValue: true, Epoch: t.Epochs})
		}
	}
	if n := len(history); n < importance.Least {
		v.unsaid = fmt.Sprintf("%s with a value; at least %d are needed", plural(n, "trial"), importance.Least)
		return
	}
	scores, err := importance.Of(search.Problem{Space: &v.Space, Maximize: v.Maximize}, history, 0)
	if err != nil {
		v.unsaid = err.Error()
		return
	}
	total := 0.0
	for _, s := range scores {
		total += s.Share
	}
	if total == 0 {
		v.unsaid = "no parameter separates good trials from bad ones"
		return
	}
	v.scores = scores
}

// chief lists at most n parameters (indices into the space), the most
// important first; in the space's order where importance cannot be said. ok
// picks those that can be shown.
func (v *view) chief(n int, ok func(k int) bool) []int {
	var out []int
	take := func(k int) {
		if len(out) < n && ok(k) && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	for _, s := range v.scores {
		if k, found := v.Space.Lookup(s.Parameter); found {
			take(k)
		}
	}
	for k := range v.Space.Params {
		take(k)
	}
	return out
}

// at is a trial's value of parameter k as a number for an axis: of a
// categorical one the index of the choice; NaN where it is not active.
func (v *view) at(t *Trial, k int) float64 {
	if k >= len(t.Point) || t.Point[k].IsAbsent() {
		return math.NaN()
	}
	p := &v.Space.Params[k]
	if p.Kind == space.KindCategorical {
		i, ok := p.Index(t.Point[k])
		if !ok {
			return math.NaN()
		}
		return float64(i)
	}
	f, ok := t.Point[k].Number()
	if !ok {
		return math.NaN()
	}
	return f
}

// varied reports whether trials with a value differ in parameter k.
func (v *view) varied(k int) bool {
	first := math.NaN()
	for _, t := range v.ranked {
		x := v.at(t, k)
		switch {
		case math.IsNaN(x):
		case math.IsNaN(first):
			first = x
		case x != first:
			return true
		}
	}
	return false
}

// text is a value of a parameter for people.
func text(x space.Value) string {
	if x.IsAbsent() {
		return "-"
	}
	if s, ok := x.Text(); ok {
		return s
	}
	if f, ok := x.Float(); ok {
		return fmt.Sprintf("%.4g", f)
	}
	return x.String()
}

func choices(p *space.Parameter) []string {
	var out []string
	for _, c := range p.Choices {
		out = append(out, text(c))
	}
	return out
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// fence bounds values for a chart: what lies more than three quartile ranges
// beyond the quartiles would press the others into a line (Tukey, 1977).
// It returns how many lie outside.
func fence(values []float64) (low, high float64, outside int) {
	var xs []float64
	for _, x := range values {
		if finite(x) {
			xs = append(xs, x)
		}
	}
	if len(xs) == 0 {
		return 0, 1, 0
	}
	slices.Sort(xs)
	low, high = xs[0], xs[len(xs)-1]
	if len(xs) < 4 {
		return low, high, 0
	}
	q1, q3 := xs[len(xs)/4], xs[len(xs)*3/4]
	if r := q3 - q1; r > 0 {
		below, above := q1-3*r, q3+3*r
		for _, x := range xs {
			if x < below || x > above {
				outside++
			}
		}
		// The outermost values inside, not the fence itself, end the axis.
		low = xs[slices.IndexFunc(xs, func(x float64) bool { return x >= below })]
		for i := len(xs) - 1; i >= 0; i-- {
			if xs[i] <= above {
				high = xs[i]
				break
			}
		}
	}
	return low, high, outside
}

func clamp(x, low, high float64) float64 {
	if math.IsNaN(x) {
		return x
	}
	return math.Min(math.Max(x, low), high)
}

// Files lists every file that a report may leave in its folder, the trials' not
// counted.
func Files() []string {
	out := []string{ResultsFile, SummaryFile}
	for _, p := range charts {
		out = append(out, p.name, plot.SVG(p.name))
	}
	return out
}

// Best is the trial with the best value; nil where none has one.
func (s *Sweep) Best() *Trial {
	if v := newView(s); len(v.ranked) > 0 {
		return v.ranked[0]
	}
	return nil
}
