package e2e_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// membersOf are the trainers that a process has started.
func membersOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		var pid, of int
		var state string
		head, after, _ := strings.Cut(string(b), ") ")
		fmt.Sscan(head, &pid)
		fmt.Sscan(after, &state, &of)
		if of == parent && state != "Z" && strings.Contains(head, "(atelier-traine") {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func hashOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// A training by two trainers on this machine comes to the model of one, byte for
// byte, when trainers are killed and stopped on the way, when it is interrupted and
// resumed with other members, and each epoch is in its history once.
func TestTrainWithMembers(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	data, out := facades(t, ctx), t.TempDir()
	args := func(name string, more ...string) []string {
		return append([]string{"train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "6", "--batch_size", "16", "--lr", "0.002", "--no-mlflow",
			"--set", "image_size=32", "--set", "augmentation.cutmix.enabled=true", "--set", "augmentation.rotation=10", "--set", "shard_threads=1", "--seed", "7",
			"--out", filepath.Join(out, name)}, more...)
	}
	if _, stderr, code := atelier(t, ctx, nil, args("one", "--members", "1", "--set", "shards=4")...); code != 0 {
		t.Fatalf("exit %d:\n%s", code, stderr)
	}
	want, err := readHistory(filepath.Join(out, "one"))
	must(t, err)
	check := func(name string) {
		t.Helper()
		got, err := readHistory(filepath.Join(out, name))
		must(t, err)
		if got.Status != "finished" || !slices.Equal(got.Epochs, want.Epochs) || !slices.Equal(got.ValLoss, want.ValLoss) || got.Best != want.Best {
			t.Errorf("%s: history %+v, of one trainer %+v", name, got, want)
		}
		for _, file := range []string{"best_model.pth", "final_model.pth"} {
			if a, b := hashOf(t, filepath.Join(out, name, file)), hashOf(t, filepath.Join(out, "one", file)); a != b {
				t.Errorf("%s: %s is %.12s, of one trainer %.12s", name, file, a, b)
			}
		}
	}

	for name, x := range map[string]struct {
		sig   syscall.Signal
		which func(pids []int) int
	}{
		"first killed":   {syscall.SIGKILL, func(pids []int) int { return pids[0] }},
		"second killed":  {syscall.SIGKILL, func(pids []int) int { return pids[1] }},
		"second stopped": {syscall.SIGSTOP, func(pids []int) int { return pids[1] }},
	} {
		dir := filepath.Join(out, name)
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args(name, "--members", "2", "--set", "shards=4")...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		hit := 0
		for running := true; running; {
			select {
			case err := <-ended:
				if err != nil || hit == 0 {
					t.Fatalf("%s: %v, hit %d:\n%s", name, err, hit, stderr.String())
				}
				running = false
			case <-time.After(5 * time.Millisecond):
				h, _ := readHistory(dir)
				pids := membersOf(t, cmd.Process.Pid)
				if hit == 0 && len(h.Epochs) >= 2 && h.Status == "running" && len(pids) == 2 {
					hit = x.which(pids)
					must(t, syscall.Kill(hit, x.sig))
				}
			}
		}
		if !strings.Contains(stderr.String(), "the other one continues") {
			t.Errorf("%s: nothing is shown of it:\n%s", name, stderr.String())
		}
		check(name)
	}

	// An interrupt pauses both; three continue.
	dir := filepath.Join(out, "interrupted")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args("interrupted", "--members", "2", "--set", "shards=4")...)
	must(t, cmd.Start())
	for h, _ := readHistory(dir); len(h.Epochs) < 2; h, _ = readHistory(dir) {
		time.Sleep(5 * time.Millisecond)
		must(t, ctx.Err())
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit %d", code)
	}
	if _, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--resume", dir, "--members", "3"); code != 0 || !strings.Contains(stderr, "3 members") {
		t.Fatalf("resumed: exit %d:\n%s", code, stderr)
	}
	check("interrupted")

	// With other batches from here on the learning rate is spoken of, once, and in the report.
	_, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--resume", dir, "--members", "2", "--batch-size", "32", "--epochs", "7")
	note := "an update is of 32 images from here on, before of 16; lr is 0.002 as it is set, "
	if code != 0 || strings.Count(stderr, note) != 1 {
		t.Errorf("other batches: exit %d:\n%s", code, stderr)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "training_diagnostics.txt")); err != nil || strings.Count(string(text), note) != 1 {
		t.Errorf("other batches: %v, report\n%s", err, text)
	}

	// What cannot be is refused before anything is written.
	for _, x := range []struct{ members, also, want string }{
		{"--members=4", "--set=shards=2", "4 members cannot share 2 shards"},
		{"--members=3", "--batch_size=30", "a batch_size of 30 does not divide into 4 shards"},
		{"--members=4-2", "--set=shards=4", "members.min 4 is above members.max 2"},
		{"--members=2", "--set=device=cuda:0", "device names one (cuda:0)"},
	} {
		_, stderr, code := atelier(t, ctx, nil, args("refused", x.members, x.also)...)
		if _, err := os.Stat(filepath.Join(out, "refused")); code == 0 || !strings.Contains(stderr, x.want) || err == nil {
			t.Errorf("%s %s: exit %d, folder %v:\n%s", x.members, x.also, code, err, stderr)
		}
	}
}
