package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/confine"
	"atelier/worker/runner"
)

// TestMain turns the test binary into a trainer (or an agent that will be
// killed) when MODE says so.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Verb {
		os.Exit(confine.Main(os.Args[2:]))
	}
	switch mode := os.Getenv("MODE"); mode {
	case "":
		os.Exit(m.Run())
	case "agent":
		runAgent()
	default:
		runTrainer(mode)
	}
}

// events keeps descriptor 3 open: the collector would close it.
var events *os.File

func runTrainer(mode string) {
	if mode == "mute" {
		time.Sleep(time.Hour)
	}
	out := os.NewFile(trainerproto.EventsFD, "events")
	events = out
	w := trainerproto.NewWriter(out)
	if mode == "old" {
		w.Send(trainerproto.Event{Kind: "hello", Protocol: 99})
		time.Sleep(time.Hour)
	}
	if mode == "stillborn" {
		fmt.Fprintln(os.Stderr, "libtorch.so: cannot open shared object file")
		os.Exit(3)
	}
	fmt.Fprintln(os.Stderr, "warming up")
	w.Send(trainerproto.Event{Kind: "hello", Protocol: trainerproto.Version, Name: "test"})
	in := trainerproto.NewReader(os.Stdin)
	if _, err := in.Job(); err != nil {
		os.Exit(9)
	}
	w.Send(trainerproto.Event{Kind: "epoch", Epoch: 1, Metrics: trainerproto.Metrics{{Name: "val_loss", Value: 0.5}}})
	done := func(reason string) { w.Send(trainerproto.Event{Kind: "done", Reason: reason}); os.Exit(0) }
	name, arg, _ := strings.Cut(mode, ":")
	switch name {
	case "done":
		done(arg)
	case "failed":
		w.Send(trainerproto.Event{Kind: "failed", Class: arg, Message: "because " + arg})
		os.Exit(1)
	case "exit":
		fmt.Fprintln(os.Stderr, "something went wrong in layer 3")
		os.Exit(7)
	case "signal":
		n, _ := strconv.Atoi(arg)
		signal.Reset()
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		time.Sleep(time.Hour)
	case "words":
		fmt.Fprintln(os.Stderr, arg)
		os.Exit(1)
	case "halfline":
		out.WriteString(`{"event":"epo`)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Hour)
	case "garbage":
		out.WriteString("epoch two\n")
		time.Sleep(time.Hour)
	case "longline":
		out.WriteString(strings.Repeat("x", trainerproto.MaxLine+10))
		time.Sleep(time.Hour)
	case "stopped", "hung": // no event after its first sign of life
		w.Send(trainerproto.Event{Kind: trainerproto.EventAlive})
		if name == "stopped" {
			syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		}
		time.Sleep(time.Hour)
	case "lively": // slow between epochs, as members of a group are
		for i := range 12 {
			time.Sleep(100 * time.Millisecond)
			w.Send(trainerproto.Event{Kind: trainerproto.EventAlive})
			if i == 6 {
				w.Send(trainerproto.Event{Kind: "progress", Step: 1})
			}
		}
		w.Send(trainerproto.Event{Kind: "done", Reason: trainerproto.DoneLeft})
		time.Sleep(time.Second) // it puts its things away in silence
		os.Exit(0)
	case "deaf": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "closed": // closes descriptor 3 and goes on
		out.Close()
		time.Sleep(time.Hour)
	case "lingers": // says done, then does not end
		w.Send(trainerproto.Event{Kind: "done", Reason: "finished"})
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "place": // where it is
		w.Send(trainerproto.Event{Kind: "done", Reason: "finished", Message: strings.Join(os.Environ(), " ")})
		os.Exit(0)
	case "control":
		c, err := in.Control()
		if err != nil {
			os.Exit(9)
		}
		done(map[string]string{"stop": "stopped", "pause": "paused"}[c.Verdict])
	case "child", "runaway": // leaves a grandchild that holds every descriptor
		cmd := exec.Command("sleep", "3600")
		cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{out}
		if name == "runaway" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		}
		cmd.Start()
		w.Send(trainerproto.Event{Kind: "progress", Step: int64(cmd.Process.Pid)})
		done("finished")
	case "noise": // floods standard error
		line := strings.Repeat("n", 1023) + "\n"
		for range 20 << 10 {
			os.Stderr.WriteString(line)
		}
		fmt.Fprintln(os.Stderr, "the end")
		done("finished")
	case "many":
		for i := range 5000 {
			w.Send(trainerproto.Event{Kind: "epoch", Epoch: i + 2})
		}
		done("finished")
	case "hog":
		var keep [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			keep = append(keep, b)
			if len(keep) > 4096 {
				os.Exit(1)
			}
		}
	default:
		time.Sleep(time.Hour)
	}
}

// runAgent starts one trainer that has left its group, prints the numbers, and waits to be killed.
func runAgent() {
	os.Setenv("MODE", "")
	l, err := runner.New(runner.Config{Dir: os.Getenv("PIDS"), Confine: confined(filepath.Dir(os.Getenv("PIDS")))})
	if err != nil {
		panic(err)
	}
	c, err := l.Start(context.Background(), trainer("runaway-live"), runner.SlotEnv{Slot: "cpu0"})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.PID())
	time.Sleep(time.Hour)
}

func trainer(mode string) runner.Trainer {
	self, _ := os.Executable()
	return runner.Trainer{Name: "test", Command: []string{self}, Env: map[string]string{"MODE": mode}}
}

// confined is how a worker with that data folder starts trainers.
func confined(data string) *confine.Confinement {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	c, err := confine.New(confine.Config{Mode: confine.On, Launcher: []string{self, confine.Verb}, Private: []string{data}, Temp: filepath.Join(data, "tmp")})
	if err != nil {
		panic(err)
	}
	return c
}

func launcher(t *testing.T) *runner.Launcher {
	t.Helper()
	l, _ := launcherIn(t)
	return l
}

func launcherIn(t *testing.T) (*runner.Launcher, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pids")
	l, err := runner.New(runner.Config{Dir: dir, Grace: 300 * time.Millisecond, Linger: 200 * time.Millisecond, LogBytes: 1 << 20, Confine: confined(filepath.Dir(dir))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, dir
}

func start(t *testing.T, l *runner.Launcher, mode string) *runner.Child {
	t.Helper()
	c, err := l.Start(context.Background(), trainer(mode), runner.SlotEnv{Slot: "cpu0", Env: map[string]string{"OMP_NUM_THREADS": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
	return !strings.HasPrefix(rest, " Z") && !strings.HasPrefix(rest, " X")
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 1500 {
		if !alive(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d still lives", pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestExitClasses(t *testing.T) {
	l, dir := launcherIn(t)
	for _, tc := range []struct {
		mode  string
		class trial.Exit
		words string
	}{
		{"done:finished", trial.ExitFinished, ""},
		{"done:stopped", trial.ExitStopped, ""},
		{"done:paused", trial.ExitPaused, ""},
		{"done:whenever", trial.ExitCrashed, "unknown reason"},
		{"failed:out_of_memory", trial.ExitOutOfMemory, "because"},
		{"failed:device_fault", trial.ExitDeviceFault, "because"},
		{"failed:bad_spec", trial.ExitBadSpec, "because"},
		{"failed:diverged", trial.ExitDiverged, "because"},
		{"failed:disk_full", trial.ExitDiskFull, "because"},
		{"failed:crashed", trial.ExitCrashed, "because"},
		{"failed:anything", trial.ExitCrashed, "because"},
		{"failed:cut_off", trial.ExitLost, "because"},
		{"done:left", trial.ExitReleased, ""},
		{"exit", trial.ExitCrashed, "layer 3"},
		{"signal:9", trial.ExitKilled, "killed"},
		{"signal:15", trial.ExitKilled, "terminated"},
		{"words:RuntimeError: CUDA out of memory. Tried to allocate", trial.ExitOutOfMemory, "Tried to allocate"},
		{"words:CUDA error: uncorrectable ECC error encountered", trial.ExitDeviceFault, "ECC"},
		{"words:OSError: No space left on device", trial.ExitDiskFull, "No space"},
		{"garbage", trial.ExitCrashed, "epoch two"},
		{"longline", trial.ExitCrashed, "1 MiB"},
		{"lingers", trial.ExitFinished, ""},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			c := start(t, l, tc.mode)
			epochs := 0
			exit := c.Run(trainerproto.Job{}, "", func(e trainerproto.Event) { epochs++ })
			if exit.Class != tc.class || !strings.Contains(exit.Message, tc.words) {
				t.Errorf("class %v, message %q; want %v with %q", exit.Class, exit.Message, tc.class, tc.words)
			}
			if epochs != 1 {
				t.Errorf("%d events, want 1", epochs)
			}
			if exit.Terminated {
				t.Error("counted as ended by the agent")
			}
			if alive(c.PID()) {
				t.Error("the process still lives")
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("pid files left: %v", left)
	}
}

// A child gets variables by list, a folder for temporary files that goes with it,
// and is asked whether it may read what a job names.
func TestConfined(t *testing.T) {
	t.Setenv("ATELIER_TOKEN", "canary")
	l, dir := launcherIn(t)
	data := t.TempDir()
	c, err := l.Start(context.Background(), trainer("place"), runner.SlotEnv{Slot: "cpu0", Read: []string{data}})
	if err != nil {
		t.Fatal(err)
	}
	temps := filepath.Join(filepath.Dir(dir), "tmp", "*")
	own, _ := filepath.Glob(temps)
	if len(own) != 1 {
		t.Fatalf("folders for temporary files: %v, want one", own)
	}
	if l.Confinement().Folders() && (!c.MayRead([]string{data + "/photos"}) || c.MayRead([]string{filepath.Dir(data)})) {
		t.Error("it may read what was opened at its start, and nothing else")
	}
	exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {})
	if exit.Class != trial.ExitFinished || !strings.Contains(exit.Message, "TMPDIR="+own[0]) || strings.Contains(exit.Message, "canary") || !strings.Contains(exit.Message, "ATELIER_CHILD=") {
		t.Errorf("%v, with %s", exit.Class, exit.Message)
	}
	if left, _ := filepath.Glob(temps); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if c, err := l.Start(context.Background(), runner.Trainer{Name: "none", Command: []string{"/no/such/program"}}, runner.SlotEnv{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not there: %v, %v", c, err)
	}
	if left, _ := filepath.Glob(temps); len(left) > 0 {
		t.Errorf("left behind by a trainer that did not start: %v", left)
	}
}

// TestSignsOfLife: who has sent one has to send further ones, until it is done; who
// never did may be silent, and so may one that the host is not listening to.
func TestSignsOfLife(t *testing.T) {
	l, err := runner.New(runner.Config{Dir: filepath.Join(t.TempDir(), "pids"), AliveWithin: 600 * time.Millisecond, AloneWithin: 900 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for mode, within := range map[string]string{"stopped": "0.6 s", "hung": "0.6 s", "lively": "", "stopped alone": "0.9 s"} {
		t.Run(mode, func(t *testing.T) {
			mode, alone := strings.CutSuffix(mode, " alone")
			job := trainerproto.Job{Group: &trainerproto.Group{Member: 1}}
			if alone {
				job.Group = nil
			}
			c := start(t, l, mode)
			exit := c.Run(job, "", func(e trainerproto.Event) {
				if e.Kind == trainerproto.EventAlive {
					t.Error("an alive event is passed on")
				}
				if e.Kind == trainerproto.EventProgress {
					time.Sleep(time.Second) // a full queue
				}
			})
			want := runner.Exit{Class: trial.ExitReleased}
			if within != "" {
				want = runner.Exit{Class: trial.ExitKilled, Message: "gave no sign of life for " + within, Silent: true}
			}
			if exit != want {
				t.Errorf("%+v, want %+v", exit, want)
			}
			if alive(c.PID()) {
				t.Error("the process still lives")
			}
		})
	}
}

func TestStandbyThatFails(t *testing.T) {
	l, err := runner.New(runner.Config{Dir: t.TempDir(), HelloTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for mode, words := range map[string]string{"mute": "no hello", "stillborn": "cannot open shared object", "old": "version 99"} {
		_, err := l.Start(context.Background(), trainer(mode), runner.SlotEnv{})
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: error %v, want %q", mode, err, words)
		}
	}
	if _, err := l.Start(context.Background(), runner.Trainer{Name: "none", Command: []string{"/no/such/trainer"}}, runner.SlotEnv{}); err == nil || !strings.Contains(err.Error(), "/no/such/trainer") {
		t.Errorf("missing program: %v", err)
	}
}

func TestStopTakesAStuckTrainer(t *testing.T) {
	l := launcher(t)
	for _, mode := range []string{"deaf", "closed", "sleep"} {
		c := start(t, l, mode)
		began := time.Now()
		exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {
			if mode != "closed" {
				c.Stop()
			}
		})
		if mode != "closed" && !exit.Terminated {
			t.Errorf("%s: %+v, want terminated", mode, exit)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: took %s", mode, took)
		}
		waitGone(t, c.PID())
	}
	// A stopped process obeys a kill.
	c := start(t, l, "sleep")
	exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {
		syscall.Kill(c.PID(), syscall.SIGSTOP)
		c.Kill()
	})
	if !exit.Terminated {
		t.Errorf("stopped child: %+v", exit)
	}
}

func TestControl(t *testing.T) {
	l := launcher(t)
	for verdict, class := range map[string]trial.Exit{"stop": trial.ExitStopped, "pause": trial.ExitPaused} {
		c := start(t, l, "control")
		exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {
			if err := c.SendVerdict(verdict); err != nil {
				t.Error(err)
			}
		})
		if exit.Class != class {
			t.Errorf("%s: %+v", verdict, exit)
		}
	}
}

func TestControlSentAheadOfTheJob(t *testing.T) {
	c := start(t, launcher(t), "control")
	told := make(chan error, 1)
	go func() { told <- c.SendVerdict("stop") }()
	time.Sleep(50 * time.Millisecond)
	if exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {}); exit.Class != trial.ExitStopped {
		t.Errorf("%+v", exit)
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
}

func TestDeathInTheMiddleOfALine(t *testing.T) {
	exit := start(t, launcher(t), "halfline").Run(trainerproto.Job{}, "", func(trainerproto.Event) {})
	if exit.Class != trial.ExitKilled || exit.Terminated {
		t.Errorf("%+v", exit)
	}
}

func TestGrandchildrenEndWithTheRun(t *testing.T) {
	l := launcher(t)
	for _, mode := range []string{"child", "runaway"} {
		c := start(t, l, mode)
		var grandchild int
		began := time.Now()
		exit := c.Run(trainerproto.Job{}, "", func(e trainerproto.Event) {
			if e.Kind == "progress" {
				grandchild = int(e.Step)
			}
		})
		if exit.Class != trial.ExitFinished || grandchild == 0 {
			t.Fatalf("%s: %+v, grandchild %d", mode, exit, grandchild)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: held up for %s by a grandchild", mode, took)
		}
		waitGone(t, grandchild)
	}
}

func TestHugeStandardError(t *testing.T) {
	l := launcher(t)
	log := filepath.Join(t.TempDir(), "runs", "1.log")
	exit := start(t, l, "noise").Run(trainerproto.Job{}, log, func(trainerproto.Event) {})
	if exit.Class != trial.ExitFinished {
		t.Fatalf("%+v", exit)
	}
	var total int64
	for _, f := range []string{log, log + ".1"} {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2<<20 {
		t.Errorf("log takes %d bytes, cap is 2 MiB", total)
	}
	if b, _ := os.ReadFile(log); !strings.HasSuffix(string(b), "the end\n") {
		t.Error("the newest lines are not in the log")
	}
	// What a standby wrote before its job is in the log too.
	log2 := filepath.Join(t.TempDir(), "2.log")
	start(t, l, "done:finished").Run(trainerproto.Job{}, log2, func(trainerproto.Event) {})
	if b, _ := os.ReadFile(log2); string(b) != "warming up\n" {
		t.Errorf("log %q", b)
	}
}

func TestSlowReaderLosesNothing(t *testing.T) {
	l := launcher(t)
	n := 0
	exit := start(t, l, "many").Run(trainerproto.Job{}, "", func(e trainerproto.Event) {
		if n == 10 {
			time.Sleep(time.Second) // beyond Linger: the trainer is blocked or gone meanwhile
		}
		n++
		if e.Epoch != n {
			t.Fatalf("event %d is of epoch %d", n, e.Epoch)
		}
	})
	if exit.Class != trial.ExitFinished || n != 5001 {
		t.Errorf("%d events, %+v", n, exit)
	}
}

func TestOrphansOfAKilledAgent(t *testing.T) {
	pids := t.TempDir()
	self, _ := os.Executable()
	agent := exec.Command(self)
	agent.Env = append(os.Environ(), "MODE=agent", "PIDS="+pids)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	agent.Process.Kill()
	go io.Copy(io.Discard, out)
	agent.Wait()
	waitGone(t, pid) // the parent-death signal

	// A trainer that outlived its agent all the same: only its environment and
	// pid file tell whose it is.
	files, _ := filepath.Glob(filepath.Join(pids, "*.json"))
	if len(files) != 1 {
		t.Fatalf("pid files after the crash: %v", files)
	}
	record, _ := os.ReadFile(files[0])
	marker := strings.SplitN(strings.SplitN(string(record), `"marker":"`, 2)[1], `"`, 2)[0]
	stray := exec.Command("sleep", "3600")
	stray.Env = []string{"ATELIER_CHILD=" + marker}
	innocent := exec.Command("sleep", "3600")
	innocent.Env = []string{"ATELIER_CHILD=other"}
	for _, c := range []*exec.Cmd{stray, innocent} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		go c.Wait()
		defer c.Process.Kill()
	}
	if n, err := runner.KillOrphans(pids, 5*time.Second, slog.New(slog.DiscardHandler)); err != nil || n != 1 {
		t.Errorf("killed %d, %v; want 1", n, err)
	}
	waitGone(t, stray.Process.Pid)
	if !alive(innocent.Process.Pid) {
		t.Error("a process of somebody else was killed")
	}
	if left, _ := filepath.Glob(filepath.Join(pids, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// When memory ends, the kernel shall take the trainer and not the agent.
func TestTrainersGoFirst(t *testing.T) {
	l := launcher(t)
	c := start(t, l, "sleep")
	defer c.Discard()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.PID()))
	if err != nil {
		t.Skip("the kernel tells no score: ", err)
	}
	if strings.TrimSpace(string(b)) != "500" {
		t.Errorf("score %q", b)
	}
}

func TestKernelOutOfMemoryKill(t *testing.T) {
	group := "/sys/fs/cgroup/memory/atelier-test-" + strconv.Itoa(os.Getpid())
	limit := "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		group, limit = "/sys/fs/cgroup/atelier-test-"+strconv.Itoa(os.Getpid()), "memory.max"
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("control groups are not writable here: %v", err)
	}
	defer os.Remove(group)
	if err := os.WriteFile(filepath.Join(group, limit), []byte("134217728"), 0o644); err != nil {
		t.Skipf("no memory limit here: %v", err)
	}
	c := start(t, launcher(t), "hog")
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(c.PID())), 0o644); err != nil {
		t.Skipf("cannot move a process: %v", err)
	}
	exit := c.Run(trainerproto.Job{}, "", func(trainerproto.Event) {})
	if exit.Class != trial.ExitOutOfMemory || !strings.Contains(exit.Message, "out of memory") {
		t.Errorf("%+v", exit)
	}
}

func BenchmarkWarmRun(b *testing.B) {
	l, err := runner.New(runner.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var first, whole time.Duration
	for range b.N {
		b.StopTimer()
		c, err := l.Start(context.Background(), trainer("done:finished"), runner.SlotEnv{})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		c.Run(trainerproto.Job{}, "", func(e trainerproto.Event) { first += time.Since(began) })
		whole += time.Since(began)
	}
	b.ReportMetric(float64(first.Microseconds())/float64(b.N), "us/first-event")
	b.ReportMetric(float64(whole.Microseconds())/float64(b.N), "us/run")
}
