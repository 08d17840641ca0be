// Package openmp says how the threads of a computing process should wait for
// one another: for a while awake on an idle machine, where sleeping costs a
// fifth to a quarter of the speed; at once asleep where other work wants the
// cores, where spinning costs most of it (worker/trainer/BENCHMARKS.md).
//
// OpenMP reads its settings when its library is loaded, before any code of a
// program can run: whoever starts a trainer passes Setting in its environment,
// which spares the trainer to start itself anew.
package openmp

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

const (
	// idle is the share of the last ten seconds, in percent, in which some
	// process waited for a core, up to which a machine counts as idle.
	idle = 25
	// spins is how often an OpenMP thread looks before it sleeps on an idle
	// machine: some 0.1 ms.
	spins = 100_000
)

// Setting is the environment entry, NAME=VALUE, that fits the machine as it is
// now, and "" where the environment of this process decides already
// (OMP_WAIT_POLICY or GOMP_SPINCOUNT is set).
func Setting() string {
	for _, name := range []string{"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} {
		if _, set := os.LookupEnv(name); set {
			return ""
		}
	}
	pressure, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		pressure = nil // not told here: as if busy
	}
	return waiting(string(pressure))
}

// Environ is this process's environment with Setting.
func Environ() []string {
	env := os.Environ()
	if s := Setting(); s != "" {
		env = append(env, s)
	}
	return env
}

// waiting is the setting that fits what the kernel tells of cores waited for
// (pressure stall information).
func waiting(pressure string) string {
	if share, err := waitedFor(pressure); err == nil && share <= idle {
		return "GOMP_SPINCOUNT=" + strconv.Itoa(spins)
	}
	return "OMP_WAIT_POLICY=passive"
}

// waitedFor reads the share of the last ten seconds, in percent.
func waitedFor(pressure string) (float64, error) {
	for line := range strings.Lines(pressure) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "some" {
			if text, ok := strings.CutPrefix(fields[1], "avg10="); ok {
				return strconv.ParseFloat(text, 64)
			}
		}
	}
	return 0, errors.New("no line of the last ten seconds")
}
