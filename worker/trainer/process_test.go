//go:build libtorch

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// trainer is the program under test, built once unless ATELIER_TRAINER names it.
var trainer string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "atelier-trainer-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	trainer = filepath.Join(dir, "atelier-trainer")
	build := exec.Command("go", "build", "-tags", "libtorch", "-o", trainer, ".")
	if built := os.Getenv("ATELIER_TRAINER"); built != "" { // a machine without Go: deploy/libtorch/gpu-test.sh
		trainer, build = built, exec.Command("test", "-x", built)
	}
	build.Stderr = os.Stderr
	code := 1
	if err := build.Run(); err == nil {
		code = m.Run()
		if err := endPeer(); err != nil {
			fmt.Fprintln(os.Stderr, "testdata/parity.py:", err)
			code = max(code, 1)
		}
	} else {
		fmt.Fprintln(os.Stderr, "build atelier-trainer:", err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a running trainer and the pipes to it.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events *trainerproto.Reader
	stderr *bytes.Buffer
	fd3    *os.File
	links  *links.Sender // descriptor 4
}

// start runs `atelier-trainer train` and waits for its hello. wrap, if any,
// is a command line put in front.
func start(t *testing.T, wrap ...string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	line := append(wrap, trainer, "train")
	p := &process{t: t, cmd: exec.Command(line[0], line[1:]...), events: trainerproto.NewReader(r), stderr: &bytes.Buffer{}, fd3: r}
	ours, theirs, err := links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	p.links = links.NewSender(ours)
	p.cmd.ExtraFiles = []*os.File{w, theirs}
	p.cmd.Stderr = p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	theirs.Close()
	t.Cleanup(func() {
		p.links.Close()
		p.cmd.Process.Kill()
		p.cmd.Wait()
		r.Close()
	})
	if e := p.next(); e.Kind != trainerproto.EventHello || e.Protocol != trainerproto.Version || e.Name != "torch" {
		t.Fatalf("first event is %+v, want hello", e)
	}
	return p
}

func (p *process) send(v any) {
	p.t.Helper()
	if err := trainerproto.NewWriter(p.stdin).Send(v); err != nil {
		p.t.Fatal(err)
	}
}

// next is the next event.
func (p *process) next() trainerproto.Event {
	p.t.Helper()
	e, err := p.events.Event()
	if err != nil {
		p.t.Fatalf("no further event: %v; standard error:\n%s", err, p.stderr)
	}
	return e
}

// until reads events up to one that ends reading, and returns all of them.
func (p *process) until(last func(trainerproto.Event) bool) []trainerproto.Event {
	p.t.Helper()
	var all []trainerproto.Event
	for {
		e := p.next()
		all = append(all, e)
		if last(e) || e.Kind == trainerproto.EventDone || e.Kind == trainerproto.EventFailed {
			return all
		}
	}
}

func never(trainerproto.Event) bool { return false }

// code is the exit code, awaited for at most a minute.
func (p *process) code() int {
	p.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.t.Fatal(err)
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		p.cmd.Process.Kill()
		<-ended // two calls of Wait at once may not return
		p.t.Fatalf("did not end; standard error:\n%s", p.stderr)
		return -1
	}
}

// finish runs a job to its end and returns its events.
func finish(t *testing.T, job trainerproto.Job) []trainerproto.Event {
	t.Helper()
	p := start(t)
	p.send(job)
	events := p.until(never)
	if last := events[len(events)-1]; last.Kind != trainerproto.EventDone {
		t.Fatalf("ended with %+v; standard error:\n%s", last, p.stderr)
	}
	if c := p.code(); c != 0 {
		t.Fatalf("exit code %d after done; standard error:\n%s", c, p.stderr)
	}
	return events
}

// of picks the events of a kind.
func of(events []trainerproto.Event, kind string) (some []trainerproto.Event) {
	for _, e := range events {
		if e.Kind == kind {
			some = append(some, e)
		}
	}
	return some
}

// imageFolder makes two image folders, train and validation, of three classes
// that differ in colour and stripes, with noise.
func imageFolder(t testing.TB, train, validation int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	for part, n := range map[string]int{"train": train, "validation": validation} {
		for class, name := range []string{"brick", "glass", "timber"} {
			folder := filepath.Join(dir, part, name)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				im := image.NewNRGBA(image.Rect(0, 0, 40, 40))
				for y := range 40 {
					for x := range 40 {
						v := uint8(r.IntN(90))
						stripe := uint8(60 * ((x*(class+1) + y*class) / 6 % 2))
						im.SetNRGBA(x, y, color.NRGBA{v + stripe, 80 + v/2 + uint8(20*class), 60 + v + stripe/2, 255})
					}
				}
				var b bytes.Buffer
				if err := png.Encode(&b, im); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%03d.png", i)), b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return dir
}

// newJob is a short vanilla run on images in base.
func newJob(t testing.TB, base string, training map[string]any) trainerproto.Job {
	t.Helper()
	all := map[string]any{"model": "vanilla", "epochs": 3, "batch_size": 16, "image_size": 32, "lr": 0.01,
		"data": map[string]any{"train": "train", "validation": "validation"}}
	for k, v := range training {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return trainerproto.Job{Protocol: trainerproto.Version, Sweep: "s-test", Trial: 1, Run: 1, Seed: 11, Training: b, Params: []byte(`{}`),
		Metric: "val_loss", Device: "cpu", Threads: 2, Dir: t.TempDir(), BaseDir: base, CacheDir: t.TempDir()}
}
