// Package api serves the cluster's API on every coordinator, over HTTP/1.1: the
// connect protocol, so that Go programs, curl (JSON) and the page share one set
// of handlers.
//
// The leader answers; a follower hands the request on to it and the answer
// back, waiting a while for a leader when there is none. Reads are
// linearizable: they are answered by a node that has just made sure that it
// leads. Leaderboards and lists of checkpoints are the exception: where Redis is
// configured any node answers them from there, also while there is no leader, and
// says which index they reflect. The package refuses to answer reads from a
// follower's own state, except GetNode, which is about that node, and it never
// writes but through the log.
package api

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"atelier/common/client"
	"atelier/common/identity"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/board"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/duty/project"
	"atelier/coordinator/runlogs"
	"atelier/coordinator/state"
)

const (
	// maxRequest bounds one message, in bytes; a spec has at most 1 MiB.
	maxRequest = 8 << 20
	// writeTimeout bounds one command's way through the log.
	writeTimeout = 10 * time.Second
	// compressFrom is the size from which answers are packed for clients that
	// ask for it; below, it costs more than it saves.
	compressFrom = 16 << 10
)

// Log is the way to write, and to make sure that this node leads.
type Log interface {
	// Propose returns once the command is durable on a majority and applied here.
	// An error that is not the result's own may leave it open whether that happens.
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
	// VerifyLeader costs a round to a majority: without it a deposed leader would
	// answer from an old state.
	VerifyLeader(ctx context.Context) error
}

// Leadership reports whether this node answers for the cluster.
type Leadership interface {
	Ready() bool              // it leads and its duties run
	Changed() <-chan struct{} // closed at the next change of Ready
}

// Peers says what is known of the other nodes beside the log.
type Peers interface {
	Alive(id string) bool
	API(id string) string // "" = unknown
}

// Config of a Server. Projection is nil without Redis, Judge where no sweep is
// judged.
type Config struct {
	ID         string             // of this node
	Log        Log                // writes, and proof of leadership
	Cluster    Cluster            // membership, snapshots, figures of raft
	View       func() *state.View // the newest state applied here; cheap, takes no lock
	Lead       Leadership
	Peers      Peers
	Assign     *assigner.Duty     // long polls for leases; answers on the leader alone
	Judge      Judge              // verdicts in the answer to the reports that cause them
	Board      *board.Board       // off without Redis
	Projection *project.Projector // how far Redis is
	RunLogs    *runlogs.Store     // ends of runs' logs, on this node; nil = none are kept
	Now        func() time.Time   // for what goes into the log
	Random     func(b []byte)     // fills b with random bytes, for ids and seeds
	TLS        *tls.Config        // to the other coordinators; nil = the cluster is open
	Identity   *identity.Store    // of this node, to let others join; nil = the cluster is open
	Logger     *slog.Logger
}

// Server holds the handlers.
type Server struct {
	cfg     Config
	hub     *hub
	verify  *verifier
	peers   *http.Transport                     // to other coordinators
	leader  atelierv1connect.SweepServiceClient // whoever leads, this node or another
	mux     *http.ServeMux
	dropped atomic.Int64 // when logs of deleted sweeps were last looked for, in Unix milliseconds
	done    chan struct{}

	late    chan struct{} // requests that wait until this node's state knows their token
	refused *refusals

	enrolling *rate.Limiter // invitations looked at
}

// New returns a server. It must hear of changes (it is a duty.Watcher).
//
// Who answers what:
//
//	most of it                      the leader; another node hands the request on (lead)
//	GetLeaderboard, ListCheckpoints the node asked, from Redis where that will do (boards.go), else the leader
//	GetNode, WhoAmI, /healthz ...   the node asked, of itself
//
// routes has them all, with what each asks of its caller. Every request is bounded before it is read, on whichever node it arrives.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, hub: newHub(), verify: &verifier{log: cfg.Log},
		peers: newTransport(cfg.TLS), mux: http.NewServeMux(), done: make(chan struct{}),
		late: make(chan struct{}, maxLate), refused: newRefusals(cfg.Logger), enrolling: newEnrolling(),
	}
	opts := []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest), connect.WithCompressMinBytes(compressFrom), gzipped()}
	if cfg.TLS != nil {
		opts = append(opts, connect.WithInterceptors(s.scoped()))
	}
	// Workers and members have nothing to read back, so only the services that people use carry
	// indexes.
	indexed := append(slices.Clip(opts), s.indexed())
	handlers := map[string]http.Handler{} // by the first part of their paths
	add := func(path string, h http.Handler) { handlers[path] = h }
	sweepPath, sweepHandler := atelierv1connect.NewSweepServiceHandler(sweeps{s}, indexed...)
	add(sweepPath, sweepHandler)
	add(atelierv1connect.NewTrialServiceHandler(trials{s}, indexed...))
	workerPath, workerHandler := atelierv1connect.NewWorkerServiceHandler(workers{s}, opts...)
	add(workerPath, workerHandler)
	add(atelierv1connect.WorkerServiceRelayProcedure, s.relay(workerHandler))
	add(atelierv1connect.NewClusterServiceHandler(cluster{s}, opts...))
	add(atelierv1connect.NewAccessServiceHandler(accesses{s}, opts...))
	// The caller is known by then: it goes the rest of a request's way.
	s.leader = atelierv1connect.NewSweepServiceClient(&http.Client{Transport: inside{s.lead(limited(sweepHandler))}}, "http://leader")
	boardHandler := sweepHandler
	if cfg.Board.On() {
		_, boardHandler = atelierv1connect.NewSweepServiceHandler(boards{sweeps{s}}, indexed...)
	}
	if cfg.RunLogs != nil {
		add(client.RunLogPath, http.HandlerFunc(s.runLog))
	}
	add(client.WorkerFilesPath, s.workerFile())
	add("/healthz", http.HandlerFunc(s.health))
	add("/metrics", s.metrics())
	s.register(func(r *route) http.Handler {
		h, ok := handlers[r.path]
		if !ok {
			h = handlers[r.path[:strings.LastIndex(r.path, "/")+1]]
		}
		switch {
		case h == nil:
			return nil
		case r.by == byBoard && cfg.Board.On():
			return limited(boardHandler)
		case r.by == byNode:
			return limited(h)
		}
		return s.lead(limited(h))
	})
	if cfg.TLS != nil {
		go s.reportRefusals()
	}
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Changed implements duty.Watcher: long polls on the sweeps of these changes look again.
func (s *Server) Changed(changes []state.Change) { s.hub.changed(changes) }

// Resync implements duty.Watcher: the state was replaced, so everybody looks again.
func (s *Server) Resync() { s.hub.all() }

// urlOf is a coordinator's API.
func (s *Server) urlOf(addr string) string {
	if s.cfg.TLS != nil {
		return "https://" + addr
	}
	return "http://" + addr
}

// Close answers whoever still waits, so that the HTTP server can end.
func (s *Server) Close() {
	close(s.done)
	s.peers.CloseIdleConnections()
}

// read returns a view that holds everything acknowledged before the call.
func (s *Server) read(ctx context.Context) (*state.View, error) {
	if err := s.verify.do(ctx); err != nil {
		return nil, failure(err)
	}
	return s.cfg.View(), nil
}

// sweep reads one sweep, linearizably. The view is the one it was found in: what is read besides belongs to
// the same index.
func (s *Server) sweep(ctx context.Context, id string) (*state.View, *state.Sweep, error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	sw, err := find(view, id)
	return view, sw, err
}

// write puts a command through the log. The result is of this very command, or, under a request id that the
// state knows, of the first one that carried it: that is what makes a repeat safe. An error with the code
// unavailable may leave it open whether the command is in the log.
func (s *Server) write(ctx context.Context, c *logv1.Command) (state.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// Commands carry the time at which they were proposed: replicas that apply them later, or
	// replay them, have no clock of their own.
	if c.TimeMs == 0 {
		c.TimeMs = s.cfg.Now().UnixMilli()
	}
	if c.By == "" {
		c.By = by(ctx)
	}
	res, err := s.cfg.Log.Propose(ctx, c)
	if err == nil {
		err = res.Err
	}
	return res, failure(err)
}

// now is the clock of answers, in Unix milliseconds.
func (s *Server) now() int64 { return s.cfg.Now().UnixMilli() }
