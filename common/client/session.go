package client

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
)

// session remembers the newest raft index that an answer named. Leaderboards and
// lists of checkpoints come from Redis, which is a little behind: with the index
// at hand the cluster answers from there only if that takes nothing back that
// this client has written or seen.
type session struct{ index atomic.Uint64 }

// wrap is connect's interceptor.
func (s *session) wrap(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		s.ask(req.Spec().Procedure, req.Header())
		resp, err := next(ctx, req)
		if err == nil {
			s.answer(resp.Header())
		}
		return resp, err
	}
}

// ask says, with reads that Redis may answer, what this client has seen: the answer takes nothing
// of it back.
func (s *session) ask(procedure string, h http.Header) {
	index := s.index.Load()
	switch procedure {
	case atelierv1connect.SweepServiceGetLeaderboardProcedure, atelierv1connect.SweepServiceListCheckpointsProcedure:
		if index > 0 {
			h.Set(atelierv1.SeenHeader, strconv.FormatUint(index, 10))
		}
	}
}

// answer notes the newest index seen.
func (s *session) answer(h http.Header) {
	index, _ := strconv.ParseUint(h.Get(atelierv1.IndexHeader), 10, 64)
	for {
		seen := s.index.Load()
		if index <= seen || s.index.CompareAndSwap(seen, index) {
			return
		}
	}
}
