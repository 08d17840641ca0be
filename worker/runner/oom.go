package runner

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomCount holds the kernel's counts of processes it killed for want of memory:
// in the agent's own control group, which its children share, and on the whole
// machine. A SIGKILL nobody here sent beside a count that moved is an
// out-of-memory kill.
type oomCount struct {
	group   int64 // -1: not known
	machine int64
}

// firstToGo lets the kernel, when memory ends, choose a trainer before the agent
// and whatever else serves on this machine: a run is classed and told of, an
// agent that is gone loses its runs. What the trainer starts inherits it.
func firstToGo(pid int) {
	// Raising one's score needs no right; where the file cannot be written the kernel chooses by size, as before.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0)
}

// readOOM counts the kills so far; -1 where the kernel does not tell.
func readOOM() oomCount {
	return oomCount{group: groupOOM("/proc/self/cgroup", "/sys/fs/cgroup"), machine: counter("/proc/vmstat", "oom_kill")}
}

// since names the count that moved, or is empty.
func (before oomCount) since() string {
	now := readOOM()
	if before.group >= 0 && now.group > before.group {
		return fmt.Sprintf("memory limit of the control group, %d kills", now.group)
	}
	if before.machine >= 0 && now.machine > before.machine {
		return fmt.Sprintf("memory of the machine, %d kills since it started", now.machine)
	}
	return ""
}

// groupOOM reads oom_kill of the control group of the calling process, in
// version 2 (memory.events) or 1 (memory.oom_control).
func groupOOM(self, mount string) int64 {
	b, err := os.ReadFile(self)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var tries []string
		switch {
		case parts[0] == "0" && parts[1] == "":
			tries = []string{filepath.Join(mount, parts[2], "memory.events"), filepath.Join(mount, "memory.events")}
		case parts[1] == "memory":
			tries = []string{filepath.Join(mount, "memory", parts[2], "memory.oom_control"), filepath.Join(mount, "memory", "memory.oom_control")}
		}
		for _, f := range tries {
			if n := counter(f, "oom_kill"); n >= 0 {
				return n
			}
		}
	}
	return -1
}

// counter reads "name number" from a file of such lines; -1 when it is not there.
func counter(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return -1
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), " "); ok && k == name {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}
