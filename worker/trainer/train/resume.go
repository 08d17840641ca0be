//go:build libtorch

package train

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"atelier/common/checkpoint"
	"atelier/common/dataset"
	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/optim/schedule"
	"atelier/worker/trainer/torchx"
)

// resume puts a run where a checkpoint left it. A file of another
// architecture, other classes or another optimiser is the spec's fault: no
// other machine could go on from it.
func (r *run) resume(path string) (progress, error) {
	var p progress
	file, err := checkpoint.Open(path)
	if err != nil {
		return p, err
	}
	defer file.Close()
	fail := func(err error) (progress, error) { return p, fmt.Errorf("resume from %s: %w", path, err) }
	root, ok := file.Root.(*checkpoint.Dict)
	if !ok {
		return fail(errors.New("not a training checkpoint"))
	}
	own, ok := checkpoint.Lookup[*checkpoint.Dict](root, "atelier")
	if !ok {
		return fail(errors.New("it has no random state and data order (key atelier): it was not written by this trainer"))
	}
	if v, _ := checkpoint.Lookup[int64](own, "format"); v != formatVersion {
		return fail(fmt.Errorf("its format is %d, this trainer writes and reads %d", v, formatVersion))
	}
	if arch, _ := checkpoint.Lookup[string](root, "arch"); arch != r.model.Arch {
		return p, badSpec("resume from %s: it is of model %q, the run of %q", path, arch, r.model.Arch)
	}
	names, err := classNames(root)
	if err != nil {
		return fail(err)
	}
	if err := dataset.SameClasses("checkpoint", names, "data.train", r.data.classes); err != nil {
		return p, badSpec("resume from %s: %w", path, err)
	}
	if err := r.resumeWeights(root, own); err != nil {
		var broken *checkpoint.NotFinite
		if errors.As(err, &broken) { // to go on would give the same again
			return p, &Failure{trainerproto.FailedDiverged, fmt.Errorf("resume from %s: %w: the run diverged; a lower lr may help", path, err)}
		}
		return fail(err)
	}
	if err := r.resumeOptimizer(root, own); err != nil {
		return fail(err)
	}
	random, _ := checkpoint.Lookup[*checkpoint.Dict](own, "rng")
	for _, d := range r.generators() {
		state, ok := checkpoint.Lookup[*checkpoint.Tensor](random, d.String())
		if !ok {
			r.log.Warn("checkpoint has no random state of this device: dropout will differ from an uninterrupted run", "device", d.String())
			continue
		}
		if err := torchx.SetRandomState(d, state.Data); err != nil {
			return fail(err)
		}
	}
	epoch, ok := checkpoint.Lookup[int64](root, "epoch")
	if !ok || epoch < 1 {
		return fail(errors.New("it has no epoch"))
	}
	p.Epoch = int(epoch)
	p.Best, _ = checkpoint.Lookup[float64](own, "best")
	best, _ := checkpoint.Lookup[int64](own, "best_epoch")
	p.BestEpoch = int(best)
	p.BestLoss, _ = checkpoint.Lookup[float64](root, "best_val_loss")
	p.Plateau = plateauState(own)
	if m, err := file.Model(); err == nil { // what it says of the model was read above
		if note := settings.RateNote([]byte(m.Config), r.settings); note != "" {
			r.log.Warn(note)
		}
	}
	sets, _ := checkpoint.Lookup[*checkpoint.Dict](own, "data")
	if d, _ := checkpoint.Lookup[string](sets, "train"); d != r.data.train.Digest() {
		r.log.Warn("the training images changed since the checkpoint: the result will differ from an uninterrupted run")
	}
	if seed, _ := checkpoint.Lookup[string](own, "seed"); !strings.EqualFold(seed, strconv.FormatUint(r.job.Seed, 10)) {
		r.log.Warn("the checkpoint was made with another seed", "checkpoint", seed, "job", r.job.Seed)
	}
	return p, nil
}

// resumeWeights loads the weights in training, and the average beside them if
// the run keeps one.
func (r *run) resumeWeights(root, own *checkpoint.Dict) error {
	weights, err := checkpoint.StateDict(root)
	if err != nil {
		return err
	}
	if err := r.model.Load(weights); err != nil {
		return err
	}
	trained, averaged := checkpoint.Lookup[*checkpoint.Dict](own, "trained_state_dict")
	if r.average != nil {
		updates, _ := checkpoint.Lookup[int64](own, "average_updates")
		if !averaged || updates < 0 {
			return errors.New("it has no averaged weights, the run has an ema_decay")
		}
		if err := r.average.Restore(updates); err != nil {
			return err
		}
	}
	if !averaged {
		return nil
	}
	if weights, err = checkpoint.StateDict(trained); err != nil {
		return err
	}
	return r.model.Load(weights)
}

// plateauState is of zero for a checkpoint older than schedules.
func plateauState(own *checkpoint.Dict) (s schedule.State) {
	d, _ := checkpoint.Lookup[*checkpoint.Dict](own, "plateau")
	s.Best, _ = checkpoint.Lookup[float64](d, "best")
	s.Known, _ = checkpoint.Lookup[bool](d, "known")
	bad, _ := checkpoint.Lookup[int64](d, "bad")
	drops, _ := checkpoint.Lookup[int64](d, "drops")
	s.Bad, s.Drops = int(bad), int(drops)
	return s
}

// resumeOptimizer puts the optimizer's state back, tensor by tensor; one that is missing or of
// another shape is an error, for a run that began anew without saying so would not be the one that
// was interrupted.
func (r *run) resumeOptimizer(root, own *checkpoint.Dict) error {
	steps, ok := checkpoint.Lookup[int64](own, "optimizer_steps")
	if !ok || steps < 0 {
		return errors.New("optimizer_steps is missing")
	}
	dict, _ := checkpoint.Lookup[*checkpoint.Dict](root, "optimizer_state_dict")
	state, _ := checkpoint.Lookup[*checkpoint.Dict](dict, "state")
	for _, s := range r.opt.State() {
		for i, t := range s.Tensors {
			entry, _ := state.Get(int64(i))
			one, _ := entry.(*checkpoint.Dict)
			stored, ok := checkpoint.Lookup[*checkpoint.Tensor](one, s.Name)
			if !ok {
				return badSpec("its optimizer state has no %s of parameter %d: it is not of %s", s.Name, i, r.opt.Config.Name)
			}
			if err := model.Fill(t, stored); err != nil {
				return fmt.Errorf("optimizer state %s of parameter %d: %w", s.Name, i, err)
			}
		}
	}
	r.opt.Steps = steps
	if scale, ok := checkpoint.Lookup[float64](own, "loss_scale"); ok && r.scaler != nil && scale > 0 {
		good, _ := checkpoint.Lookup[int64](own, "loss_scale_good")
		r.scaler.Scale, r.scaler.Good = scale, good
	}
	return nil
}
