package api_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/api"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// follower is the API of a node that does not lead, over a raft that says what the
// test wants: who leads, and where that one's API is.
type follower struct {
	server *api.Server
	calls  coordinatortest.API
	addr   string

	api.Cluster // what no test here asks for
	mu          sync.Mutex
	ready       bool
	changed     chan struct{}
	leader      string
	at          map[string]string // APIs by id, as gossip knows them
}

func newFollower(t *testing.T, id string, view func() *state.View, redis *board.Redis) *follower {
	t.Helper()
	f := &follower{changed: make(chan struct{}), at: map[string]string{}}
	if view == nil {
		view = state.New().View
	}
	logger := slog.New(slog.DiscardHandler)
	f.server = api.New(api.Config{ID: id, Log: f, Cluster: f, View: view, Lead: f, Peers: f, Board: board.New(redis), Now: time.Now, Random: func(b []byte) { rand.Read(b) },
		Assign: assigner.New(assigner.Config{Log: f, View: view, TTL: time.Second, Logger: logger}), Logger: logger})
	web := httptest.NewServer(f.server)
	f.addr = web.Listener.Addr().String()
	f.calls = coordinatortest.Dial(f.addr)
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	return f
}

// follow says who leads, and where.
func (f *follower) follow(id, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leader, f.at[id] = id, addr
}

// lead makes this node the leader.
func (f *follower) lead() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = true
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *follower) Ready() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready
}

func (f *follower) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *follower) Leader() (id, raft string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leader, ""
}

func (f *follower) API(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at[id]
}

func (f *follower) MarkedState() replica.Mark          { return replica.Mark{} }
func (f *follower) Alive(string) bool                  { return true }
func (f *follower) VerifyLeader(context.Context) error { return nil }
func (f *follower) Stats() replica.Stats {
	return replica.Stats{Peers: []replica.PeerStats{{Server: replica.Server{ID: "n1", Voter: true}}, {Server: replica.Server{ID: "n2", Voter: true, Address: "10.0.0.2:7601"}, Trouble: "no route"},
		{Server: replica.Server{ID: "n3", Voter: true, Address: "10.0.0.3:7601"}, Trouble: "refused", At: "10.0.9.3:7601"}}}
}
func (f *follower) Propose(context.Context, *logv1.Command) (state.Result, error) {
	return state.Result{}, errors.New("a follower proposes nothing")
}

// stub is a leader that answers as a function says.
func stub(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	web := httptest.NewServer(answer)
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	return web.Listener.Addr().String()
}

// silence takes a request and answers nothing until the caller hangs up, which a
// server finds out only once it has read the body.
func silence(r *http.Request, arrived func()) {
	io.Copy(io.Discard, r.Body)
	arrived()
	<-r.Context().Done()
}

const getSweep = "/atelier.v1.SweepService/GetSweep"

func post(t *testing.T, addr, path string, header http.Header) (code int, h http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(coordinatortest.Context(t), http.MethodPost, "http://"+addr+path, strings.NewReader(`{"id":"s-1"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, resp.Header, err.Error()
	}
	return resp.StatusCode, resp.Header, string(b)
}

// noLeaderHere wants the one refusal of a request that no leader answered.
func noLeaderHere(t *testing.T, what string, err error, nothingDone bool, text string) {
	t.Helper()
	coordinatortest.WantCode(t, what, err, connect.CodeUnavailable, text)
	if r := client.RefusalOf(err); r.Reason != client.ReasonNoLeader || r.NothingDone != nothingDone {
		t.Errorf("%s: refused with %+v, nothing done should be %v", what, r, nothingDone)
	}
}

// A request goes to the leader as it is, marked as handed on, and its answer comes
// back as it is; what belongs to one connection stays there.
func TestForwardedAsItIs(t *testing.T) {
	t.Parallel()
	f := newFollower(t, "n1", nil, nil)
	var seen *http.Request
	var body []byte
	f.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Atelier-Index", "17")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "an answer of any kind")
	}))
	code, header, text := post(t, f.addr, getSweep+"?a=b", http.Header{"Atelier-Seen": {"9"}, "Te": {"trailers"}})
	if code != http.StatusTeapot || header.Get("Atelier-Index") != "17" || header.Get("Keep-Alive") != "" || text != "an answer of any kind" {
		t.Errorf("it is answered with %d %v %q", code, header, text)
	}
	if string(body) != `{"id":"s-1"}` || seen.URL.RequestURI() != getSweep+"?a=b" || seen.Header.Get("Atelier-Seen") != "9" || seen.Header.Get("Atelier-Forwarded-By") != "n1" || seen.Header.Get("Te") != "" {
		t.Errorf("the leader got %s %s %v", seen.URL, body, seen.Header)
	}
	if code, _, text := post(t, f.addr, "/metrics", nil); code != http.StatusOK || !strings.Contains(text, "atelier_trials 0") {
		t.Errorf("metrics are those of this node: %d %s", code, text)
	}
}

// Two nodes that each take the other for the leader do not hand a request on for ever:
// the one that was asked first says in the end that there is none.
func TestForwardingDoesNotGoRound(t *testing.T) {
	t.Parallel()
	a, b := newFollower(t, "n1", nil, nil), newFollower(t, "n2", nil, nil)
	var passed int
	var mu sync.Mutex
	a.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		passed++
		mu.Unlock()
		b.server.ServeHTTP(w, r)
	}))
	b.follow("n1", a.addr)
	began := time.Now()
	_, err := a.calls.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	noLeaderHere(t, "two that follow one another", err, true, "no leader")
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second || passed < 2 || passed > 40 {
		t.Errorf("it took %v, and the other one was asked %d times", took, passed)
	}
	// What was handed on once is answered here, sooner, and never sent back.
	began = time.Now()
	code, header, text := post(t, b.addr, getSweep, http.Header{"Atelier-Forwarded-By": {"n1"}})
	if code != http.StatusServiceUnavailable || header.Get("Atelier-Not-Leader") == "" || !strings.Contains(text, "REASON_NO_LEADER") || time.Since(began) > 2*time.Second {
		t.Errorf("handed on: %d %v %s after %v", code, header, text, time.Since(began))
	}
}

// Without a leader the refusal says whom this node cannot reach; nothing was done.
func TestWithoutALeader(t *testing.T) {
	t.Parallel()
	f := newFollower(t, "n1", nil, nil)
	_, err := f.calls.Sweeps.GetSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-1"}))
	noLeaderHere(t, "nobody leads", err, true, "no leader: coordinator n1 answers and cannot reach n2 at 10.0.0.2:7601 (no route), n3 at 10.0.9.3:7601 (refused); a leader needs 2 of 3 voters: start the others")
	_, err = f.calls.Workers.Relay(coordinatortest.Context(t), connect.NewRequest(&atelierv1.RelayRequest{Worker: "w"}))
	noLeaderHere(t, "a relay", err, true, "no leader")
	if code, _, text := post(t, f.addr, "/healthz", nil); code != http.StatusServiceUnavailable || !strings.Contains(text, "cannot reach n2") {
		t.Errorf("healthz: %d %s", code, text)
	}
	// Programs without the schema find the reason in JSON.
	var problem struct {
		Details []struct {
			Type  string
			Debug struct {
				Reason      string
				NothingDone bool
			}
		}
	}
	_, _, said := post(t, f.addr, getSweep, nil)
	if err := json.Unmarshal([]byte(said), &problem); err != nil || len(problem.Details) != 1 || problem.Details[0].Type != "atelier.v1.Refusal" ||
		problem.Details[0].Debug.Reason != "REASON_NO_LEADER" || !problem.Details[0].Debug.NothingDone {
		t.Errorf("in JSON: %v, %s", err, said)
	}
	if n := coordinatortest.Call(t, f.calls.Cluster.GetNode, &atelierv1.GetNodeRequest{Hash: true}); n.Id != "n1" || n.StateHash == "" {
		t.Errorf("without a leader it says of itself %v", n)
	}
	f.follow("n2", "")
	if code, _, text := post(t, f.addr, "/healthz", nil); code != http.StatusOK || !strings.Contains(text, "ok, leader n2") {
		t.Errorf("healthz: %d %s", code, text)
	}
	in := f.calls.Cluster.RestoreSnapshot(coordinatortest.Context(t))
	in.Send(&atelierv1.SnapshotChunk{Data: []byte("x")})
	_, err = in.CloseAndReceive()
	noLeaderHere(t, "a stream", err, true, "no leader")
}

// A node that begins to lead while a request waits answers it itself.
func TestWaitsUntilItLeads(t *testing.T) {
	t.Parallel()
	f := newFollower(t, "n1", nil, nil)
	time.AfterFunc(200*time.Millisecond, f.lead)
	_, err := f.calls.Sweeps.GetSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: "s-1"}))
	coordinatortest.WantCode(t, "once it leads", err, connect.CodeNotFound, `no sweep "s-1"`)
}

// A node that is being stopped lets go of whoever waits.
func TestStoppingLetsGo(t *testing.T) {
	t.Parallel()
	f := newFollower(t, "n1", nil, nil)
	began := time.Now()
	time.AfterFunc(100*time.Millisecond, f.server.Close)
	_, err := f.calls.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	noLeaderHere(t, "it waits for a leader", err, true, "this coordinator is stopping")

	g := newFollower(t, "n1", nil, nil)
	arrived := make(chan struct{})
	g.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) { silence(r, func() { close(arrived) }) }))
	go func() { <-arrived; g.server.Close() }()
	_, err = g.calls.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	coordinatortest.WantCode(t, "it waits for the leader's answer", err, connect.CodeUnavailable, "this coordinator is stopping: repeat the request with the same id at another")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
}

// A leader that nobody can dial did nothing with the request: it goes to the next one.
// One that went away before it answered may have carried it out.
func TestLeaderThatGoesAway(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	f := newFollower(t, "n1", nil, nil)
	f.follow("n2", l.Addr().String())
	next := stub(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "n3 got %s", b)
	})
	time.AfterFunc(100*time.Millisecond, func() { f.follow("n3", next) })
	if code, _, text := post(t, f.addr, getSweep, nil); code != http.StatusOK || text != `n3 got {"id":"s-1"}` {
		t.Errorf("the next leader: %d %s", code, text)
	}
	f.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	_, err = f.calls.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListSweepsRequest{}))
	noLeaderHere(t, "it hung up", err, false, "it went away before it answered; repeat the request with the same id")
	// Half an answer must not look whole.
	f.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	}))
	if code, _, text := post(t, f.addr, getSweep, nil); text == "half" {
		t.Errorf("half an answer: %d %s", code, text)
	}
}

// A leader that is deposed and keeps silent is not waited for: the request goes to its
// successor.
func TestDeposedLeaderIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFollower(t, "n1", nil, nil)
	arrived := make(chan struct{}, 1)
	f.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) { silence(r, func() { arrived <- struct{}{} }) }))
	successor := stub(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "n3 answers") })
	go func() { <-arrived; f.follow("n3", successor) }()
	if code, _, text := post(t, f.addr, getSweep, nil); code != http.StatusOK || text != "n3 answers" {
		t.Errorf("%d %s", code, text)
	}
}

// Streams are handed on in both directions, and not begun twice.
func TestStreamsAreForwarded(t *testing.T) {
	t.Parallel()
	leader := node.Start(t, node.Options{})
	f := newFollower(t, "n0", nil, nil)
	f.follow("n1", leader.Addr)
	sw := leader.Create(t, coordinatortest.Spec(2, 1))
	through := coordinatortest.Dial(f.addr)
	file := through.SaveState(t)
	if r, err := through.RestoreState(t, file); err != nil || r.Sweeps != 1 {
		t.Errorf("restored %v, %v", r, err)
	}
	if got := through.Sweep(t, sw.Id); got.Name != "test" {
		t.Errorf("the sweep is %v", got)
	}
	_, err := through.RestoreState(t, []byte("no state"))
	coordinatortest.WantCode(t, "no state", err, connect.CodeInvalidArgument, "")
	f.follow("n2", stub(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 10))
		w.Header().Set("Atelier-Not-Leader", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	_, err = through.RestoreState(t, file)
	noLeaderHere(t, "a stream that was begun", err, false, "no leader")
}
