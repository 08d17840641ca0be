// Package gossip is how the machines of a cluster find one another: whoever
// knows the gossip address of any one node learns the addresses of all. It also
// says who seems to be alive.
//
// Everything it tells is a hint. It refuses to decide: raft membership and
// leases never depend on it alone, and a peer is not authenticated beyond the
// shared key.
package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"atelier/common/sparselog"
)

const (
	// reclaimAfter is how long a dead peer's name is kept for its old address.
	// A node that comes back on another port is heard after it.
	reclaimAfter = time.Second
	// rejoinAlone and rejoinEvery are the pauses between attempts to reach the
	// seeds: while no peer is known, and later, so that two halves of a split
	// network find one another again.
	rejoinAlone = 500 * time.Millisecond
	rejoinEvery = 10 * time.Second
	// forgetAfter is how long a dead peer is listed and tried again.
	forgetAfter = time.Hour
	// sayAgain is how often a trouble that comes again and again is said.
	sayAgain = 30 * time.Second
)

// ErrKeyRequired is returned by Start for an address that others can reach
// without a key.
var ErrKeyRequired = errors.New("gossip beyond this machine needs a key: give --gossip-key-file, or --insecure to go without")

// Config says where to gossip and what to tell. Name must be unique in the
// cluster; Bind is HOST:PORT and a port of 0 takes a free one.
type Config struct {
	Name      string
	Bind      string
	Advertise string   // host others reach this node at; empty = the bound one
	Keys      [][]byte // 16, 24 or 32 bytes each (AES); the first encrypts, all decrypt; one is required beyond loopback unless Insecure
	Label     string   // id of a closed cluster: who has another one is not heard; it travels in the clear
	Insecure  bool     // no key needed, on any address
	Meta      Meta     // what the others are told of this node
	Join      []string // gossip addresses HOST:PORT of nodes that may be there already
	Logger    *slog.Logger
}

// Peer is another node, as this one sees it at the moment.
type Peer struct {
	Name  string
	Addr  string // gossip address, HOST:PORT
	Meta  Meta
	Alive bool
}

// Pool is this node's place among the others. Its methods may be called from
// any goroutine.
type Pool struct {
	list   *memberlist.Memberlist
	logger *slog.Logger
	name   string
	seeds  []string
	done   chan struct{}
	closed sync.Once
	wg     sync.WaitGroup

	sparse *sparselog.Log
	tried  chan struct{} // closed once every seed was tried

	mu         sync.Mutex
	own        Meta
	meta       []byte // own, encoded
	peers      map[string]*seen
	unanswered map[string]string // why a node that was tried last did not answer, by address
	moved      chan struct{}     // closed and replaced when the peers change
}

type seen struct {
	Peer
	since time.Time // of the last change
}

// Start begins to gossip. It returns at once: the nodes in Join are tried in
// the background until one answers, and again whenever this node is alone.
func Start(cfg Config) (*Pool, error) {
	if cfg.Name == "" {
		return nil, errors.New("gossip: a node needs a name")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	host, port, err := splitAddr(cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip bind address %q: %w", cfg.Bind, err)
	}
	loopback := isLoopback(host)
	if !loopback && len(cfg.Keys) == 0 && !cfg.Insecure {
		return nil, ErrKeyRequired
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	p := &Pool{
		logger: cfg.Logger, name: cfg.Name, seeds: append([]string(nil), cfg.Join...),
		sparse: sparselog.New(cfg.Logger, sayAgain, nil), tried: make(chan struct{}),
		done: make(chan struct{}), own: cfg.Meta, meta: meta, peers: map[string]*seen{}, unanswered: map[string]string{}, moved: make(chan struct{}),
	}

	mc := memberlist.DefaultLANConfig()
	mc.Name = cfg.Name
	mc.BindAddr, mc.BindPort = host, port
	mc.AdvertisePort = port
	if cfg.Advertise != "" {
		ip, err := resolve(cfg.Advertise)
		if err != nil {
			return nil, fmt.Errorf("gossip advertise host %q: %w", cfg.Advertise, err)
		}
		mc.AdvertiseAddr = ip
	}
	mc.Label = cfg.Label
	if len(cfg.Keys) > 0 {
		if mc.Keyring, err = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("gossip key: %w", err)
		}
	}
	mc.DeadNodeReclaimTime = reclaimAfter
	mc.TCPTimeout = 3 * time.Second
	mc.Delegate, mc.Events, mc.Conflict, mc.Alive = (*delegate)(p), (*delegate)(p), (*delegate)(p), (*delegate)(p)
	mc.Logger = newStdLogger(cfg.Logger, p.sparse, p.done)
	if p.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("start gossip on %s: %w", cfg.Bind, err)
	}
	p.wg.Add(1)
	go p.keepJoined()
	return p, nil
}

// Addr is the gossip address that others reach this node at.
func (p *Pool) Addr() string {
	n := p.list.LocalNode()
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// Peers lists the other nodes, dead ones included for a while, by name.
func (p *Pool) Peers() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Peer, 0, len(p.peers))
	for _, s := range p.peers {
		out = append(out, s.Peer)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Changed is closed at the next change among the peers.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.moved
}

// SetMeta tells the others something new of this node.
func (p *Pool) SetMeta(m Meta) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.own, p.meta = m, b
	for name, s := range p.peers {
		if !(*delegate)(p).belongs(s.Meta) {
			delete(p.peers, name)
		}
	}
	p.mu.Unlock()
	if err := p.list.UpdateNode(2 * time.Second); err != nil {
		return fmt.Errorf("announce new addresses to peers: %w", err)
	}
	return nil
}

// Leave says good-bye, so that the others do not take this node for dead, and
// ends the gossip. It takes at most about the time-out; a second call is a
// no-op.
func (p *Pool) Leave(timeout time.Duration) error {
	var err error
	p.closed.Do(func() {
		close(p.done)
		if timeout > 0 {
			if e := p.list.Leave(timeout); e != nil {
				err = fmt.Errorf("leave gossip: %w", e)
			}
		}
		if e := p.list.Shutdown(); e != nil && err == nil {
			err = fmt.Errorf("end gossip: %w", e)
		}
		p.wg.Wait()
	})
	return err
}

// keepJoined tries the seeds and the dead until the pool is closed.
func (p *Pool) keepJoined() {
	defer p.wg.Done()
	for first := true; ; first = false {
		pause := rejoinEvery
		if targets := p.targets(); len(targets) > 0 {
			if err := p.join(targets); err != nil {
				if why := keyTrouble(err.Error()); why != "" {
					p.sparse.Warn("seed/"+why, "gossip: no seed takes this node in: "+why, "seeds", targets)
				}
				p.logger.Debug("gossip: no seed answers yet", "seeds", targets, "error", err)
			}
			if p.alone() {
				pause = rejoinAlone
			}
		}
		if first {
			close(p.tried)
		}
		select {
		case <-p.done:
			return
		case <-time.After(pause):
		}
	}
}

// join tries all targets side by side: one on a machine that is off must not
// hold up the others. The error is that of the last, when none answers.
func (p *Pool) join(targets []string) error {
	errs := make(chan error, len(targets))
	for _, a := range targets {
		go func() {
			_, err := p.list.Join([]string{a})
			p.mu.Lock()
			if err != nil {
				p.unanswered[a] = cause(err.Error())
			} else {
				delete(p.unanswered, a)
			}
			p.mu.Unlock()
			errs <- err
		}()
	}
	var last error
	joined := false
	for range targets {
		if err := <-errs; err != nil {
			last = err
		} else {
			joined = true
		}
	}
	if joined {
		return nil
	}
	return last
}

// Trouble says why the nodes that this one is to join do not answer: "a:7602:
// connection refused; b:7602: no such host". It is empty where one does.
func (p *Pool) Trouble() string {
	if !p.alone() {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, a := range p.seeds {
		one := a + ": " + cmp.Or(p.unanswered[a], "no answer yet")
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return strings.Join(all, "; ")
}

// targets are the addresses worth trying: seeds that no live peer has, and
// dead peers.
func (p *Pool) targets() []string {
	self := p.Addr() // before the lock: memberlist holds its own while it calls the delegate
	p.mu.Lock()
	defer p.mu.Unlock()
	alive := map[string]bool{self: true}
	var out []string
	for name, s := range p.peers {
		switch {
		case s.Alive:
			alive[s.Addr] = true
		case time.Since(s.since) > forgetAfter:
			delete(p.peers, name)
		default:
			out = append(out, s.Addr)
		}
	}
	for _, a := range p.seeds {
		if !alive[a] {
			out = append(out, a)
		}
	}
	sort.Strings(out)
	return out
}

// alone reports whether no other node is seen alive: then the seeds are asked again.
func (p *Pool) alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.peers {
		if s.Alive {
			return false
		}
	}
	return true
}

// splitAddr reads HOST:PORT; an empty host is every address, a name is looked up.
func splitAddr(addr string) (host string, port int, err error) {
	host, ps, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(ps); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", ps)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := resolve(host)
	return ip, port, err
}

// resolve prefers IPv4: memberlist tells others one address, and more of them can reach that.
func resolve(host string) (string, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String(), nil
	}
	ips, err := net.LookupIP(host)
	if err != nil {
		return "", err
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip.String(), nil
		}
	}
	return ips[0].String(), nil
}

// isLoopback reports whether only this machine can reach the host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
