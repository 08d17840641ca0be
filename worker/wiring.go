package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"atelier/common/client"
	"atelier/common/files"
	"atelier/common/gossip"
	"atelier/common/identity"
	"atelier/common/stdio"
	"atelier/common/sysmetrics"
	"atelier/common/trial"
	"atelier/common/version"
	"atelier/worker/agent"
	"atelier/worker/runner"
	"atelier/worker/slots"
	"atelier/worker/store"
	"atelier/worker/wire"
)

// Main is the program: flags in, everything wired, closed in reverse order.
type Main struct {
	Config Config

	log    *slog.Logger
	drain  chan struct{}
	closer []func() error
	health health
	api    atomic.Pointer[client.Client] // once a cluster was found
	store  *identity.Store               // nil where the cluster is open
}

// NewMain returns a program to be configured.
func NewMain() *Main { return &Main{drain: make(chan struct{})} }

// Drain asks Run to end in good order. To be called once.
func (m *Main) Drain() { close(m.drain) }

// Close releases what Run opened.
func (m *Main) Close() error {
	var errs []error
	for i := len(m.closer) - 1; i >= 0; i-- {
		errs = append(errs, m.closer[i]())
	}
	m.closer = nil
	return errors.Join(errs...)
}

// Run serves until it was drained, or until ctx ends.
func (m *Main) Run(ctx context.Context) error {
	c := m.Config
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fmt.Errorf("--log-level %q: give debug, info, warn or error", c.LogLevel)
	}
	m.log = slog.New(slog.NewTextHandler(stdio.Err(), &slog.HandlerOptions{Level: level})).With("worker", c.Name)
	if err := m.lockData(); err != nil {
		return err
	}
	folder, err := folderID(c.Data)
	if err != nil {
		return err
	}
	home, err := openHome(c.Data, m.log)
	if err != nil {
		return err
	}
	if err := m.openIdentity(ctx, home); err != nil {
		return err
	}
	places, err := slots.Find(slots.Options{Want: c.Slots, ThreadsPerSlot: c.ThreadsPerSlot, Logger: m.log}.FromEnvironment())
	if err != nil {
		return err
	}
	offered, notes, err := trainers(c.TrainerBin, c.TrainersFile)
	if err != nil {
		return err
	}
	for _, n := range notes {
		m.log.Info(n)
	}
	// Before the first word to a coordinator: it gives this worker's former
	// leases to others as soon as it hears of the new start.
	pids := filepath.Join(c.Data, "pids")
	if n, err := runner.KillOrphans(pids, 30*time.Second, m.log); err != nil {
		return err
	} else if n > 0 {
		m.log.Warn("ended trainers of an earlier start", "processes", n)
	}
	confined, err := m.confinement()
	if err != nil {
		return err
	}
	launcher, err := runner.New(runner.Config{Dir: pids, Logger: m.log, Confine: confined})
	if err != nil {
		return err
	}
	m.closer = append(m.closer, func() error { launcher.Close(); return nil })

	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	m.closer = append(m.closer, func() error { listener.Close(); return nil })
	address := advertised(listener.Addr().String(), c.Advertise)
	files, err := m.openStore(address)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	linking := wire.Config{Worker: c.Name, Address: address, Kind: c.GroupWire, Logger: m.log}
	if m.store != nil {
		linking.Dial, listener = m.dialWorker, m.guard(listener)
	}
	links := wire.New(linking)
	if err := m.serveFiles(listener, files, links, registry); err != nil {
		return err
	}

	pool, err := m.startGossip(address, home.known())
	if err != nil {
		return err
	}
	if err := m.writeAddresses(address, pool.Addr()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	addrs, err := m.coordinators(ctx, pool, home)
	if len(addrs) == 0 || err != nil {
		return err // none: asked to leave before there was anybody to talk to
	}
	api := client.New(addrs, client.WithAttemptTimeout(3*time.Second), client.WithTLS(m.apiTLS()))
	m.api.Store(api)
	m.closer = append(m.closer, func() error { api.Close(); return nil })
	if m.store != nil {
		go m.store.KeepFresh(ctx, m.log, api.Renew)
	}
	guard := &clusterGuard{Coordinator: api, home: home, refuse: func(err error) { cancel(refusal{err}) }}
	guard.joined = func(cluster string) {
		m.log.Info("serves a cluster", "cluster", cluster)
		go func() { // it waits until a peer was told
			if err := pool.SetMeta(m.meta(address, cluster)); err != nil {
				m.log.Debug("gossip", "error", err)
			}
		}()
	}
	go home.trackGossip(ctx, pool, api.Learn)
	machine := newMachine(m.log, registry)
	stop := sysmetrics.Start(ctx, sysmetrics.Every, sysmetrics.Options{Disk: c.Data, Notify: func(s string) { m.log.Info(s) }}, machine.set)
	defer stop()
	a, err := agent.New(agent.Config{Name: c.Name, Folder: folder, Address: address, Version: version.Version, Labels: c.Labels, Slots: places, Trainers: offered, Warm: warm(c.Warm, offered),
		Launcher: launcher, Store: files, LogDir: filepath.Join(c.Data, "logs"), CacheDir: c.Cache, Wire: links, Coordinator: guard, Index: api, KeepLog: api.KeepRunLog,
		Learn: api.Learn, Usage: machine.usage, DrainGrace: c.DrainGrace, Logger: m.log, Registry: registry})
	if err != nil {
		return err
	}
	m.health.agent.Store(a)
	go func() {
		select {
		case <-m.drain:
			a.Drain()
		case <-ctx.Done():
		}
	}()
	if m.store == nil {
		m.log.Info("members of groups on other workers are linked over this worker's address, without encryption", "address", address, "group_wire", c.GroupWire, "meaning", c.GroupWire.Meaning())
	} else {
		m.log.Info("members of groups on other workers are linked over this worker's address, encrypted", "address", address, "meaning", wire.Agents.Meaning())
	}
	m.log.Info("serving", "address", address, "slots", len(places), "incarnation", a.Incarnation(), "version", version.Version)
	err = a.Run(ctx)
	if r, ok := context.Cause(ctx).(refusal); ok {
		return r.error
	}
	return err
}

// refusal is why another cluster does not get this worker.
type refusal struct{ error }

// lockData makes the data folder this process's own: two agents in one folder
// would end each other's trainers.
func (m *Main) lockData() error {
	data := m.Config.Data
	if err := files.CheckOwner(data, files.Worker); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	// An agent that was just killed may still hold it for a moment.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	f, err := files.WaitLock(ctx, filepath.Join(data, "lock"))
	if owner := files.CheckOwner(data, files.Worker); owner != nil && (err == nil || errors.Is(err, files.ErrLocked)) {
		if err == nil {
			f.Close()
		}
		return fmt.Errorf("--data: %w", owner)
	}
	if errors.Is(err, files.ErrLocked) {
		return fmt.Errorf("--data %s: another worker uses this folder; give each its own", data)
	}
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	m.closer = append(m.closer, f.Close)
	if err := os.MkdirAll(m.Config.Cache, 0o755); err != nil {
		return fmt.Errorf("--cache: %w", err)
	}
	return nil
}

// openStore keeps checkpoints in the shared folder where there is one, else in the worker's own,
// from where it serves them at address.
func (m *Main) openStore(address string) (*store.Store, error) {
	cfg := store.Config{TLS: m.fileTLS(), Worker: m.Config.Name, Root: m.checkpoints(), Shared: m.Config.Shared != "", Cache: filepath.Join(m.Config.Data, fetchedFolder), Logger: m.log}
	if m.Config.TrainerUser != "" {
		cfg.CopyMode = 0o644 // another one reads them
	}
	s, err := store.Open(cfg, address)
	if err == nil {
		m.closer = append(m.closer, s.Close)
	}
	return s, err
}

// serveFiles serves checkpoints, logs, links between members of groups, metrics and the health check.
func (m *Main) serveFiles(l net.Listener, files *store.Store, links *wire.Hub, registry *prometheus.Registry) error {
	logs := filepath.Join(m.Config.Data, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(logs)
	if err != nil {
		return err
	}
	m.closer = append(m.closer, root.Close)
	mux := http.NewServeMux()
	mux.Handle(trial.FilesPath, m.members(files.Handler(16)))
	mux.Handle("PUT "+trial.FilesPath, m.members(files.Receiver(m.maySend, 4)))
	mux.Handle("/logs/", m.members(store.ServeRoot(root, "/logs/", 16)))
	mux.Handle(wire.Path, m.members(links))
	mux.Handle("/metrics", m.members(promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})))
	mux.Handle("/healthz", &m.health)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug)}
	m.closer = append(m.closer, srv.Close)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			m.log.Error("file server ended", "error", err)
		}
	}()
	return nil
}

// maySend reports why a file may not be sent here: it needs an open run of a sweep whose
// trials programs train, and that run's token, which the cluster's API gives.
func (m *Main) maySend(ctx context.Context, l trial.LeaseRef) error {
	api := m.api.Load()
	if api == nil {
		return errors.New("this worker has found no cluster yet")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := api.Sweep(ctx, l.Sweep)
	if err != nil {
		return errors.New(client.Message(err))
	}
	t, err := api.Trial(ctx, l.Sweep, l.Trial)
	if err != nil {
		return errors.New(client.Message(err))
	}
	if run := t.LastRun(); s.Trainer != "external" || run == nil || run.Token != l.Token || run.EndedMS != 0 {
		return fmt.Errorf("trial %d of sweep %s has no open run of that token that a program trains", l.Trial, l.Sweep)
	}
	return nil
}

// startGossip also asks the nodes that were seen at an earlier start: the ones that were named may
// have moved meanwhile.
func (m *Main) startGossip(address string, known homeRecord) (*gossip.Pool, error) {
	c := m.Config
	keys, err := gossip.ReadKey(c.GossipKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	label := ""
	if m.store != nil {
		if c.GossipKeyFile != "" {
			return nil, errKeyFile
		}
		keys, label = m.store.Gossip(), m.store.Name().Cluster
	}
	pool, err := gossip.Start(gossip.Config{Name: c.Name, Bind: c.Gossip, Advertise: c.Advertise, Keys: keys, Label: label, Insecure: c.Insecure,
		Meta: m.meta(address, known.Cluster), Join: append(slices.Clone(c.Join), known.Seeds...), Logger: m.log})
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	m.closer = append(m.closer, func() error { return pool.Leave(time.Second) })
	return pool, nil
}

// meta is what gossip says of this worker.
func (m *Main) meta(address, cluster string) gossip.Meta {
	return gossip.Meta{Role: gossip.RoleWorker, ID: m.Config.Name, Files: address, Cluster: cluster}
}

// coordinators waits until gossip shows one, when none was named. Those that
// were seen at an earlier start come after those named.
func (m *Main) coordinators(ctx context.Context, pool *gossip.Pool, home *home) ([]string, error) {
	if addrs := m.Config.Addrs; len(addrs) > 0 {
		for _, a := range home.known().APIs {
			if !slices.Contains(addrs, a) {
				addrs = append(addrs[:len(addrs):len(addrs)], a)
			}
		}
		return addrs, nil
	}
	looking, found := context.WithCancel(ctx)
	defer found()
	go m.looking(looking, pool)
	select {
	case <-pool.Tried():
	case <-m.drain:
		return nil, nil
	case <-ctx.Done():
		return nil, nil
	}
	for {
		changed := pool.Changed()
		if seen := pool.Clusters(); home.cluster() == "" && len(seen) > 1 {
			return nil, &gossip.ErrTwoClusters{Clusters: seen}
		}
		var addrs []string
		for _, p := range pool.Peers() {
			if p.Meta.Role == gossip.RoleCoordinator && p.Meta.API != "" && p.Alive {
				addrs = append(addrs, p.Meta.API)
			}
		}
		if len(addrs) > 0 {
			return addrs, nil
		}
		select {
		case <-changed:
		case <-m.drain:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

const (
	lookingFirst = time.Second // a coordinator that is starting answers before
	lookingEvery = 10 * time.Second
)

// looking warns until ctx ends that no coordinator is found, and why.
func (m *Main) looking(ctx context.Context, pool *gossip.Pool) {
	began := time.Now()
	for pause := lookingFirst; ; pause = lookingEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		why := pool.Trouble()
		if why == "" {
			why = "the nodes that answer are not coordinators"
		}
		m.health.report("no coordinator found: " + why)
		m.log.Warn("no coordinator found yet, still looking; --join takes the gossip addresses of running nodes",
			"cause", why, "for", time.Since(began).Round(time.Second))
	}
}

// writeAddresses tells whoever started this process where it serves.
func (m *Main) writeAddresses(listen, gossip string) error {
	if m.Config.AddressFile == "" {
		return nil
	}
	b, err := json.Marshal(map[string]any{"id": m.Config.Name, "listen": listen, "gossip": gossip, "pid": os.Getpid()})
	if err != nil {
		return err
	}
	if err := files.WriteUnsynced(m.Config.AddressFile, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("--address-file: %w", err)
	}
	return nil
}

// advertised puts the host that others use in place of the bound one.
func advertised(bound, host string) string {
	if host == "" {
		return bound
	}
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	return net.JoinHostPort(host, port)
}
