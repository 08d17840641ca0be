package track

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"atelier/common/mlflow"
	"atelier/common/spec"
	"atelier/common/trial"
)

// openParent begins the sweep's run, or goes on with it.
func (m *Mirror) openParent(ctx context.Context, s *trial.Sweep) error {
	x := m.parent
	err := m.begin(ctx, x, mlflow.RunSpec{Experiment: m.experiment, Name: cmp.Or(s.Name, s.ID), Start: time.UnixMilli(s.CreatedMS),
		Tags: map[string]string{TagSweep: s.ID, mlflow.TagNote: "```yaml\n" + s.SpecYAML + "\n```"}})
	if err != nil || x.params {
		return err
	}
	x.params = true
	values := map[string]string{
		"search_method": s.SearchMethod, "algorithm": s.Algorithm, "trainer": s.Trainer, "seed": strconv.FormatUint(s.Seed, 10),
		"objective": s.Objective.Metric, "direction": s.Objective.Direction(),
		"budget_trials": strconv.FormatInt(s.BudgetTrials, 10), "parallelism": strconv.FormatInt(s.Parallelism, 10),
	}
	if s.MembersMax > 1 {
		values["members_min"], values["members_max"], values["shards"] = strconv.Itoa(int(s.MembersMin)), strconv.Itoa(int(s.MembersMax)), strconv.Itoa(int(s.Shards))
	}
	return m.params(ctx, x, values)
}

// params says those that are not there: one that has changed since, such as the
// budget of a sweep that was extended, keeps its first value in MLflow.
func (m *Mirror) params(ctx context.Context, x *mirrored, values map[string]string) error {
	if x.id != "" {
		have, err := m.store.Params(ctx, x.id)
		if err != nil {
			return err
		}
		for k := range have {
			delete(values, k)
		}
	}
	if len(values) == 0 {
		return nil
	}
	return x.run.Params(values)
}

// trial mirrors one trial as far as it has come.
func (m *Mirror) trial(ctx context.Context, s *trial.Sweep, t *trial.Trial) error {
	over := t.Status.Over()
	if over && t.Value != nil {
		m.ends[t.Number] = end{t.Number, t.EndedMS, float64(*t.Value)}
	} else {
		delete(m.ends, t.Number)
	}
	if len(t.Runs) == 0 {
		return nil // it never began
	}
	signature := fmt.Sprintf("%d %d %d %d", t.Status, t.Epoch, len(t.Runs), t.EndedMS)
	x := m.trials[t.Number]
	if x == nil {
		x = &mirrored{}
		m.trials[t.Number] = x
	}
	if x.seen == signature || x.last == signature {
		return nil
	}
	start := cmp.Or(t.StartedMS, t.CreatedMS)
	if err := m.begin(ctx, x, mlflow.RunSpec{Experiment: m.experiment, Name: fmt.Sprintf("trial %d", t.Number), Parent: m.parent.run, Start: time.UnixMilli(start),
		Tags: map[string]string{TagSweep: s.ID, TagTrial: strconv.FormatInt(t.Number, 10)}}); err != nil {
		return err
	}
	if !x.params {
		values, err := flat(t.Params, m.paramNames(s))
		if err == nil {
			err = m.params(ctx, x, values)
		}
		if err != nil {
			return err
		}
		x.params = true
	}
	if err := m.curve(ctx, x, t); err != nil {
		return err
	}
	if !over {
		x.last = signature
		return nil
	}
	if t.Value != nil {
		key := m.bestKey(s)
		if fresh, err := m.step(ctx, x, key, int64(t.ValueEpoch)); err != nil {
			return err
		} else if fresh {
			if err := x.run.Metric(key, float64(*t.Value), int64(t.ValueEpoch), time.UnixMilli(t.EndedMS)); err != nil {
				return err
			}
		}
	}
	if err := tag(x.run, tagsOf(t, s.Objective.Maximize)); err != nil {
		return err
	}
	x.last = signature
	return m.finish(ctx, x, signature, runStatus(t.Status), t.EndedMS)
}

// tag says tags in one order.
func tag(run *mlflow.Run, tags map[string]string) error {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if err := run.Tag(k, tags[k]); err != nil {
			return err
		}
	}
	return nil
}

// waitEvery is after how many values a long curve is waited for.
const waitEvery = 10_000

// curve says the reports that are not said yet.
func (m *Mirror) curve(ctx context.Context, x *mirrored, t *trial.Trial) error {
	if t.Epoch == 0 {
		return nil
	}
	reports, err := m.cluster.Curve(ctx, m.sweepID, t.Number)
	if err != nil {
		return err
	}
	names := m.metricNames(reports)
	said := 0
	for _, rep := range reports {
		if said >= waitEvery { // a run's queue is bounded
			if err := x.run.Wait(ctx); err != nil {
				return err
			}
			said = 0
		}
		for _, v := range rep.Metrics {
			key := names[v.Name]
			fresh, err := m.step(ctx, x, key, int64(rep.Epoch))
			if err != nil {
				return err
			}
			if fresh {
				said++
				if err := x.run.Metric(key, v.Value, int64(rep.Epoch), time.UnixMilli(rep.TimeMS)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sayParent says how the best value came, and the end.
func (m *Mirror) sayParent(ctx context.Context, s *trial.Sweep, signature string) error {
	x := m.parent
	key := m.bestKey(s)
	var best end
	for i, e := range sortedEnds(m.ends) {
		if i == 0 || better(s.Objective, e.value, best.value) || e.value == best.value && e.trial < best.trial { // as on the leaderboard
			best = e
		}
		fresh, err := m.step(ctx, x, key, int64(i+1))
		if err != nil {
			return err
		}
		if fresh {
			if err := x.run.Metric(key, best.value, int64(i+1), time.UnixMilli(e.ms)); err != nil {
				return err
			}
		}
	}
	if !s.Status.Over() {
		return nil
	}
	tags := map[string]string{TagStatus: s.Status.String(), "atelier.trials": strconv.FormatInt(s.Counts.Proposed, 10)}
	if s.Failure != "" {
		tags["atelier.failure"] = s.Failure
	}
	if b := s.Best; b != nil {
		tags["atelier.best_trial"] = strconv.FormatInt(b.Trial, 10)
		tags["atelier.best_params"] = string(b.Params)
	}
	if err := tag(x.run, tags); err != nil {
		return err
	}
	return m.finish(ctx, x, signature, sweepStatus(s.Status), s.EndedMS)
}

// better reports whether a is; anything is better than no number.
func better(o trial.Objective, a, b float64) bool {
	if math.IsNaN(b) {
		return !math.IsNaN(a)
	}
	return o.Better(a, b)
}

// runStatus is a trial's end in MLflow's words: a trial that was stopped early has done what it was
// to do.
func runStatus(s trial.Status) mlflow.Status {
	switch s {
	case trial.Finished, trial.Stopped:
		return mlflow.Finished
	case trial.Cancelled:
		return mlflow.Killed
	}
	return mlflow.Failed
}

// sweepStatus is a sweep's end in MLflow's words.
func sweepStatus(s trial.SweepStatus) mlflow.Status {
	switch s {
	case trial.SweepFinished, trial.SweepStopped:
		return mlflow.Finished
	case trial.SweepCancelled:
		return mlflow.Killed
	}
	return mlflow.Failed
}

// tagsOf is what MLflow has no parameter or metric for.
func tagsOf(t *trial.Trial, maximize bool) map[string]string {
	tags := map[string]string{TagStatus: t.Status.String(), "atelier.runs": strconv.Itoa(len(t.Runs))}
	last := t.LastRun()
	for k, v := range map[string]string{"atelier.worker": last.Worker, "atelier.slot": last.Slot, "atelier.failure": t.Failure, "atelier.stop_reason": t.StopReason} {
		if v != "" {
			tags[k] = v
		}
	}
	if v := last.Group.View(); v != nil {
		tags["atelier.members"], tags["atelier.views"] = strconv.Itoa(len(v.Members)), strconv.Itoa(int(v.Number))
		tags["atelier.view_reason"] = v.Reason
	}
	if best := trial.Best(t.Checkpoints, maximize); best != nil {
		tags["atelier.checkpoint"] = string(best.Location)
	}
	return tags
}

// paramNames are the names of a sweep's parameters in MLflow: of all of them,
// since a trial need not have every one and the names are the same in all.
func (m *Mirror) paramNames(s *trial.Sweep) map[string]string {
	if m.space == nil {
		var all []string
		if asked, err := spec.Decode(s.SpecJSON); err == nil {
			for _, p := range asked.Space.Params {
				all = append(all, p.Name)
			}
		}
		m.space = mlflow.Names(all)
	}
	return m.space
}

// metricNames are the names in MLflow of the metrics seen so far.
func (m *Mirror) metricNames(reports []trial.Report) map[string]string {
	known := len(m.metrics)
	for _, rep := range reports {
		for _, v := range rep.Metrics {
			if _, ok := m.metrics[v.Name]; !ok {
				m.metrics[v.Name] = ""
			}
		}
	}
	if len(m.metrics) > known {
		m.metrics = mlflow.Names(slices.Collect(maps.Keys(m.metrics)))
	}
	return m.metrics
}

// bestKey is the metric that says the best value; one of that name that a
// trainer reports keeps it.
func (m *Mirror) bestKey(s *trial.Sweep) string {
	key := mlflow.Key("best_" + s.Objective.Metric)
	for _, taken := range m.metrics {
		if taken == key {
			return mlflow.Key(key + "-objective")
		}
	}
	return key
}

// flat is a JSON object as parameters: strings bare, all else as JSON has it.
func flat(object json.RawMessage, names map[string]string) (map[string]string, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(object, &raw); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	out := map[string]string{}
	for k, v := range raw {
		var text string
		if json.Unmarshal(v, &text) != nil || bytes.Equal(v, []byte("null")) {
			text = string(v)
		}
		key, ok := names[k]
		if !ok {
			key = mlflow.Key(k)
		}
		out[key] = text
	}
	return out, nil
}

// sortedEnds are the trials with a value in the order of their ends.
func sortedEnds(m map[int64]end) []end {
	var out []end
	for _, e := range m {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b end) int { return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.trial, b.trial)) })
	return out
}
