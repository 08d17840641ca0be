package gossip_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/gossip"
)

// journal takes a pool's log lines.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) { j.mu.Lock(); defer j.mu.Unlock(); return j.b.Write(b) }

func (j *journal) String() string { j.mu.Lock(); defer j.mu.Unlock(); return j.b.String() }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func coordinator(id, cluster string) gossip.Meta {
	return gossip.Meta{Role: gossip.RoleCoordinator, ID: id, API: "127.0.0.1:1", Cluster: cluster}
}

// Two clusters whose nodes know one another's addresses, and use the same
// names, stay two; each says so once a node.
func TestClustersDoNotMix(t *testing.T) {
	var logA, logB journal
	a := start(t, "c1", gossip.Config{Meta: coordinator("c1", "A"), Logger: logA.logger()})
	a2 := start(t, "c2", gossip.Config{Meta: coordinator("c2", "A"), Join: []string{a.Addr()}})
	b := start(t, "c1", gossip.Config{Meta: coordinator("c1", "B"), Join: []string{a.Addr()}, Logger: logB.logger()})
	b3 := start(t, "c3", gossip.Config{Meta: coordinator("c3", "B"), Join: []string{b.Addr(), a2.Addr()}})
	until(t, "each finds its own", func() bool {
		_, one := peer(a, "c2")
		_, two := peer(b, "c3")
		return one && two
	})
	until(t, "both sides say it", func() bool {
		return strings.Contains(logA.String(), "another cluster was refused") && strings.Contains(logB.String(), "another cluster was refused")
	})
	time.Sleep(2 * time.Second) // b is tried again and again
	for name, p := range map[string]*gossip.Pool{"a": a, "a2": a2, "b": b, "b3": b3} {
		if got := p.Clusters(); len(got) != 1 {
			t.Errorf("%s sees clusters %v", name, got)
		}
		if n := len(p.Peers()); n != 1 {
			t.Errorf("%s has %d peers: %v", name, n, p.Peers())
		}
	}
	for _, j := range []*journal{&logA, &logB} {
		if n := strings.Count(j.String(), "\n"); n > 6 {
			t.Errorf("%d lines\n%s", n, j)
		}
	}
}

// A node of no cluster yet sees all there are, and forgets the others when it
// has chosen.
func TestChoiceOfACluster(t *testing.T) {
	a := start(t, "a", gossip.Config{Meta: coordinator("a", "A")})
	b := start(t, "b", gossip.Config{Meta: coordinator("b", "B")})
	n := start(t, "n", gossip.Config{Meta: coordinator("n", ""), Join: []string{a.Addr(), b.Addr()}})
	<-n.Tried()
	until(t, "it sees both", func() bool { return len(n.Clusters()) == 2 })
	if err := error(&gossip.ErrTwoClusters{Clusters: n.Clusters()}); !strings.Contains(err.Error(), "A (API 127.0.0.1:1) and B (API 127.0.0.1:1)") {
		t.Error(err)
	}
	if err := n.SetMeta(coordinator("n", "A")); err != nil {
		t.Fatal(err)
	}
	if _, ok := peer(n, "b"); ok || len(n.Clusters()) != 1 {
		t.Errorf("after the choice it sees %v", n.Clusters())
	}
}

// A worker follows its cluster into the one that was recovered from it; a
// coordinator does not.
func TestRecoveredCluster(t *testing.T) {
	next := coordinator("a", "A2")
	next.Was = "A"
	a := start(t, "a", gossip.Config{Meta: next})
	w := start(t, "w", gossip.Config{Meta: gossip.Meta{Role: gossip.RoleWorker, ID: "w", Cluster: "A"}, Join: []string{a.Addr()}})
	old := start(t, "o", gossip.Config{Meta: coordinator("o", "A"), Join: []string{a.Addr()}})
	until(t, "the worker finds it", func() bool { _, ok := peer(w, "a"); _, back := peer(a, "w"); return ok && back })
	time.Sleep(time.Second)
	if _, ok := peer(old, "a"); ok {
		t.Error("a coordinator of the old cluster hears the new one")
	}
	if _, ok := peer(a, "o"); ok {
		t.Error("the new cluster hears a coordinator of the old one")
	}
}

// A key on one side only, or two different ones: both sides say why, once.
func TestKeyTroubleIsSaidOnBothSides(t *testing.T) {
	one, two := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)
	for _, c := range []struct {
		name           string
		healthy, other [][]byte
	}{{"only here", [][]byte{one}, nil}, {"only there", nil, [][]byte{one}}, {"another", [][]byte{one}, [][]byte{two}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var here, there journal
			a := start(t, "a", gossip.Config{Keys: c.healthy, Logger: here.logger()})
			start(t, "a2", gossip.Config{Keys: c.healthy, Join: []string{a.Addr()}})
			start(t, "s", gossip.Config{Keys: c.other, Join: []string{a.Addr()}, Logger: there.logger()})
			until(t, "both say it", func() bool {
				return strings.Contains(here.String(), "--gossip-key-file") && strings.Contains(there.String(), "--gossip-key-file")
			})
			time.Sleep(4 * time.Second)
			for _, j := range []*journal{&here, &there} {
				if n := strings.Count(j.String(), "\n"); n > 2 || !strings.Contains(j.String(), "level=WARN") {
					t.Errorf("%d lines, want one or two\n%s", n, j)
				}
			}
		})
	}
}

// A closed cluster's gossip is labelled with its id: its members name whoever comes with another one, or none.
func TestLabelsKeepClustersApart(t *testing.T) {
	keys := [][]byte{bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{8}, 32)}
	var here journal
	a := start(t, "a", gossip.Config{Keys: keys, Label: "c-one", Logger: here.logger()})
	b := start(t, "b", gossip.Config{Keys: [][]byte{keys[1], keys[0]}, Label: "c-one", Join: []string{a.Addr()}})
	other := start(t, "o", gossip.Config{Keys: keys, Label: "c-two", Join: []string{a.Addr()}})
	open := start(t, "n", gossip.Config{Join: []string{a.Addr()}})
	until(t, "b joins: each decrypts with either key", func() bool { q, ok := peer(a, "b"); return ok && q.Alive })
	until(t, "the others are named", func() bool {
		return strings.Contains(here.String(), `c-two`) && strings.Contains(here.String(), "join with an invite")
	})
	until(t, "they learn what it may be", func() bool {
		return strings.Contains(other.Trouble(), "another cluster") && strings.Contains(open.Trouble(), "another cluster")
	})
	if len(a.Peers()) != 1 || len(b.Peers()) != 1 || len(other.Peers())+len(open.Peers()) != 0 {
		t.Errorf("a sees %v, b %v, the others %v and %v", a.Peers(), b.Peers(), other.Peers(), open.Peers())
	}
}
