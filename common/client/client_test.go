package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
)

// node is a coordinator as a client sees one.
type node struct {
	atelierv1connect.UnimplementedSweepServiceHandler
	atelierv1connect.UnimplementedClusterServiceHandler
	id    string
	addr  string
	calls atomic.Int64
	conns atomic.Int64

	mu      sync.Mutex
	err     error
	hang    time.Duration
	frozen  bool                // it does not even say how it is
	path    []trial.SweepStatus // of the sweep that is waited for
	members []*atelierv1.Member
	leader  string
}

func (n *node) set(f func(*node)) { n.mu.Lock(); defer n.mu.Unlock(); f(n) }

func (n *node) GetSweep(ctx context.Context, r *connect.Request[atelierv1.GetSweepRequest]) (*connect.Response[atelierv1.GetSweepResponse], error) {
	n.calls.Add(1)
	n.mu.Lock()
	err, hang := n.err, n.hang
	n.mu.Unlock()
	select {
	case <-time.After(hang):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.GetSweepResponse{Sweep: &atelierv1.Sweep{Id: r.Msg.Id, Name: n.id}}), nil
}

func (n *node) WaitSweep(ctx context.Context, r *connect.Request[atelierv1.WaitSweepRequest]) (*connect.Response[atelierv1.WaitSweepResponse], error) {
	n.mu.Lock()
	path := n.path
	n.mu.Unlock()
	if at := int(r.Msg.AfterIndex); at < len(path) {
		return connect.NewResponse(&atelierv1.WaitSweepResponse{Sweep: &atelierv1.Sweep{Status: wire.ToSweepStatus(path[at])}, Index: uint64(at) + 1}), nil
	}
	time.Sleep(time.Duration(r.Msg.WaitMs) * time.Millisecond)
	return connect.NewResponse(&atelierv1.WaitSweepResponse{Sweep: &atelierv1.Sweep{Name: n.id}}), nil
}

func (n *node) ListMembers(context.Context, *connect.Request[atelierv1.ListMembersRequest]) (*connect.Response[atelierv1.ListMembersResponse], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	return connect.NewResponse(&atelierv1.ListMembersResponse{Members: n.members, LeaderId: n.leader}), nil
}

func (n *node) GetNode(ctx context.Context, _ *connect.Request[atelierv1.GetNodeRequest]) (*connect.Response[atelierv1.GetNodeResponse], error) {
	n.mu.Lock()
	frozen := n.frozen
	n.mu.Unlock()
	if frozen {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	role := "follower"
	if n.leader == n.id {
		role = "leader"
	}
	return connect.NewResponse(&atelierv1.GetNodeResponse{Id: n.id, Role: role, LeaderId: n.leader, Members: n.members}), nil
}

func serve(t *testing.T, id string) *node {
	t.Helper()
	n := &node{id: id}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewSweepServiceHandler(n))
	mux.Handle(atelierv1connect.NewClusterServiceHandler(n))
	s := httptest.NewUnstartedServer(mux)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			n.conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	n.addr = s.Listener.Addr().String()
	return n
}

// closed is an address nobody listens at.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// noLeader is said in words that no program looks at.
func noLeader() error {
	return client.Refusal{Reason: client.ReasonNoLeader}.Error(connect.CodeUnavailable, errors.New("an election is on"))
}

func get(ctx context.Context, c *client.Client) (string, error) {
	r, err := c.Raw().Sweeps.GetSweep(ctx, connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-1"}))
	if err != nil {
		return "", err
	}
	return r.Msg.Sweep.Name, nil
}

func TestGoesRoundUntilOneAnswers(t *testing.T) {
	a, b := serve(t, "a"), serve(t, "b")
	a.set(func(n *node) { n.err = noLeader() })
	c := client.New([]string{closed(t), a.addr, b.addr}, client.WithoutFollowing())
	defer c.Close()
	got, err := get(t.Context(), c)
	if err != nil || got != "b" {
		t.Fatalf("got %q, %v; want an answer of b", got, err)
	}
	// The one that answered is asked first from now on.
	before := a.calls.Load()
	if _, err := get(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if a.calls.Load() != before {
		t.Error("a node without a leader was asked again although another answers")
	}
}

func TestWaitsForALeader(t *testing.T) {
	a := serve(t, "a")
	a.set(func(n *node) { n.err = noLeader() })
	time.AfterFunc(400*time.Millisecond, func() { a.set(func(n *node) { n.err = nil }) })
	c := client.New([]string{a.addr})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := get(ctx, c); err != nil || got != "a" {
		t.Fatalf("got %q, %v", got, err)
	}
	if n := a.calls.Load(); n < 2 || n > 30 {
		t.Errorf("%d calls in 0.4 s: want some, with pauses between", n)
	}
}

func TestErrorsAndExitCodes(t *testing.T) {
	a := serve(t, "a")
	cases := []struct {
		name  string
		addr  string
		err   error
		hang  time.Duration
		limit time.Duration // of the context; 0 = none
		code  int
		text  string
		tries int64 // exact number of calls that arrive; 0 = any
	}{
		{name: "no leader", err: noLeader(), code: client.ExitNoLeader, text: "has no leader"},
		{name: "nobody listens", addr: closed(t), code: client.ExitNoLeader, text: "no coordinator answers at 127.0.0.1:"},
		{name: "unavailable for another reason", err: connect.NewError(connect.CodeUnavailable, errors.New("Redis is down")), code: client.ExitError, text: "Redis is down"},
		{name: "only the words of a reason", err: connect.NewError(connect.CodeUnavailable, errors.New("no leader of the orchestra")), code: client.ExitError, text: "orchestra"},
		{name: "frozen", hang: 5 * time.Second, code: client.ExitNoLeader, text: "no answer within 100ms"},
		{name: "not found", err: connect.NewError(connect.CodeNotFound, errors.New("sweep s-1 does not exist")), code: client.ExitNotFound, text: "sweep s-1 does not exist", tries: 1},
		{name: "refused", err: connect.NewError(connect.CodePermissionDenied, errors.New("not yours")), code: client.ExitRefused, text: "not yours", tries: 1},
		{name: "invalid", err: connect.NewError(connect.CodeInvalidArgument, errors.New("spec.yaml:3: lr")), code: client.ExitError, text: "spec.yaml:3: lr", tries: 1},
		{name: "deadline", err: noLeader(), limit: time.Second, code: client.ExitTimeout, text: "has no leader"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a.set(func(n *node) { n.err, n.hang = tc.err, tc.hang })
			addr := tc.addr
			if addr == "" {
				addr = a.addr
			}
			attempt := 10 * time.Second
			if tc.hang > 0 {
				attempt = 100 * time.Millisecond
			}
			opts := []client.Option{client.WithAttemptTimeout(attempt), client.WithoutFollowing()}
			ctx := t.Context()
			if tc.limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tc.limit)
				defer cancel()
			} else {
				opts = append(opts, client.WithRetryFor(300*time.Millisecond))
			}
			before, start := a.calls.Load(), time.Now()
			_, err := get(ctx, client.New([]string{addr}, opts...))
			if client.ExitCode(err) != tc.code || !strings.Contains(client.Message(err), tc.text) {
				t.Errorf("exit code %d, %q; want %d and %q", client.ExitCode(err), client.Message(err), tc.code, tc.text)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %s", took)
			}
			if n := a.calls.Load() - before; tc.tries != 0 && n != tc.tries {
				t.Errorf("%d calls arrived, want %d", n, tc.tries)
			}
		})
	}
}

func TestCancelIsInterrupted(t *testing.T) {
	a := serve(t, "a")
	a.set(func(n *node) { n.err = noLeader() })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := get(ctx, client.New([]string{a.addr}))
	if client.ExitCode(err) != client.ExitInterrupted || !errors.Is(err, context.Canceled) {
		t.Fatalf("exit code %d, %v", client.ExitCode(err), err)
	}
}

func TestFrozenNodeIsLeft(t *testing.T) {
	a, b := serve(t, "a"), serve(t, "b")
	a.set(func(n *node) { n.hang = time.Minute })
	c := client.New([]string{a.addr, b.addr}, client.WithAttemptTimeout(100*time.Millisecond), client.WithoutFollowing())
	start := time.Now()
	if got, err := get(t.Context(), c); err != nil || got != "b" || time.Since(start) > 30*time.Second {
		t.Fatalf("got %q, %v after %s", got, err, time.Since(start))
	}
}

func TestLongPollOutlivesTheAttemptTimeout(t *testing.T) {
	a := serve(t, "a")
	c := client.New([]string{a.addr}, client.WithAttemptTimeout(2*time.Second), client.WithRetryFor(200*time.Millisecond))
	r, err := c.Raw().Sweeps.WaitSweep(t.Context(), connect.NewRequest(&atelierv1.WaitSweepRequest{WaitMs: 2500}))
	if err != nil || r.Msg.Sweep.Name != "a" {
		t.Fatal(err)
	}
}

// A client that knows one member finds the others, calls the leader, and calls
// the next leader when that one is gone.
func TestFollowsTheLeader(t *testing.T) {
	nodes := []*node{serve(t, "a"), serve(t, "b"), serve(t, "c")}
	var members []*atelierv1.Member
	for _, n := range nodes {
		members = append(members, &atelierv1.Member{Id: n.id, ApiAddress: n.addr})
	}
	lead := func(id string) {
		for _, n := range nodes {
			n.set(func(n *node) { n.members, n.leader = members, id })
		}
	}
	lead("b")
	c := client.New([]string{nodes[0].addr}, client.WithFollowInterval(20*time.Millisecond), client.WithAttemptTimeout(time.Second))
	defer c.Close()
	await := func(want string) {
		t.Helper()
		var got string
		for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			var err error
			if got, err = get(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
		}
		t.Fatalf("calls still go to %q, want %q", got, want)
	}
	await("b")
	if n := len(c.Addrs()); n != 3 {
		t.Errorf("knows %d addresses, want 3: %v", n, c.Addrs())
	}
	// b is gone and c leads: no call fails meanwhile.
	nodes[1].set(func(n *node) { n.err = connect.NewError(connect.CodeUnavailable, errors.New("shutting down")) })
	lead("c")
	await("c")
}

func TestLearnReplacesWhatWasLearned(t *testing.T) {
	c := client.New([]string{"a:1"})
	c.Learn([]string{"b:1", "c:1", "b:1", ""})
	c.Learn([]string{"c:1", "d:1"})
	c.Learn(nil)
	if got := strings.Join(c.Addrs(), " "); got != "a:1 c:1 d:1" {
		t.Error(got)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	a := serve(t, "a")
	c := client.New([]string{a.addr}, client.WithoutFollowing())
	defer c.Close()
	for range 3 {
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := get(t.Context(), c); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := a.conns.Load(); n > 32 {
		t.Errorf("48 calls, 16 at a time, opened %d connections", n)
	}
}

func TestParseAddrs(t *testing.T) {
	cases := []struct{ in, want, err string }{
		{"127.0.0.1:7600", "127.0.0.1:7600", ""},
		{" a:1, b:2 ,", "a:1 b:2", ""},
		{"https://a.example", "https://a.example", ""},
		{"[::1]:7600", "[::1]:7600", ""},
		{"", "", "names no coordinator"},
		{"host", "", "want host:port"},
		{"a:1,:7600", "", "want host:port"},
		{"ftp://a:1", "", "neither http nor https"},
	}
	for _, tc := range cases {
		got, err := client.ParseAddrs(tc.in)
		if tc.err == "" && (err != nil || strings.Join(got, " ") != tc.want) {
			t.Errorf("%q: %v, %v", tc.in, got, err)
		}
		if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%q: error %v, want one with %q", tc.in, err, tc.err)
		}
	}
	for list, want := range map[string]bool{"127.0.0.1:1,localhost:2,[::1]:3": true, "127.0.0.1:1,10.0.0.1:2": false, "box:1": false} {
		if got := client.Loopback(strings.Split(list, ",")); got != want {
			t.Errorf("Loopback(%s) = %v", list, got)
		}
	}
}

// A node that dies in the middle of a call breaks the connection: the call goes
// on at another.
func TestBrokenConnectionIsTriedElsewhere(t *testing.T) {
	for name, breakIt := range map[string]func(net.Conn){
		"reset": func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },
		"cut off in an answer": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 100\r\n\r\nhalf")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var broken atomic.Int64
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Read(make([]byte, 1<<10))
					broken.Add(1)
					breakIt(c)
					c.Close()
				}
			}()
			good := serve(t, "good")
			c := client.New([]string{l.Addr().String(), good.addr}, client.WithRetryFor(5*time.Second), client.WithoutFollowing())
			defer c.Close()
			if _, err := c.Raw().Sweeps.GetSweep(t.Context(), connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-a"})); err != nil {
				t.Fatalf("the good node was not asked: %v", err)
			}
			if broken.Load() == 0 {
				t.Error("the broken node was never asked: the test shows nothing")
			}
		})
	}
}

// A sweep is followed to its end, whichever that is, and no further; on hears of
// each state, the last one too.
func TestFollow(t *testing.T) {
	a := serve(t, "a")
	c := client.New([]string{a.addr}, client.WithoutFollowing())
	defer c.Close()
	for _, end := range []trial.SweepStatus{trial.SweepFinished, trial.SweepStopped, trial.SweepCancelled, trial.SweepFailed} {
		path := []trial.SweepStatus{trial.SweepRunning, trial.SweepPaused, trial.SweepStopping, end, trial.SweepRunning}
		a.set(func(n *node) { n.path = path })
		var heard []trial.SweepStatus
		s, err := c.Follow(t.Context(), "s-1", func(s *trial.Sweep) error {
			heard = append(heard, s.Status)
			return nil
		})
		if err != nil || s.Status != end || !slices.Equal(heard, path[:4]) {
			t.Errorf("%s: %v %v, heard %s", end, s, err, heard)
		}
	}
	a.set(func(n *node) { n.path = []trial.SweepStatus{trial.SweepRunning} })
	enough := errors.New("enough")
	if _, err := c.Follow(t.Context(), "s-1", func(*trial.Sweep) error { return enough }); err != enough {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Follow(ctx, "s-1", func(*trial.Sweep) error { return nil }); client.ExitCode(err) != client.ExitTimeout {
		t.Error(err)
	}
}
