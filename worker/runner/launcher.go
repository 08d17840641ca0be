// Package runner carries out one run of a trial as a child process: it starts
// a trainer ahead of time, gives it its job, reads its events from descriptor
// 3, and says in one exit class how it ended.
//
// A trainer may be written in any language and may do anything a process can
// do: hang, leave grandchildren behind, flood standard error, be shot by the
// kernel. None of that may take the agent with it, and nothing a trainer
// started may outlive it. The package refuses to guess about leases, retries
// and checkpoints: it knows processes and the trainer protocol, no more.
package runner

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"atelier/common/child"
	"atelier/common/trainerproto"
	"atelier/worker/confine"
)

// Trainer is a command that speaks the trainer protocol.
type Trainer struct {
	Name    string
	Command []string          // program and arguments
	Env     map[string]string // added to the agent's environment

	// What its owner allows it beyond all trainers, where they are confined.
	Read, Write []string // files and folders
	Network     bool     // sockets of the internet
	Own         bool     // a trainer of Atelier's
}

// SlotEnv is where a child runs: a slot's name and what the slot adds to the
// environment (visible devices, thread counts).
type SlotEnv struct {
	Slot string
	Env  map[string]string
	Read []string // data that the child may read where it is confined: what confine.Open tells
}

// Config of a Launcher. Zero durations and sizes take the defaults named.
type Config struct {
	Dir          string        // pid files, made if missing
	Grace        time.Duration // between SIGTERM and SIGKILL; 10 s
	HelloTimeout time.Duration // from start to the hello event; 60 s
	AliveWithin  time.Duration // a member of a group that has sent an alive event is ended when it sends nothing for so long; 2 s
	AloneWithin  time.Duration // the same of a trainer that computes alone; trainerproto.AloneWithin
	Linger       time.Duration // how long pipes may stay open once the trainer is gone; 2 s
	LogBytes     int64         // size at which a run's log is rotated, one older file is kept; 8 MiB
	Logger       *slog.Logger

	Confine *confine.Confinement // of all children; nil = they may what the agent may
}

// Launcher starts children and knows those that live.
type Launcher struct {
	cfg Config

	mu       sync.Mutex
	closed   bool
	children map[*Child]struct{}
}

// New makes the pid folder.
func New(cfg Config) (*Launcher, error) {
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.HelloTimeout == 0 {
		cfg.HelloTimeout = time.Minute
	}
	if cfg.AliveWithin == 0 {
		cfg.AliveWithin = 2 * time.Second
	}
	if cfg.AloneWithin == 0 {
		cfg.AloneWithin = trainerproto.AloneWithin
	}
	if cfg.Linger == 0 {
		cfg.Linger = 2 * time.Second
	}
	if cfg.LogBytes == 0 {
		cfg.LogBytes = 8 << 20
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder for pid files: %w", err)
	}
	return &Launcher{cfg: cfg, children: map[*Child]struct{}{}}, nil
}

// Confinement of all children; nil = they may what the agent may.
func (l *Launcher) Confinement() *confine.Confinement { return l.cfg.Confine }

// Close kills what still lives and waits for it.
func (l *Launcher) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	var live []*Child
	for c := range l.children {
		live = append(live, c)
	}
	l.mu.Unlock()
	for _, c := range live {
		c.Kill()
	}
	for _, c := range live {
		select {
		case <-c.Exited():
		case <-time.After(10 * time.Second): // stuck in the kernel: the pid file stays for the next start
		}
	}
}

// Start starts a trainer and waits for its hello, so that a job given later
// begins at once. The context bounds the wait only, not the child's life.
func (l *Launcher) Start(ctx context.Context, t Trainer, slot SlotEnv) (*Child, error) {
	if len(t.Command) == 0 {
		return nil, fmt.Errorf("trainer %q has no command", t.Name)
	}
	c, err := l.spawn(t, slot)
	if err != nil {
		return nil, fmt.Errorf("start trainer %q (%s): %w", t.Name, t.Command[0], err)
	}
	stop := context.AfterFunc(ctx, c.Kill)
	c.hello, err = c.proc.Hello(l.cfg.HelloTimeout)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Kill()
		<-c.Exited()
		if tail := c.log.tailText(); tail != "" {
			err = fmt.Errorf("%w; its last words: %s", err, tail)
		}
		return nil, fmt.Errorf("start trainer %q: %w", t.Name, err)
	}
	return c, nil
}

// spawn starts a trainer, which waits for its job. Before it runs on, its process id and marker are
// on disk: an agent that dies at any moment finds it at its next start and ends it.
func (l *Launcher) spawn(t Trainer, slot SlotEnv) (*Child, error) {
	var nonce [12]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	c := &Child{
		launcher: l, trainer: t.Name, slot: slot.Slot, read: slot.Read,
		marker:  hex.EncodeToString(nonce[:]),
		log:     &runLog{max: l.cfg.LogBytes},
		jobSent: make(chan struct{}),
	}
	argv, temp, err := l.confined(t, slot, c.marker)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = environment(l.cfg.Confine.Environ(os.Environ()), t.Env, slot.Env, c.marker, temp)
	cmd.Stdout, cmd.Stderr = c.log, c.log // not used by the protocol; prints belong in the log
	c.oom = readOOM()
	c.proc, err = child.StartTrainer(cmd, child.Options{
		Linger: l.cfg.Linger,
		Started: func(pid int) error {
			firstToGo(pid)
			// Without it an agent crash could leave a trainer nobody knows of.
			if err := c.writePIDFile(pid, l.cfg.Dir, t.Name); err != nil {
				return err
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.closed {
				return errors.New("the launcher is closed")
			}
			l.children[c] = struct{}{}
			return nil
		},
		Held: c.killEscaped,
		Ended: func() {
			os.Remove(c.pidFile)
			l.cfg.Confine.DropTemp(temp)
			l.mu.Lock()
			delete(l.children, c)
			l.mu.Unlock()
		},
	})
	if err != nil {
		l.cfg.Confine.DropTemp(temp)
	}
	return c, err
}

// confined is the command that starts a trainer as it is to be confined, and its
// folder for temporary files; "" = none of its own.
func (l *Launcher) confined(t Trainer, slot SlotEnv, marker string) (argv []string, temp string, err error) {
	cf := l.cfg.Confine
	if cf == nil {
		return t.Command, "", nil
	}
	if temp, err = cf.NewTemp(marker); err != nil {
		return nil, "", err
	}
	argv, err = cf.Command(confine.Program{Command: t.Command, Read: t.Read, Write: t.Write, Network: t.Network, Own: t.Own}, slot.Read, temp)
	if err != nil {
		cf.DropTemp(temp)
	}
	return argv, temp, err
}

// markerVariable is set in each child's environment, so that whatever a
// trainer starts can be recognised even after it left the process group.
const markerVariable = "ATELIER_CHILD"

// environment is what of the agent's own is passed on, less its settings
// (ATELIER_WORKER_*), then the trainer's, then the slot's, which counts most: it says
// which GPU is the run's. temp is where temporary files go, if not empty.
func environment(own []string, trainer, slot map[string]string, marker, temp string) []string {
	var env []string
	for _, kv := range own {
		name, _, _ := strings.Cut(kv, "=")
		_, a := trainer[name]
		_, b := slot[name]
		if a || b || name == markerVariable || strings.HasPrefix(name, "ATELIER_WORKER_") {
			continue
		}
		env = append(env, kv)
	}
	if _, said := trainer["TMPDIR"]; temp != "" && !said {
		env = append(env, "TMPDIR="+temp)
	}
	for k, v := range trainer {
		if _, over := slot[k]; !over {
			env = append(env, k+"="+v)
		}
	}
	for k, v := range slot {
		env = append(env, k+"="+v)
	}
	return append(env, markerVariable+"="+marker)
}
