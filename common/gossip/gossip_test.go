package gossip_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"atelier/common/gossip"
)

func start(t *testing.T, name string, cfg gossip.Config) *gossip.Pool {
	t.Helper()
	cfg.Name = name
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	if cfg.Meta.Role == "" {
		cfg.Meta = gossip.Meta{Role: gossip.RoleCoordinator, ID: name, API: "127.0.0.1:1"}
	}
	p, err := gossip.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Leave(0) })
	return p
}

// until waits for want to hold.
func until(t *testing.T, what string, want func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !want(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func peer(p *gossip.Pool, name string) (gossip.Peer, bool) {
	for _, q := range p.Peers() {
		if q.Name == name {
			return q, true
		}
	}
	return gossip.Peer{}, false
}

func TestOneKnownNodeLeadsToAll(t *testing.T) {
	a := start(t, "a", gossip.Config{})
	b := start(t, "b", gossip.Config{Join: []string{a.Addr()}})
	c := start(t, "c", gossip.Config{
		Join: []string{b.Addr()},
		Meta: gossip.Meta{Role: gossip.RoleWorker, ID: "c", Files: "127.0.0.1:7610"},
	})
	for _, p := range []*gossip.Pool{a, b, c} {
		until(t, "everybody sees two others", func() bool { return len(p.Peers()) == 2 })
	}
	q, _ := peer(a, "c")
	if q.Addr != c.Addr() || !q.Alive || q.Meta.Files != "127.0.0.1:7610" || q.Meta.Role != gossip.RoleWorker {
		t.Errorf("a sees c as %+v", q)
	}
	if q, _ := peer(c, "a"); q.Meta.API != "127.0.0.1:1" {
		t.Errorf("c sees a as %+v", q)
	}
}

func TestSeedThatComesLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	a := start(t, "a", gossip.Config{Join: []string{addr}})
	time.Sleep(300 * time.Millisecond)
	start(t, "b", gossip.Config{Bind: addr})
	until(t, "a finds the late seed", func() bool { q, ok := peer(a, "b"); return ok && q.Alive })
}

func TestLeaveAndReturnOnAnotherPort(t *testing.T) {
	a := start(t, "a", gossip.Config{})
	b := start(t, "b", gossip.Config{Join: []string{a.Addr()}})
	until(t, "a sees b", func() bool { q, ok := peer(a, "b"); return ok && q.Alive })
	old := b.Addr()
	if err := b.Leave(time.Second); err != nil {
		t.Fatal(err)
	}
	until(t, "a sees b gone", func() bool { q, ok := peer(a, "b"); return ok && !q.Alive })
	b = start(t, "b", gossip.Config{Join: []string{a.Addr()}})
	if b.Addr() == old {
		t.Skip("the system gave the same port again")
	}
	until(t, "a sees b at its new address", func() bool { q, _ := peer(a, "b"); return q.Alive && q.Addr == b.Addr() })
}

func TestDeathIsSeen(t *testing.T) {
	a := start(t, "a", gossip.Config{})
	b := start(t, "b", gossip.Config{Join: []string{a.Addr()}})
	until(t, "a sees b", func() bool { q, ok := peer(a, "b"); return ok && q.Alive })
	b.Leave(0) // no good-bye
	until(t, "a takes b for dead", func() bool { q, ok := peer(a, "b"); return ok && !q.Alive })
}

func TestSetMeta(t *testing.T) {
	a := start(t, "a", gossip.Config{})
	b := start(t, "b", gossip.Config{Join: []string{a.Addr()}})
	until(t, "a sees b", func() bool { _, ok := peer(a, "b"); return ok })
	if err := b.SetMeta(gossip.Meta{Role: gossip.RoleCoordinator, ID: "b", Cluster: "c-1"}); err != nil {
		t.Fatal(err)
	}
	until(t, "a hears b's cluster", func() bool { q, _ := peer(a, "b"); return q.Meta.Cluster == "c-1" })
}

func TestKey(t *testing.T) {
	if _, err := gossip.Start(gossip.Config{Name: "x", Bind: "0.0.0.0:0"}); !errors.Is(err, gossip.ErrKeyRequired) {
		t.Errorf("open address without a key: %v", err)
	}
	key := bytes.Repeat([]byte{7}, 32)
	a := start(t, "a", gossip.Config{Keys: [][]byte{key}})
	b := start(t, "b", gossip.Config{Keys: [][]byte{key}, Join: []string{a.Addr()}})
	stranger := start(t, "s", gossip.Config{Keys: [][]byte{bytes.Repeat([]byte{8}, 32)}, Join: []string{a.Addr()}})
	until(t, "b joins with the key", func() bool { _, ok := peer(b, "a"); return ok })
	time.Sleep(time.Second)
	if n := len(stranger.Peers()); n != 0 {
		t.Errorf("a node with another key sees %d peers", n)
	}
	if _, ok := peer(a, "s"); ok {
		t.Error("a node with another key got in")
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []gossip.Config{
		{Bind: "127.0.0.1:0"},
		{Name: "a", Bind: "127.0.0.1"},
		{Name: "a", Bind: "127.0.0.1:70000"},
		{Name: "a", Bind: "127.0.0.1:0", Meta: gossip.Meta{ID: fmt.Sprintf("%0600d", 1)}},
		{Name: "a", Bind: "127.0.0.1:0", Keys: [][]byte{[]byte("short")}},
	} {
		if p, err := gossip.Start(c); err == nil {
			p.Leave(0)
			t.Errorf("%+v was accepted", c)
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add([]byte(`{"role":"coordinator","id":"c1","api":"127.0.0.1:7600","raft":"127.0.0.1:7601"}`))
	f.Add([]byte(`{"role":"worker","id":"w","files":"h:1","more":[1]}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"role":"worker","id":"w"}x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := gossip.DecodeMeta(b)
		if err == nil && (m.ID == "" || m.Role == "") {
			t.Errorf("%q gave %+v", b, m)
		}
	})
}
