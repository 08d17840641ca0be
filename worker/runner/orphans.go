package runner

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atelier/common/files"
)

// pidRecord is what a pid file holds. Pid and start time together name a
// process within one boot of the machine; the marker names its descendants.
type pidRecord struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start"` // clock ticks since boot, from /proc/PID/stat
	Boot    string `json:"boot"`
	Marker  string `json:"marker"`
	Slot    string `json:"slot"`
	Trainer string `json:"trainer"`
}

// writePIDFile names the process in a way that another one with its number, or another boot, does
// not fit.
func (c *Child) writePIDFile(pid int, dir, trainer string) error {
	stat, err := readStat(pid)
	if err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	b, err := json.Marshal(pidRecord{PID: pid, Start: stat.start, Boot: bootID(), Marker: c.marker, Slot: c.slot, Trainer: trainer})
	if err != nil {
		return err
	}
	c.pidFile = filepath.Join(dir, fmt.Sprintf("%d-%s.json", pid, c.marker))
	if err := files.WriteUnsynced(c.pidFile, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	return nil
}

// KillOrphans ends what an earlier agent with the same folder left behind:
// each recorded trainer with its process group, and whatever carries its
// marker. It returns when they are gone, or with an error naming one that does
// not die in wait. To be called under the data folder's lock, before the first
// word to a coordinator.
func KillOrphans(dir string, wait time.Duration, logger *slog.Logger) (int, error) {
	recorded, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return 0, err
	}
	boot := bootID()
	var records []pidRecord
	for _, f := range recorded {
		var r pidRecord
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil || r.PID < 2 || r.Marker == "" || r.Boot != boot {
			logger.Warn("pid file of another boot or not readable; dropped", "file", f, "error", err)
			os.Remove(f)
			continue
		}
		records = append(records, r)
	}
	killed := map[int]bool{}
	deadline := time.Now().Add(wait)
	for {
		live := findMarked(records)
		for _, pid := range live {
			if !killed[pid] {
				logger.Info("ending a trainer of an earlier agent", "pid", pid)
			}
			killed[pid] = true
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(live) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return len(killed), fmt.Errorf("process %d of an earlier agent does not end after SIGKILL within %s; it may hang in a driver: end it or restart the machine", live[0], wait)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, f := range recorded {
		os.Remove(f)
	}
	tmps, _ := filepath.Glob(filepath.Join(dir, files.Unfinished("*.json")))
	for _, f := range tmps {
		os.Remove(f)
	}
	return len(killed), nil
}

// findMarked lists live processes that belong to one of the records.
func findMarked(records []pidRecord) []int {
	if len(records) == 0 {
		return nil
	}
	byPID := map[int]pidRecord{}
	markers := map[string]bool{}
	for _, r := range records {
		byPID[r.PID] = r
		markers[r.Marker] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := readStat(pid)
		if err != nil || stat.state == 'Z' || stat.state == 'X' {
			continue
		}
		leader, known := byPID[pid]
		if known && leader.Start == stat.start {
			out = append(out, pid)
			continue
		}
		if markers[markerOf(pid)] {
			out = append(out, pid)
		}
	}
	return out
}

// markerOf is the marker in a process's environment; "" where it has none, or is not ours to read.
func markerOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for kv := range bytes.SplitSeq(b, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte(markerVariable+"=")); ok {
			return string(v)
		}
	}
	return ""
}

type procStat struct {
	state byte
	start uint64
}

// readStat reads the fields that follow the command name, which itself may
// hold spaces and brackets.
func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: no command name", pid)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return procStat{}, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(f))
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("/proc/%d/stat: start time: %w", pid, err)
	}
	return procStat{state: f[0][0], start: start}, nil
}

// bootID tells one start of the machine from the next; "" where it is not known.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
