package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/agent"
	"atelier/worker/confine"
	"atelier/worker/runner"
	"atelier/worker/simtrainer"
	"atelier/worker/slots"
	"atelier/worker/store"
	"atelier/worker/wire"
)

// TestMain turns the test binary into the simulated trainer when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Verb {
		os.Exit(confine.Main(os.Args[2:]))
	}
	if mode := os.Getenv("PUPPET"); mode != "" {
		puppetMain(mode)
		os.Exit(0)
	}
	if os.Getenv("SIMTRAINER") != "" {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		os.Exit(simtrainer.Main(os.Stdin, os.NewFile(trainerproto.EventsFD, "events"), os.Stderr, signals))
	}
	os.Exit(m.Run())
}

// cluster is a coordinator in this process: it keeps leases by the rules of the
// API, and can be told to misbehave.
type cluster struct {
	ttl time.Duration
	t   testing.TB

	mu        sync.Mutex
	changed   chan struct{}
	token     uint64
	waiting   []*leased
	trials    map[int64]*leased
	granted   map[string]*leased // by request id
	beats     []trial.Heartbeat
	relays    int
	away      bool // every call fails
	loseReply map[string]int
	noGrant   bool
	drained   bool
	relayGate chan struct{}
	known     map[string]bool // events recorded, by token and epoch
	refuses   string          // heartbeats are refused with this reason
	final     bool
}

type leased struct {
	n           int64
	training    string
	lease       uint64 // 0: waiting or ended
	runs        int32
	request     string
	deadline    time.Time
	epochs      []int32
	checkpoints []trial.Checkpoint
	ends        []trial.Ended
	endTimes    []time.Time
	fenced      int
	verdict     trial.Verdict
	end         int32 // epoch that its lease ends at; 0 = none
	slot        string
}

func newCluster(t testing.TB, ttl time.Duration) *cluster {
	return &cluster{ttl: ttl, t: t, changed: make(chan struct{}), trials: map[int64]*leased{}, granted: map[string]*leased{}, loseReply: map[string]int{}, known: map[string]bool{}}
}

func (c *cluster) add(n int, training string) {
	c.with(func() {
		for range n {
			tr := &leased{n: int64(len(c.trials) + 1), training: training}
			c.trials[tr.n] = tr
			c.waiting = append(c.waiting, tr)
		}
	})
}

// with changes the cluster under its lock and wakes whoever waits for a change.
func (c *cluster) with(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// until waits for a condition, read under the lock.
func (c *cluster) until(what string, limit time.Duration, f func() bool) {
	c.t.Helper()
	deadline := time.After(max(limit, 30*time.Second)) // a loaded machine is slow, not wrong
	for {
		c.mu.Lock()
		ok, changed := f(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			c.mu.Lock()
			for _, tr := range c.trials {
				c.t.Logf("trial %d: lease %d, epochs %v, ends %v, fenced %d", tr.n, tr.lease, tr.epochs, tr.ends, tr.fenced)
			}
			c.mu.Unlock()
			c.t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func (c *cluster) fail(call string) error {
	if c.away {
		return connect.NewError(connect.CodeUnavailable, errors.New("an election is on"))
	}
	if c.loseReply[call] > 0 {
		c.loseReply[call]--
		return connect.NewError(connect.CodeUnavailable, errors.New("connection reset"))
	}
	return nil
}

func (c *cluster) expire() {
	for _, tr := range c.trials {
		if tr.lease != 0 && time.Now().After(tr.deadline) {
			tr.lease = 0
			c.waiting = append(c.waiting, tr)
		}
	}
}

func (c *cluster) Heartbeat(_ context.Context, r trial.Heartbeat) (a trial.HeartbeatAnswer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return a, c.fail("")
	}
	c.beats = append(c.beats, r)
	a.TTL = c.ttl
	if c.refuses != "" {
		a.Refused, a.Final, a.Lost = c.refuses, c.final, r.Leases
		return a, nil
	}
	c.expire()
	a.Drain = c.drained
	for _, l := range r.Leases {
		tr := c.trials[l.Trial]
		if tr == nil || tr.lease != l.Token {
			a.Lost = append(a.Lost, l)
			continue
		}
		tr.deadline = time.Now().Add(c.ttl)
		if tr.verdict != 0 {
			a.Verdicts = append(a.Verdicts, trial.LeaseVerdict{Lease: l, Verdict: tr.verdict, Reason: "a person"})
		}
	}
	return a, c.fail("heartbeat")
}

func (c *cluster) Acquire(ctx context.Context, r client.AcquireRequest) (*trial.Lease, error) {
	end := time.After(r.Wait)
	for {
		c.mu.Lock()
		if c.away {
			err := c.fail("")
			c.mu.Unlock()
			return nil, err
		}
		c.expire()
		tr := c.granted[r.RequestID]
		if tr != nil && (tr.lease == 0 || tr.request != r.RequestID) {
			tr = nil
		}
		if tr == nil && len(c.waiting) > 0 && !c.noGrant && !c.drained {
			tr = c.waiting[0]
			c.waiting = c.waiting[1:]
			c.token++
			tr.lease, tr.request, tr.slot, tr.deadline = c.token, r.RequestID, r.Slot, time.Now().Add(c.ttl)
			tr.runs++
			c.granted[r.RequestID] = tr
		}
		if tr != nil {
			l := &trial.Lease{LeaseRef: trial.LeaseRef{Sweep: "s-test", Trial: tr.n, Token: tr.lease}, Run: tr.runs, Trainer: "sim", Params: []byte(`{"lr":0.01}`), Training: []byte(tr.training), Seed: uint64(tr.n),
				Objective: trial.Objective{Metric: "val_loss"}, TTL: c.ttl, Slot: r.Slot}
			if tr.end > 0 {
				l.EndEpoch, l.EndVerdict, l.EndReason = tr.end, trial.VerdictPause, "a rung"
			}
			for _, cp := range slices.Backward(tr.checkpoints) {
				l.Checkpoints = append(l.Checkpoints, cp)
			}
			err := c.fail("acquire")
			c.mu.Unlock()
			if err != nil {
				l = nil
			}
			return l, err
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // leases run out
		case <-end:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *cluster) Relay(_ context.Context, _, _ string, events []trial.Event) (results []trial.EventResult, err error) {
	c.mu.Lock()
	gate := c.relayGate
	c.mu.Unlock()
	if gate != nil {
		<-gate
	}
	c.with(func() {
		if c.away {
			err = c.fail("")
			return
		}
		c.expire()
		c.relays++
		for _, e := range events {
			results = append(results, c.record(e))
		}
		err = c.fail("relay")
	})
	return results, err
}

func (c *cluster) record(e trial.Event) trial.EventResult {
	tr := c.trials[e.Trial]
	if tr == nil {
		return trial.EventResult{Outcome: trial.OutcomeRefused}
	}
	key := fmt.Sprint(e.Token, e.Ended != nil)
	switch {
	case e.Report != nil:
		key += fmt.Sprint(" report ", e.Report.Epoch)
	case e.Checkpoint != nil:
		key += fmt.Sprint(" checkpoint ", e.Checkpoint.Epoch)
	}
	if c.known[key] {
		return trial.EventResult{Outcome: trial.OutcomeAlready}
	}
	if tr.lease != e.Token {
		tr.fenced++
		return trial.EventResult{Outcome: trial.OutcomeFenced, Verdict: trial.VerdictStop}
	}
	c.known[key] = true
	res := trial.EventResult{Outcome: trial.OutcomeRecorded, Verdict: max(tr.verdict, trial.VerdictContinue)}
	switch {
	case e.Report != nil:
		if n := len(tr.epochs); n > 0 && e.Report.Epoch <= tr.epochs[n-1] {
			res.Outcome = trial.OutcomeAlready
			return res
		}
		tr.epochs = append(tr.epochs, e.Report.Epoch)
	case e.Checkpoint != nil:
		tr.checkpoints = append(tr.checkpoints, *e.Checkpoint)
	case e.Ended != nil:
		tr.ends = append(tr.ends, *e.Ended)
		tr.endTimes = append(tr.endTimes, time.Now())
		tr.lease = 0
		switch e.Ended.Exit {
		case trial.ExitReleased, trial.ExitLost, trial.ExitKilled:
			c.waiting = append(c.waiting, tr)
		}
	}
	return res
}

func (c *cluster) IndexedCheckpoints(context.Context, string, int64) (all []trial.Checkpoint, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tr := range c.trials {
		all = append(all, tr.checkpoints...)
	}
	return all, nil
}

func (c *cluster) ended(class trial.Exit) int {
	n := 0
	for _, tr := range c.trials {
		for _, e := range tr.ends {
			if e.Exit == class {
				n++
			}
		}
	}
	return n
}

// worker is an agent with its surroundings.
type worker struct {
	*agent.Agent
	cancel context.CancelFunc
	result chan error
	store  *store.Store
	dir    string

	address string
}

func startWorker(t testing.TB, c interface {
	agent.Coordinator
	agent.Index
}, slotCount int, change func(*agent.Config)) *worker {
	t.Helper()
	dir := t.TempDir()
	files := httptest.NewUnstartedServer(nil)
	st, err := store.Open(store.Config{Root: filepath.Join(dir, "checkpoints"), Cache: filepath.Join(dir, "fetched")}, files.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var links *wire.Hub
	mux := http.NewServeMux()
	mux.Handle("/", st.Handler(4))
	mux.HandleFunc(wire.Path, func(w http.ResponseWriter, r *http.Request) { links.ServeHTTP(w, r) })
	files.Config.Handler = mux
	files.Start()
	l, err := runner.New(runner.Config{Dir: filepath.Join(dir, "pids"), Grace: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	places, err := slots.Find(slots.Options{Want: fmt.Sprintf("cpu:%d", slotCount)})
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	cfg := agent.Config{Name: "w", Logger: testLog(t), Address: files.Listener.Addr().String(), Slots: places, Launcher: l, Store: st, LogDir: filepath.Join(dir, "logs"), CacheDir: dir,
		Trainers: []runner.Trainer{{Name: "sim", Command: []string{self}, Env: map[string]string{"SIMTRAINER": "1", "GOMAXPROCS": "1"}},
			{Name: "puppet", Command: []string{self}, Env: map[string]string{"PUPPET": "member", "GOMAXPROCS": "1"}},
			{Name: "alone", Command: []string{self}, Env: map[string]string{"PUPPET": "alone", "GOMAXPROCS": "1"}}},
		Coordinator: c, Index: c,
		DrainGrace: 2 * time.Second, StopPatience: 500 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	if cfg.Wire == nil {
		cfg.Wire = wire.New(wire.Config{Worker: cfg.Name, Address: cfg.Address, Term: time.Second})
	}
	links = cfg.Wire
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &worker{Agent: a, cancel: cancel, result: make(chan error, 1), store: st, dir: dir, address: cfg.Address}
	go func() { w.result <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-w.result:
		case <-time.After(10 * time.Second):
			t.Error("the agent does not end")
		}
		l.Close()
		files.Close()
		st.Close()
	})
	return w
}

// wait for Run to end; what it returned.
func (w *worker) wait(t testing.TB, limit time.Duration) error {
	t.Helper()
	select {
	case err := <-w.result:
		w.result <- err
		return err
	case <-time.After(max(limit, 30*time.Second)):
		t.Fatalf("the agent did not end within %s", limit)
		return nil
	}
}

// trainers lists live trainer processes of the test.
func (w *worker) trainers() int {
	files, _ := filepath.Glob(filepath.Join(w.dir, "pids", "*.json"))
	return len(files)
}

// testLog shows what agents and trainers log where a test fails and ATELIER_TEST_LOG
// is set.
func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("ATELIER_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}
