package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

const stoppingSpec = `
name: stopping
search_method: random
seed: %d
objective: {metric: val_loss, direction: minimize}
budget: {trials: %d}
parallelism: 3
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
  dropout: {type: float, low: 0.0, high: 0.6}
training: {epochs: 8, epoch_seconds: 0.5, curve: crossing}
stopping: {rule: asha, min_epochs: 1, max_epochs: 8, reduction: 4}
`

// promoted returns the trials that were paused and then let go on, with the
// places of the runs that began there.
func promoted(trials []*trial.Trial) map[*trial.Trial][]int {
	out := map[*trial.Trial][]int{}
	for _, tr := range trials {
		for i := 1; i < len(tr.Runs); i++ {
			if tr.Runs[i-1].Exit == trial.ExitPaused {
				out[tr] = append(out[tr], i)
			}
		}
	}
	return out
}

// A sweep under asha: trials pause at their rung and give their slot back; the
// promoted go on from their checkpoint on another worker, which fetches it from
// the drained one; the leader is killed in the middle and the next one decides
// on. The rungs' quotas are kept to the end.
func TestPausedTrialsAreResumedElsewhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 1})
	c := cluster.Client()
	// Three of this seed's four best trials at epoch 1 are among the first four.
	id := submit(t, ctx, c, fmt.Sprintf(stoppingSpec, 4, 16))
	await(t, ctx, c, id, "three paused trials", func(s *trial.Sweep) bool { return s.Counts.Paused >= 3 || ended(s) })
	first := cluster.Workers[0].Name
	err := c.Drain(ctx, "drain", first, false)
	must(t, err)
	for range 2 {
		_, err := cluster.AddWorker(ctx)
		must(t, err)
	}
	await(t, ctx, c, id, "a trial that goes on elsewhere", func(s *trial.Sweep) bool {
		return moved(ctx, t, c, id, first) != nil || ended(s)
	})
	leader, err := cluster.Leader(ctx)
	must(t, err)
	must(t, leader.Kill())
	s := await(t, ctx, c, id, "the end", ended)
	must(t, leader.Start(ctx))

	if s.Status != trial.SweepFinished || s.Counts.Proposed != 16 || s.Counts.Paused != 0 {
		t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	if moved(ctx, t, c, id, first) == nil {
		t.Error("no trial was paused on one worker and went on at another")
	}
	levels, epochs := map[int]int{}, 0
	all := trials(t, ctx, c, id)
	on := promoted(all)
	for _, tr := range all {
		levels[len(on[tr])]++
		epochs += int(tr.Epoch)
		for _, i := range on[tr] {
			if tr.Runs[i].ResumedEpoch == 0 {
				t.Errorf("trial %d began again from scratch after a pause: %v", tr.Number, tr.Runs)
			}
		}
		if tr.Status == trial.Stopped && (tr.StopReason == "" || tr.Epoch == 8) {
			t.Errorf("trial %d stopped at epoch %d: %q", tr.Number, tr.Epoch, tr.StopReason)
		}
		if tr.Status == trial.Finished && (tr.Epoch != 8 || len(on[tr]) != 2) {
			t.Errorf("trial %d finished at epoch %d after %d promotions", tr.Number, tr.Epoch, len(on[tr]))
		}
	}
	// Rungs at epochs 1 and 4: 4 of 16 go on from the first, 1 of 4 from the second.
	if levels[0] != 12 || levels[1] != 3 || levels[2] != 1 || s.Counts.Finished != 1 || s.Counts.Stopped != 15 {
		t.Errorf("promotions by trial %v, counts %v", levels, s.Counts)
	}
	// 12 epochs of the stopped, 12 of the promoted, 8 of the best; more only
	// where a run went on while no leader could tell it to pause. All would be 128.
	if epochs < 32 || epochs > 64 {
		t.Errorf("%d epochs were trained, the rule allows 32", epochs)
	}
	stdout, stderr, code := atelier(t, ctx, cluster, "trial", "list", id)
	if code != 0 || !strings.Contains(stdout+stderr, "only the best") && !strings.Contains(stdout+stderr, "places were taken") {
		t.Errorf("trial list does not say why trials were stopped: exit %d\n%s%s", code, stdout, stderr)
	}
	checkReplicasAgree(t, ctx, cluster)
}

// moved returns a trial that was paused on a worker and went on at another from
// its checkpoint.
func moved(ctx context.Context, t *testing.T, c *client.Client, id, from string) *trial.Trial {
	for tr, runs := range promoted(trials(t, ctx, c, id)) {
		for _, i := range runs {
			if tr.Runs[i-1].Worker == from && tr.Runs[i].Worker != from && tr.Runs[i].ResumedEpoch > 0 {
				return tr
			}
		}
	}
	return nil
}

// Real training under asha: what a trial measures does not depend on whether it
// was paused, moved and resumed on the way. The same sweep without a rule is the
// measure, bit for bit.
func TestPausedTrainingGoesOnExactly(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, ExtraArgs: map[string][]string{"worker": flags}})
	c := cluster.Client()
	spec := torchSpec(data, "random", "epochs: 4")
	whole := submit(t, ctx, c, spec)
	if s := await(t, ctx, c, whole, "the end without a rule", ended); s.Counts.Finished != 4 {
		t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	ruled := submit(t, ctx, c, spec+"stopping: {rule: asha, min_epochs: 1, reduction: 2}\n")
	s := await(t, ctx, c, ruled, "the end under asha", ended)
	if s.Counts.Finished != 1 || s.Counts.Stopped != 3 {
		t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	resumed, epochs := 0, 0
	all := trials(t, ctx, c, ruled)
	on := promoted(all)
	for _, tr := range all {
		got, want := curve(t, ctx, c, ruled, tr.Number), curve(t, ctx, c, whole, tr.Number)
		epochs += len(got)
		resumed += len(on[tr])
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("trial %d, paused %d times: epoch %d gives\n%s\nwithout a rule\n%s", tr.Number, len(on[tr]), i+1, got[i], want[i])
			}
		}
	}
	// Rungs at epochs 1 and 2: 2 of 4 go on, then 1 of 2.
	if resumed != 3 || epochs < 8 || epochs > 16 {
		t.Errorf("%d promotions and %d epochs; the rule allows 3 and 8", resumed, epochs)
	}
}

// curve is a trial's reports without what depends on the clock, one text an
// epoch, numbers exact.
func curve(t *testing.T, ctx context.Context, c *client.Client, id string, n int64) []string {
	t.Helper()
	r, err := c.Curve(ctx, id, n)
	must(t, err)
	var out []string
	for _, rep := range r {
		line := fmt.Sprint(rep.Epoch)
		for _, m := range rep.Metrics {
			if m.Name != "images_per_s" {
				line += fmt.Sprintf(" %s %x", m.Name, m.Value)
			}
		}
		out = append(out, line)
	}
	return out
}

// Population-based training: members train in segments; one that falls behind
// goes on from a better one's checkpoint with changed settings, wherever that
// checkpoint is.
func TestPopulationTrains(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2})
	c := cluster.Client()
	// Of this seed's members the fourth learns slowest, whoever else has ended.
	id := submit(t, ctx, c, `
name: population
search_method: pbt
seed: 12
objective: {metric: val_loss, direction: minimize}
parallelism: 4
trainer: sim
space: {lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}}
training: {epochs: 6, epoch_seconds: 0.3, curve: crossing}
population: {interval: 2}
`)
	s := await(t, ctx, c, id, "the end", ended)
	if s.Status != trial.SweepFinished || s.Counts.Proposed != 12 || s.Counts.Failed+s.Counts.Diverged != 0 {
		t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	exploited := 0
	all := trials(t, ctx, c, id)
	for _, tr := range all {
		reports := curve(t, ctx, c, id, tr.Number)
		o := trial.Origin{Trial: tr.OriginTrial, Epoch: tr.OriginEpoch}
		if tr.Number <= 4 {
			if o.Trial != 0 || !strings.HasPrefix(reports[0], "1 ") {
				t.Errorf("trial %d begins at %v with %s", tr.Number, o, reports[0])
			}
			continue
		}
		if o.Trial == 0 || !strings.HasPrefix(reports[0], fmt.Sprint(o.Epoch+1, " ")) {
			t.Errorf("trial %d begins at %v with %s", tr.Number, o, reports[0])
			continue
		}
		if from := all[o.Trial-1]; o.Trial != tr.Number-4 {
			exploited++
			if string(from.Params) == string(tr.Params) {
				t.Errorf("trial %d took over trial %d and its settings unchanged: %s", tr.Number, o.Trial, tr.Params)
			}
		} else if string(from.Params) != string(tr.Params) {
			t.Errorf("trial %d goes on from trial %d with %s instead of %s", tr.Number, o.Trial, tr.Params, from.Params)
		}
	}
	if exploited == 0 {
		t.Error("nobody took over a better member")
	}
	if stdout, stderr, code := atelier(t, ctx, cluster, "sweep", "verify", id); code != 0 {
		t.Errorf("sweep verify: exit %d\n%s%s", code, stdout, stderr)
	}
}

// Real training takes over another trial's weights under changed settings.
func TestPopulationWithRealTraining(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": flags}})
	c := cluster.Client()
	// Of this seed's two members the second, which ends last, hardly learns.
	spec := strings.NewReplacer("low: 1.0e-3, high: 1.0e-2", "low: 1.0e-7, high: 3.0e-2", "seed: 5", "seed: 11").Replace(torchSpec(data, "pbt", "epochs: 4"))
	id := submit(t, ctx, c, spec+"population: {interval: 2}\n")
	if s := await(t, ctx, c, id, "the end", ended); s.Status != trial.SweepFinished || s.Counts.Finished != 2 || s.Counts.Stopped != 2 {
		t.Fatalf("sweep ended as %v (%s) with %v", s.Status, s.Failure, s.Counts)
	}
	taken := 0
	for _, tr := range trials(t, ctx, c, id)[2:] {
		if tr.OriginTrial != tr.Number-2 {
			taken++
		}
		if first := curve(t, ctx, c, id, tr.Number)[0]; !strings.HasPrefix(first, fmt.Sprint(tr.OriginEpoch+1, " ")) || tr.Epoch != 4 {
			t.Errorf("trial %d from %d: first report %s, last epoch %d", tr.Number, tr.OriginTrial, first, tr.Epoch)
		}
	}
	if taken != 1 {
		t.Errorf("%d of 2 members took the other over", taken)
	}
}
