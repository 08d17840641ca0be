package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/inference"
	"atelier/common/local"
	"atelier/common/trial"

	"go.yaml.in/yaml/v3"
)

// scripted writes a trainer in sh, named scripted, and the file that a worker
// reads of it. body runs after the job has come: $job is its line, $dir its folder.
func scripted(t *testing.T, body string) (trainers string) {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "trainer.sh")
	must(t, os.WriteFile(script, []byte(`#!/bin/sh
say() { echo "$1" >&3; }
say '{"event":"hello","protocol":1,"name":"scripted"}'
read -r job
dir=$(printf '%s' "$job" | sed 's/.*"dir":"\([^"]*\)".*/\1/')
`+body+`
say '{"event":"done","reason":"finished"}'
`), 0o755))
	trainers = filepath.Join(dir, "trainers.yaml")
	must(t, os.WriteFile(trainers, []byte("trainers: {scripted: {command: ["+script+"]}}\n"), 0o644))
	return trainers
}

// Three epochs with the same value: leaderboard (of the state and of Redis), trial,
// index, retention, `checkpoint pull`, `infer --checkpoint SWEEP` and `serve` name
// one and the same checkpoint.
func TestTies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	trainers := scripted(t, `for e in 1 2 3; do
  say "{\"event\":\"epoch\",\"epoch\":$e,\"metrics\":{\"val_acc\":0.5},\"seconds\":1}"
  echo "weights of epoch $e" > "$dir/$e.pth"
  say "{\"event\":\"checkpoint\",\"epoch\":$e,\"path\":\"$dir/$e.pth\",\"size\":19,\"sha256\":\"$(sha256sum < "$dir/$e.pth" | cut -d' ' -f1)\",\"metrics\":{\"val_acc\":0.5}}"
done`)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, Shared: true, Redis: true, ExtraArgs: map[string][]string{"worker": {"--trainers", trainers}}})
	c := cluster.Client()
	id := submit(t, ctx, c, "search_method: random\nseed: 1\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 2}\nparallelism: 1\ntrainer: scripted\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\n")
	await(t, ctx, c, id, "the sweep has ended", ended)
	const want = "weights of epoch 1\n"
	shown := func(into any, args ...string) {
		t.Helper()
		out, errs, code := atelier(t, ctx, cluster, append(args, "-o", "json")...)
		if err := json.Unmarshal([]byte(out), into); err != nil || code != 0 {
			t.Fatalf("%v: exit %d, %v: %s%s", args, code, err, out, errs)
		}
	}
	var best struct {
		Best struct{ Trial, Epoch int }
	}
	if shown(&best, "sweep", "show", id); best.Best.Trial != 1 || best.Best.Epoch != 1 {
		t.Errorf("the sweep's best is %+v, want trial 1, epoch 1", best)
	}
	var rows []struct {
		Trial, Epoch int
		Checkpoint   string
	}
	var index []struct {
		Trial, Epoch int
		Location     string
	}
	for _, source := range []string{"state", "redis"} {
		shown(&rows, "leaderboard", id, "--source", source)
		if len(rows) != 2 || rows[0].Trial != 1 || rows[0].Epoch != 1 {
			t.Fatalf("leaderboard of %s: %+v, want trial 1, epoch 1 first", source, rows)
		}
		shown(&index, "checkpoint", "list", id, "--trial", "1", "--source", source)
		at := slices.IndexFunc(index, func(c struct {
			Trial, Epoch int
			Location     string
		}) bool {
			return c.Location == rows[0].Checkpoint
		})
		if at < 0 || index[at].Epoch != 1 {
			t.Errorf("index of %s: %+v; the leaderboard names %s", source, index, rows[0].Checkpoint)
		}
	}
	// Retention kept its file.
	path, _ := trial.Location(rows[0].Checkpoint).Shared()
	if b, err := os.ReadFile(filepath.Join(cluster.SharedDir, path)); string(b) != want {
		t.Errorf("the leaderboard's checkpoint holds %q, %v", b, err)
	}
	out, errs, code := atelier(t, ctx, cluster, "checkpoint", "pull", id, "--shared", cluster.SharedDir, "--to", t.TempDir())
	pulled := strings.TrimSpace(out)
	if b, err := os.ReadFile(pulled); code != 0 || string(b) != want || !strings.HasSuffix(pulled, id+"-1-e1.pth") {
		t.Errorf("pulled %s: %q, exit %d, %v: %s", pulled, b, code, err, errs)
	}

	t.Run("infer", func(t *testing.T) {
		// No worker here has the trainer of libtorch: the run waits, and says what it would take.
		waiting, giveUp := context.WithCancel(ctx)
		done := make(chan struct{})
		images := t.TempDir()
		must(t, os.WriteFile(filepath.Join(images, "house.jpg"), []byte("is not looked at"), 0o644))
		go func() {
			defer close(done)
			atelier(t, waiting, cluster, "infer", "--checkpoint", id, "--mode", "production", "--image-dir", images, "--output-dir", filepath.Join(t.TempDir(), "out"))
		}()
		defer func() { giveUp(); <-done }()
		var stored *inference.Stored
		for stored == nil {
			var sweeps []struct{ ID, Kind string }
			shown(&sweeps, "sweep", "list")
			for _, s := range sweeps {
				if s.Kind != "inference" {
					continue
				}
				text, errs, code := atelier(t, ctx, cluster, "sweep", "show", s.ID, "--spec")
				var spec struct {
					Training struct{ Checkpoint *inference.Stored }
				}
				if err := yaml.Unmarshal([]byte(text), &spec); err != nil || code != 0 || spec.Training.Checkpoint == nil {
					t.Fatalf("exit %d, %v: %s%s", code, err, text, errs)
				}
				stored = spec.Training.Checkpoint
			}
			select {
			case <-done:
				t.Fatal("infer ended before it was submitted")
			case <-time.After(50 * time.Millisecond):
			}
		}
		if *stored != (inference.Stored{Sweep: id, Trial: 1, Epoch: 1}) {
			t.Errorf("infer takes %+v", *stored)
		}
	})

	t.Run("serve", func(t *testing.T) {
		cache := t.TempDir()
		t.Setenv("XDG_CACHE_HOME", cache)
		t.Setenv("ATELIER_SHARED", cluster.SharedDir)
		app := served(t, torch(t)[1], t.TempDir(), "--addr", strings.Join(cluster.APIAddrs(), ","))
		var encoded bytes.Buffer
		must(t, png.Encode(&encoded, image.NewGray(image.Rect(0, 0, 64, 64))))
		if status, b, err := app.ask("?checkpoint="+id+"/1", "house.png", encoded.Bytes()); err != nil || status == 200 {
			t.Errorf("a model of plain text answers %d %s, %v", status, b, err)
		}
		found, _ := filepath.Glob(filepath.Join(cache, "atelier", "served", "*.pth"))
		if len(found) != 1 {
			t.Fatalf("it fetched %q", found)
		}
		if b, err := os.ReadFile(found[0]); string(b) != want {
			t.Errorf("it fetched %q, %v", b, err)
		}
	})
}
