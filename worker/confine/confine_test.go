package confine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"atelier/worker/confine"
)

// TestMain lets this test program stand in for the worker that launches trainers,
// and for a trainer that tries what it is told.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == confine.Verb:
		os.Exit(confine.Main(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == "try":
		os.Exit(try(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// try does one thing after another and prints a line of JSON: what each came to,
// "" where it worked.
func try(things []string) int {
	came := map[string]string{}
	for _, thing := range things {
		verb, arg, _ := strings.Cut(thing, ":")
		text, err := "", error(nil)
		switch verb {
		case "read":
			_, err = os.ReadFile(arg)
		case "list":
			_, err = os.ReadDir(arg)
		case "write":
			err = os.WriteFile(arg, []byte("x"), 0o644)
		case "append":
			var f *os.File
			if f, err = os.OpenFile(arg, os.O_WRONLY|os.O_APPEND, 0); err == nil {
				_, err = f.Write([]byte("x"))
			}
		case "remove":
			err = os.Remove(arg)
		case "move": // a folder up
			err = os.Rename(arg, filepath.Join(filepath.Dir(filepath.Dir(arg)), filepath.Base(arg)))
		case "run":
			err = exec.Command(arg).Run()
		case "dial":
			var c net.Conn
			if c, err = net.Dial("tcp", arg); err == nil {
				c.Close()
			}
		case "listen":
			var l net.Listener
			if l, err = net.Listen("tcp", arg); err == nil {
				l.Close()
			}
		case "socket": // family,type,protocol
			var family, kind, protocol int
			fmt.Sscanf(arg, "%d,%d,%d", &family, &kind, &protocol)
			var fd int
			if fd, err = unix.Socket(family, kind, protocol); err == nil {
				unix.Close(fd)
			}
		case "uring":
			_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
			err = errno
		case "signal":
			pid := 0
			fmt.Sscan(arg, &pid)
			err = syscall.Kill(pid, 0)
		case "environ":
			text = strings.Join(os.Environ(), "\n")
		case "descriptors":
			for fd := range 64 {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
					name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
					if !strings.HasPrefix(name, "anon_inode:") && !strings.Contains(name, "cgroup") { // the Go runtime's own
						text += fmt.Sprintf("%d ", fd)
					}
				}
			}
		case "status":
			var b []byte
			b, err = os.ReadFile("/proc/self/status")
			text = string(b)
		case "limits":
			var b []byte
			b, err = os.ReadFile("/proc/self/limits")
			text = string(b)
		case "grow": // a file beyond 1 GiB, sparse
			var f *os.File
			if f, err = os.Create(arg); err == nil {
				err = f.Truncate(2 << 30)
			}
		case "who":
			text = fmt.Sprintf("%d %d", os.Getuid(), os.Getgid())
		default:
			err = fmt.Errorf("cannot do %q", thing)
		}
		if err != nil {
			text = err.Error()
		}
		came[thing] = text
	}
	json.NewEncoder(os.Stdout).Encode(came)
	return 0
}

// place is a worker's folders, and data beside them.
type place struct {
	t                             *testing.T
	top, data, runs, fetched, set string
	cfg                           confine.Config
}

// newPlace has runs and cache to write, fetched copies to read, and a secret, all in
// the worker's data folder.
func newPlace(t *testing.T) *place {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	p := &place{t: t, top: top, data: filepath.Join(top, "w1")}
	p.runs, p.fetched, p.set = filepath.Join(p.data, "runs"), filepath.Join(p.data, "fetched"), filepath.Join(top, "photos")
	for _, dir := range []string{p.runs, p.fetched, filepath.Join(p.data, "cache"), filepath.Join(p.set, "gothic")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	for _, file := range []string{p.data + "/secret", p.runs + "/old.pth", p.fetched + "/copy.pth", p.set + "/gothic/1.jpg", top + "/other"} {
		must(t, os.WriteFile(file, []byte("text"), 0o644))
	}
	self, err := os.Executable()
	must(t, err)
	p.cfg = confine.Config{Mode: confine.On, Launcher: []string{self, confine.Verb}, Write: []string{p.runs}, Cache: filepath.Join(p.data, "cache"),
		Read: []string{p.fetched}, Private: []string{p.data}, Temp: filepath.Join(p.data, "tmp")}
	return p
}

func (p *place) confinement() *confine.Confinement {
	p.t.Helper()
	c, err := confine.New(p.cfg)
	must(p.t, err)
	return c
}

// needsLandlock skips where the kernel cannot close folders.
func needsLandlock(t *testing.T, c *confine.Confinement) {
	t.Helper()
	if !c.Folders() {
		t.Skip("this kernel has no Landlock")
	}
}

// tries starts this program confined and returns what the things that it tried came to.
func (p *place) tries(c *confine.Confinement, prog confine.Program, read []string, change func(*exec.Cmd), things ...string) map[string]string {
	p.t.Helper()
	self, err := os.Executable()
	must(p.t, err)
	prog.Command = append([]string{self, "try"}, things...)
	temp, err := c.NewTemp("a")
	must(p.t, err)
	defer c.DropTemp(temp)
	argv, err := c.Command(prog, read, temp)
	must(p.t, err)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(c.Environ(os.Environ()), "TMPDIR="+temp)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if change != nil {
		change(cmd)
	}
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("the trainer: %v: %s", err, errs.String())
	}
	came := map[string]string{}
	must(p.t, json.Unmarshal(out, &came))
	return came
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A trainer reads and writes what is its own, reads what its job names, and
// nothing else: not the worker's data folder, not the agent's environment.
func TestFolders(t *testing.T) {
	p := newPlace(t)
	must(t, os.Symlink(p.data+"/secret", p.runs+"/link"))
	must(t, os.Mkdir(p.runs+"/deep", 0o755))
	must(t, os.WriteFile(p.runs+"/deep/moved", []byte("x"), 0o644))
	c := p.confinement()
	needsLandlock(t, c)
	allowed := []string{"read:" + p.runs + "/old.pth", "write:" + p.runs + "/new.pth", "append:" + p.runs + "/old.pth", "move:" + p.runs + "/deep/moved",
		"write:" + p.data + "/cache/a.pack", "write:" + p.data + "/tmp/a/file",
		"read:" + p.fetched + "/copy.pth", "read:" + p.set + "/gothic/1.jpg", "list:" + p.set,
		"read:/proc/cpuinfo", "read:/proc/self/environ", "read:/etc/passwd", "write:/dev/null", "run:/bin/true"}
	refused := []string{"read:" + p.data + "/secret", "list:" + p.data, "write:" + p.data + "/new", "read:" + p.runs + "/link", "remove:" + p.data + "/secret",
		"read:" + p.top + "/other", "list:" + p.top, "append:" + p.top + "/other", "write:" + p.top + "/new", "write:" + p.set + "/gothic/2.jpg", "append:" + p.set + "/gothic/1.jpg",
		"write:" + p.fetched + "/new", "list:/etc", "write:/usr/new", "list:/", "list:/home",
		fmt.Sprintf("read:/proc/%d/environ", os.Getpid())}
	came := p.tries(c, confine.Program{}, []string{p.set}, nil, slices.Concat(allowed, refused)...)
	for _, thing := range allowed {
		if came[thing] != "" {
			t.Errorf("%s: %s", thing, came[thing])
		}
	}
	for _, thing := range refused {
		if !strings.Contains(came[thing], "permission denied") {
			t.Errorf("%s: %q, want permission denied", thing, came[thing])
		}
	}
	// Without a confinement all of these can be done, so what is refused above is the confinement's doing.
	if _, err := os.ReadFile(p.data + "/secret"); err != nil {
		t.Error(err)
	}
}

// What the owner of a trainer says in the worker's file is opened to it alone.
func TestFoldersOfOneTrainer(t *testing.T) {
	p := newPlace(t)
	c := p.confinement()
	needsLandlock(t, c)
	must(t, os.MkdirAll(p.top+"/models", 0o755))
	read, write := "read:"+p.top+"/other", "write:"+p.top+"/models/a"
	for _, tc := range []struct {
		prog confine.Program
		open bool
	}{{confine.Program{}, false}, {confine.Program{Read: []string{p.top + "/other"}, Write: []string{p.top + "/models"}}, true}} {
		for thing, text := range p.tries(c, tc.prog, nil, nil, read, write) {
			if (text == "") != tc.open {
				t.Errorf("%s with %+v: %q", thing, tc.prog, text)
			}
		}
	}
}

// No socket of the internet, unless the trainer's owner says so: TCP, UDP, MPTCP
// alike. Sockets between processes of this machine work.
func TestNetwork(t *testing.T) {
	p := newPlace(t)
	c := p.confinement()
	if strings.Contains(c.String(), "the network is open") {
		t.Skip("this kernel takes no filters of system calls")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	dial, listen := "dial:"+l.Addr().String(), "listen:127.0.0.1:0"
	udp, mptcp := fmt.Sprintf("socket:%d,%d,0", unix.AF_INET, unix.SOCK_DGRAM), fmt.Sprintf("socket:%d,%d,%d", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
	raw, local := fmt.Sprintf("socket:%d,%d,0", unix.AF_PACKET, unix.SOCK_RAW), fmt.Sprintf("socket:%d,%d,0", unix.AF_UNIX, unix.SOCK_STREAM)
	came := p.tries(c, confine.Program{}, nil, nil, dial, listen, udp, mptcp, raw, local, "uring")
	for _, thing := range []string{dial, listen, udp, mptcp, raw} {
		if !strings.Contains(came[thing], "permission denied") {
			t.Errorf("%s: %q, want permission denied", thing, came[thing])
		}
	}
	if came[local] != "" || !strings.Contains(came["uring"], "not permitted") {
		t.Errorf("%s: %q; io_uring, which makes sockets, too: %q", local, came[local], came["uring"])
	}
	came = p.tries(c, confine.Program{Network: true}, nil, nil, dial, listen, udp, raw, local)
	for _, thing := range []string{dial, listen, udp, local} {
		if came[thing] != "" {
			t.Errorf("with network, %s: %s", thing, came[thing])
		}
	}
	if !strings.Contains(came[raw], "permission denied") {
		t.Errorf("with network, %s: %q", raw, came[raw])
	}
}

// No signals to processes outside.
func TestSignals(t *testing.T) {
	p := newPlace(t)
	c := p.confinement()
	needsLandlock(t, c)
	if strings.Contains(c.String(), "signals are open") {
		t.Skip("this kernel's Landlock knows no signals")
	}
	signal := fmt.Sprintf("signal:%d", os.Getpid())
	for _, network := range []bool{false, true} {
		if came := p.tries(c, confine.Program{Network: network}, nil, nil, signal); !strings.Contains(came[signal], "not permitted") {
			t.Errorf("%s: %q", signal, came[signal])
		}
	}
}

// A trainer has the descriptors that were handed to it, whatever the agent's
// parent, or the agent, left open.
func TestDescriptors(t *testing.T) {
	p := newPlace(t)
	open := func() *os.File {
		f, err := os.Open(p.top + "/other")
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	came := p.tries(p.confinement(), confine.Program{}, nil, func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{open(), open(), open(), nil, open()} // events, links, and two that leak
	}, "descriptors")
	if got := strings.TrimSpace(came["descriptors"]); got != "0 1 2 3 4" {
		t.Errorf("descriptors %s, want 0 1 2 3 4", got)
	}
}

// An agent closes what it inherited to all that it starts.
func TestCloseOnExec(t *testing.T) {
	f, err := os.Open(os.Args[0])
	must(t, err)
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 40)
	must(t, err)
	defer unix.Close(fd)
	flag := func() int {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		must(t, err)
		return n & unix.FD_CLOEXEC
	}
	if flag() != 0 {
		t.Fatal("the descriptor does not leak: nothing is shown")
	}
	must(t, confine.CloseOnExec(40))
	if flag() == 0 {
		t.Error("it is still passed on")
	}
}

// Variables that are not on the list stay with the agent.
func TestEnviron(t *testing.T) {
	p := newPlace(t)
	for k, v := range map[string]string{"ATELIER_TOKEN": "canary-1", "AWS_SECRET_ACCESS_KEY": "canary-2", "LD_PRELOAD": "", "ATELIER_REDIS_PASSWORD": "canary-3",
		"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": "1", "LC_ALL": "C.UTF-8", "TZ": "UTC"} {
		t.Setenv(k, v)
	}
	came := p.tries(p.confinement(), confine.Program{}, nil, nil, "environ")
	names := map[string]bool{}
	for line := range strings.Lines(came["environ"]) {
		name, _, _ := strings.Cut(line, "=")
		names[name] = true
	}
	for _, name := range []string{"PATH", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "LC_ALL", "TZ", "TMPDIR"} {
		if !names[name] {
			t.Errorf("%s does not reach the trainer", name)
		}
	}
	if strings.Contains(came["environ"], "canary") || names["LD_PRELOAD"] {
		t.Errorf("reaches the trainer: %s", came["environ"])
	}
	var none *confine.Confinement
	if got := none.Environ([]string{"A=b"}); len(got) != 1 {
		t.Errorf("without a confinement: %v", got)
	}
}

// No new privileges, no core dump, no file beyond the limit.
func TestLimits(t *testing.T) {
	p := newPlace(t)
	p.cfg.FileBytes = 1 << 30
	came := p.tries(p.confinement(), confine.Program{}, nil, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "GOTRACEBACK=none")
	}, "status", "limits")
	for _, want := range []struct{ in, text string }{
		{came["status"], "NoNewPrivs:\t1"},
		{came["status"], "Seccomp:\t2"},
		{came["status"], "CapInh:\t0000000000000000"},
		{came["status"], "CapAmb:\t0000000000000000"},
		{strings.Join(strings.Fields(came["limits"]), " "), "Max core file size 1 1 bytes"},
		{strings.Join(strings.Fields(came["limits"]), " "), "Max file size 1073741824 1073741824 bytes"},
	} {
		if !strings.Contains(want.in, want.text) {
			t.Errorf("%q is not in %s", want.text, want.in)
		}
	}
	if os.Geteuid() == 0 && !strings.Contains(came["status"], "CapBnd:\t0000000000000002") { // to open files of others
		t.Errorf("root has other rights yet: %s", came["status"])
	}
	self, _ := os.Executable()
	argv, err := p.confinement().Command(confine.Program{Command: []string{self, "try", "grow:" + p.runs + "/large"}}, nil, p.runs)
	must(t, err)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err == nil && !strings.Contains(string(out), "file too large") {
		t.Errorf("a file of 2 GiB: %s", out)
	}
	if info, err := os.Stat(p.runs + "/large"); err == nil && info.Size() > 1<<30 {
		t.Errorf("a file of %d bytes was made", info.Size())
	}
}

// A launcher says what it cannot do, and starts nothing then.
func TestLauncherRefuses(t *testing.T) {
	p := newPlace(t)
	argv, err := p.confinement().Command(confine.Program{Command: []string{"/bin/echo", "started"}}, nil, p.runs)
	must(t, err)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "takes one argument"},
		{[]string{"{"}, "plan"},
		{[]string{`{"Command":["/bin/echo"],"Agent":1,"Other":2}`}, "unknown field"},
		{[]string{`{"Agent":1}`}, "without a command"},
		// As a launcher whose agent died while it started: its parent is another one.
		{[]string{strings.Replace(argv[len(argv)-1], fmt.Sprintf(`"Agent":%d`, os.Getpid()), `"Agent":999999999`, 1)}, "its agent has ended"},
		{[]string{strings.Replace(argv[len(argv)-1], "/bin/echo", p.top+"/other", 1)}, "permission denied"},
	} {
		out, err := exec.Command(argv[0], append([]string{confine.Verb}, tc.args...)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != confine.ExitCannot || !strings.Contains(string(out), tc.want) || strings.Contains(string(out), "started") {
			t.Errorf("%v: %v, %s; want %q", tc.args, err, out, tc.want)
		}
	}
	if _, err := p.confinement().Command(confine.Program{Command: []string{p.top + "/none"}}, nil, p.runs); err == nil {
		t.Error("a program that is not there")
	}
	if _, err := p.confinement().Command(confine.Program{Command: []string{"/bin/echo"}}, []string{strings.Repeat("/long", 30000)}, p.runs); err == nil || !strings.Contains(err.Error(), "KiB of paths") {
		t.Errorf("a plan beyond what an argument holds: %v", err)
	}
}

// Where root runs the agent, trainers are somebody else, and what they write is
// theirs.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		p := newPlace(t)
		p.cfg.User = "nobody"
		if _, err := confine.New(p.cfg); err == nil || !strings.Contains(err.Error(), "root") {
			t.Errorf("without root: %v", err)
		}
		t.Skip("only root can start trainers as another user")
	}
	p := newPlace(t)
	for dir := p.top; dir != "/"; dir = filepath.Dir(dir) { // of the test alone: t.TempDir is for nobody else
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			must(t, os.Chmod(dir, info.Mode()|0o001))
		}
	}
	self, err := os.ReadFile(os.Args[0])
	must(t, err)
	prog := filepath.Join(p.top, "trainer") // the test program lies where nobody may pass
	must(t, os.WriteFile(prog, self, 0o755))
	must(t, os.WriteFile(p.data+"/secret", []byte("x"), 0o600))
	must(t, os.WriteFile(p.data+"/cache/old.pack", []byte("x"), 0o600))
	p.cfg.User, p.cfg.Launcher = "nobody", []string{prog, confine.Verb}
	c := p.confinement()
	run := filepath.Join(p.runs, "run-1")
	must(t, os.Mkdir(run, 0o755))
	must(t, c.Give(run))
	temp, err := c.NewTemp("a")
	must(t, err)
	things := []string{"who", "write:" + run + "/a.pth", "write:" + temp + "/a", "read:" + p.data + "/cache/old.pack", "read:" + p.data + "/secret", "write:" + p.runs + "/b", "limits"}
	argv, err := c.Command(confine.Program{Command: append([]string{prog, "try"}, things...)}, nil, temp)
	must(t, err)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	out, ended := cmd.CombinedOutput()
	came := map[string]string{}
	if err := json.Unmarshal(out, &came); err != nil {
		t.Fatalf("%v (%v): %s", err, ended, out)
	}
	if strings.HasPrefix(came["who"], "0 ") || strings.HasSuffix(came["who"], " 0") {
		t.Errorf("it runs as %s", came["who"])
	}
	for _, thing := range things[1:4] {
		if came[thing] != "" {
			t.Errorf("%s: %s", thing, came[thing])
		}
	}
	for _, thing := range things[4:6] {
		if !strings.Contains(came[thing], "permission denied") {
			t.Errorf("%s: %q, want permission denied", thing, came[thing])
		}
	}
	most := max(4096, 64*runtime.NumCPU())
	if want := fmt.Sprintf("Max processes %d %d", most, most); !strings.Contains(strings.Join(strings.Fields(came["limits"]), " "), want) {
		t.Errorf("%q is not in %s", want, came["limits"])
	}
	must(t, os.Chmod(p.data, 0o700))
	if _, err := confine.New(p.cfg); err == nil || !strings.Contains(err.Error(), "chmod a+x") {
		t.Errorf("a data folder that the user cannot enter: %v", err)
	}
	p.cfg.User = "no-such-user-here"
	if _, err := confine.New(p.cfg); err == nil || !strings.Contains(err.Error(), "useradd") {
		t.Errorf("a user that is not there: %v", err)
	}
}

func TestModes(t *testing.T) {
	for _, m := range confine.Modes {
		if got, err := confine.ParseMode(string(m)); err != nil || got != m {
			t.Errorf("%s: %q, %v", m, got, err)
		}
	}
	if _, err := confine.ParseMode("maybe"); err == nil {
		t.Error("maybe is a mode")
	}
	p := newPlace(t)
	c := p.confinement()
	if s := c.String(); !strings.Contains(s, "no_new_privs") || !strings.Contains(s, "landlock") {
		t.Errorf("in force: %s", s)
	}
	p.cfg.Mode = confine.Off
	none, err := confine.New(p.cfg)
	if none != nil || err != nil || none.String() != "off" || none.Folders() || !none.Covers(nil, []string{"/a"}) || none.Give("/none") != nil {
		t.Errorf("off: %v, %v", none, err)
	}
	p.cfg.Roots = []string{p.set}
	if _, err := confine.New(p.cfg); err == nil {
		t.Error("--data-root without a confinement promises what is not kept")
	}
	p.cfg.Mode = confine.Require
	if got, err := confine.New(p.cfg); (err == nil) != (!strings.Contains(c.String(), "open")) {
		t.Errorf("require where this is in force: %s: %v, %v", c, got, err)
	}
}

// output is what a trainer's things came to.
func output(t *testing.T, argv []string) map[string]string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	came := map[string]string{}
	if json.Unmarshal(out, &came) != nil {
		t.Fatalf("the trainer: %v: %s", err, out)
	}
	return came
}
