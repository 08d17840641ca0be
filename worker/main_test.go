package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/worker/confine"
)

// TestMain runs the program itself when the test binary is started as one.
func TestMain(m *testing.M) {
	// Trainers do not get the variable: they are known by their arguments.
	started := len(os.Args) > 1 && (os.Args[1] == "simtrainer" || os.Args[1] == confine.Verb)
	if started || os.Getenv("ATELIER_TEST_MAIN") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// coordinator grants one trial at a time and counts what comes in under which token.
type coordinator struct {
	atelierv1connect.UnimplementedWorkerServiceHandler
	atelierv1connect.UnimplementedClusterServiceHandler
	ttl      time.Duration
	training string
	trainer  string // "" = sim

	mu           sync.Mutex
	token        uint64 // current lease; 0: none
	next         uint64
	request      string
	deadline     time.Time
	incarnations []string
	epochs       map[uint64]int
	stale        int
	ends         []*atelierv1.RunEnded
	grants       int
	most         int // grants at most; 0 = any number
	usage        *atelierv1.Usage
}

func (c *coordinator) expire() {
	if c.token != 0 && time.Now().After(c.deadline) {
		c.token = 0
	}
}

func (c *coordinator) Heartbeat(_ context.Context, r *connect.Request[atelierv1.HeartbeatRequest]) (*connect.Response[atelierv1.HeartbeatResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	if u := r.Msg.Worker.Usage; u != nil {
		c.usage = u
	}
	if n := len(c.incarnations); n == 0 || c.incarnations[n-1] != r.Msg.Worker.Incarnation {
		c.incarnations = append(c.incarnations, r.Msg.Worker.Incarnation)
		c.token = 0
	}
	resp := &atelierv1.HeartbeatResponse{TtlMs: c.ttl.Milliseconds()}
	for _, l := range r.Msg.Leases {
		if l.Token == c.token {
			c.deadline = time.Now().Add(c.ttl)
		} else {
			resp.Lost = append(resp.Lost, l)
		}
	}
	return connect.NewResponse(resp), nil
}

func (c *coordinator) Acquire(ctx context.Context, r *connect.Request[atelierv1.AcquireRequest]) (*connect.Response[atelierv1.AcquireResponse], error) {
	for end := time.Now().Add(time.Duration(r.Msg.WaitMs) * time.Millisecond); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		c.expire()
		if c.token == 0 && (c.most == 0 || c.grants < c.most) {
			c.next++
			c.grants++
			c.token, c.request, c.deadline = c.next, r.Msg.RequestId, time.Now().Add(c.ttl)
		}
		if c.token != 0 && c.request == r.Msg.RequestId {
			l := &atelierv1.Lease{SweepId: "s-test", Trial: int64(c.token), Token: c.token, Run: 1, Trainer: cmp.Or(c.trainer, "sim"), TrainingJson: c.training, TtlMs: c.ttl.Milliseconds()}
			c.mu.Unlock()
			return connect.NewResponse(&atelierv1.AcquireResponse{Lease: l}), nil
		}
		c.mu.Unlock()
		if time.Now().After(end) || ctx.Err() != nil {
			return connect.NewResponse(&atelierv1.AcquireResponse{}), nil
		}
	}
}

func (c *coordinator) Relay(_ context.Context, r *connect.Request[atelierv1.RelayRequest]) (*connect.Response[atelierv1.RelayResponse], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	resp := &atelierv1.RelayResponse{}
	for _, e := range r.Msg.Events {
		if e.Token != c.token {
			c.stale++
			resp.Results = append(resp.Results, &atelierv1.EventResult{Outcome: wire.ToOutcome(trial.OutcomeFenced)})
			continue
		}
		if e.GetReport() != nil {
			c.epochs[e.Token]++
		}
		if e.GetEnded() != nil {
			c.ends = append(c.ends, e.GetEnded())
			c.token = 0
		}
		resp.Results = append(resp.Results, &atelierv1.EventResult{Outcome: wire.ToOutcome(trial.OutcomeRecorded)})
	}
	return connect.NewResponse(resp), nil
}

func startCoordinator(t *testing.T, ttl time.Duration, training string) (*coordinator, string) {
	c := &coordinator{ttl: ttl, training: training, epochs: map[uint64]int{}}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewWorkerServiceHandler(c))
	mux.Handle(atelierv1connect.NewClusterServiceHandler(c))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return c, srv.Listener.Addr().String()
}

func (c *coordinator) until(t *testing.T, what string, limit time.Duration, f func() bool) {
	t.Helper()
	for end := time.Now().Add(max(limit, 30*time.Second)); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		ok := f()
		c.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s (%d grants, epochs %v, ends %v)", limit, what, c.grants, c.epochs, c.ends)
		}
	}
}

// journal is what a process writes while a test reads it.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

type program struct {
	*exec.Cmd
	log    *journal
	listen string
	exited chan error
}

func startProgram(t *testing.T, data, api string, more ...string) *program {
	t.Helper()
	return startProgramWith(t, data, api, func(*exec.Cmd) {}, more...)
}

// startProgramWith starts it by a command that was changed before.
func startProgramWith(t *testing.T, data, api string, change func(*exec.Cmd), more ...string) *program {
	t.Helper()
	self, _ := os.Executable()
	file := filepath.Join(t.TempDir(), "address.json")
	p := &program{Cmd: exec.Command(self, append([]string{"--data", data, "--name", "w1", "--addr", api, "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--slots", "cpu:1", "--address-file", file, "--drain-grace", "3s"}, more...)...),
		log: &journal{}, exited: make(chan error, 1)}
	p.Env = append(os.Environ(), "ATELIER_TEST_MAIN=1")
	p.Stderr = p.log
	change(p.Cmd)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.Wait() }()
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGCONT)
		p.Process.Kill()
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
		}
		if t.Failed() {
			t.Logf("worker log:\n%s", p.log)
		}
	})
	for range 1000 {
		if b, err := os.ReadFile(file); err == nil {
			var a struct {
				Listen string
				PID    int
			}
			if err := json.Unmarshal(b, &a); err != nil || a.PID != p.Process.Pid {
				t.Fatalf("address file %s: %v", b, err)
			}
			p.listen = a.Listen
			return p
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			t.Fatalf("the worker ended: %v\n%s", err, p.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the worker does not serve")
	return nil
}

func (p *program) wait(t *testing.T, limit time.Duration) error {
	t.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err
		return err
	case <-time.After(limit):
		t.Fatalf("the worker did not end within %s", limit)
		return nil
	}
}

// children lists live processes whose parent is pid.
func children(pid int) []int {
	var out []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		for s := range strings.FieldsSeq(string(b)) {
			n, _ := strconv.Atoi(s)
			out = append(out, n)
		}
	}
	return out
}

func TestStoppedBeyondItsLease(t *testing.T) {
	c, api := startCoordinator(t, time.Second, `{"epochs":100000,"epoch_seconds":0.02,"checkpoint_every":0}`)
	p := startProgram(t, t.TempDir(), api)
	c.until(t, "the run reports", 10*time.Second, func() bool { return c.epochs[1] > 3 })
	p.Process.Signal(syscall.SIGSTOP)
	time.Sleep(2500 * time.Millisecond)
	c.mu.Lock()
	c.expire()
	before := c.epochs[1]
	c.mu.Unlock()
	p.Process.Signal(syscall.SIGCONT)
	c.until(t, "a new lease reports", 10*time.Second, func() bool { return c.epochs[2] > 3 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epochs[1] != before {
		t.Errorf("%d reports came in under the lease that had run out", c.epochs[1]-before)
	}
	if n := len(children(p.Process.Pid)); n > 2 {
		t.Errorf("%d trainers, want the run and the standby", n)
	}
}

func TestKilledAgentLeavesNothingBehind(t *testing.T) {
	c, api := startCoordinator(t, 2*time.Second, `{"epochs":100000,"epoch_seconds":0.02,"checkpoint_every":0}`)
	data := t.TempDir()
	p := startProgram(t, data, api)
	c.until(t, "the run reports", 10*time.Second, func() bool { return c.epochs[1] > 3 })
	old := children(p.Process.Pid)
	p.Process.Kill()
	p.wait(t, 5*time.Second)
	startProgram(t, data, api)
	c.until(t, "the next start reports", 10*time.Second, func() bool { return c.epochs[2] > 3 })
	for _, pid := range old {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
			t.Errorf("trainer %d of the killed agent lives: %s", pid, b)
		}
	}
	if n := len(c.incarnations); n != 2 {
		t.Errorf("%d incarnations, want 2", n)
	}
}

func TestSignalsEndIt(t *testing.T) {
	c, api := startCoordinator(t, 2*time.Second, `{"epochs":100000,"epoch_seconds":0.02,"checkpoint_every":0}`)
	p := startProgram(t, t.TempDir(), api)
	c.until(t, "the run reports", 10*time.Second, func() bool { return c.epochs[1] > 3 })

	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + p.listen + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `atelier_worker_slots{state="busy"} 1`) || !strings.Contains(body, "atelier_worker_leases 1") {
		t.Errorf("metrics: %d\n%s", code, body)
	}
	// The machine is read at once; the heartbeat after that tells.
	c.until(t, "the machine's usage is told", 30*time.Second, func() bool { return c.usage != nil })
	if u := c.usage; u.MemoryTotal < u.MemoryUsed || u.MemoryUsed <= 0 || u.Cores < 1 || u.DiskUsed <= 0 || u.TimeMs == 0 {
		t.Errorf("usage: %v", u)
	}
	_, body := get("/metrics")
	for _, want := range []string{"atelier_machine_system_memory_usage_megabytes ", "atelier_machine_disk_available_megabytes ", "atelier_worker_reports_total ", "atelier_worker_checkpoint_bytes_total 0", "atelier_worker_queue_events "} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("metrics have no %s:\n%s", want, body)
		}
	}
	if code, _ := get("/logs/../lock"); code == 200 {
		t.Error("the lock file was served")
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") {
			kb, _ := strconv.Atoi(strings.Fields(line)[1])
			t.Logf("agent: %d KiB resident", kb)
			if kb > 100<<10 {
				t.Errorf("the agent takes %d KiB", kb)
			}
		}
	}

	p.Process.Signal(syscall.SIGTERM)
	if err := p.wait(t, 5*time.Second); err != nil {
		t.Errorf("exit: %v", err)
	}
	if n := len(c.ends); n != 1 || wire.Exit(c.ends[0].Exit) != trial.ExitReleased {
		t.Errorf("ends %v", c.ends)
	}
}

func TestOneAgentADataFolder(t *testing.T) {
	_, api := startCoordinator(t, 2*time.Second, `{}`)
	data := t.TempDir()
	startProgram(t, data, api)
	self, _ := os.Executable()
	second := exec.Command(self, "--data", data, "--name", "w2", "--addr", api, "--listen", "127.0.0.1:0", "--gossip", "127.0.0.1:0")
	second.Env = append(os.Environ(), "ATELIER_TEST_MAIN=1")
	out, err := second.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another worker uses this folder") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFlags(t *testing.T) {
	good := []string{"atelier-worker", "--name", "w", "--data", "d", "--addr", "127.0.0.1:7600"}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"good":           {nil, ""},
		"unknown":        {[]string{"--colour"}, "colour"},
		"argument":       {[]string{"start"}, `"start"`},
		"open address":   {[]string{"--listen", "10.0.0.1:7610"}, "--insecure"},
		"wildcard":       {[]string{"--listen", "0.0.0.0:7610", "--insecure"}, "--advertise"},
		"advertised":     {[]string{"--listen", "0.0.0.0:7610", "--insecure", "--advertise", "gpu1"}, ""},
		"bad name":       {[]string{"--name", "a b"}, "--name"},
		"bad label":      {[]string{"--labels", "gpu"}, "key=value"},
		"labels":         {[]string{"--labels", "gpu=h100,zone=a"}, ""},
		"bad addr":       {[]string{"--listen", "7610"}, "HOST:PORT"},
		"negative grace": {[]string{"--drain-grace", "-1s"}, "--drain-grace"},
	} {
		_, err := NewMain().ParseFlags(append(good[:len(good):len(good)], tc.args...))
		if (tc.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, err := NewMain().ParseFlags([]string{"atelier-worker", "--data", "d"}); err == nil || !strings.Contains(err.Error(), "--join") {
		t.Errorf("nobody to join: %v", err)
	}
}

func TestTrainersFile(t *testing.T) {
	list, err := readTrainers(strings.NewReader("trainers:\n  py:\n    command: [sh, train.sh]\n    env: {A: b}\n"))
	if err != nil || len(list) != 1 || list[0].Name != "py" || len(list[0].Command) != 2 || list[0].Env["A"] != "b" {
		t.Errorf("%+v, %v", list, err)
	}
	for yaml, want := range map[string]string{
		"trainers: {torch: {command: [sh]}}":          "taken",
		"trainers: {py: {}}":                          "command",
		"trainers: {py: {command: [no-such-prog-x]}}": "no-such-prog-x",
		"trainers: {py: {comand: [sh]}}":              "comand",
		"trainers: {'a b': {command: [sh]}}":          "name",
	} {
		if _, err := readTrainers(strings.NewReader(yaml)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", yaml, err, want)
		}
	}
}

// The page about security shows a file of trainers that is one.
func TestTrainersOnThePage(t *testing.T) {
	page, err := os.ReadFile("../deploy/docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml file=trainers.yaml\n")
	text, _, ok := strings.Cut(rest, "```")
	list, err := readTrainers(strings.NewReader(text))
	if !ok || err != nil || len(list) != 1 || len(list[0].Read) != 1 || len(list[0].Write) != 1 || list[0].Network {
		t.Errorf("%+v, %v, of %q", list, err, text)
	}
}

// A worker from whose start a descriptor was left open confines its trainers: they
// have neither that, nor its variables, nor its files, nor the network.
func TestTrainersAreConfined(t *testing.T) {
	top := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(top, name)
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	data, secret := filepath.Join(top, "w1"), write("secret", "canary")
	script := write("trainer.sh", `#!/bin/sh
echo '{"event":"hello","protocol":1,"name":"nosy"}' >&3
read -r job
said="descriptors $(ls /proc/self/fd | tr '\n' ' '); own $(cat "$OWN" 2>&1); secret $(cat "$SECRET" 2>&1); id $(cat "$DATA/folder-id" 2>&1)"
said="$said; token ${ATELIER_TOKEN-none}; tmp $(cd "$TMPDIR" && touch a && echo written)"
echo "{\"event\":\"failed\",\"class\":\"bad_spec\",\"message\":\"$said\"}" >&3
exit 1
`)
	trainers := write("trainers.yaml", fmt.Sprintf("trainers:\n  nosy:\n    command: [%q]\n    env: {OWN: %q, SECRET: %q, DATA: %q}\n    read: [%q]\n", script, write("own", "mine"), secret, data, filepath.Join(top, "own")))
	leak, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	c, api := startCoordinator(t, 10*time.Second, "{}")
	c.trainer, c.most = "nosy", 1
	t.Setenv("ATELIER_TOKEN", "canary")
	p := startProgramWith(t, data, api, func(cmd *exec.Cmd) { cmd.ExtraFiles = slices.Repeat([]*os.File{leak}, 8) }, "--trainers", trainers, "--warm", "none")
	c.until(t, "the run has ended", 20*time.Second, func() bool { return len(c.ends) == 1 })
	said := c.ends[0].Message
	// ls has a sixth, the folder that it lists.
	if fds, _, _ := strings.Cut(strings.TrimPrefix(said, "descriptors "), ";"); strings.TrimSpace(fds) != "0 1 2 3 4 5" {
		t.Errorf("descriptors %s", fds)
	}
	for _, want := range []string{"own mine", "token none", "tmp written"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in %s", want, said)
		}
	}
	if strings.Contains(p.log.String(), "no landlock") {
		t.Skip("this kernel has no Landlock")
	}
	if strings.Contains(said, "canary") || strings.Count(said, "ermission denied") != 2 {
		t.Errorf("it read what it must not: %s", said)
	}
}

func FuzzTrainersFile(f *testing.F) {
	f.Add("trainers: {py: {command: [sh]}}")
	f.Add("trainers: [1]")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := readTrainers(strings.NewReader(s))
		for _, x := range list {
			if err == nil && (x.Name == "" || len(x.Command) == 0) {
				t.Errorf("%+v", x)
			}
		}
	})
}
