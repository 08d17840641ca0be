// Package wire makes the links between the members of groups: a socket pair
// where both are of this agent, else a connection between two agents, which is
// asked for over the HTTP server of one of them and then is a plain stream.
// Trainers open no socket; each is handed its end.
//
// It knows tokens, members' ids and workers' addresses. It refuses to know
// leases, and what members send each other. A link that ended is not made again:
// its end is how members learn that one of them is gone.
package wire

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Kind is how bytes get from a trainer to one of another agent.
type Kind string

// Kinds of a wire.
const (
	Direct Kind = "direct" // trainers are handed the connection between the agents itself
	Agents Kind = "agents" // the agents relay between that connection and their trainers
)

// ParseKind reads a kind.
func ParseKind(s string) (Kind, error) {
	if k := Kind(s); k == Direct || k == Agents {
		return k, nil
	}
	return "", fmt.Errorf("%q is not known; give %s or %s", s, Direct, Agents)
}

// Meaning of a kind, for people.
func (k Kind) Meaning() string {
	if k == Agents {
		return "the workers relay what trainers send each other"
	}
	return "trainers are handed the connection between the workers"
}

// Config of a Hub. Zero values take the defaults named.
type Config struct {
	Worker  string        // this worker's name, for messages
	Address string        // host:port that others reach this agent at, for messages
	Kind    Kind          // Direct
	Term    time.Duration // a member that cannot be reached so long is reported; 10 s
	// Dial connects to the agent of a member; default TCP. In a closed cluster it speaks TLS.
	Dial   func(ctx context.Context, worker, addr string) (net.Conn, error)
	Logger *slog.Logger
}

// Peer is a member as the others find it.
type Peer struct {
	ID      int    // from 1
	Name    string // worker/slot
	Worker  string
	Address string // host:port of its agent's HTTP server
	Here    bool   // its agent is this one
}

// endedFor is how long a member that was here is known to have ended: others may
// not have asked for it yet.
const endedFor = 10 * time.Minute

// Hub has the members of one agent. It serves other agents' requests below Path.
// Safe for concurrent use.
type Hub struct {
	cfg Config
	log *slog.Logger

	mu    sync.Mutex // of all below, and of the seats' own
	seats map[key]*Seat
	ended map[key]time.Time
	stats Stats
}

// key names a member of one attempt at a run.
type key struct {
	token  uint64
	member int
}

// New returns a hub without members.
func New(cfg Config) *Hub {
	if cfg.Kind == "" {
		cfg.Kind = Direct
	}
	if cfg.Term == 0 {
		cfg.Term = 10 * time.Second
	}
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, log: cfg.Logger, seats: map[key]*Seat{}, ended: map[key]time.Time{}}
}

// Stats are counts for metrics.
type Stats struct {
	Made           map[string]int64 // ends of links handed to trainers: local, direct, agents
	Live           int              // of members that are here now
	Unreachable    int64            // times that a member could not be reached within the term
	Sent, Received int64            // bytes relayed to and from other agents
}

// Stats of this hub since it was made.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Made = map[string]int64{"local": h.stats.Made["local"], string(Direct): h.stats.Made[string(Direct)], string(Agents): h.stats.Made[string(Agents)]}
	for _, seat := range h.seats {
		s.Live += len(seat.linked)
		for r := range seat.relays {
			s.Sent += r.sent.Load()
			s.Received += r.received.Load()
		}
	}
	return s
}

// count notes ends of links that trainers were handed.
func (h *Hub) count(kind string, n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stats.Made == nil {
		h.stats.Made = map[string]int64{}
	}
	h.stats.Made[kind] += n
}

// state of a member, as this hub knows it.
type state int

const (
	absent    state = iota // never heard of
	preparing              // its trainer is not there yet
	ready
	ended
)

// look finds a member that is here.
func (h *Hub) look(token uint64, member int) (*Seat, state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := key{token, member}
	s := h.seats[k]
	switch {
	case s != nil && s.sender != nil:
		return s, ready
	case s != nil:
		return s, preparing
	case !h.ended[k].IsZero():
		return nil, ended
	}
	return nil, absent
}
