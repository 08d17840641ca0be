package api

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/coordinator/board"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// failure gives an error the code that clients branch on. The text is for
// people and stays whole.
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
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, state.ErrInvalid), errors.Is(err, board.ErrSource):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, state.ErrConflict), errors.Is(err, board.ErrOff):
		return connect.NewError(connect.CodeFailedPrecondition, err)
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

func invalid(format string, a ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, a...))
}

// prefixed puts a word on where before the text of an error with a code.
func prefixed(where string, err error) error {
	var known *connect.Error
	if errors.As(err, &known) && client.RefusalOf(err) == (client.Refusal{}) {
		return connect.NewError(known.Code(), fmt.Errorf("%s: %s", where, known.Message()))
	}
	return err
}

func find(view *state.View, id string) (*state.Sweep, error) {
	if id == "" {
		return nil, invalid("no sweep id given")
	}
	s, ok := view.Sweep(id)
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no sweep %q", id))
	}
	return s, nil
}

func findTrial(s *state.Sweep, n int64) (*state.Trial, error) {
	t := s.Trial(n)
	if t == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("sweep %s has no trial %d: it has %d", s.ID, n, s.Len()))
	}
	return t, nil
}
