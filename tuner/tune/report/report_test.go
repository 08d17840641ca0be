package report_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/plot"
	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/tune/report"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what is written now")

const began = 1_790_000_000_000

func float(name string, low, high float64, log bool) space.Parameter {
	return space.Parameter{Name: name, Kind: space.KindFloat, Low: low, High: high, Log: log}
}

func words(name string, choices ...string) space.Parameter {
	p := space.Parameter{Name: name, Kind: space.KindCategorical}
	for _, c := range choices {
		p.Choices = append(p.Choices, space.String(c))
	}
	return p
}

func usual() []space.Parameter {
	momentum := float("momentum", 0.5, 0.99, false)
	momentum.When = []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}
	return []space.Parameter{float("lr", 1e-4, 1e-1, true),
		{Name: "batch_size", Kind: space.KindCategorical, Choices: []space.Value{space.Int(16), space.Int(32), space.Int(64)}},
		words("optimizer", "adam", "sgd"), momentum,
		{Name: "depth", Kind: space.KindInt, Low: 1, High: 5}}
}

// made draws a sweep: every trial's value is a function of its point, its curve
// falls towards it.
func made(n int, params []space.Parameter) *report.Sweep {
	s := &report.Sweep{ID: "s-k3v9q2ma", Name: "facades", Model: "resnet18", SearchMethod: "bayesian", Algorithm: "gp", Trainer: "torch", Seed: 42, Metric: "val_loss", Objectives: []trial.Objective{{Metric: "val_loss"}},
		Status: trial.SweepFinished, Ending: "budget used", Space: space.Space{Params: params}, Training: json.RawMessage(`{"model":"resnet18","epochs":6,"data.train":"run/facades/train"}`), Budget: int64(n), Parallelism: 2,
		CreatedMS: began}
	rng := rand.New(rand.NewPCG(1, 2))
	free := []int64{began + 700, began + 900}
	for i := range n {
		u := make([]float64, len(params))
		for k := range u {
			u[k] = rng.Float64()
		}
		t := report.Trial{Number: int64(i + 1), Status: trial.Finished, Point: s.Space.FromUnit(u), HasValue: true, ValueEpoch: 5, Epochs: 6}
		loss := 0.3
		for k, p := range params {
			if !t.Point[k].IsAbsent() {
				d := p.ToUnit(t.Point[k]) - 0.6
				loss += d * d * 2 / float64(1+k*k)
			}
		}
		t.Value = loss
		slot := i % 2
		t.StartedMS = free[slot]
		free[slot] += int64(3000 + rng.IntN(4000))
		t.EndedMS = free[slot]
		t.Runs = []trial.Run{{Worker: "w1", Slot: fmt.Sprintf("cpu%d", slot), StartedMS: t.StartedMS, EndedMS: t.EndedMS, Exit: trial.ExitFinished}}
		for e := 1; e <= 6; e++ {
			y := loss + 1.2*math.Exp(-float64(e)/1.5) - 1.2*math.Exp(-5/1.5)
			if e == 6 {
				y = loss + 0.01
			}
			t.Curve = append(t.Curve, trial.Report{Epoch: int32(e), Metrics: trial.Metrics{{Name: "train_loss", Value: y * 0.8}, {Name: "val_loss", Value: y}, {Name: "val_acc", Value: math.Exp(-y)}, {Name: "lr", Value: 0.01}}})
		}
		s.Trials = append(s.Trials, t)
	}
	s.EndedMS = max(free[0], free[1]) + 200
	return s
}

func fail(t *report.Trial, status trial.Status, exit trial.Exit, why string) {
	t.Status, t.Failure, t.HasValue, t.Value, t.ValueEpoch = status, why, false, 0, 0
	t.Runs[0].Exit = exit
}

// cases are sweeps as they come, and charts that each lacks, with a word of
// the reason.
func cases() map[string]struct {
	sweep *report.Sweep
	lacks map[string]string
} {
	type x = struct {
		sweep *report.Sweep
		lacks map[string]string
	}
	all := map[string]x{}
	usually := made(40, usual())
	fail(&usually.Trials[6], trial.Diverged, trial.ExitDiverged, "")
	fail(&usually.Trials[11], trial.Failed, trial.ExitOutOfMemory, "CUDA out of memory: 2.1 GiB asked for,\n1.0 GiB free")
	for i := range usually.Trials[6].Curve[3:] {
		for k := range usually.Trials[6].Curve[3+i].Metrics {
			usually.Trials[6].Curve[3+i].Metrics[k].Value = math.NaN()
		}
	}
	usually.Trials[20].Status, usually.Trials[20].StopReason, usually.Trials[20].Runs[0].Exit = trial.Stopped, "asha: not among the best third after 3 epochs", trial.ExitStopped
	cut := usually.Trials[25].Runs[0]
	cut.EndedMS, cut.Exit = cut.StartedMS+1000, trial.ExitLost
	usually.Trials[25].Runs[0].StartedMS += 1500
	usually.Trials[25].Runs = []trial.Run{cut, usually.Trials[25].Runs[0]}
	usually.Trials[0].Model = "trials/trial_0001/best_model.pth"
	all["usual"] = x{sweep: usually}

	one := made(1, usual())
	all["one-trial"] = x{one, map[string]string{"parameter_importance.png": "1 trial with a value", "pairwise_heatmaps.png": "fewer than two", "parallel_coordinates.png": "fewer than two", "slice_plots.png": "fewer than two"}}

	dead := made(6, usual())
	dead.Status, dead.Ending = trial.SweepFailed, "all trials ended and none has a value"
	for i := range dead.Trials {
		fail(&dead.Trials[i], trial.Failed, trial.ExitBadSpec, "data.train: class gothic has no images")
		dead.Trials[i].Curve, dead.Trials[i].Epochs = nil, 0
	}
	all["all-failed"] = x{dead, map[string]string{"optimization_history.png": "no trial has a value", "parameter_importance.png": "0 trials", "pairwise_heatmaps.png": "fewer", "parallel_coordinates.png": "fewer",
		"slice_plots.png": "fewer", "learning_curves.png": "no trial reported"}}

	none := made(0, usual())
	none.EndedMS = 0
	none.Status = trial.SweepRunning
	all["no-trial"] = x{none, map[string]string{"optimization_history.png": "no trial has a value", "parameter_importance.png": "0 trials", "pairwise_heatmaps.png": "fewer", "parallel_coordinates.png": "fewer",
		"slice_plots.png": "fewer", "learning_curves.png": "no trial reported", "slot_timeline.png": "no trial was started"}}

	all["one-parameter"] = x{made(15, usual()[:1]), map[string]string{"pairwise_heatmaps.png": "there is 1"}}

	far := made(30, usual())
	far.Maximize = false
	far.Trials[3].Value, far.Trials[9].Value = 4.2e6, math.NaN()
	far.Trials[14].Value = math.Inf(1)
	far.Trials[3].Curve[5].Metrics[1].Value = 4.2e6
	all["far-values"] = x{sweep: far}

	flat := made(20, usual())
	for i := range flat.Trials {
		flat.Trials[i].Value = 0.5
	}
	all["constant-value"] = x{flat, map[string]string{"parameter_importance.png": "separates"}}

	all["300-trials"] = x{sweep: made(300, usual())}
	all["300-trials"].sweep.Metric, all["300-trials"].sweep.Maximize = "val_acc", true

	var many []space.Parameter
	for i := range 24 {
		switch i % 3 {
		case 0:
			many = append(many, float(fmt.Sprintf("augmentation.factor_%d", i), 1e-3, 1, true))
		case 1:
			many = append(many, space.Parameter{Name: fmt.Sprintf("layer_%d_units", i), Kind: space.KindInt, Low: 8, High: 512, Log: true})
		default:
			many = append(many, words(fmt.Sprintf("choice_%d", i), "a rather long name of a choice", "short", "third"))
		}
	}
	all["many-parameters"] = x{sweep: made(60, many)}

	chosen := made(40, []space.Parameter{words("model", "vanilla", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenet_v2", "vgg11", "vgg13"), {Name: "nesterov", Kind: space.KindCategorical, Choices: []space.Value{space.Bool(false), space.Bool(true)}}})
	chosen.Model = ""
	for i := range chosen.Trials {
		chosen.Trials[i].Runs[0].Worker = fmt.Sprintf("machine-%d", i%12)
	}
	all["categorical"] = x{sweep: chosen}

	running := made(8, usual())
	running.Status, running.Ending, running.EndedMS = trial.SweepRunning, "", 0
	running.Trials[7].Status, running.Trials[7].EndedMS, running.Trials[7].Runs[0].EndedMS, running.Trials[7].Runs[0].Exit = trial.Running, 0, 0, 0
	running.Trials = append(running.Trials, report.Trial{Number: 9, Status: trial.Waiting, Point: running.Trials[0].Point})
	all["under-way"] = x{running, map[string]string{"parameter_importance.png": "7 trials"}}

	all["4-trials"] = x{made(4, usual()), map[string]string{"parameter_importance.png": "4 trials"}}
	all["400-trials"] = x{sweep: made(400, usual())}
	all["two-objectives"] = x{sweep: made(40, usual())}
	two := all["two-objectives"].sweep
	two.Objectives = append(two.Objectives, trial.Objective{Metric: "images_per_s", Maximize: true})
	for i := range two.Trials {
		t := &two.Trials[i]
		for k := range t.Curve {
			u := two.Space.Params[4].ToUnit(t.Point[4])
			t.Curve[k].Metrics = append(t.Curve[k].Metrics, trial.Metric{Name: "images_per_s", Value: 300 - 220*u + 10*math.Sin(float64(i))})
		}
	}
	for name, c := range all {
		for _, p := range []string{"value_distribution.png", "contour.png", "rank_plot.png"} {
			if c.lacks["slice_plots.png"] != "" {
				c.lacks[p] = "fewer"
			}
		}
		if name == "one-parameter" {
			c.lacks["contour.png"], c.lacks["rank_plot.png"] = "there is 1", "there is 1"
		}
		if name == "categorical" {
			all[name] = x{c.sweep, map[string]string{"contour.png": "there is 0", "rank_plot.png": "there is 0"}}
		}
	}
	return all
}

var every = []string{"optimization_history.png", "parameter_importance.png", "value_distribution.png", "contour.png", "rank_plot.png", "pairwise_heatmaps.png", "parallel_coordinates.png", "slice_plots.png", "learning_curves.png", "slot_timeline.png"}

// Every sweep gets its summary and all files or a told omission; with ATELIER_PLOTS=folder the
// charts stay there to be looked at.
func TestEveryCase(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if keep := os.Getenv("ATELIER_PLOTS"); keep != "" {
				dir = filepath.Join(keep, "sweep_"+name)
			}
			// What an earlier report left does not pass for this one's.
			os.MkdirAll(dir, 0o755)
			for _, p := range every {
				if err := os.WriteFile(filepath.Join(dir, p), []byte("old"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			w, err := report.Write(dir, c.sweep, report.Options{})
			if err != nil {
				t.Fatal(err)
			}
			summary, err := os.ReadFile(filepath.Join(dir, report.SummaryFile))
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(golden, name) {
				compare(t, name, summary)
			}
			lacks := map[string]string{}
			for _, o := range w.Omitted {
				lacks[o.Name] = o.Reason
				if !strings.Contains(string(summary), "left out: "+o.Reason) {
					t.Errorf("the summary does not tell that %s is left out (%s)", o.Name, o.Reason)
				}
			}
			for _, p := range every {
				word, lacking := c.lacks[p]
				reason, gone := lacks[p]
				if gone != lacking || !strings.Contains(reason, word) {
					t.Errorf("%s: left out %t (%s), want %t (%s)", p, gone, reason, lacking, word)
				}
				f, err := os.Open(filepath.Join(dir, p))
				if gone {
					if err == nil {
						t.Errorf("%s of an earlier report is still there", p)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				img, err := png.DecodeConfig(f)
				f.Close()
				if err != nil || img.Width < 300 || img.Height < 150 || img.Width > plot.MaxSide || img.Height > plot.MaxSide {
					t.Errorf("%s: %dx%d, %v", p, img.Width, img.Height, err)
				}
			}
			check(t, dir, c.sweep)
		})
	}
}

// keys of tuning_results.json that programs rely on.
var resultKeys = []string{"format", "sweep", "name", "model", "search_method", "algorithm", "trainer", "seed", "objective", "status", "ending", "search_space", "training", "budget_trials", "total_trials",
	"completed_trials", "counts", "total_epochs", "started_at", "ended_at", "total_seconds", "best_trial", "best_value", "best_epoch", "best_params", "best_model", "parameter_importance", "trials"}
var trialKeys = []string{"trial", "rank", "status", "params", "value", "best_epoch", "epochs", "metrics", "started_at", "ended_at", "seconds", "runs", "slots", "failure", "stop_reason", "model", "history"}

// check opens the results again and compares them with the sweep.
func check(t *testing.T, dir string, s *report.Sweep) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, report.ResultsFile))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatalf("%v\n%.400s", err, b)
	}
	same(t, "results", raw, resultKeys)
	if n := len(raw["search_space"].(map[string]any)); n != len(s.Space.Params) {
		t.Errorf("search_space has %d parameters, the sweep %d", n, len(s.Space.Params))
	}
	trials := raw["trials"].([]any)
	if len(trials) != len(s.Trials) || raw["total_trials"] != float64(len(s.Trials)) {
		t.Fatalf("%d trials, want %d", len(trials), len(s.Trials))
	}
	best, bestTrial := math.NaN(), any(nil)
	for i, x := range trials {
		m, want := x.(map[string]any), &s.Trials[i]
		same(t, fmt.Sprint("trial ", i+1), m, trialKeys)
		var alone map[string]any
		own, err := os.ReadFile(filepath.Join(dir, report.TrialDir(want.Number), "trial.json"))
		if err == nil {
			err = json.Unmarshal(own, &alone)
		}
		if err != nil || fmt.Sprint(alone) != fmt.Sprint(m) {
			t.Errorf("trial.json of %d: %v, %v", want.Number, err, alone)
		}
		h := m["history"].(map[string]any)
		if n := len(h["epochs"].([]any)); n != len(want.Curve) {
			t.Errorf("trial %d: %d epochs in its history, want %d", i+1, n, len(want.Curve))
		}
		over := want.Status.Over()
		if has := over && want.HasValue && !math.IsNaN(want.Value) && !math.IsInf(want.Value, 0); has {
			if m["rank"] == nil || m["value"] != want.Value {
				t.Errorf("trial %d: rank %v, value %v, want %v", i+1, m["rank"], m["value"], want.Value)
			}
			if math.IsNaN(best) || s.Maximize && want.Value > best || !s.Maximize && want.Value < best {
				best, bestTrial = want.Value, float64(want.Number)
			}
		} else if m["rank"] != nil {
			t.Errorf("trial %d has rank %v without a value", i+1, m["rank"])
		}
	}
	if raw["best_trial"] != bestTrial || bestTrial != nil && raw["best_value"] != best {
		t.Errorf("best trial %v with %v, want %v with %v", raw["best_trial"], raw["best_value"], bestTrial, best)
	}
}

func same(t *testing.T, what string, m map[string]any, want []string) {
	t.Helper()
	var got []string
	for k := range m {
		got = append(got, k)
	}
	slices.Sort(got)
	if sorted := slices.Sorted(slices.Values(want)); !slices.Equal(got, sorted) {
		t.Errorf("%s: keys %q, want %q", what, got, sorted)
	}
}

// golden are the cases whose summary is compared with a file.
var golden = []string{"usual", "all-failed", "under-way", "many-parameters"}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the summary differs from %s (-update rewrites it):\n%s", file, got)
	}
}

// Without charts the text and the numbers stand all the same.
func TestNoPlots(t *testing.T) {
	dir := t.TempDir()
	s := cases()["usual"].sweep
	w, err := report.Write(dir, s, report.Options{NoPlots: true})
	if err != nil || len(w.Files) != 2 {
		t.Fatal(w, err)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.png")); len(found) != 0 {
		t.Error(found)
	}
	check(t, dir, s)
	b, _ := os.ReadFile(filepath.Join(dir, report.SummaryFile))
	if !strings.Contains(string(b), "switched off") {
		t.Errorf("%s", b)
	}
	if _, err := report.Write(filepath.Join(dir, report.SummaryFile, "below"), s, report.Options{}); err == nil {
		t.Error("wrote below a file")
	}
}

// What Write would replace is told, unless it is an earlier report of the sweep.
func TestOther(t *testing.T) {
	dir := t.TempDir()
	mine := *cases()["usual"].sweep
	mine.ID = "s-mine"
	s := &mine
	if got, err := report.Other(filepath.Join(dir, "none"), s); got != "" || err != nil {
		t.Errorf("no folder: %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "slice_plots.png"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := report.Other(dir, s); !strings.Contains(got, "slice_plots.png") || err != nil {
		t.Errorf("a picture: %q, %v", got, err)
	}
	if _, err := report.Write(dir, s, report.Options{NoPlots: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := report.Other(dir, s); got != "" || err != nil {
		t.Errorf("its own: %q, %v", got, err)
	}
	other := *s
	other.ID = "s-other"
	if got, err := report.Other(dir, &other); got != "the results of sweep "+s.ID || err != nil {
		t.Errorf("another sweep's: %q, %v", got, err)
	}
}
