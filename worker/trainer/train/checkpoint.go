//go:build libtorch

package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/files"
	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// formatVersion is of the "atelier" dictionary inside a checkpoint.
const formatVersion = 1

// keepFor is how long a checkpoint that is neither best nor newest stays: the
// agent may still be telling of it while the cluster elects a leader.
const keepFor = time.Minute

// progress is what a run knows of itself between epochs, apart from tensors.
type progress = handover.Progress

// checkpointWriter writes a run's checkpoints into its folder, one at a time, beside the
// training that goes on.
type checkpointWriter struct {
	dir     string
	run     int32
	spare   []*model.Stage // memory of states that were let go
	files   map[int]string // epoch -> path, of this process
	writing chan written   // of the checkpoint begun last; nil once it was told of
	current *kept          // what is being written
}

// kept is the state after an epoch, on its way to being safe.
type kept struct {
	progress progress
	metrics  trainerproto.Metrics
	root     *checkpoint.Dict
	stage    *model.Stage // memory of root
	file     []byte       // in place of root: what the file will hold
	told     bool         // written, and its event sent, by this process
}

// write writes the file that the state is to be.
func (k *kept) write(w io.Writer) error {
	if k.root != nil {
		return checkpoint.Write(w, k.root)
	}
	_, err := w.Write(k.file)
	return err
}

// written is a checkpoint's end.
type written struct {
	of   *kept
	path string
	info checkpoint.Info
	err  error
}

// openCheckpointWriter removes what a killed process of this run left half written; finished files
// of other runs stay. A newcomer to a group removes nothing: where members share a folder, what is
// half written there is another's, which is at work.
func openCheckpointWriter(dir string, run int32, joins bool) (*checkpointWriter, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("checkpoint folder %q of the job does not exist: %w", dir, errors.Join(err, fs.ErrNotExist))
	}
	v := &checkpointWriter{dir: dir, run: run, files: map[int]string{}}
	if joins {
		return v, nil
	}
	left, err := filepath.Glob(filepath.Join(dir, files.Unfinished(fmt.Sprintf("epoch-*-run-%d.pth", run))))
	if err != nil {
		return nil, err
	}
	for _, f := range left {
		os.Remove(f)
	}
	return v, nil
}

// collect copies the run's state out as it stands after the epoch in p. A state
// that is not finite is a run that diverged, whatever its losses: it is neither
// reported nor kept.
func (v *checkpointWriter) collect(r *run, p progress) (*kept, error) {
	k := &kept{progress: p, stage: &model.Stage{}}
	if n := len(v.spare); n > 0 {
		k.stage, v.spare = v.spare[n-1], v.spare[:n-1]
	}
	k.stage.Reset()
	var broken *checkpoint.NotFinite
	var err error
	k.root, err = r.export(k.stage, p)
	switch {
	case errors.As(err, &broken):
		return nil, diverged(p.Epoch, "%v", broken)
	case err != nil:
		return nil, fmt.Errorf("collect checkpoint of epoch %d: %w", p.Epoch, err)
	}
	return k, nil
}

// release gives a state's memory to the next one.
func (v *checkpointWriter) release(k *kept) {
	if k.stage != nil {
		v.spare = append(v.spare, k.stage)
	}
	k.root, k.stage, k.file = nil, nil, nil
}

// begin writes a state that was collected, in the background.
func (v *checkpointWriter) begin(k *kept) {
	path := filepath.Join(v.dir, fmt.Sprintf("epoch-%04d-run-%d.pth", k.progress.Epoch, v.run))
	done := make(chan written, 1)
	v.writing, v.current = done, k
	go func() {
		info, err := checkpoint.SaveAs(path, k.write)
		done <- written{k, path, info, err}
	}()
}

// prune removes this process's files that are neither the best nor the newest
// and old enough for everybody to know of a newer one.
func (v *checkpointWriter) prune(p progress, log *slog.Logger) {
	for epoch, path := range v.files {
		if epoch == p.Epoch || epoch == p.BestEpoch {
			continue
		}
		info, err := os.Stat(path)
		if err == nil && time.Since(info.ModTime()) < keepFor {
			continue
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("old checkpoint stays", "path", path, "error", err)
		}
		delete(v.files, epoch)
	}
}

// export makes the training dictionary known from PyTorch scripts, with what
// exact resumption needs under "atelier". Where weights are averaged the
// model's state is the average, which validation measured, and the weights in
// training are atelier's trained_state_dict.
func (r *run) export(stage *model.Stage, p progress) (*checkpoint.Dict, error) {
	var weights []checkpoint.Tensor
	err := r.averaged(func() (err error) { weights, err = r.model.Export(stage); return err })
	if err != nil {
		return nil, err
	}
	if err := checkpoint.Finite(weights); err != nil {
		return nil, err
	}
	opt, err := r.exportOptimizer(stage)
	if err != nil {
		return nil, err
	}
	classes := checkpoint.NewDict()
	for i, c := range r.data.classes {
		classes.Set(c, i)
	}
	random := checkpoint.NewDict()
	for _, d := range r.generators() {
		state, err := torchx.RandomState(d)
		if err != nil {
			return nil, fmt.Errorf("random state of %s: %w", d, err)
		}
		random.Set(d.String(), checkpoint.NewU8(state))
	}
	config, err := configDict(r.settings)
	if err != nil {
		return nil, err
	}
	own := checkpoint.NewDict().
		Set("format", formatVersion).
		Set("seed", strconv.FormatUint(r.job.Seed, 10)). // a Python int would do; 64 unsigned bits do not fit ours
		Set("order", "stream(seed, epoch)").
		Set("next_epoch", p.Epoch+1).
		Set("rng", random).
		Set("metric", r.metric).
		Set("best", p.Best).
		Set("best_epoch", p.BestEpoch).
		Set("optimizer_steps", r.opt.Steps).
		Set("plateau", checkpoint.NewDict().Set("best", p.Plateau.Best).Set("known", p.Plateau.Known).Set("bad", p.Plateau.Bad).Set("drops", p.Plateau.Drops)).
		Set("mean", floats(r.data.norm.mean[:])).
		Set("std", floats(r.data.norm.std[:])).
		Set("data", checkpoint.NewDict().Set("train", r.data.train.Digest()).Set("validation", r.data.validation.Digest())).
		Set("threads", r.job.Threads). // of a shard, with several
		Set("libtorch", torchx.Version())
	if r.average != nil {
		trained, err := r.model.Export(stage)
		if err != nil {
			return nil, err
		}
		if err := checkpoint.Finite(trained); err != nil {
			return nil, err
		}
		own.Set("average_updates", r.average.Updates).Set("trained_state_dict", checkpoint.FromStateDict(trained))
	}
	if r.scaler != nil {
		own.Set("loss_scale", r.scaler.Scale).Set("loss_scale_good", r.scaler.Good)
	}
	return checkpoint.NewDict().
		Set("epoch", p.Epoch).
		Set("arch", r.model.Arch).
		Set("model_state_dict", checkpoint.FromStateDict(weights)).
		Set("optimizer_state_dict", opt).
		Set("best_val_loss", p.BestLoss).
		Set("class_to_idx", classes).
		Set("config", config).
		Set("atelier", own), nil
}

func floats(v []float64) *checkpoint.List {
	l := &checkpoint.List{}
	for _, x := range v {
		l.Items = append(l.Items, x)
	}
	return l
}

// exportOptimizer writes the state as torch.optim's state_dict has it, so that
// Python can go on with the run.
func (r *run) exportOptimizer(stage *model.Stage) (*checkpoint.Dict, error) {
	o := r.opt
	state, params := checkpoint.NewDict(), &checkpoint.List{}
	slots := o.State()
	for i := range r.model.Weights() {
		params.Items = append(params.Items, int64(i))
		one := checkpoint.NewDict()
		if o.CountsSteps() {
			one.Set("step", checkpoint.NewF32([]float32{float32(o.Steps)}))
		}
		for _, s := range slots {
			t, err := stage.Tensor(s.Name, s.Tensors[i])
			if err != nil {
				return nil, err
			}
			one.Set(s.Name, &t)
		}
		if one.Len() > 0 && o.Steps > 0 {
			state.Set(i, one)
		}
	}
	group := checkpoint.NewDict()
	for _, opt := range o.Options(r.settings.LR) {
		if pair, ok := opt.Value.([2]float64); ok {
			opt.Value = &checkpoint.Tuple{Items: []checkpoint.Value{pair[0], pair[1]}}
		}
		group.Set(opt.Name, opt.Value)
	}
	group.Set("params", params)
	return checkpoint.NewDict().Set("state", state).Set("param_groups", &checkpoint.List{Items: []checkpoint.Value{group}}), nil
}

// configDict is the settings as a dictionary of plain values. How many members
// a training had is not among them, since nothing follows from it; of one shard,
// which is what a training was before there were any, neither is that.
func configDict(s settings.Settings) (*checkpoint.Dict, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	d := checkpoint.NewDict()
	for _, k := range settings.Table.Names() {
		v := m[k]
		if k == "members.min" || k == "members.max" || v == nil && k == "shard_threads" || s.Shards == 1 && k == "shards" {
			continue
		}
		if list, ok := v.([]any); ok {
			items := &checkpoint.List{}
			for _, x := range list {
				items.Items = append(items.Items, x)
			}
			v = items
		}
		if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			v = int64(f)
		}
		d.Set(k, v)
	}
	return d, nil
}
