package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/deploy/local"
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
func promoted(trials []*v1.Trial) map[*v1.Trial][]int {
	out := map[*v1.Trial][]int{}
	for _, tr := range trials {
		for i := 1; i < len(tr.Runs); i++ {
			if tr.Runs[i-1].Exit == v1.ExitClass_EXIT_CLASS_PAUSED {
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
	await(t, ctx, c, id, "three paused trials", func(s *v1.Sweep) bool { return s.Counts.Paused >= 3 || ended(s) })
	first := cluster.Workers[0].Name
	_, err := c.Workers.DrainWorker(ctx, connect.NewRequest(&v1.DrainWorkerRequest{RequestId: "drain", Name: first}))
	must(t, err)
	for range 2 {
		_, err := cluster.AddWorker(ctx)
		must(t, err)
	}
	await(t, ctx, c, id, "a trial that goes on elsewhere", func(s *v1.Sweep) bool {
		return moved(ctx, t, c, id, first) != nil || ended(s)
	})
	leader, err := cluster.Leader(ctx)
	must(t, err)
	must(t, leader.Kill())
	s := await(t, ctx, c, id, "the end", ended)
	must(t, leader.Start(ctx))

	if s.Status != v1.SweepStatus_SWEEP_STATUS_FINISHED || s.Counts.Proposed != 16 || s.Counts.Paused != 0 {
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
		if tr.Status == v1.TrialStatus_TRIAL_STATUS_STOPPED && (tr.StopReason == "" || tr.Epoch == 8) {
			t.Errorf("trial %d stopped at epoch %d: %q", tr.Number, tr.Epoch, tr.StopReason)
		}
		if tr.Status == v1.TrialStatus_TRIAL_STATUS_FINISHED && (tr.Epoch != 8 || len(on[tr]) != 2) {
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
	if code != 0 || !strings.Contains(stdout+stderr, "not among the") {
		t.Errorf("trial list does not say why trials were stopped: exit %d\n%s%s", code, stdout, stderr)
	}
	checkReplicasAgree(t, ctx, cluster)
}

// moved returns a trial that was paused on a worker and went on at another from
// its checkpoint.
func moved(ctx context.Context, t *testing.T, c *client.Client, id, from string) *v1.Trial {
	for tr, runs := range promoted(trials(t, ctx, c, id)) {
		for _, i := range runs {
			if tr.Runs[i-1].Worker == from && tr.Runs[i].Worker != from && tr.Runs[i].ResumedEpoch > 0 {
				return tr
			}
		}
	}
	return nil
}
