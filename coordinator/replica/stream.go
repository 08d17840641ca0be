package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"atelier/common/identity"
)

const (
	// maxGreeting bounds the connections that are in their handshake: who says
	// nothing is cut off after handshakeTimeout.
	maxGreeting = 64
	// dialTimeout bounds the way to one of several addresses of a node.
	dialTimeout = time.Second
)

// stream carries raft's connections: TCP, or TLS of a closed cluster, with a handshake
// before raft sees one.
type stream struct {
	node     *Node
	listener net.Listener
	ready    chan net.Conn
	greeting chan struct{} // a place for each connection in its handshake
	done     chan struct{}
	closed   sync.Once
	leaving  atomic.Bool

	mu    sync.Mutex
	met   map[*met]struct{}
	aimed map[raft.ServerID]raft.ServerAddress // where raft's configuration has a node
	lost  map[string]trouble                   // by node id; gone once it is reached
}

// met is a connection of a node that was welcome.
type met struct {
	net.Conn
	with   party
	stream *stream
}

// Close also takes the connection off the list of those to be cut when this node leaves.
func (m *met) Close() error {
	m.stream.mu.Lock()
	delete(m.stream.met, m)
	m.stream.mu.Unlock()
	return m.Conn.Close()
}

// trouble is why a node is not reached.
type trouble struct{ addr, why string }

// newStream takes connections from here on; raft gets those whose handshake is done.
func newStream(n *Node, l net.Listener) *stream {
	s := &stream{
		node: n, listener: l, ready: make(chan net.Conn), greeting: make(chan struct{}, maxGreeting), done: make(chan struct{}),
		met: map[*met]struct{}{}, aimed: map[raft.ServerID]raft.ServerAddress{}, lost: map[string]trouble{},
	}
	go s.listen()
	return s
}

// Addr is the address that others are told, not the one listened on.
func (s *stream) Addr() net.Addr { return address(s.node.cfg.Advertise) }

// Close ends Accept and the listening.
func (s *stream) Close() error {
	s.closed.Do(func() { close(s.done) })
	return s.listener.Close()
}

// Accept gives raft the next connection of a node that was welcome.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// listen takes connections and lets each one's handshake happen beside the
// others'.
func (s *stream) listen() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.node.sparse.Warn("accept", "raft: a connection was not taken", "error", err)
			continue
		}
		select {
		case s.greeting <- struct{}{}:
			go func() {
				defer func() { <-s.greeting }()
				s.welcome(c)
			}()
		default:
			s.node.sparse.Warn("greeting", "raft: too many silent connections at once; further ones are closed", "peer", c.RemoteAddr())
			c.Close()
		}
	}
}

// welcome answers one handshake and hands the connection to raft, or closes it.
func (s *stream) welcome(c net.Conn) {
	n := s.node
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	h, err := readHello(c)
	if err != nil {
		c.Close()
		if !errors.Is(err, io.EOF) { // a port scan, a health check
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			n.sparse.Warn("hello/"+host, "raft: a connection was refused", "peer", c.RemoteAddr(), "reason", err)
		}
		return
	}
	if n.cfg.Claims != nil {
		if err := n.cfg.Claims(c, h.id); err != nil {
			c.Close()
			n.sparse.Warn("claims/"+h.id, "raft: a coordinator was refused", "peer", h.id, "address", c.RemoteAddr(), "reason", err)
			return
		}
	}
	r := reply{party: n.self()}
	r.standing, r.words = n.meet(h.party)
	if r.standing == welcome && h.to != n.cfg.ID {
		r.standing, r.words = otherNode, fmt.Sprintf("%s lives at this address, not %s", n.cfg.ID, h.to)
	}
	m := &met{Conn: c, with: h.party, stream: s}
	if r.standing == welcome {
		s.mu.Lock()
		s.met[m] = struct{}{}
		s.mu.Unlock()
	}
	_, err = c.Write(r.frame())
	c.SetDeadline(time.Time{})
	if r.standing != welcome {
		n.sparse.Warn(fmt.Sprintf("from/%s/%s/%s/%s", h.cluster, h.id, h.folder, r.standing), "raft: a coordinator was refused", "peer", h.id, "address", c.RemoteAddr(), "reason", r.words)
		c.Close()
		return
	}
	if err != nil || s.leaving.Load() {
		m.Close()
		return
	}
	select {
	case s.ready <- m:
	case <-s.done:
		m.Close()
	}
}

// recheck cuts off whoever would not be welcome any more.
func (s *stream) recheck() {
	for _, m := range s.visitors() {
		if v, _ := s.node.meet(m.with); v != welcome {
			m.Close()
		}
	}
}

// leave cuts off everybody and takes in nobody from now on. raft cannot end while
// it reads a snapshot from a leader that says nothing more.
func (s *stream) leave() {
	s.leaving.Store(true)
	for _, m := range s.visitors() {
		m.Close()
	}
}

// visitors are the connections of others to this node.
func (s *stream) visitors() []*met {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*met, 0, len(s.met))
	for m := range s.met {
		all = append(all, m)
	}
	return all
}

// aim remembers where raft's configuration has a node, and gives the target
// under which connections to it are pooled: its id, wherever it lives.
func (s *stream) aim(id raft.ServerID, at raft.ServerAddress) raft.ServerAddress {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aimed[id] = at
	return raft.ServerAddress(id)
}

// addresses are where a node may be, the likeliest first: as gossip has it, as
// the state does, as raft's configuration does.
func (s *stream) addresses(id string) []string {
	var out []string
	add := func(a string) {
		for _, known := range out {
			if known == a {
				return
			}
		}
		if a != "" {
			out = append(out, a)
		}
	}
	if s.node.cfg.Locate != nil {
		add(s.node.cfg.Locate(id))
	}
	if m, ok := s.node.machine.View().Member(id); ok {
		add(m.RaftAddress)
	}
	s.mu.Lock()
	add(string(s.aimed[raft.ServerID(id)]))
	s.mu.Unlock()
	return out
}

// Dial reaches a node by its id at the first address where it is the one that
// answers.
func (s *stream) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id := string(target)
	addrs := s.addresses(id)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("no address of coordinator %s is known", id)
	}
	if len(addrs) > 1 {
		timeout = min(timeout, dialTimeout)
	}
	var first error
	for _, addr := range addrs {
		c, err := s.dial(id, addr, timeout)
		if err == nil {
			s.reached(id)
			return c, nil
		}
		if first == nil {
			first = err
			s.miss(id, addr, err)
		}
	}
	return nil, first
}

// dial reaches one address and makes sure that the node there is the one meant, of this cluster,
// with the data folder it had, before raft says a word: a vote or an entry that goes to another
// node is what no log survives.
func (s *stream) dial(id, addr string, timeout time.Duration) (net.Conn, error) {
	n := s.node
	c, err := n.cfg.Dial(id, addr, timeout)
	if err != nil {
		return nil, n.refused(id, addr, err)
	}
	r, err := greet(c, hello{n.self(), id})
	if err != nil {
		c.Close()
		err = n.refused(id, addr, err)
		if errors.Is(err, errNoHandshake) {
			n.sparse.Warn("reply/"+addr, "raft: a coordinator was not reached", "peer", id, "address", addr, "reason", err)
		}
		return nil, fmt.Errorf("%s at %s: %w", id, addr, err)
	}
	if r.standing == welcome { // there; what is it here?
		r.standing, r.words = n.meet(r.party)
		if r.standing == welcome && r.id != id {
			r.standing, r.words = otherNode, fmt.Sprintf("%s lives at %s, not %s", r.id, addr, id)
		}
		if r.standing == wasRemoved {
			r.standing = otherFolder // it is the other one that is gone, not this node
		}
	}
	if r.standing == welcome {
		return c, nil
	}
	c.Close()
	n.sparse.Warn(fmt.Sprintf("to/%s/%s/%s/%s/%s", id, addr, r.cluster, r.id, r.standing), "raft: a coordinator was not reached", "peer", id, "address", addr, "reason", r.words)
	if r.standing == wasRemoved && r.cluster == n.cfg.ClusterID {
		n.wasRemoved(r.words)
	}
	return nil, &RefusedError{r.standing, r.words}
}

// refused is the error of a connection to a node; who refuses the other for its certificate is said now and then.
func (n *Node) refused(id, addr string, err error) error {
	err = identity.Explain(err)
	var r *identity.RefusedError
	if errors.As(err, &r) {
		n.sparse.Warn(fmt.Sprintf("tls/%s/%s/%s", id, addr, r.Why), "raft: a coordinator was not reached", "peer", id, "address", addr, "reason", r)
	}
	return err
}

// miss notes why a node is not reached; reached, that it is.
func (s *stream) miss(id, addr string, err error) {
	why := err.Error()
	var op *net.OpError
	if errors.As(err, &op) {
		why = op.Err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[id] = trouble{addr, why}
}

func (s *stream) reached(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, id)
}

// trouble is why a node is not reached; zero where it is.
func (s *stream) trouble(id string) trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost[id]
}

// address is a net.Addr by name.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }
