package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"atelier/common/exit"
)

// Exit codes of programs that speak to a cluster; package exit has what they mean.
const (
	ExitOK          = exit.OK
	ExitError       = exit.Error
	ExitUsage       = exit.Usage
	ExitNotFound    = exit.NotFound
	ExitRefused     = exit.Refused
	ExitNoLeader    = exit.NoLeader
	ExitSweepFailed = exit.SweepFailed
	ExitTimeout     = exit.Timeout
	ExitInterrupted = exit.Interrupted
)

// UnreachableError is what a call ends with when no leader answered in time.
type UnreachableError struct {
	Addr     string // the address tried last
	Attempts int
	NoLeader bool      // a node answered, and said that there is no leader
	Err      error     // of the last attempt
	Found    []Finding // what stood in the way at each address, in the order tried
	Survey   *Survey   // of all coordinators, where one answered that there is no leader; may be nil
}

func (e *UnreachableError) Error() string {
	tries := ""
	if e.Attempts > 1 {
		tries = fmt.Sprintf(" (%d attempts)", e.Attempts)
	}
	switch {
	case e.Survey != nil:
		return e.Survey.Health()
	case len(e.Found) == 0:
		return "no coordinator answers at " + e.Addr + tries + ": " + Message(e.Err)
	case e.silence():
		var at []string
		for _, f := range e.Found {
			at = append(at, f.Addr)
		}
		return "no coordinator answers at " + strings.Join(at, ", ") + tries + ": " + describe(e.Found)
	}
	return "no leader answers" + tries + ": " + describe(e.Found)
}

// silence reports whether no address gave an answer of any kind.
func (e *UnreachableError) silence() bool {
	return !slices.ContainsFunc(e.Found, func(f Finding) bool { return f.Kind == NoLeader || f.Kind == Unwilling })
}

// unwilling reports whether a node answered, none of them lacks a leader, and so
// something else than a leader is missing.
func (e *UnreachableError) unwilling() bool { return !e.NoLeader && !e.silence() }

func (e *UnreachableError) Unwrap() error { return e.Err }

// Code is why a cluster refused a call, where programs branch on it; errors.go of
// connect has all of them.
type Code = connect.Code

const (
	CodeNotFound           = connect.CodeNotFound
	CodeUnimplemented      = connect.CodeUnimplemented // a call that the cluster's version does not know
	CodeInvalidArgument    = connect.CodeInvalidArgument
	CodeOutOfRange         = connect.CodeOutOfRange
	CodeFailedPrecondition = connect.CodeFailedPrecondition // it is not in the state for that
	CodeAborted            = connect.CodeAborted
)

// CodeOf is an error's code.
func CodeOf(err error) Code { return connect.CodeOf(err) }

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
	var shared *SharedError
	if errors.As(err, &shared) {
		return ExitUsage
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
		if errors.As(err, &u) && u.unwilling() {
			return ExitError
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
