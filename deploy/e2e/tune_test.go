package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/mlflow/mlflowtest"
)

// tuningFile is a tuning without training: epochs of a third of a second.
const tuningFile = `
trainer: sim
search_method: bayesian
seed: 5
trials: 6
training: {epochs: 4}
trainer_settings: {epoch_seconds: 0.3}
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  depth: {type: int, low: 1, high: 5}
local: {slots: 2, redis: "off"}
`

// tuningFolder is a working folder with that configuration where it is looked
// for.
func tuningFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "conf/tuning_config.yaml"), []byte(tuningFile), 0o644))
	return dir
}

type tuningResults struct {
	Sweep     string `json:"sweep"`
	Status    string `json:"status"`
	Completed int    `json:"completed_trials"`
	BestTrial int    `json:"best_trial"`
	BestModel string `json:"best_model"`
	Trials    []struct {
		Trial   int    `json:"trial"`
		Status  string `json:"status"`
		Model   string `json:"model"`
		Runs    int    `json:"runs"`
		History struct {
			Epochs  []int     `json:"epochs"`
			ValLoss []float64 `json:"val_loss"`
		} `json:"history"`
	} `json:"trials"`
}

func readTuning(t *testing.T, dir string) (r tuningResults) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "tuning_results.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &r))
	return r
}

// tuneIn is the command in a working folder.
func tuneIn(ctx context.Context, dir string, errs *strings.Builder, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), append([]string{"tune"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, errs
	return cmd
}

// reports waits until the cluster of a tuning on this machine has taken so many
// reports, and reports whether the tuning has not ended before.
func reports(t *testing.T, ctx context.Context, folder string, ended <-chan error, n int64) bool {
	t.Helper()
	for {
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if ctx.Err() != nil {
			t.Fatalf("never came: %d reports", n)
		}
		var run struct{ Sweep string }
		var at struct{ API string }
		b, err := os.ReadFile(filepath.Join(folder, "resume/run.json"))
		if err != nil || json.Unmarshal(b, &run) != nil || run.Sweep == "" {
			continue
		}
		b, err = os.ReadFile(filepath.Join(folder, "resume/cluster/c1.address.json"))
		if err != nil || json.Unmarshal(b, &at) != nil || at.API == "" {
			continue
		}
		api := client.New([]string{at.API}, client.WithRetryFor(time.Millisecond))
		s, err := api.Sweep(ctx, run.Sweep)
		api.Close()
		if err == nil && s.Counts.Reports >= n {
			return true
		}
	}
}

// A tuning on this machine is interrupted, resumed, killed, and resumed
// again: no trial and no report is lost, and nothing outlives it.
func TestTuneHere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := tuningFolder(t)
	folder := filepath.Join(dir, "checkpoints_tuning/resnet18/bayesian")
	args := []string{"--no_mlflow"}
	var children []int
	for i, x := range []struct {
		signal syscall.Signal
		after  int64
	}{{syscall.SIGINT, 3}, {syscall.SIGKILL, 9}} {
		var errs strings.Builder
		cmd := tuneIn(ctx, dir, &errs, args...)
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if !reports(t, ctx, folder, ended, x.after) {
			t.Fatalf("session %d ended too early: %s\n%s", i, cmd.ProcessState, errs.String())
		}
		if i == 0 { // nobody else may write there
			var second strings.Builder
			other := tuneIn(ctx, dir, &second, "--resume", "--no-mlflow")
			if err := other.Run(); err == nil || !strings.Contains(second.String(), "another tuning is writing to") {
				t.Errorf("a second tuning in the folder: %v\n%s", err, second.String())
			}
		}
		children = append(children, childrenOf(cmd.Process.Pid)...)
		must(t, cmd.Process.Signal(x.signal))
		<-ended
		if x.signal == syscall.SIGINT {
			if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(errs.String(), "to resume: atelier tune --resume checkpoints_tuning/resnet18/bayesian") {
				t.Errorf("interrupted: exit %d:\n%s", code, errs.String())
			}
			if r := readTuning(t, folder); r.Status != "running" || len(r.Trials) == 0 || len(r.Trials[0].History.Epochs) == 0 {
				t.Errorf("the report of an interrupted tuning: %+v", r)
			}
			// Without --resume it is not begun again.
			if _, stderr, code := atelier(t, ctx, nil, "tune", "--no-mlflow", "--config", filepath.Join(dir, "conf/tuning_config.yaml"), "--out", folder); code != 1 || !strings.Contains(stderr, "has not ended: --resume") {
				t.Errorf("begun again: exit %d:\n%s", code, stderr)
			}
		}
		args = []string{"--resume", "--no-mlflow"}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		left := 0
		for _, pid := range children {
			if syscall.Kill(pid, 0) == nil {
				left++
			}
		}
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d servers outlive the tuning", left)
		}
	}
	var errs strings.Builder
	cmd := tuneIn(ctx, dir, &errs, "--resume", folder)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil || out.String() != "checkpoints_tuning/resnet18/bayesian\n" {
		t.Fatalf("going on: %v, %q\n%s", err, out.String(), errs.String())
	}
	r := readTuning(t, folder)
	again := 0
	for _, x := range r.Trials {
		again += x.Runs - 1
		if x.Status != "finished" || fmt.Sprint(x.History.Epochs) != "[1 2 3 4]" || x.Model == "" {
			t.Errorf("%+v", x)
		} else if st, err := os.Stat(filepath.Join(folder, x.Model)); err != nil || st.Size() == 0 {
			t.Errorf("model of trial %d: %v", x.Trial, err)
		}
	}
	if r.Status != "finished" || r.Completed != 6 || len(r.Trials) != 6 || again == 0 {
		t.Errorf("%s, %d of %d trials complete, %d runs beyond the first", r.Status, r.Completed, len(r.Trials), again)
	}
	if _, stderr, code := atelier(t, ctx, nil, "tune", "--resume", folder); code != 1 || !strings.Contains(stderr, "has ended (finished)") {
		t.Errorf("resumed at the end: exit %d:\n%s", code, stderr)
	}

	// With more trials it goes on after its end, with what it knows.
	if _, stderr, code := atelier(t, ctx, nil, "tune", "--resume", folder, "--trials", "6"); code != 1 || !strings.Contains(stderr, "budget of 6 trials in all: name more") {
		t.Errorf("as many trials: exit %d:\n%s", code, stderr)
	}
	if _, stderr, code := atelier(t, ctx, nil, "tune", "--no-mlflow", "--resume", folder, "--trials", "8"); code != 0 {
		t.Fatalf("two trials more: exit %d:\n%s", code, stderr)
	}
	longer := readTuning(t, folder)
	if longer.Status != "finished" || longer.Completed != 8 || len(longer.Trials) != 8 || longer.Sweep != r.Sweep {
		t.Fatalf("%s, %d of %d trials complete, sweep %s, was %s", longer.Status, longer.Completed, len(longer.Trials), longer.Sweep, r.Sweep)
	}
	for i, x := range longer.Trials {
		if i < 6 && fmt.Sprint(x) != fmt.Sprint(r.Trials[i]) {
			t.Errorf("%+v, was %+v", x, r.Trials[i])
		}
		if st, err := os.Stat(filepath.Join(folder, x.Model)); x.Model == "" || err != nil || st.Size() == 0 {
			t.Errorf("model of trial %d: %q, %v", x.Trial, x.Model, err)
		}
	}

	// Whoever does not want that keeps the logs alone.
	errs.Reset()
	if err := tuneIn(ctx, dir, &errs, "--no-mlflow", "--overwrite", "--trials", "1", "--set", "local.keep=false").Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "resume/cluster/*")); len(left) != 1 || filepath.Base(left[0]) != "logs" {
		t.Errorf("left of the cluster: %q", left)
	}
	if _, stderr, code := atelier(t, ctx, nil, "tune", "--resume", folder, "--trials", "2"); code != 1 || !strings.Contains(stderr, "local.keep: false") {
		t.Errorf("without its data: exit %d:\n%s", code, stderr)
	}
}

// A tuning on this machine keeps its leaderboard in a Redis of its own, where
// one is installed.
func TestTuneHereWithRedis(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server: apt-get install redis-server")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := tuningFolder(t)
	folder := filepath.Join(dir, "out")
	var errs strings.Builder
	cmd := tuneIn(ctx, dir, &errs, "--no-mlflow", "--out", "out", "--trials", "60", "--set", "local.redis=on")
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if !reports(t, ctx, folder, ended, 9) { // two trials of four epochs have ended
		t.Fatalf("ended too early: %s\n%s", cmd.ProcessState, errs.String())
	}
	var at struct{ API string }
	b, err := os.ReadFile(filepath.Join(folder, "resume/cluster/c1.address.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &at))
	var run struct{ Sweep string }
	b, err = os.ReadFile(filepath.Join(folder, "resume/run.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &run))
	for {
		out, stderr, code := atelier(t, ctx, nil, "--addr", at.API, "leaderboard", run.Sweep, "-o", "json", "--source", "redis")
		if code == 0 && strings.Contains(stderr, "redis") && strings.Count(out, `"rank"`) > 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no rows in Redis: exit %d, %s\n%s", code, out, stderr)
		}
		time.Sleep(50 * time.Millisecond)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit %d:\n%s", code, errs.String())
	}
}

// With a cluster addressed the sweep runs there and goes on when nobody
// watches; its report comes here, and to MLflow.
func TestTuneInACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	server := mlflowtest.New(t)
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 2, Shared: true})
	t.Setenv("ATELIER_ADDR", strings.Join(cluster.APIAddrs(), ","))
	t.Setenv("ATELIER_SHARED", cluster.SharedDir)
	dir := tuningFolder(t)
	folder := filepath.Join(dir, "out")
	var errs strings.Builder
	cmd := tuneIn(ctx, dir, &errs, "--out", "out", "--mlflow", "--set", "mlflow.tracking_uri="+server.URL, "--model", "vanilla", "--set", "objective.metric=val_acc",
		"--set", "trainer_settings.epoch_seconds=1")
	must(t, cmd.Start())
	for len(server.Runs("architectural-style-tuning")) < 2 {
		if ctx.Err() != nil {
			t.Fatalf("nothing in MLflow:\n%s", errs.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(errs.String(), "the sweep continues as s-") {
		t.Fatalf("interrupted: exit %d:\n%s", code, errs.String())
	}
	errs.Reset()
	if err := tuneIn(ctx, dir, &errs, "--resume", "out").Run(); err != nil {
		t.Fatalf("watched again: %v\n%s", err, errs.String())
	}
	r := readTuning(t, folder)
	if r.Status != "finished" || r.Completed != 6 || r.BestModel == "" {
		t.Errorf("%+v", r)
	}
	runs := server.Runs("architectural-style-tuning")
	if len(runs) != 7 || runs[0].Status != "FINISHED" || runs[0].Tags["atelier.sweep"] != r.Sweep || runs[1].Tags["mlflow.parentRunId"] != runs[0].ID {
		t.Errorf("%d runs: %+v", len(runs), runs)
	}
	// The same report of the sweep alone, from the same hand.
	if _, stderr, code := atelier(t, ctx, cluster, "sweep", "report", r.Sweep, "-o", filepath.Join(dir, "alone"), "--no-plots"); code != 0 {
		t.Fatalf("sweep report: exit %d: %s", code, stderr)
	}
	alone := readTuning(t, filepath.Join(dir, "alone"))
	for i := range alone.Trials {
		if fmt.Sprint(alone.Trials[i].History) != fmt.Sprint(r.Trials[i].History) || alone.BestTrial != r.BestTrial {
			t.Errorf("trial %d: %+v, of the tuning %+v", i+1, alone.Trials[i], r.Trials[i])
		}
	}
	if charts, _ := filepath.Glob(filepath.Join(dir, "alone/*.png")); len(charts) != 0 {
		t.Error(charts)
	}
}

// On a terminal a bare `atelier tune` asks for model and tracking, and draws a
// bar.
func TestTuneOnATerminal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := tuningFolder(t)
	at := sit(t, ctx, dir, 120, "", "tune")
	at.sees("Model, by number or name [resnet18]: ")
	at.types("mobilenet_v2")
	at.sees("Track this tuning with MLflow? [Y/n]: ")
	at.types("n")
	at.sees("bayesian (gp) of mobilenet_v2, s-")
	at.sees("6 trials (6 finished)")
	must(t, at.cmd.Wait())
	if got := at.out.String(); got != "checkpoints_tuning/mobilenet_v2/bayesian\n" {
		t.Errorf("standard output %q", got)
	}
	if !regexp.MustCompile(`\r\x1b\[K\[[#-]{20}\] \d/6 trials, \d running`).MatchString(at.shown()) {
		t.Errorf("no bar in\n%q", at.shown())
	}
	if _, err := os.Stat(filepath.Join(dir, "mlruns")); err == nil {
		t.Error("it was tracked although the answer was no")
	}
}

// The real trainer: two trials on a part of some images; their models open,
// and MLflow's folder has the report.
func TestTuneTrains(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	data, dir := facades(t, ctx), t.TempDir()
	var errs strings.Builder
	cmd := tuneIn(ctx, dir, &errs, "--quick", "--model", "vanilla", "--data", data, "--trials", "2", "--epochs", "1", "--mlflow", "--trainer-bin", trainer,
		"--set", "image_size=32", "--set", "subset.train=12", "--set", "subset.validation=6")
	cmd.Env = append(os.Environ(), "MLFLOW_TRACKING_URI=", "XDG_CACHE_HOME="+t.TempDir())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	for _, want := range []string{"Next:\n  atelier infer --checkpoint checkpoints_tuning/vanilla/bayesian/trials/trial_000", "\n  atelier serve --checkpoint checkpoints_tuning/vanilla/bayesian/trials/trial_000", "MLflow, to look at it: "} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("no %q in\n%s", want, errs.String())
		}
	}
	folder := filepath.Join(dir, "checkpoints_tuning/vanilla/bayesian")
	r := readTuning(t, folder)
	if r.Completed != 2 || len(r.Trials) != 2 {
		t.Fatalf("%+v\n%s", r, errs.String())
	}
	for _, x := range r.Trials {
		if x.Model != fmt.Sprintf("trials/trial_%04d/best_model.pth", x.Trial) || len(tensors(t, filepath.Join(folder, x.Model))) < 10 {
			t.Errorf("trial %d: model %q", x.Trial, x.Model)
		}
	}
	for _, name := range []string{"diagnostics_summary.txt", "tuning_results.json", "optimization_history.png", "optimization_history.svg", "value_distribution.png", "learning_curves.png", "slot_timeline.png"} {
		found, _ := filepath.Glob(filepath.Join(dir, "mlruns/*/*/artifacts", name))
		if len(found) != 1 {
			t.Errorf("%s in MLflow: %q", name, found)
		}
	}
}
