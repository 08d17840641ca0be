package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
)

// Exit codes of programs that speak to a cluster.
const (
	ExitOK          = 0
	ExitError       = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitRefused     = 4
	ExitNoLeader    = 5
	ExitSweepFailed = 6
	ExitTimeout     = 124
	ExitInterrupted = 130
)

// UnreachableError is what a call ends with when no leader answered in time.
type UnreachableError struct {
	Addr     string // the address tried last
	Attempts int
	NoLeader bool // a node answered, and said that there is no leader
	Err      error
}

func (e *UnreachableError) Error() string {
	what := fmt.Sprintf("no coordinator answers at %s", e.Addr)
	if e.NoLeader {
		what = fmt.Sprintf("the coordinator at %s has no leader", e.Addr)
	} else if connect.IsWireError(e.Err) {
		what = fmt.Sprintf("the coordinator at %s cannot answer now", e.Addr)
	}
	tries := ""
	if e.Attempts > 1 {
		tries = fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	return what + tries + ": " + Message(e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

func noLeader(err error) bool {
	return connect.CodeOf(err) == connect.CodeUnavailable && connect.IsWireError(err) &&
		strings.Contains(err.Error(), "no leader")
}

// Message is an error's text for people, without the code's name before it.
func Message(err error) string {
	if err == nil {
		return ""
	}
	var c *connect.Error
	if errors.As(err, &c) {
		// Only strip the code where it leads; a wrapping text stays whole.
		return strings.Replace(err.Error(), c.Error(), c.Message(), 1)
	}
	return err.Error()
}

// ExitCode maps an error of a call to the exit code of a program.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	switch connect.CodeOf(err) {
	case connect.CodeNotFound:
		return ExitNotFound
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return ExitRefused
	case connect.CodeCanceled:
		return ExitInterrupted
	case connect.CodeDeadlineExceeded:
		return ExitTimeout
	case connect.CodeUnavailable:
		var u *UnreachableError
		if errors.As(err, &u) && !u.NoLeader && connect.IsWireError(u.Err) {
			return ExitError // a node answered: something else than a leader is missing
		}
		return ExitNoLeader
	}
	switch {
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	}
	return ExitError
}
