package simtrainer_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/files"
	"atelier/common/trainerproto"
	"atelier/worker/simtrainer"
)

// session runs one job; controls are written to its standard input after the epoch named.
func session(t *testing.T, job trainerproto.Job, controls map[int]string) ([]trainerproto.Event, int) {
	t.Helper()
	job.Protocol = trainerproto.Version
	if job.Dir == "" {
		job.Dir = t.TempDir()
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	code := make(chan int, 1)
	signals := make(chan os.Signal, 1)
	go func() {
		code <- simtrainer.Main(inR, outW, io.Discard, signals)
		outW.Close()
	}()
	r, w := trainerproto.NewReader(outR), trainerproto.NewWriter(inW)
	var events []trainerproto.Event
	for {
		e, err := r.Event()
		if err == io.EOF {
			return events, <-code
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == "hello" {
			if err := w.Send(job); err != nil {
				t.Fatal(err)
			}
			continue
		}
		events = append(events, e)
		if e.Kind == "epoch" {
			switch c := controls[e.Epoch]; c {
			case "":
			case "SIGTERM":
				signals <- syscall.SIGTERM
			case "EOF":
				inW.Close()
			default:
				w.Send(trainerproto.Control{Verdict: c})
			}
		}
	}
}

func curveOf(events []trainerproto.Event) string {
	var b strings.Builder
	for _, e := range events {
		if e.Kind == "epoch" {
			m, _ := json.Marshal(e.Metrics)
			fmt.Fprintf(&b, "%d %s\n", e.Epoch, m)
		}
	}
	return b.String()
}

func TestSameInputsSameCurveAndResume(t *testing.T) {
	job := trainerproto.Job{Seed: 7, Metric: "val_loss", Params: json.RawMessage(`{"lr":0.01,"opt":"sgd"}`),
		Training: json.RawMessage(`{"epochs":6,"epoch_seconds":0,"checkpoint_every":2,"checkpoint_bytes":1000,"model":"resnet18"}`), Dir: t.TempDir()}
	whole, code := session(t, job, nil)
	if code != 0 || whole[len(whole)-1].Reason != "finished" {
		t.Fatalf("code %d, last event %+v", code, whole[len(whole)-1])
	}
	again, _ := session(t, job, nil)
	if curveOf(whole) != curveOf(again) {
		t.Error("the same job gave two curves")
	}
	job.Resume, job.ResumeEpoch = filepath.Join(job.Dir, "epoch-0002.sim"), 2
	resumed, code := session(t, job, nil)
	if want := strings.SplitAfterN(curveOf(whole), "\n", 3)[2]; code != 0 || curveOf(resumed) != want {
		t.Errorf("resumed:\n%swant:\n%s", curveOf(resumed), want)
	}
	other := job
	other.Resume, other.Seed = "", 8
	if e, _ := session(t, other, nil); curveOf(e) == curveOf(whole) {
		t.Error("another seed gave the same curve")
	}
	var checkpoints int
	for _, e := range whole {
		if e.Kind != "checkpoint" {
			continue
		}
		checkpoints++
		info, err := os.Stat(e.Path)
		if err != nil || info.Size() != 1000 || e.Size != 1000 || len(e.SHA256) != 64 || len(e.Metrics) != 1 {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if checkpoints != 3 {
		t.Errorf("%d checkpoints, want 3", checkpoints)
	}
}

func final(t *testing.T, landscape int, params string) float64 {
	t.Helper()
	events, _ := session(t, trainerproto.Job{Seed: 1, Params: json.RawMessage(params),
		Training: json.RawMessage(fmt.Sprintf(`{"epochs":8,"epoch_seconds":0,"checkpoint_every":0,"landscape":%d}`, landscape))}, nil)
	v, ok := events[len(events)-2].Metrics.Get("val_loss")
	if !ok {
		t.Fatalf("no val_loss: %+v", events)
	}
	return v
}

func TestParametersMatter(t *testing.T) {
	good, bad := final(t, 0, `{"lr":0.003,"batch_size":32,"momentum":0.9}`), final(t, 0, `{"lr":1e-7,"batch_size":4096,"momentum":0.0}`)
	if !(good < 0.6 && bad > 1.2) {
		t.Errorf("good %.3f, bad %.3f", good, bad)
	}
	if a, b := final(t, 1, `{"width":0.4,"kind":"a"}`), final(t, 2, `{"width":0.4,"kind":"a"}`); math.Abs(a-b) < 1e-3 {
		t.Errorf("two landscapes give %.4f and %.4f", a, b)
	}
	if a, b := final(t, 1, `{"kind":"a"}`), final(t, 1, `{"kind":"b"}`); math.Abs(a-b) < 1e-3 {
		t.Errorf("two choices give %.4f and %.4f", a, b)
	}
	if v := final(t, 1, `{"lr":0,"batch_size":-1}`); math.IsNaN(v) || math.IsInf(v, 0) {
		t.Errorf("a rate of 0 gives %v", v)
	}
}

// With crossing curves the first epochs mislead: a high learning rate leads at
// first and is behind at the end.
func TestCrossingCurves(t *testing.T) {
	curve := func(lr string) []float64 {
		events, _ := session(t, trainerproto.Job{Seed: 1, Params: json.RawMessage(`{"lr":` + lr + `}`),
			Training: json.RawMessage(`{"epochs":40,"epoch_seconds":0,"checkpoint_every":0,"curve":"crossing"}`)}, nil)
		var out []float64
		for _, e := range events {
			if v, ok := e.Metrics.Get("val_loss"); ok {
				out = append(out, v)
			}
		}
		return out
	}
	high, good := curve("0.06"), curve("0.003")
	if len(high) != 40 || high[0] >= good[0] || high[39] <= good[39] {
		t.Errorf("at the first epoch %v and %v, at the last %v and %v", high[0], good[0], high[39], good[39])
	}
}

// Epochs last long enough that what is sent at the second one arrives before the third.
func TestEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		training string
		run      int32
		controls map[int]string
		kind     string
		word     string // reason or class
		code     int
		epochs   int
	}{
		"stop":             {`{"epochs":50,"epoch_seconds":0.5}`, 1, map[int]string{2: "stop"}, "done", "stopped", 0, 2},
		"pause":            {`{"epochs":50,"epoch_seconds":0.5,"checkpoint_every":10}`, 1, map[int]string{2: "pause"}, "done", "paused", 0, 2},
		"sigterm":          {`{"epochs":50,"epoch_seconds":0.5}`, 1, map[int]string{2: "SIGTERM"}, "done", "paused", 0, 2},
		"agent gone":       {`{"epochs":50,"epoch_seconds":0.5}`, 1, map[int]string{2: "EOF"}, "failed", "crashed", 1, 2},
		"ignores a stop":   {`{"epochs":4,"epoch_seconds":0.03,"ignore_stop":true}`, 1, map[int]string{2: "stop"}, "done", "finished", 0, 4},
		"class":            {`{"epoch_seconds":0,"fail_class":"device_fault","fail_at_epoch":3}`, 1, nil, "failed", "device_fault", 1, 2},
		"class, later run": {`{"epoch_seconds":0,"fail_class":"device_fault","fail_at_epoch":3,"fail_runs":1}`, 2, nil, "done", "finished", 0, 5},
		"diverged":         {`{"epoch_seconds":0,"nan_at_epoch":3}`, 1, nil, "failed", "diverged", 1, 3},
		"bad epochs":       {`{"epochs":0}`, 1, nil, "failed", "bad_spec", 1, 0},
		"bad class":        {`{"fail_class":"tired"}`, 1, nil, "failed", "bad_spec", 1, 0},
		"bad type":         {`{"epochs":"many"}`, 1, nil, "failed", "bad_spec", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			events, code := session(t, trainerproto.Job{Run: tc.run, Training: json.RawMessage(tc.training)}, tc.controls)
			last := events[len(events)-1]
			if last.Kind != tc.kind || last.Reason+last.Class != tc.word || code != tc.code {
				t.Errorf("code %d, last event %+v", code, last)
			}
			epochs, saved := 0, 0
			for _, e := range events {
				switch e.Kind {
				case "epoch":
					epochs++
				case "checkpoint":
					saved = e.Epoch
				}
			}
			if epochs != tc.epochs {
				t.Errorf("%d epochs, want %d", epochs, tc.epochs)
			}
			if last.Kind == "done" && saved != epochs {
				t.Errorf("ended after epoch %d with a checkpoint of %d", epochs, saved)
			}
		})
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	events, code := session(t, trainerproto.Job{Dir: dir, Training: json.RawMessage(`{"epoch_seconds":0,"checkpoint_bytes":50000}`)}, nil)
	last := events[len(events)-1]
	if code != 1 || last.Class != "disk_full" || !strings.Contains(last.Message, "no space left") {
		t.Errorf("code %d, last event %+v", code, last)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, files.Unfinished("*"))); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestEpochsKeepTime(t *testing.T) {
	began := time.Now()
	session(t, trainerproto.Job{Training: json.RawMessage(`{"epochs":10,"epoch_seconds":0.02}`)}, nil)
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("10 epochs of 20 ms took %s", took)
	}
}

func FuzzResume(f *testing.F) {
	f.Add([]byte("atelier-sim 1 3\n\x03\x03"))
	f.Add([]byte("atelier-sim 1 -3\n"))
	f.Add([]byte("atelier-sim 1 99999999999999"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "c.sim")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		var in, out bytes.Buffer
		trainerproto.NewWriter(&in).Send(trainerproto.Job{Protocol: trainerproto.Version, Dir: t.TempDir(), Resume: path,
			Training: json.RawMessage(`{"epochs":2,"epoch_seconds":0,"checkpoint_every":0}`)})
		// No panic, and always a last word.
		simtrainer.Main(&in, &out, io.Discard, nil)
		if s := out.String(); !strings.Contains(s, `"done"`) && !strings.Contains(s, `"failed"`) {
			t.Errorf("no last word: %s", s)
		}
	})
}

// A run that ends before its training keeps the checkpoint of that epoch and is
// paused; at the training's own end it is finished.
func TestEndEpoch(t *testing.T) {
	dir := t.TempDir()
	job := trainerproto.Job{Dir: dir, Training: json.RawMessage(`{"epochs":6,"epoch_seconds":0,"checkpoint_every":4}`), EndEpoch: 3}
	told := func(events []trainerproto.Event) string {
		var words []string
		for _, e := range events {
			words = append(words, fmt.Sprint(e.Kind, " ", e.Epoch, e.Reason))
		}
		return strings.Join(words, ", ")
	}
	events, code := session(t, job, nil)
	if got := told(events); got != "epoch 1, epoch 2, epoch 3, checkpoint 3, done 0paused" || code != 0 {
		t.Fatalf("%s, exit %d", got, code)
	}
	job.Resume, job.ResumeEpoch, job.EndEpoch = events[3].Path, 3, 6
	if events, _ = session(t, job, nil); told(events) != "epoch 4, checkpoint 4, epoch 5, epoch 6, checkpoint 6, done 0finished" {
		t.Errorf("%s", told(events))
	}
	job.EndEpoch = 3
	if events, _ = session(t, job, nil); told(events) != "done 0paused" {
		t.Errorf("nothing was left to train: %s", told(events))
	}
}

func TestNeededFile(t *testing.T) {
	job := trainerproto.Job{CacheDir: t.TempDir(), Training: json.RawMessage(`{"epochs":1,"epoch_seconds":0,"needs_file":"pictures"}`)}
	events, code := session(t, job, nil)
	if len(events) != 1 || events[0].Class != trainerproto.FailedDataMissing || !strings.Contains(events[0].Message, filepath.Join(job.CacheDir, "pictures")) || code != 1 {
		t.Errorf("%+v, exit %d", events, code)
	}
	if err := os.WriteFile(filepath.Join(job.CacheDir, "pictures"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if events, code = session(t, job, nil); code != 0 {
		t.Errorf("%+v, exit %d", events, code)
	}
}
