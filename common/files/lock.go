package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is what TryLock and WaitLock say of a file that another process holds.
var ErrLocked = errors.New("another process has the lock")

// Lock takes the lock that a file stands for, which is made if need be. held is
// the error where another process has it: who uses what, and what a person can do
// about it. Closing the file releases it, and so does the end of the process, however
// it ends. The file stays: were it removed, two processes could hold "the" lock on
// two files of one name.
func Lock(file string, held error) (*os.File, error) {
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	if err := TryLock(f); err != nil {
		f.Close()
		if errors.Is(err, ErrLocked) {
			return nil, held
		}
		return nil, err
	}
	return f, nil
}

// WaitLock is Lock that waits for the other process until ctx ends.
func WaitLock(ctx context.Context, file string) (*os.File, error) {
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		err := TryLock(f)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, ErrLocked) {
			select {
			case <-ctx.Done():
				err = fmt.Errorf("%w: %w", err, ctx.Err())
			case <-time.After(wait):
				continue
			}
		}
		f.Close()
		return nil, err
	}
}

// TryLock locks an open file for this process, or returns ErrLocked.
func TryLock(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		case nil:
			return nil
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// Named reports whether an open file is the one that its name leads to. A file
// that is renamed or removed by who holds its lock must be looked at again by who
// gets it next.
func Named(f *os.File) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.Name())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, named), err
}

func open(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, unix.EISDIR) {
		return os.Open(file) // a folder can be locked too
	}
	return f, err
}
