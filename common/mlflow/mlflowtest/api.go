package mlflowtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// methods are the calls that there are. A wrong method or content type is refused as MLflow does,
// before anything of the body is read.
var methods = map[string]string{"experiments/get-by-name": "GET", "experiments/create": "POST", "runs/create": "POST", "runs/get": "GET", "runs/update": "POST",
	"runs/log-batch": "POST", "runs/search": "POST", "metrics/get-history": "GET", "artifacts/list": "GET"}

// api answers one call, or says what MLflow would say against it.
func (s *Server) api(name string, r *http.Request, body []byte, half bool) (any, *apiError) {
	switch want := methods[name]; {
	case want == "":
		return nil, &apiError{http.StatusNotFound, "ENDPOINT_NOT_FOUND", "no such endpoint " + name}
	case r.Method != want:
		return nil, invalid("%s is a %s", name, want)
	case want == "POST" && !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json"):
		return nil, invalid("Bad Request. Content-Type must be one of ['application/json'].")
	}
	q := r.URL.Query()
	switch name {
	case "experiments/get-by-name":
		return s.getByName(q.Get("experiment_name"))
	case "experiments/create":
		return s.createExperiment(body)
	case "runs/create":
		return s.createRun(body)
	case "runs/get":
		run, bad := s.find(q.Get("run_id"), true)
		if bad != nil {
			return nil, bad
		}
		return map[string]any{"run": s.show(run)}, nil
	case "runs/update":
		return s.update(body)
	case "runs/log-batch":
		return s.logBatch(body, half)
	case "runs/search":
		return s.search(body)
	case "artifacts/list":
		return s.list(q.Get("run_id"), q.Get("path"))
	}
	return s.history(q.Get("run_id"), q.Get("metric_key"), q.Get("page_token"))
}

// decode takes exactly the fields of a call, in their types.
func decode(body []byte, into any) *apiError {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return invalid("Invalid value in request: %v", err)
	}
	return nil
}

// pair has pointers, so that a key that is missing differs from one that is empty.
type pair struct {
	Key   *string `json:"key"`
	Value *string `json:"value"`
}

type metric struct {
	Key       *string     `json:"key"`
	Value     any         `json:"value"`
	Timestamp json.Number `json:"timestamp"`
	Step      json.Number `json:"step"`
}

// keyRule is MLflow's rule for names (mlflow/utils/validation.py).
var keyRule = regexp.MustCompile(`^[/\pL\pN_.\- ]*$`)

// checkKey is independent of package mlflow's CheckKey on purpose: a mistake there must not be made
// here, too.
func checkKey(what string, key *string) *apiError {
	switch {
	case key == nil || *key == "":
		return invalid("Missing value for required parameter '%s'.", what)
	case !keyRule.MatchString(*key):
		return invalid("Invalid %s name: '%s'. Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), and slashes (/).", what, *key)
	case path.Clean(*key) != *key || *key == "." || strings.HasPrefix(*key, "..") || strings.HasPrefix(*key, "/"):
		return invalid("Invalid %s name: '%s'. Names may be treated as files in certain cases", what, *key)
	case utf8.RuneCountInString(*key) > 250:
		return invalid("%s name had length %d, which exceeded length limit of 250", what, utf8.RuneCountInString(*key))
	}
	return nil
}

// checkPairs checks parameters or tags; limit is in characters.
func checkPairs(what string, pairs []pair, limit int) *apiError {
	for _, p := range pairs {
		if bad := checkKey(what, p.Key); bad != nil {
			return bad
		}
		if p.Value == nil {
			return invalid("%s %s has no value", what, *p.Key)
		}
		if n := utf8.RuneCountInString(*p.Value); n > limit {
			return invalid("%s value had length %d, which exceeded length limit of %d", what, n, limit)
		}
	}
	return nil
}

// number is a double as protobuf's JSON takes it.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case string:
		switch v {
		case "NaN":
			return math.NaN(), true
		case "Infinity":
			return math.Inf(1), true
		case "-Infinity":
			return math.Inf(-1), true
		}
	}
	return 0, false
}

// getByName finds deleted experiments as well, as MLflow does: their names are taken.
func (s *Server) getByName(name string) (any, *apiError) {
	for _, e := range s.experiments {
		if e.Name == name {
			return map[string]any{"experiment": map[string]any{"experiment_id": e.ID, "name": e.Name, "lifecycle_stage": e.Stage, "artifact_location": s.ArtifactRoot + e.ID}}, nil
		}
	}
	return nil, missing("Could not find experiment with name '%s'", name)
}

// createExperiment refuses a name that is there, living or deleted.
func (s *Server) createExperiment(body []byte) (any, *apiError) {
	var in struct {
		Name     *string `json:"name"`
		Location *string `json:"artifact_location"`
		Tags     []pair  `json:"tags"`
	}
	if bad := decode(body, &in); bad != nil {
		return nil, bad
	}
	if in.Name == nil || *in.Name == "" || utf8.RuneCountInString(*in.Name) > 500 {
		return nil, invalid("Invalid experiment name")
	}
	for _, e := range s.experiments {
		if e.Name == *in.Name {
			return nil, &apiError{http.StatusBadRequest, "RESOURCE_ALREADY_EXISTS", fmt.Sprintf("Experiment(name=%s) already exists.", *in.Name)}
		}
	}
	e := &Experiment{strconv.Itoa(len(s.experiments)), *in.Name, "active"}
	s.experiments = append(s.experiments, e)
	return map[string]string{"experiment_id": e.ID}, nil
}

// createRun makes a run each time it is called: there are no request ids, which is what the client
// has to live with.
func (s *Server) createRun(body []byte) (any, *apiError) {
	var in struct {
		Experiment *string     `json:"experiment_id"`
		User       string      `json:"user_id"`
		Name       string      `json:"run_name"`
		Start      json.Number `json:"start_time"`
		Tags       []pair      `json:"tags"`
	}
	if bad := decode(body, &in); bad != nil {
		return nil, bad
	}
	if in.Experiment == nil {
		return nil, invalid("Missing value for required parameter 'experiment_id'.")
	}
	start, err := in.Start.Int64()
	if err != nil || start <= 0 {
		return nil, invalid("Invalid start_time %s", in.Start)
	}
	if bad := checkPairs("Tag", in.Tags, 5000); bad != nil {
		return nil, bad
	}
	i := slices.IndexFunc(s.experiments, func(e *Experiment) bool { return e.ID == *in.Experiment })
	if i < 0 {
		return nil, missing("No Experiment with id=%s exists", *in.Experiment)
	}
	if s.experiments[i].Stage != "active" {
		return nil, &apiError{http.StatusBadRequest, "INVALID_STATE", "The experiment must be in the 'active' state."}
	}
	r := &Run{ID: newID(), Experiment: *in.Experiment, Name: in.Name, User: in.User, Status: "RUNNING", Stage: "active", Start: start, Params: map[string]string{}, Tags: map[string]string{}}
	for _, t := range in.Tags {
		r.Tags[*t.Key] = *t.Value
	}
	if tag := r.Tags["mlflow.runName"]; tag != "" && in.Name != "" && tag != in.Name {
		return nil, invalid("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values")
	}
	if p := r.Tags["mlflow.parentRunId"]; p != "" {
		if _, bad := s.find(p, false); bad != nil {
			return nil, invalid("the parent %s is not a run", p)
		}
	}
	s.runs = append(s.runs, r)
	return map[string]any{"run": s.show(r)}, nil
}

// find looks a run up. Calls that read take deleted runs, those that write do not.
func (s *Server) find(id string, deletedToo bool) (*Run, *apiError) {
	for _, r := range s.runs {
		if r.ID == id {
			if r.Stage != "active" && !deletedToo {
				return nil, &apiError{http.StatusBadRequest, "INVALID_PARAMETER_VALUE", fmt.Sprintf("The run %s must be in the 'active' state. Current state is deleted.", id)}
			}
			return r, nil
		}
	}
	return nil, missing("Run '%s' not found", id)
}

// show is a run as runs/get answers it: 64-bit integers as MLflow 1 wrote them
// (numbers) for the start, as protobuf does (strings) for the end.
func (s *Server) show(r *Run) any {
	list := func(m map[string]string) []map[string]string {
		var out []map[string]string
		for k, v := range m {
			out = append(out, map[string]string{"key": k, "value": v})
		}
		slices.SortFunc(out, func(a, b map[string]string) int { return strings.Compare(a["key"], b["key"]) })
		return out
	}
	info := map[string]any{"run_id": r.ID, "run_uuid": r.ID, "experiment_id": r.Experiment, "run_name": r.Name, "user_id": r.User, "status": r.Status, "start_time": r.Start,
		"artifact_uri": s.ArtifactRoot + path.Join(r.Experiment, r.ID, "artifacts"), "lifecycle_stage": r.Stage}
	if r.End != 0 {
		info["end_time"] = strconv.FormatInt(r.End, 10)
	}
	return map[string]any{"info": info, "data": map[string]any{"params": list(r.Params), "tags": list(r.Tags)}, "inputs": map[string]any{}}
}

// update sets status and end, whatever they were: it is the same when it is done twice.
func (s *Server) update(body []byte) (any, *apiError) {
	var in struct {
		ID     string      `json:"run_id"`
		Status string      `json:"status"`
		End    json.Number `json:"end_time"`
		Name   string      `json:"run_name"`
	}
	if bad := decode(body, &in); bad != nil {
		return nil, bad
	}
	r, bad := s.find(in.ID, false)
	if bad != nil {
		return nil, bad
	}
	if !slices.Contains([]string{"", "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"}, in.Status) {
		return nil, invalid("Invalid status %s", in.Status)
	}
	if in.Status != "" {
		r.Status, r.End = in.Status, 0
	}
	if in.End != "" {
		end, err := in.End.Int64()
		if err != nil || end < 0 {
			return nil, invalid("Invalid end_time %s", in.End)
		}
		r.End = end
	}
	return map[string]any{"run_info": s.show(r).(map[string]any)["info"]}, nil
}

// logBatch checks all of a batch and then takes it, or, with half, takes half of its metrics and
// fails: what a server with a file store does when its disk is full. Metrics are appended, so a
// batch that comes twice is there twice.
func (s *Server) logBatch(body []byte, half bool) (any, *apiError) {
	var in struct {
		ID      string   `json:"run_id"`
		Metrics []metric `json:"metrics"`
		Params  []pair   `json:"params"`
		Tags    []pair   `json:"tags"`
	}
	if len(body) > 1_000_000 {
		return nil, invalid("Batched logging API requests must be at most 1000000 bytes, got a request of size %d.", len(body))
	}
	if bad := decode(body, &in); bad != nil {
		return nil, bad
	}
	r, bad := s.find(in.ID, false)
	if bad != nil {
		return nil, bad
	}
	for what, n := range map[string][2]int{"metrics": {len(in.Metrics), 1000}, "params": {len(in.Params), 100}, "tags": {len(in.Tags), 100}, "metrics, params, and tags": {len(in.Metrics) + len(in.Params) + len(in.Tags), 1000}} {
		if n[0] > n[1] {
			return nil, invalid("A batch logging request can contain at most %d %s. Got %d %s. Please split up %s across multiple requests and try again.", n[1], what, n[0], what, what)
		}
	}
	var metrics []Metric
	for i, m := range in.Metrics {
		if bad := checkKey("Metric", m.Key); bad != nil {
			return nil, bad
		}
		v, ok := number(m.Value)
		ts, e1 := m.Timestamp.Int64()
		step, e2 := m.Step.Int64()
		if !ok || e1 != nil || ts < 0 || e2 != nil {
			return nil, invalid("Got invalid value %v, timestamp %s or step %s for metrics[%d] '%s'", m.Value, m.Timestamp, m.Step, i, *m.Key)
		}
		metrics = append(metrics, Metric{*m.Key, v, ts, step})
	}
	if bad := checkPairs("Param", in.Params, s.MaxParam); bad != nil {
		return nil, bad
	}
	if bad := checkPairs("Tag", in.Tags, 5000); bad != nil {
		return nil, bad
	}
	seen := map[string]bool{}
	for _, p := range in.Params {
		if seen[*p.Key] {
			return nil, invalid("Duplicate parameter keys have been submitted: %s", *p.Key)
		}
		seen[*p.Key] = true
		if old, ok := r.Params[*p.Key]; ok && old != *p.Value {
			return nil, invalid("Changing param values is not allowed. Param with key='%s' was already logged with value='%s'", *p.Key, old)
		}
	}
	for _, p := range in.Params {
		r.Params[*p.Key] = *p.Value
	}
	if half {
		r.Metrics = append(r.Metrics, metrics[:len(metrics)/2]...)
		return nil, &apiError{http.StatusInternalServerError, "INTERNAL_ERROR", "disk full"}
	}
	r.Metrics = append(r.Metrics, metrics...)
	for _, t := range in.Tags {
		r.Tags[*t.Key] = *t.Value
	}
	return nil, nil
}

// filterRule is the only kind of clause that the client sends.
var filterRule = regexp.MustCompile("^tags\\.`([^`]+)` = '([^']*)'$")

// search answers in the order of creation, page by page.
func (s *Server) search(body []byte) (any, *apiError) {
	var in struct {
		Experiments []string `json:"experiment_ids"`
		Filter      string   `json:"filter"`
		View        string   `json:"run_view_type"`
		Max         int      `json:"max_results"`
		Token       string   `json:"page_token"`
	}
	if bad := decode(body, &in); bad != nil {
		return nil, bad
	}
	if in.Max < 1 || in.Max > 50000 {
		return nil, invalid("Invalid value for request parameter max_results")
	}
	want := map[string]string{}
	if in.Filter != "" {
		for _, clause := range strings.Split(in.Filter, " and ") {
			m := filterRule.FindStringSubmatch(clause)
			if m == nil {
				return nil, invalid("Invalid clause(s) in filter string: '%s'", clause)
			}
			want[m[1]] = m[2]
		}
	}
	var out []any
	for _, r := range s.runs {
		ok := slices.Contains(in.Experiments, r.Experiment) && (in.View != "ACTIVE_ONLY" || r.Stage == "active")
		for k, v := range want {
			ok = ok && r.Tags[k] == v
		}
		if ok {
			out = append(out, s.show(r))
		}
	}
	return page("runs", out, in.Token, min(in.Max, s.PageSize))
}

// page cuts a list; a token is the number of what came before.
func page(name string, all []any, token string, size int) (any, *apiError) {
	from := 0
	if token != "" {
		var err error
		if from, err = strconv.Atoi(token); err != nil || from > len(all) {
			return nil, invalid("Invalid page token")
		}
	}
	to := min(from+size, len(all))
	out := map[string]any{name: all[from:to]}
	if to < len(all) {
		out["next_page_token"] = strconv.Itoa(to)
	}
	return out, nil
}

// history answers as a database behind MLflow: infinities are the largest number, steps are texts.
func (s *Server) history(id, key, token string) (any, *apiError) {
	if bad := checkKey("Metric", &key); bad != nil {
		return nil, bad
	}
	r, bad := s.find(id, true)
	if bad != nil {
		return nil, bad
	}
	var out []any
	for _, m := range r.Metrics {
		if m.Key == key {
			var v any = m.Value
			switch {
			case math.IsNaN(m.Value):
				v = "NaN"
			case math.IsInf(m.Value, 0): // as databases keep it
				v = math.Copysign(math.MaxFloat64, m.Value)
			}
			out = append(out, map[string]any{"key": key, "value": v, "timestamp": m.TimeMS, "step": strconv.FormatInt(m.Step, 10)})
		}
	}
	return page("metrics", out, token, s.PageSize)
}

// list answers one level of a run's artifacts.
func (s *Server) list(id, folder string) (any, *apiError) {
	r, bad := s.find(id, true)
	if bad != nil {
		return nil, bad
	}
	root := path.Join(r.Experiment, id, "artifacts") + "/"
	seen := map[string]bool{}
	var out []any
	for p, b := range s.artifacts {
		rest, ok := strings.CutPrefix(p, root)
		if folder != "" && ok {
			rest, ok = strings.CutPrefix(rest, folder+"/")
		}
		if name, _, isDir := strings.Cut(rest, "/"); ok && !seen[name] {
			seen[name] = true
			out = append(out, map[string]any{"path": path.Join(folder, name), "is_dir": isDir, "file_size": len(b)})
		}
	}
	return map[string]any{"root_uri": s.ArtifactRoot + root, "files": out}, nil
}
