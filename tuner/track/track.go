// Package track mirrors a sweep of the cluster into MLflow: the sweep is a
// parent run, its trials are nested runs. It may begin late, break off and
// start again: nothing is said twice. It refuses to change the sweep.
package track

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"atelier/common/client"
	"atelier/common/mlflow"
	"atelier/common/trial"
)

// Cluster is what is asked of one: a client.
type Cluster interface {
	Sweep(ctx context.Context, id string) (*trial.Sweep, error)
	Trials(ctx context.Context, id string, which client.Which) iter.Seq2[*trial.Trial, error]
	Curve(ctx context.Context, id string, number int64) ([]trial.Report, error)
}

// Tags of the mirror's runs.
const (
	TagSweep  = "atelier.sweep"
	TagTrial  = "atelier.trial"
	TagStatus = "atelier.status"
	tagSeen   = "atelier.seen"
)

// openRuns bounds the runs on their way to a server; see DESIGN.md.
const openRuns = 64

// Mirror is one sweep's. Make it with New; its methods are for one goroutine.
type Mirror struct {
	store      mlflow.Store
	experiment string
	sweepID    string
	cluster    Cluster

	ready  bool
	parent *mirrored
	trials map[int64]*mirrored
	ends   map[int64]end
	open   []*mirrored // ended, and perhaps still on their way

	space   map[string]string // names of the parameters in MLflow; nil: not known yet
	metrics map[string]string // and of the metrics seen so far
}

// mirrored is one run of the mirror.
type mirrored struct {
	id     string           // of the run when it was there before; begin goes on with it
	run    *mlflow.Run      // nil: not open
	ended  bool             // run has ended
	params bool             // they are said
	steps  map[string]int64 // largest step said of each metric, as far as known
	last   string           // signature at the latest pass
	seen   string           // signature that the run is complete for; "" = not complete
}

// end is what the best value is made from.
type end struct {
	trial, ms int64
	value     float64
}

// New mirrors one sweep into an experiment of a store.
func New(store mlflow.Store, experiment, sweepID string, cluster Cluster) *Mirror {
	return &Mirror{store: store, experiment: experiment, sweepID: sweepID, cluster: cluster, trials: map[int64]*mirrored{}, ends: map[int64]end{}, metrics: map[string]string{}}
}

// Mirrors returns why a sweep is not mirrored; nil where it can be.
func Mirrors(s *trial.Sweep) error {
	if s.Kind == trial.Inference {
		return fmt.Errorf("sweep %s is an inference, not a tuning; `atelier infer --mlflow` tracks one while it runs", s.ID)
	}
	return nil
}

// Sync makes one pass and returns the sweep as it was then. After an error the
// next pass goes on where this one broke off.
func (m *Mirror) Sync(ctx context.Context) (*trial.Sweep, error) {
	if err := m.find(ctx); err != nil {
		return nil, err
	}
	s, err := m.cluster.Sweep(ctx, m.sweepID)
	if err != nil {
		return nil, err
	}
	signature := fmt.Sprintf("%d %d %d %d %d", s.Status, s.EndedMS, s.Counts.Proposed, s.Counts.Runs, s.Counts.Reports)
	if m.parent.seen == signature {
		return s, nil
	}
	if err := m.openParent(ctx, s); err != nil {
		return s, err
	}
	for t, err := range m.cluster.Trials(ctx, m.sweepID, client.Which{}) {
		if err != nil {
			return s, err
		}
		if err := m.trial(ctx, s, t); err != nil {
			return s, fmt.Errorf("trial %d: %w", t.Number, err)
		}
	}
	return s, m.sayParent(ctx, s, signature)
}

// Attach adds files to the run of a sweep that has ended and is mirrored whole:
// they become its artifacts, under their names.
func (m *Mirror) Attach(ctx context.Context, paths []string) error {
	s, err := m.Sync(ctx)
	if err != nil {
		return err
	}
	if !s.Status.Over() {
		return fmt.Errorf("sweep %s has not ended: its report is not an artifact yet", s.ID)
	}
	x := m.parent
	signature := x.seen
	if err := m.openParent(ctx, s); err != nil {
		return err
	}
	for _, p := range paths {
		if err := x.run.Artifact(p, ""); err != nil {
			return err
		}
	}
	return m.finish(ctx, x, signature, sweepStatus(s.Status), s.EndedMS)
}

// Close ends the mirror and its store: what waits is delivered until ctx ends.
func (m *Mirror) Close(ctx context.Context) error { return m.store.Close(ctx) }

// find learns which runs of the sweep are there.
func (m *Mirror) find(ctx context.Context) error {
	if m.ready {
		return nil
	}
	if err := m.store.Ready(ctx); err != nil {
		return err
	}
	runs, err := m.store.FindRuns(ctx, m.experiment, map[string]string{TagSweep: m.sweepID})
	if err != nil {
		return err
	}
	m.parent = &mirrored{}
	for _, r := range runs {
		x := &mirrored{id: r.ID, seen: r.Tags[tagSeen]}
		if r.Status == mlflow.Running {
			x.seen = "" // it was opened again after it had been complete
		}
		number, err := strconv.ParseInt(r.Tags[TagTrial], 10, 64)
		switch {
		case r.Tags[TagTrial] == "":
			if m.parent.id == "" { // of two the older counts
				m.parent = x
			}
		case err == nil && m.trials[number] == nil:
			m.trials[number] = x
		}
	}
	m.ready = true
	return nil
}

// begin opens a run: the one that is there, or a new one. A run that was ended
// here, of a trial that is tried again, is waited for first.
func (m *Mirror) begin(ctx context.Context, x *mirrored, spec mlflow.RunSpec) error {
	if x.run != nil && !x.ended {
		return nil
	}
	if x.run != nil {
		if err := m.let(ctx, x); err != nil {
			return err
		}
	}
	if x.id != "" {
		spec.RunID, spec.Parent = x.id, nil
	}
	run, err := m.store.StartRun(ctx, spec)
	if err != nil {
		return err
	}
	x.run, x.ended, x.seen = run, false, ""
	return nil
}

// let waits until an ended run is delivered, and forgets all but its id.
func (m *Mirror) let(ctx context.Context, x *mirrored) error {
	if x.run == nil {
		return nil
	}
	if err := x.run.Wait(ctx); err != nil {
		return err
	}
	x.id, x.run, x.ended = x.run.ID(), nil, false
	return nil
}

// step reports whether the step of a metric is still to be said, and notes it.
func (m *Mirror) step(ctx context.Context, x *mirrored, key string, step int64) (bool, error) {
	last, ok := x.steps[key]
	if !ok && x.id != "" {
		points, err := m.store.History(ctx, x.id, key)
		if err != nil && !errors.Is(err, mlflow.ErrNotFound) {
			return false, err
		}
		last = -1
		for _, p := range points {
			last = max(last, p.Step)
		}
		ok = true
	}
	if x.steps == nil {
		x.steps = map[string]int64{}
	}
	if !ok {
		last = -1
	}
	x.steps[key] = max(last, step)
	return step > last, nil
}

// finish ends a run that is complete, and lets it go once it is delivered. Only
// the signature, which comes last, says that nothing is missing.
func (m *Mirror) finish(ctx context.Context, x *mirrored, signature string, status mlflow.Status, ms int64) error {
	if err := x.run.Seal(tagSeen, signature); err != nil {
		return err
	}
	if err := x.run.End(status, time.UnixMilli(ms)); err != nil {
		return err
	}
	x.seen, x.ended = signature, true
	m.open = append(m.open, x)
	if len(m.open) < openRuns {
		return nil
	}
	for len(m.open) > openRuns/2 {
		// It may have been opened again meanwhile.
		if y := m.open[0]; y.ended {
			if err := m.let(ctx, y); err != nil {
				return err
			}
		}
		m.open = m.open[1:]
	}
	return nil
}
