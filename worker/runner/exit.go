package runner

import (
	"fmt"
	"strings"
	"syscall"

	"atelier/common/trainerproto"
	"atelier/common/trial"
)

// Exit is how a run ended.
type Exit struct {
	Class   trial.Exit
	Message string // for people: why, with the last lines of standard error where they help

	// Terminated: a signal of this agent ended it, and it had not said done or
	// failed before. Class is KILLED then; the caller knows the true reason.
	Terminated bool

	// Silent: it was killed because it gave no sign of life. Message begins with "gave".
	Silent bool
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
			return Exit{Class: trial.ExitCrashed, Message: fmt.Sprintf("trainer protocol: done for an unknown reason %.40q", last.Reason)}
		}
		return Exit{Class: class, Message: last.Message}
	}
	if oom == "" && !signaled {
		oom = c.oom.since()
	}
	if status.Signaled() && status.Signal() == syscall.SIGKILL && oom != "" {
		return Exit{Class: trial.ExitOutOfMemory, Message: "killed by the kernel, which was out of memory (" + oom + "); reduce batch_size, or the number of slots"}
	}
	if broken != nil && !(status.Signaled() && !signaled) {
		return Exit{Class: trial.ExitCrashed, Message: withTail(broken.Error(), tail)}
	}
	if signaled {
		return Exit{Class: trial.ExitKilled, Message: "ended by its agent", Terminated: true}
	}
	if class, ok := tailClass(tail); ok {
		return Exit{Class: class, Message: withTail("ended with "+c.proc.State().String(), tail)}
	}
	if status.Signaled() {
		return Exit{Class: trial.ExitKilled, Message: withTail("ended by signal "+status.Signal().String(), tail)}
	}
	return Exit{Class: trial.ExitCrashed, Message: withTail("ended with "+c.proc.State().String()+" and no done event", tail)}
}

// withTail adds the trainer's last words to a message: they are mostly the reason.
func withTail(message, tail string) string {
	if tail == "" {
		return message
	}
	return message + "; last lines of its log:\n" + tail
}

// doneClass is how a run ended by the trainer's own word; false for one that this agent does not
// know.
func doneClass(reason string) (trial.Exit, bool) {
	switch reason {
	case trainerproto.DoneFinished:
		return trial.ExitFinished, true
	case trainerproto.DoneStopped:
		return trial.ExitStopped, true
	case trainerproto.DonePaused:
		return trial.ExitPaused, true
	case trainerproto.DoneLeft:
		return trial.ExitReleased, true
	}
	return 0, false
}

// failedClass is why a run failed by the trainer's own word; a word that is not known, of a later
// trainer, counts as a crash, which is tried again.
func failedClass(class string) trial.Exit {
	switch class {
	case trainerproto.FailedOutOfMemory:
		return trial.ExitOutOfMemory
	case trainerproto.FailedDeviceFault:
		return trial.ExitDeviceFault
	case trainerproto.FailedBadSpec:
		return trial.ExitBadSpec
	case trainerproto.FailedDataMissing:
		return trial.ExitDataMissing
	case trainerproto.FailedDiverged:
		return trial.ExitDiverged
	case trainerproto.FailedDiskFull:
		return trial.ExitDiskFull
	case trainerproto.FailedCutOff:
		return trial.ExitLost // its part in the lease is, though it does not know
	}
	return trial.ExitCrashed
}

// tailClass recognises a few last words of trainers that could not say failed:
// a C++ abort, a Python traceback. Only the last lines count.
func tailClass(tail string) (trial.Exit, bool) {
	if len(tail) > 1024 {
		tail = tail[len(tail)-1024:]
	}
	for _, w := range []struct {
		words string
		class trial.Exit
	}{
		{"CUDA out of memory", trial.ExitOutOfMemory},
		{"OutOfMemoryError", trial.ExitOutOfMemory},
		{"can't allocate memory", trial.ExitOutOfMemory},
		{"std::bad_alloc", trial.ExitOutOfMemory},
		{"uncorrectable ECC", trial.ExitDeviceFault},
		{"illegal memory access", trial.ExitDeviceFault},
		{"unspecified launch failure", trial.ExitDeviceFault},
		{"No space left on device", trial.ExitDiskFull},
	} {
		if strings.Contains(tail, w.words) {
			return w.class, true
		}
	}
	return 0, false
}
