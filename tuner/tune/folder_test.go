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

	v1 "atelier/common/proto/atelier/v1"
	"atelier/tuner/aside"

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

// The newest tuning that has not ended is resumed, with its settings.
func TestResumeFindsTheNewest(t *testing.T) {
	base := t.TempDir()
	if _, err := Resume("", base, 0, New()); err == nil || !strings.Contains(err.Error(), "no unfinished tuning below") {
		t.Error(err)
	}
	for i, x := range []struct{ name, status string }{{"vanilla/random", "running"}, {"resnet18/bayesian", "running"}, {"resnet18/genetic", "finished"}} {
		f, err := hold(filepath.Join(base, "checkpoints_tuning", x.name))
		if err != nil {
			t.Fatal(err)
		}
		s := &saved{Format: savedFormat, Base: base, RequestID: strings.Repeat("ab", 16), Sweep: fmt.Sprint("s-", i), Status: x.status, Values: map[string]any{KeyModel: "vanilla", KeyTrials: 7, "grid_points": 3, KeyPlots: false}, spec: []byte("name: x\n")}
		if err := f.save(s); err != nil {
			t.Fatal(err)
		}
		if _, err := hold(f.dir); err == nil || !strings.Contains(err.Error(), "another tuning") {
			t.Error("held twice:", err)
		}
		f.release()
		when := time.Unix(1_700_000_000+int64(i), 0)
		if err := os.Chtimes(f.resume(runFile), when, when); err != nil {
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
	if err := os.MkdirAll(filepath.Join(base, "checkpoints_tuning/resnet18/genetic/resume/cluster/c1"), 0o755); err != nil {
		t.Fatal(err)
	}
	c = New()
	if r, err := Resume(filepath.Join(base, "checkpoints_tuning/resnet18/genetic"), base, 9, c); err != nil || r.Plan(c).trials != 9 || c.Float(KeyTrials) != 9 {
		t.Error(r, err)
	}
	f, err := hold(filepath.Join(base, "checkpoints_tuning/vanilla/random"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	if err := os.WriteFile(f.path("notes.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.begin(false); err == nil || !strings.Contains(err.Error(), "has not ended: --resume") {
		t.Error(err)
	}
	if err := f.begin(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.resume(runFile)); err == nil {
		t.Error("the old tuning is still there")
	}
	// It is kept until a trial of the new one has a value, and back where nothing came of that.
	old := filepath.Join(f.dir, aside.Dir, resumeDir, runFile)
	if _, err := os.Stat(old); err != nil {
		t.Error(err)
	}
	if err := f.settle(&v1.Sweep{}); err != nil {
		t.Error(err)
	}
	(&session{folder: f, result: &Result{}}).giveBack()
	if s, err := readSaved(f.dir); err != nil || s.Sweep != "s-0" {
		t.Errorf("not given back: %+v %v", s, err)
	}
	if err := f.begin(true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.resume(specFile), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.begin(true); err != nil { // killed before anything came of it
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Error("lost by a second --overwrite:", err)
	}
	if err := f.settle(&v1.Sweep{Best: &v1.Trial{}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(f.dir, aside.Dir)); err == nil {
		t.Error("the earlier tuning is still kept though the new one has a value")
	}
	if _, err := os.Stat(f.path("notes.txt")); err != nil {
		t.Error("what is not ours was removed:", err)
	}
}

func FuzzSaved(f *testing.F) {
	b, err := json.Marshal(&saved{Format: savedFormat, RequestID: strings.Repeat("ab", 16), Values: map[string]any{KeyTrials: 3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"request_id":"0123456789abcdef","values":{"trials":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSaved(b); err == nil && (s.Format != savedFormat || len(s.RequestID) < 16) {
			t.Errorf("taken: %+v", s)
		}
	})
}
