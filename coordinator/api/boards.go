package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial/wire"
	"atelier/coordinator/board"
	"atelier/coordinator/state"
)

const (
	// atLeastWait is how long a read waits for the index that it has to reflect.
	atLeastWait = 3 * time.Second
	// spareWait is how long the leader is waited for by a read that could show
	// what Redis has.
	spareWait = 700 * time.Millisecond
)

// boards answers leaderboards and lists of checkpoints on every node: from Redis
// where it is up to date, or where there is no leader; else from the leader's
// state.
type boards struct{ sweeps }

// GetLeaderboard answers on any node; fromBoard says by whom.
func (b boards) GetLeaderboard(ctx context.Context, req *connect.Request[atelierv1.GetLeaderboardRequest]) (*connect.Response[atelierv1.GetLeaderboardResponse], error) {
	m := req.Msg
	return fromBoard(ctx, b.Server, query{m.Id, m.Source, m.AtLeast, seen(req.Header())},
		func(view *state.View, sw *state.Sweep) (*atelierv1.GetLeaderboardResponse, board.Answer, error) {
			top, err := depth(sw, m)
			if err != nil {
				return nil, board.Answer{}, err
			}
			rows, answer, err := b.cfg.Board.Leaderboard(ctx, view, sw, top)
			if err != nil {
				return nil, answer, err
			}
			resp := leaderboard(sw, m, rows)
			resp.Index, resp.Source, resp.AgeMs = answer.Index, board.FromRedis, ageMS(answer)
			return resp, answer, nil
		},
		func(resp *atelierv1.GetLeaderboardResponse, why string) { resp.NoLeader = why },
		func(ctx context.Context, source string) (*connect.Response[atelierv1.GetLeaderboardResponse], error) {
			ask := connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: m.Id, Top: m.Top, Source: source, Pareto: m.Pareto, AtLeast: m.AtLeast})
			if b.cfg.Lead.Ready() {
				return b.sweeps.GetLeaderboard(ctx, ask)
			}
			resp, err := b.leader.GetLeaderboard(ctx, handedOn(ask, req.Header()))
			return resp, handedBack(err)
		})
}

// ListCheckpoints answers on any node; fromBoard says by whom. Trial 0 is all trials.
func (b boards) ListCheckpoints(ctx context.Context, req *connect.Request[atelierv1.ListCheckpointsRequest]) (*connect.Response[atelierv1.ListCheckpointsResponse], error) {
	m := req.Msg
	return fromBoard(ctx, b.Server, query{m.Id, m.Source, m.AtLeast, seen(req.Header())},
		func(view *state.View, sw *state.Sweep) (*atelierv1.ListCheckpointsResponse, board.Answer, error) {
			if m.Trial != 0 && sw.Trial(m.Trial) == nil {
				return nil, board.Answer{}, &unknownError{fmt.Sprintf("trial %d of sweep %s", m.Trial, sw.ID)}
			}
			list, answer, err := b.cfg.Board.Checkpoints(ctx, view, sw, m.Trial)
			return &atelierv1.ListCheckpointsResponse{Checkpoints: wire.ToCheckpoints(list), Index: answer.Index, Source: board.FromRedis, AgeMs: ageMS(answer)}, answer, err
		},
		func(resp *atelierv1.ListCheckpointsResponse, why string) { resp.NoLeader = why },
		func(ctx context.Context, source string) (*connect.Response[atelierv1.ListCheckpointsResponse], error) {
			ask := connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: m.Id, Trial: m.Trial, Source: source, AtLeast: m.AtLeast})
			if b.cfg.Lead.Ready() {
				return b.sweeps.ListCheckpoints(ctx, ask)
			}
			resp, err := b.leader.ListCheckpoints(ctx, handedOn(ask, req.Header()))
			return resp, handedBack(err)
		})
}

// query is what is common to reads of boards.
type query struct {
	sweep, source string
	atLeast       uint64 // index that the answer has to reflect
	seen          uint64 // index that the caller has seen: the answer reflects it while there is a leader
}

// unknownError is of a sweep or a trial that this node's state does not hold: it
// may only be behind.
type unknownError struct{ what string }

// Error says who knows nothing of it: another coordinator may.
func (e *unknownError) Error() string { return "this coordinator knows no " + e.what }

// fromBoard answers a query by Redis at this node, or by the leader.
//
// What Redis has is shown when the leader has lately said that it lacks nothing,
// it is not behind what this node has shown before, and not behind what the caller
// has seen. Otherwise the leader's state answers, and where there is no leader,
// Redis all the same, with its index and age.
//
// redis asks Redis at this node; alone notes in an answer why there is no leader to answer instead; leader asks the
// leader, this node or another. It looks again every few milliseconds, and at once when leadership changes, for as
// long as atLeastWait: an election, or a projection that is about to catch up, is over by then.
func fromBoard[A any](ctx context.Context, s *Server, q query,
	redis func(*state.View, *state.Sweep) (*A, board.Answer, error),
	alone func(*A, string),
	leader func(ctx context.Context, source string) (*connect.Response[A], error),
) (*connect.Response[A], error) {
	if err := board.CheckSource(q.source); err != nil {
		return nil, failure(err)
	}
	if q.sweep == "" {
		return nil, invalid("no sweep id given")
	}
	if q.source == board.FromState {
		return leader(ctx, q.source)
	}
	shown := func(a *A, index uint64) (*connect.Response[A], error) {
		resp := connect.NewResponse(a)
		resp.Header().Set(atelierv1.IndexHeader, strconv.FormatUint(index, 10))
		return resp, nil
	}
	var last struct { // what the look before found
		answer board.Answer
		err    error
		looked bool
	}
	for began := time.Now(); ; {
		changed := s.cfg.Lead.Changed()
		var a *A
		var answer board.Answer
		var err error
		view := s.cfg.View()
		if sw, ok := view.Sweep(q.sweep); ok {
			a, answer, err = redis(view, sw)
		} else {
			err = &unknownError{"sweep " + q.sweep}
		}
		var refused *connect.Error
		if errors.As(err, &refused) {
			return nil, refused
		}
		if ctx.Err() != nil && err != nil && last.looked { // this look was cut off, and says nothing
			answer, err = last.answer, last.err
		}
		last.answer, last.err, last.looked = answer, err, true
		ok := a != nil && err == nil && answer.Index >= q.atLeast
		led := s.led()
		if ok && !led {
			alone(a, s.nobody(nothingDone).Message())
		}
		if ok && (q.source == board.FromRedis || answer.Fresh() && answer.Index >= q.seen) {
			return shown(a, answer.Index)
		}
		var unknown *unknownError
		redisAlone := q.source == board.FromRedis && !errors.As(err, &unknown)
		var silence error // of the leader
		if led && !redisAlone {
			source := q.source
			if source == "" || s.cfg.Lead.Ready() {
				source = board.FromState
			}
			var resp *connect.Response[A]
			resp, silence = askLeader(ctx, ok, func(ctx context.Context) (*connect.Response[A], error) { return leader(ctx, source) })
			if code := connect.CodeOf(silence); silence == nil || ctx.Err() == nil && code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded {
				return resp, silence
			}
			if ok {
				alone(a, "the leader does not answer: "+connectMessage(silence))
			}
		}
		waited := time.Since(began)
		// Whose time is up is told what was missing, as long as somebody listens. Before that an error of Redis
		// or a leader's silence is a reason to look again, unless Redis alone was asked for.
		late := waited > atLeastWait || errors.Is(ctx.Err(), context.DeadlineExceeded)
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, failure(ctx.Err())
		case ok:
			return shown(a, answer.Index)
		case redisAlone && err != nil:
			return nil, redisFailure(err)
		case late && silence != nil:
			return nil, silence
		case late && err != nil:
			return nil, s.nobody(nothingDone, err.Error())
		case late && redisAlone:
			return nil, failure(fmt.Errorf("%w: %s", state.ErrConflict, missing(answer.Index, q.atLeast, waited)))
		case late:
			return nil, s.nobody(nothingDone, missing(answer.Index, q.atLeast, waited))
		}
		select {
		case <-changed:
		case <-time.After(lookAgain):
		case <-ctx.Done():
		case <-s.done:
			return nil, noLeader(nothingDone, "no leader here: this coordinator is stopping")
		}
	}
}

// askLeader waits for the leader's answer: not for long where there is one to
// show already.
func askLeader[A any](ctx context.Context, spare bool, ask func(context.Context) (A, error)) (A, error) {
	if spare {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, spareWait)
		defer cancel()
	}
	return ask(ctx)
}

// connectMessage is an error's text without the word for its code.
func connectMessage(err error) string {
	var known *connect.Error
	if errors.As(err, &known) {
		return known.Message()
	}
	return err.Error()
}

// missing says by how much Redis is behind what was asked for.
func missing(index, atLeast uint64, waited time.Duration) string {
	return fmt.Sprintf("redis reflects index %d after %s, and at least %d was asked for", index, waited.Round(100*time.Millisecond), atLeast)
}

// led reports whether there is a leader as far as this node knows.
func (s *Server) led() bool {
	id, _ := s.cfg.Cluster.Leader()
	return id != "" || s.cfg.Lead.Ready()
}

// ageMS is how old the answer may be, in milliseconds; -1 where nobody can say.
func ageMS(a board.Answer) int64 {
	if a.Age < 0 {
		return -1
	}
	return a.Age.Milliseconds()
}

// seen is the index that a client says to have seen; 0 = none.
func seen(h http.Header) uint64 {
	index, _ := strconv.ParseUint(h.Get(atelierv1.SeenHeader), 10, 64)
	return index
}

// handedOn is a request in the place of another one: of the same caller, and it is
// not handed on again where that one was.
func handedOn[Q any](r *connect.Request[Q], instead http.Header) *connect.Request[Q] {
	for _, name := range []string{forwardedHeader, "Authorization"} {
		if v := instead.Get(name); v != "" {
			r.Header().Set(name, v)
		}
	}
	return r
}

// handedBack is the leader's error as one of this node, which carries headers.
func handedBack(err error) error {
	var e *connect.Error
	if !errors.As(err, &e) {
		return err
	}
	back := connect.NewError(e.Code(), errors.New(e.Message()))
	for _, d := range e.Details() {
		back.AddDetail(d)
	}
	if v := e.Meta().Get(notLeaderHeader); v != "" {
		back.Meta().Set(notLeaderHeader, v)
	}
	return back
}

// indexed writes on every answer the index that it reflects at least, for clients
// that want to see no less later on.
func (s *Server) indexed() connect.HandlerOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			resp, err := next(ctx, req)
			if err == nil && resp.Header().Get(atelierv1.IndexHeader) == "" {
				resp.Header().Set(atelierv1.IndexHeader, strconv.FormatUint(s.cfg.View().Index(), 10))
			}
			return resp, err
		}
	}))
}

// inside carries requests to a handler of this process, so that a board's question to the leader goes the way
// of every request (wait, hand on, repeat) and there is one such way.
type inside struct{ http.Handler }

// RoundTrip implements http.RoundTripper. Whoever gave up hears so, even if the handler went on.
func (h inside) RoundTrip(r *http.Request) (_ *http.Response, err error) {
	w := &kept{header: http.Header{}, code: http.StatusOK}
	defer func() { // a handler breaks off half an answer with a panic
		if p := recover(); p == http.ErrAbortHandler {
			err = noLeader(perhapsDone, "no leader any more: its answer broke off")
		} else if p != nil {
			panic(p)
		}
	}()
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = http.NoBody
	}
	h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err // the handler wrote nothing
	}
	return &http.Response{
		StatusCode: w.code, Status: http.StatusText(w.code), Header: w.header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r,
	}, nil
}

// kept is an answer that is kept.
type kept struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (k *kept) Header() http.Header { return k.header }

// WriteHeader implements http.ResponseWriter.
func (k *kept) WriteHeader(code int) { k.code = code }

// Write implements http.ResponseWriter.
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }
