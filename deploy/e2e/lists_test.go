package e2e_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

const listedSpec = `
name: listed
search_method: random
seed: 3
objective: {metric: val_loss, direction: minimize}
budget: {trials: 24}
parallelism: 8
trainer: sim
space:
  learning_rate: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
  optimizer: {type: categorical, choices: [sgd, adamw, rmsprop]}
training: {epochs: 3, epoch_seconds: 0.03}
`

// onScreen runs the command with its output on a terminal of so many columns.
func onScreen(t *testing.T, ctx context.Context, cluster *local.Cluster, columns uint16, args ...string) string {
	t.Helper()
	person, program := terminal(t, columns)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args...)
	cmd.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
	cmd.Stdout = program
	must(t, cmd.Start())
	program.Close() // the person's end ends with the command
	text, _ := io.ReadAll(person)
	if err := cmd.Wait(); err != nil {
		t.Errorf("atelier %s: %v", strings.Join(args, " "), err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// While a sweep runs no more of its trials run than there are slots, although slots
// fetch trials ahead; then the lists of an 80-column terminal have no row that
// wraps, show accuracy beside loss, and go by the sweep's name.
func TestListsOfASweep(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const slots = 2
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: slots})
	c := cluster.Client()
	id := submit(t, ctx, c, listedSpec)
	most := int64(0)
	s := await(t, ctx, c, id, "the end", func(s *trial.Sweep) bool {
		listed := int64(0)
		for _, err := range c.Trials(ctx, id, client.Which{Status: []trial.Status{trial.Running}}) {
			must(t, err)
			listed++
		}
		most = max(most, s.Counts.Running, listed)
		return ended(s)
	})
	if most > slots || most == 0 {
		t.Errorf("%d trials ran at once on %d slots", most, slots)
	}
	if s.Status != trial.SweepFinished {
		t.Fatalf("%+v", s)
	}
	for what, args := range map[string][]string{
		"VAL_ACC": {"leaderboard", id}, "VALUE": {"trial", "list", id}, "NAME": {"sweep", "list"}, "SLOT": {"worker", "list"}, "METRIC": {"checkpoint", "list", id},
	} {
		text := onScreen(t, ctx, cluster, 80, args...)
		head, _, _ := strings.Cut(text, "\n")
		if !strings.Contains(head, what) {
			t.Errorf("%q: no column %s in %q", args, what, head)
		}
		for l := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > 80 {
				t.Errorf("%q: a row of %d columns: %s", args, n, l)
			}
		}
		// Elsewhere nothing is left out.
		if full := must0(t, ctx, cluster, args...); what == "METRIC" && !strings.Contains(full, "http://") {
			t.Errorf("%q: no location in a file:\n%s", args, full)
		}
	}
	for _, name := range []string{"listed", "@", id[:6], id[2:6]} {
		stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "show", name)
		if code != 0 || !strings.Contains(stdout, id) || !strings.Contains(stderr, "is sweep "+id) {
			t.Errorf("%s: exit %d\n%s%s", name, code, stdout, stderr)
		}
	}
}
