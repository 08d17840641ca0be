package cli_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/tuner/cli"

	"connectrpc.com/connect"
)

const spec = `name: facades
search_method: random
seed: 42
objective: {metric: val_loss, direction: minimize}
budget: {trials: 40}
trainer: sim
space:
  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
`

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func putImage(t *testing.T, path string) {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, 8, 8))); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.Bytes())
}

func TestSubmit(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "spec.yaml"), []byte(spec))

	r := run(t, dir, "sweep", "submit", "spec.yaml")
	if r.code != 0 || r.out != "s-aaaaaaaa\n" || !strings.Contains(r.err, "bayesian (tpe), 40 trials, 8 at once, seed 18446744073709551615") || !strings.Contains(r.err, "warning: the grid is cut") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "sweep", "submit", "spec.yaml", "-q", "--base-dir", "sub/.."); r.code != 0 || r.out != "s-aaaaaaaa\n" || strings.Contains(r.err, "submitted") {
		t.Errorf("%+v", r)
	}
	if len(f.requests) != 2 {
		t.Fatalf("%d requests arrived", len(f.requests))
	}
	for _, x := range f.requests {
		q := x.(*v1.CreateSweepRequest)
		if q.SpecYaml != spec || q.SpecName != "spec.yaml" || q.BaseDir != dir {
			t.Errorf("sent %v", q)
		}
	}
}

func TestSubmitReadsStandardInput(t *testing.T) {
	f := start(t)
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(spec), Out: &out, Err: &errs, Now: time.Now, Dir: t.TempDir(), Width: func() int { return 80 }}
	if code := e.Run(t.Context(), []string{"sweep", "submit", "-", "-q"}); code != 0 || out.String() != "s-aaaaaaaa\n" {
		t.Fatalf("exit %d, %s%s", code, out.String(), errs.String())
	}
	if q := f.requests[0].(*v1.CreateSweepRequest); q.SpecYaml != spec {
		t.Errorf("sent %q", q.SpecYaml)
	}
}

// Faults of a spec and of the data it names are found before anything is sent.
func TestSubmitRefuses(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	for _, class := range []string{"gothic", "colonial"} {
		putImage(t, filepath.Join(dir, "data/train", class, "1.png"))
		putImage(t, filepath.Join(dir, "data/validation", class, "1.png"))
		putImage(t, filepath.Join(dir, "data/hollow", class, "1.png"))
	}
	putImage(t, filepath.Join(dir, "data/other/gothic/1.png"))
	os.Mkdir(filepath.Join(dir, "data/hollow/baroque"), 0o755)
	training := func(train, validation string) string {
		return spec + "training:\n  model: vanilla\n  data:\n    train: " + train + "\n    validation: " + validation + "\n"
	}
	cases := []struct {
		name, spec string
		texts      []string // all on standard error; none: the spec is fine
	}{
		{"good data", training("data/train", "data/validation"), nil},
		{"absolute data", training(filepath.Join(dir, "data/train"), "data/validation"), nil},
		{"data elsewhere", training("s3://bucket/train", "data/validation"), nil},
		{"missing folder", training("data/train", "data/nosuch"), []string{"spec.yaml:13: training.data.validation: folder " + filepath.Join(dir, "data/nosuch") + " does not exist"}},
		{"two missing", training("nope", "nada"), []string{"spec.yaml:12: training.data.train", "spec.yaml:13: training.data.validation"}},
		{"class without pictures", training("data/hollow", "data/validation"), []string{"spec.yaml:12: training.data.train: ", "baroque"}},
		{"classes differ", training("data/train", "data/other"), []string{"spec.yaml:13: training.data.validation: ", "colonial"}},
		{"bad spec", strings.Replace(spec, "low: 1.0e-5", "low: 0", 1), []string{"spec.yaml:8: space.lr"}},
		{"unknown key", spec + "parallelizm: 3\n", []string{"spec.yaml:9: ", "parallelism"}},
		{"empty", "", []string{"spec.yaml"}},
		{"not YAML", "a: [", []string{"spec.yaml"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			write(t, filepath.Join(dir, "spec.yaml"), []byte(tc.spec))
			before := len(f.requests)
			r := run(t, dir, "sweep", "submit", "spec.yaml")
			if tc.texts == nil {
				if r.code != 0 || len(f.requests) != before+1 {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.code != 1 || r.out != "" || len(f.requests) != before {
				t.Errorf("exit %d, output %q, %d requests", r.code, r.out, len(f.requests)-before)
			}
			for _, text := range tc.texts {
				if !strings.Contains(r.err, text) {
					t.Errorf("no %q in:\n%s", text, r.err)
				}
			}
		})
	}
}

func (f *fake) will(states ...*v1.Sweep) { f.mu.Lock(); f.waits = states; f.mu.Unlock() }

func (f *fake) at(done int64, s v1.SweepStatus) *v1.Sweep {
	x := f.sweep("s-aaaaaaaa")
	x.Status = s
	x.Counts.Finished = done
	x.Counts.Reports = done * 10
	x.EndedMs = ms(0)
	return x
}

func TestFollowEndsWithTheSweep(t *testing.T) {
	f := start(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "spec.yaml"), []byte(spec))
	running := wire.ToSweepStatus(trial.SweepRunning)
	for status, code := range map[v1.SweepStatus]int{
		wire.ToSweepStatus(trial.SweepFinished): 0, wire.ToSweepStatus(trial.SweepStopped): 0,
		wire.ToSweepStatus(trial.SweepCancelled): 6, wire.ToSweepStatus(trial.SweepFailed): 6,
	} {
		f.will(f.at(4, running), f.at(30, running), f.at(38, status))
		r := run(t, dir, "sweep", "submit", "spec.yaml", "--follow")
		if r.code != code || r.out != "s-aaaaaaaa\n" {
			t.Errorf("%s: exit %d (want %d), %q\n%s", status, r.code, code, r.out, r.err)
		}
		if !strings.Contains(r.err, "6/40 trials, 4 running, best val_loss 0.1235 (trial 7)") || strings.Contains(r.err, "\x1b") || strings.Contains(r.err, "\r") {
			t.Errorf("%s: without a terminal: %q", status, r.err)
		}
	}
}

func TestBarOnATerminal(t *testing.T) {
	f := start(t)
	running := wire.ToSweepStatus(trial.SweepRunning)
	f.will(f.at(4, running), f.at(18, running), f.at(38, wire.ToSweepStatus(trial.SweepFinished)))
	var errs bytes.Buffer
	clock := now
	e := &cli.Env{Out: &bytes.Buffer{}, Err: &errs, Live: true, Dir: t.TempDir(), Width: func() int { return 70 },
		Now: func() time.Time { clock = clock.Add(10 * time.Second); return clock }}
	if code := e.Run(t.Context(), []string{"sweep", "wait", "s-aaaaaaaa"}); code != 0 {
		t.Fatal(code, errs.String())
	}
	drawn := strings.Split(errs.String(), "\r\x1b[K")
	if len(drawn) != 4 {
		t.Fatalf("%q", drawn)
	}
	for i, want := range []string{1: "[###-----------------] 6/40 trials, 4 running, s-aaaaaaaa", 2: "[##########----------] 20/40 trials, 4 running, about 14s left", 3: "sweep s-aaaaaaaa finished"} {
		if !strings.HasPrefix(drawn[i], want) {
			t.Errorf("drew %q, want it to begin with %q", drawn[i], want)
		}
		if i < 3 && len(drawn[i]) > 69 {
			t.Errorf("%d columns on a terminal of 70: %q", len(drawn[i]), drawn[i])
		}
	}
}

// Where every trial trains the same epochs, the time left is known before one has ended.
func TestTimeLeftBeforeATrialHasEnded(t *testing.T) {
	f := start(t)
	f.specJSON = `{"version":1,"name":"facades","search_method":"random","trainer":"torch","budget":{"trials":40},"objectives":[{"metric":"val_loss","direction":"minimize"}],"space":[{"name":"lr","type":"float","low":0.1,"high":1}],"training":{"epochs":10}}`
	reported := func(n int64) *v1.Sweep {
		s := f.at(0, wire.ToSweepStatus(trial.SweepRunning))
		s.Counts = &v1.SweepCounts{Proposed: 8, Running: 8, Reports: n}
		return s
	}
	f.will(reported(0), reported(20), f.at(38, wire.ToSweepStatus(trial.SweepFinished)))
	var errs bytes.Buffer
	clock := now
	e := &cli.Env{Out: &bytes.Buffer{}, Err: &errs, Live: true, Dir: t.TempDir(), Width: func() int { return 80 },
		Now: func() time.Time { clock = clock.Add(10 * time.Second); return clock }}
	e.Run(t.Context(), []string{"sweep", "wait", "s-aaaaaaaa"})
	// 20 of 400 epochs in 10 s.
	if want := "[--------------------] 0/40 trials, 8 running, about 3m10s left"; !strings.Contains(errs.String(), want) {
		t.Errorf("no %q in %q", want, errs.String())
	}
}

// On a wide terminal the pace and the time left are told.
func TestPaceAndTimeLeft(t *testing.T) {
	f := start(t)
	running := wire.ToSweepStatus(trial.SweepRunning)
	f.will(f.at(4, running), f.at(18, running), f.at(38, wire.ToSweepStatus(trial.SweepFinished)))
	var errs bytes.Buffer
	clock := now
	e := &cli.Env{Out: &bytes.Buffer{}, Err: &errs, Live: true, Dir: t.TempDir(), Width: func() int { return 200 },
		Now: func() time.Time { clock = clock.Add(10 * time.Second); return clock }}
	e.Run(t.Context(), []string{"sweep", "wait", "s-aaaaaaaa"})
	// 140 reports and 14 trials in 10 s, 20 trials to go.
	if want := "20/40 trials, 4 running, about 14s left, best val_loss 0.1235 (trial 7), 14.0 reports/s, s-aaaaaaaa"; !strings.Contains(errs.String(), want) {
		t.Errorf("no %q in %q", want, errs.String())
	}
}

func TestTimeoutAndInterrupt(t *testing.T) {
	start(t) // its sweep never ends
	begin := time.Now()
	r := run(t, t.TempDir(), "sweep", "wait", "s-aaaaaaaa", "--timeout", "300ms")
	if r.code != 124 || !strings.Contains(r.err, "gave up after 300ms") || time.Since(begin) > 30*time.Second {
		t.Errorf("%+v after %s", r, time.Since(begin))
	}

	dir := t.TempDir()
	write(t, filepath.Join(dir, "spec.yaml"), []byte(spec))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(3*time.Second, cancel)
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Dir: dir, Width: func() int { return 80 }}
	if code := e.Run(ctx, []string{"sweep", "submit", "spec.yaml", "--follow"}); code != 130 || out.String() != "s-aaaaaaaa\n" || !strings.Contains(errs.String(), "the sweep continues") {
		t.Errorf("exit %d, %q, %q", code, out.String(), errs.String())
	}
}

func TestExitCodesOfTheCluster(t *testing.T) {
	f := start(t)
	for _, tc := range []struct {
		err  error
		code int
	}{
		{client.Refusal{Reason: client.ReasonNoLeader}.Error(connect.CodeUnavailable, errors.New("an election is on")), 5},
		{connect.NewError(connect.CodeNotFound, errors.New("sweep x does not exist")), 3},
		{connect.NewError(connect.CodePermissionDenied, errors.New("no")), 4},
		{connect.NewError(connect.CodeInternal, errors.New("boom")), 1},
	} {
		f.mu.Lock()
		f.err = tc.err
		f.mu.Unlock()
		if r := run(t, t.TempDir(), "sweep", "show", "x", "--retry-for", "100ms"); r.code != tc.code || r.out != "" {
			t.Errorf("%v: %+v, want exit %d", tc.err, r, tc.code)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if r := run(t, t.TempDir(), "sweep", "list", "--addr", l.Addr().String(), "--retry-for", "100ms"); r.code != 5 || !strings.Contains(r.err, "no coordinator answers at "+l.Addr().String()) {
		t.Errorf("%+v", r)
	}
}

func TestCheckpointPull(t *testing.T) {
	start(t)
	dir, shared := t.TempDir(), t.TempDir()
	write(t, filepath.Join(shared, "s-aaaaaaaa/7/3.pth"), model)
	cases := []struct {
		name string
		args []string
		code int
		file string
		text string
	}{
		{"best, over HTTP", nil, 0, "s-aaaaaaaa-7-e2.pth", "epoch 2, 7.8 KiB, SHA-256 verified, val_loss 0.1235"},
		{"newest, from the shared folder", []string{"7", "--newest", "--shared", shared, "--to", "model.pth"}, 0, "model.pth", "epoch 3"},
		{"wrong hash", []string{"7", "--epoch", "1", "--to", "bad.pth"}, 1, "", "nothing was written"},
		{"no such epoch", []string{"--epoch", "9"}, 3, "", "has no such checkpoint"},
		{"not in the shared folder", []string{"--newest", "--shared", dir}, 3, "", "does not exist"},
		{"no such folder to write to", []string{"--to", "nowhere/x.pth"}, 3, "", "no such file"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, dir, append([]string{"checkpoint", "pull", "s-aaaaaaaa"}, tc.args...)...)
			if r.code != tc.code || !strings.Contains(r.err, tc.text) {
				t.Fatalf("%+v", r)
			}
			if tc.file != "" {
				path := filepath.Join(dir, tc.file)
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, model) || r.out != path+"\n" {
					t.Errorf("%v, output %q", err, r.out)
				}
			}
		})
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestDataPackAndInfo(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a/1.png", "a/2.png", "b/1.png"} {
		putImage(t, filepath.Join(dir, "pics", p))
	}
	write(t, filepath.Join(dir, "pics/b/broken.png"), []byte("\x89PNG\r\n\x1a\nno more"))
	r := run(t, dir, "data", "pack", "pics", "--size", "4", "--cache", "cache")
	if r.code != 0 || !strings.Contains(r.err, "skipped b/broken.png") || !strings.Contains(r.err, "3 images packed, 1 skipped") {
		t.Fatalf("%+v", r)
	}
	file := strings.TrimSpace(r.out)
	r = run(t, dir, "data", "info", file, "-o", "csv")
	if r.code != 0 || !strings.HasPrefix(r.out, "class,index,images,share,") || !strings.Contains(r.out, "\na,0,2,0.66") || !strings.Contains(r.err, "left out when it was packed: b/broken.png") {
		t.Errorf("%+v", r)
	}
	r = run(t, dir, "data", "info", "pics")
	if r.code != 0 || !strings.HasPrefix(r.out, "INDEX  CLASS  IMAGES  SHARE") || !strings.Contains(r.out, "all         3  100.0 %") || !strings.Contains(r.err, "not an image: b/broken.png") {
		t.Errorf("%+v", r)
	}
	r = run(t, dir, "data", "info", "pics", "-o", "json", "--sheet", "sheet.png")
	if _, err := os.Stat(filepath.Join(dir, "sheet.png")); r.code != 0 || err != nil || !strings.Contains(r.out, `"kind": "folder"`) || !strings.Contains(r.out, `"ratio": 2`) {
		t.Errorf("%+v, %v", r, err)
	}
	if r = run(t, dir, "data", "info", "pics", "--per-class", "0"); r.code != 2 {
		t.Errorf("%+v", r)
	}
}

func TestDataSynth(t *testing.T) {
	dir := t.TempDir()
	args := []string{"data", "synth", "pics", "--style", "gothic", "--style", "tudor", "--train", "3", "--validation", "1", "--test", "0", "--size", "32"}
	r := run(t, dir, args...)
	if r.code != 0 || r.out != filepath.Join(dir, "pics/train")+"\n"+filepath.Join(dir, "pics/validation")+"\n" || !strings.Contains(r.err, "8 images of 2 styles, 8 drawn now") {
		t.Fatalf("%+v", r)
	}
	if r := run(t, dir, args...); r.code != 0 || !strings.Contains(r.err, "8 images of 2 styles, 0 drawn now") {
		t.Errorf("again: %+v", r)
	}
	if r := run(t, dir, "data", "info", "pics/train", "-o", "csv"); !strings.Contains(r.out, "\ngothic,0,3,0.5,0,0,0,") || !strings.Contains(r.out, "\ntudor,1,3,0.5,") {
		t.Errorf("%+v", r)
	}
	for want, args := range map[string][]string{
		"no style \"rococo\"": {"--style", "rococo"}, "give 32 to 1024": {"--size", "8"}, "give 0 to 1": {"--difficulty", "2"},
	} {
		if r := run(t, dir, append([]string{"data", "synth", "other"}, args...)...); r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := run(t, dir, "data", "synth", "none", "--train", "0", "--validation", "0", "--test", "0"); r.code != 2 {
		t.Errorf("%+v", r)
	}
}
