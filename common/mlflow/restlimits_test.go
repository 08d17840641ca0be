package mlflow_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
)

// Everything goes out within the limits; the server checks each call.
func TestRESTLimits(t *testing.T) {
	server := mlflowtest.New(t)
	said := &notes{}
	s := open(t, server.URL, quick(t, said))
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	params := map[string]string{}
	for i := range 250 {
		params[fmt.Sprintf("p%d", i)] = strings.Repeat("\u0001ä\"", 2000)
	}
	must(t, r.Params(params))
	long := strings.Repeat("ключ/", 49) + "k"
	for i := range 20000 {
		must(t, r.Metric(long, float64(i)/3, int64(i), noon))
		if i%40 == 0 {
			must(t, r.Tag(fmt.Sprintf("t%d", i), strings.Repeat("y", 5000)))
		}
	}
	must(t, r.End(mlflow.Finished, noon))
	closeStore(t, s)
	run := server.Runs("e")[0]
	once(t, run, 20000)
	if len(run.Params) != 250 || len(run.Tags) < 500 || said.String() != "" {
		t.Errorf("%d params, %d tags, told %s", len(run.Params), len(run.Tags), said)
	}
	if n := server.Calls("metrics/get-history"); n != 0 {
		t.Errorf("the history was read %d times without need", n)
	}
}

// What a server refuses is found, told and left out; the rest arrives.
func TestRESTRefusals(t *testing.T) {
	server := mlflowtest.New(t)
	server.MaxParam = 500
	said := &notes{}
	s := open(t, server.URL, quick(t, said))
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	for i := range 100 {
		must(t, r.Metric("m", float64(i)/3, int64(i), noon))
		if i == 50 {
			must(t, r.Params(map[string]string{"long": strings.Repeat("x", 501), "short": "x"}))
		}
	}
	must(t, r.End(mlflow.Finished, noon))
	err = s.Close(context.Background())
	if err == nil || !strings.Contains(err.Error(), "1 entries were dropped") || !strings.Contains(said.String(), "parameter long was refused") {
		t.Errorf("%v; told %s", err, said)
	}
	run := server.Runs("e")[0]
	once(t, run, 100)
	if len(run.Params) != 1 || run.Status != "FINISHED" || len(server.Problems()) == 0 {
		t.Errorf("%+v", run)
	}
}

func TestRESTDeleted(t *testing.T) {
	server := mlflowtest.New(t)
	said := &notes{}
	o := quick(t, said)
	s := open(t, server.URL, o)
	ctx := context.Background()
	_, err := s.Experiment(ctx, "e")
	must(t, err)
	closeStore(t, s)
	server.DeleteExperiment("e")
	s = open(t, server.URL, o)
	if _, err := s.Experiment(ctx, "e"); !errors.Is(err, mlflow.ErrDeleted) || !strings.Contains(err.Error(), "mlflow experiments restore") {
		t.Errorf("%v", err)
	}
	r, err := s.StartRun(ctx, mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	must(t, r.Metric("m", 0, 0, noon), r.End(mlflow.Finished, noon))
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "restore") {
		t.Errorf("%v", err)
	}
	server.RestoreExperiment("e")
	closeStore(t, open(t, server.URL, o))
	if runs := server.Runs("e"); len(runs) != 1 || len(runs[0].Metrics) != 1 {
		t.Fatalf("%+v", runs)
	}

	// A run deleted under way is given up, and its entries are put aside.
	s = open(t, server.URL, o)
	r, err = s.StartRun(ctx, mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	for range 3000 {
		if r.ID() != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	server.DeleteRun(r.ID())
	must(t, r.Metric("m", 0, 0, noon), r.Params(map[string]string{"a": "b"}))
	if err := s.Close(ctx); !errors.Is(err, mlflow.ErrDeleted) || !strings.Contains(err.Error(), ".refused") {
		t.Errorf("%v", err)
	}
	server.Problems()
	closeStore(t, open(t, server.URL, o))
}

func TestRESTExperimentRace(t *testing.T) {
	server := mlflowtest.New(t)
	server.Fault(func(call string, n int) mlflowtest.Fault {
		if call == "experiments/create" && n == 0 {
			return mlflowtest.Overtaken
		}
		return mlflowtest.None
	})
	s := open(t, server.URL, quick(t, &notes{}))
	id, err := s.Experiment(context.Background(), "e")
	if err != nil || id != "1" || len(server.Experiments()) != 2 {
		t.Errorf("%s, %v, %v", id, err, server.Experiments())
	}
	closeStore(t, s)
}

// A server that never answers holds nobody up.
func TestRESTHangingServer(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	o := quick(t, &notes{})
	o.Timeout = time.Hour
	s := open(t, server.URL, o)
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	for i := range 10000 {
		must(t, r.Metric("m", 0, int64(i), noon))
	}
	must(t, r.Params(map[string]string{"a": "b"}), r.Tag("a", "b"), r.End(mlflow.Killed, noon))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "10003 entries wait in") {
		t.Errorf("%v", err)
	}
}

func TestRESTElsewhere(t *testing.T) {
	server := httptest.NewServer(http.RedirectHandler("https://mlflow.example/", http.StatusMovedPermanently))
	defer server.Close()
	s := open(t, server.URL, quick(t, &notes{}))
	if _, err := s.Experiment(context.Background(), "e"); err == nil || !strings.Contains(err.Error(), "another address") {
		t.Errorf("%v", err)
	}
	for root, want := range map[string]string{"s3://bucket/": "keeps artifacts at s3:", "file:///no/such/folder/": "not on this machine"} {
		said := &notes{}
		server := mlflowtest.New(t)
		server.ArtifactRoot = root
		s := open(t, server.URL, quick(t, said))
		r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
		must(t, err)
		must(t, r.Artifact(os.Args[0], ""), r.Metric("m", 0, 0, noon), r.End(mlflow.Finished, noon))
		if err := s.Close(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
		once(t, server.Runs("e")[0], 1)
	}
	// A server on this machine that keeps artifacts in a folder.
	dir := t.TempDir()
	local := mlflowtest.New(t)
	local.ArtifactRoot = "file://" + dir + "/"
	s = open(t, local.URL, quick(t, &notes{}))
	file := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(file, []byte("x"), 0o644))
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "1"), 0o755), r.Artifact(file, "sub"), r.End(mlflow.Finished, noon))
	closeStore(t, s)
	if b, err := os.ReadFile(filepath.Join(dir, "1", r.ID(), "artifacts", "sub", "f")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}
