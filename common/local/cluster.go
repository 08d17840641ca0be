// Package local runs a whole cluster on one machine, as real processes on
// loopback: coordinators, workers and Redis, each with its folder, its log and
// ports that were free. `atelier tune` without an address, end-to-end tests,
// measurements and `make run` stand on it.
//
// It is no supervisor: a process that ends stays ended until someone calls
// Start or Restart. Nothing it started outlives the program that called it,
// whichever way that ends.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"atelier/common/client"
)

// Config says what a cluster consists of.
type Config struct {
	Dir    string // holds data, logs, shared checkpoints; made if missing
	BinDir string // folder of the programs; "" = bin/ of this repository

	Coordinators   int // 0 = 1
	Workers        int // may be 0: AddWorker adds some later
	SlotsPerWorker int // 0 = 1
	ThreadsPerSlot int // 0 = 1

	Redis        bool
	RedisPersist bool // keep its data over a Restart
	Shared       bool // workers keep checkpoints in one shared folder, else each its own and serves it

	LeaseTTL time.Duration // 0 = the coordinator's default
	Env      []string      // "KEY=value", for every process

	// ExtraArgs are appended to the command line: under "coordinator", "worker"
	// or "redis" for all of them, under a process name ("c2", "w1") for one.
	ExtraArgs map[string][]string

	Log io.Writer // progress for people; nil = none
}

// Cluster is a running local cluster.
type Cluster struct {
	Dir          string
	SharedDir    string // "" unless Config.Shared
	Coordinators []*Process
	Workers      []*Process
	Redis        []*Process // one or none

	cfg    Config
	client *client.Client
}

// StopGrace is how long Close waits for a process to end by itself.
const StopGrace = 10 * time.Second

// Start starts all processes and returns when the coordinators are voters of
// one cluster with a leader and every worker is known to it. After an error
// nothing is left running.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg.Coordinators = max(cfg.Coordinators, 1)
	cfg.SlotsPerWorker = max(cfg.SlotsPerWorker, 1)
	cfg.ThreadsPerSlot = max(cfg.ThreadsPerSlot, 1)
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.BinDir == "" {
		root, err := repository()
		if err != nil {
			return nil, err
		}
		cfg.BinDir = filepath.Join(root, "bin")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	c := &Cluster{Dir: dir, cfg: cfg}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start brings everything up in the order in which each needs the others: Redis, coordinators until
// all vote, workers until the leader knows them.
func (c *Cluster) start(ctx context.Context) error {
	cfg := c.cfg
	if err := os.MkdirAll(filepath.Join(c.Dir, "logs"), 0o755); err != nil {
		return err
	}
	if cfg.Shared {
		c.SharedDir = filepath.Join(c.Dir, "shared")
		if err := os.MkdirAll(c.SharedDir, 0o755); err != nil {
			return err
		}
	}
	if cfg.Redis {
		r, err := StartRedis(ctx, c.Dir, cfg.RedisPersist, cfg.ExtraArgs["redis"]...)
		if err != nil {
			return err
		}
		c.Redis = append(c.Redis, r)
		fmt.Fprintf(cfg.Log, "redis  %s\n", r.Addr)
	}
	for i := range cfg.Coordinators {
		p, err := c.coordinator(i)
		if err != nil {
			return err
		}
		c.Coordinators = append(c.Coordinators, p)
	}
	// The first makes the cluster, the others join it side by side.
	if err := c.Coordinators[0].Start(ctx); err != nil {
		return err
	}
	if err := each(c.Coordinators[1:], func(p *Process) error { return p.Start(ctx) }); err != nil {
		return err
	}
	c.client = client.New(c.APIAddrs())
	if err := c.AwaitVoters(ctx, cfg.Coordinators); err != nil {
		return err
	}
	for _, p := range c.Coordinators {
		fmt.Fprintf(cfg.Log, "%-6s %s\n", p.Name, p.Addr)
	}
	for i := range cfg.Workers {
		p, err := c.worker(i)
		if err != nil {
			return err
		}
		c.Workers = append(c.Workers, p)
	}
	if err := each(c.Workers, func(p *Process) error { return p.Start(ctx) }); err != nil {
		return err
	}
	for _, p := range c.Workers {
		fmt.Fprintf(cfg.Log, "%-6s %s  %d x %d threads\n", p.Name, p.Addr, cfg.SlotsPerWorker, cfg.ThreadsPerSlot)
	}
	return nil
}

// process is one that is not started yet; its folder, log and addresses are named after it.
func (c *Cluster) process(name, program string) (*Process, error) {
	bin, err := find(c.cfg.BinDir, program)
	if err != nil {
		return nil, err
	}
	return &Process{Name: name, Dir: filepath.Join(c.Dir, name), Log: filepath.Join(c.Dir, "logs", name+".log"),
		addressFile: filepath.Join(c.Dir, name+".address.json"), bin: bin, env: c.cfg.Env}, nil
}

// extra are the flags for all of a role, then those for one process.
func (c *Cluster) extra(role, name string) []string {
	return append(slices.Clone(c.cfg.ExtraArgs[role]), c.cfg.ExtraArgs[name]...)
}

// coordinator is c1, c2, ... A process that is started again gets the addresses it had, and joins
// the others instead of beginning a cluster anew.
func (c *Cluster) coordinator(i int) (*Process, error) {
	p, err := c.process("c"+strconv.Itoa(i+1), "atelier-coordinator")
	if err != nil {
		return nil, err
	}
	p.args = func(p *Process) []string {
		args := []string{"--id", p.Name, "--data", p.Dir, "--address-file", p.addressFile,
			"--api", orAnyPort(p.Addr), "--raft", orAnyPort(p.Raft), "--gossip", orAnyPort(p.Gossip)}
		if i == 0 && !p.started {
			args = append(args, "--bootstrap")
		} else if join := c.gossipOfOthers(p); join != "" {
			args = append(args, "--join", join)
		}
		for _, r := range c.Redis {
			args = append(args, "--redis", r.Addr)
		}
		if c.cfg.LeaseTTL > 0 {
			args = append(args, "--lease-ttl", c.cfg.LeaseTTL.String())
		}
		return append(args, c.extra("coordinator", p.Name)...)
	}
	p.ready = func(ctx context.Context, p *Process) error {
		n := client.New([]string{p.Addr})
		defer n.Close()
		_, err := n.Node(ctx, p.Addr)
		return err
	}
	return p, nil
}

// worker is w1, w2, ...; all share a cache of packed data.
func (c *Cluster) worker(i int) (*Process, error) {
	p, err := c.process("w"+strconv.Itoa(i+1), "atelier-worker")
	if err != nil {
		return nil, err
	}
	p.args = func(p *Process) []string {
		args := []string{"--name", p.Name, "--data", p.Dir, "--address-file", p.addressFile,
			"--listen", orAnyPort(p.Addr), "--gossip", orAnyPort(p.Gossip),
			"--join", c.gossipOfOthers(p), "--addr", strings.Join(c.APIAddrs(), ","),
			"--slots", strconv.Itoa(c.cfg.SlotsPerWorker), "--threads-per-slot", strconv.Itoa(c.cfg.ThreadsPerSlot),
			"--cache", filepath.Join(c.Dir, "cache")}
		if c.SharedDir != "" {
			args = append(args, "--shared", c.SharedDir)
		}
		return append(args, c.extra("worker", p.Name)...)
	}
	p.ready = c.workerKnown
	return p, nil
}

// workerKnown holds once the leader lists the worker under the address that
// this process serves, and has heard from it.
func (c *Cluster) workerKnown(ctx context.Context, p *Process) error {
	workers, err := c.client.Workers(ctx)
	if err != nil {
		return err
	}
	for _, w := range workers {
		if w.Name == p.Name && w.Address == p.Addr && w.State != "lost" {
			return nil
		}
	}
	return fmt.Errorf("the cluster does not know worker %s yet", p.Name)
}

// AddWorker starts one more worker.
func (c *Cluster) AddWorker(ctx context.Context) (*Process, error) {
	p, err := c.worker(len(c.Workers))
	if err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	c.Workers = append(c.Workers, p)
	return p, nil
}

// APIAddrs lists the API addresses of all coordinators, running or not.
func (c *Cluster) APIAddrs() []string {
	var out []string
	for _, p := range c.Coordinators {
		if addr, _ := p.addresses(); addr != "" {
			out = append(out, addr)
		}
	}
	return out
}

// Client returns a client of the cluster, shared by all callers.
func (c *Cluster) Client() *client.Client { return c.client }

// gossipOfOthers lists the gossip addresses of the other coordinators.
func (c *Cluster) gossipOfOthers(p *Process) string {
	var out []string
	for _, o := range c.Coordinators {
		if o == p {
			continue
		}
		if _, gossip := o.addresses(); gossip != "" {
			out = append(out, gossip)
		}
	}
	return strings.Join(out, ",")
}

// AwaitVoters returns when a leader counts n voters.
func (c *Cluster) AwaitVoters(ctx context.Context, n int) error {
	var last error
	for {
		members, err := c.client.Members(ctx)
		voters, leader := 0, ""
		if err == nil {
			for _, m := range members {
				if m.Suffrage == "voter" {
					voters++
				}
				if m.Leader {
					leader = m.ID
				}
			}
			if voters == n && leader != "" {
				return nil
			}
			err = fmt.Errorf("%d of %d coordinators are voters, leader %q", voters, n, leader)
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %d voters: %w: %v; logs are in %s", n, ctx.Err(), last, filepath.Join(c.Dir, "logs"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Leader asks every coordinator who leads and returns the one that says so
// itself and that most others agree on; it waits until there is one.
func (c *Cluster) Leader(ctx context.Context) (*Process, error) {
	for {
		votes := make([]string, len(c.Coordinators))
		own := make([]bool, len(c.Coordinators))
		var wg sync.WaitGroup
		for i, p := range c.Coordinators {
			wg.Go(func() {
				one, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				n, err := c.client.Node(one, p.Addr)
				if err == nil {
					votes[i], own[i] = n.LeaderID, n.Leads
				}
			})
		}
		wg.Wait()
		for i, p := range c.Coordinators {
			n := 0
			for _, v := range votes {
				if v == p.Name {
					n++
				}
			}
			if own[i] && n*2 > len(c.Coordinators) {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("look for the leader: %w (answers: %q)", ctx.Err(), votes)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// AwaitExit returns when a process has ended that nobody here ended, or when
// ctx ends; the error names the process and quotes its last lines.
func (c *Cluster) AwaitExit(ctx context.Context) error {
	all := append(append(append([]*Process{}, c.Redis...), c.Coordinators...), c.Workers...)
	gone := make(chan *Process, len(all))
	for _, p := range all {
		go func() { p.Wait(); gone <- p }() // ends with the cluster at the latest
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case p := <-gone:
		return fmt.Errorf("%s ended (%v); its last lines:\n%s", p.Name, p.Wait(), tail(p.Log, 0))
	}
}

// Close ends all processes: workers, then coordinators, then Redis, so that
// each can still speak to what it needs. The error names those that had to be
// killed; everything has ended either way.
func (c *Cluster) Close() error {
	stop := func(p *Process) error { return p.Stop(StopGrace) }
	err := errors.Join(each(c.Workers, stop), each(c.Coordinators, stop), each(c.Redis, stop))
	if c.client != nil {
		c.client.Close()
	}
	return err
}

// each calls f for all at the same time and joins the errors.
func each(ps []*Process, f func(*Process) error) error {
	errs := make([]error, len(ps))
	var wg sync.WaitGroup
	for i, p := range ps {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// orAnyPort has the system choose a port at the first start.
func orAnyPort(addr string) string {
	if addr == "" {
		return "127.0.0.1:0"
	}
	return addr
}

// repository finds the folder of go.mod above the working folder.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod above %s: set BinDir to the folder of the programs", dir)
		}
	}
}
