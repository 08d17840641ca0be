//go:build libtorch

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	// idle is the share of the last ten seconds, in percent, in which some
	// process waited for a core, up to which a machine counts as idle.
	idle = 25
	// spins is how often an OpenMP thread looks before it sleeps on an idle
	// machine: some 0.1 ms.
	spins = 100_000
)

// settleWaiting starts the program anew, in the same process, with OpenMP told
// how its threads wait for one another: for a while awake on an idle machine,
// where sleeping costs a fifth to a quarter of the speed, at once asleep where
// other work wants the cores, where spinning costs most of it (BENCHMARKS.md).
// OpenMP reads its settings before any code of ours can run, hence the second
// start, 0.3 s; a worker spares it by setting the policy. Whoever sets
// OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
func settleWaiting() error {
	for _, name := range []string{"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} {
		if _, set := os.LookupEnv(name); set {
			return nil
		}
	}
	pressure, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		pressure = nil // not told here: as if busy
	}
	setting := waiting(string(pressure))
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start anew with %s: %w", setting, err)
	}
	return fmt.Errorf("start anew with %s: %w", setting, syscall.Exec(self, os.Args, append(os.Environ(), setting)))
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
