package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// step does the next thing; idle: there was nothing. Until the run is made, or reopened, that is the next
// thing. A batch is read, sent and marked done before the next is looked at: order is kept because there is
// never more than one request of a run under way.
func (w *sender) step(ctx context.Context) (idle bool, err error) {
	if w.id() == "" {
		return false, w.create(ctx)
	}
	if w.j.head.RunID != "" && w.j.where == "" {
		return false, w.reopen(ctx)
	}
	entries, after, err := w.j.next(w.most)
	if err != nil {
		w.dead = fmt.Errorf("the buffer cannot be read: %w", err)
		return false, w.dead
	}
	if len(entries) == 0 {
		return true, nil
	}
	n := w.fitting(entries)
	if err := w.deliver(ctx, entries[:n]); errors.Is(err, errSmaller) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	// Places in the file are known for whole readings only.
	if n < len(entries) {
		if _, after, err = w.j.next(n); err != nil {
			w.dead = fmt.Errorf("the buffer cannot be read: %w", err)
			return false, w.dead
		}
	}
	w.j.mark(record{Done: w.j.read + int64(n)}, false) // not synced: see mark
	w.j.advance(n, after)
	return false, nil
}

// fitting counts the entries that go into one request; an artifact or an end
// goes alone.
func (w *sender) fitting(entries []entry) int {
	metrics, params, tags, size := 0, 0, 0, 100
	for i, e := range entries {
		if e.File != "" || e.End != 0 {
			return max(i, 1)
		}
		switch {
		case e.Metric != "":
			metrics++
			size += 6*len(e.Metric) + 120
		default:
			params += len(e.Params)
			tags += len(e.Tags)
			size += jsonSize(e.Params) + jsonSize(e.Tags)
		}
		if metrics > maxBatchMetrics || params > maxBatchParams || tags > maxBatchTags || metrics+params+tags > maxBatchAll || size > maxBatchBytes {
			return max(i, 1)
		}
	}
	return len(entries)
}

// jsonSize is what pairs take in a request, with the names of their fields.
func jsonSize(pairs []pair) int {
	n := 0
	for _, p := range pairs {
		k, _ := json.Marshal(p.Key)
		v, _ := json.Marshal(p.Value)
		n += len(k) + len(v) + 24
	}
	return n
}

// deliver brings entries to the server; nil means that they need nothing more.
//
// The order is what makes metrics arrive once: a mark on disk, then the request, and after any answer but
// yes or "no connection" the batch is uncertain, until it is known entry by entry. A batch without metrics
// needs none of this, since values are set and not appended.
func (w *sender) deliver(ctx context.Context, entries []entry) error {
	to := w.j.read + int64(len(entries))
	switch e := entries[0]; {
	case e.File != "":
		return w.artifact(ctx, e)
	case e.End != 0:
		return w.end(ctx, e)
	}
	batch := entries
	if w.uncertain > w.j.read {
		var err error
		if batch, err = w.missing(ctx, entries); err != nil {
			return err
		}
	}
	if len(batch) == 0 {
		return nil
	}
	if slices.ContainsFunc(batch, func(e entry) bool { return e.Metric != "" }) {
		if err := w.j.mark(record{Sent: to}, true); err != nil {
			// Without the mark a crash now could double the batch.
			w.j.giveUp()
			w.s.o.Notify(fmt.Sprintf("MLflow run %s: the buffer on disk was given up (%s)", w.name, err))
		}
	}
	err := w.s.call(ctx, "runs/log-batch", nil, w.body(batch), nil)
	switch {
	case err == nil:
		w.most, w.refusals = maxBatchAll, 0
		return nil
	case unsent(err):
		return err
	}
	w.uncertain = max(w.uncertain, to)
	if !refused(err) {
		return err
	}
	return w.refused(ctx, entries, err)
}

// missing leaves out the metrics that the server has already, by time and step: a key never has the same
// time twice in a run (Run.Metric sees to it). Values are not compared, for servers keep infinities and
// NaN in ways of their own. Each key costs one reading of its history, only for uncertain entries.
func (w *sender) missing(ctx context.Context, entries []entry) ([]entry, error) {
	there := map[string]map[Point]bool{}
	var out []entry
	for i, e := range entries {
		if e.Metric == "" || w.j.read+int64(i) >= w.uncertain {
			out = append(out, e)
			continue
		}
		if there[e.Metric] == nil {
			points, err := w.s.history(ctx, w.id(), e.Metric, w.s.call)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			there[e.Metric] = map[Point]bool{}
			for _, p := range points {
				there[e.Metric][Point{Step: p.Step, TimeMS: p.TimeMS}] = true
			}
		}
		if !there[e.Metric][Point{Step: e.Step, TimeMS: e.TimeMS}] {
			out = append(out, e)
		}
	}
	return out, nil
}

// body is a runs/log-batch. Of a tag that comes twice only the last value is sent: a server need
// not keep the order within a batch. A seal is left out where something was lost.
func (w *sender) body(entries []entry) any {
	in := struct {
		RunID   string      `json:"run_id"`
		Metrics []apiMetric `json:"metrics,omitempty"`
		Params  []apiPair   `json:"params,omitempty"`
		Tags    []apiPair   `json:"tags,omitempty"`
	}{RunID: w.id()}
	at := map[string]int{}
	for _, e := range entries {
		if e.Metric != "" {
			in.Metrics = append(in.Metrics, apiMetric{e.Metric, real(e.Value), whole(e.TimeMS), whole(e.Step)})
		}
		for _, p := range e.Params {
			in.Params = append(in.Params, apiPair(p))
		}
		if e.Seal && w.incomplete() {
			continue
		}
		for _, t := range e.Tags {
			if i, ok := at[t.Key]; ok {
				in.Tags[i].Value = t.Value // the last word counts
				continue
			}
			at[t.Key] = len(in.Tags)
			in.Tags = append(in.Tags, apiPair(t))
		}
	}
	return in
}

// incomplete reports whether something of the run was refused or dropped.
func (w *sender) incomplete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost > 0
}

// refused finds the entry at fault in a batch that the server calls wrong: it is halved, step by step, until
// it is one entry, which is dropped and told, or, with several parameters or tags, sent pair by pair. A
// server also calls a batch wrong when the run is deleted: that is asked first, for nothing is at fault then.
func (w *sender) refused(ctx context.Context, entries []entry, err error) error {
	if len(entries) > 1 {
		w.most = max(1, len(entries)/2)
		return errSmaller
	}
	run, e2 := w.s.run(ctx, w.id(), w.s.call)
	if e2 != nil && !refused(e2) {
		return e2
	}
	w.refusals++
	switch {
	case e2 != nil || run.Info.Stage == "deleted":
		w.dead = fmt.Errorf("the run is %w", ErrDeleted)
	case w.refusals > 50:
		w.dead = fmt.Errorf("the server refuses everything: %w", err)
	}
	if w.dead != nil {
		return w.dead
	}
	e := entries[0]
	if n := len(e.Params) + len(e.Tags); n > 1 {
		for _, p := range e.Params {
			if err := w.single(ctx, entry{Params: []pair{p}}, "parameter "+p.Key); err != nil {
				return err
			}
		}
		for _, t := range e.Tags {
			if err := w.single(ctx, entry{Tags: []pair{t}}, "tag "+t.Key); err != nil {
				return err
			}
		}
		return nil
	}
	w.drop(describe(e), err)
	return nil
}

// describe names an entry for people.
func describe(e entry) string {
	switch {
	case e.Metric != "":
		return "metric " + e.Metric
	case len(e.Params) > 0:
		return "parameter " + e.Params[0].Key
	case len(e.Tags) > 0:
		return "tag " + e.Tags[0].Key
	}
	return "an entry"
}

// errSmaller: the batch was too much at once; the next step takes less.
var errSmaller = errors.New("the batch was refused")

// single sends one parameter or tag by itself; the one that is refused is dropped and the others
// stay.
func (w *sender) single(ctx context.Context, e entry, what string) error {
	err := w.s.call(ctx, "runs/log-batch", nil, w.body([]entry{e}), nil)
	if refused(err) {
		w.drop(what, err)
		return nil
	}
	return err
}
