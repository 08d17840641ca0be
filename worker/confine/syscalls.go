package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// refusedCalls are what a trainer has no use for and kernels have had holes in:
// other namespaces and mounts, other processes' memory, the kernel's own programs
// and keys, and io_uring, which would go round the filter of sockets.
var refusedCalls = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, // not pidfd_getfd: processes of one PyTorch program share a GPU's memory by it
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
}

// Offsets of the kernel's struct seccomp_data, and the bit that marks calls of
// amd64's second interface (x32).
const (
	callOffset    = 0
	machineOffset = 4
	firstArgument = 16 // its low half: all machines below are little endian
	x32           = 0x40000000
)

// machine is the kernel's name of this architecture; false where there is no
// filter for it.
func machine() (uint32, bool) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, true
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, true
	}
	return 0, false
}

// families are the kinds of sockets that a trainer may make: those between
// processes of this machine, and the one by which libraries list its addresses.
// Landlock's rule on TCP leaves UDP open, and MPTCP.
func families(network bool) []uint32 {
	list := []uint32{unix.AF_UNIX, unix.AF_NETLINK}
	if network {
		list = append(list, unix.AF_INET, unix.AF_INET6)
	}
	return list
}

// filter is the program that the kernel asks at each call of a trainer.
func filter(network bool) ([]bpf.RawInstruction, error) {
	native, ok := machine()
	if !ok {
		return nil, nil
	}
	refuse := func(e unix.Errno) bpf.Instruction { return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)} }
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: machineOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native, SkipTrue: 1},
		refuse(unix.ENOSYS), // the same calls have other numbers there
		bpf.LoadAbsolute{Off: callOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32, SkipTrue: 1},
		refuse(unix.ENOSYS),
	}
	for _, call := range refusedCalls {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: call, SkipTrue: 1}, refuse(unix.EPERM))
	}
	allowed := families(network)
	p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.SYS_SOCKET, SkipTrue: uint8(len(allowed) + 2)},
		bpf.LoadAbsolute{Off: firstArgument, Size: 4})
	for i, family := range allowed {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: family, SkipTrue: uint8(len(allowed) - i)})
	}
	p = append(p, refuse(unix.EACCES), bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	return bpf.Assemble(p)
}

// canFilter reports whether the kernel takes filters of calls, and this program
// has one for its architecture.
func canFilter() bool {
	_, known := machine()
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return known && errno == 0
}

// filterCalls sets the filter for this thread and what it starts.
func filterCalls(network bool) error {
	raw, err := filter(network)
	if err != nil || len(raw) == 0 {
		return err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("filter of system calls: %w", errno)
	}
	return nil
}
