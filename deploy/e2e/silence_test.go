package e2e_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/local"
)

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// unaddressed takes the address of a cluster out of the environment.
func unaddressed(t *testing.T) {
	t.Helper()
	t.Setenv("ATELIER_ADDR", "") // puts it back
	os.Unsetenv("ATELIER_ADDR")
}

// Whatever waits for a cluster that does not answer says so, and for how long, and
// --retry-for holds for it.
func TestNobodyThere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	addr, dir := nobody(t), t.TempDir()
	t.Chdir(dir)
	unaddressed(t)
	if _, errs, code := atelier(t, ctx, nil, "data", "synth", "data", "--style", "gothic", "--style", "tudor", "--train", "2", "--validation", "2", "--test", "1", "--size", "32"); code != 0 {
		t.Fatal(errs)
	}
	must(t, os.WriteFile("spec.yaml", []byte("name: x\nsearch_method: random\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\ntrainer: sim\nspace: {lr: {type: float, low: 0.1, high: 0.2}}\n"), 0o644))
	must(t, os.WriteFile("m.pth", nil, 0o644))
	var all sync.WaitGroup
	for _, c := range []struct{ args, instead string }{
		{"train --data data --model vanilla --epochs 1 --no-mlflow", "--local trains here"},
		{"tune --data data --model vanilla --no-mlflow --trials 1", "--local tunes here"},
		{"infer --checkpoint m.pth --image-dir data/test", "--local runs it here"},
		{"sweep submit spec.yaml --follow", ""},
		{"sweep wait s-k3v9q2ma", ""},
		{"leaderboard s-k3v9q2ma", ""},
		{"cluster status", ""},
	} {
		all.Go(func() {
			_, errs, code := atelier(t, ctx, nil, append([]string{"--addr", addr, "--retry-for", "2s"}, strings.Fields(c.args)...)...)
			first := "no coordinator at " + addr + " yet (connection refused); trying for 1 s more"
			if ctx.Err() != nil || code != 5 || !strings.Contains(errs, first) || !strings.Contains(errs, c.instead) || strings.Count(errs, "trying for") != 1 {
				t.Errorf("%s: exit %d (%v), want 5 and %q, once:\n%s", c.args, code, ctx.Err(), first, errs)
			}
		})
	}
	all.Wait()
}

// An address that can never answer is refused at once; one that is another
// program's is called that.
func TestAddressesThatCannotBe(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	unaddressed(t)
	if _, errs, code := atelier(t, ctx, nil, "--addr", "127.0.0.1:76000", "sweep", "list"); code != 2 || !strings.Contains(errs, "port 76000: want 1 to 65535") {
		t.Errorf("exit %d: %s", code, errs)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	at := strings.TrimPrefix(other.URL, "http://")
	if _, errs, code := atelier(t, ctx, nil, "--addr", at, "sweep", "list"); code == 0 || !strings.Contains(errs, at+" answers, and is not a coordinator of Atelier") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// What a cluster has left is told by any of its coordinators, without a leader,
// and names all of them, though one address was given.
func TestHealthOfWhatIsLeft(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3})
	t.Setenv("ATELIER_ADDR", cluster.Coordinators[0].Addr)
	status := func(want string, code int, more ...string) {
		t.Helper()
		var out, errs string
		for got := -1; ; time.Sleep(100 * time.Millisecond) {
			out, errs, got = atelier(t, ctx, nil, append([]string{"cluster", "status"}, more...)...)
			if got == code && strings.Contains(out+errs, want) {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("exit %d, want %d and %q:\n%s%s", got, code, want, out, errs)
			}
		}
	}
	status("3 of 3 voters up, 1 failure tolerated", 0, "--check")
	must(t, cluster.Coordinators[2].Kill())
	status("2 of 3 voters up (c1, c2 up; c3: connection refused), no further failure tolerated", 0)
	status("no further failure tolerated", 1, "--check", "-o", "json")
	must(t, cluster.Coordinators[1].Kill())
	const lost = "no leader: 1 of 3 coordinators is up (c1 up; c2, c3: connection refused); 2 are needed. Start atelier-coordinator on c2 or c3 with its old --data"
	status(lost, 5)
	status(`"state": "connection refused"`, 5, "-o", "json")
	_, errs, code := atelier(t, ctx, nil, "sweep", "list", "--retry-for", "2s")
	if code != 5 || strings.Count(errs, lost) != 2 || !strings.Contains(errs, "trying for") || strings.Contains(errs, "bootstrap") {
		t.Errorf("exit %d, want 5 and %q in the notice and at the end:\n%s", code, lost, errs)
	}
	out, errs, code := atelier(t, ctx, nil, "cluster", "members")
	if code != 5 || strings.Count(out, "connection refused") != 2 || !strings.Contains(errs, lost) {
		t.Errorf("exit %d:\n%s%s", code, out, errs)
	}
	// Who says how long to wait waits for a leader, although too few are up.
	waited := make(chan int, 1)
	go func() {
		_, _, code := atelier(t, ctx, nil, "--retry-for", "30s", "cluster", "members")
		waited <- code
	}()
	time.Sleep(300 * time.Millisecond)
	must(t, cluster.Coordinators[1].Start(ctx))
	if code := <-waited; code != 0 {
		t.Errorf("cluster members that waits: exit %d", code)
	}
	status("2 of 3 voters up", 0)
}

// A file that is none is called that, before anything is changed.
func TestRestoreOfNoSnapshot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	for name, text := range map[string]string{"notes.txt": strings.Repeat("what to buy tomorrow\n", 20), "zeros": strings.Repeat("\x00", 1000), "noise": strings.Repeat("\x0f\xf0\x55", 300)} {
		file := write(t, name, text)
		_, errs, code := atelier(t, ctx, cluster, "cluster", "restore", file, "--yes")
		if code != 1 || !strings.Contains(errs, file+": ") || !strings.Contains(errs, "it is not a snapshot of Atelier") || strings.Contains(errs, "proto") {
			t.Errorf("%s: exit %d: %s", name, code, errs)
		}
	}
}

// A training of a cluster is resumed in that cluster, wherever the command is
// called.
func TestResumeGoesToTheClusterOfTheTraining(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir, addr := t.TempDir(), nobody(t)
	unaddressed(t)
	t.Chdir(dir)
	if _, errs, code := atelier(t, ctx, nil, "data", "synth", "data", "--style", "gothic", "--style", "tudor", "--train", "2", "--validation", "2", "--test", "1", "--size", "32"); code != 0 {
		t.Fatal(errs)
	}
	// The request is recorded before it is sent: nobody has to be there.
	atelier(t, ctx, nil, "--addr", addr, "--retry-for", "50ms", "train", "--data", "data", "--model", "vanilla", "--no-mlflow", "--out", "out")
	resume := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "train", "--resume", "out", "--retry-for", "50ms")
	b, _ := resume.CombinedOutput()
	if text := string(b); resume.ProcessState.ExitCode() != 5 || !strings.Contains(text, "no coordinator answers at "+addr) || !strings.Contains(text, "the address is the one that the work was begun with") {
		t.Errorf("%v: it does not look for its cluster at %s:\n%s", resume.ProcessState, addr, text)
	}
	// A folder of an earlier build does not say where.
	run := filepath.Join("out", "resume", "run.json")
	b, err := os.ReadFile(run)
	must(t, err)
	text := strings.Replace(string(b), `"addresses": "`+addr+`"`, `"x": 0`, 1)
	must(t, os.WriteFile(run, []byte(text), 0o644))
	resume = exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "train", "--resume", "out")
	b, _ = resume.CombinedOutput()
	if resume.ProcessState.ExitCode() != 2 || !strings.Contains(string(b), "give the cluster's address with --addr HOST:PORT") {
		t.Errorf("%v:\n%s", resume.ProcessState, b)
	}
}
