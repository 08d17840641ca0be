// Package node runs one coordinator within a test: real raft on a folder of the test,
// the state, the duties and the API behind HTTP. It leads within milliseconds. What
// the program has beside that, membership and gossip, it leaves out: those tests start
// the program itself.
package node

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/identity"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/api"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/duty"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/duty/judge"
	"atelier/coordinator/duty/notify"
	"atelier/coordinator/duty/project"
	"atelier/coordinator/duty/propose"
	"atelier/coordinator/replica"
	"atelier/coordinator/runlogs"
	"atelier/coordinator/state"
)

// ID of the node.
const ID = "n1"

// Options of a Node; the zero value is a node without Redis.
type Options struct {
	LeaseTTL     time.Duration         // 8 s
	NotifyPauses []time.Duration       // between attempts to post a sweep's end; nil = those of the program
	Redis        string                // address of a Redis for the board; "" = none
	Log          func(api.Log) api.Log // what stands between the API and raft; nil = nothing
	Closed       bool                  // its cluster is closed: callers need a credential
}

// Node is one coordinator that leads a cluster of itself.
type Node struct {
	coordinatortest.API
	Addr    string // of its API, host:port
	Replica *replica.Node
	Machine *state.Machine
	Server  *api.Server
	Store   *identity.Store // of a closed cluster's only coordinator
}

// Start starts one that leads and serves. It ends with the test.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	n := &Node{Machine: state.New()}
	const soon = 20 * time.Millisecond // it waits for nobody's vote
	n.Replica, err = replica.Open(replica.Config{ID: ID, DataDir: t.TempDir(), Listener: listener, Bootstrap: true, ClusterID: "c-test", Machine: n.Machine,
		Logger: logger, OnFatal: func(err error) { t.Error(err) }, HeartbeatTimeout: soon, ElectionTimeout: soon, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	life, end := context.WithCancel(context.Background())
	changes := &source{n.Replica.Subscribe(1 << 14)}
	if o.LeaseTTL == 0 {
		o.LeaseTTL = 8 * time.Second
	}
	nowMS := func() int64 { return time.Now().UnixMilli() }
	assign := assigner.New(assigner.Config{Log: n.Replica, View: n.Machine.View, TTL: o.LeaseTTL, Logger: logger})
	judges := judge.New(judge.Config{Log: n.Replica, View: n.Machine.View, NowMS: nowMS, Logger: logger})
	proposes := propose.New(propose.Config{Log: n.Replica, View: n.Machine.View, NowMS: nowMS, Logger: logger, Settle: judges.Await})
	posts := notify.New(notify.Config{Log: n.Replica, View: n.Machine.View, NowMS: nowMS, Pauses: o.NotifyPauses, Logger: logger})
	duties, watchers := []duty.Duty{assign, proposes, judges, posts}, []duty.Watcher{assign, proposes, judges, posts}
	var redis *board.Redis
	var projector *project.Projector
	if o.Redis != "" {
		if redis, err = board.Open(board.Options{Addr: o.Redis, Prefix: "atelier"}); err != nil {
			t.Fatal(err)
		}
		projector = project.New(project.Config{Redis: redis, View: n.Machine.View, Generation: func() string { return strings.ToLower(rand.Text()[:8]) }, Logger: logger})
		duties, watchers = append(duties, projector), append(watchers, projector)
		go projector.Follow(life)
	}
	web := httptest.NewUnstartedServer(nil)
	n.Addr = web.Listener.Addr().String()
	n.API = coordinatortest.Dial(n.Addr)
	var clientTLS *tls.Config
	if o.Closed {
		if n.Store, err = identity.Begin(t.TempDir(), identity.Name{Cluster: "c-test", Role: identity.Coordinator, Node: ID}, time.Now()); err != nil {
			t.Fatal(err)
		}
		clientTLS = n.Store.ClientTLS(nil)
		n.API = coordinatortest.DialAs("https://"+n.Addr, n.Store.Trusted().ClientTLS(nil), "")
	}
	lead := duty.NewLeadership(n.Replica, logger, func(ctx context.Context) error {
		r, err := n.Replica.Propose(ctx, &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: ID, RaftAddress: listener.Addr().String(), ApiAddress: n.Addr, ClusterId: "c-test"}}})
		return errors.Join(err, r.Err)
	}, duties...)
	var log api.Log = n.Replica
	if o.Log != nil {
		log = o.Log(log)
	}
	logs, err := runlogs.Open(filepath.Join(t.TempDir(), "run-logs"), runlogs.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	n.Server = api.New(api.Config{ID: ID, Log: log, Cluster: n.Replica, View: n.Machine.View, Lead: lead, Peers: nobody{}, Assign: assign, Judge: judges, RunLogs: logs,
		Board: board.New(redis), Projection: projector, Now: time.Now, Random: func(b []byte) { rand.Read(b) }, TLS: clientTLS, Identity: n.Store, Logger: logger})
	web.Config.Handler = n.Server
	if o.Closed {
		web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		web.TLS = n.Store.ServerTLS(tls.VerifyClientCertIfGiven, nil)
		web.StartTLS()
	} else {
		web.Start()
	}
	go duty.Tell(life, changes, func(sweep string, panicked any, stack []byte) {
		t.Errorf("sweep %q: panic: %v\n%s", sweep, panicked, stack)
	}, append(watchers, n.Server)...)
	over := make(chan struct{})
	go func() { defer close(over); lead.Run(life) }()
	t.Cleanup(func() {
		end()
		<-over
		n.Server.Close()
		web.CloseClientConnections()
		web.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := n.Replica.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if redis != nil {
			redis.Close()
		}
	})
	coordinatortest.Until(t, "the node leads", lead.Ready)
	return n
}

// nobody is what a node alone knows of others.
type nobody struct{}

func (nobody) Alive(string) bool { return false }
func (nobody) API(string) string { return "" }

// source hands a subscription's changes to duty.Tell.
type source struct{ *replica.Subscription }

func (s *source) Next(ctx context.Context) ([]state.Change, bool, error) {
	select {
	case changes, open := <-s.C:
		if !open {
			return nil, false, errors.New("the node was shut down")
		}
		return changes, s.Lost(), nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}
