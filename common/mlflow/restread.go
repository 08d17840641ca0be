package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// whole is an integer that may come as a string: protobuf's JSON does so.
type whole int64

// UnmarshalJSON takes 5, "5" and null, which is 0.
func (w *whole) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		if string(b) == "null" {
			return nil
		}
		return fmt.Errorf("%s is not an integer", cut(string(b), 40))
	}
	*w = whole(n)
	return nil
}

// real is a number that may be "NaN", "Infinity" or "-Infinity".
type real float64

// UnmarshalJSON takes a number or its text. One beyond float64 becomes infinite, as in Python.
func (r *real) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%s is not a number", cut(string(b), 40))
	}
	*r = real(v)
	return nil
}

// MarshalJSON writes what is no JSON number as protobuf does.
func (r real) MarshalJSON() ([]byte, error) {
	v := float64(r)
	switch {
	case math.IsNaN(v):
		return []byte(`"NaN"`), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	}
	return json.Marshal(v)
}

// The parts of the API's messages that are used here. Everything else in an answer is passed over, so that
// servers of other versions are understood.
type (
	apiPair struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	apiMetric struct {
		Key       string `json:"key"`
		Value     real   `json:"value"`
		Timestamp whole  `json:"timestamp"`
		Step      whole  `json:"step"`
	}
	apiExperiment struct {
		ID    string `json:"experiment_id"`
		Name  string `json:"name"`
		Stage string `json:"lifecycle_stage"`
	}
	apiRun struct {
		Info struct {
			ID         string `json:"run_id"`
			Experiment string `json:"experiment_id"`
			Name       string `json:"run_name"`
			Status     string `json:"status"`
			Start      whole  `json:"start_time"`
			End        whole  `json:"end_time"`
			Artifacts  string `json:"artifact_uri"`
			Stage      string `json:"lifecycle_stage"`
		} `json:"info"`
		Data struct {
			Params []apiPair `json:"params"`
			Tags   []apiPair `json:"tags"`
		} `json:"data"`
	}
)

// Experiment asks the server at once, once for each name.
func (s *restStore) Experiment(ctx context.Context, name string) (string, error) {
	id, err := s.experiment(ctx, name, s.ask)
	if err != nil {
		return "", fmt.Errorf("MLflow at %s: %w", s, err)
	}
	return id, nil
}

// caller is call for a sender, which repeats by itself, and ask for everybody else.
type caller func(ctx context.Context, path string, query url.Values, in, out any) error

// experiment finds or makes an experiment. Made by somebody else at the same
// time, it is found at the second look.
func (s *restStore) experiment(ctx context.Context, name string, call caller) (string, error) {
	if err := checkExperiment(name); err != nil {
		return "", err
	}
	s.mu.Lock()
	id := s.experiments[name]
	s.mu.Unlock()
	if id != "" {
		return id, nil
	}
	for try := 1; ; try++ {
		id, err := s.find(ctx, name, call)
		if err == nil {
			s.mu.Lock()
			s.experiments[name] = id
			s.mu.Unlock()
			return id, nil
		}
		if !errors.Is(err, ErrNotFound) {
			return "", err
		}
		err = call(ctx, "experiments/create", nil, map[string]string{"name": name}, nil)
		if err != nil && code(err) != "RESOURCE_ALREADY_EXISTS" || try == 3 {
			return "", err
		}
	}
}

// find asks for an experiment by name. ErrNotFound: make it. ErrDeleted: its name is taken by one
// in the trash, and only a person can decide what becomes of that.
func (s *restStore) find(ctx context.Context, name string, call caller) (string, error) {
	var got struct {
		Experiment apiExperiment `json:"experiment"`
	}
	if err := call(ctx, "experiments/get-by-name", url.Values{"experiment_name": {name}}, nil, &got); err != nil {
		return "", err
	}
	if got.Experiment.Stage == "deleted" {
		return "", fmt.Errorf("experiment %q is %w: restore it (mlflow experiments restore -x %s) or give another name", name, ErrDeleted, got.Experiment.ID)
	}
	if got.Experiment.ID == "" {
		return "", fmt.Errorf("experiments/get-by-name: the answer has no id: %w", ErrUnreachable)
	}
	return got.Experiment.ID, nil
}

// FindRuns follows the pages of the answer to their end.
func (s *restStore) FindRuns(ctx context.Context, experiment string, tags map[string]string) ([]RunInfo, error) {
	id, err := s.find(ctx, experiment, s.ask)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	var out []RunInfo
	if err == nil {
		out, err = s.search(ctx, id, tags, s.ask)
	}
	if err != nil {
		return nil, fmt.Errorf("MLflow at %s: %w", s, err)
	}
	return out, nil
}

// search asks for runs with those of the tags that a filter can say, and looks
// at all of them here: MLflow's filters cannot quote every character, and older servers compare in other
// ways. The filter saves pages, it does not decide.
func (s *restStore) search(ctx context.Context, experiment string, tags map[string]string, call caller) ([]RunInfo, error) {
	var filter []string
	for _, k := range sortedKeys(tags) {
		if !strings.ContainsAny(k+tags[k], "'\"`\\%") && tags[k] != "" {
			filter = append(filter, fmt.Sprintf("tags.`%s` = '%s'", k, tags[k]))
		}
	}
	var out []RunInfo
	for token := ""; ; {
		in := map[string]any{"experiment_ids": []string{experiment}, "max_results": 1000, "run_view_type": "ACTIVE_ONLY"}
		if len(filter) > 0 {
			in["filter"] = strings.Join(filter, " and ")
		}
		if token != "" {
			in["page_token"] = token
		}
		var got struct {
			Runs []apiRun `json:"runs"`
			Next string   `json:"next_page_token"`
		}
		if err := call(ctx, "runs/search", nil, in, &got); err != nil {
			return nil, err
		}
		for _, r := range got.Runs {
			i := RunInfo{ID: r.Info.ID, Experiment: r.Info.Experiment, Name: r.Info.Name, StartMS: int64(r.Info.Start), EndMS: int64(r.Info.End), Tags: map[string]string{}}
			for st, name := range statusNames {
				if name == r.Info.Status {
					i.Status = st
				}
			}
			for _, t := range r.Data.Tags {
				i.Tags[t.Key] = t.Value
			}
			if carries(i.Tags, tags) {
				out = append(out, i)
			}
		}
		if token = got.Next; token == "" || len(got.Runs) == 0 {
			sortRuns(out)
			return out, nil
		}
	}
}

// History follows the pages of the answer to their end.
func (s *restStore) History(ctx context.Context, runID, key string) ([]Point, error) {
	if err := CheckKey("metric", key); err != nil {
		return nil, err
	}
	out, err := s.history(ctx, runID, key, s.ask)
	if err != nil {
		return nil, fmt.Errorf("MLflow at %s: %w", s, err)
	}
	return out, nil
}

// history reads every value of a metric, page by page. That is the price of exactly once, and is
// paid only after an uncertain answer, a metric of the batch at a time.
func (s *restStore) history(ctx context.Context, runID, key string, call caller) ([]Point, error) {
	var out []Point
	for token := ""; ; {
		q := url.Values{"run_id": {runID}, "metric_key": {key}}
		if token != "" {
			q.Set("page_token", token)
		}
		var got struct {
			Metrics []apiMetric `json:"metrics"`
			Next    string      `json:"next_page_token"`
		}
		if err := call(ctx, "metrics/get-history", q, nil, &got); err != nil {
			return nil, err
		}
		for _, m := range got.Metrics {
			out = append(out, Point{Step: int64(m.Step), TimeMS: int64(m.Timestamp), Value: float64(m.Value)})
		}
		if token = got.Next; token == "" || len(got.Metrics) == 0 {
			return out, nil
		}
	}
}

// run reads one run, a deleted one too.
func (s *restStore) run(ctx context.Context, id string, call caller) (apiRun, error) {
	var got struct {
		Run apiRun `json:"run"`
	}
	err := call(ctx, "runs/get", url.Values{"run_id": {id}}, nil, &got)
	return got.Run, err
}

// Params is runs/get, which has all of them. ErrNotFound: there is no such run.
func (s *restStore) Params(ctx context.Context, runID string) (map[string]string, error) {
	r, err := s.run(ctx, runID, s.ask)
	if err != nil {
		return nil, fmt.Errorf("MLflow at %s: %w", s, err)
	}
	out := map[string]string{}
	for _, p := range r.Data.Params {
		out[p.Key] = p.Value
	}
	return out, nil
}

// Artifacts follows the pages of the answer to their end. Paths come from the top; their last part
// is the name.
func (s *restStore) Artifacts(ctx context.Context, runID, folder string) ([]string, error) {
	q := url.Values{"run_id": {runID}}
	if folder != "" {
		q.Set("path", folder)
	}
	var out []string
	for token := ""; ; {
		if token != "" {
			q.Set("page_token", token)
		}
		var got struct {
			Files []struct {
				Path string `json:"path"`
			} `json:"files"`
			Next string `json:"next_page_token"`
		}
		if err := s.ask(ctx, "artifacts/list", q, nil, &got); err != nil {
			return nil, fmt.Errorf("MLflow at %s: %w", s, err)
		}
		for _, f := range got.Files {
			out = append(out, f.Path[strings.LastIndex(f.Path, "/")+1:])
		}
		if token = got.Next; token == "" || len(got.Files) == 0 {
			slices.Sort(out)
			return out, nil
		}
	}
}
