package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"atelier/common/trainerproto"
)

// Verb is the worker's hidden argument that makes it a launcher.
const Verb = "confined"

// ExitCannot is the exit code of a launcher that could not become the trainer; it
// has said why on standard error.
const ExitCannot = 126

// firstPrivate is the first descriptor that a trainer does not inherit: 0 to 2
// are standard, then come events and links.
const firstPrivate = trainerproto.LinksFD + 1

// CloseOnExec marks all descriptors from first on as this process's alone. An
// agent calls it before it opens anything: what it got from the shell, or from
// whoever started it, would otherwise be in each trainer.
func CloseOnExec(first uint) error {
	err := unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // Linux before 5.11
		return closeOnExecEach(first)
	}
	return err
}

// closeOnExecEach does the same for each descriptor by itself.
func closeOnExecEach(first uint) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, e := range entries {
		var fd uint
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err == nil && fd >= first {
			syscall.CloseOnExec(int(fd))
		}
	}
	return nil
}

// Main applies the plan that its last argument holds and becomes the trainer. It
// returns the exit code only where it cannot.
func Main(args []string) int {
	// All of it belongs to a thread, and the thread that calls exec stays.
	runtime.LockOSThread()
	err := errors.New("the agent starts it: it takes one argument")
	if len(args) == 1 {
		err = become(args[0])
	}
	fmt.Fprintf(os.Stderr, "atelier-worker %s: %v\n", Verb, err)
	return ExitCannot
}

func become(text string) error {
	p, err := readPlan(text)
	if err != nil {
		return err
	}
	// A dump of memory may hold what a neighbour's settings hold. 1 byte, not 0: the kernel
	// leaves the limit 0 out of account where dumps are piped to a program.
	if err := limit(unix.RLIMIT_CORE, 1, true); err != nil {
		return fmt.Errorf("limit core dumps: %w", err)
	}
	if p.FileBytes > 0 {
		if err := limit(unix.RLIMIT_FSIZE, p.FileBytes, false); err != nil {
			return fmt.Errorf("limit the size of files: %w", err)
		}
	}
	if p.Processes > 0 {
		if err := limit(unix.RLIMIT_NPROC, p.Processes, false); err != nil {
			return fmt.Errorf("limit processes: %w", err)
		}
	}
	ruleset := -1
	var flags uint32
	if p.Landlock { // while this process may still look at all folders
		if ruleset, flags, err = p.ruleset(); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	if err := dropBounds(); err != nil {
		return err
	}
	if p.User != nil {
		if err := p.User.become(); err != nil {
			return err
		}
	}
	if err := dropRights(); err != nil {
		return err
	}
	// The signal at the agent's end belongs to a thread, and a new user loses it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for a signal at the agent's end: %w", err)
	}
	if os.Getppid() != p.Agent {
		return errors.New("its agent has ended")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if ruleset >= 0 {
		if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), uintptr(flags), 0); errno != 0 {
			return fmt.Errorf("landlock: restrict: %w", errno)
		}
	}
	if p.Filter {
		if err := filterCalls(p.Network); err != nil {
			return err
		}
	}
	if err := CloseOnExec(firstPrivate); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return fmt.Errorf("start %s: %w", p.Command[0], syscall.Exec(p.Command[0], p.Command, os.Environ()))
}

// limit lowers a limit; one that is lower already stays, unless the value counts
// for more than what is below it.
func limit(what int, value uint64, exactly bool) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(what, &now); err != nil {
		return err
	}
	most := min(now.Max, value)
	soft := min(now.Cur, value)
	if exactly {
		soft = most
	}
	return unix.Setrlimit(what, &unix.Rlimit{Cur: soft, Max: most})
}

func readPlan(text string) (p plan, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("plan: %w", err)
	}
	if len(p.Command) == 0 || p.Agent < 1 {
		return p, errors.New("plan: without a command or an agent")
	}
	return p, nil
}

// Rights to read without the one to execute.
const (
	readFile = landlock.AccessFSSet(ll.AccessFSReadFile)
	readDir  = landlock.AccessFSSet(ll.AccessFSReadDir)
)

// ruleset makes the kernel's object of the plan's folders. What is not there is
// left out: a machine has some of the system's folders, not all.
func (p plan) ruleset() (fd int, flags uint32, err error) {
	var rules []landlock.Rule
	for _, group := range []struct {
		paths     []string
		dir, file func(string) landlock.FSRule
	}{
		{p.Run, func(s string) landlock.FSRule { return landlock.RODirs(s) }, func(s string) landlock.FSRule { return landlock.ROFiles(s) }},
		{p.Read, func(s string) landlock.FSRule { return landlock.PathAccess(readFile|readDir, s) }, func(s string) landlock.FSRule { return landlock.PathAccess(readFile, s) }},
		{p.List, func(s string) landlock.FSRule { return landlock.PathAccess(readDir, s) }, func(s string) landlock.FSRule { return landlock.PathAccess(readFile, s) }},
		{p.Write, p.writable, func(s string) landlock.FSRule { return landlock.RWFiles(s) }},
		{p.Devices, func(s string) landlock.FSRule { return landlock.RWDirs(s).WithIoctlDev() }, func(s string) landlock.FSRule { return landlock.RWFiles(s).WithIoctlDev() }},
	} {
		for _, path := range group.paths {
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			rule := group.file
			if info.IsDir() {
				rule = group.dir
			}
			rules = append(rules, rule(path).IgnoreIfMissing())
		}
	}
	all := landlock.V11
	if p.Network {
		all.HandledAccessNet = 0
	}
	return all.BestEffort().NewRulesetFD(rules...)
}

// writable is a folder to read, write and run things in: a trainer may compile
// its own kernels.
func (p plan) writable(s string) landlock.FSRule {
	rule := landlock.RWDirs(s)
	if p.Refer {
		rule = rule.WithRefer()
	}
	return rule
}
