package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/local"
	v1 "atelier/common/proto/atelier/v1"
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

// Three epochs with the same value: leaderboard, trial, index and `checkpoint
// pull` name one and the same checkpoint, and its file is kept.
func TestTies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	trainers := scripted(t, `for e in 1 2 3; do
  say "{\"event\":\"epoch\",\"epoch\":$e,\"metrics\":{\"val_acc\":0.5},\"seconds\":1}"
  echo "weights of epoch $e" > "$dir/$e.pth"
  say "{\"event\":\"checkpoint\",\"epoch\":$e,\"path\":\"$dir/$e.pth\",\"size\":19,\"sha256\":\"$(sha256sum < "$dir/$e.pth" | cut -d' ' -f1)\",\"metrics\":{\"val_acc\":0.5}}"
done`)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--trainers", trainers}}})
	c := cluster.Client()
	id := submit(t, ctx, c, "search_method: random\nseed: 1\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 2}\nparallelism: 1\ntrainer: scripted\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\n")
	await(t, ctx, c, id, "the sweep has ended", ended)
	board, err := c.Sweeps.GetLeaderboard(ctx, connect.NewRequest(&v1.GetLeaderboardRequest{Id: id}))
	must(t, err)
	first := board.Msg.Rows[0]
	s, err := sweep(ctx, c, id)
	must(t, err)
	if first.Trial != 1 || first.Epoch != 1 || s.Best.Number != 1 {
		t.Errorf("leaderboard %v, best %v: want trial 1, epoch 1", first, s.Best)
	}
	out, errs, code := atelier(t, ctx, cluster, "checkpoint", "pull", id, "--to", t.TempDir())
	path := strings.TrimSpace(out)
	b, err := os.ReadFile(path)
	if err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if !strings.HasSuffix(path, id+"-1-e1.pth") || string(b) != "weights of epoch 1\n" {
		t.Errorf("pulled %s, %q; the leaderboard names %s", path, b, first.Checkpoint)
	}
}
