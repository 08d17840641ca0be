package child_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/child"
	"atelier/common/links"
	"atelier/common/trainerproto"
)

// TestMain lets this test program stand in for a host that is killed and for
// trainers.
func TestMain(m *testing.M) {
	switch mode := os.Getenv("CHILD_TEST"); mode {
	case "":
		os.Exit(m.Run())
	case "host": // starts a child that would live long, and says its number
		p, err := child.Start(exec.Command("sleep", "300"), child.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(p.PID())
		time.Sleep(time.Minute)
	case "listener": // hears a trainer for a few seconds
		c, err := child.StartTrainer(self("alive"), child.Options{})
		if err == nil {
			_, err = c.Hello(time.Minute)
		}
		fmt.Println("listens")
		for end := time.Now().Add(4 * time.Second); err == nil && time.Now().Before(end); {
			_, err = c.EventWithin(2 * time.Second)
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("alive")
	default:
		trainer(mode)
	}
}

func trainer(mode string) {
	events := trainerproto.NewWriter(os.NewFile(trainerproto.EventsFD, "events"))
	switch mode {
	case "mute":
		time.Sleep(time.Minute)
	case "stopped":
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {}
	case "stillborn":
		os.Exit(3)
	case "old":
		events.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: 99})
	case "failed":
		events.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Message: "no device"})
	case "alive":
		events.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version})
		for {
			events.Send(trainerproto.Event{Kind: trainerproto.EventAlive})
			time.Sleep(20 * time.Millisecond)
		}
	case "link": // writes its input to the link that it is passed
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		l, err := links.NewReceiver(os.NewFile(trainerproto.LinksFD, "links")).Next()
		if err != nil {
			events.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Message: err.Error()})
			return
		}
		fmt.Fprintf(l.Conn, "%s %s", l.Name, line)
	case "echo": // answers its input, then leaves a grandchild that holds every descriptor
		events.Send(trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Message: "ready", Groups: 7})
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		cmd := exec.Command("sleep", "300")
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{os.NewFile(trainerproto.EventsFD, "events")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it leaves the group
		cmd.Start()
		events.Send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: strconv.Itoa(cmd.Process.Pid), Message: strings.TrimSpace(line)})
	}
}

func self(mode string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CHILD_TEST="+mode)
	return cmd
}

// alive tells a process that lives from one that is gone or a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func TestChildDiesWithItsHost(t *testing.T) {
	host := self("host")
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil || !alive(pid) {
		t.Fatalf("its child %d: %v", pid, err)
	}
	host.Process.Kill()
	host.Wait()
	waitGone(t, pid)
}

// TestGroupDiesWithItsLeader: what a child starts goes with it.
func TestGroupDiesWithItsLeader(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 300 & echo $!; read line")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	ended := make(chan bool, 1)
	p, err := child.Start(cmd, child.Options{Ended: func() { ended <- true }})
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	in.Close()
	<-p.Exited()
	waitGone(t, pid)
	if len(ended) != 1 {
		t.Error("Exited was closed before Ended was called")
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) || p.Signaled() {
		t.Errorf("a signal to a process that is gone: %v, %v", err, p.Signaled())
	}
}

func TestStopGivesTime(t *testing.T) {
	for name, x := range map[string]struct {
		trap string
		want string
	}{
		"obeys":   {"trap 'exit 7' TERM", "exit status 7"},
		"ignores": {"trap '' TERM", "signal: killed"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", x.trap+"; echo; while :; do sleep 0.05; done")
			out, _ := cmd.StdoutPipe()
			p, err := child.Start(cmd, child.Options{})
			if err != nil {
				t.Fatal(err)
			}
			out.Read(make([]byte, 1))
			p.SignalLeader(syscall.SIGSTOP)
			p.Stop(2 * time.Second)
			<-p.Exited()
			if got := p.State().String(); got != x.want || !p.Signaled() || p.Killed() {
				t.Errorf("%s, signaled %v, killed by others %v", got, p.Signaled(), p.Killed())
			}
		})
	}
}

func TestKilledByOthers(t *testing.T) {
	p, err := child.Start(exec.Command("sleep", "300"), child.Options{})
	if err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.PID(), syscall.SIGKILL)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || !p.Killed() || p.Signaled() {
		t.Errorf("%v, killed %v, signaled %v", err, p.Killed(), p.Signaled())
	}
}

func TestRefusedStartsLeaveNothing(t *testing.T) {
	if _, err := child.Start(exec.Command("/no/such/program"), child.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
	no := errors.New("no")
	var pid int
	if _, err := child.StartTrainer(self("mute"), child.Options{Started: func(n int) error { pid = n; return no }}); err != no {
		t.Errorf("%v", err)
	}
	if alive(pid) {
		t.Errorf("process %d lives", pid)
	}
}

func TestHello(t *testing.T) {
	for mode, want := range map[string]string{
		"mute":      "no hello event on descriptor 3 within 200ms",
		"stillborn": child.ErrEndedEarly.Error(),
		"old":       "version 99, this program version",
		"failed":    "it failed before its job: no device",
		"stopped":   "it was stopped by a signal (SIGSTOP) before its hello event, for 5s",
	} {
		t.Run(mode, func(t *testing.T) {
			c, err := child.StartTrainer(self(mode), child.Options{})
			if err != nil {
				t.Fatal(err)
			}
			timeout := time.Minute
			if mode == "mute" {
				timeout = 200 * time.Millisecond
			}
			if _, err := c.Hello(timeout); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			c.Kill()
			<-c.Exited()
			c.Close()
		})
	}
}

// TestTrainer: what it said is read to the end, though a grandchild that left the
// group holds its descriptors.
func TestTrainer(t *testing.T) {
	held := make(chan bool, 1)
	cmd := self("echo")
	cmd.Stderr = io.MultiWriter() // a pipe, which the grandchild holds
	c, err := child.StartTrainer(cmd, child.Options{Linger: 100 * time.Millisecond, Held: func() { held <- true }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if said, err := c.Hello(time.Minute); err != nil || said != (child.Hello{Message: "ready", Groups: 7}) {
		t.Fatalf("%+v, %v", said, err)
	}
	if err := c.Send(map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	<-c.Exited()
	e, err := c.Event()
	if err != nil || e.Message != `{"a":1}` {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := c.Event(); err != io.EOF || !c.Held() || len(held) != 1 {
		t.Errorf("the end: %v, held %v, told %d", err, c.Held(), len(held))
	}
	if pid, _ := strconv.Atoi(e.Class); pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestLinks: a socket that is passed to a trainer is one between it and us.
func TestLinks(t *testing.T) {
	c, err := child.StartTrainer(self("link"), child.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mine, theirs, err := links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	if err := c.Links().Send(links.Header{Member: 2, Name: "member 2", Local: true}, theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.Send("hello"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(mine)
	if err != nil || string(got) != "member 2 \"hello\"\n" {
		t.Errorf("%q, %v", got, err)
	}
	if e, err := c.Event(); err != io.EOF {
		t.Errorf("%+v, %v", e, err)
	}
	<-c.Exited()
	mine, theirs, err = links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	if err := c.Links().Send(links.Header{Member: 3}, theirs); err == nil {
		t.Error("a link was passed to a trainer that is gone")
	}
}

// TestSilence: a trainer that is stopped is one from which nothing comes; one that
// is not listened to for a while has not been silent.
func TestSilence(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	c, err := child.StartTrainer(self("alive"), child.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer func() { c.Kill(); <-c.Exited() }()
	if _, err := c.Hello(time.Minute); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if n == 10 {
			time.Sleep(limit + 100*time.Millisecond) // busy with something else
		}
		if e, err := c.EventWithin(limit); err != nil || e.Kind != trainerproto.EventAlive {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if _, err := c.Event(); err != nil { // no limit any more
		t.Fatal(err)
	}
	c.SignalLeader(syscall.SIGSTOP)
	for err == nil {
		_, err = c.EventWithin(limit)
	}
	if !errors.Is(err, child.ErrSilent) {
		t.Errorf("a stopped trainer: %v", err)
	}
	c.Kill()
	<-c.Exited()
	if _, err := c.EventWithin(limit); err == nil {
		t.Error("an event after silence")
	}
}

// TestStoppedHost: silence while this program does not run is not the trainer's.
func TestStoppedHost(t *testing.T) {
	t.Parallel()
	host := self("listener")
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { host.Process.Kill(); host.Wait() }()
	lines := bufio.NewReader(out)
	read := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	if got := read(); got != "listens\n" {
		t.Fatal(got)
	}
	host.Process.Signal(syscall.SIGSTOP)
	time.Sleep(2500 * time.Millisecond) // the trainer's child goes on
	host.Process.Signal(syscall.SIGCONT)
	if got := read(); got != "alive\n" {
		t.Errorf("after the host was stopped: %s", got)
	}
}
