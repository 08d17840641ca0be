package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

// population is a sweep of 4 members that train in segments of 2 epochs.
func population(epochs int, seconds float64) string {
	return fmt.Sprintf(`
name: population
search_method: pbt
seed: 5
objective: {metric: val_loss, direction: minimize}
parallelism: 4
population: {interval: 2}
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: %d, epoch_seconds: %g}
`, epochs, seconds)
}

// checkSegments looks whether every segment of a population trained its 2 epochs
// and no more, none failed, and all of them are there.
func checkSegments(t *testing.T, ctx context.Context, cluster *local.Cluster, id string, epochs int) {
	t.Helper()
	c := cluster.Client()
	all := trials(t, ctx, c, id)
	if want := 4 * epochs / 2; len(all) != want {
		t.Errorf("%d segments, want %d", len(all), want)
	}
	for _, tr := range all {
		switch tr.Status {
		case trial.Finished, trial.Stopped:
		default:
			t.Errorf("segment %d is %v: %s", tr.Number, tr.Status, tr.Failure)
		}
		from := tr.OriginEpoch
		if got := epochsOf(t, ctx, c, id, tr.Number); !slices.Equal(got, []int32{from + 1, from + 2}) {
			t.Errorf("segment %d, from epoch %d of trial %d, trained epochs %v", tr.Number, from, tr.OriginTrial, got)
		}
	}
	if stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "verify", id); code != 0 {
		t.Errorf("sweep verify: exit %d\n%s%s", code, stdout, stderr)
	}
}

// epochsOf returns the epochs of a trial's curve.
func epochsOf(t *testing.T, ctx context.Context, c *client.Client, id string, trial int64) (out []int32) {
	t.Helper()
	reports, err := c.Curve(ctx, id, trial)
	must(t, err)
	for _, p := range reports {
		out = append(out, p.Epoch)
	}
	return out
}

// Nobody can tell a run to end while nobody leads. Segments of a population and
// runs up to a rung end where they should all the same, and wait.
func TestRunsEndByThemselvesWhileNobodyLeads(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, SlotsPerWorker: 4})
	c := cluster.Client()
	members := submit(t, ctx, c, population(8, 0.4))
	rungs := submit(t, ctx, c, `
name: rungs
search_method: random
seed: 3
objective: {metric: val_loss, direction: minimize}
budget: {trials: 9}
parallelism: 4
trainer: sim
stopping: {rule: asha, min_epochs: 2, reduction: 3, spend: 0}
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
training: {epochs: 18, epoch_seconds: 0.4}
`)
	for _, id := range []string{members, rungs} {
		await(t, ctx, c, id, "4 runs in work", func(s *trial.Sweep) bool { return s.Counts.Running == 4 })
	}
	must(t, cluster.Coordinators[0].Pause())
	time.Sleep(4 * time.Second)
	must(t, cluster.Coordinators[0].Continue())
	for _, id := range []string{members, rungs} {
		if s := await(t, ctx, c, id, "the end", ended); s.Status != trial.SweepFinished || s.Counts.Failed > 0 {
			t.Errorf("%s ended as %v (%s) with %v", s.Name, s.Status, s.Failure, s.Counts)
		}
	}
	checkSegments(t, ctx, cluster, members, 8)
	whole := 0
	for _, tr := range trials(t, ctx, c, rungs) {
		switch got := epochsOf(t, ctx, c, rungs, tr.Number); len(got) {
		case 18:
			whole++
		case 2, 6:
		default:
			t.Errorf("trial %d, %v, trained epochs %v: rungs are at 2 and 6", tr.Number, tr.Status, got)
		}
	}
	if whole != 1 {
		t.Errorf("%d trials trained to the end, want one of 9", whole)
	}
}

// The leader is killed again and again, by default a few times; ATELIER_KILLS
// says how often. Every member trains as many epochs as without faults.
func TestPopulationOutlivesItsLeaders(t *testing.T) {
	kills := 3
	if text := os.Getenv("ATELIER_KILLS"); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		kills = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(kills+6)*45*time.Second)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, SlotsPerWorker: 2})
	c := cluster.Client()
	epochs := 8 + 4*kills
	id := submit(t, ctx, c, population(epochs, 0.3))
	for k := range kills {
		s := await(t, ctx, c, id, "a segment in work", func(s *trial.Sweep) bool { return s.Counts.Running > 0 && s.Counts.Proposed > int64(2*k) || ended(s) })
		if ended(s) {
			t.Fatalf("the sweep ended as %v after %d kills, before it was tried enough: %v", s.Status, k, s.Counts)
		}
		leader, err := cluster.Leader(ctx)
		must(t, err)
		t.Logf("kill %d: leader %s, with %d of the sweep's trials ended", k+1, leader.Name, s.Counts.Proposed-s.Counts.Waiting-s.Counts.Running)
		must(t, leader.Kill())
		must(t, leader.Start(ctx))
		must(t, cluster.AwaitVoters(ctx, 3))
	}
	if s := await(t, ctx, c, id, "the end", ended); s.Status != trial.SweepFinished || s.Counts.Failed > 0 {
		t.Errorf("it ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	checkSegments(t, ctx, cluster, id, epochs)
}

// A worker that lacks the data of a sweep gives its trials back to those that
// have it: none is used up, and people are told.
func TestMissingDataIsLeftToWorkersThatHaveIt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	with, without := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(with, "pictures"), nil, 0o644))
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, SlotsPerWorker: 2, LeaseTTL: 3 * time.Second,
		ExtraArgs: map[string][]string{"w1": {"--cache", with}, "w2": {"--cache", without}}})
	c := cluster.Client()
	has, lacks := cluster.Workers[0], cluster.Workers[1]
	spec := `
name: grid
search_method: grid_search
seed: 3
objective: {metric: val_loss, direction: minimize}
parallelism: 6
max_retries: 0
trainer: sim
space:
  lr: {type: categorical, choices: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
training: {epochs: 3, epoch_seconds: 0.3, needs_file: pictures}
`
	id := submit(t, ctx, c, spec)
	// While it goes on, the worker's state is told in words.
	await(t, ctx, c, id, "the note", func(s *trial.Sweep) bool { return strings.Contains(s.Note, lacks.Name) || ended(s) })
	if stdout, _, _ := atelier(t, ctx, cluster, "worker", "list"); !strings.Contains(stdout, "lacks the data of "+id) {
		t.Errorf("worker list does not tell:\n%s", stdout)
	}
	if stdout, _, _ := atelier(t, ctx, cluster, "sweep", "show", id); !strings.Contains(stdout, "worker "+lacks.Name+" does not have its data") {
		t.Errorf("sweep show does not tell:\n%s", stdout)
	}
	s := await(t, ctx, c, id, "the end", ended)
	if s.Status != trial.SweepFinished || s.Counts.Finished != 9 {
		t.Errorf("it ended as %v (%s) with %v: the grid has holes", s.Status, s.Failure, s.Counts)
	}
	missing := 0
	for _, tr := range trials(t, ctx, c, id) {
		for _, r := range tr.Runs {
			if r.Exit == trial.ExitDataMissing {
				missing++
				if r.Worker != lacks.Name {
					t.Errorf("trial %d: %v", tr.Number, r)
				}
			}
		}
	}
	if missing == 0 || missing > 2 {
		t.Errorf("%d runs met no data; want one or two, of a worker with 2 slots", missing)
	}
	if stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "verify", id); code != 0 {
		t.Errorf("sweep verify: exit %d\n%s%s", code, stdout, stderr)
	}

	// Nobody has it: the sweep ends at once, and names what and who.
	id = submit(t, ctx, c, strings.Replace(spec, "needs_file: pictures", "needs_file: picturse", 1))
	s = await(t, ctx, c, id, "the end", ended)
	if s.Status != trial.SweepFailed || !strings.Contains(s.Failure, "picturse does not exist") || !strings.Contains(s.Failure, has.Name) || !strings.Contains(s.Failure, lacks.Name) {
		t.Errorf("a sweep whose data nobody has ended as %v: %s", s.Status, s.Failure)
	}
}
