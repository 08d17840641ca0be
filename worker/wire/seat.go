package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"atelier/common/links"
)

// Seat is one member of this agent, from its lease to its end.
type Seat struct {
	hub   *Hub
	token uint64
	self  Peer

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	settled chan struct{} // closed: of each peer it is known whether there is a link

	// Below hub.mu.
	sender   *links.Sender       // nil: its trainer is not there yet
	linked   map[int]bool        // members to which its trainer was handed a link, or is about to be
	troubles map[int]string      // why there is no link to a member, once the term is over
	changed  chan struct{}       // closed and replaced when linked has another
	relays   map[*relay]struct{} // of the kind Agents
}

// Seat takes a member in, whose trainer is being prepared. Others that ask for it
// are told to come back.
func (h *Hub) Seat(token uint64, self Peer) (*Seat, error) {
	s := &Seat{hub: h, token: token, self: self, settled: make(chan struct{}), changed: make(chan struct{}), linked: map[int]bool{}, troubles: map[int]string{}, relays: map[*relay]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	k := key{token, self.ID}
	if h.seats[k] != nil {
		return nil, fmt.Errorf("member %d of lease %d is here already", self.ID, token)
	}
	h.seats[k] = s
	return s, nil
}

// Open makes the links of a member whose trainer is there. Peers are those that its
// lease names: it dials the ones of lower ids, and waits for the others, so that a
// group that starts makes each link once, and a newcomer dials all it finds.
// Open returns at once; links come while the seat is open.
func (s *Seat) Open(sender *links.Sender, peers []Peer) {
	h := s.hub
	h.mu.Lock()
	s.sender = sender
	var here []*Seat
	for k, o := range h.seats {
		if k.token == s.token && o != s && o.sender != nil && !s.linked[o.self.ID] && !o.linked[s.self.ID] {
			s.setLinked(o.self.ID)
			o.setLinked(s.self.ID)
			here = append(here, o)
		}
	}
	h.mu.Unlock()
	slices.SortFunc(here, func(a, b *Seat) int { return cmp.Compare(a.self.ID, b.self.ID) })
	for _, o := range here {
		s.pair(o)
	}
	var open sync.WaitGroup
	for _, p := range peers {
		if p.ID != s.self.ID {
			open.Add(1)
			s.work.Go(func() { s.reach(p, sync.OnceFunc(open.Done)) })
		}
	}
	s.work.Go(func() {
		open.Wait()
		close(s.settled)
	})
}

// Settled is closed when of each peer named to Open it is known whether there is a
// link: Trouble is why there is none.
func (s *Seat) Settled() <-chan struct{} { return s.settled }

// pair links two members of this agent. Where one trainer is gone already, the other
// is handed a link that ends.
func (s *Seat) pair(o *Seat) {
	if err := links.Connect(s.token, s.end(), o.end()); err != nil {
		s.hub.log.Warn("no link between two members", "token", s.token, "member", s.self.Name, "other", o.self.Name, "error", err)
		return
	}
	s.hub.count("local", 2)
}

// end is the member, for its links.
func (s *Seat) end() links.End { return links.End{To: s.sender, Member: s.self.ID, Name: s.self.Name} }

// claim notes that the trainer is about to be handed a link; false where it has one.
func (s *Seat) claim(id int) bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if s.linked[id] || s.ctx.Err() != nil {
		return false
	}
	s.setLinked(id)
	return true
}

// setLinked is called below hub.mu.
func (s *Seat) setLinked(id int) {
	s.linked[id] = true
	close(s.changed)
	s.changed = make(chan struct{})
}

// unclaim takes a claim back: there was no link.
func (s *Seat) unclaim(id int) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.linked, id)
}

func (s *Seat) isLinked(id int) bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.linked[id]
}

// attach hands the trainer its end of a connection to a member of another agent.
func (s *Seat) attach(id int, name string, conn net.Conn) error {
	header := links.Header{Token: s.token, Member: id, Name: name}
	kind := s.hub.cfg.Kind
	tcp, plain := conn.(*net.TCPConn)
	if plain {
		tune(tcp)
	}
	if kind == Direct && plain {
		f, err := tcp.File()
		conn.Close()
		if err != nil {
			return err
		}
		if err := s.sender.Send(header, f); err != nil {
			return err
		}
	} else {
		kind = Agents // also where bytes have to be encrypted on their way
		ours, theirs, err := links.Pair()
		if err != nil {
			conn.Close()
			return err
		}
		near, err := net.FileConn(ours)
		ours.Close()
		if err == nil {
			err = s.sender.Send(header, theirs)
		} else {
			theirs.Close()
		}
		if err != nil {
			conn.Close()
			if near != nil {
				near.Close()
			}
			return err
		}
		s.relay(near.(*net.UnixConn), conn)
	}
	s.hub.count(string(kind), 1)
	s.hub.log.Debug("link to a member", "token", s.token, "member", s.self.ID, "to", name, "wire", kind)
	return nil
}

// attachEnded hands the trainer a link that has ended: of a member that is gone.
func (s *Seat) attachEnded(p Peer) {
	if !s.claim(p.ID) {
		return
	}
	a, b, err := links.Pair()
	if err != nil {
		return
	}
	a.Close()
	s.sender.Send(links.Header{Token: s.token, Member: p.ID, Name: p.Name, Local: p.Here}, b)
}

func (s *Seat) setTrouble(id int, text string) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case text == "":
		delete(s.troubles, id)
	case s.troubles[id] == "":
		h.stats.Unreachable++
		h.log.Warn("no link to a member of the group", "token", s.token, "member", s.self.Name, "reason", text)
		fallthrough
	default:
		s.troubles[id] = text
	}
}

func (s *Seat) hasTrouble(id int) bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.troubles[id] != ""
}

// Trouble is why there is no link to some of the members: "" where all are linked,
// or the term is not over. It names both workers of each.
func (s *Seat) Trouble() string {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	var list []string
	for _, id := range slices.Sorted(maps.Keys(s.troubles)) {
		if t := s.troubles[id]; !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return strings.Join(list, "; ")
}

// Close ends what the member has here, once its trainer is gone. Others that ask
// for it learn that it has ended.
func (s *Seat) Close() {
	h := s.hub
	h.mu.Lock()
	s.cancel()
	now := time.Now()
	k := key{s.token, s.self.ID}
	delete(h.seats, k)
	for old, at := range h.ended {
		if now.Sub(at) > endedFor {
			delete(h.ended, old)
		}
	}
	h.ended[k] = now
	relays := slices.Collect(maps.Keys(s.relays))
	h.mu.Unlock()
	for _, r := range relays {
		r.end()
	}
	s.work.Wait()
}

// reach sees to the link to one member until there is one: it dials a member of
// another agent that has a lower id, and looks after one that has to dial. What
// keeps a link from coming is noted after the term, and further tries are made. It
// calls settled once one of both is so.
func (s *Seat) reach(p Peer, settled func()) {
	defer settled()
	const longest = time.Second
	pause := 10 * time.Millisecond
	dials := !p.Here && p.ID < s.self.ID
	if !dials {
		pause = min(longest, s.hub.cfg.Term/4) // most often the link comes by itself before
	}
	since := time.Now() // when all was last as it should be
	for {
		if !dials && !s.isLinked(p.ID) && !s.await(p.ID, pause) && s.ctx.Err() != nil {
			return
		}
		if s.isLinked(p.ID) {
			s.setTrouble(p.ID, "")
			return
		}
		at, err := s.ask(p, dials)
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil && at == ready && dials:
			s.setTrouble(p.ID, "")
			return
		case errors.Is(err, errTaken):
			s.setTrouble(p.ID, s.cannot(p, err))
			return
		case err == nil && at == ended:
			s.attachEnded(p)
			return
		case err == nil && at == preparing:
			since = time.Now()
			s.setTrouble(p.ID, "")
		case time.Since(since) < s.hub.cfg.Term:
		case err != nil:
			s.setTrouble(p.ID, s.cannot(p, err))
		case at == absent:
			s.setTrouble(p.ID, fmt.Sprintf("worker %s (%s) has no member %d of this run (%s)", p.Worker, p.Address, p.ID, p.Name))
		default:
			s.setTrouble(p.ID, fmt.Sprintf("worker %s (%s) has not reached worker %s (%s) within %s, although %s reaches %s",
				p.Worker, p.Address, s.hub.cfg.Worker, s.hub.cfg.Address, s.hub.cfg.Term, s.hub.cfg.Worker, p.Worker))
		}
		if s.hasTrouble(p.ID) {
			settled()
		}
		if dials && !s.await(p.ID, pause) && s.ctx.Err() != nil {
			return
		}
		pause = min(2*pause, longest)
	}
}

// cannot is for people: it names both workers with their addresses.
func (s *Seat) cannot(p Peer, err error) string {
	return fmt.Sprintf("worker %s (%s) cannot reach worker %s (%s): %v", s.hub.cfg.Worker, s.hub.cfg.Address, p.Worker, p.Address, err)
}

// await waits for a link that comes by itself; false: there is one, or the seat is
// closed. True: the time is over.
func (s *Seat) await(id int, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		s.hub.mu.Lock()
		linked, changed := s.linked[id], s.changed
		s.hub.mu.Unlock()
		if linked {
			return false
		}
		select {
		case <-t.C:
			return true
		case <-s.ctx.Done():
			return false
		case <-changed:
		}
	}
}
