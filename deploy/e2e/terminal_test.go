package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal of 120 columns: a person's end and a
// program's end.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120})
	}
	must(t, err)
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { program.Close() })
	return person, program
}

// On a terminal a bare `atelier train` asks for model and tracking, takes the
// rest from conf/training_config.yaml, and draws a bar.
func TestTrainOnATerminal(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "conf/training_config.yaml"), []byte("epochs: 40\nimage_size: 32\nlr: 0.01\ndata: {train: "+data+"/train, validation: "+data+"/validation}\n"), 0o644))

	person, program := terminal(t)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "train")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ATELIER_TRAINER_BIN="+trainer, "TERM=xterm")
	cmd.Stdin, cmd.Stderr = program, program
	var out strings.Builder
	cmd.Stdout = &out
	must(t, cmd.Start())

	var mu sync.Mutex
	var shown strings.Builder
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			mu.Lock()
			shown.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	sees := func(text string) {
		t.Helper()
		for {
			mu.Lock()
			all := shown.String()
			mu.Unlock()
			if strings.Contains(all, text) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("never shown: %q in\n%q", text, all)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	sees("Model, by number or name [resnet18]: ")
	person.WriteString("1\n")
	sees("Track this training with MLflow? [Y/n]: ")
	person.WriteString("y\n")
	sees("vanilla on 180 images of 3 classes: 40 epochs")
	sees("finished in ")
	sees("mlflow ui")
	must(t, cmd.Wait())
	if got := out.String(); got != "checkpoints/vanilla_ep40_bs32_lr0.01\n" {
		t.Errorf("standard output %q", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "checkpoints/vanilla_ep40_bs32_lr0.01/training_diagnostics.txt"))
	must(t, err)
	for _, want := range []string{"vanilla ", "(prompt)", "(conf/training_config.yaml:1)"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// The first second belongs to packing, one word a second is told.
	if !regexp.MustCompile(`\r\x1b\[Kepoch \d+/40 \[[#-]{20}\] +\d+%  loss `).MatchString(shown.String()) {
		t.Errorf("no bar in\n%q", shown.String())
	}
	for _, want := range []string{"  loss ", "  acc ", " images/s", "epoch 40/40  train_loss"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("no %q in\n%q", want, shown.String())
		}
	}
}

// A training whose loss is no number any more ends as diverged, with code 1
// and its last good checkpoint.
func TestDivergedTraining(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	data, out := facades(t, ctx), filepath.Join(t.TempDir(), "out")
	if _, stderr, code := atelier(t, ctx, nil, here(trainer, data, out, "--set", "optimizer=sgd", "--epochs", "1")...); code != 0 {
		t.Fatalf("exit %d:\n%s", code, stderr)
	}
	_, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--resume", out, "--epochs", "9", "--lr", "1000", "--set", "weight_decay=10") // every step makes the weights 10,000 times larger
	if code != 1 || !strings.Contains(stderr, "diverged") || !strings.Contains(stderr, "--lr 100 ") {
		t.Errorf("exit %d:\n%s", code, stderr)
	}
	h, err := readHistory(out)
	must(t, err)
	if h.Status != "diverged" || len(h.Epochs) == 0 || len(h.Epochs) == 9 || len(tensors(t, filepath.Join(out, "best_model.pth"))) < 10 {
		t.Errorf("history %+v", h)
	}
}
