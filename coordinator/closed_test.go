package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/identity"
	"atelier/coordinator/member"
)

// identityOf reads the identity of a node that runs.
func (c *testCluster) identityOf(id string) *identity.Store {
	c.t.Helper()
	s, err := identity.Open(member.TLSFolder(filepath.Join(c.dir, id)))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// signed makes an identity that the authority of the cluster's first node signs, in a folder.
func (c *testCluster) signed(dir string, role identity.Role, node string, at time.Time, life time.Duration) *identity.Store {
	c.t.Helper()
	first := c.identityOf("c1")
	r, err := identity.NewRequest()
	if err != nil {
		c.t.Fatal(err)
	}
	cert, err := first.Authority().Sign(r.DER, identity.Name{Cluster: first.Name().Cluster, Role: role, Node: node}, at, life)
	if err != nil {
		c.t.Fatal(err)
	}
	k := identity.Credentials{Node: cert, Key: r.Key, Trusted: first.Trusted().PEM(), Gossip: first.Gossip()}
	if role == identity.Coordinator {
		k.Authority = first.Authority().KeyPEM()
	}
	s, err := identity.Create(dir, k)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// startClosed starts a closed cluster of n coordinators.
func startClosed(t *testing.T, n int) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir()}
	first := c.start("c1", "--bootstrap", "--tls")
	for _, id := range []string{"c2", "c3", "c4", "c5"}[:n-1] {
		c.signed(member.TLSFolder(filepath.Join(c.dir, id)), identity.Coordinator, id, time.Now(), identity.NodeLife)
		c.start(id, "--join", first.Addresses().Gossip)
	}
	c.untilVoters(n)
	return c
}

func TestClosedClusterWorksAsAnOpenOneDoes(t *testing.T) {
	c := startClosed(t, 3)
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addresses().API)
	}
	api := client.New(addrs, client.WithTLS(c.identityOf("c1").Trusted().ClientTLS(nil)))
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, members, err := api.Identity(ctx)
	if err != nil || len(members) != 3 {
		t.Fatalf("%d members, %v", len(members), err)
	}
	if want := c.identityOf("c1").Name().Cluster; id != want {
		t.Errorf("the cluster is %s, its certificates name %s", id, want)
	}
	// Through a follower: it hands the request on to the leader over TLS.
	for _, n := range c.nodes {
		one := client.New([]string{n.Addresses().API}, client.WithoutFollowing(), client.WithTLS(c.identityOf("c1").Trusted().ClientTLS(nil)))
		if _, _, err := one.Identity(ctx); err != nil {
			t.Errorf("through %s: %v", n.Config.ID, err)
		}
		one.Close()
	}
	l := c.leader()
	l.end(t)
	until(t, "another leads", func() bool { n := c.leader(); return n != nil && n != l })
	if _, _, err := api.Identity(ctx); err != nil {
		t.Errorf("after the leader went: %v", err)
	}
	again := c.start(l.Config.ID, "--bootstrap", "--tls") // the flags of its first start change nothing
	until(t, "it is back", func() bool { id, _ := again.node.Leader(); return id != "" })
	if _, _, err := api.Identity(ctx); err != nil {
		t.Error(err)
	}
}

// reads what a peer of raft's port gets to read.
func greeting(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
	conn, err := d.Dial("tcp", addr)
	if err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = conn.Read(make([]byte, 1))
	}
	return identity.Explain(err)
}

func TestStrangersAreRefusedByName(t *testing.T) {
	c := startClosed(t, 1)
	other := &testCluster{t: t, dir: t.TempDir()}
	other.start("c9", "--bootstrap", "--tls")
	here := c.nodes[0]
	at := here.Addresses()
	past := time.Now().Add(-2 * time.Hour)
	for _, x := range []struct {
		what string
		port string
		cfg  *tls.Config
		told string // to who is refused
		said string // by the coordinator
	}{
		{"a worker at raft's port", at.Raft, c.signed(t.TempDir(), identity.Worker, "w1", time.Now(), time.Hour).ClientTLS(nil),
			"refuses this node's certificate", "worker w1 of cluster " + c.identityOf("c1").Name().Cluster + " is refused: raft's port is for a coordinator"},
		{"another cluster's coordinator at raft's port", at.Raft, blind(other.identityOf("c9")), "another cluster's authority", "coordinator c9 of cluster " + other.identityOf("c9").Name().Cluster},
		{"another cluster's coordinator at the API", at.API, blind(other.identityOf("c9")), "another cluster's authority", "api: a connection was refused"},
		{"an expired worker at the API", at.API, c.signed(t.TempDir(), identity.Worker, "w2", past, time.Hour).ClientTLS(nil), "worker w2", ""},
		{"a person at raft's port", at.Raft, c.identityOf("c1").Trusted().ClientTLS(nil), "asks for a certificate", "showed no certificate"},
	} {
		if err := greeting(t, x.port, x.cfg); err == nil || !strings.Contains(err.Error(), x.told) {
			t.Errorf("%s is told: %v", x.what, err)
		}
		if x.said != "" {
			until(t, x.what+" is named", func() bool { return strings.Contains(here.log.String(), x.said) })
		}
	}
	plain := client.New([]string{at.API}, client.WithRetryFor(time.Millisecond))
	defer plain.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, _, err := plain.Identity(ctx); err == nil || !strings.Contains(err.Error(), "the cluster is closed") {
		t.Errorf("a client without TLS is told: %v", err)
	}
	// Told to join it by the address of its gossip, a coordinator of another cluster finds nobody, and is told why.
	stray, err := other.launch("c8", "--join", at.Gossip)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "who gossips without a label hears of nobody", func() bool { return strings.Contains(stray.log.String(), "perhaps another cluster") })
	until(t, "it is named here", func() bool { return strings.Contains(here.log.String(), "gossips with this closed cluster") })
	stray.cancel()
	raw, err := net.Dial("tcp", at.Raft)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	io.WriteString(raw, "ATLR\x01h\x00\x00") // raft's own handshake, in the clear
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if b, _ := io.ReadAll(raw); strings.Contains(string(b), "ATLR") {
		t.Errorf("raft's port answers in the clear: %q", b)
	}
}

// blind is a node's TLS that believes whoever answers.
func blind(s *identity.Store) *tls.Config {
	c := s.ClientTLS(nil)
	c.VerifyConnection = nil
	return c
}

func TestFlagsOfClosedClusters(t *testing.T) {
	c := &testCluster{t: t, dir: t.TempDir()}
	c.start("open", "--bootstrap").end(t)
	for _, x := range []struct {
		id    string
		flags []string
		want  string
	}{
		{"open", []string{"--bootstrap", "--tls"}, "is of an open cluster"},
		{"c2", []string{"--tls", "--join", "127.0.0.1:1"}, "with --bootstrap"},
		{"c2", []string{"--tls", "--bootstrap", "--join", "127.0.0.1:1"}, "leave --join out"},
		{"c2", []string{"--tls", "--bootstrap", "--gossip-key-file", "k"}, "makes a gossip key itself"},
	} {
		n, err := c.launch(x.id, x.flags...)
		if err == nil {
			err = <-n.ended
			n.ended <- nil
		}
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %v: %v, want %q", x.id, x.flags, err, x.want)
		}
	}
}
