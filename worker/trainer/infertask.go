//go:build libtorch

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"atelier/common/bundle"
	"atelier/common/dataset"
	"atelier/common/inference"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/infer"
	"atelier/worker/trainer/train"
)

// inferTask carries out one run of inference for a cluster. It works below the
// job's folder, tells how far it is as reports, and its results as a checkpoint.
// verdict says what was asked of it meanwhile; told is closed with the first.
func inferTask(ctx context.Context, job trainerproto.Job, task inference.Task, out *trainerproto.Writer, verdict func() string, told <-chan struct{}, logs io.Writer) error {
	s, err := inferSettings(job, task.Settings)
	if err != nil {
		return badTask(err)
	}
	if job.Resume != "" {
		s.Checkpoint = job.Resume // of the cluster, fetched by the agent
	} else if task.Checkpoint != nil {
		return badTask(&infer.Fault{Err: errors.New("training.checkpoint: the worker's agent fetched no checkpoint")})
	}
	s.Output = filepath.Join(job.Dir, "results")
	if err := os.RemoveAll(s.Output); err != nil {
		return train.Classify(err)
	}
	defer os.RemoveAll(s.Output) // what counts is in the bundle
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-told:
			cancel()
		case <-working.Done():
		}
	}()
	far := hundredths{stages: 1, every: 300 * time.Millisecond}
	if s.Mode == inference.Production && s.RunEvaluation || s.Mode == inference.ExplainWrong {
		far.stages = 2
	}
	outcome, err := carryOut(working, job, s, infer.Host{Log: logs, Alone: true, Progress: func(what string, done, total int) {
		if epoch, ok := far.reached(what, done, total, time.Now()); ok {
			out.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: epoch, Metrics: trainerproto.Metrics{
				{Name: inference.MetricDone, Value: float64(done)}, {Name: inference.MetricTotal, Value: float64(total)}}}) // a failed write shows at the end
		}
	}})
	if v := verdict(); err != nil && v != "" && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		reason := map[string]string{"stop": trainerproto.DoneStopped, "pause": trainerproto.DonePaused}[v]
		return out.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason, Message: "asked to " + v + "; a run of inference begins again"})
	}
	if err != nil {
		return badTask(err)
	}
	return deliver(job, outcome, out)
}

// badTask gives an asker's fault its class.
func badTask(err error) error {
	var f *infer.Fault
	if errors.As(err, &f) && dataset.Missing(err) {
		return &train.Failure{Class: trainerproto.FailedDataMissing, Err: err}
	}
	if errors.As(err, &f) {
		return &train.Failure{Class: trainerproto.FailedBadSpec, Err: err}
	}
	return train.Classify(err)
}

// deliver packs the results and tells of them: the figures, then the bundle,
// then the end.
func deliver(job trainerproto.Job, outcome *infer.Result, out *trainerproto.Writer) error {
	note, err := json.Marshal(inferred(outcome))
	if err != nil {
		return err
	}
	file := filepath.Join(job.Dir, inference.BundleFile)
	packed, err := bundle.Pack(outcome.Dir, file, note)
	if err != nil {
		return train.Classify(err)
	}
	metrics := trainerproto.Metrics{{Name: inference.MetricDone, Value: float64(outcome.Images)}, {Name: inference.MetricTotal, Value: float64(outcome.Images + outcome.Skipped)}}
	for _, name := range slices.Sorted(maps.Keys(outcome.Figures)) {
		metrics = append(metrics, trainerproto.Metric{Name: name, Value: outcome.Figures[name]})
	}
	for _, e := range []trainerproto.Event{
		{Kind: trainerproto.EventEpoch, Epoch: inference.TaskEpochs, Metrics: metrics, Seconds: outcome.Seconds},
		{Kind: trainerproto.EventCheckpoint, Epoch: inference.TaskEpochs, Path: file, Size: packed.Size, SHA256: packed.SHA256, Metrics: metrics},
		{Kind: trainerproto.EventDone, Reason: trainerproto.DoneFinished, Message: fmt.Sprintf("%d images, %d skipped, %d files", outcome.Images, outcome.Skipped, packed.Files)},
	} {
		if err := out.Send(e); err != nil {
			return fmt.Errorf("report the results: %w", err)
		}
	}
	return nil
}

// hundredths turns progress of one or two stages into epochs that only rise.
type hundredths struct {
	stages int
	every  time.Duration // between two reports, at least

	stage string
	past  int // stages that are over
	last  int
	said  time.Time
}

// reached returns the hundredth that is complete, if it is worth a report. The
// last one is left to the results.
func (h *hundredths) reached(stage string, done, total int, now time.Time) (int, bool) {
	if total <= 0 {
		return 0, false
	}
	if h.stage != "" && h.stage != stage {
		h.past++
	}
	h.stage = stage
	at := min((100*h.past+100*done/total)/h.stages, inference.TaskEpochs-1)
	if at <= h.last || now.Sub(h.said) < h.every {
		return 0, false
	}
	h.last, h.said = at, now
	return at, true
}
