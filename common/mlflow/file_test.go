package mlflow_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/mlflow"
)

var update = flag.Bool("update", false, "write golden files anew")

// notes gathers what a store tells.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) tell(s string) { n.mu.Lock(); n.lines = append(n.lines, s); n.mu.Unlock() }

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

func open(t *testing.T, uri string, o mlflow.Options) mlflow.Store {
	t.Helper()
	if o.User == "" {
		o.User = "ada"
	}
	s, err := mlflow.Open(uri, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func closeStore(t *testing.T, s mlflow.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// tree prints a folder: every file with its lines quoted, ids and the place
// itself replaced by words.
func tree(t *testing.T, root string, words *strings.Replacer) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			fmt.Fprintf(&b, "%s/\n", words.Replace(filepath.ToSlash(rel)))
			return nil
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s\n", words.Replace(filepath.ToSlash(rel)))
		for line := range strings.SplitAfterSeq(string(data), "\n") {
			if line != "" {
				fmt.Fprintf(&b, "\t%q\n", words.Replace(line))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var noon = time.UnixMilli(1_700_000_000_000)

// story writes a parent with a nested run: every kind of entry, numbers that
// are hard to print, names that need quotes.
func story(t *testing.T, s mlflow.Store, experiment string, artifact string) (parent, child *mlflow.Run) {
	t.Helper()
	ctx := context.Background()
	parent, err := s.StartRun(ctx, mlflow.RunSpec{Experiment: experiment, Name: "sweep: 12 trials", Start: noon, Tags: map[string]string{"atelier.sweep": "s1"}})
	must(t, err)
	must(t, parent.Params(map[string]string{"search/method": "bayesian", "budget": "12", "note": "two\nlines", "empty": ""}))
	child, err = s.StartRun(ctx, mlflow.RunSpec{Experiment: experiment, Name: "yes", Parent: parent, Start: noon.Add(time.Second)})
	must(t, err)
	for i, v := range []float64{0.5, 1, 1e16, 123456.789, 1e-5, 0.0001, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 5e-324} {
		must(t, child.Metric("val_loss", v, int64(i+1), noon.Add(time.Duration(i)*time.Minute)))
	}
	must(t, child.Metric("system/cpu_utilization_percentage", 37.5, 0, noon), child.Metric("gap", 1, 0, noon), child.Metric("gap", 2, 0, noon))
	must(t, child.Tag("mlflow.note.content", "naïve façade"), child.Artifact(artifact, "plots/epochs"))
	must(t, child.End(mlflow.Failed, noon.Add(time.Hour)), parent.End(mlflow.Finished, noon.Add(2*time.Hour)))
	return parent, child
}

func TestFileStoreGolden(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a b", "mlruns")
	artifact := filepath.Join(t.TempDir(), "curve.png")
	must(t, os.WriteFile(artifact, []byte("PNG\n"), 0o600))
	said := &notes{}
	s := open(t, root, mlflow.Options{Notify: said.tell})
	parent, child := story(t, s, "architectural-style-tuning", artifact)
	closeStore(t, s)
	if said.String() != "" {
		t.Errorf("told: %s", said)
	}
	id, err := s.Experiment(context.Background(), "architectural-style-tuning")
	must(t, err)
	b, err := os.ReadFile(filepath.Join(root, id, "meta.yaml"))
	must(t, err)
	created := ""
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "creation_time: "); ok {
			created = v
		}
	}
	def, err := os.ReadFile(filepath.Join(root, "0", "meta.yaml"))
	must(t, err)
	_, rest, _ := strings.Cut(string(def), "creation_time: ")
	other, _, _ := strings.Cut(rest, "\n")
	uri := "file://" + strings.ReplaceAll(root, " ", "%20")
	got := tree(t, root, strings.NewReplacer(uri, "file://ROOT", id, "EXPERIMENT", parent.ID(), "PARENT", child.ID(), "CHILD", created, "NOW", other, "NOW"))
	// The folders of runs come in the order of their random ids.
	golden := filepath.Join("testdata", "mlruns.txt")
	got = sortRunsOf(got)
	if *update {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got != string(want) {
		t.Errorf("the tree differs from %s (-update writes it):\n%s", golden, got)
	}
}

// sortRunsOf puts the lines of CHILD before those of PARENT.
func sortRunsOf(s string) string {
	var blocks []string
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "\t") {
			blocks[len(blocks)-1] += line
		} else {
			blocks = append(blocks, line)
		}
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "")
}

func TestFileStoreReadsItself(t *testing.T) {
	ctx := context.Background()
	root := filepath.Join(t.TempDir(), "mlruns")
	file := filepath.Join(t.TempDir(), "f.txt")
	must(t, os.WriteFile(file, []byte("x"), 0o644))
	s := open(t, "file://"+root, mlflow.Options{})
	parent, child := story(t, s, "e", file)
	closeStore(t, s)

	s = open(t, root, mlflow.Options{})
	nested, err := s.FindRuns(ctx, "e", map[string]string{mlflow.TagParent: parent.ID()})
	must(t, err)
	if len(nested) != 1 || nested[0].ID != child.ID() || nested[0].Status != mlflow.Failed || nested[0].Name != "yes" || nested[0].StartMS != noon.UnixMilli()+1000 {
		t.Errorf("nested: %+v", nested)
	}
	all, err := s.FindRuns(ctx, "e", nil)
	if err != nil || len(all) != 2 || all[0].ID != parent.ID() {
		t.Errorf("%+v, %v", all, err)
	}
	h, err := s.History(ctx, child.ID(), "val_loss")
	if err != nil || len(h) != 11 || h[2].Value != 1e16 || !math.IsNaN(h[6].Value) || !math.IsInf(h[8].Value, -1) || !math.Signbit(h[9].Value) || h[10].Value != 5e-324 || h[10].Step != 11 {
		t.Errorf("%v, %v", h, err)
	}
	// Two values of one millisecond are told apart.
	if h, err = s.History(ctx, child.ID(), "gap"); err != nil || len(h) != 2 || h[1].TimeMS != h[0].TimeMS+1 {
		t.Errorf("%v, %v", h, err)
	}
	p, err := s.Params(ctx, parent.ID())
	if err != nil || len(p) != 4 || p["search/method"] != "bayesian" || p["note"] != "two\nlines" {
		t.Errorf("%v, %v", p, err)
	}
	if a, err := s.Artifacts(ctx, child.ID(), "plots/epochs"); err != nil || len(a) != 1 || a[0] != "f.txt" {
		t.Errorf("%v, %v", a, err)
	}

	// Going on with a run: it is running again, what was said stays, a parameter too.
	said := &notes{}
	s = open(t, root, mlflow.Options{Notify: said.tell})
	again, err := s.StartRun(ctx, mlflow.RunSpec{RunID: parent.ID()})
	must(t, err)
	must(t, again.Metric("best", 1, 1, noon), again.Params(map[string]string{"budget": "13"}))
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), `"12" already`) {
		t.Errorf("a changed parameter: %v", err)
	}
	if r, _ := s.FindRuns(ctx, "e", map[string]string{"atelier.sweep": "s1"}); len(r) != 1 || r[0].Status != mlflow.Running || r[0].EndMS != 0 {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(said.String(), "does not change parameters") {
		t.Errorf("told: %s", said)
	}
	if _, err := s.StartRun(ctx, mlflow.RunSpec{RunID: strings.Repeat("0", 32)}); !errors.Is(err, mlflow.ErrNotFound) {
		t.Errorf("a run that is not there: %v", err)
	}
}

// Experiments made by several processes and goroutines at once are one.
func TestFileStoreRace(t *testing.T) {
	if root := os.Getenv("MLFLOW_TEST_ROOT"); root != "" {
		s := open(t, root, mlflow.Options{})
		for i := range 5 {
			id, err := s.Experiment(context.Background(), fmt.Sprintf("e%d", i))
			must(t, err)
			fmt.Printf("id e%d %s\n", i, id)
		}
		r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e0"})
		must(t, err)
		must(t, r.End(mlflow.Finished, time.Time{}))
		closeStore(t, s)
		return
	}
	root := filepath.Join(t.TempDir(), "mlruns")
	var wg sync.WaitGroup
	outs := make([][]byte, 6)
	for i := range outs {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestFileStoreRace$", "-test.v")
			cmd.Env = append(os.Environ(), "MLFLOW_TEST_ROOT="+root)
			b, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, b)
			}
			outs[i] = b
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, o := range outs {
		for line := range bytes.Lines(o) {
			if bytes.HasPrefix(line, []byte("id ")) {
				ids[string(line)] = true
			}
		}
	}
	if len(ids) != 5 {
		t.Errorf("%d experiments for 5 names: %v", len(ids), ids)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "*", "meta.yaml"))
	if err != nil || len(dirs) != 6 { // Default beside them
		t.Errorf("%v %v", dirs, err)
	}
	s := open(t, root, mlflow.Options{})
	if r, err := s.FindRuns(context.Background(), "e0", nil); err != nil || len(r) != len(outs) {
		t.Errorf("%d runs, %v", len(r), err)
	}
}

func TestBadNames(t *testing.T) {
	s := open(t, t.TempDir(), mlflow.Options{})
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	for _, tc := range []struct{ key, err string }{
		{"", "needs a name"}, {"a:b", "letters, digits"}, {"../x", "as a path"}, {"a//b", "as a path"}, {"/a", "as a path"}, {"a/../../b", "as a path"}, {".", "as a path"},
		{"a\x00", "letters"}, {"a\xff", "UTF-8"}, {strings.Repeat("ä", 251), "251 characters"},
	} {
		for what, err := range map[string]error{"metric": r.Metric(tc.key, 1, 1, noon), "parameter": r.Params(map[string]string{tc.key: "x"}), "tag": r.Tag(tc.key, "x")} {
			if err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), what) {
				t.Errorf("%s %q: %v, want %q", what, tc.key, err, tc.err)
			}
		}
		if k := mlflow.Key(tc.key); mlflow.CheckKey("metric", k) != nil {
			t.Errorf("Key(%q) = %q: %v", tc.key, k, mlflow.CheckKey("metric", k))
		}
	}
	must(t, r.Metric("über/val loss-1.0_x", 1, 1, noon), r.Params(map[string]string{"lr": "1"}), r.Params(map[string]string{"lr": "1"}))
	if err := r.Params(map[string]string{"lr": "2"}); err == nil || !strings.Contains(err.Error(), "cannot become") {
		t.Errorf("%v", err)
	}
	if err := r.Artifact(filepath.Join(t.TempDir(), "none"), ""); err == nil {
		t.Error("an artifact that is not there")
	}
	if err := r.Artifact(os.Args[0], "../up"); err == nil {
		t.Error("an artifact outside")
	}
	must(t, r.End(mlflow.Finished, noon))
	if err := r.Metric("x", 1, 1, noon); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%v", err)
	}
	closeStore(t, s)
	for uri, want := range map[string]string{"sqlite:///mlflow.db": "mlflow server", "databricks": "", "http://": "not an address", "file://host/x": "file:///FOLDER"} {
		if _, err := mlflow.Open(uri, mlflow.Options{Dir: t.TempDir()}); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	said := &notes{}
	s := open(t, t.TempDir(), mlflow.Options{Notify: said.tell})
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	must(t, r.Params(map[string]string{"p": strings.Repeat("é", 6001)}), r.Tag("t", strings.Repeat("é", 5001)))
	closeStore(t, s)
	p, err := s.Params(context.Background(), r.ID())
	if err != nil || p["p"] != strings.Repeat("é", 6000) {
		t.Errorf("%d bytes, %v", len(p["p"]), err)
	}
	runs, err := s.FindRuns(context.Background(), "e", nil)
	if err != nil || len(runs) != 1 || runs[0].Tags["t"] != strings.Repeat("é", 5000) {
		t.Errorf("%v", err)
	}
	for range 3000 { // told from other goroutines
		if strings.Count(said.String(), "are kept") == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("told: %s", said)
}

// A disk that refuses for a while loses nothing, and nothing fails.
func TestFileStoreOutage(t *testing.T) {
	root := t.TempDir()
	said := &notes{}
	s := open(t, root, mlflow.Options{Notify: said.tell, Flush: 10 * time.Millisecond})
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	id, err := s.Experiment(context.Background(), "e")
	must(t, err)
	metrics := filepath.Join(root, id, r.ID(), "metrics")
	must(t, os.Remove(metrics), os.WriteFile(metrics, nil, 0o644)) // a file where the folder should be
	for i := range 10 {
		must(t, r.Metric("a", float64(i), int64(i), noon))
	}
	for range 3000 {
		if said.String() != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := strings.Count(said.String(), "\n"); said.String() == "" || n > 0 {
		t.Errorf("told: %s", said)
	}
	must(t, os.Remove(metrics), os.Mkdir(metrics, 0o755))
	must(t, r.Metric("a", 10, 10, noon), r.End(mlflow.Finished, noon))
	closeStore(t, s)
	h, err := s.History(context.Background(), r.ID(), "a")
	if err != nil || len(h) != 11 {
		t.Fatalf("%d values, %v", len(h), err)
	}
	for i, p := range h {
		if p.Step != int64(i) {
			t.Errorf("value %d is of step %d", i, p.Step)
		}
	}
}

func TestDroppingIsTold(t *testing.T) {
	said := &notes{}
	s := open(t, t.TempDir(), mlflow.Options{Notify: said.tell, Flush: time.Hour, Pending: 10})
	r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
	must(t, err)
	for i := range 25 {
		must(t, r.Metric("a", 1, int64(i), noon))
	}
	must(t, r.Params(map[string]string{"kept": "always"}))
	if err := s.Close(context.Background()); err == nil || !strings.Contains(err.Error(), "15 metrics were dropped") {
		t.Errorf("%v", err)
	}
	if h, _ := s.History(context.Background(), r.ID(), "a"); len(h) != 10 {
		t.Errorf("%d kept", len(h))
	}
	if p, _ := s.Params(context.Background(), r.ID()); p["kept"] != "always" {
		t.Errorf("%v", p)
	}
}

func TestHint(t *testing.T) {
	dir := t.TempDir()
	s := open(t, "", mlflow.Options{Dir: dir})
	want := []string{"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri ./mlruns", "mlflow migrate-filestore --source ./mlruns --target sqlite:///mlflow.db"}
	if got := s.Hint(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	s = open(t, "/tmp/a b", mlflow.Options{Dir: dir})
	if got := s.Hint()[0]; !strings.HasSuffix(got, "'/tmp/a b'") {
		t.Errorf("%q", got)
	}
}
