package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"atelier/common/files"
	"atelier/common/gossip"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/stdio"
	"atelier/common/version"
	"atelier/coordinator/api"
	"atelier/coordinator/board"
	"atelier/coordinator/duty"
	"atelier/coordinator/duty/assigner"
	"atelier/coordinator/duty/audit"
	"atelier/coordinator/duty/judge"
	"atelier/coordinator/duty/notify"
	"atelier/coordinator/duty/project"
	"atelier/coordinator/duty/propose"
	"atelier/coordinator/duty/purge"
	"atelier/coordinator/member"
	"atelier/coordinator/replica"
	"atelier/coordinator/runlogs"
	"atelier/coordinator/state"
)

const (
	// feedBuffer is how many log entries' changes may wait for the watchers.
	feedBuffer = 16_384
	// Grace at the end: handing leadership over, finishing requests, saying
	// good-bye.
	transferGrace = 3 * time.Second
	requestGrace  = 5 * time.Second
	leaveGrace    = 10 * time.Second
	goodbyeGrace  = time.Second
)

// Main is one coordinator.
type Main struct {
	Config Config
	Stderr io.Writer
	// OnFatal is called when the disk failed or hangs; nil = say so and exit 1.
	OnFatal func(error)

	logger  *slog.Logger
	member  *member.Member
	serving chan struct{}
	once    sync.Once

	handler atomic.Pointer[http.Handler]
	http    *http.Server
	unused  connections
	pool    *gossip.Pool
	machine *state.Machine
	node    *replica.Node
	redis   *board.Redis
	server  *api.Server
	lead    *duty.Leadership
}

// Serving is closed once the API is served; Addresses are set by then.
func (m *Main) Serving() <-chan struct{} {
	m.once.Do(func() { m.serving = make(chan struct{}) })
	return m.serving
}

// Addresses of the node, once it serves.
func (m *Main) Addresses() member.Addresses { return m.member.Addresses() }

// Run is the node's life: it serves until ctx ends, then hands leadership over,
// finishes requests and returns nil.
func (m *Main) Run(ctx context.Context) (err error) {
	if m.Stderr == nil {
		m.Stderr = stdio.Err()
	}
	if m.logger, err = newLogger(m.Stderr, m.Config.LogLevel); err != nil {
		return err
	}
	m.logger = m.logger.With("node", m.Config.ID)
	steerGC(ctx)
	// What serves must outlive ctx: leadership is handed over and requests are
	// finished after its end.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var background sync.WaitGroup
	defer background.Wait()
	defer end()
	defer m.close()

	if err := m.open(ctx, life); err != nil {
		return err
	}
	background.Add(1)
	go func() { defer background.Done(); m.lead.Run(life) }()
	fatal := make(chan error, 1)
	background.Add(3)
	go func() { defer background.Done(); m.member.KeepFresh(life) }()
	go func() {
		defer background.Done()
		if err := m.member.Stay(ctx); err != nil && ctx.Err() == nil {
			fatal <- err
		}
	}()
	go func() { defer background.Done(); m.member.Follow(life) }()
	m.announce()
	select {
	case <-ctx.Done():
	case err = <-fatal:
		return err
	case err = <-m.member.Gone():
		return err
	}
	m.stop(end)
	return nil
}

// open starts every part, in the order in which they need one another. What it
// leaves running ends with life.
func (m *Main) open(ctx, life context.Context) error {
	c := &m.Config
	keys, err := gossip.ReadKey(c.GossipKeyFile)
	if err != nil {
		return fmt.Errorf("--gossip-key-file: %w", err)
	}
	m.member, err = member.Open(member.Config{ID: c.ID, Data: c.Data, API: c.API, Raft: c.Raft, Gossip: c.Gossip, Advertise: c.Advertise,
		Bootstrap: c.Bootstrap, Join: c.Join, Invitation: c.Invitation, Keys: keys, TLS: c.TLS, Insecure: c.Insecure, Logger: m.logger})
	if err != nil {
		return err
	}
	if err := m.member.Enroll(ctx); err != nil {
		return err
	}
	listener, err := m.member.Listen()
	if err != nil {
		return err
	}
	starting := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "this coordinator is starting", http.StatusServiceUnavailable)
	}))
	m.handler.Store(&starting)
	m.http = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*m.handler.Load()).ServeHTTP(w, r) }),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnState:         m.unused.follow,
		ErrorLog:          slog.NewLogLogger(m.logger.Handler(), slog.LevelDebug),
	}
	go m.http.Serve(listener)
	if err := m.member.Find(ctx); err != nil {
		return err
	}
	m.pool = m.member.Pool()
	m.machine = state.New()
	m.node, err = replica.Open(m.member.Replica(replica.Config{Machine: m.machine, Logger: m.logger, OnFatal: m.fatal, MinFree: c.MinFree}))
	if err != nil {
		return err
	}
	return m.wire(life)
}

// wire builds the duties and the API round the node.
func (m *Main) wire(life context.Context) error {
	c := &m.Config
	feed := &source{sub: m.node.Subscribe(feedBuffer)}
	a := assigner.New(assigner.Config{Log: m.node, View: m.machine.View, TTL: c.LeaseTTL, Logger: m.logger})
	nowMS := func() int64 { return time.Now().UnixMilli() }
	j := judge.New(judge.Config{Log: m.node, View: m.machine.View, NowMS: nowMS, Logger: m.logger})
	p := propose.New(propose.Config{Log: m.node, View: m.machine.View, NowMS: nowMS, Logger: m.logger, Settle: j.Await})
	n := notify.New(notify.Config{Log: m.node, View: m.machine.View, NowMS: nowMS, Logger: m.logger})
	duties := []duty.Duty{a, p, j, n, purge.New(purge.Config{Log: m.node, View: m.machine.View, NowMS: nowMS, Logger: m.logger})}
	watchers := []duty.Watcher{a, p, j, n}
	var projector *project.Projector
	if c.Redis != "" {
		if c.redisShown {
			m.logger.Warn("the password of Redis is on the command line, where every user of this machine can read it: use --redis-password-file or ATELIER_REDIS_PASSWORD")
		}
		var err error
		if m.redis, err = board.Open(board.Options{Addr: c.Redis, Password: c.redisPassword, Certificates: c.RedisCertificates, Prefix: c.RedisPrefix}); err != nil {
			return fmt.Errorf("--redis: %w", err)
		}
		projector = project.New(project.Config{Redis: m.redis, View: m.machine.View, Generation: randomName, Logger: m.logger})
		duties = append(duties, projector)
		watchers = append(watchers, projector)
	}
	duties = append(duties, audit.New(audit.Config{
		Log: m.node, Index: func() uint64 { return m.machine.View().Index() }, Voters: m.voters,
		Ask:     func(ctx context.Context, id string) (audit.Found, error) { return m.server.AskMark(ctx, id) },
		Version: version.Version, Format: replica.HashFormat(), Every: c.CompareEvery, Entries: 1000, Logger: m.logger,
	}))
	m.lead = duty.NewLeadership(m.node, m.logger, m.member.Introduce, duties...)
	m.member.Serve(m.node, m.machine, m.lead)
	logs, err := runlogs.Open(filepath.Join(c.Data, "run-logs"), runlogs.DefaultLimits())
	if err != nil {
		return err
	}
	m.server = api.New(api.Config{RunLogs: logs,
		ID: c.ID, Log: m.node, Cluster: m.node, View: m.machine.View, Lead: m.lead, Peers: member.Peers{Pool: m.pool}, Assign: a, Judge: j,
		Board: board.New(m.redis), Projection: projector, Now: time.Now, Random: random, TLS: m.member.ClientTLS(), Identity: m.member.Store(), Logger: m.logger,
	})
	m.member.ListRefusals(m.server.Refused)
	watchers = append(watchers, m.server, m.member)
	go duty.Tell(context.Background(), feed, m.fault, watchers...) // ends with the node
	if projector != nil {
		go projector.Follow(life)
	}
	h := http.Handler(m.server)
	m.handler.Store(&h)
	return nil
}

// voters are the ids of raft's voting members.
func (m *Main) voters() []string {
	var ids []string
	for _, s := range m.node.Configuration() {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// fault fails the sweep whose change made a watcher panic, where this node leads.
func (m *Main) fault(sweep string, panicked any, stack []byte) {
	m.logger.Error("panic in what hears of changes", "sweep", sweep, "panic", panicked, "stack", string(stack))
	if sweep == "" || !m.node.IsLeader() {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestGrace)
		defer cancel()
		reason := fmt.Sprintf("a fault of the coordinator, please report it: panic: %v", panicked)
		_, err := m.node.Propose(ctx, &logv1.Command{TimeMs: time.Now().UnixMilli(), Op: &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: sweep, Reason: reason}}})
		if err != nil {
			m.logger.Warn("failed sweep not recorded", "sweep", sweep, "error", err)
		}
	}()
}

// announce tells the world that the node serves.
func (m *Main) announce() {
	at := m.member.Addresses()
	if m.Config.AddressFile != "" {
		b, err := json.Marshal(at)
		if err == nil {
			err = files.WriteUnsynced(m.Config.AddressFile, append(b, '\n'), 0o600)
		}
		if err != nil {
			m.logger.Error("address file not written", "error", err)
		}
	}
	m.member.LeaveLogin()
	m.logger.Info("serving", "api", at.API, "raft", at.Raft, "gossip", at.Gossip)
	m.Serving() // makes it, should nobody have asked
	close(m.serving)
}

// fatal ends the process: with a disk that failed or hangs nothing can be kept.
func (m *Main) fatal(err error) {
	if m.OnFatal != nil {
		m.OnFatal(err)
		return
	}
	var rot *replica.RotError
	if errors.As(err, &rot) { // it says itself what to do
		fmt.Fprintf(m.Stderr, "atelier-coordinator: %s cannot continue: %v\n", m.Config.ID, err)
		os.Exit(1)
	}
	fmt.Fprintf(m.Stderr, "atelier-coordinator: %s cannot continue: %v\nThe other coordinators carry on without it. Check the disk of %s, then start it again.\n", m.Config.ID, err, m.Config.Data)
	os.Exit(1)
}

// stop ends the node gently.
func (m *Main) stop(endDuties context.CancelFunc) {
	m.logger.Info("stopping")
	if m.Config.LeaveOnTerm {
		ctx, cancel := context.WithTimeout(context.Background(), leaveGrace)
		if err := m.member.Leave(ctx); err != nil {
			m.logger.Warn("left without being taken off the cluster's list; remove it by hand", "error", err)
		}
		cancel()
	}
	if m.node.IsLeader() {
		ctx, cancel := context.WithTimeout(context.Background(), transferGrace)
		if err := m.node.Transfer(ctx, ""); err != nil {
			m.logger.Info("leadership not handed over", "error", err)
		}
		cancel()
	}
	endDuties()
	m.server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), requestGrace)
	defer cancel()
	go m.unused.closeUntil(ctx)
	if err := m.http.Shutdown(ctx); err != nil {
		m.logger.Info("requests cut off", "error", err)
	}
	if err := m.pool.Leave(goodbyeGrace); err != nil {
		m.logger.Debug("gossip", "error", err)
	}
}

// close lets go of everything, gently stopped or not.
func (m *Main) close() {
	if m.http != nil {
		m.http.Close()
	}
	if m.pool != nil {
		m.pool.Leave(0)
	}
	if m.pool != nil {
		m.pool.Leave(0)
	}
	running := false
	if m.node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), requestGrace)
		if err := m.node.Shutdown(ctx); err != nil {
			m.logger.Warn("shutdown", "error", err)
			running = ctx.Err() != nil
		}
		cancel()
	}
	if m.redis != nil {
		m.redis.Close()
	}
	if m.member != nil {
		m.member.Close(running)
	}
}

// random fills b from the system; it is handed on, so that tests can know what comes.
func random(b []byte) { rand.Read(b) }

// randomName is eight letters or digits.
func randomName() string { return strings.ToLower(rand.Text()[:8]) }

// source hands a subscription's changes to duty.Tell.
type source struct{ sub *replica.Subscription }

// Next waits for changes; true says that some were lost before them.
func (s *source) Next(ctx context.Context) ([]state.Change, bool, error) {
	select {
	case changes, open := <-s.sub.C:
		if !open {
			return nil, false, errors.New("the node was shut down")
		}
		return changes, s.sub.Lost(), nil
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}
