package simulate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"atelier/tuner/simulate"
	"atelier/tuner/sweep"
)

// The test binary is its own command: TestMain answers trials when asked to.
func TestMain(m *testing.M) {
	if mode := os.Getenv("SIMULATE_TEST_COMMAND"); mode != "" {
		os.Exit(answer(mode))
	}
	os.Exit(m.Run())
}

func answer(mode string) int {
	in := bufio.NewScanner(os.Stdin)
	var late []string
	for n := 1; in.Scan(); n++ {
		var q struct {
			Trial  int
			Params struct{ X, Y float64 }
		}
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
		value := math.Pow(q.Params.X-0.3, 2) + math.Pow(q.Params.Y-0.6, 2)
		line := fmt.Sprintf(`{"trial":%d,"value":%g}`, q.Trial, value)
		switch {
		case mode == "nan" && q.Trial%3 == 0:
			line = fmt.Sprintf(`{"trial": %d, "value": NaN}`, q.Trial)
		case mode == "nan" && q.Trial%3 == 1:
			line = fmt.Sprintf(`{"trial": %d, "value": "NaN"}`, q.Trial)
		case mode == "fail" && q.Trial%2 == 0:
			line = fmt.Sprintf(`{"trial":%d,"error":"out of paint"}`, q.Trial)
		case mode == "die" && n == 5:
			fmt.Fprintln(os.Stderr, "the easel broke")
			return 7
		case mode == "mute" && n == 5:
			os.Stdout.Close()
			continue
		case mode == "chatter":
			line = "loss 0.5"
		case mode == "twice":
			line += "\n" + line
		case mode == "stranger":
			line = `{"trial":99,"value":1}`
		case mode == "hopeless":
			line = fmt.Sprintf(`{"trial":%d,"value":NaN}`, q.Trial)
		case mode == "metrics": // slow where good
			line = fmt.Sprintf(`{"trial":%d,"metrics":{"loss":%g,"ms":%g,"mb":%g}}`, q.Trial, value, 30*(1-value), 100*q.Params.X)
		case mode == "valueless":
			line = fmt.Sprintf(`{"trial":%d}`, q.Trial)
		case mode == "silent":
			continue
		case mode == "equal": // second of each pair first, all of one value
			if late = append(late, fmt.Sprintf(`{"trial":%d,"value":1}`, q.Trial)); len(late) == 2 {
				fmt.Println(late[1] + "\n" + late[0])
				late = nil
			}
			continue
		case mode == "pairs": // second of each pair first
			if late = append(late, line); len(late) == 2 {
				fmt.Println(late[1] + "\n" + late[0])
				late = nil
			}
			continue
		}
		fmt.Println(line)
	}
	return 0
}

const spec = `
search_method: %s
objective: {metric: loss, direction: minimize}
budget: {trials: 20}
seed: 7
space:
  x: {type: float, low: 0, high: 1%s}
  y: {type: float, low: 0, high: 1%s}
`

type row struct {
	Trial  int
	State  string
	Params map[string]any
	Value  *float64
	Best   *float64
	Error  string
}

func run(t *testing.T, mode, method string, parallel int) ([]row, string, error) {
	t.Helper()
	t.Setenv("SIMULATE_TEST_COMMAND", mode)
	steps := ""
	if method == "grid_search" {
		steps = ", steps: 4"
	}
	s, err := sweep.Parse("spec.yaml", []byte(fmt.Sprintf(spec, method, steps, steps)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	err = simulate.Run(ctx, simulate.Options{Spec: s, Command: []string{os.Args[0]}, Parallel: parallel, Out: &out})
	var rows []row
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var r row
		if line == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows = append(rows, r)
	}
	return rows, out.String(), err
}

func TestEveryMethodRunsToItsBudget(t *testing.T) {
	for _, method := range []string{"grid_search", "random", "bayesian", "genetic"} {
		for _, parallel := range []int{0, 1, 4} {
			rows, first, err := run(t, "plain", method, parallel)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			want := 20
			if method == "grid_search" {
				want = 16
			}
			if len(rows) != want {
				t.Fatalf("%s with %d open: %d rows, want %d", method, parallel, len(rows), want)
			}
			best := math.Inf(1)
			for _, r := range rows {
				best = math.Min(best, *r.Value)
				if r.State != "finished" || *r.Best != best || len(r.Params) != 2 {
					t.Fatalf("%s: %+v, best is %v", method, r, best)
				}
			}
			if _, again, _ := run(t, "plain", method, parallel); again != first {
				t.Errorf("%s with %d open: a second run differs", method, parallel)
			}
		}
	}
}

// Of equal trials the best is the first by number, whichever answered first.
func TestBestOfEqualTrials(t *testing.T) {
	_, out, err := run(t, "equal", "random", 2)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last struct {
		BestTrial int64 `json:"best_trial"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.BestTrial != 1 {
		t.Errorf("trial %d is the best of equal ones: %v", last.BestTrial, err)
	}
}

func TestAnswersInAnyOrder(t *testing.T) {
	rows, first, err := run(t, "pairs", "bayesian", 2)
	if err != nil || len(rows) != 20 || rows[0].Trial != 2 || rows[1].Trial != 1 {
		t.Fatalf("%v, %d rows: %s", err, len(rows), first)
	}
}

func TestNaNAndFailedTrials(t *testing.T) {
	rows, text, err := run(t, "nan", "bayesian", 1)
	if err != nil || len(rows) != 20 {
		t.Fatalf("%v: %s", err, text)
	}
	if r := rows[2]; r.State != "diverged" || r.Value != nil {
		t.Errorf("trial 3: %+v", r)
	}
	if r := rows[0]; r.State != "diverged" || r.Best != nil {
		t.Errorf("trial 1: %+v", r)
	}
	rows, text, err = run(t, "fail", "genetic", 3)
	if err != nil || len(rows) != 20 {
		t.Fatalf("%v: %s", err, text)
	}
	for _, r := range rows {
		if failed := r.Trial%2 == 0; failed != (r.State == "failed") || failed != (r.Error == "out of paint") {
			t.Errorf("%+v", r)
		}
	}
}

func TestFaultyCommands(t *testing.T) {
	for mode, want := range map[string][]string{
		"die":       {"exit status 7", "1 trials waited", "the easel broke"},
		"mute":      {"ended", "1 trials waited"},
		"chatter":   {"must answer", "loss 0.5"},
		"twice":     {"trial 1 twice"},
		"stranger":  {"trial 99", "was not asked"},
		"valueless": {"neither value, metrics nor error"},
		"hopeless":  {"none of 20 trials reported a finite value of \"loss\""},
	} {
		_, _, err := run(t, mode, "random", 1)
		if err == nil {
			t.Errorf("%s: no error", mode)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q in it", mode, err, w)
			}
		}
	}
}

func TestCommandThatDoesNotStart(t *testing.T) {
	s, err := sweep.Parse("s.yaml", []byte(fmt.Sprintf(spec, "random", "", "")))
	if err != nil {
		t.Fatal(err)
	}
	err = simulate.Run(context.Background(), simulate.Options{Spec: s, Command: []string{"/no/such/program"}, Out: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Error(err)
	}
}

func TestCancelEndsASilentCommand(t *testing.T) {
	t.Setenv("SIMULATE_TEST_COMMAND", "silent")
	s, err := sweep.Parse("s.yaml", []byte(fmt.Sprintf(spec, "random", "", "")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = simulate.Run(ctx, simulate.Options{Spec: s, Command: simulate.Shell(os.Args[0] + " | cat"), Parallel: 2, Out: &bytes.Buffer{}})
	if err != context.DeadlineExceeded || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

const pareto = `
search_method: %s
objectives: [{metric: loss, direction: minimize}, {metric: ms, direction: minimize}]
constraints: [{metric: mb, max: %s}]
budget: {trials: 20}
seed: 7
space:
  x: {type: float, low: 0, high: 1}
  y: {type: float, low: 0, high: 1}
`

func TestObjectivesAndConstraints(t *testing.T) {
	simulateOnce := func(mode, limit string) (string, error) {
		t.Setenv("SIMULATE_TEST_COMMAND", mode)
		s, err := sweep.Parse("s.yaml", []byte(fmt.Sprintf(pareto, "genetic", limit)))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = simulate.Run(t.Context(), simulate.Options{Spec: s, Command: []string{os.Args[0]}, Out: &out})
		return out.String(), err
	}
	text, err := simulateOnce("metrics", "60")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last struct {
		Trial    int
		Values   []float64
		Feasible *bool
		Front    []int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(lines) != 20 {
		t.Fatal(err, text)
	}
	if len(last.Values) != 2 || last.Feasible == nil || len(last.Front) < 2 {
		t.Errorf("%s: want two values, feasible and a front", lines[19])
	}
	if _, err := simulateOnce("metrics", "-1"); err == nil || !strings.Contains(err.Error(), "none of 20 trials met the constraints") || !strings.Contains(err.Error(), "above max -1") {
		t.Error(err)
	}
	if _, err := simulateOnce("plain", "60"); err == nil || !strings.Contains(err.Error(), "must answer") {
		t.Error(err)
	}
}

// Who asks for a stopping rule is told that it has no say here.
func TestStoppingRuleHasNoSay(t *testing.T) {
	t.Setenv("SIMULATE_TEST_COMMAND", "plain")
	s, err := sweep.Parse("spec.yaml", []byte(fmt.Sprintf(spec, "random", "", "")+"stopping: {rule: asha, max_epochs: 27}\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, said bytes.Buffer
	if err := simulate.Run(ctx, simulate.Options{Spec: s, Command: []string{os.Args[0]}, Out: &out, Stderr: &said}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "stopping rule has no effect") || strings.Count(out.String(), "\n") != 20 {
		t.Errorf("said %q\n%s", said.String(), out.String())
	}
}
