package local_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
)

// The test program, started with this set, starts a Redis, prints its pid and
// waits to be killed.
const parentEnv = "LOCAL_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if program := filepath.Base(os.Args[0]); strings.HasPrefix(program, "atelier-") {
		os.Exit(play(program, os.Args[1:]))
	}
	if dir := os.Getenv(parentEnv); dir != "" {
		p, err := local.StartRedis(context.Background(), dir, false)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		select {}
	}
	os.Exit(m.Run())
}

func limit(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// redis sends one command and returns the first line of the answer.
func redis(t *testing.T, addr, line string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(c, "%s\r\n", line)
	s, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(s)
}

// gone holds for a process that has ended, reaped or not.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestRedisLivesAndDiesAsTold(t *testing.T) {
	ctx := limit(t, 30*time.Second)
	for _, persist := range []bool{false, true} {
		t.Run("persist="+strconv.FormatBool(persist), func(t *testing.T) {
			p, err := local.StartRedis(ctx, t.TempDir(), persist)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop(time.Second)
			addr, pid := p.Addr, p.PID()
			redis(t, addr, "SET a 1")
			if err := p.Stop(5 * time.Second); err != nil {
				t.Fatal(err)
			}
			if p.Alive() || !gone(pid) {
				t.Fatal("it still runs after Stop")
			}
			if err := p.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if p.Addr != addr || p.PID() == pid {
				t.Errorf("after Start: %s pid %d, before: %s pid %d", p.Addr, p.PID(), addr, pid)
			}
			if got, want := redis(t, addr, "EXISTS a"), map[bool]string{false: ":0", true: ":1"}[persist]; got != want {
				t.Errorf("EXISTS a = %s after a restart, want %s", got, want)
			}
			redis(t, addr, "SET b 1")
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			if got := redis(t, addr, "DBSIZE"); got != ":0" {
				t.Errorf("DBSIZE = %s after Flush", got)
			}
			if err := p.Start(ctx); err == nil {
				t.Error("Start of a running process gave no error")
			}
		})
	}
}

func TestKillPauseRestart(t *testing.T) {
	ctx := limit(t, 30*time.Second)
	p, err := local.StartRedis(ctx, t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if got := redis(t, p.Addr, "PING"); got == "+PONG" {
		t.Error("a paused process answers")
	}
	if err := p.Continue(); err != nil {
		t.Fatal(err)
	}
	if got := redis(t, p.Addr, "PING"); got != "+PONG" {
		t.Errorf("PING = %s after Continue", got)
	}
	// A frozen process still ends by itself on Stop, because Stop wakes it.
	p.Pause()
	if err := p.Stop(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("Wait after Kill: %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal to an ended process: %v", err)
	}
}

func TestRestartWaitsForItsPort(t *testing.T) {
	ctx := limit(t, 20*time.Second)
	p, err := local.StartRedis(ctx, t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	p.Kill()
	l, err := net.Listen("tcp", p.Addr)
	if err != nil {
		t.Skip("the port is taken already:", err)
	}
	time.AfterFunc(time.Second, func() { l.Close() })
	if err := p.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if got := redis(t, p.Addr, "PING"); got != "+PONG" {
		t.Error(got)
	}
}

func TestAProcessThatEndsEarlyIsExplained(t *testing.T) {
	_, err := local.StartRedis(limit(t, 20*time.Second), t.TempDir(), false, "--no-such-directive", "1")
	if err == nil || !strings.Contains(err.Error(), "no-such-directive") {
		t.Fatalf("error %v does not show the log", err)
	}
}

// Servers end with the program that started them, even when it is killed.
func TestNothingOutlivesTheParent(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || convErr != nil || gone(pid) {
		t.Fatalf("the parent said %q, %v", line, err)
	}
	cmd.Process.Kill()
	for end := time.Now().Add(60 * time.Second); !gone(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("redis-server %d outlived its parent", pid)
		}
	}
}

func TestMissingProgramIsNamed(t *testing.T) {
	dir := t.TempDir()
	_, err := local.Start(limit(t, 10*time.Second), local.Config{Dir: filepath.Join(dir, "run"), BinDir: dir})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "atelier-coordinator")) {
		t.Fatal(err)
	}
}
