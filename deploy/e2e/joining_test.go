package e2e_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
)

// daemon is a program that is left running; its log is what it writes.
type daemon struct {
	cmd  *exec.Cmd
	log  lockedBuffer
	file string // its addresses, once it serves
	data string // its folder
}

// startDaemon starts a coordinator or a worker on free ports.
func startDaemon(t *testing.T, name string, args ...string) *daemon {
	t.Helper()
	d := &daemon{file: filepath.Join(t.TempDir(), "addresses.json"), data: t.TempDir()}
	args = append(args, "--data", d.data, "--gossip", "127.0.0.1:0", "--address-file", d.file)
	if name == "atelier-coordinator" {
		args = append(args, "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0")
	} else {
		args = append(args, "--listen", "127.0.0.1:0", "--slots", "1")
	}
	d.cmd = exec.Command(filepath.Join(bin, name), args...)
	d.cmd.Stderr = &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, d.cmd.Start())
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	})
	return d
}

// address waits for one of the addresses it serves at.
func (d *daemon) address(t *testing.T, ctx context.Context, key string) string {
	t.Helper()
	for {
		var at map[string]any
		if b, err := os.ReadFile(d.file); err == nil && json.Unmarshal(b, &at) == nil {
			return at[key].(string)
		}
		if ctx.Err() != nil {
			t.Fatalf("no addresses:\n%s", &d.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// says waits until the log has a line with all of these texts.
func (d *daemon) says(t *testing.T, ctx context.Context, texts ...string) {
	t.Helper()
	for {
		for line := range strings.Lines(d.log.String()) {
			all := true
			for _, text := range texts {
				all = all && strings.Contains(line, text)
			}
			if all {
				return
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("no line with %q:\n%s", texts, &d.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// health asks a worker's /healthz until the answer has a text.
func health(t *testing.T, ctx context.Context, addr string, code int, text string) {
	t.Helper()
	for {
		body := ""
		resp, err := http.Get("http://" + addr + "/healthz")
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if body = string(b); resp.StatusCode == code && strings.Contains(body, text) {
				return
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("/healthz: %v, %q; want %d, %q", err, body, code, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Who joins and finds nobody says whom it tried and what came of it.
func TestJoiningNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a, b := nobody(t), nobody(t)
	w := startDaemon(t, "atelier-worker", "--name", "w", "--join", a+","+b)
	c := startDaemon(t, "atelier-coordinator", "--id", "c", "--join", a+","+b)
	w.says(t, ctx, "level=WARN", "no coordinator found yet", a+": connection refused", b+": connection refused")
	c.says(t, ctx, "level=WARN", "waiting to ask the cluster", a+": connection refused", b+": connection refused")
	health(t, ctx, w.address(t, ctx, "listen"), 503, a+": connection refused")
}

// Another gossip key than the cluster's is said by the one that has it.
func TestJoiningWithAnotherKey(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	key := func(text string) string {
		file := write(t, "gossip.key", strings.Repeat(text, 43)+"=\n")
		must(t, os.Chmod(file, 0o600))
		return file
	}
	first := startDaemon(t, "atelier-coordinator", "--id", "a", "--bootstrap", "--gossip-key-file", key("A"))
	at := first.address(t, ctx, "gossip")
	first.says(t, ctx, "begins a new cluster, with nothing in it")
	for _, args := range [][]string{{"--gossip-key-file", key("Q")}, nil} {
		w := startDaemon(t, "atelier-worker", append(args, "--name", "w", "--join", at)...)
		c := startDaemon(t, "atelier-coordinator", append(args, "--id", "b", "--join", at)...)
		w.says(t, ctx, "level=WARN", "no coordinator found yet", at, "--gossip-key-file")
		c.says(t, ctx, "level=WARN", "waiting to ask the cluster", at, "--gossip-key-file")
	}
}

// An absent coordinator is a few lines in the logs of the others, not a few each
// second, and a worker without a leader is not well.
func TestAbsentPeersAreCounted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 2, Workers: 1, LeaseTTL: 2 * time.Second})
	worker := cluster.Workers[0]
	health(t, ctx, worker.Addr, 200, "ok")
	must(t, cluster.Coordinators[1].Kill())
	health(t, ctx, worker.Addr, 503, "no leader has answered for")
	b, err := os.ReadFile(cluster.Coordinators[0].Log)
	must(t, err)
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "raft: failed to") || strings.Contains(line, "raft: pre-vote") || strings.Contains(line, "entering candidate") {
			n++
		}
	}
	if n == 0 || n > 10 {
		t.Errorf("%d lines about a peer that is gone:\n%s", n, b)
	}
	if strings.Contains(string(b), "%+v") {
		t.Error("a format in the log")
	}
	b, err = os.ReadFile(worker.Log)
	must(t, err)
	if n := strings.Count(string(b), "no coordinator answers this worker's heartbeat"); n == 0 || n > 2 {
		t.Errorf("%d lines about heartbeats:\n%s", n, b)
	}
}
