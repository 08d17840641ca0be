//go:build libtorch

package main

import (
	"fmt"
	"os"
	"syscall"
)

// waitPassively starts the program anew, in the same process, with OpenMP told
// to sleep at its barriers. By default its threads spin there, which is best on
// a machine of one's own and ruinous where runs share cores: 2 threads on 2
// cores with other work gave 10 images a second spinning and 77 sleeping
// (BENCHMARKS.md). OpenMP reads its settings before any code of ours can run,
// hence the second start, 0.3 s; a worker spares it by setting the variable.
// Whoever sets OMP_WAIT_POLICY or GOMP_SPINCOUNT is left alone.
func waitPassively() error {
	const policy = "OMP_WAIT_POLICY"
	for _, name := range []string{policy, "GOMP_SPINCOUNT"} {
		if _, set := os.LookupEnv(name); set {
			return nil
		}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start anew with %s=passive: %w", policy, err)
	}
	return fmt.Errorf("start anew with %s=passive: %w", policy, syscall.Exec(self, os.Args, append(os.Environ(), policy+"=passive")))
}
