package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trial"
)

// pythonClient runs a program that has the client beside it; it returns what the program printed.
func pythonClient(t *testing.T, ctx context.Context, addrs, program string, args ...string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	folder, err := filepath.Abs("../python")
	must(t, err)
	cmd := exec.CommandContext(ctx, python, append([]string{write(t, "program.py", program)}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+folder, "PYTHONDONTWRITEBYTECODE=1", "ATELIER_ADDR="+addrs)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const pythonSweep = `
import atelier, sys, time
def external(**more):
    spec = {"name": "python", "search_method": "random", "seed": 4, "trainer": "external", "max_retries": 0,
            "objective": {"metric": "loss", "direction": "minimize"}, "budget": {"trials": 6}, "parallelism": 3,
            "stopping": {"rule": "median", "warmup_epochs": 1, "warmup_trials": 2},
            "space": {"x": {"type": "float", "low": 0, "high": 1}}}
    spec.update(more)
    return spec
`

// A sweep submitted, trained and read from Python, through the death of the leader: every trial counts once, a
// program's exception is its trial's failure, and the leaderboard is that of the command.
func TestPythonTrainsASweep(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 3})
	addrs := strings.Join(cluster.APIAddrs(), ",")
	id, err := pythonClient(t, ctx, addrs, pythonSweep+`print(atelier.Cluster().submit(external()).id)`)
	if err != nil {
		t.Fatalf("%v: %s", err, id)
	}
	id = strings.TrimSpace(id)
	const train = pythonSweep + `
sweep = atelier.Cluster().sweep(sys.argv[1])
for trial in sweep.ask_all():
    try:
        with trial:
            if trial.number == 2:
                raise RuntimeError("no such image")
            for epoch in range(trial.last_epoch + 1, 4):
                time.sleep(0.2)
                if trial.tell(epoch, trial.params["x"] / epoch, val_acc=0.5) != "continue":
                    break
    except RuntimeError as e:
        print("failed as meant:", e)
print(sweep.state)
`
	type result struct {
		out string
		err error
	}
	ended := make(chan result, 2)
	for range 2 {
		go func() {
			out, err := pythonClient(t, ctx, addrs, train, id)
			ended <- result{out, err}
		}()
	}
	api := cluster.Client()
	await(t, ctx, api, id, "a trial has ended", func(s *trial.Sweep) bool { return s.Counts.Finished+s.Counts.Stopped > 0 })
	leader, err := cluster.Leader(ctx)
	must(t, err)
	must(t, leader.Kill())
	failures := 0
	for range 2 {
		r := <-ended
		if r.err != nil || !strings.HasSuffix(r.out, "finished\n") {
			t.Fatalf("%v: %s", r.err, r.out)
		}
		failures += strings.Count(r.out, "failed as meant: no such image")
	}
	s, err := api.Sweep(ctx, id)
	must(t, err)
	if failures != 1 || s.Status != trial.SweepFinished || s.Counts.Finished+s.Counts.Stopped != 5 || s.Counts.Failed != 1 {
		t.Errorf("%d failures; ended %v %v", failures, s.Status, s.Counts)
	}
	for _, tr := range trials(t, ctx, api, id) {
		if tr.Number == 2 && !strings.Contains(tr.Failure, "RuntimeError: no such image") || len(tr.Runs) != 1 {
			t.Errorf("trial %d: %d runs, %q", tr.Number, len(tr.Runs), tr.Failure)
		}
	}
	shown, err := pythonClient(t, ctx, addrs, pythonSweep+`
sweep = atelier.Cluster().sweep(sys.argv[1])
for r in sweep.leaderboard(top=2):
    print(r["rank"], r["trial"], repr(r["value"]), sep=",")
assert sorted(t["trial"] for t in sweep.trials()) == [1, 2, 3, 4, 5, 6], sweep.trials()
best = sweep.leaderboard()[0]
assert {"epoch": best["epoch"], "loss": best["value"], "val_acc": 0.5} in sweep.curve(best["trial"]), sweep.curve(best["trial"])
assert atelier.Cluster().sweeps()[0].id == sweep.id
`, id)
	if err != nil {
		t.Fatalf("%v: %s", err, shown)
	}
	// The same rows as the command's.
	var want strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(must0(t, ctx, cluster, "leaderboard", id, "--top", "2", "-o", "csv")), "\n")[1:] {
		want.WriteString(strings.Join(strings.Split(line, ",")[:2], ",") + ",")
		want.WriteString("\n")
	}
	for i, line := range strings.Split(strings.TrimSpace(want.String()), "\n") {
		if got := strings.Split(shown, "\n")[i]; !strings.HasPrefix(got, line) {
			t.Errorf("row %d: Python has %q, the command %q", i+1, got, line)
		}
	}
}

// What goes wrong is an exception with the coordinator's words; a trial whose term is over is lost quietly.
func TestPythonErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1})
	out, err := pythonClient(t, ctx, strings.Join(cluster.APIAddrs(), ","), pythonSweep+`
def refused(f, code, words):
    try:
        f()
    except atelier.Error as e:
        assert e.code == code and words in str(e), (e.code, str(e))
    else:
        raise AssertionError(words)

cluster = atelier.Cluster()
refused(lambda: cluster.sweep("s-none"), "not_found", "s-none")
refused(lambda: cluster.submit(external(search_method="bayes")), "invalid_argument", "bayesian")
began = time.time()
refused(lambda: atelier.Cluster("127.0.0.1:1", retry_for=1).sweeps(), "unavailable", "127.0.0.1:1")
assert time.time() - began < 30
assert len(atelier.Cluster(["127.0.0.1:1"] + cluster.addresses).sweeps()) == 0  # the next address answers

sweep = cluster.submit(external(budget={"trials": 50}, enqueue=[{"x": 0.25}]))
assert sweep.state == "running" and sweep.name == "python", sweep
refused(lambda: sweep.enqueue({"y": 1}), "invalid_argument", "y")
sweep.enqueue({"x": 0.5})
lost = sweep.ask(term=1)
assert lost.params == {"x": 0.25} and lost.objective == "loss", lost
try:
    lost.tell(1, val_acc=1)
except ValueError as e:
    assert "loss" in str(e), e
else:
    raise AssertionError("a report without the objective")
assert sweep.pause().state == "paused" and sweep.resume().state == "running"
time.sleep(2.5)
with lost:
    lost.tell(1, float("nan"))
    raise AssertionError("a report after the term")
late = sweep.ask(term=1)
with late:  # the term is over at the end of the block: quiet
    late.tell(1, 0.5)
    time.sleep(2.5)
late = sweep.ask(term=1)
try:
    with late:
        time.sleep(2.5)
        raise RuntimeError("the program's own")
except RuntimeError as e:
    assert "own" in str(e), e
else:
    raise AssertionError("the program's error is lost")

import socket, threading
server = socket.create_server(("127.0.0.1", 0))
def cut_off():
    while True:
        c, _ = server.accept()
        c.recv(65536)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"sweeps\":[")
        c.close()
threading.Thread(target=cut_off, daemon=True).start()
broken = "127.0.0.1:%d" % server.getsockname()[1]
assert atelier.Cluster([broken] + cluster.addresses).sweep(sweep.id).id == sweep.id  # the next address answers
refused(lambda: atelier.Cluster(broken, retry_for=0.5).sweeps(), "unavailable", broken)

try:
    sweep.wait(timeout=1)
except TimeoutError as e:
    assert "still running" in str(e), e
else:
    raise AssertionError("it has not ended")
seen = []
assert sweep.stop().wait(timeout=60, on_change=lambda s: seen.append(s.state)).state == "stopped" and seen, (sweep, seen)
assert sweep.ask(wait=5) is None and sweep.ended
print("all as it should be")
`)
	if err != nil || !strings.HasSuffix(out, "all as it should be\n") {
		t.Errorf("%v: %s", err, out)
	}
}
