package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps this process's memory from others: it leaves no core dump, neither in a file
// nor to a program that collects them (which a limit of 0 does not hold back), and processes of
// the same user can neither trace it nor read its memory or first environment in /proc. What
// it starts may be traced again, but leaves no core file either. Root is not held back.
//
// GOTRACEBACK=crash is harmless then; a trace of Go shows addresses of a Text, no text.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	return nil
}
