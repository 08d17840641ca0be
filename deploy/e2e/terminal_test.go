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

// terminal opens a pseudo-terminal of so many columns: a person's end and a
// program's end.
func terminal(t *testing.T, columns uint16) (person, program *os.File) {
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
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns})
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

	at := sit(t, ctx, dir, 120, trainer, "train")
	at.sees("Model, by number or name [resnet18]: ")
	at.types("1")
	at.sees("Track this training with MLflow? [Y/n]: ")
	at.types("y")
	at.sees("vanilla from scratch on 180 images of 3 classes")
	at.sees("finished in ")
	at.sees("mlflow ui")
	must(t, at.cmd.Wait())
	if got := at.out.String(); got != "checkpoints/vanilla_ep40_bs32_lr0.01\n" {
		t.Errorf("standard output %q", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "checkpoints/vanilla_ep40_bs32_lr0.01/training_diagnostics.txt"))
	must(t, err)
	for _, want := range []string{"vanilla ", "(prompt)", "(conf/training_config.yaml:1)"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// The first second belongs to packing, one word a second is told.
	if !regexp.MustCompile(`\r\x1b\[Kepoch \d+/40 \[[#-]{20}\] +\d+%, about \S+ left  acc `).MatchString(at.shown()) {
		t.Errorf("no bar in\n%q", at.shown())
	}
	for _, want := range []string{"  loss ", "  acc ", " images/s", "epoch 40/40  val_acc"} {
		if !strings.Contains(at.shown(), want) {
			t.Errorf("no %q in\n%q", want, at.shown())
		}
	}
}

// session is the command with a person at its terminal.
type session struct {
	t      *testing.T
	ctx    context.Context
	cmd    *exec.Cmd
	person *os.File
	out    strings.Builder // standard output

	mu  sync.Mutex
	all strings.Builder // that the terminal was sent
}

func sit(t *testing.T, ctx context.Context, dir string, columns uint16, trainer string, args ...string) *session {
	t.Helper()
	person, program := terminal(t, columns)
	s := &session{t: t, ctx: ctx, person: person, cmd: exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args...)}
	s.cmd.Dir, s.cmd.Env = dir, append(os.Environ(), "ATELIER_TRAINER_BIN="+trainer, "TERM=xterm", "ATELIER_WEIGHTS_URL=http://127.0.0.1:1/")
	s.cmd.Stdin, s.cmd.Stderr, s.cmd.Stdout = program, program, &s.out
	must(t, s.cmd.Start())
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			s.mu.Lock()
			s.all.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *session) types(line string) { s.person.WriteString(line + "\n") }

func (s *session) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

func (s *session) sees(text string) {
	s.t.Helper()
	for !strings.Contains(s.shown(), text) {
		if s.ctx.Err() != nil {
			s.t.Fatalf("never shown: %q in\n%q", text, s.shown())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A newcomer with one folder per class types `atelier train` and answers at most
// four questions by Enter. The lines fit the terminal; the end has a curve and
// the next commands, which work.
func TestFirstTraining(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir, columns := t.TempDir(), 80
	must(t, os.CopyFS(filepath.Join(dir, "styles"), os.DirFS(filepath.Join(facades(t, ctx), "validation"))))
	must(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "conf/training_config.yaml"), []byte("epochs: 2\nmodel: mobilenet_v3_small\n"), 0o644))
	at := sit(t, ctx, dir, uint16(columns), trainer, "train")
	at.sees("Folder of images [styles: 3 classes, ")
	at.types("")
	at.sees("Model, by number or name [mobilenet_v3_small]: ")
	at.types("")
	at.sees("Start, by number [2]: ")
	at.types("")
	at.sees("Track this training with MLflow? [Y/n]: ")
	at.types("n")
	must(t, at.cmd.Wait())
	folder := "checkpoints/mobilenet_v3_small_ep2_bs32_lr0.001"
	if at.out.String() != folder+"\n" {
		t.Errorf("standard output %q", at.out.String())
	}
	at.sees("atelier serve ")
	at.sees(folder + "/best_model.pth\r\n") // the terminal may be read later
	shown := at.shown()
	for _, want := range []string{"mobilenet_v3_small from scratch on ", "split styles into styles_split: ", " px  under 1 min", "\r\n  epochs    2, batch size 32 ", "  --epochs N --batch-size N\r\n", "  --set image_size=N\r\n", "  --lr RATE\r\n", "  --weights NAME|FILE|none\r\n", "  --set device=cpu --seed N\r\n",
		"best epoch ", "test accuracy", "  curve   " + folder + "/train_history.png", "Next:\r\n"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	if asked := strings.Count(shown, "]: "); asked > 4 {
		t.Errorf("%d questions in\n%s", asked, shown)
	}
	for _, line := range regexp.MustCompile(`[\r\n]+`).Split(shown, -1) {
		line = strings.ReplaceAll(line, "\x1b[K", "")
		if next := strings.Index(shown, "Next:"); len(line) >= columns && (strings.HasPrefix(line, "epoch ") || strings.Contains(shown[max(next, 0):], line)) {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	must(t, exec.Command("test", "-s", filepath.Join(dir, folder, "train_history.png")).Run())
	// What is too long for the screen goes on behind a backslash, as a shell takes it.
	oneLine := regexp.MustCompile(`\s*\\\r\n\s*`).ReplaceAllString(shown, " ")
	infer := regexp.MustCompile(`atelier (infer --checkpoint \S+ --image-dir \S+)`).FindStringSubmatch(oneLine)
	if infer == nil {
		t.Fatalf("no command to evaluate in\n%s", shown)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), strings.Fields(infer[1])...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ATELIER_TRAINER_BIN="+trainer)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", infer[0], err, b)
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
	// There is nothing left to train: other settings are refused, nothing is written.
	before, err := os.ReadFile(filepath.Join(out, "resume/run.json"))
	must(t, err)
	for _, x := range []struct {
		more []string
		code int
		text string
	}{{[]string{"--lr", "1000"}, 2, "--lr: the training in "}, {nil, 0, "has finished (1 epoch); for more: --epochs N"}} {
		_, stderr, code := atelier(t, ctx, nil, append([]string{"train", "--trainer-bin", trainer, "--resume", out}, x.more...)...)
		after, err := os.ReadFile(filepath.Join(out, "resume/run.json"))
		must(t, err)
		if code != x.code || !strings.Contains(stderr, x.text) || string(after) != string(before) {
			t.Errorf("%q: exit %d, changed %v:\n%s", x.more, code, string(after) != string(before), stderr)
		}
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
