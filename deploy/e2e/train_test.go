package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/local"
)

// history is what the tests read of a training_history.json.
type history struct {
	Status  string    `json:"status"`
	Epochs  []int     `json:"epochs"`
	ValLoss []float64 `json:"val_loss"`
	Best    int       `json:"best_epoch"`
	TestAcc *float64  `json:"test_acc"`
	Images  int       `json:"test_images"`
}

func readHistory(dir string) (h history, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "training_history.json"))
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	return h, err
}

// tensors of a model file by name.
func tensors(t *testing.T, path string) map[string][]byte {
	t.Helper()
	s, err := checkpoint.OpenState(path)
	must(t, err)
	defer s.Close()
	all := map[string][]byte{}
	for _, x := range s.Tensors {
		all[x.Name] = bytes.Clone(x.Data)
	}
	return all
}

// here is a training on this machine: small images, everything on that
// draws random numbers.
func here(trainer, data, out string, more ...string) []string {
	return append([]string{"train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "6", "--batch_size", "16", "--lr", "0.002", "--no-mlflow",
		"--set", "image_size=32", "--set", "augmentation.cutmix.enabled=true", "--set", "augmentation.rotation=10", "--set", "threads=1", "--seed", "7", "--out", out}, more...)
}

// atelier train on this machine leaves the files it promises, and going on
// after kills gives the bits of a training left alone.
func TestTrainHere(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	data := filepath.Join(t.TempDir(), "facades")
	if _, stderr, code := atelier(t, ctx, nil, "data", "synth", data, "--train", "40", "--validation", "10", "--test", "10", "--size", "40",
		"--style", "gothic", "--style", "modernist", "--style", "colonial"); code != 0 {
		t.Fatalf("data synth: exit %d: %s", code, stderr)
	}
	whole := filepath.Join(t.TempDir(), "whole")
	stdout, stderr, code := atelier(t, ctx, nil, here(trainer, data, whole)...)
	if code != 0 || stdout != whole+"\n" {
		t.Fatalf("exit %d, %q:\n%s", code, stdout, stderr)
	}
	if n := strings.Count(stderr, "\nepoch "); n != 6 || !strings.Contains(stderr, "test accuracy") {
		t.Errorf("%d lines of epochs:\n%s", n, stderr)
	}
	want, err := readHistory(whole)
	must(t, err)
	if want.Status != "finished" || len(want.Epochs) != 6 || want.TestAcc == nil || want.Images != 30 {
		t.Errorf("history %+v", want)
	}
	for _, name := range []string{"best_model.pth", "training_diagnostics.txt", "image_batches/gothic.png", "image_batches/modernist.png", "image_batches/colonial.png"} {
		if st, err := os.Stat(filepath.Join(whole, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is there is not written over.
	if _, stderr, code := atelier(t, ctx, nil, here(trainer, data, whole)...); code != 1 || !strings.Contains(stderr, "--overwrite") {
		t.Errorf("a second training: exit %d:\n%s", code, stderr)
	}

	cut := filepath.Join(t.TempDir(), "cut")
	args, kills := here(trainer, data, cut), 0
	// The command dies with its trainer at five moments: while the trainer
	// loads, in an epoch, beside a report, beside a checkpoint.
	for _, wait := range []func() bool{
		func() bool { _, err := os.Stat(filepath.Join(cut, "resume/run.json")); return err == nil },
		func() bool { h, err := readHistory(cut); return err == nil && len(h.Epochs) >= 1 },
		func() bool {
			f, _ := filepath.Glob(filepath.Join(cut, "resume/.epoch-*"))
			h, err := readHistory(cut)
			return len(f) > 0 || err == nil && len(h.Epochs) >= 3
		},
		func() bool { h, err := readHistory(cut); return err == nil && len(h.Epochs) >= 3 },
		func() bool { _, err := os.Stat(filepath.Join(cut, "resume/epoch-0005-run-1.pth")); return err == nil },
	} {
		if killWhen(t, ctx, args, wait) {
			kills++
		}
		args = []string{"train", "--trainer-bin", trainer, "--resume", cut}
	}
	if _, stderr, code := atelier(t, ctx, nil, args...); code != 0 {
		t.Fatalf("going on: exit %d:\n%s", code, stderr)
	}
	if kills < 3 {
		t.Errorf("only %d of 5 kills met a training that was under way", kills)
	}
	got, err := readHistory(cut)
	must(t, err)
	if got.Status != "finished" || !slices.Equal(got.Epochs, want.Epochs) || !slices.Equal(got.ValLoss, want.ValLoss) || got.Best != want.Best || *got.TestAcc != *want.TestAcc {
		t.Errorf("history %+v, uninterrupted %+v", got, want)
	}
	for _, name := range []string{"final_model.pth", "best_model.pth"} {
		alone, again := tensors(t, filepath.Join(whole, name)), tensors(t, filepath.Join(cut, name))
		if len(alone) < 10 || len(alone) != len(again) {
			t.Errorf("%s: %d tensors, uninterrupted %d", name, len(again), len(alone))
		}
		for k, b := range alone {
			if !bytes.Equal(b, again[k]) {
				t.Errorf("%s: %s differs from an uninterrupted training's", name, k)
			}
		}
	}
}

// killWhen starts the command and kills it (SIGKILL, it alone) once ready says
// so; its trainer must be gone soon after. It reports whether there was
// something to kill.
func killWhen(t *testing.T, ctx context.Context, args []string, ready func() bool) bool {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for !ready() {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("atelier %s: %v:\n%s", strings.Join(args, " "), err, errs.String())
			}
			return false
		case <-time.After(3 * time.Millisecond):
		}
	}
	children := childrenOf(cmd.Process.Pid)
	must(t, cmd.Process.Kill())
	<-ended
	deadline := time.Now().Add(time.Minute)
	for _, pid := range children {
		for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if time.Now().After(deadline) {
				t.Fatalf("trainer %d outlives the command that started it", pid)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return true
}

// childrenOf lists the processes a process started.
func childrenOf(pid int) (all []int) {
	tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/children"))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// An interrupt ends a training with its last checkpoint, says how to go on and
// leaves with 130.
func TestInterruptedTraining(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	data, out := facades(t, ctx), filepath.Join(t.TempDir(), "out")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), here(trainer, data, out, "--epochs", "5000")...)
	var errs strings.Builder
	cmd.Stderr = &errs
	must(t, cmd.Start())
	for {
		if _, err := os.Stat(filepath.Join(out, "resume/best.pth")); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no checkpoint:\n%s", errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 130 || !strings.Contains(errs.String(), "to resume: atelier train --resume "+out) {
		t.Errorf("%s:\n%s", cmd.ProcessState, errs.String())
	}
	h, err := readHistory(out)
	must(t, err)
	if h.Status != "interrupted" || len(h.Epochs) == 0 || len(tensors(t, filepath.Join(out, "best_model.pth"))) < 10 {
		t.Errorf("history %+v", h)
	}
}

// With a cluster addressed the same training runs there, with the same bits,
// and its results come here; who stops watching can come back.
func TestTrainInACluster(t *testing.T) {
	flags := torch(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	data := facades(t, ctx)
	must(t, os.Rename(filepath.Join(data, "validation"), filepath.Join(data, "v")))
	must(t, os.CopyFS(filepath.Join(data, "validation"), os.DirFS(filepath.Join(data, "v"))))
	must(t, os.Rename(filepath.Join(data, "v"), filepath.Join(data, "test")))
	alone, away := filepath.Join(t.TempDir(), "alone"), filepath.Join(t.TempDir(), "away")
	if _, stderr, code := atelier(t, ctx, nil, here(flags[1], data, alone)...); code != 0 {
		t.Fatalf("here: exit %d:\n%s", code, stderr)
	}
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ThreadsPerSlot: 1, ExtraArgs: map[string][]string{"worker": flags}})

	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), here(flags[1], data, away)...)
	cmd.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
	var errs strings.Builder
	cmd.Stderr = &errs
	must(t, cmd.Start())
	for {
		if h, err := readHistory(away); err == nil && len(h.Epochs) > 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no report:\n%s", errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 && (code != 130 || !strings.Contains(errs.String(), "continues as sweep s-")) {
		t.Errorf("interrupted: %s:\n%s", cmd.ProcessState, errs.String())
	}
	stdout, stderr, code := atelier(t, ctx, cluster, "train", "--trainer-bin", flags[1], "--resume", away)
	if code != 0 || stdout != away+"\n" {
		t.Fatalf("taken up again: exit %d, %q:\n%s", code, stdout, stderr)
	}
	if _, stderr, code := atelier(t, ctx, cluster, "train", "--resume", away, "--epochs", "9"); code != 2 || !strings.Contains(stderr, "--epochs: sweep s-") {
		t.Errorf("other settings for a sweep that is under way: exit %d:\n%s", code, stderr)
	}
	want, err := readHistory(alone)
	must(t, err)
	got, err := readHistory(away)
	must(t, err)
	if got.Status != "finished" || !slices.Equal(got.ValLoss, want.ValLoss) || got.TestAcc == nil || *got.TestAcc != *want.TestAcc {
		t.Errorf("history %+v, on this machine %+v", got, want)
	}
	for _, name := range []string{"final_model.pth", "best_model.pth"} {
		one, other := tensors(t, filepath.Join(alone, name)), tensors(t, filepath.Join(away, name))
		for k, b := range one {
			if !bytes.Equal(b, other[k]) {
				t.Errorf("%s: %s differs from that of the same training on this machine", name, k)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(away, "image_batches/gothic.png")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(away, "training_diagnostics.txt"))
	must(t, err)
	if !strings.Contains(string(text), "sweep        s-") || !strings.Contains(string(text), "workers") {
		t.Errorf("diagnostics:\n%s", text)
	}
	if _, stderr, code := atelier(t, ctx, cluster, here(flags[1], data, filepath.Join(t.TempDir(), "bad"), "--set", "precision=fp16")...); code != 6 || !strings.Contains(stderr, "bad spec") {
		t.Errorf("a training that cannot be: exit %d:\n%s", code, stderr)
	}
}
