package mlflow_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
)

// quick are waits for tests.
func quick(t *testing.T, said *notes) mlflow.Options {
	return mlflow.Options{Buffer: t.TempDir(), User: "ada", Notify: said.tell, Flush: 5 * time.Millisecond, Settle: 20 * time.Millisecond, Backoff: 5 * time.Millisecond}
}

func left(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

func TestRESTStory(t *testing.T) {
	server := mlflowtest.New(t)
	said := &notes{}
	o := quick(t, said)
	artifact := filepath.Join(t.TempDir(), "a curve.png")
	must(t, os.WriteFile(artifact, []byte("PNG"), 0o644))
	s := open(t, server.URL, o)
	parent, child := story(t, s, "architectural-style-tuning", artifact)
	closeStore(t, s)
	runs := server.Runs("architectural-style-tuning")
	if len(runs) != 2 {
		t.Fatalf("%d runs; told: %s", len(runs), said)
	}
	p, c := runs[0], runs[1]
	if p.ID != parent.ID() || c.ID != child.ID() || p.Status != "FINISHED" || c.Status != "FAILED" || c.End != noon.Add(time.Hour).UnixMilli() || c.Start != noon.UnixMilli()+1000 || p.User != "ada" ||
		c.Tags[mlflow.TagParent] != p.ID || p.Tags["atelier.sweep"] != "s1" || p.Params["note"] != "two\nlines" || len(p.Params) != 4 || p.Name != "sweep: 12 trials" || c.Tags["mlflow.note.content"] != "naïve façade" {
		t.Errorf("%+v\n%+v", p, c)
	}
	if len(c.Metrics) != 14 || !math.IsNaN(c.Metrics[6].Value) || !math.IsInf(c.Metrics[7].Value, 1) || c.Metrics[10].Value != 5e-324 {
		t.Errorf("%+v", c.Metrics)
	}
	if b, ok := server.Artifact(c.Experiment + "/" + c.ID + "/artifacts/plots/epochs/a curve.png"); !ok || string(b) != "PNG" {
		t.Errorf("artifact %q %v", b, ok)
	}
	if said.String() != "" || len(left(t, o.Buffer)) != 0 {
		t.Errorf("told %q, left %v", said, left(t, o.Buffer))
	}

	// Reading: pages too.
	server.PageSize = 3
	s = open(t, server.URL+"/", o)
	ctx := context.Background()
	h, err := s.History(ctx, c.ID, "val_loss")
	if err != nil || len(h) != 11 || h[3].Value != 123456.789 || h[3].Step != 4 || !math.IsNaN(h[6].Value) || h[0].TimeMS != noon.UnixMilli() {
		t.Errorf("%v, %v", h, err)
	}
	nested, err := s.FindRuns(ctx, "architectural-style-tuning", map[string]string{mlflow.TagParent: p.ID})
	if err != nil || len(nested) != 1 || nested[0].Status != mlflow.Failed || nested[0].EndMS != c.End {
		t.Errorf("%+v, %v", nested, err)
	}
	if r, err := s.FindRuns(ctx, "no such experiment", nil); err != nil || len(r) != 0 {
		t.Errorf("%v, %v", r, err)
	}
	if got, err := s.Params(ctx, p.ID); err != nil || got["search/method"] != "bayesian" {
		t.Errorf("%v, %v", got, err)
	}
	if a, err := s.Artifacts(ctx, c.ID, "plots/epochs"); err != nil || len(a) != 1 || a[0] != "a curve.png" {
		t.Errorf("%v, %v", a, err)
	}
	if _, err := s.Params(ctx, strings.Repeat("0", 32)); !errors.Is(err, mlflow.ErrNotFound) {
		t.Errorf("%v", err)
	}

	// Going on with a run.
	again, err := s.StartRun(ctx, mlflow.RunSpec{RunID: p.ID})
	must(t, err)
	must(t, again.Metric("best", 1, 1, noon))
	closeStore(t, s)
	if r := server.Runs("architectural-style-tuning")[0]; r.Status != "RUNNING" || r.End != 0 || len(r.Metrics) != 1 {
		t.Errorf("%+v", r)
	}
}

// once checks that every metric from 0 to n-1 is there, in order, and once.
func once(t *testing.T, r mlflowtest.Run, n int) {
	t.Helper()
	at := map[int64]int{}
	for i, m := range r.Metrics {
		if _, twice := at[m.Step]; twice {
			t.Fatalf("step %d is there twice", m.Step)
		}
		at[m.Step] = i
		if m.Value != float64(m.Step)/3 {
			t.Fatalf("step %d has the value %v", m.Step, m.Value)
		}
	}
	if len(at) != n {
		t.Fatalf("%d values of %d", len(at), n)
	}
	for step := range int64(n) {
		if _, ok := at[step]; !ok {
			t.Fatalf("step %d is missing", step)
		}
	}
}

// Whatever befalls the calls, every metric arrives once.
func TestRESTEveryFault(t *testing.T) {
	for name, fault := range map[string]mlflowtest.Fault{"unavailable": mlflowtest.Unavailable, "answer lost": mlflowtest.LoseAnswer, "request lost": mlflowtest.LoseRequest,
		"half written": mlflowtest.Half, "not JSON": mlflowtest.NotJSON} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := mlflowtest.New(t)
			random := rand.New(rand.NewPCG(7, uint64(fault)))
			faults := 0
			server.Fault(func(call string, n int) mlflowtest.Fault {
				if (random.IntN(2) == 0 || n == 0) && (fault != mlflowtest.Half || call == "runs/log-batch") {
					faults++
					return fault
				}
				return mlflowtest.None
			})
			said := &notes{}
			o := quick(t, said)
			s := open(t, server.URL, o)
			file := filepath.Join(t.TempDir(), "f")
			must(t, os.WriteFile(file, []byte("x"), 0o644))
			parent, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "parent"})
			must(t, err)
			child, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "child", Parent: parent})
			must(t, err)
			const n = 2500
			for i := range n {
				must(t, child.Metric(fmt.Sprintf("m%d", i%3), float64(i)/3, int64(i), noon))
				if i%500 == 0 {
					must(t, child.Params(map[string]string{fmt.Sprintf("p%d", i): "x"}))
				}
			}
			must(t, child.Artifact(file, ""), child.End(mlflow.Finished, noon), parent.End(mlflow.Finished, noon))
			// What a closing store gives up, the next one takes up.
			for range 50 {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				err = s.Close(ctx)
				cancel()
				if err == nil {
					break
				}
				s = open(t, server.URL, o)
			}
			must(t, err)
			runs := server.Runs("e")
			if len(runs) != 2 || runs[1].Name != "child" || runs[1].Tags[mlflow.TagParent] != runs[0].ID {
				t.Fatalf("%d runs: %+v", len(runs), runs)
			}
			once(t, runs[1], n)
			if len(runs[1].Params) != 5 || runs[1].Status != "FINISHED" || runs[0].Status != "FINISHED" {
				t.Errorf("%+v", runs[1])
			}
			if _, ok := server.Artifact(runs[1].Experiment + "/" + runs[1].ID + "/artifacts/f"); !ok {
				t.Error("the artifact is missing")
			}
			if l := left(t, o.Buffer); len(l) != 0 || faults == 0 {
				t.Errorf("left %v after %d faults", l, faults)
			}
			if !strings.Contains(said.String(), "are buffered meanwhile") {
				t.Errorf("told: %s", said)
			}
		})
	}
}

// A server that is away from the start: nothing waits for it, and what was said
// comes when it is there, from this process or the next.
func TestRESTServerAway(t *testing.T) {
	server := mlflowtest.New(t)
	server.Stop()
	said := &notes{}
	o := quick(t, said)
	s := open(t, server.URL, o)
	if _, err := s.Experiment(context.Background(), "e"); !errors.Is(err, mlflow.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	parent, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "parent"})
	must(t, err)
	child, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "child", Parent: parent})
	must(t, err)
	for i := range 30 {
		must(t, child.Metric("m", float64(i)/3, int64(i), noon))
	}
	must(t, child.End(mlflow.Finished, noon), parent.End(mlflow.Finished, noon))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	err = s.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "32 entries wait in") && !strings.Contains(err.Error(), "31 entries wait in") || ctx.Err() != nil {
		t.Fatalf("%v", err)
	}
	if child.ID() != "" || strings.Count(said.String(), "are buffered meanwhile") > 2 {
		t.Errorf("id %q, told: %s", child.ID(), said)
	}
	if l := left(t, o.Buffer); len(l) != 2 {
		t.Fatalf("left %v", l)
	}
	server.Start()
	s = open(t, server.URL, o)
	closeStore(t, s)
	runs := server.Runs("e")
	if len(runs) != 2 {
		t.Fatalf("%+v", runs)
	}
	if runs[1].Tags[mlflow.TagParent] != runs[0].ID {
		t.Errorf("%+v", runs)
	}
	once(t, runs[1], 30)
	if len(left(t, o.Buffer)) != 0 {
		t.Errorf("left %v", left(t, o.Buffer))
	}
}

// A child whose parent's journal was delivered by somebody else finds the parent.
func TestRESTChildAlone(t *testing.T) {
	server := mlflowtest.New(t)
	server.Stop()
	o := quick(t, &notes{})
	s := open(t, server.URL, o)
	parent, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "parent"})
	must(t, err)
	child, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "child", Parent: parent})
	must(t, err)
	must(t, child.Metric("m", 0, 0, noon))
	if s.Close(context.Background()) == nil {
		t.Fatal("closed without a server")
	}
	// The child's journal alone is moved away, and comes back later.
	var hidden []string
	for _, f := range left(t, o.Buffer) {
		b, err := os.ReadFile(f)
		must(t, err)
		if strings.Contains(string(b), `"parent":`) {
			must(t, os.Rename(f, f+".away"))
			hidden = append(hidden, f)
		}
	}
	server.Start()
	closeStore(t, open(t, server.URL, o))
	for _, f := range hidden {
		must(t, os.Rename(f+".away", f))
	}
	closeStore(t, open(t, server.URL, o))
	if runs := server.Runs("e"); len(runs) != 2 || runs[1].Tags[mlflow.TagParent] != runs[0].ID || runs[0].Status != "KILLED" || len(runs[1].Metrics) != 1 {
		t.Errorf("%+v", runs)
	}
}

// A process that is killed while answers are lost: what it had put on disk
// arrives once, and its run does not stay RUNNING.
func TestRESTProcessKilled(t *testing.T) {
	if url := os.Getenv("MLFLOW_TEST_URL"); url != "" {
		o := quick(t, &notes{})
		o.Buffer = os.Getenv("MLFLOW_TEST_BUFFER")
		s := open(t, url, o)
		r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e", Name: "victim"})
		must(t, err)
		for i := range 1_000_000 {
			must(t, r.Metric("m", float64(i)/3, int64(i), time.Time{}))
			if i%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		return
	}
	server := mlflowtest.New(t)
	random := rand.New(rand.NewPCG(1, 2))
	server.Fault(func(call string, n int) mlflowtest.Fault {
		if call == "runs/log-batch" && random.IntN(3) == 0 {
			return mlflowtest.LoseAnswer
		}
		return mlflowtest.None
	})
	said := &notes{}
	o := quick(t, said)
	total := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestRESTProcessKilled$")
		cmd.Env = append(os.Environ(), "MLFLOW_TEST_URL="+server.URL, "MLFLOW_TEST_BUFFER="+o.Buffer)
		must(t, cmd.Start())
		// Killed once it has sent a few batches in its own run.
		for try := 0; ; try++ {
			if runs := server.Runs("e"); len(runs) > round && len(runs[round].Metrics) > 100*(round+1) {
				break
			}
			if try > 6000 {
				t.Fatal("the child sends nothing")
			}
			time.Sleep(10 * time.Millisecond)
		}
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if l := left(t, o.Buffer); len(l) != 1 {
			t.Fatalf("left %v", l)
		}
		var err error
		for range 50 {
			if err = open(t, server.URL, o).Close(context.Background()); err == nil {
				break
			}
		}
		must(t, err)
		r := server.Runs("e")[round]
		once(t, r, len(r.Metrics))
		if r.Status != "KILLED" || r.End < r.Metrics[len(r.Metrics)-1].TimeMS {
			t.Errorf("%s at %d", r.Status, r.End)
		}
		total += len(r.Metrics)
	}
	if len(server.Runs("e")) != 3 || len(left(t, o.Buffer)) != 0 {
		t.Errorf("%d runs, left %v", len(server.Runs("e")), left(t, o.Buffer))
	}
	t.Logf("%d metrics, %d calls of log-batch, %d of get-history", total, server.Calls("runs/log-batch"), server.Calls("metrics/get-history"))
}
