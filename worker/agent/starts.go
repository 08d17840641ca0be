package agent

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"atelier/common/child"
)

// maxFailedStarts is how many times in a row a trainer that never started here may
// fail to start before its runs are refused instead of tried again.
const maxFailedStarts = 4

// starts remembers of each trainer whether it ever started on this machine. One
// that did and then does not may be out of luck (memory, processes); one that
// never did is not installed right, and no retry mends it.
type starts struct {
	mu     sync.Mutex
	failed map[string]int // times it ended before its hello; -1 = it has started once
}

func newStarts() *starts { return &starts{failed: map[string]int{}} }

// note counts the starts that ended before the trainer said hello; one that has said it once can be started.
func (s *starts) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failed[name] = -1
	case s.failed[name] >= 0 && cannotStart(err):
		s.failed[name]++
	}
}

// unstartable reports whether the trainer cannot be started here at all.
func (s *starts) unstartable(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[name] >= maxFailedStarts
}

// cannotStart reports whether an error is an installation's fault, not that of a
// slow or crowded machine.
func cannotStart(err error) bool {
	return errors.Is(err, child.ErrEndedEarly) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOEXEC)
}
