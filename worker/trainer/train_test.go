//go:build libtorch

package main_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/settings"
	"atelier/common/trainerproto"
)

func TestRunLearnsAndReports(t *testing.T) {
	job := newJob(t, imageFolder(t, 40, 12), map[string]any{"epochs": 4, "optimizer": "adam", "lr": 0.003})
	events := finish(t, job)
	epochs, kept := of(events, trainerproto.EventEpoch), of(events, trainerproto.EventCheckpoint)
	if len(epochs) != 4 || len(kept) != 4 {
		t.Fatalf("%d epoch and %d checkpoint events, want 4 each", len(epochs), len(kept))
	}
	for i, e := range epochs {
		var names []string
		for _, m := range e.Metrics {
			names = append(names, m.Name)
		}
		if e.Epoch != i+1 || e.Seconds <= 0 || !slices.Equal(names, settings.Metrics) {
			t.Errorf("epoch event %d: %+v", i, e)
		}
	}
	if acc, _ := epochs[3].Metrics.Get("val_acc"); acc < 0.9 {
		t.Errorf("validation accuracy %.2f after 4 epochs on classes that differ in colour", acc)
	}
	last := kept[3]
	b, err := os.ReadFile(last.Path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != last.SHA256 || int64(len(b)) != last.Size {
		t.Error("checkpoint event does not fit the file")
	}
	file, err := checkpoint.Open(last.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	root := file.Root.(*checkpoint.Dict)
	classes, _ := checkpoint.Lookup[*checkpoint.Dict](root, "class_to_idx")
	arch, _ := checkpoint.Lookup[string](root, "arch")
	if n, _ := checkpoint.Lookup[int64](classes, "timber"); n != 2 || arch != "vanilla" {
		t.Errorf("class_to_idx %v, arch %q", classes.Items(), arch)
	}
}

// state reads model and optimiser state of a checkpoint, name by name.
func state(t *testing.T, path string) map[string][]byte {
	t.Helper()
	file, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	all := map[string][]byte{}
	var walk func(name string, v checkpoint.Value)
	walk = func(name string, v checkpoint.Value) {
		switch v := v.(type) {
		case *checkpoint.Tensor:
			all[name] = bytes.Clone(v.Data)
		case *checkpoint.Dict:
			for _, it := range v.Items() {
				walk(fmt.Sprint(name, ".", it.Key), it.Value)
			}
		}
	}
	walk("", file.Root)
	return all
}

// A run killed with SIGKILL in mid-epoch and resumed from its last checkpoint
// ends with the bits of one left alone: model, optimiser, random state.
func TestKilledRunResumesBitExactly(t *testing.T) {
	base := imageFolder(t, 30, 6)
	for _, c := range []struct {
		name     string
		metric   string
		training map[string]any
	}{
		{"vanilla sgd", "val_loss", map[string]any{"optimizer": "sgd", "lr": 0.02}}, // has dropout: the generator's state counts
		{"resnet18 adam", "val_loss", map[string]any{"model": "resnet18", "optimizer": "adam", "lr": 0.001, "batch_size": 8}},
		{"schedule, average, accumulation, mixing", "val_loss", map[string]any{"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.05, "batch_size": 8, "accumulate": 2,
			"schedule": "cosine", "warmup_epochs": 2.5, "ema_decay": 0.9, "clip_norm": 1, "label_smoothing": 0.1, "class_weights": "balanced",
			"augmentation": map[string]any{"cutmix": map[string]any{"enabled": true}}}},
		{"plateau", "lr", map[string]any{"optimizer": "rmsprop", "momentum": 0.9, "lr": 0.01, "schedule": "plateau", "step_epochs": 1, "gamma": 0.5, "ema_decay": 0.5}}, // a rate is never better than before: it drops at each epoch
	} {
		t.Run(c.name, func(t *testing.T) {
			c.training["epochs"] = 4
			whole := newJob(t, base, c.training)
			whole.Metric, whole.Maximize = c.metric, c.metric == "lr"
			alone := finish(t, whole)
			kept := of(alone, trainerproto.EventCheckpoint)
			want := state(t, kept[len(kept)-1].Path)

			cut := newJob(t, base, c.training)
			cut.Metric, cut.Maximize = whole.Metric, whole.Maximize
			p := start(t)
			p.send(cut)
			events := p.until(func(e trainerproto.Event) bool { return e.Kind == trainerproto.EventCheckpoint && e.Epoch == 2 })
			time.Sleep(30 * time.Millisecond) // into epoch 3
			p.cmd.Process.Signal(syscall.SIGKILL)
			p.cmd.Wait()
			at := events[len(events)-1]

			cut.Run, cut.Resume, cut.ResumeEpoch = 2, at.Path, at.Epoch
			again := finish(t, cut)
			epochs := of(again, trainerproto.EventEpoch)
			if len(epochs) != 2 || epochs[0].Epoch != 3 {
				t.Fatalf("resumed run reported %d epochs from %d; want 3 and 4", len(epochs), epochs[0].Epoch)
			}
			for i, e := range of(alone, trainerproto.EventEpoch)[2:] {
				for _, m := range e.Metrics {
					if v, _ := epochs[i].Metrics.Get(m.Name); v != m.Value && m.Name != "images_per_s" {
						t.Errorf("epoch %d: %s is %v, uninterrupted %v", e.Epoch, m.Name, v, m.Value)
					}
				}
			}
			kept = of(again, trainerproto.EventCheckpoint)
			got := state(t, kept[len(kept)-1].Path)
			if len(got) != len(want) || len(want) < 20 {
				t.Fatalf("%d tensors, uninterrupted %d", len(got), len(want))
			}
			for name, b := range want {
				if !bytes.Equal(got[name], b) {
					t.Errorf("%s differs", name)
				}
			}
			if bytes.Equal(want[".model_state_dict.features.0.weight"], state(t, at.Path)[".model_state_dict.features.0.weight"]) && c.name == "vanilla sgd" {
				t.Error("epochs 3 and 4 changed nothing: the test shows nothing")
			}
		})
	}
}

func TestVerdictsEndTheRun(t *testing.T) {
	base := imageFolder(t, 40, 6)
	for verdict, reason := range map[string]string{"stop": trainerproto.DoneStopped, "pause": trainerproto.DonePaused} {
		p := start(t)
		p.send(newJob(t, base, map[string]any{"epochs": 10_000}))
		p.until(func(e trainerproto.Event) bool { return e.Kind == trainerproto.EventCheckpoint })
		p.send(trainerproto.Control{Verdict: verdict})
		asked := time.Now()
		events := p.until(never)
		if last := events[len(events)-1]; last.Kind != trainerproto.EventDone || last.Reason != reason {
			t.Errorf("%s: ended with %+v", verdict, last)
		}
		if c := p.code(); c != 0 {
			t.Errorf("%s: exit code %d", verdict, c)
		}
		if d := time.Since(asked); d > 10*time.Second {
			t.Errorf("%s took %v", verdict, d)
		}
	}
}

func TestSigtermEndsSoon(t *testing.T) {
	p := start(t)
	p.send(newJob(t, imageFolder(t, 40, 6), map[string]any{"epochs": 10_000}))
	p.until(func(e trainerproto.Event) bool { return e.Kind == trainerproto.EventEpoch })
	p.cmd.Process.Signal(syscall.SIGTERM)
	if c := p.code(); c != 143 {
		t.Errorf("exit code %d, want 143; standard error:\n%s", c, p.stderr)
	}
}

func TestStandbyEndsQuietly(t *testing.T) {
	p := start(t)
	p.stdin.Close()
	if c := p.code(); c != 0 {
		t.Errorf("no job: exit code %d", c)
	}
	p = start(t)
	p.cmd.Process.Signal(syscall.SIGTERM)
	if c := p.code(); c != 143 {
		t.Errorf("SIGTERM while standing by: exit code %d, want 143", c)
	}
	out, err := exec.Command(trainer, "train").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "descriptor 3") {
		t.Errorf("without descriptor 3: %v, %s", err, out)
	}
}

func TestPatience(t *testing.T) {
	job := newJob(t, imageFolder(t, 8, 4), map[string]any{"epochs": 500, "patience": 3, "lr": 1e-30})
	job.Metric, job.Maximize = "val_acc", true
	events := finish(t, job)
	last := events[len(events)-1]
	if n := len(of(events, trainerproto.EventEpoch)); n >= 500 || !strings.Contains(last.Message, "no better val_acc in 3 epochs") {
		t.Errorf("%d epochs, %q", n, last.Message)
	}
}

// Resident memory is flat after the first epochs: no step leaks, whatever the
// Go collector does.
func TestMemoryIsFlat(t *testing.T) {
	p := start(t)
	p.send(newJob(t, imageFolder(t, 100, 4), map[string]any{"epochs": 40, "batch_size": 8, "augment": true}))
	var at []int64
	for len(at) < 40 {
		e := p.next()
		if e.Kind == trainerproto.EventFailed {
			t.Fatal(e.Message)
		}
		if e.Kind == trainerproto.EventCheckpoint {
			at = append(at, resident(t, p.cmd.Process.Pid))
		}
	}
	early, late := slices.Max(at[5:10]), slices.Max(at[35:])
	t.Logf("resident after epoch 1, 10, 40: %d, %d, %d MiB; 1,520 steps", at[0]>>20, at[9]>>20, at[39]>>20)
	// 1,110 steps lie between; leaking one activation of 0.5 MiB a step would show a thousandfold.
	if late > early+8<<20 {
		t.Errorf("resident memory grew from %d to %d MiB", early>>20, late>>20)
	}
}

func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func TestCorruptImageIsNamedAndCounted(t *testing.T) {
	base := imageFolder(t, 6, 3)
	whole, err := os.ReadFile(filepath.Join(base, "train", "glass", "002.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "train", "glass", "002.png"), whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t)
	p.send(newJob(t, base, map[string]any{"epochs": 1}))
	p.until(never)
	if c := p.code(); c != 0 {
		t.Fatalf("exit code %d", c)
	}
	for _, want := range []string{"glass/002.png", "skipped=1", "images=17"} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("standard error does not say %q:\n%s", want, p.stderr)
		}
	}
}

func TestFailures(t *testing.T) {
	base := imageFolder(t, 6, 3)
	empty := imageFolder(t, 3, 3)
	if err := os.Mkdir(filepath.Join(empty, "train", "stone"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := imageFolder(t, 3, 3)
	if err := os.Rename(filepath.Join(other, "validation", "glass"), filepath.Join(other, "validation", "marble")); err != nil {
		t.Fatal(err)
	}
	two := imageFolder(t, 3, 3)
	for _, part := range []string{"train", "validation"} {
		if err := os.RemoveAll(filepath.Join(two, part, "timber")); err != nil {
			t.Fatal(err)
		}
	}
	single := imageFolder(t, 3, 3)
	for _, part := range []string{"train", "validation"} {
		classes, _ := filepath.Glob(filepath.Join(single, part, "*"))
		for _, dir := range classes {
			if filepath.Base(dir) == "glass" {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	garbage := filepath.Join(t.TempDir(), "garbage.pth")
	if err := os.WriteFile(garbage, []byte("not a checkpoint"), 0o644); err != nil {
		t.Fatal(err)
	}
	kept := of(finish(t, newJob(t, base, map[string]any{"epochs": 1})), trainerproto.EventCheckpoint)

	for _, c := range []struct {
		name     string
		base     string
		training map[string]any
		edit     func(*trainerproto.Job)
		class    string
		want     string
	}{
		{"unknown key", base, map[string]any{"batchsize": 3}, nil, "bad_spec", `unknown key "batchsize"; did you mean "batch_size"?`},
		{"wrong type", base, map[string]any{"lr": "fast"}, nil, "bad_spec", `lr: want a number`},
		{"unknown model", base, map[string]any{"model": "resnet81"}, nil, "bad_spec", `did you mean "resnet18"?`},
		{"unknown metric", base, nil, func(j *trainerproto.Job) { j.Metric = "f1" }, "bad_spec", `"f1" is not reported`},
		{"missing folder", base, map[string]any{"data": map[string]any{"train": "nowhere", "validation": "validation"}}, nil, "data_missing", "nowhere"},
		{"class without images", empty, nil, nil, "bad_spec", "stone"},
		{"one class", single, nil, nil, "bad_spec", "a classifier needs two"},
		{"classes differ", other, nil, nil, "bad_spec", `data.train has "glass", data.validation has not`},
		{"no such device", base, nil, func(j *trainerproto.Job) { j.Device = "cuda:63" }, "device_fault", "cuda:63"},
		{"diverges", base, map[string]any{"lr": 1000, "optimizer": "sgd", "epochs": 30}, nil, "diverged", "lower lr"},
		{"damaged checkpoint", base, nil, func(j *trainerproto.Job) { j.Resume = garbage }, "crashed", "garbage.pth"},
		{"checkpoint of another model", base, map[string]any{"model": "resnet18"}, func(j *trainerproto.Job) { j.Resume = kept[0].Path }, "bad_spec", `of model "vanilla", the run of "resnet18"`},
		{"checkpoint of other classes", two, nil, func(j *trainerproto.Job) { j.Resume = kept[0].Path }, "bad_spec", `checkpoint has "timber", data.train has not`},
		{"checkpoint of another optimizer", base, map[string]any{"optimizer": "rmsprop"}, func(j *trainerproto.Job) { j.Resume = kept[0].Path }, "bad_spec", "it is not of rmsprop"},
		{"checkpoint folder missing", base, nil, func(j *trainerproto.Job) { j.Dir = filepath.Join(j.Dir, "gone") }, "crashed", "gone"},
		{"job of another version", base, nil, func(j *trainerproto.Job) { j.Protocol = 9 }, "bad_spec", "version 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			job := newJob(t, c.base, c.training)
			if c.edit != nil {
				c.edit(&job)
			}
			p := start(t)
			p.send(job)
			events := p.until(never)
			last := events[len(events)-1]
			if last.Kind != trainerproto.EventFailed || last.Class != c.class || !strings.Contains(last.Message, c.want) {
				t.Errorf("ended with %s %s %q; want failed %s with %q", last.Kind, last.Class, last.Message, c.class, c.want)
			}
			if code := p.code(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		})
	}
}

// A batch that memory cannot hold is refused before the first epoch, with its
// class and a size that fits: a run with that one ends well under the same
// limit.
func TestBatchTooLargeForMemory(t *testing.T) {
	under := func(batch int) trainerproto.Event {
		p := start(t, "sh", "-c", `ulimit -v 4200000; exec "$@"`, "sh")
		p.send(newJob(t, imageFolder(t, 40, 2), map[string]any{"batch_size": batch, "image_size": 256, "epochs": 1}))
		events := p.until(never)
		last := events[len(events)-1]
		t.Logf("batch_size %d: %s %s", batch, last.Kind, last.Message)
		want := 1
		if last.Kind == trainerproto.EventDone {
			want = 0
		}
		if c := p.code(); c != want {
			t.Errorf("exit code %d; standard error:\n%s", c, p.stderr)
		}
		return last
	}
	last := under(120)
	if last.Kind != trainerproto.EventFailed || last.Class != trainerproto.FailedOutOfMemory {
		t.Fatalf("ended with %+v", last)
	}
	found := regexp.MustCompile(`before the first step: .* process limit has .* left: reduce batch_size to (\d+) or less`).FindStringSubmatch(last.Message)
	if found == nil {
		t.Fatalf("the message is %q", last.Message)
	}
	fitting, err := strconv.Atoi(found[1])
	if err != nil || fitting < 2 || fitting >= 120 {
		t.Fatalf("advice in %q", last.Message)
	}
	if last := under(fitting); last.Kind != trainerproto.EventDone {
		t.Errorf("the batch size advised, %d, ended with %+v", fitting, last)
	}
}

// On a full disk the run ends classed, the last whole checkpoint stands and
// nothing half written is left.
func TestFullDiskIsClassed(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=10m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	job := newJob(t, imageFolder(t, 8, 3), map[string]any{"epochs": 50, "optimizer": "adam"})
	job.Dir = dir
	p := start(t)
	p.send(job)
	events := p.until(never)
	if c := p.code(); c != 1 {
		t.Errorf("exit code %d", c)
	}
	last, kept := events[len(events)-1], of(events, trainerproto.EventCheckpoint)
	if last.Class != trainerproto.FailedDiskFull || len(kept) == 0 {
		t.Fatalf("ended with %+v after %d checkpoints", last, len(kept))
	}
	b, err := os.ReadFile(kept[len(kept)-1].Path)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != kept[len(kept)-1].SHA256 {
		t.Error("the last checkpoint told of is not whole")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(kept) {
		t.Errorf("%d files for %d checkpoints: %v", len(entries), len(kept), entries)
	}
}

// Of the files old enough, the best and the newest stay.
func TestOldCheckpointsGo(t *testing.T) {
	p := start(t)
	p.send(newJob(t, imageFolder(t, 20, 6), map[string]any{"epochs": 8, "optimizer": "adam", "lr": 0.003}))
	best, bestLoss, kept := 0, 0.0, map[int]string{}
	for {
		e := p.next()
		if e.Kind == trainerproto.EventDone {
			break
		}
		if e.Kind != trainerproto.EventCheckpoint {
			continue
		}
		kept[e.Epoch] = e.Path
		if v, _ := e.Metrics.Get("val_loss"); best == 0 || v < bestLoss {
			best, bestLoss = e.Epoch, v
		}
		if old := time.Now().Add(-time.Hour); e.Epoch <= 5 {
			if err := os.Chtimes(e.Path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	for epoch, path := range kept {
		_, err := os.Stat(path)
		if stays := epoch == best || epoch >= 6; stays != (err == nil) {
			t.Errorf("epoch %d (best is %d): %v", epoch, best, err)
		}
	}
}

// 33 images in batches of 16 leave one over: batch normalisation over a single
// value would be an error.
func TestLastImageIsNotAlone(t *testing.T) {
	events := finish(t, newJob(t, imageFolder(t, 11, 3), map[string]any{"model": "resnet18", "epochs": 1}))
	e := of(events, trainerproto.EventEpoch)[0]
	if acc, _ := e.Metrics.Get("train_acc"); math.Abs(acc*33-math.Round(acc*33)) > 1e-9 {
		t.Errorf("training accuracy %v is not of 33 images", acc)
	}
}

// A run that ends before its training does so by itself, paused, with a checkpoint
// from which the next one comes to the same bits as one run would.
func TestRunEndsWhereItsLeaseDoes(t *testing.T) {
	base := imageFolder(t, 24, 6)
	training := map[string]any{"epochs": 3, "optimizer": "adam", "lr": 0.001}
	alone := of(finish(t, newJob(t, base, training)), trainerproto.EventCheckpoint)
	first := newJob(t, base, training)
	first.EndEpoch = 2
	events := finish(t, first)
	kept, epochs := of(events, trainerproto.EventCheckpoint), of(events, trainerproto.EventEpoch)
	if last := events[len(events)-1]; last.Reason != trainerproto.DonePaused || len(epochs) != 2 || kept[len(kept)-1].Epoch != 2 {
		t.Fatalf("ended with %+v after %d epochs, checkpoints %+v", last, len(epochs), kept)
	}
	second := newJob(t, base, training)
	second.Resume, second.ResumeEpoch, second.EndEpoch = kept[len(kept)-1].Path, 2, 9
	events = finish(t, second)
	if last := events[len(events)-1]; last.Reason != trainerproto.DoneFinished {
		t.Errorf("at its own end the training is %+v", last)
	}
	kept = of(events, trainerproto.EventCheckpoint)
	want, got := state(t, alone[len(alone)-1].Path), state(t, kept[len(kept)-1].Path)
	for name, b := range want {
		if !strings.HasPrefix(name, ".atelier.") && !bytes.Equal(b, got[name]) {
			t.Errorf("%s differs from that of a run left alone", name)
		}
	}
}

// What the settings name and this machine does not have is told apart from what
// they ask for and no machine could do.
func TestMissingDataIsNoBadSpec(t *testing.T) {
	base := imageFolder(t, 6, 6)
	empty := t.TempDir()
	for name, c := range map[string]struct {
		training map[string]any
		class    string
	}{
		"no folder":    {map[string]any{"data": map[string]any{"train": "nowhere", "validation": "validation"}}, trainerproto.FailedDataMissing},
		"empty folder": {map[string]any{"data": map[string]any{"train": empty, "validation": "validation"}}, trainerproto.FailedDataMissing},
		"no weights":   {map[string]any{"weights": "/nowhere/model.pth"}, trainerproto.FailedDataMissing},
		"no classes":   {map[string]any{"data": map[string]any{"train": "train/" + firstClass(t, base), "validation": "validation"}}, trainerproto.FailedBadSpec},
		"no such key":  {map[string]any{"batchsize": 3}, trainerproto.FailedBadSpec},
	} {
		p := start(t)
		p.send(newJob(t, base, c.training))
		events := p.until(never)
		if last := events[len(events)-1]; last.Kind != trainerproto.EventFailed || last.Class != c.class {
			t.Errorf("%s: %+v, want class %s", name, last, c.class)
		}
		p.code()
	}
}

func firstClass(t *testing.T, base string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(base, "train"))
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	return entries[0].Name()
}
