// Package agent is a worker's mind: it tells the coordinators that the machine
// is there, takes leases for its slots, carries each out with a trainer
// process, relays what the trainer reports, and gives everything back when it
// is asked to leave.
//
// It decides nothing about trials. A lease is its only right to run one, the
// lease's token decides what counts, and when the agent cannot prove that a
// lease is still its own it ends the run. It refuses to lose a report silently:
// while no leader answers, reports wait in memory, and when that is full the
// trainers wait.
package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"atelier/common/client"
	"atelier/common/sparselog"
	"atelier/common/trial"
	"atelier/worker/runner"
	"atelier/worker/slots"
	"atelier/worker/store"
	"atelier/worker/wire"
)

// Coordinator is what the agent says to the cluster: a client.Client's part.
type Coordinator interface {
	Heartbeat(context.Context, trial.Heartbeat) (trial.HeartbeatAnswer, error)
	Acquire(context.Context, client.AcquireRequest) (*trial.Lease, error)
	Relay(ctx context.Context, worker, incarnation string, events []trial.Event) ([]trial.EventResult, error)
}

// Index answers which checkpoints count.
type Index interface {
	IndexedCheckpoints(ctx context.Context, sweep string, trial int64) ([]trial.Checkpoint, error)
}

// Config of an Agent. Zero values take the defaults named.
type Config struct {
	Name     string
	Folder   string // id of the data folder, to which the name belongs; empty: the name is not kept from others
	Address  string // host:port of the file server, as others reach it
	Version  string
	Labels   map[string]string
	Slots    []*slots.Slot
	Trainers []runner.Trainer
	Warm     []string // trainers that stand by in each slot from the start, two at most
	Launcher *runner.Launcher
	Store    *store.Store
	LogDir   string // logs of runs, below SWEEP/TRIAL/
	CacheDir string // packed image sets

	Wire *wire.Hub // links between members of groups; nil: members of one run are all here

	Coordinator Coordinator
	Index       Index                                                                              // nil: leftovers are not swept
	KeepLog     func(ctx context.Context, sweep string, trial int64, run int32, tail []byte) error // keeps the end of a run's log beside this worker; nil: nobody does
	Learn       func(addrs []string)                                                               // told the coordinators' addresses; may be nil

	Usage func() *trial.Usage // what the machine does, for heartbeats; nil: not told

	DrainGrace   time.Duration // for running trials to write a checkpoint and end; 30 s
	StopPatience time.Duration // between a stop verdict and a SIGTERM; 30 s
	QueueBytes   int           // hasTrial reports waiting for a leader; 64 MiB
	MemoryWait   time.Duration // for a GPU's memory to come back; 30 s
	PrefetchHold time.Duration // how long a lease may wait for its slot; 5 s
	Logger       *slog.Logger
	Registry     prometheus.Registerer // nil: no metrics
}

// Agent is one worker. Make it with New, start it with Run once.
type Agent struct {
	cfg         Config
	log         *slog.Logger
	incarnation string
	trainers    map[string]runner.Trainer
	offered     []string
	slots       []*slot
	held        *holdings
	relay       *relay
	groupsMu    sync.Mutex
	groups      map[uint64]*group // by token
	metrics     *metrics
	starts      *starts
	opened      opened
	sparse      *sparselog.Log
	logs        sync.WaitGroup // ends of logs that are being sent

	beatNow     chan struct{} // heartbeat soon
	cleanUpNow  chan struct{} // look soon which files the index names
	ttl         atomic.Int64  // nanoseconds
	drainAsked  atomic.Bool   // the coordinators want no new work here
	draining    atomic.Bool
	drain       chan struct{} // closed by Drain
	admitted    chan struct{} // closed by the first answered heartbeat
	admitOnce   sync.Once
	drainOnce   sync.Once
	rejected    chan struct{} // closed once the cluster refuses this agent for good
	rejectOnce  sync.Once
	rejectCause error                  // why, once rejected is closed
	nameTaken   atomic.Bool            // the name is another's, and may become free
	heard       atomic.Int64           // when a leader last took a heartbeat, by bootTime
	silence     atomic.Pointer[string] // why none did since; nil = one did
}

// New checks the configuration and picks this start's incarnation.
func New(cfg Config) (*Agent, error) {
	if cfg.Name == "" || len(cfg.Slots) == 0 || cfg.Launcher == nil || cfg.Store == nil || cfg.Coordinator == nil {
		return nil, errors.New("agent: name, slots, launcher, store and coordinator are needed")
	}
	if len(cfg.Trainers) == 0 {
		return nil, errors.New("agent: no trainer can be started on this machine; see --trainer-bin and --trainers")
	}
	setDefault(&cfg.DrainGrace, 30*time.Second)
	setDefault(&cfg.StopPatience, 30*time.Second)
	setDefault(&cfg.MemoryWait, 30*time.Second)
	setDefault(&cfg.PrefetchHold, 5*time.Second)
	setDefault(&cfg.QueueBytes, 64<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Wire == nil {
		cfg.Wire = wire.New(wire.Config{Worker: cfg.Name, Address: cfg.Address, Logger: cfg.Logger})
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("agent: incarnation: %w", err)
	}
	a := &Agent{cfg: cfg, log: cfg.Logger, incarnation: hex.EncodeToString(id[:]), trainers: map[string]runner.Trainer{}, groups: map[uint64]*group{}, starts: newStarts(), sparse: sparselog.New(cfg.Logger, sayAgain, nil),
		beatNow: make(chan struct{}, 1), cleanUpNow: make(chan struct{}, 1), drain: make(chan struct{}), admitted: make(chan struct{}), rejected: make(chan struct{})}
	for _, t := range cfg.Trainers {
		if _, twice := a.trainers[t.Name]; twice {
			return nil, fmt.Errorf("agent: trainer %q is listed twice", t.Name)
		}
		a.trainers[t.Name] = t
		a.offered = append(a.offered, t.Name)
	}
	for _, name := range cfg.Warm {
		if _, ok := a.trainers[name]; !ok {
			return nil, fmt.Errorf("agent: no trainer %q to keep warm; there are %s", name, strings.Join(a.offered, ", "))
		}
	}
	if len(cfg.Warm) > standbyNames {
		return nil, fmt.Errorf("agent: %d trainers to keep warm; at most %d per slot", len(cfg.Warm), standbyNames)
	}
	a.ttl.Store(int64(8 * time.Second)) // until the first heartbeat says
	a.held = &holdings{all: map[holdingKey]*holding{}}
	a.relay = newRelay(cfg.Coordinator, cfg.Name, a.incarnation, cfg.QueueBytes, a.log)
	for _, s := range cfg.Slots {
		a.slots = append(a.slots, newSlot(a, s))
	}
	a.metrics = newMetrics(a, cfg.Registry)
	return a, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Incarnation names this start of the agent.
func (a *Agent) Incarnation() string { return a.incarnation }

// Drain makes Run end in good order: no new leases, waiting ones handed back,
// running trials asked for a checkpoint and released.
func (a *Agent) Drain() {
	a.drainOnce.Do(func() {
		a.draining.Store(true)
		close(a.drain)
	})
}

// reject makes Run end: the coordinators will have nothing more to do with this
// agent.
func (a *Agent) reject(cause error) {
	a.rejectOnce.Do(func() {
		a.rejectCause = cause
		close(a.rejected)
	})
}

// isRejected reports whether the cluster has refused this worker.
func (a *Agent) isRejected() bool {
	select {
	case <-a.rejected:
		return true
	default:
		return false
	}
}

// Run works until Drain has been called and obeyed. When ctx ends, everything
// is killed and given back as far as that takes no more than about a second.
func (a *Agent) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.Background()) // heartbeats and relay outlive the slots
	defer stopWork()
	var background, serving sync.WaitGroup
	background.Go(func() { a.relay.send(work) })
	background.Go(func() { a.heartbeats(work) })
	background.Go(func() { a.watchDeadlines(work) })
	if a.cfg.Index != nil {
		background.Go(func() { a.cleanUp(work) })
	}
	serve, stopServing := context.WithCancel(ctx)
	defer stopServing()
	for _, s := range a.slots {
		serving.Go(func() { s.serve(serve) })
		background.Go(func() { s.standby.warm(serve) })
	}
	ended := make(chan struct{})
	go func() { serving.Wait(); close(ended) }()

	select {
	case <-a.drain:
		a.log.Info("draining", "grace", a.cfg.DrainGrace)
		a.heartbeatSoon() // says draining: no further grants
		a.held.pauseAll()
		grace := time.NewTimer(a.cfg.DrainGrace)
		select {
		case <-ended:
		case <-grace.C:
			a.log.Warn("ending the runs that did not stop within the grace time")
		case <-ctx.Done():
		}
		grace.Stop()
	case <-ctx.Done():
		a.draining.Store(true)
	case <-a.rejected:
		a.draining.Store(true)
		stopServing() // nothing that runs here counts any more
	}
	a.relay.liftLimit()
	stopServing()
	<-ended
	for _, s := range a.slots {
		s.standby.close()
	}
	patience := 10 * time.Second
	if ctx.Err() != nil || a.isRejected() {
		patience = time.Second
	}
	left := a.relay.flush(patience)
	a.awaitLogs()
	stopWork()
	background.Wait()
	if a.isRejected() {
		return a.rejectCause
	}
	if left > 0 {
		return fmt.Errorf("%d events could not be handed to a coordinator within %s; their leases run out by themselves", left, patience)
	}
	return nil
}

// wantsNoWork reports whether no new lease is wanted.
func (a *Agent) wantsNoWork() bool { return a.draining.Load() || a.drainAsked.Load() }

// bootTime is a clock that no person sets and that goes on while the process is
// stopped or the machine sleeps.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
