package report

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"atelier/common/files"
	"atelier/common/space"
	"atelier/common/trial"
)

// number is a JSON number; what JSON lacks (NaN, infinities) is null.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if !finite(float64(n)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// results is tuning_results.json. Keys may be added, not renamed; every key is
// always there.
type results struct {
	Format       int               `json:"format"`
	Sweep        string            `json:"sweep"`
	Name         string            `json:"name"`
	Model        string            `json:"model"`
	SearchMethod string            `json:"search_method"`
	Algorithm    string            `json:"algorithm"`
	Trainer      string            `json:"trainer"`
	Seed         uint64            `json:"seed"`
	Objective    objective         `json:"objective"`
	Status       trial.SweepStatus `json:"status"`
	Ending       string            `json:"ending"`
	SearchSpace  json.RawMessage   `json:"search_space"`
	Training     json.RawMessage   `json:"training"`

	Budget    int64          `json:"budget_trials"`
	Total     int            `json:"total_trials"`
	Completed int            `json:"completed_trials"` // finished or stopped early, with a value
	Counts    map[string]int `json:"counts"`
	Epochs    int            `json:"total_epochs"`
	Started   *string        `json:"started_at"`
	Ended     *string        `json:"ended_at"`
	Seconds   *number        `json:"total_seconds"`

	BestTrial  *int64          `json:"best_trial"`
	BestValue  *number         `json:"best_value"`
	BestEpoch  *int            `json:"best_epoch"`
	BestParams json.RawMessage `json:"best_params"`
	BestModel  *string         `json:"best_model"`

	Importance []share       `json:"parameter_importance"` // [] where it cannot be said
	Trials     []trialRecord `json:"trials"`
}

type objective struct {
	Metric    string `json:"metric"`
	Direction string `json:"direction"`
}

type share struct {
	Parameter string `json:"parameter"`
	Share     number `json:"share"`
}

// trialRecord is one trial there, and trials/trial_NNNN/trial.json.
type trialRecord struct {
	Trial     int64           `json:"trial"`
	Rank      *int            `json:"rank"` // from 1; null without a value
	Status    trial.Status    `json:"status"`
	Params    json.RawMessage `json:"params"`
	Value     *number         `json:"value"`
	BestEpoch *int            `json:"best_epoch"`
	Epochs    int             `json:"epochs"`
	Metrics   metrics         `json:"metrics"` // at best_epoch
	Started   *string         `json:"started_at"`
	Ended     *string         `json:"ended_at"`
	Seconds   *number         `json:"seconds"` // on slots, all runs together
	Runs      int             `json:"runs"`
	Slots     []string        `json:"slots"`
	Failure   string          `json:"failure"`
	Stop      string          `json:"stop_reason"`
	Model     *string         `json:"model"` // file, from this folder on
	History   history         `json:"history"`
}

// metrics keeps the order of the report.
type metrics trial.Metrics

func (m metrics) MarshalJSON() ([]byte, error) {
	var o object
	for _, x := range m {
		if err := o.add(x.Name, number(x.Value)); err != nil {
			return nil, err
		}
	}
	return o.bytes(), nil
}

// history is a list for each metric, one entry an epoch.
type history []trial.Report

func (h history) MarshalJSON() ([]byte, error) {
	var o object
	epochs := []int32{}
	var names []string
	for _, e := range h {
		epochs = append(epochs, e.Epoch)
		for _, m := range e.Metrics {
			if !slices.Contains(names, m.Name) && m.Name != "epochs" {
				names = append(names, m.Name)
			}
		}
	}
	if err := o.add("epochs", epochs); err != nil {
		return nil, err
	}
	for _, n := range names {
		ys := make([]number, len(h))
		for i, e := range h {
			ys[i] = number(math.NaN())
			if y, ok := e.Metrics.Get(n); ok {
				ys[i] = number(y)
			}
		}
		if err := o.add(n, ys); err != nil {
			return nil, err
		}
	}
	return o.bytes(), nil
}

// object is a JSON object with its keys in order.
type object struct{ b bytes.Buffer }

func (o *object) add(key string, value any) error {
	k, err := encode(key)
	if err != nil {
		return err
	}
	v, err := encode(value)
	if err != nil {
		return err
	}
	if o.b.Len() > 0 {
		o.b.WriteByte(',')
	}
	o.b.Write(k)
	o.b.WriteByte(':')
	o.b.Write(v)
	return nil
}

func (o *object) bytes() []byte { return append(append([]byte{'{'}, o.b.Bytes()...), '}') }

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

func indented(v any) ([]byte, error) {
	raw, err := encode(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return nil, err
	}
	return append(b.Bytes(), '\n'), nil
}

func (v *view) results() ([]byte, error) {
	searched, err := describe(&v.Space)
	if err != nil {
		return nil, err
	}
	r := results{Format: 1, Sweep: v.ID, Name: v.Name, Model: v.Model, SearchMethod: v.SearchMethod, Algorithm: v.Algorithm, Trainer: v.Trainer, Seed: v.Seed,
		Objective: objective{v.Metric, "minimize"}, Status: v.Status, Ending: v.Ending, SearchSpace: searched, Training: v.Training,
		Budget: v.Budget, Total: len(v.Trials), Counts: v.counts(), Started: stamp(v.CreatedMS), Ended: stamp(v.EndedMS), Seconds: seconds(v.CreatedMS, v.EndedMS),
		BestParams: json.RawMessage("null"), Importance: []share{}, Trials: []trialRecord{}}
	if v.Maximize {
		r.Objective.Direction = "maximize"
	}
	if len(r.Training) == 0 {
		r.Training = json.RawMessage("{}")
	}
	for i := range v.Trials {
		t := v.record(&v.Trials[i])
		if t.Value != nil && (t.Status == trial.Finished || t.Status == trial.Stopped) {
			r.Completed++
		}
		r.Epochs += t.Epochs
		r.Trials = append(r.Trials, t)
	}
	if len(v.ranked) > 0 {
		b := v.record(v.ranked[0])
		r.BestTrial, r.BestValue, r.BestEpoch, r.BestParams, r.BestModel = &b.Trial, b.Value, b.BestEpoch, b.Params, b.Model
	}
	for _, s := range v.scores {
		r.Importance = append(r.Importance, share{s.Parameter, number(s.Share)})
	}
	return indented(r)
}

func (v *view) counts() map[string]int {
	n := map[string]int{"finished": 0, "stopped": 0, "diverged": 0, "failed": 0, "cancelled": 0, "open": 0}
	for _, t := range v.Trials {
		if t.Status.Over() {
			n[t.Status.String()]++
		} else {
			n["open"]++
		}
	}
	return n
}

func (v *view) record(t *Trial) trialRecord {
	r := trialRecord{Trial: t.Number, Status: t.Status, Params: json.RawMessage("{}"), Epochs: t.Epochs, Metrics: metrics{}, Started: stamp(t.StartedMS), Ended: stamp(t.EndedMS),
		Runs: len(t.Runs), Slots: []string{}, Failure: t.Failure, Stop: t.StopReason, History: t.Curve}
	if len(t.Point) == len(v.Space.Params) {
		r.Params = json.RawMessage(v.Space.Encode(t.Point))
	}
	if n, ok := v.rank[t.Number]; ok {
		r.Rank = &n
	}
	if t.HasValue && finite(t.Value) {
		x := number(t.Value)
		r.Value, r.BestEpoch = &x, &t.ValueEpoch
		for _, e := range t.Curve {
			if int(e.Epoch) == t.ValueEpoch {
				r.Metrics = metrics(e.Metrics)
			}
		}
	}
	busy := 0.0
	for _, x := range t.Runs {
		if s := seconds(x.StartedMS, x.EndedMS); s != nil {
			busy += float64(*s)
		}
		if slot := slotOf(x); !slices.Contains(r.Slots, slot) {
			r.Slots = append(r.Slots, slot)
		}
	}
	if len(t.Runs) > 0 {
		r.Seconds = (*number)(&busy)
	}
	if t.Model != "" {
		m := filepath.ToSlash(t.Model)
		r.Model = &m
	}
	return r
}

func (v *view) writeTrials(dir string) error {
	for i := range v.Trials {
		t := &v.Trials[i]
		b, err := indented(v.record(t))
		if err != nil {
			return err
		}
		to := filepath.Join(dir, TrialDir(t.Number))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := files.WriteUnsynced(filepath.Join(to, TrialFile), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// describe is a space as the spec writes it.
func describe(s *space.Space) ([]byte, error) {
	var all object
	for i := range s.Params {
		p := &s.Params[i]
		var o object
		list := func(xs []space.Value) []json.RawMessage {
			var out []json.RawMessage
			for _, x := range xs {
				out = append(out, json.RawMessage(x.String()))
			}
			return out
		}
		add := func(key string, value any) {
			o.add(key, value) // plain values: nothing can go wrong
		}
		add("type", p.Kind.String())
		switch {
		case p.Kind == space.KindCategorical:
			add("choices", list(p.Choices))
		case len(p.Values) > 0:
			add("values", list(p.Values))
		default:
			add("low", p.Low)
			add("high", p.High)
			if p.Step > 0 {
				add("step", p.Step)
			}
		}
		if p.Log {
			add("log", true)
		}
		if len(p.When) > 0 {
			var when object
			for _, c := range p.When {
				when.add(c.Parent, list(c.Any))
			}
			add("when", json.RawMessage(when.bytes()))
		}
		if err := all.add(p.Name, json.RawMessage(o.bytes())); err != nil {
			return nil, err
		}
	}
	return all.bytes(), nil
}

func stamp(ms int64) *string {
	if ms <= 0 {
		return nil
	}
	s := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

func seconds(from, to int64) *number {
	if from <= 0 || to < from {
		return nil
	}
	n := number(float64(to-from) / 1000)
	return &n
}
