package runner

import (
	"fmt"
	"strings"
	"syscall"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trainerproto"
)

// Exit is how a run ended.
type Exit struct {
	Class   atelierv1.ExitClass
	Message string // for people: why, with the last lines of standard error where they help

	// Terminated: a signal of this agent ended it, and it had not said done or
	// failed before. Class is KILLED then; the caller knows the true reason.
	Terminated bool
}

// classify reads the evidence from the best down: what the trainer said, what
// the kernel counted, how the process ended, what it wrote last.
func (c *Child) classify(last trainerproto.Event, broken error, oom string) Exit {
	status, _ := c.proc.State().Sys().(syscall.WaitStatus)
	signaled := c.proc.Signaled()
	tail := c.log.tailText()

	switch last.Kind {
	case trainerproto.EventFailed:
		return Exit{Class: failedClass(last.Class), Message: last.Message}
	case trainerproto.EventDone:
		// A crash while it put its things away takes nothing back: its last
		// checkpoint and reports are already out.
		class, ok := doneClass(last.Reason)
		if !ok {
			return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_CRASHED, Message: fmt.Sprintf("trainer protocol: done for an unknown reason %.40q", last.Reason)}
		}
		return Exit{Class: class, Message: last.Message}
	}
	if oom == "" && !signaled {
		oom = c.oom.since()
	}
	if status.Signaled() && status.Signal() == syscall.SIGKILL && oom != "" {
		return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY, Message: "killed by the kernel, which was out of memory (" + oom + "); reduce batch_size, or the number of slots"}
	}
	if broken != nil && !(status.Signaled() && !signaled) {
		return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_CRASHED, Message: withTail(broken.Error(), tail)}
	}
	if signaled {
		return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_KILLED, Message: "ended by its agent", Terminated: true}
	}
	if class, ok := tailClass(tail); ok {
		return Exit{Class: class, Message: withTail("ended with "+c.proc.State().String(), tail)}
	}
	if status.Signaled() {
		return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_KILLED, Message: withTail("ended by signal "+status.Signal().String(), tail)}
	}
	return Exit{Class: atelierv1.ExitClass_EXIT_CLASS_CRASHED, Message: withTail("ended with "+c.proc.State().String()+" and no done event", tail)}
}

func withTail(message, tail string) string {
	if tail == "" {
		return message
	}
	return message + "; last lines of its log:\n" + tail
}

func doneClass(reason string) (atelierv1.ExitClass, bool) {
	switch reason {
	case trainerproto.DoneFinished:
		return atelierv1.ExitClass_EXIT_CLASS_FINISHED, true
	case trainerproto.DoneStopped:
		return atelierv1.ExitClass_EXIT_CLASS_STOPPED, true
	case trainerproto.DonePaused:
		return atelierv1.ExitClass_EXIT_CLASS_PAUSED, true
	}
	return 0, false
}

func failedClass(class string) atelierv1.ExitClass {
	switch class {
	case trainerproto.FailedOutOfMemory:
		return atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY
	case trainerproto.FailedDeviceFault:
		return atelierv1.ExitClass_EXIT_CLASS_DEVICE_FAULT
	case trainerproto.FailedBadSpec:
		return atelierv1.ExitClass_EXIT_CLASS_BAD_SPEC
	case trainerproto.FailedDataMissing:
		return atelierv1.ExitClass_EXIT_CLASS_DATA_MISSING
	case trainerproto.FailedDiverged:
		return atelierv1.ExitClass_EXIT_CLASS_DIVERGED
	case trainerproto.FailedDiskFull:
		return atelierv1.ExitClass_EXIT_CLASS_DISK_FULL
	}
	return atelierv1.ExitClass_EXIT_CLASS_CRASHED
}

// tailClass recognises a few last words of trainers that could not say failed:
// a C++ abort, a Python traceback. Only the last lines count.
func tailClass(tail string) (atelierv1.ExitClass, bool) {
	if len(tail) > 1024 {
		tail = tail[len(tail)-1024:]
	}
	for _, w := range []struct {
		words string
		class atelierv1.ExitClass
	}{
		{"CUDA out of memory", atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY},
		{"OutOfMemoryError", atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY},
		{"can't allocate memory", atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY},
		{"std::bad_alloc", atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY},
		{"uncorrectable ECC", atelierv1.ExitClass_EXIT_CLASS_DEVICE_FAULT},
		{"illegal memory access", atelierv1.ExitClass_EXIT_CLASS_DEVICE_FAULT},
		{"unspecified launch failure", atelierv1.ExitClass_EXIT_CLASS_DEVICE_FAULT},
		{"No space left on device", atelierv1.ExitClass_EXIT_CLASS_DISK_FULL},
	} {
		if strings.Contains(tail, w.words) {
			return w.class, true
		}
	}
	return 0, false
}
