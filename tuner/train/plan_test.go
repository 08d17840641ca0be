package train_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/train"
)

// The keys are the trainer's, with its defaults.
func TestKeysAreTheTrainers(t *testing.T) {
	base := folders(t)
	c := train.New()
	for part, dir := range map[string]string{"train": "data/train", "validation": "data/validation"} {
		if err := c.Set("data."+part, dir, setting.Flag, "--"+part); err != nil {
			t.Fatal(err)
		}
	}
	p, err := train.NewPlan(c, base, "", false)
	if err != nil {
		t.Fatal(err)
	}
	want, err := settings.Parse([]byte(`{"data":{"train":"data/train","validation":"data/validation"}}`), nil, base)
	want.Seed = 42 // the command leaves none to chance
	if err != nil || p.Settings != want {
		t.Errorf("defaults %+v\nthe trainer's %+v, %v", p.Settings, want, err)
	}
	for _, key := range settings.Table.Names() {
		if c.Get(key).Key == "" || len(c.Table) < 40 {
			t.Errorf("no key %s", key)
		}
	}
	if p.Folder != filepath.Join(base, "checkpoints/resnet18_ep10_bs32_lr0.001") || p.Seed != 42 {
		t.Errorf("folder %s, seed %d", p.Folder, p.Seed)
	}
	if len(p.Notes) != 0 || len(p.Data) != 2 {
		t.Errorf("a default test folder that is not there says nothing: %q", p.Notes)
	}
}

func TestFolderName(t *testing.T) {
	s := settings.Default()
	for lr, want := range map[float64]string{0.001: "lr0.001", 1e-5: "lr1e-05", 0.1: "lr0.1", 1: "lr1"} {
		s.LR = lr
		if got := train.FolderName(s); got != "resnet18_ep10_bs32_"+want {
			t.Errorf("%g: %s", lr, got)
		}
	}
}

func TestFaultsBeforeAnythingStarts(t *testing.T) {
	base := folders(t)
	if err := os.MkdirAll(filepath.Join(base, "data/empty/gothic"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(base, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(base, "one/gothic"), os.DirFS(filepath.Join(base, "data/train/gothic"))); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ pair, want string }{
		{"data.train=nosuch", "data.train (--set data.train): folder " + base + "/nosuch does not exist"},
		{"data.test=nosuch", "data.test (--set data.test): folder"},
		{"data.validation=one", `classes differ: ` + base + `/data/train has "tudor"`},
		{"data.validation=data/empty", `data.validation (--set data.validation): `},
		{"min_lr=0.5", "min_lr 0.5 is above lr 0.001"},
		{"warmup_epochs=9", "warmup_epochs 9 leaves none of 5 epochs"},
	} {
		if _, err := train.NewPlan(configure(t, x.pair), base, "", false); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.pair, err, x.want)
		}
	}
}

func TestResumeRefuses(t *testing.T) {
	base := folders(t)
	r, err := local(t, t.Context(), plan(t, base), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(t.TempDir(), "m.pth")
	if err := os.Rename(filepath.Join(r.Folder, "best_model.pth"), model); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "x.pth")
	if err := os.WriteFile(text, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{base: "has no training in it", base + "/nosuch": "no such file", model: "it is not a training checkpoint", text: "x.pth"} {
		if _, err := train.Resume(path, train.New()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestTrainerIsFoundOrSaid(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := train.FindTrainer(""); err == nil || !strings.Contains(err.Error(), "make trainer") {
		t.Error(err)
	}
	if _, err := train.FindTrainer("/nosuch/trainer"); err == nil {
		t.Error("a trainer that is not there was found")
	}
}
