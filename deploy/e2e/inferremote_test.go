package e2e_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// Inference on a cluster's workers: the output folder arrives here whole, equal
// to what this machine's trainer writes; a worker that is killed in the middle
// costs time alone; mistakes are told in the trainer's words.
func TestInferenceOnAWorker(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, LeaseTTL: 3 * time.Second, ExtraArgs: map[string][]string{"worker": flags}})
	data, model := trained(t, ctx, dir, flags[1])
	best, test := filepath.Join(model, "best_model.pth"), filepath.Join(data, "test")

	// Here and there: the same figures.
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "there")
	results := func(cluster *local.Cluster, out string, args ...string) map[string]any {
		t.Helper()
		stdout, stderr, code := atelier(t, ctx, cluster, append([]string{"infer", "--trainer-bin", flags[1], "--image-dir", test, "--output-dir", out, "--set", "processing.threads=1"}, args...)...)
		if code != 0 || stdout != out+"\n" || !strings.Contains(stderr, "24 images") {
			t.Fatalf("infer %v: exit %d, %q: %s", args, code, stdout, stderr)
		}
		if where := strings.Contains(stderr, ": on w"); where != (cluster != nil) {
			t.Errorf("infer %v ran elsewhere: %s", args, stderr)
		}
		b, err := os.ReadFile(filepath.Join(out, "evaluation_results.json"))
		must(t, err)
		var doc map[string]any
		must(t, json.Unmarshal(b, &doc))
		return doc
	}
	production := []string{"--mode", "production", "--set", "production_mode.run_evaluation=true"}
	mine := results(nil, here, append(production, "--checkpoint", best)...)
	theirs := results(cluster, there, append(production, "--checkpoint", best)...)
	for _, key := range []string{"accuracy", "macro_avg", "confusion_matrix", "predictions"} {
		a, _ := json.Marshal(mine[key])
		b, _ := json.Marshal(theirs[key])
		if string(a) != string(b) {
			t.Errorf("%s: here %s, on a worker %s", key, a, b)
		}
	}
	var names [2][]string
	for i, out := range []string{here, there} {
		must(t, filepath.WalkDir(out, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				rel, _ := filepath.Rel(out, p)
				names[i] = append(names[i], rel)
			}
			return err
		}))
	}
	if a, b := strings.Join(names[0], " "), strings.Join(names[1], " "); a != b {
		t.Errorf("files here: %s\non a worker: %s", a, b)
	}

	// It is a sweep, and not a tuning: what is asked of tunings says so.
	made, err := cluster.Client().Sweeps(ctx, 0)
	must(t, err)
	for _, args := range [][]string{{"sweep", "report", "ID", "--out", filepath.Join(dir, "report")}, {"sweep", "progress", "ID"}, {"sweep", "importance", "ID"}, {"sweep", "extend", "ID", "--trials", "1"},
		{"leaderboard", "ID"}, {"checkpoint", "pull", "ID", "--to", filepath.Join(dir, "results.tar")}} {
		args[slices.Index(args, "ID")] = made[0].ID
		_, stderr, code := atelier(t, ctx, cluster, args...)
		if pulled := args[1] == "pull"; pulled != (code == 0) || !strings.Contains(stderr, "is an inference, not a tuning") {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}

	strange := filepath.Join(dir, "strange")
	must(t, os.CopyFS(filepath.Join(strange, "igloo"), os.DirFS(filepath.Join(test, "gothic"))))
	for name, c := range map[string]struct{ args, want []string }{
		"no such folder": {[]string{"--image-dir", filepath.Join(dir, "none")}, []string{"facades", "there is no"}},
		"classes":        {[]string{"--image-dir", strange}, []string{"not classes of the model", "igloo"}},
		"no such sweep":  {[]string{"--checkpoint", "s-aaaaaaaa"}, []string{"s-aaaaaaaa"}},
		"checkpoint":     {[]string{"--checkpoint", filepath.Join(model, "best_modle.pth")}, []string{best}},
	} {
		_, stderr, code := atelier(t, ctx, cluster, append([]string{"infer", "--checkpoint", best, "--image-dir", test, "--output-dir", filepath.Join(dir, "bad")}, c.args...)...)
		for _, want := range c.want {
			if code == 0 || !strings.Contains(stderr, want) {
				t.Errorf("%s: exit %d, want %q in: %s", name, code, want, stderr)
			}
		}
	}

	// A checkpoint of the cluster, fetched by the worker, by hash.
	sweep := submit(t, ctx, cluster.Client(), torchSpec(data, "random", "epochs: 1"))
	await(t, ctx, cluster.Client(), sweep, "the end of the training sweep", ended)
	results(cluster, filepath.Join(dir, "stored"), "--checkpoint", sweep)

	// The worker that has it is killed; the other one begins anew.
	many := filepath.Join(dir, "many")
	for _, n := range []string{"a", "b", "c", "d"} {
		must(t, os.CopyFS(filepath.Join(many, n), os.DirFS(test)))
	}
	type answer struct {
		stdout, stderr string
		code           int
	}
	done := make(chan answer, 1)
	out := filepath.Join(dir, "killed")
	go func() {
		stdout, stderr, code := atelier(t, ctx, cluster, "infer", "--checkpoint", best, "--mode", "explain_batch", "--batch-size", "1", "--image-dir", many, "--output-dir", out)
		done <- answer{stdout, stderr, code}
	}()
	c := cluster.Client()
	victim := ""
	for victim == "" {
		sweeps, err := c.Sweeps(ctx, 0)
		must(t, err)
		for _, s := range sweeps {
			if !strings.Contains(s.Name, "explain_batch") {
				continue
			}
			tr, err := c.Trial(ctx, s.ID, 1)
			if err == nil && tr.Epoch > 0 && tr.Status == trial.Running {
				victim = tr.LastRun().Worker
			}
		}
		select {
		case a := <-done:
			t.Fatalf("it ended before a worker could be killed: %+v", a)
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, w := range cluster.Workers {
		if w.Name == victim {
			must(t, w.Kill())
		}
	}
	a := <-done
	maps, _ := filepath.Glob(filepath.Join(out, "heatmaps", "*.png"))
	if a.code != 0 || !strings.Contains(a.stderr, "starts again on w") || len(maps) != 4*24 {
		t.Errorf("after the death of %s: exit %d, %d pictures: %s", victim, a.code, len(maps), a.stderr)
	}
}
