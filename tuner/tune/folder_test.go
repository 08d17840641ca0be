package tune

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"time"

	"atelier/tuner/session"

	"atelier/common/dataset"
)

// A part of the images is the same each time, another with another seed, and
// no larger than asked for; all classes are in it.
func TestSubset(t *testing.T) {
	var files []string
	for i := range 100 {
		files = append(files, fmt.Sprintf("gothic/%03d.png", i))
	}
	a, b := pick(files, 10, "1"), pick(files, 10, "1")
	if len(a) != 10 || !slices.Equal(a, b) {
		t.Error(a, b)
	}
	if slices.Equal(a, pick(files, 10, "2")) {
		t.Error("another seed picks the same")
	}
	// One more image changes at most one place.
	same := 0
	for _, f := range pick(append(files, "gothic/new.png"), 10, "1") {
		if slices.Contains(a, f) {
			same++
		}
	}
	if same < 9 || len(pick(files[:3], 10, "1")) != 3 {
		t.Errorf("%d of 10 stay", same)
	}
	from := t.TempDir()
	for i := range 6 {
		for _, class := range []string{"gothic", "tudor"} {
			path := filepath.Join(from, class, fmt.Sprintf("%d.png", i))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte{1}, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := dataset.List(from)
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{Config: New(), Folder: t.TempDir(), train: list, valid: list, subset: [2]int{4, 0}}
	for range 2 { // again over what an earlier try left
		if err := p.makeSubsets(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := dataset.List(p.subsetDir("train"))
	if err != nil || len(got.Files) != 8 || len(got.Classes) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Stat(p.subsetDir("validation")); err == nil {
		t.Error("a folder was made for all images")
	}
}

func hold(t *testing.T, dir string) folder {
	t.Helper()
	f, err := session.Hold(kind, dir)
	if err != nil {
		t.Fatal(err)
	}
	return folder{f}
}

// The newest tuning that has not ended is resumed, with its settings.
func TestResumeFindsTheNewest(t *testing.T) {
	base := t.TempDir()
	if _, err := Resume("", base, 0, New()); err == nil || !strings.Contains(err.Error(), "no unfinished tuning below") {
		t.Error(err)
	}
	for i, x := range []struct{ name, status string }{{"vanilla/random", "running"}, {"resnet18/bayesian", "running"}, {"resnet18/genetic", "finished"}, {"resnet18/grid_search", "cancelled"}} {
		f := hold(t, filepath.Join(base, "checkpoints_tuning", x.name))
		s := &saved{Head: session.NewHead(base), RequestID: strings.Repeat("ab", 16), Sweep: fmt.Sprint("s-", i), Status: x.status, Values: map[string]any{KeyModel: "vanilla", KeyTrials: 7, "grid_points": 3, KeyPlots: false}, spec: []byte("name: x\n")}
		if err := f.save(s); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Hold(kind, f.Dir); err == nil || !strings.Contains(err.Error(), "another tuning") {
			t.Error("held twice:", err)
		}
		f.Release()
		when := time.Unix(1_700_000_000+int64(i), 0)
		if err := os.Chtimes(f.InResume(session.RunFile), when, when); err != nil {
			t.Fatal(err)
		}
	}
	c := New()
	r, err := Resume("", base, 0, c)
	if err != nil || r.Sweep != "s-1" || c.Bool(KeyPlots) || c.Float(KeyTrials) != 7 || c.String(KeyModel) != "vanilla" {
		t.Errorf("%+v, %v, %v", r, err, c.Get(KeyTrials))
	}
	if r, err := Resume(filepath.Join(base, "checkpoints_tuning/vanilla/random/resume"), base, 0, New()); err != nil || r.Sweep != "s-0" {
		t.Error(r, err)
	}
	if _, err := Resume(filepath.Join(base, "checkpoints_tuning/resnet18/genetic"), base, 0, New()); err == nil || !strings.Contains(err.Error(), "has ended (finished)") {
		t.Error(err)
	}
	if _, err := Resume(filepath.Join(base, "checkpoints_tuning/resnet18/genetic"), base, 9, New()); err == nil || !strings.Contains(err.Error(), "data of the tuning") {
		t.Error(err)
	}
	if _, err := Resume(filepath.Join(base, "checkpoints_tuning/resnet18/grid_search"), base, 9, New()); err == nil || !strings.Contains(err.Error(), "was cancelled: it cannot continue") {
		t.Error(err)
	}
	training := filepath.Join(base, "checkpoints/vanilla", session.ResumeDir)
	if err := os.MkdirAll(training, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(training, session.RunFile), []byte(`{"format":1,"values":["of another kind"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Resume(filepath.Dir(training), base, 0, New()); err == nil || !strings.Contains(err.Error(), "is not that of a tuning") {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(base, "checkpoints_tuning/resnet18/genetic/resume/cluster/c1"), 0o755); err != nil {
		t.Fatal(err)
	}
	c = New()
	if r, err := Resume(filepath.Join(base, "checkpoints_tuning/resnet18/genetic"), base, 9, c); err != nil || r.Plan(c).trials != 9 || c.Float(KeyTrials) != 9 {
		t.Error(r, err)
	}
	f := hold(t, filepath.Join(base, "checkpoints_tuning/vanilla/random"))
	defer f.Release()
	if err := os.WriteFile(f.Path("notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(false); err == nil || !strings.Contains(err.Error(), "has not ended: --resume") {
		t.Error(err)
	}
	if err := f.Begin(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.InResume(session.RunFile)); err == nil {
		t.Error("the old tuning is still there")
	}
	// It is kept until a trial of the new one has a value, and back where nothing came of that.
	old := filepath.Join(f.Dir, session.ReplacedDir, session.ResumeDir, session.RunFile)
	if _, err := os.Stat(old); err != nil {
		t.Error(err)
	}
	(&tuning{folder: f, result: &Result{}}).giveBack()
	if s, err := f.saved(); err != nil || s.Sweep != "s-0" {
		t.Errorf("not given back: %+v %v", s, err)
	}
	if err := f.Begin(true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.InResume(specFile), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(true); err != nil { // killed before anything came of it
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Error("lost by a second --overwrite:", err)
	}
	if err := f.DropReplaced(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(f.Dir, session.ReplacedDir)); err == nil {
		t.Error("the earlier tuning is still kept though the new one has a value")
	}
	if _, err := os.Stat(f.Path("notes.txt")); err != nil {
		t.Error("what is not ours was removed:", err)
	}
}

// A folder of a build of before is understood.
func TestEarlierFolder(t *testing.T) {
	dir := t.TempDir()
	text := `{"format": 1, "base_dir": "/data", "request_id": "0123456789abcdef0123456789abcdef", "sweep": "s-k3v9q2ma", "addresses": "10.0.0.5:7600", "status": "running", "values": {"trials": 7, "plots": false}}`
	if err := os.Mkdir(filepath.Join(dir, "resume"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{"run.json": text, "spec.yaml": "name: x\n"} {
		if err := os.WriteFile(filepath.Join(dir, "resume", name), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := New()
	r, err := Resume(filepath.Join(dir, "resume", "run.json"), "", 0, c)
	if err != nil || r.Folder != dir || r.Base != "/data" || r.Sweep != "s-k3v9q2ma" || r.Addresses != "10.0.0.5:7600" || c.Float(KeyTrials) != 7 || c.Bool(KeyPlots) {
		t.Fatalf("%+v %v", r, err)
	}
	if s := r.Plan(c).again; s.RequestID != "0123456789abcdef0123456789abcdef" || string(s.spec) != "name: x\n" {
		t.Errorf("%+v", s)
	}
}

func FuzzSaved(f *testing.F) {
	b, err := json.Marshal(&saved{Head: session.NewHead(""), RequestID: strings.Repeat("ab", 16), Values: map[string]any{KeyTrials: 3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"request_id":"0123456789abcdef","values":{"trials":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s saved
		if err := session.Decode(b, &s); err == nil && s.check() == nil && (s.Format != 1 || len(s.RequestID) < 16) {
			t.Errorf("taken: %+v", s)
		}
	})
}
