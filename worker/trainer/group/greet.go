package group

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// hello is the greeting, each end's first frame. On a link within this machine
// the descriptor of the sender's page comes with it.
type hello struct {
	Version int    `json:"version"`
	Token   uint64 `json:"token"`
	Member  int    `json:"member"`
	Name    string `json:"name"`
	Join    bool   `json:"join,omitempty"`
	Engine  string `json:"engine"`
	Shards  int    `json:"shards"`
	Mover   string `json:"mover,omitempty"`  // what it can move sums between devices with
	Device  string `json:"device,omitempty"` // the one that its sums are on
}

// reaches is whom a founder has greeted.
type reaches struct {
	Members []int `json:"members"`
}

// refusal is why a founder ends before the first view.
type refusal struct {
	Pairs []Pair `json:"pairs"`
}

// engine is all that must be equal, as one text.
func engine(h hello) string { return fmt.Sprintf("%s, %d shards", h.Engine, h.Shards) }

func (g *Group) hello() hello {
	h := hello{Version: trainerproto.GroupVersion, Token: g.cfg.Job.Token, Member: g.self, Name: g.names[g.self], Join: g.cfg.Job.Join,
		Engine: g.cfg.Engine, Shards: g.cfg.Job.Shards}
	if m := g.cfg.Mover; m != nil && !g.hosted {
		h.Mover, h.Device = m.Kind(), m.Device()
	}
	return h
}

// message is a frame with a JSON payload.
func message(k kind, v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return append(header{payload: len(body), kind: k}.append(make([]byte, 0, headerSize+len(body))), body...)
}

// accept takes links for as long as there are any.
func (g *Group) accept() {
	for {
		l, err := g.cfg.Links.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				g.log.Warn("no further links come to this member", "error", err)
			}
			return
		}
		if !g.take(l) {
			l.Conn.Close()
		}
	}
}

func (g *Group) take(l links.Link) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil || l.Member == g.self {
		return false
	}
	if l.Token != g.cfg.Job.Token {
		g.log.Warn("a link of another attempt at this run is refused", "member", l.Name, "token", l.Token, "own", g.cfg.Job.Token)
		return false
	}
	if old := g.peers[l.Member]; old != nil {
		if old.greeted || old.gone {
			g.log.Warn("a second link to a member is refused", "member", l.Name)
			return false
		}
		delete(g.peers, l.Member)
		old.conn.Close()
	}
	p := newPeer(g, l)
	if g.page == nil {
		p.local = false
	}
	g.peers[l.Member] = p
	if l.Name != "" {
		g.names[l.Member] = l.Name
	}
	fd := -1
	if p.local {
		var err error
		if fd, err = unix.FcntlInt(g.page.file.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			g.fail(fmt.Errorf("group: %w", err))
			return false
		}
	}
	p.send(message(kindHello, g.hello()), true, fd, nil)
	go p.write()
	go p.read()
	return true
}

// greet takes the other's greeting.
func (g *Group) greet(p *peer, f frame) error {
	var h hello
	if err := json.Unmarshal(f.b, &h); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if p.local = p.local && f.fd >= 0; p.local {
		m, err := mapSegment(f.fd, pageSize)
		if err != nil {
			return err
		}
		p.page = &page{mapping: *m}
	} else if f.fd >= 0 {
		unix.Close(f.fd)
	}
	switch own := g.hello(); {
	case p.greeted:
		return errors.New("a second greeting")
	case h.Token != own.Token:
		return fmt.Errorf("greeting with token %d, own %d: another attempt at this run", h.Token, own.Token)
	case h.Member != p.id:
		return fmt.Errorf("greeting of member %d over the link to member %d", h.Member, p.id)
	case h.Version != own.Version:
		return fmt.Errorf("greeting of version %d, own %d: %s has another atelier-trainer", h.Version, own.Version, h.Name)
	case engine(h) != engine(own):
		m := &Mismatch{A: trainerproto.Fellow{Member: g.self, Name: own.Name}, B: trainerproto.Fellow{Member: p.id, Name: h.Name}, EngineA: engine(own), EngineB: engine(h)}
		if g.view.Number == 0 && (g.cfg.Job.Join || !h.Join) { // a newcomer cannot end a start
			g.fail(m)
		}
		return m
	}
	p.greeted, p.join, p.mover, p.device = true, h.Join, h.Mover, h.Device
	if h.Name != "" {
		g.names[p.id] = h.Name
	}
	if !g.agree.open && !g.cfg.Job.Join {
		for _, other := range g.peers {
			if other.greeted && !other.gone {
				other.send(message(kindReach, reaches{g.greeted()}), true, -1, nil)
			}
		}
		g.gathered()
	}
	return nil
}

// greeted are those of the start that this member reaches, by id.
func (g *Group) greeted() (list []int) {
	for _, id := range g.agree.members {
		if p := g.peers[id]; p != nil && p.greeted {
			list = append(list, id)
		}
	}
	return list
}

// gathered asks for the first view once all members of the start were reached,
// those that died since included.
func (g *Group) gathered() {
	if g.agree.open || g.cfg.Job.Join {
		return
	}
	for _, id := range g.agree.members {
		if _, gone := g.agree.gone[id]; id != g.self && !gone && (g.peers[id] == nil || !g.peers[id].greeted) {
			return
		}
	}
	g.apply(g.agree.begin(g.now()))
}

// late ends a start whose members did not reach each other in time. A link over
// which no greeting comes has a process behind it that prepares, and more time.
func (g *Group) late(now time.Duration) {
	if g.view.Number != 0 || g.agree.open || g.err != nil || now < g.cfg.Term {
		return
	}
	members := g.agree.members
	if g.cfg.Job.Join {
		members = nil
		for _, m := range g.cfg.Job.Members {
			members = append(members, m.Member)
		}
	}
	var missing []int
	for _, id := range members {
		_, gone := g.agree.gone[id]
		if p := g.peers[id]; id != g.self && !gone && (p == nil || !p.greeted && now >= 10*g.cfg.Term) {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 || g.cfg.Job.Join && len(g.peers) > 0 && now < 10*g.cfg.Term {
		return // a newcomer may have been told of members that are gone
	}
	var pairs []Pair
	for _, id := range missing {
		pairs = append(pairs, g.pair(g.self, id), g.pair(id, g.self))
	}
	for _, from := range g.greeted() {
		for _, to := range members {
			if reach, told := g.reach[from]; told && to != from && to != g.self && !slices.Contains(reach, to) && !slices.Contains(missing, to) {
				pairs = append(pairs, g.pair(from, to))
			}
		}
		for _, to := range missing {
			if reach, told := g.reach[from]; told && !slices.Contains(reach, to) {
				pairs = append(pairs, g.pair(from, to), g.pair(to, from))
			}
		}
	}
	for _, p := range g.peers {
		if p.greeted {
			p.send(message(kindRefuse, refusal{pairs}), true, -1, nil)
		}
	}
	g.fail(&Unreachable{pairs})
}

func (g *Group) pair(from, to int) Pair {
	return Pair{trainerproto.Fellow{Member: from, Name: g.name(from)}, trainerproto.Fellow{Member: to, Name: g.name(to)}}
}

// refused takes another's reason to end a start.
func (g *Group) refused(f frame) error {
	var r refusal
	if err := json.Unmarshal(f.b, &r); err != nil {
		return fmt.Errorf("refusal: %w", err)
	}
	if g.view.Number == 0 {
		g.fail(&Unreachable{r.Pairs})
	}
	return nil
}
