// Package mlflowtest is a tracking server for tests. It keeps runs in memory as
// a file-backed MLflow does - what is logged twice is there twice - and checks
// every call against MLflow's documented limits and types, so that a client
// which it accepts is one that MLflow accepts. Faults can be put in its way.
package mlflowtest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
)

// TB is the part of a test that the server needs; programs that measure bring
// their own.
type TB interface {
	Cleanup(func())
	Error(...any)
	Fatal(...any)
}

// Fault is what befalls one call.
type Fault int

// The faults.
const (
	None        Fault = iota
	Unavailable       // 503 from a proxy, nothing happened
	LoseAnswer        // done, but the connection breaks before the answer
	LoseRequest       // the connection breaks, nothing happened
	Half              // of a log-batch only the first half is written, then 500
	NotJSON           // 200 with a login page
	Overtaken         // somebody else makes the same call just before
)

// Metric is one value as it was logged.
type Metric struct {
	Key    string
	Value  float64
	TimeMS int64
	Step   int64
}

// Run is a run on the server.
type Run struct {
	ID, Experiment, Name, User, Status, Stage string
	Start, End                                int64
	Params, Tags                              map[string]string
	Metrics                                   []Metric // in the order of writing
}

// Experiment is one on the server.
type Experiment struct{ ID, Name, Stage string }

// Server is a tracking server on a loopback port.
type Server struct {
	URL string

	// Set before use.
	User, Password, Token string // asked for when set
	ArtifactRoot          string // of runs; "mlflow-artifacts:/"
	MaxParam              int    // 6000; servers of old took less
	PageSize              int    // of get-history and search; 1000

	t    TB
	addr string
	mu   sync.Mutex
	srv  *http.Server

	fault       func(call string, n int) Fault
	calls       map[string]int
	problems    []string
	experiments []*Experiment
	runs        []*Run
	artifacts   map[string][]byte
}

// New starts a server; it ends with the test. Calls that break MLflow's rules
// are refused as MLflow does, and fail the test unless they are asked for with
// Problems.
func New(t TB) *Server {
	s := &Server{t: t, ArtifactRoot: "mlflow-artifacts:/", MaxParam: 6000, PageSize: 1000, calls: map[string]int{}, artifacts: map[string][]byte{}}
	s.experiments = append(s.experiments, &Experiment{"0", "Default", "active"})
	s.Start()
	t.Cleanup(func() {
		s.Stop()
		for _, p := range s.Problems() {
			t.Error("a call that MLflow would not take: " + p)
		}
	})
	return s
}

// Start serves, at the same address as before.
func (s *Server) Start() {
	addr := s.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.URL = "http://" + s.addr
	srv := &http.Server{Handler: s}
	s.mu.Lock()
	s.srv = srv
	s.mu.Unlock()
	go srv.Serve(l)
}

// Stop refuses connections until Start; what is kept stays.
func (s *Server) Stop() {
	s.mu.Lock()
	srv := s.srv
	s.srv = nil
	s.mu.Unlock()
	if srv != nil {
		srv.Close()
	}
}

// Fault puts faults in the way: f is asked at every call with its name
// ("runs/log-batch", "artifact") and how many of that name came before.
func (s *Server) Fault(f func(call string, n int) Fault) {
	s.mu.Lock()
	s.fault = f
	s.mu.Unlock()
}

// Calls counts the calls of a name.
func (s *Server) Calls(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

// Problems returns, and forgets, the calls that were refused as wrong.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.problems
	s.problems = nil
	return p
}

// Runs returns copies of all runs of an experiment, in the order of creation.
func (s *Server) Runs(experiment string) []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Run
	for _, r := range s.runs {
		for _, e := range s.experiments {
			if e.ID == r.Experiment && e.Name == experiment {
				c := *r
				c.Metrics = slices.Clone(r.Metrics)
				c.Params, c.Tags = clone(r.Params), clone(r.Tags)
				out = append(out, c)
			}
		}
	}
	return out
}

// clone keeps a test's copy from changing while calls go on.
func clone(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Experiments returns all experiments.
func (s *Server) Experiments() []Experiment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Experiment
	for _, e := range s.experiments {
		out = append(out, *e)
	}
	return out
}

// DeleteExperiment puts one into the trash.
func (s *Server) DeleteExperiment(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.experiments {
		if e.Name == name {
			e.Stage = "deleted"
		}
	}
}

// RestoreExperiment takes one out of the trash.
func (s *Server) RestoreExperiment(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.experiments {
		if e.Name == name {
			e.Stage = "active"
		}
	}
}

// DeleteRun puts one into the trash.
func (s *Server) DeleteRun(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		if r.ID == id {
			r.Stage = "deleted"
		}
	}
}

// Artifact returns what was uploaded to a path below the artifacts' root.
func (s *Server) Artifact(path string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.artifacts[path]
	return b, ok
}

// apiError is an error as MLflow answers it.
type apiError struct {
	status        int
	Code, Message string
}

// invalid is what the client must not cause: the server counts it as a problem of the test.
func invalid(format string, a ...any) *apiError {
	return &apiError{http.StatusBadRequest, "INVALID_PARAMETER_VALUE", fmt.Sprintf(format, a...)}
}

// missing is an answer that a client has to reckon with.
func missing(format string, a ...any) *apiError {
	return &apiError{http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST", fmt.Sprintf(format, a...)}
}

// ServeHTTP is one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, isAPI := strings.CutPrefix(r.URL.Path, "/api/2.0/mlflow/")
	if !isAPI {
		name = "artifact"
	}
	n := s.calls[name]
	s.calls[name]++
	fault := None
	if s.fault != nil {
		fault = s.fault(name, n)
	}
	switch fault {
	case Unavailable:
		http.Error(w, "<html>503 Service Temporarily Unavailable</html>", http.StatusServiceUnavailable)
		return
	case LoseRequest:
		panic(http.ErrAbortHandler)
	case NotJSON:
		fmt.Fprint(w, "<html>please log in</html>")
		return
	}
	user, password, _ := r.BasicAuth()
	if s.User != "" && (user != s.User || password != s.Password) || s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, "You are not authenticated.")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var out any
	var bad *apiError
	if isAPI && fault == Overtaken {
		s.api(name, r, body, false)
	}
	if isAPI {
		out, bad = s.api(name, r, body, fault == Half)
	} else {
		bad = s.artifact(r, body)
	}
	switch {
	case fault == LoseAnswer:
		panic(http.ErrAbortHandler)
	case bad != nil:
		if bad.status == http.StatusBadRequest && bad.Code == "INVALID_PARAMETER_VALUE" {
			s.problems = append(s.problems, name+": "+bad.Message)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(bad.status)
		json.NewEncoder(w).Encode(map[string]string{"error_code": bad.Code, "message": bad.Message})
	default:
		w.Header().Set("Content-Type", "application/json")
		if out == nil {
			out = struct{}{}
		}
		json.NewEncoder(w).Encode(out)
	}
}

// artifact takes an upload, and replaces an earlier one.
func (s *Server) artifact(r *http.Request, body []byte) *apiError {
	where, ok := strings.CutPrefix(r.URL.Path, "/api/2.0/mlflow-artifacts/artifacts/")
	if !ok || r.Method != http.MethodPut {
		return &apiError{http.StatusNotFound, "", "no such endpoint: " + r.Method + " " + r.URL.Path}
	}
	if path.Clean(where) != where || strings.HasPrefix(where, "..") {
		return invalid("Invalid path: %s", where)
	}
	s.artifacts[where] = body
	return nil
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
