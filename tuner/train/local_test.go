package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/setting"
	"atelier/tuner/session"
	"atelier/tuner/train"
)

// watcher notes what it is shown, and may act after an epoch.
type watcher struct {
	lines []string
	said  []string // messages of progress
	moves int
	left  time.Duration
	after func(epoch int)
}

func (w *watcher) Begin(p *train.Plan) { w.lines = append(w.lines, "begin "+p.Settings.Model) }
func (w *watcher) Progress(p train.Progress) {
	if p.Message != "" {
		w.said = append(w.said, p.Message)
	}
	if p.Epoch > 0 && p.Done > 0 && p.Done <= 1 && p.ImagesPerS == 100 {
		w.moves++
		w.left = max(w.left, p.Left)
	}
}
func (w *watcher) Members(text string) { w.lines = append(w.lines, text) }
func (w *watcher) Epoch(e train.Epoch) {
	w.lines = append(w.lines, fmt.Sprintf("epoch %d/%d best %v", e.Epoch, e.Epochs, e.Best))
	if w.after != nil {
		w.after(e.Epoch)
	}
}

func folders(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"train", "validation", "test"} {
		for i, class := range []string{"gothic", "tudor"} {
			for n := range 4 - 2*i {
				path := filepath.Join(dir, "data", part, class, fmt.Sprintf("%d.png", n))
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				f, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(png.Encode(f, image.NewRGBA(image.Rect(0, 0, 4, 4))), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return dir
}

// settings of a small training in base, with further ones.
func configure(t *testing.T, pairs ...string) *setting.Config {
	t.Helper()
	c := train.New()
	for _, pair := range append([]string{"model=vanilla", "epochs=5", "data.train=data/train", "data.validation=data/validation", "data.test=data/test", "threads=1", "mlflow.enabled=false"}, pairs...) {
		k, v, _ := strings.Cut(pair, "=")
		if err := c.SetText(k, v, setting.Flag, "--set "+k); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func plan(t *testing.T, base string, pairs ...string) *train.Plan {
	t.Helper()
	p, err := train.NewPlan(configure(t, pairs...), base, "", false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// resume plans to go on with what path names.
func resume(t *testing.T, base, path string, pairs ...string) *train.Plan {
	t.Helper()
	c := train.New()
	r, err := train.Resume(path, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range pairs {
		k, v, _ := strings.Cut(pair, "=")
		if err := c.SetText(k, v, setting.Flag, "--"+k); err != nil {
			t.Fatal(err)
		}
	}
	if r.Base != "" {
		base = r.Base
	}
	p, err := train.NewPlan(c, base, "", false)
	if err != nil {
		t.Fatal(err)
	}
	p.From(r)
	return p
}

func local(t *testing.T, ctx context.Context, p *train.Plan, fake string, w *watcher) (*train.Result, error) {
	t.Helper()
	t.Setenv("FAKE", fake)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if w == nil {
		w = &watcher{}
	}
	return train.Local(ctx, p, train.Options{Trainer: self, Watch: w, Now: time.Now})
}

func weight(t *testing.T, path string) float32 {
	t.Helper()
	s, err := checkpoint.OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.Tensors[0].Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return v[0]
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestFolderOfResults(t *testing.T) {
	base := folders(t)
	w := &watcher{}
	r, err := local(t, t.Context(), plan(t, base), "", w)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "checkpoints/vanilla_ep5_bs32_lr0.001")
	if r.Folder != dir {
		t.Errorf("folder %s", r.Folder)
	}
	want := []string{"best_model.pth", "final_model.pth", "image_batches", "resume", "train_history.png", "train_history.svg", "training_diagnostics.txt", "training_history.json"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %v", got)
	}
	if got := names(t, filepath.Join(dir, "resume")); !slices.Equal(got, []string{".lock", "best.pth", "epoch-0005-run-1.pth", "run.json", "trainer.log"}) {
		t.Errorf("in resume: %v", got)
	}
	if w.moves == 0 || w.left <= 0 || len(w.lines) != 6 || w.lines[3] != "epoch 3/5 best true" || w.lines[4] != "epoch 4/5 best false" {
		t.Errorf("shown %d moves, %q", w.moves, w.lines)
	}
	b, err := os.ReadFile(filepath.Join(dir, "training_history.json"))
	if err != nil {
		t.Fatal(err)
	}
	var h map[string]any
	if err := json.Unmarshal(b, &h); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"epochs", "train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_s", "epoch_seconds"} {
		if list, _ := h[key].([]any); len(list) != 5 {
			t.Errorf("%s: %v", key, h[key])
		}
	}
	if h["best_epoch"] != 3.0 || h["best_val_loss"] != 0.5 || h["test_acc"] != 0.5 || h["status"] != "finished" || h["test_class_acc"].(map[string]any)["gothic"] != 0.75 {
		t.Errorf("history %s", b)
	}
	text, err := os.ReadFile(filepath.Join(dir, "training_diagnostics.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"best epoch   3 (val_loss 0.5,", "test         accuracy 0.5000", "gothic  4      4           4     0.7500", "lr                              0.001",
		"epochs                          5                             (--set epochs)", "(default)", "libtorch", "image skipped", "cores"} {
		if want == "libtorch" {
			want = "pretended"
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if weight(t, filepath.Join(dir, "best_model.pth")) == weight(t, filepath.Join(dir, "final_model.pth")) {
		t.Error("the best model is the last one")
	}
}

func TestResultsAreNotLostSilently(t *testing.T) {
	base := folders(t)
	if _, err := local(t, t.Context(), plan(t, base), "", nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "checkpoints/vanilla_ep5_bs32_lr0.001")
	other := filepath.Join(dir, "results/report.txt")
	if err := errors.Join(os.Mkdir(filepath.Dir(other), 0o755), os.WriteFile(other, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	before := weight(t, filepath.Join(dir, "final_model.pth"))
	var exists *session.ExistsError
	if _, err := local(t, t.Context(), plan(t, base, "seed=7"), "", nil); !errors.As(err, &exists) || exists.Text != "a training already (finished, 5 epochs)" || !exists.Resumable || !strings.Contains(err.Error(), "--overwrite") {
		t.Fatalf("a second training: %v", err)
	}
	if weight(t, filepath.Join(dir, "final_model.pth")) != before {
		t.Error("it was written to all the same")
	}
	self, _ := os.Executable()
	r, err := train.Local(t.Context(), plan(t, base, "seed=7"), train.Options{Trainer: self, Overwrite: true, Watch: &watcher{}, Now: time.Now})
	if err != nil || len(r.History.Epochs) != 5 || weight(t, filepath.Join(dir, "final_model.pth")) == before {
		t.Errorf("overwrite: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("a foreign file: %v", err)
	}
}

// What --overwrite replaces stays until the new training has a checkpoint: no
// trainer, no device, no weights, a first epoch that fails, an interruption
// before its end and a kill leave the earlier one as it was.
func TestOverwriteKeepsTheGoodModel(t *testing.T) {
	base := folders(t)
	if _, err := local(t, t.Context(), plan(t, base), "", nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "checkpoints/vanilla_ep5_bs32_lr0.001")
	files := []string{"best_model.pth", "final_model.pth", "training_history.json", "training_diagnostics.txt", "image_batches/gothic.png", "resume/run.json", "resume/best.pth", "resume/epoch-0005-run-1.pth"}
	holds := func() (all []string) {
		for _, name := range files {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Error(err)
			}
			all = append(all, string(b))
		}
		return all
	}
	before := holds()
	self, _ := os.Executable()
	over := func(ctx context.Context, fake string) (*train.Result, error) {
		t.Setenv("FAKE", fake)
		return train.Local(ctx, plan(t, base, "seed=7"), train.Options{Trainer: self, Overwrite: true, Watch: &watcher{}, Now: time.Now})
	}
	check := func(what string, r *train.Result, err error) {
		t.Helper()
		if err == nil || r == nil || !r.GaveBack {
			t.Errorf("%s: %+v %v", what, r, err)
		}
		if !slices.Equal(holds(), before) {
			t.Errorf("%s: the earlier training is not as it was", what)
		}
		if _, err := os.Stat(filepath.Join(dir, session.ReplacedDir)); err == nil {
			t.Errorf("%s: something is left aside", what)
		}
	}
	for _, fake := range []string{"mute", "device_fault@1", "bad_spec@1", "killed@1", "abort@1"} {
		r, err := over(t.Context(), fake)
		check(fake, r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := over(ctx, "")
	check("interrupted", r, err)

	// A process killed before the first checkpoint: the next one puts things right, whatever it does.
	entries := append(names(t, dir), "resume")
	for _, name := range entries {
		if name != "resume" {
			if err := errors.Join(os.MkdirAll(filepath.Join(dir, session.ReplacedDir), 0o755), os.Rename(filepath.Join(dir, name), filepath.Join(dir, session.ReplacedDir, name))); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, session.ReplacedDir, "resume"), 0o755), os.WriteFile(filepath.Join(dir, session.ReplacedDir, ".stage"), []byte("kept"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"run.json", "best.pth", "epoch-0005-run-1.pth", "trainer.log"} {
		if err := os.Rename(filepath.Join(dir, "resume", name), filepath.Join(dir, session.ReplacedDir, "resume", name)); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(filepath.Join(dir, "training_history.json"), []byte("{}"), 0o644)
	var exists *session.ExistsError
	if _, err := local(t, t.Context(), plan(t, base, "seed=7"), "", nil); !errors.As(err, &exists) || exists.Text != "a training already (finished, 5 epochs)" || !slices.Equal(holds(), before) {
		t.Errorf("after a kill: %v", err)
	}

	// One that fails after its first checkpoint has replaced it.
	if r, err := over(t.Context(), "diverged@3"); err == nil || r.GaveBack || r.History.Status != train.Diverged || len(r.History.Epochs) != 2 {
		t.Errorf("diverged: %+v %v", r, err)
	}
	if got := names(t, dir); slices.Contains(got, session.ReplacedDir) || slices.Contains(got, "final_model.pth") || !slices.Contains(got, "best_model.pth") {
		t.Errorf("files %v", got)
	}
}

// Interrupted, crashed or killed: going on gives the weights of a training
// left alone, and its history.
func TestGoingOn(t *testing.T) {
	base := folders(t)
	whole, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=whole"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, dir string) {
		t.Helper()
		for _, f := range []string{"best_model.pth", "final_model.pth"} {
			if got, want := weight(t, filepath.Join(dir, f)), weight(t, filepath.Join(whole.Folder, f)); got != want {
				t.Errorf("%s: %v, uninterrupted %v", f, got, want)
			}
		}
		h, err := train.ReadHistory(filepath.Join(dir, "training_history.json"))
		if err != nil || !slices.Equal(h.ValLoss, whole.History.ValLoss) || h.BestEpoch != 3 || h.Status != train.Finished || h.TestAcc != 0.5 {
			t.Errorf("history %+v, %v", h, err)
		}
	}
	for _, fake := range []string{"abort@1", "abort@2", "killed@4", "crashed@5"} {
		t.Run(fake, func(t *testing.T) {
			p := plan(t, base, "checkpoints_dir="+fake)
			r, err := local(t, t.Context(), p, fake, nil)
			if err == nil || r == nil {
				t.Fatal("did not fail")
			}
			if _, err := os.Stat(filepath.Join(r.Folder, "final_model.pth")); err == nil {
				t.Error("a final model of a training that did not end")
			}
			if _, err := local(t, t.Context(), resume(t, base, r.Folder), "", nil); err != nil {
				t.Fatal(err)
			}
			check(t, r.Folder)
		})
	}
	t.Run("interrupt", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := local(t, ctx, plan(t, base, "checkpoints_dir=interrupt"), "", &watcher{after: func(epoch int) {
			if epoch == 2 {
				cancel()
			}
		}})
		if !errors.Is(err, session.ErrInterrupted) || r.History.Status != train.Interrupted || !strings.HasPrefix(r.Summary(), "interrupted after epoch ") {
			t.Fatalf("%v, %s", err, r.Summary())
		}
		// By a file in the folder, too.
		if _, err := local(t, t.Context(), resume(t, base, filepath.Join(r.Folder, "training_history.json")), "", nil); err != nil {
			t.Fatal(err)
		}
		check(t, r.Folder)
	})
	// A report that was written down while its checkpoint was not, and a
	// checkpoint that was written while its report was not.
	t.Run("between report and checkpoint", func(t *testing.T) {
		r, _ := local(t, t.Context(), plan(t, base, "checkpoints_dir=between"), "abort@4", nil)
		ahead := filepath.Join(r.Folder, "resume/epoch-0004-run-1.pth")
		b, err := os.ReadFile(filepath.Join(r.Folder, "resume/epoch-0003-run-1.pth"))
		if err != nil || os.WriteFile(ahead, b, 0o644) != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(r.Folder, "resume/best.pth")) // the last session ended before it was marked
		if _, err := local(t, t.Context(), resume(t, base, r.Folder), "", nil); err != nil {
			t.Fatal(err)
		}
		check(t, r.Folder)
	})
	t.Run("further epochs", func(t *testing.T) {
		r, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=more", "epochs=2"), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := local(t, t.Context(), resume(t, base, r.Folder, "epochs=5"), "", nil); err != nil {
			t.Fatal(err)
		}
		check(t, r.Folder)
	})
	t.Run("a checkpoint from elsewhere", func(t *testing.T) {
		r, _ := local(t, t.Context(), plan(t, base, "checkpoints_dir=elsewhere"), "abort@3", nil)
		moved := filepath.Join(t.TempDir(), "pulled.pth")
		if err := os.Rename(filepath.Join(r.Folder, "resume/epoch-0002-run-1.pth"), moved); err != nil {
			t.Fatal(err)
		}
		p := resume(t, base, moved, "data.train=data/train", "data.validation=data/validation", "checkpoints_dir=again", "mlflow.enabled=false")
		if p.Settings.LR != 0.1 || p.Threads != 1 || p.Seed != 42 {
			t.Errorf("settings of the checkpoint: %+v", p)
		}
		r, err := local(t, t.Context(), p, "", nil)
		if err != nil || weight(t, filepath.Join(r.Folder, "final_model.pth")) != weight(t, filepath.Join(whole.Folder, "final_model.pth")) || r.History.Epochs[0] != 3 {
			t.Errorf("%v, %+v", err, r.History)
		}
	})
}

func TestFailures(t *testing.T) {
	base := folders(t)
	for fake, want := range map[string]struct{ status, class, hint, text string }{
		"out_of_memory@2": {train.Failed, "out_of_memory", "--batch-size (it is 32; try 16 or 8)", "went wrong in epoch 2"},
		"killed@2":        {train.Failed, "out_of_memory", "CutMix", "killed"},
		"diverged@4":      {train.Diverged, "diverged", "--lr 0.0001", "went wrong"},
		"disk_full@2":     {train.Failed, "disk_full", "free some disk space", "went wrong"},
		"abort@2":         {train.Failed, "crashed", "trainer.log", "c10::Error"},
	} {
		t.Run(fake, func(t *testing.T) {
			r, err := local(t, t.Context(), plan(t, base, "checkpoints_dir="+fake, "augmentation.cutmix.enabled=true"), fake, nil)
			var f *session.Failure
			if !errors.As(err, &f) || f.Class != want.class || !strings.Contains(f.Message, want.text) || !strings.Contains(strings.Join(f.Hints, "\n"), want.hint) {
				t.Fatalf("%+v", err)
			}
			if r.History.Status != want.status {
				t.Errorf("status %s", r.History.Status)
			}
			if _, err := checkpoint.OpenState(filepath.Join(r.Folder, "best_model.pth")); err != nil {
				t.Errorf("the last good model is gone: %v", err)
			}
			if text, err := os.ReadFile(filepath.Join(r.Folder, "training_diagnostics.txt")); err != nil || !strings.Contains(string(text), want.status) {
				t.Errorf("diagnostics: %v\n%s", err, text)
			}
		})
	}
	var f *session.Failure
	if _, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=first"), "diverged@1", nil); !errors.As(err, &f) ||
		strings.Contains(strings.Join(f.Hints, "\n"), "is kept") || !strings.Contains(strings.Join(f.Hints, "\n"), "no model") {
		t.Errorf("in the first epoch: %+v", f)
	}
	if r, err := local(t, t.Context(), plan(t, base, "checkpoints_dir=mute"), "mute", nil); err == nil || !strings.Contains(err.Error(), "libtorch.so") || r == nil {
		t.Errorf("a trainer that cannot start: %v", err)
	}
}

// The trainer may be epochs ahead of what has been read of it.
func TestSlowReader(t *testing.T) {
	base := folders(t)
	r, err := local(t, t.Context(), plan(t, base), "", &watcher{after: func(epoch int) {
		for until := time.Now().Add(30 * time.Second); epoch == 1 && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(base, "checkpoints/vanilla_ep5_bs32_lr0.001/resume/epoch-0005-run-1.pth")); err == nil {
				return
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"best_model.pth", "final_model.pth"} {
		if _, err := os.Stat(filepath.Join(r.Folder, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestOneAtATime(t *testing.T) {
	base := folders(t)
	w := &watcher{after: func(epoch int) {
		if epoch == 1 {
			if _, err := local(t, t.Context(), plan(t, base), "", nil); err == nil || !strings.Contains(err.Error(), "another training is writing") {
				t.Errorf("a second training in the same folder: %v", err)
			}
		}
	}}
	if _, err := local(t, t.Context(), plan(t, base), "", w); err != nil {
		t.Fatal(err)
	}
}
