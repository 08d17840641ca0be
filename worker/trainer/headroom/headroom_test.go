package headroom

import (
	"os"
	"path/filepath"
	"testing"
)

// machine lays files out as /proc and /sys/fs/cgroup have them.
func machine(t *testing.T, files map[string]string) (proc, cgroup string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "proc"), filepath.Join(dir, "cgroup")
}

const unlimited = `Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max data size             unlimited            unlimited            bytes     
Max address space         unlimited            unlimited            bytes     
`

const limited = `Limit                     Soft Limit           Hard Limit           Units     
Max data size             unlimited            unlimited            bytes     
Max open files            1024                 524288               files     
Max address space         3145728              unlimited            bytes     
`

const meminfo = "MemTotal:       24000 kB\nMemAvailable:    8000 kB\nSwapFree:        100 kB\n"

func TestTightestBound(t *testing.T) {
	status := "VmSize:\t    1024 kB\nVmData:\t     512 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  Room
	}{
		"machine": {map[string]string{"proc/meminfo": meminfo, "proc/self/limits": unlimited, "proc/self/status": status,
			"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "max\n", "cgroup/a/memory.current": "5\n"}, Room{8100 << 10, "machine"}},
		"ulimit": {map[string]string{"proc/meminfo": meminfo, "proc/self/limits": limited, "proc/self/status": status},
			Room{2 << 20, "process limit"}},
		"a group above": {map[string]string{"proc/meminfo": meminfo, "proc/self/limits": unlimited, "proc/self/cgroup": "0::/a/b\n",
			"cgroup/a/memory.max": "1000000\n", "cgroup/a/memory.current": "400000\n", "cgroup/a/memory.stat": "anon 300000\nactive_file 30000\ninactive_file 50000\n",
			"cgroup/a/b/memory.max": "2000000\n", "cgroup/a/b/memory.current": "400000\n"}, Room{680000, "control group"}},
		"version 1": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/host/x\n3:cpuset:/\n",
			"cgroup/memory/memory.limit_in_bytes": "500000\n", "cgroup/memory/memory.usage_in_bytes": "200000\n",
			"cgroup/memory/memory.stat": "total_inactive_file 1000\n"}, Room{301000, "control group"}},
		"version 1 without a limit": {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/\n",
			"cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "cgroup/memory/memory.usage_in_bytes": "200000\n"}, Room{8100 << 10, "machine"}},
		"over the limit": {map[string]string{"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "100\n", "cgroup/memory.current": "400\n"},
			Room{0, "control group"}},
	} {
		t.Run(name, func(t *testing.T) {
			proc, cgroup := machine(t, c.files)
			if got := read(proc, cgroup, 1); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			four := Room{c.want.Bytes / 4, c.want.Of}
			if c.want.Of == "process limit" { // that is each one's own, and wider than a fourth of the machine
				four = Room{8100 << 10 / 4, "machine"}
			}
			if got := read(proc, cgroup, 4); got != four {
				t.Errorf("one of four: %+v, want %+v", got, four)
			}
		})
	}
	proc, cgroup := machine(t, nil)
	if got := read(proc, cgroup, 1); got.Of != "" || got.Bytes <= 0 {
		t.Errorf("where nothing is told: %+v", got)
	}
}

func TestHere(t *testing.T) {
	if r := Now(1); r.Of == "" || r.Bytes <= 0 {
		t.Errorf("this machine: %+v", r)
	}
}
