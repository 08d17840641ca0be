package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// On a terminal of 80 columns `make run` shows leaderboards and the best trial that fit it, with numbers in few digits.
func TestLocalRunFitsTheTerminal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	person, program := terminal(t, 80)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier-local"), "--trainer", "sim", "--methods", "random", "--trials", "4", "--epochs", "2",
		"--coordinators", "1", "--workers", "1", "--dir", t.TempDir())
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	must(t, cmd.Start())
	var all strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			all.Write(b[:n])
			if err != nil || strings.Contains(all.String(), "to keep the cluster up") && strings.Contains(all.String(), "ending the cluster") {
				return
			}
		}
	}()
	err := cmd.Wait()
	program.Close()
	<-read
	if err != nil {
		t.Fatalf("%v\n%s", err, all.String())
	}
	_, shown, _ := strings.Cut(all.String(), "== Leaderboards ==")
	shown, _, _ = strings.Cut(shown, "== Reports ==")
	if !strings.Contains(shown, "RANK") || !strings.Contains(shown, "best: ") {
		t.Fatalf("no leaderboard in\n%s", all.String())
	}
	for line := range strings.SplitSeq(strings.ReplaceAll(shown, "\r", ""), "\n") {
		if utf8.RuneCountInString(line) > 80 {
			t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
		}
		if regexp.MustCompile(`\d\.\d{9}`).MatchString(line) {
			t.Errorf("too many digits: %q", line)
		}
	}
}
