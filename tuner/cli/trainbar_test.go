package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/tuner/cli"
)

// A training's lines fit narrow terminals: the accuracies, the best and the
// loss are whole, the bar keeps its time left, and numbers are short. A loss
// beyond sense is called diverged.
func TestTrainLinesFitTheTerminal(t *testing.T) {
	trainer := t.TempDir()
	script := `#!/bin/sh
echo '{"event":"hello","protocol":1,"name":"torch","message":"pretended"}' >&3
read job
m='"metrics":{"train_loss":1.23456789,"train_acc":0.5,"val_loss":1.3456789,"val_acc":0.61,"images_per_s":37.5,"lr":0.001}'
echo '{"event":"epoch","epoch":1,"seconds":4.5,'"$m"'}' >&3
sleep 0.2
echo '{"event":"progress","epoch":2,"step":15,"steps":100,"metrics":{"train_loss":1.23456789,"train_acc":0.5,"images_per_s":37.5}}' >&3
sleep 0.2
echo '{"event":"epoch","epoch":2,"seconds":4.5,"metrics":{"train_loss":900000000.5,"train_acc":0.2,"val_loss":595464546908344704,"val_acc":0.2,"images_per_s":37.5,"lr":0.001}}' >&3
echo '{"event":"failed","class":"bad_spec","message":"enough seen"}' >&3
exit 1
`
	if err := os.WriteFile(filepath.Join(trainer, "atelier-trainer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", trainer+":/usr/bin:/bin")
	for _, width := range []int{60, 80} {
		dir := imageFolder(t)
		var out, errs bytes.Buffer
		e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Dir: dir, Width: func() int { return width }, Live: true}
		if code := e.Run(t.Context(), []string{"train", "--no-mlflow", "--out", "o"}); code != 1 {
			t.Errorf("exit %d", code)
		}
		shown := errs.String()
		for _, want := range []string{"epoch  1/10  val_acc 0.610  val_loss 1.3457 *", "epoch  2/10  val_acc 0.200  diverged", "left  acc 0.500"} {
			if !strings.Contains(shown, want) {
				t.Errorf("%d columns: no %q in\n%q", width, want, shown)
			}
		}
		if long := strings.Contains(shown, "val_loss 1.3457 *  best epoch 1 (acc 0.610)"); long != (width == 80) {
			t.Errorf("%d columns: %q", width, shown)
		}
		for _, line := range strings.FieldsFunc(shown, func(r rune) bool { return r == '\n' || r == '\r' }) {
			line = strings.TrimPrefix(line, "\x1b[K")
			if strings.HasPrefix(line, "epoch") && len(line) >= width {
				t.Errorf("%d columns: %d in %q", width, len(line), line)
			}
		}
	}
}

// Of several trainers the line shows how many there are, on 80 columns, too; the
// one that is lost is told of as it happens.
func TestTrainLinesOfMembers(t *testing.T) {
	trainer := t.TempDir()
	script := `#!/bin/sh
echo '{"event":"hello","protocol":1,"name":"torch","message":"pretended","groups":1}' >&3
read job
case "$job" in *'"group":{"token":1,"member":1,'*) ;; *'"member":2,'*) sleep 0.5; kill -KILL $$;; *) exit 1;; esac
echo '{"event":"view","view":{"number":1,"members":[1,2],"step":0,"reason":"start","pause":0}}' >&3
m='"metrics":{"train_loss":1.23456789,"train_acc":0.5,"val_loss":1.3456789,"val_acc":0.61,"images_per_s":37.5,"lr":0.001}'
echo '{"event":"epoch","epoch":1,"seconds":4.5,'"$m"'}' >&3
sleep 0.2
echo '{"event":"progress","epoch":2,"step":15,"steps":100,"metrics":{"train_loss":1.23456789,"train_acc":0.5,"images_per_s":37.5},"pace":{"step_s":0.25,"waiting":0.125,"slowest":2,"lag":0.5}}' >&3
sleep 1
echo '{"event":"failed","class":"bad_spec","message":"enough seen"}' >&3
exit 1
`
	if err := os.WriteFile(filepath.Join(trainer, "atelier-trainer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", trainer+":/usr/bin:/bin")
	for width, want := range map[int]string{80: "2 members  acc 0.500", 140: "2 members  acc 0.500  loss 1.2346  38 images/s  12% waiting"} {
		dir := imageFolder(t)
		var out, errs bytes.Buffer
		e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Dir: dir, Width: func() int { return width }, Live: true}
		if code := e.Run(t.Context(), []string{"train", "--no-mlflow", "--out", "o", "--members", "2", "--batch-size", "8", "--set", "device=cpu", "--set", "shard_threads=1"}); code != 1 {
			t.Errorf("exit %d", code)
		}
		shown := errs.String()
		for _, want := range []string{want, "member 2 was killed from outside (SIGKILL); the other one continues", "2 members of 1 thread"} {
			if !strings.Contains(shown, want) {
				t.Errorf("%d columns: no %q in\n%q", width, want, shown)
			}
		}
		for _, line := range strings.FieldsFunc(shown, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = strings.TrimPrefix(line, "\x1b[K"); strings.HasPrefix(line, "epoch") && len([]rune(line)) >= width {
				t.Errorf("%d columns: %d in %q", width, len([]rune(line)), line)
			}
		}
		text, err := os.ReadFile(filepath.Join(dir, "o/training_diagnostics.txt"))
		if err != nil || !strings.Contains(string(text), "step         0.25 s, of which a member waits for others 12 %; member 2 computes longest, 50 % above the mean") {
			t.Errorf("diagnostics %s, %v", text, err)
		}
	}
}

// A trainer that somebody killed is called that: memory is a guess, and the
// command that resumes is there.
func TestKilledTrainerSaysSo(t *testing.T) {
	trainer := t.TempDir()
	script := `#!/bin/sh
echo '{"event":"hello","protocol":1,"name":"torch","message":"pretended"}' >&3
read job
echo '{"event":"epoch","epoch":1,"seconds":4.5,"metrics":{"train_loss":1.2,"train_acc":0.5,"val_loss":1.3,"val_acc":0.6,"images_per_s":37.5,"lr":0.001}}' >&3
kill -KILL $$
`
	if err := os.WriteFile(filepath.Join(trainer, "atelier-trainer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", trainer+":/usr/bin:/bin")
	r := talk(t, imageFolder(t), false, "", nil, "train", "--no-mlflow", "--out", "o")
	for _, want := range []string{"atelier train: the trainer was killed from outside (SIGKILL), perhaps for want of memory (dmesg", "\n  - to resume after the last epoch: atelier train --resume ", "/o\n", "if memory was short: reduce --batch-size"} {
		if r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("exit %d, no %q in\n%s", r.code, want, r.err)
		}
	}
}

// An interrupted inference says that it was.
func TestInterruptedInferSaysSo(t *testing.T) {
	dir := imageFolder(t)
	write(t, filepath.Join(dir, "trainer"), []byte("#!/bin/sh\necho '{\"event\":\"hello\",\"protocol\":1,\"name\":\"torch\",\"message\":\"pretended\"}' >&3\nread job\nexec sleep 60\n"))
	write(t, filepath.Join(dir, "best_model.pth"), []byte("weights"))
	if err := os.Chmod(filepath.Join(dir, "trainer"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Dir: dir, Width: func() int { return 80 }}
	code := e.Run(ctx, []string{"infer", "--checkpoint", "best_model.pth", "--image-dir", "architectural_style_images/train", "--trainer-bin", filepath.Join(dir, "trainer")})
	if code != 130 || !strings.Contains(errs.String(), "interrupted: the results are incomplete") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}
