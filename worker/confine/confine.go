// Package confine starts a trainer with less than its agent may: no new
// privileges, no descriptor but those handed on, a limited size of files, no core
// dump, the folders that it needs, no network. A trainer opens images and weights
// that strangers made, and is a program that somebody else wrote; what goes wrong
// in it should stay in it.
//
// Go starts a process without a hook between fork and exec, so the worker's own
// program is started first, as a launcher (Main): it applies a plan to itself and
// becomes the trainer. The package refuses to know leases, jobs and trainers'
// protocols: it gets folders and a command.
package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Mode says how much is wanted.
type Mode string

const (
	On      Mode = "on"      // what this kernel has
	Off     Mode = "off"     // nothing: a trainer may what the agent may
	Require Mode = "require" // all of it, or the worker does not start
)

// Modes are all of them, the default first.
var Modes = []Mode{On, Off, Require}

// ParseMode reads a Mode.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); slices.Contains(Modes, m) {
		return m, nil
	}
	return "", fmt.Errorf("%q: give on (what this kernel has), require (all, or do not start) or off", s)
}

// Landlock's versions from which on it can do a thing.
const (
	abiRefer = 2 // files move between the folders that may be written
	abiScope = 6 // no signals to processes outside
)

// Config of a Confinement.
type Config struct {
	Mode Mode

	// Launcher is the command that calls Main with the arguments that follow it.
	Launcher []string

	// Write are the folders that trainers may read and write, Read those that they may
	// read: of the worker, not of one run. They exist.
	Write, Read []string

	// Cache is such a folder, too, whose files are of all runs: packed image sets.
	Cache string

	// Private are folders that no setting opens to a trainer: the worker's data folder.
	// What of them is in Write or Read stays open.
	Private []string

	// Roots are the only folders that settings may name data and weights in; none =
	// any folder.
	Roots []string

	// Temp takes a folder of temporary files for each trainer.
	Temp string

	// FileBytes is the largest file that a trainer may write; 0 = any.
	FileBytes uint64

	User string // whom trainers run as; needs root; "" = as the agent
}

// Program is a trainer's command with what its owner, not a sweep, allows it.
type Program struct {
	Command     []string
	Read, Write []string // folders and files beyond those of all trainers
	Network     bool     // it may use the internet's sockets
	Own         bool     // one of Atelier's: needs neither /opt nor shared memory by name
}

// Confinement is what is in force for the trainers of one worker; nil = nothing.
type Confinement struct {
	cfg     Config
	abi     int  // Landlock's version; 0 = this kernel has none
	filters bool // of system calls
	user    *account
}

// New looks at what the kernel has. It returns nil for mode off.
func New(cfg Config) (*Confinement, error) {
	if cfg.Cache != "" {
		cfg.Write = append(slices.Clone(cfg.Write), cfg.Cache)
	}
	c := &Confinement{cfg: cfg}
	if cfg.Mode == Off {
		if cfg.User != "" {
			return nil, errors.New("--trainer-user needs --confine on or require")
		}
		if len(cfg.Roots) > 0 {
			return nil, errors.New("--data-root needs --confine on or require")
		}
		return nil, nil
	}
	if len(cfg.Launcher) == 0 || cfg.Temp == "" {
		return nil, errors.New("confine: a launcher and a folder for temporary files are needed")
	}
	// An error says that there is none: not built in, or not switched on.
	c.abi, _ = ll.LandlockGetABIVersion()
	c.filters = canFilter()
	if cfg.Mode == Require && !c.filters {
		return nil, errors.New("--confine require: this kernel takes no filters of system calls (seccomp), or there is none for this architecture; --confine on takes what there is")
	}
	if cfg.Mode == Require && c.abi < abiScope {
		return nil, fmt.Errorf("--confine require: this kernel has Landlock %s, and version %d is needed (Linux 6.12, with landlock in the kernel's list of security modules: cat /sys/kernel/security/lsm); "+
			"--confine on takes what there is", version(c.abi), abiScope)
	}
	for _, list := range []*[]string{&c.cfg.Write, &c.cfg.Read, &c.cfg.Private, &c.cfg.Roots} {
		var err error
		if *list, err = resolved(*list); err != nil {
			return nil, fmt.Errorf("confine trainers: %w; each folder must be there (--data, --shared, --cache, --data-root)", err)
		}
	}
	if cfg.User != "" {
		var err error
		if c.user, err = findAccount(cfg.User); err != nil {
			return nil, fmt.Errorf("--trainer-user: %w", err)
		}
	}
	if err := c.clearTemp(); err != nil {
		return nil, err
	}
	return c, nil
}

// resolved are folders without links on the way: Landlock and comparisons see
// where a path leads.
func resolved(dirs []string) (out []string, err error) {
	for _, dir := range dirs {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return nil, err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		out = append(out, dir)
	}
	return out, nil
}

func version(abi int) string {
	if abi <= 0 {
		return "not at all"
	}
	return fmt.Sprintf("version %d", abi)
}

// String says in a few words what is in force: for the log and for lists.
func (c *Confinement) String() string {
	if c == nil {
		return "off"
	}
	words := []string{"no_new_privs", "no core dumps"}
	switch {
	case c.abi <= 0:
		words = append(words, "no landlock in this kernel: folders are open")
	default:
		words = append(words, fmt.Sprintf("landlock %d", c.abi))
		if c.abi < abiScope {
			words = append(words, "signals are open")
		}
	}
	if c.filters {
		words = append(words, "seccomp")
	} else {
		words = append(words, "no seccomp: the network is open")
	}
	if c.cfg.FileBytes > 0 {
		words = append(words, fmt.Sprintf("files to %d GiB", c.cfg.FileBytes>>30))
	}
	if c.user != nil {
		words = append(words, "user "+c.user.Name)
	}
	return strings.Join(words, ", ")
}

// Folders reports whether folders are closed to trainers here.
func (c *Confinement) Folders() bool { return c != nil && c.abi > 0 }

// plan is what the launcher does to itself before it becomes the trainer. It
// travels as an argument, so it holds nothing secret.
type plan struct {
	Command   []string // the program as a path
	Agent     int      // process id of who started it
	FileBytes uint64   `json:",omitempty"` // 0 = any
	Processes uint64   `json:",omitempty"` // of the user, threads counted; 0 = any
	User      *account `json:",omitempty"`
	Landlock  bool
	Filter    bool     // of system calls
	Network   bool     `json:",omitempty"` // sockets of the internet are allowed
	Refer     bool     `json:",omitempty"` // the kernel can allow moves between folders
	Run       []string // read and execute; what is missing is left out
	Read      []string
	List      []string // names alone
	Write     []string // read and write
	Devices   []string // read, write, ioctl
}

// Command is what to start in place of a program's own command, so that it runs
// confined, with further paths that it may read. temp is its folder for temporary
// files, which it may write.
func (c *Confinement) Command(p Program, read []string, temp string) ([]string, error) {
	path, err := exec.LookPath(p.Command[0])
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	pl := plan{Command: append([]string{path}, p.Command[1:]...), Agent: os.Getpid(), FileBytes: c.cfg.FileBytes, User: c.user, Landlock: c.abi > 0, Filter: c.filters,
		Network: p.Network, Refer: c.abi >= abiRefer}
	if c.user != nil {
		// The kernel counts all processes and threads of a user, whoever started them. Beside a
		// person's own programs no number would be right; a user of trainers has nothing else.
		pl.Processes = uint64(max(4096, 64*runtime.NumCPU()))
	}
	pl.Run = append(slices.Clone(systemRun), c.programFolders(p)...)
	pl.Read = slices.Concat(systemRead, c.cfg.Read, p.Read, read)
	pl.Write = slices.Concat(c.cfg.Write, p.Write, []string{temp})
	for _, path := range read {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			pl.List = append(pl.List, filepath.Dir(path))
		}
	}
	pl.Devices = deviceFiles()
	if !p.Own {
		pl.Write = append(pl.Write, "/dev/shm")
	}
	b, err := json.Marshal(pl)
	if err != nil {
		return nil, err
	}
	if len(b) > maxPlan {
		return nil, fmt.Errorf("confine: %d KiB of paths for one trainer; %d are possible: give a folder that contains them", len(b)>>10, maxPlan>>10)
	}
	return append(slices.Clone(c.cfg.Launcher), string(b)), nil
}

// maxPlan keeps a plan below the longest argument that Linux takes, 128 KiB.
const maxPlan = 100 << 10
