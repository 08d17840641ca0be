// Package headroom reads how much more memory this process may take, before
// the kernel refuses it or ends it.
//
// The package refuses to guess: what no file tells is no limit.
package headroom

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Room is what may still be taken.
type Room struct {
	Bytes int64  // never negative
	Of    string // what sets the bound: "machine", "control group", "process limit"; empty = nothing known
}

// Now reads the tightest bound: memory the machine has left (swap included),
// the limits of the control groups this process is in, its own ulimits on
// address space and data. Of so many processes that begin here together each has
// an equal part of what they share; of its own limits all.
func Now(sharers int) Room { return read("/proc", "/sys/fs/cgroup", int64(max(sharers, 1))) }

func read(proc, cgroup string, sharers int64) Room {
	best := Room{Bytes: math.MaxInt64}
	tighter := func(n int64, of string) {
		if n = max(n, 0); n < best.Bytes {
			best = Room{n, of}
		}
	}
	info := counters(filepath.Join(proc, "meminfo"))
	if free, ok := info["MemAvailable:"]; ok {
		tighter(1024*(free+info["SwapFree:"])/sharers, "machine")
	}
	if n, ok := group(filepath.Join(proc, "self", "cgroup"), cgroup); ok {
		tighter(n/sharers, "control group")
	}
	limits, status := limits(filepath.Join(proc, "self", "limits")), counters(filepath.Join(proc, "self", "status"))
	for name, used := range map[string]string{"Max address space": "VmSize:", "Max data size": "VmData:"} {
		if n, ok := limits[name]; ok {
			tighter(n-1024*status[used], "process limit")
		}
	}
	return best
}

// group is the room in the control groups of the calling process: of version 2
// each one up to the root, of version 1 the memory controller's.
func group(self, mount string) (room int64, found bool) {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0, false
	}
	room = math.MaxInt64
	try := func(dir, limit, used string, reclaimable ...string) {
		most, ok := number(filepath.Join(dir, limit))
		if !ok || most >= 1<<60 { // version 1 writes no limit as a huge one
			return
		}
		now, ok := number(filepath.Join(dir, used))
		if !ok {
			return
		}
		stat := counters(filepath.Join(dir, "memory.stat"))
		for _, r := range reclaimable { // pages of files, which go when room is wanted
			now -= stat[r]
		}
		room, found = min(room, most-max(now, 0)), true
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		// In a container the path may be the host's; the limit is then at the mount's root.
		switch {
		case parts[0] == "0" && parts[1] == "":
			for dir := filepath.Clean("/" + parts[2]); ; dir = filepath.Dir(dir) {
				try(filepath.Join(mount, dir), "memory.max", "memory.current", "active_file", "inactive_file")
				if dir == "/" {
					break
				}
			}
		case parts[1] == "memory":
			for _, dir := range []string{filepath.Join(mount, "memory", parts[2]), filepath.Join(mount, "memory")} {
				try(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file", "total_inactive_file")
			}
		}
	}
	return room, found
}

// number reads a file that holds one; "max" is none.
func number(file string) (int64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// counters reads lines of a name and a number.
func counters(file string) map[string]int64 {
	all := map[string]int64{}
	b, err := os.ReadFile(file)
	if err != nil {
		return all
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				all[f[0]] = n
			}
		}
	}
	return all
}

// limits reads soft limits that are set, in bytes, of /proc/PID/limits: name, soft, hard
// and unit in columns two or more spaces apart.
func limits(file string) map[string]int64 {
	all := map[string]int64{}
	b, err := os.ReadFile(file)
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(line, "  ")
		if f := strings.Fields(rest); ok && len(f) >= 3 && f[len(f)-1] == "bytes" {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				all[name] = n
			}
		}
	}
	return all
}
