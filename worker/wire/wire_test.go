package wire_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/worker/wire"
)

var kinds = []wire.Kind{wire.Direct, wire.Agents}

// speak checks that what is written at one end of a link is read at the other.
func speak(t *testing.T, from, to net.Conn) {
	t.Helper()
	if _, err := io.WriteString(from, "hello"); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(to, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
}

// ends checks that a link has ended.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("%d bytes, %v; the link should have ended", n, err)
	}
}

// until waits for what other goroutines bring about.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// host is an agent's part: a hub and the address that it is served at.
type host struct {
	*wire.Hub
	name, addr string
}

func newHost(t *testing.T, name string, kind wire.Kind) *host {
	h := &host{name: name}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	h.Hub = wire.New(wire.Config{Worker: name, Address: h.addr, Kind: kind, Term: 400 * time.Millisecond})
	srv := &http.Server{Handler: h.Hub}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return h
}

func (h *host) peer(id int) wire.Peer {
	return wire.Peer{ID: id, Name: fmt.Sprintf("%s/cpu%d", h.name, id), Worker: h.name, Address: h.addr}
}

// here marks those of this host.
func (h *host) here(peers ...wire.Peer) []wire.Peer {
	out := append([]wire.Peer{}, peers...)
	for i := range out {
		out[i].Here = out[i].Worker == h.name
	}
	return out
}

func TestGroupOverThreeAgents(t *testing.T) {
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			w1, w2, w3 := newHost(t, "w1", kind), newHost(t, "w2", kind), newHost(t, "w3", kind)
			members := []wire.Peer{w1.peer(1), w2.peer(2), w2.peer(3), w3.peer(4)}
			var got [5]<-chan links.Link
			for i, h := range []*host{w3, w2, w1, w2} { // in an order of their own
				p := []wire.Peer{members[3], members[1], members[0], members[2]}[i]
				sender, links := member(t)
				got[p.ID] = links
				seat(t, h.Hub, 9, p).Open(sender, h.here(members...))
			}
			link := map[[2]int]links.Link{}
			for id := 1; id <= 4; id++ {
				for range 3 {
					l := next(t, got[id])
					if l.Token != 9 || l.Name != members[l.Member-1].Name || l.Local != (id+l.Member == 5 && id*l.Member == 6) {
						t.Errorf("member %d has a link %+v", id, l.Header)
					}
					link[[2]int{id, l.Member}] = l
				}
			}
			if len(link) != 12 {
				t.Fatalf("%d ends of links, want 12", len(link))
			}
			for pair, l := range link {
				speak(t, l.Conn, link[[2]int{pair[1], pair[0]}].Conn)
			}
			// One member's trainer dies: all others see it, and they alone.
			for id := 1; id <= 4; id++ {
				if id != 2 {
					link[[2]int{2, id}].Conn.Close()
					ends(t, link[[2]int{id, 2}].Conn)
				}
			}
			for _, pair := range [][2]int{{1, 3}, {3, 4}, {4, 1}} {
				speak(t, link[pair].Conn, link[[2]int{pair[1], pair[0]}].Conn)
			}
		})
	}
}

// TestLastBytesArrive: an end does not overtake what was written before it, also
// where the other side goes on to write.
func TestLastBytesArrive(t *testing.T) {
	const size = 1 << 20
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			one, two := twoAgents(t, kind, nil)
			go func() {
				one.Write(make([]byte, size))
				one.(interface{ CloseWrite() error }).CloseWrite()
			}()
			two.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := io.Copy(io.Discard, two); n != size || err != nil {
				t.Errorf("%d bytes arrived, %v", n, err)
			}
			two.Close()
			ends(t, one)
		})
	}
}

// TestRelayEndsBothSides: what is half closed does not linger.
func TestRelayEndsBothSides(t *testing.T) {
	one, two := twoAgents(t, wire.Agents, nil)
	one.(*net.UnixConn).CloseWrite()
	ends(t, two)
	two.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := two.Write(make([]byte, 1<<16)); err != nil {
			if strings.Contains(err.Error(), "timeout") {
				t.Error("the other half is open still")
			}
			return
		}
	}
}

func TestNewcomerAndMembersThatEnded(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Direct), newHost(t, "w2", wire.Direct)
	old := []wire.Peer{w1.peer(1), w1.peer(2)}
	s1, got1 := member(t)
	s2, _ := member(t)
	seat(t, w1.Hub, 3, old[0]).Open(s1, w1.here(old...))
	gone := seat(t, w1.Hub, 3, old[1])
	gone.Open(s2, w1.here(old...))
	next(t, got1)
	gone.Close()
	newcomer := w2.peer(5)
	s5, got5 := member(t)
	st := seat(t, w2.Hub, 3, newcomer)
	st.Open(s5, w2.here(append(old, newcomer)...))
	found := map[int]links.Link{}
	for range 2 {
		l := next(t, got5)
		found[l.Member] = l
	}
	back := next(t, got1)
	if back.Member != 5 || back.Name != "w2/cpu5" {
		t.Errorf("member 1 was handed %+v", back.Header)
	}
	speak(t, found[1].Conn, back.Conn)
	ends(t, found[2].Conn)
	if why := st.Trouble(); why != "" {
		t.Errorf("a member that has ended is no trouble: %s", why)
	}
}

// TestMemberThatComesLate: its trainer may take as long as it needs to be ready.
func TestMemberThatComesLate(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Agents), newHost(t, "w2", wire.Agents)
	members := []wire.Peer{w1.peer(1), w2.peer(2)}
	s2, got2 := member(t)
	second := seat(t, w2.Hub, 3, members[1])
	second.Open(s2, w2.here(members...))
	first := seat(t, w1.Hub, 3, members[0])
	time.Sleep(1200 * time.Millisecond) // three terms
	if why := second.Trouble(); why != "" {
		t.Error(why)
	}
	s1, got1 := member(t)
	first.Open(s1, w1.here(members...))
	speak(t, next(t, got1).Conn, next(t, got2).Conn)
	if st := w1.Stats(); st.Live != 1 || st.Made["agents"] != 1 {
		t.Errorf("%+v", st)
	}
	until(t, "5 bytes", func() bool { return w1.Stats().Sent == 5 && w2.Stats().Received == 5 })
	second.Close()
	first.Close()
	until(t, "counted once", func() bool { return w1.Stats().Sent == 5 && w1.Stats().Live == 0 })
}

// TestWorkersThatCannotReachOneAnother are named by both, with their addresses.
func TestWorkersThatCannotReachOneAnother(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Direct), newHost(t, "w2", wire.Direct)
	m1, m2 := w1.peer(1), w2.peer(2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	m1.Address, m2.Address = closed, closed
	s1, _ := member(t)
	s2, _ := member(t)
	a, b := seat(t, w1.Hub, 3, m1), seat(t, w2.Hub, 3, m2)
	a.Open(s1, w1.here(m1, m2))
	b.Open(s2, w2.here(m1, m2))
	for s, want := range map[*wire.Seat]string{
		a: fmt.Sprintf("worker w1 (%s) cannot reach worker w2 (%s): connection refused", w1.addr, closed),
		b: fmt.Sprintf("worker w2 (%s) cannot reach worker w1 (%s): connection refused", w2.addr, closed),
	} {
		until(t, want, func() bool { return s.Trouble() == want })
	}
	if n := w1.Stats().Unreachable; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

// TestOneWayOnly: the one that has to dial cannot, the other could.
func TestOneWayOnly(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Direct), newHost(t, "w2", wire.Direct)
	m1, m2 := w1.peer(1), w2.peer(2)
	lost := m1
	lost.Address = "127.0.0.1:1"
	s1, got := member(t)
	s2, _ := member(t)
	a, b := seat(t, w1.Hub, 3, m1), seat(t, w2.Hub, 3, m2)
	a.Open(s1, w1.here(m1, m2))
	b.Open(s2, w2.here(lost, m2))
	want := fmt.Sprintf("worker w2 (%s) has not reached worker w1 (%s) within 400ms, although w1 reaches w2", w2.addr, w1.addr)
	until(t, want, func() bool { return a.Trouble() == want })
	until(t, "the other way", func() bool {
		return strings.Contains(b.Trouble(), "worker w2") && strings.Contains(b.Trouble(), "cannot reach worker w1")
	})
	if len(got) != 0 {
		t.Error("there is a link")
	}
}

func TestMemberThatIsNotThere(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Direct), newHost(t, "w2", wire.Direct)
	m1, m2 := w1.peer(1), w2.peer(2)
	s2, _ := member(t)
	b := seat(t, w2.Hub, 3, m2)
	b.Open(s2, w2.here(m1, m2))
	want := fmt.Sprintf("worker w1 (%s) has no member 1 of this run (w1/cpu1)", w1.addr)
	until(t, want, func() bool { return b.Trouble() == want })
	// It comes in the end: nothing is troubled any more.
	s1, got := member(t)
	seat(t, w1.Hub, 3, m1).Open(s1, w1.here(m1, m2))
	next(t, got)
	until(t, "no trouble", func() bool { return b.Trouble() == "" })
}

func TestRefusals(t *testing.T) {
	w1, w2 := newHost(t, "w1", wire.Direct), newHost(t, "w2", wire.Direct)
	m1, m2 := w1.peer(1), w2.peer(2)
	s1, got1 := member(t)
	s2, _ := member(t)
	seat(t, w1.Hub, 3, m1).Open(s1, w1.here(m1, m2))
	seat(t, w2.Hub, 3, m2).Open(s2, w2.here(m1, m2))
	next(t, got1)
	seat(t, w1.Hub, 3, w1.peer(4))
	seat(t, w1.Hub, 3, w1.peer(6)).Close()
	for name, x := range map[string]struct {
		method, path, member, upgrade string
		status                        int
		want                          string
	}{
		"method":          {"POST", "/groups/3/2/1", "w9/cpu0", "atelier-link", 405, "only GET"},
		"path":            {"GET", "/groups/3/2", "w9/cpu0", "atelier-link", 400, "/groups/TOKEN/FROM/TO"},
		"token":           {"GET", "/groups/-3/2/1", "w9/cpu0", "atelier-link", 400, `"-3" is not the token`},
		"member":          {"GET", "/groups/3/0/1", "w9/cpu0", "atelier-link", 400, `"0" is not the number of a member`},
		"huge member":     {"GET", "/groups/3/99999999999/1", "w9/cpu0", "atelier-link", 400, "is not the number of a member"},
		"itself":          {"GET", "/groups/3/1/1", "w9/cpu0", "atelier-link", 400, "to itself"},
		"no name":         {"GET", "/groups/3/9/1", "", "atelier-link", 400, "Atelier-Member"},
		"bad name":        {"GET", "/groups/3/9/1", "%ff", "atelier-link", 400, "Atelier-Member"},
		"other lease":     {"GET", "/groups/4/9/1", "w9/cpu0", "atelier-link", 404, "worker w1 has no member 1 of lease 4"},
		"other member":    {"GET", "/groups/3/9/2", "w9/cpu0", "atelier-link", 404, "worker w1 has no member 2 of lease 3"},
		"ended":           {"GET", "/groups/3/9/6", "w9/cpu0", "atelier-link", 410, "has ended on worker w1"},
		"being prepared":  {"GET", "/groups/3/9/4", "w9/cpu0", "atelier-link", 503, "being prepared"},
		"second link":     {"GET", "/groups/3/2/1", "w9/cpu0", "atelier-link", 409, "had a link to member 2 before"},
		"of this worker":  {"GET", "/groups/3/4/1", "w9/cpu0", "atelier-link", 409, "on worker w1 itself"},
		"no upgrade":      {"GET", "/groups/3/9/1", "w9/cpu0", "", 426, "is ready on worker w1"},
		"another upgrade": {"GET", "/groups/3/9/1", "w9/cpu0", "websocket", 426, "Upgrade: atelier-link"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(x.method, "http://"+w1.addr+x.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if x.member != "" {
				req.Header.Set("Atelier-Member", x.member)
			}
			if x.upgrade != "" {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", x.upgrade)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != x.status || !strings.Contains(string(b), x.want) {
				t.Errorf("%d %q, want %d %q", res.StatusCode, b, x.status, x.want)
			}
		})
	}
	if len(got1) != 0 {
		t.Error("a refused request made a link")
	}
}

func TestSeatIsTakenOnce(t *testing.T) {
	h := newHost(t, "w1", wire.Direct)
	seat(t, h.Hub, 3, h.peer(1))
	if _, err := h.Seat(3, h.peer(1)); err == nil {
		t.Error("a member is here twice")
	}
	if _, err := wire.ParseKind("udp"); err == nil || !strings.Contains(err.Error(), "direct or agents") {
		t.Error(err)
	}
}
