package confine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// dropBounds takes from root all rights but one for good: to open files whatever
// their mode, since a worker's data may be another user's. With the others a trainer
// that root starts could raise its limits again, and read the agent's memory.
// Who has none may not drop any, and needs not.
func dropBounds() error {
	for right := uintptr(0); right <= unix.CAP_LAST_CAP; right++ {
		if right == unix.CAP_DAC_OVERRIDE {
			continue
		}
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0); err {
		case nil, unix.EINVAL: // the kernel is older than the right
		case unix.EPERM:
			return nil
		default:
			return fmt.Errorf("drop right %d: %w", right, err)
		}
	}
	return nil
}

// dropRights empties what this thread has of rights now, but for the one that
// dropBounds keeps.
func dropRights() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && err != unix.EINVAL {
		return fmt.Errorf("drop rights: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var has [2]unix.CapUserData
	if err := unix.Capget(&head, &has[0]); err != nil {
		return fmt.Errorf("read rights: %w", err)
	}
	keep := has[0].Permitted & (1 << unix.CAP_DAC_OVERRIDE)
	now := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&head, &now[0]); err != nil {
		return fmt.Errorf("drop rights: %w", err)
	}
	return nil
}
