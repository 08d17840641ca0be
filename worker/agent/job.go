package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"atelier/common/client"
	"atelier/common/inference"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/store"
)

// makeJob is what the trainer is told: folders, settings, the file to begin with.
// The folder is made the trainers' own where they run as somebody else. A run of inference begins with the model that its task names, a training with
// the newest of the trial's checkpoints that can be had.
func (r *run) makeJob(ctx context.Context) (job trainerproto.Job, err error) {
	a, l := r.s.a, r.h.lease
	dir, err := a.cfg.Store.RunDir(l)
	if err != nil {
		return job, err
	}
	if err := a.cfg.Launcher.Confinement().Give(dir); err != nil {
		return job, err
	}
	if g := r.h.group; g != nil {
		r.retention = g.retention
	} else {
		r.retention = newRetention(a.cfg.Store, l, a.log)
	}
	job = trainerproto.Job{
		Kind: l.Kind.String(), Sweep: l.Sweep, Trial: l.Trial, Run: l.Run, Seed: l.Seed,
		Params: object(l.Params), Training: object(l.Training), Metric: l.Objective.Metric, Maximize: l.Objective.Maximize, EndEpoch: int(l.EndEpoch),
		Device: r.s.spec.JobDevice(), Threads: r.s.spec.Threads, Dir: dir, BaseDir: l.BaseDir, CacheDir: a.cfg.CacheDir,
		Group: jobGroup(l),
	}
	if l.Kind == trial.Inference {
		// What earlier runs left are results: it begins anew. The trainer says what is
		// wrong with a task that cannot be read.
		if task, err := inference.ParseTask(job.Training); err == nil && task.Checkpoint != nil {
			job.Resume, err = a.model(ctx, task.Checkpoint)
			return job, err
		}
		return job, nil
	}
	switch g := r.h.group; {
	case g == nil:
		job.Resume, job.ResumeEpoch, err = r.resume(ctx)
	case !l.Group.Join: // else its state comes from a member
		job.Resume, job.ResumeEpoch, err = g.once(func() (string, int, error) { return r.resume(ctx) })
	}
	return job, err
}

// resume fetches the newest checkpoint that can be had; "" = from scratch. An error
// is of ctx alone.
func (r *run) resume(ctx context.Context) (file string, epoch int, err error) {
	a, l := r.s.a, r.h.lease
	for _, c := range l.Checkpoints {
		file, err := a.cfg.Store.Fetch(ctx, c)
		if err == nil {
			return file, int(c.Epoch), nil
		}
		if ctx.Err() != nil {
			return "", 0, ctx.Err()
		}
		a.log.Warn("a checkpoint cannot be used; trying an older one or from scratch", "sweep", l.Sweep, "trial", l.Trial, "error", err)
		if errors.Is(err, store.ErrGone) {
			a.reportLost(c)
		}
	}
	return "", 0, nil
}

// errNoModel is of a task that names a checkpoint which the index does not have.
var errNoModel = errors.New("the cluster has no such checkpoint")

// model fetches the checkpoint that a task of inference names.
func (a *Agent) model(ctx context.Context, k *inference.Stored) (file string, err error) {
	if a.cfg.Index == nil {
		return "", errors.New("this worker has no index to find checkpoints in")
	}
	rows, err := a.cfg.Index.IndexedCheckpoints(ctx, k.Sweep, k.Trial)
	if err != nil && client.CodeOf(err) != client.CodeNotFound {
		return "", fmt.Errorf("find the checkpoint of sweep %s, trial %d: %w", k.Sweep, k.Trial, err)
	}
	for _, c := range rows {
		if int(c.Epoch) == k.Epoch && (k.SHA256 == "" || k.SHA256 == c.SHA256) {
			file, err := a.cfg.Store.Fetch(ctx, c)
			if errors.Is(err, store.ErrGone) {
				a.reportLost(c)
			}
			return file, err
		}
	}
	return "", fmt.Errorf("%w: sweep %s, trial %d, epoch %d", errNoModel, k.Sweep, k.Trial, k.Epoch)
}

// object is the JSON of settings; those that are not told are empty.
func object(settings json.RawMessage) json.RawMessage {
	if len(settings) == 0 {
		return json.RawMessage("{}")
	}
	return settings
}

// logFile is where a run's log goes. Of several members here the one of the lowest id
// has the run's own name, under which the log is asked for.
func (a *Agent) logFile(l *trial.Lease) string {
	name := fmt.Sprintf("run-%d", l.Run)
	if l.Group != nil && !firstHere(l) {
		name += fmt.Sprintf("-member-%d", l.Member)
	}
	return filepath.Join(a.cfg.LogDir, l.Sweep, strconv.FormatInt(l.Trial, 10), name+".log")
}
