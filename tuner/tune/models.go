package tune

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"atelier/common/checkpoint"
	"atelier/common/client"
	"atelier/common/trial"
	"atelier/tuner/tune/report"
)

// ModelFile is a trial's best model in its folder.
const ModelFile = "best_model.pth"

// otherModel is the best checkpoint of a trainer whose files are not ours to
// read.
const otherModel = "best_checkpoint"

// fetchModels puts the best model of trials beside their records. One that
// cannot be had is a warning.
func (s *tuning) fetchModels(ctx context.Context, api *client.Client, files client.Files, r *report.Sweep) error {
	which := s.plan.Config.String(keySave)
	best := bestOf(r)
	for i := range r.Trials {
		t := &r.Trials[i]
		if which == "none" || which == "best" && t.Number != best || !t.HasValue {
			continue
		}
		s.o.Watch.Doing(fmt.Sprintf("fetching models: trial %d", t.Number))
		if err := s.fetchModel(ctx, api, files, r, t); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.result.warn(fmt.Sprintf("no model of trial %d: %s", t.Number, client.Message(err)))
		}
	}
	return nil
}

// fetchModel takes the checkpoint of the trial's best epoch, and no other: a model that does not
// have the value beside it in the report would mislead. What only a resumed training needs is left
// out of the file.
func (s *tuning) fetchModel(ctx context.Context, api *client.Client, files client.Files, r *report.Sweep, t *report.Trial) error {
	list, _, err := api.Checkpoints(ctx, r.ID, t.Number, client.From{})
	if err != nil {
		return err
	}
	from := trial.Best(list, r.Maximize)
	if from == nil || int(from.Epoch) != t.ValueEpoch {
		return fmt.Errorf("the checkpoint of its best epoch, %d, is not kept", t.ValueEpoch)
	}
	dir := s.folder.Path(report.TrialDir(t.Number))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r.Trainer != "torch" {
		t.Model = filepath.Join(report.TrialDir(t.Number), otherModel)
		err := files.Pull(ctx, from, s.folder.Path(t.Model))
		if err != nil {
			t.Model = ""
		}
		return err
	}
	whole := s.folder.InResume(fetchedFile)
	defer os.Remove(whole)
	if err := files.Pull(ctx, from, whole); err != nil {
		return err
	}
	to := filepath.Join(report.TrialDir(t.Number), ModelFile)
	if _, err := checkpoint.Export(whole, s.folder.Path(to), false); err != nil {
		return err
	}
	t.Model = to
	return nil
}

// bestOf is the best trial's number; 0 while there is none.
func bestOf(r *report.Sweep) int64 {
	if t := r.Best(); t != nil {
		return t.Number
	}
	return 0
}
