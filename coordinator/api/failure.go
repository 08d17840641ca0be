package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/coordinator/board"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// failure gives an error the code that clients branch on. The text is for
// people.
//
// What a client may conclude: not_found, invalid_argument and failed_precondition are the state's own answers, and
// repeating changes nothing; unavailable may be repeated with the same request id, at another node, too;
// resource_exhausted is a full disk, and repeating only adds load.
func failure(err error) error {
	if err == nil {
		return nil
	}
	var known *connect.Error
	if errors.As(err, &known) {
		return err
	}
	var notLeader *replica.NotLeaderError
	var noSpace *replica.NoSpaceError
	var other *board.OtherError
	switch {
	case errors.As(err, &noSpace): // not Unavailable: clients would only ask again
		return connect.NewError(connect.CodeResourceExhausted, noSpace)
	case errors.As(err, &other):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("ask for source state (%w)", err))
	case errors.Is(err, state.ErrNotFound):
		return connect.NewError(connect.CodeNotFound, spoken{err, state.ErrNotFound})
	case errors.Is(err, state.ErrInvalid), errors.Is(err, board.ErrSource):
		return connect.NewError(connect.CodeInvalidArgument, spoken{err, state.ErrInvalid})
	case errors.Is(err, state.ErrConflict), errors.Is(err, board.ErrOff):
		return connect.NewError(connect.CodeFailedPrecondition, spoken{err, state.ErrConflict})
	case errors.As(err, &notLeader), errors.Is(err, assigner.ErrNotLeading):
		return noLeader(nothingDone, "no leader here any more, nothing was written: ask again (%w)", err)
	case errors.Is(err, replica.ErrUnknown):
		return noLeader(perhapsDone, "no leader confirmed the write, it may be recorded or not: repeat it with the same request id (%w)", err)
	case errors.Is(err, board.ErrNotThere), errors.Is(err, board.ErrOvertaken):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("redis is being filled: ask again, or ask for source state (%w)", err))
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return noLeader(perhapsDone, "no leader confirmed it in time: ask again (%w)", err)
	}
	return connect.NewError(connect.CodeInternal, err)
}

// spoken is an error of the state for people: the word before it, such as "conflict", is what the code says.
type spoken struct {
	error error
	word  error
}

// Error leaves the word out.
func (s spoken) Error() string {
	return strings.TrimPrefix(s.error.Error(), s.word.Error()+": ")
}

// Unwrap is the whole error.
func (s spoken) Unwrap() error { return s.error }

// invalid is a request that is wrong whatever the state is.
func invalid(format string, a ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, a...))
}

// prefixed puts a word on where before the text of an error with a code. A refusal with a detail stays as it is:
// clients read the detail.
func prefixed(where string, err error) error {
	var known *connect.Error
	if errors.As(err, &known) && client.RefusalOf(err) == (client.Refusal{}) {
		return connect.NewError(known.Code(), fmt.Errorf("%s: %s", where, known.Message()))
	}
	return err
}

// find looks a sweep up in a view.
func find(view *state.View, id string) (*state.Sweep, error) {
	if id == "" {
		return nil, invalid("no sweep id given")
	}
	s, ok := view.Sweep(id)
	if ok {
		return s, nil
	}
	if at, gone := view.Purged(id); gone {
		return nil, client.Refusal{Reason: client.ReasonDeleted}.Error(connect.CodeNotFound, fmt.Errorf("sweep %s was deleted at %s, with its trials and checkpoints",
			id, time.UnixMilli(at).UTC().Format("2006-01-02 15:04:05 UTC")))
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no sweep %q", id))
}

// findTrial looks a trial up; they are numbered from 1 without gaps, so the count says which there
// are.
func findTrial(s *state.Sweep, n int64) (*state.Trial, error) {
	t := s.Trial(n)
	if t == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("sweep %s has no trial %d: it has %d", s.ID, n, s.Len()))
	}
	return t, nil
}
