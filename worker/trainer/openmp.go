//go:build libtorch

package main

import (
	"fmt"
	"os"
	"syscall"

	"atelier/common/openmp"
)

// settleWaiting starts the program anew, in the same process, with OpenMP told
// how its threads wait for one another, 0.4 s. Whoever starts the program and
// passes openmp.Environ, or sets OMP_WAIT_POLICY or GOMP_SPINCOUNT, spares it.
func settleWaiting() error {
	setting := openmp.Setting()
	if setting == "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart with %s: %w", setting, err)
	}
	return fmt.Errorf("restart with %s: %w", setting, syscall.Exec(self, os.Args, append(os.Environ(), setting)))
}
