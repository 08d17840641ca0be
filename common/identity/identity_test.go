package identity_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/identity"
)

// authority is a new cluster's.
func authority(t testing.TB, cluster string) *identity.Authority {
	t.Helper()
	a, err := identity.NewAuthority(cluster, time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// credentials of a node whose certificate was signed at some time for some life.
func credentials(t testing.TB, a *identity.Authority, role identity.Role, node string, at time.Time, life time.Duration) identity.Credentials {
	t.Helper()
	r, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(r.DER, identity.Name{Cluster: a.Cluster(), Role: role, Node: node}, at, life)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Credentials{Node: cert, Key: r.Key, Trusted: a.Trusted().PEM(), Gossip: [][]byte{bytes.Repeat([]byte{7}, 32)}}
}

// member is a node of a cluster, as it should be.
func member(t testing.TB, a *identity.Authority, role identity.Role, node string) *identity.Store {
	t.Helper()
	s, err := identity.Create(filepath.Join(t.TempDir(), "tls"), credentials(t, a, role, node, time.Now(), identity.NodeLife))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNames(t *testing.T) {
	for uri, want := range map[string]identity.Name{
		"atelier://c-abc/worker/w1":                         {Cluster: "c-abc", Role: identity.Worker, Node: "w1"},
		"atelier://c-abc/coordinator/a.b_c-d":               {Cluster: "c-abc", Role: identity.Coordinator, Node: "a.b_c-d"},
		"atelier://c-abc/operator/w1":                       {},
		"atelier://c-abc/worker/":                           {},
		"atelier://c-abc/worker/w1/x":                       {},
		"atelier://c-abc/worker/w1?x":                       {},
		"atelier://c-abc/worker/%771":                       {},
		"atelier://u@c-abc/worker/w1":                       {},
		"atelier:///worker/w1":                              {},
		"https://c-abc/worker/w1":                           {},
		"atelier://c-abc/worker/" + strings.Repeat("w", 65): {},
		"atelier://c-abc/worker/" + strings.Repeat("w", 64): {Cluster: "c-abc", Role: identity.Worker, Node: strings.Repeat("w", 64)},
		"Atelier://c-abc/worker/w1":                         {},
		"atelier://c-abc/Worker/w1":                         {},
		"atelier://c-abc//worker/w1":                        {},
		"atelier://c-abc:80/worker/w1":                      {},
	} {
		got, err := identity.ParseName(uri)
		if got.Check() != nil {
			got = identity.Name{}
		}
		if (err == nil) != (want != identity.Name{}) || err == nil && got != want {
			t.Errorf("%s: %+v, %v; want %+v", uri, got, err, want)
		}
	}
}

func TestAuthoritySignsOnlyForItsCluster(t *testing.T) {
	a := authority(t, "c-one")
	r, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(r.DER, identity.Name{Cluster: "c-two", Role: identity.Worker, Node: "w"}, time.Now(), time.Hour); err == nil {
		t.Error("it signed for another cluster")
	}
	bad := bytes.Clone(r.DER)
	bad[len(bad)-1] ^= 1
	if _, err := a.Sign(bad, identity.Name{Cluster: "c-one", Role: identity.Worker, Node: "w"}, time.Now(), time.Hour); err == nil {
		t.Error("it signed a request whose signature is wrong")
	}
}

func TestStoreIsWhatWasCreated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	if there, err := identity.Exists(dir); there || err != nil {
		t.Fatal(there, err)
	}
	name := identity.Name{Cluster: "c-one", Role: identity.Coordinator, Node: "c1"}
	first, err := identity.Begin(dir, name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	again, err := identity.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Name() != name || !bytes.Equal(again.Gossip()[0], first.Gossip()[0]) || again.Trusted().Fingerprint() != first.Trusted().Fingerprint() ||
		!bytes.Equal(again.Authority().KeyPEM(), first.Authority().KeyPEM()) || !again.Certificate().Equal(first.Certificate()) {
		t.Error("opened, it is another identity than the one created")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if i, err := e.Info(); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), i.Mode())
		}
	}
	for _, secret := range []string{"ca.key", "node.pem", "gossip.key"} {
		p := filepath.Join(dir, secret)
		os.Chmod(p, 0o640)
		if _, err := identity.Open(dir); err == nil || !strings.Contains(err.Error(), "chmod 600 "+p) {
			t.Errorf("%s can be read by others: %v", secret, err)
		}
		os.Chmod(p, 0o600)
	}
}

func TestStoreRefusesPartsThatDoNotFit(t *testing.T) {
	a, b := authority(t, "c-one"), authority(t, "c-two")
	s := member(t, a, identity.Worker, "w1")
	was := s.Certificate()
	other := credentials(t, a, identity.Worker, "w1", time.Now(), time.Hour)
	mixed := other
	mixed.Key = credentials(t, a, identity.Worker, "w1", time.Now(), time.Hour).Key
	for what, c := range map[string]identity.Credentials{
		"a key of another certificate": mixed,
		"another node":                 credentials(t, a, identity.Worker, "w2", time.Now(), time.Hour),
		"another cluster":              credentials(t, b, identity.Worker, "w1", time.Now(), time.Hour),
		"a foreign authority's key":    {Authority: b.KeyPEM()},
		"authorities of two clusters":  {Trusted: append(a.Trusted().PEM(), b.Trusted().PEM()...)},
		"a short gossip key":           {Gossip: [][]byte{{1, 2, 3}}},
		"rubbish":                      {Trusted: []byte("rubbish")},
	} {
		if err := s.Install(c); err == nil {
			t.Errorf("%s was installed", what)
		}
	}
	if !s.Certificate().Equal(was) {
		t.Error("what was refused has changed something")
	}
	if err := s.Install(other); err != nil || s.Certificate().Equal(was) {
		t.Errorf("a good certificate was not installed: %v", err)
	}
}

// served listens with TLS and greets whoever gets in; the channel has what the listener says of the others.
func served(t *testing.T, cfg *tls.Config, o identity.Options) (string, <-chan error) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 64)
	o.Refused = func(_ net.Addr, err error) { refused <- err }
	l := identity.Listen(raw, cfg, o)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	return raw.Addr().String(), refused
}

// call dials and reads the greeting; the error is as Explain has it.
func call(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return identity.Explain(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		return identity.Explain(err)
	}
	if string(b) != "hello" {
		t.Errorf("got %q", b)
	}
	return nil
}

// is reports whether err is a refusal of that kind whose words have all of has.
func is(err error, why identity.Why, has ...string) bool {
	var r *identity.RefusedError
	if !errors.As(err, &r) || r.Why != why {
		return false
	}
	for _, h := range has {
		if !strings.Contains(r.Text, h) {
			return false
		}
	}
	return true
}

func hear(t *testing.T, refused <-chan error) error {
	t.Helper()
	select {
	case err := <-refused:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the listener says nothing")
		return nil
	}
}

func TestBothSidesSayWhatIsWrong(t *testing.T) {
	one, two := authority(t, "c-one"), authority(t, "c-two")
	port := member(t, one, identity.Coordinator, "c1")
	addr, refused := served(t, port.ServerTLS(tls.RequireAndVerifyClientCert, identity.Only("raft's port", identity.Coordinator)), identity.Options{})
	if err := call(t, addr, member(t, one, identity.Coordinator, "c2").ClientTLS(identity.Node(identity.Coordinator, "c1"))); err != nil {
		t.Fatalf("a member is not let in: %v", err)
	}
	// A stranger that believes the cluster though it is not believed: it has the certificate of its authority.
	stranger := func(c identity.Credentials) *tls.Config {
		s, err := identity.Create(filepath.Join(t.TempDir(), "tls"), c)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.ClientTLS(nil)
		cfg.VerifyConnection = nil
		return cfg
	}
	past := time.Now().Add(-2 * time.Hour)
	expired, err := identity.Create(filepath.Join(t.TempDir(), "tls"), credentials(t, one, identity.Coordinator, "c3", past, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := call(t, addr, expired.ClientTLS(nil)); !is(err, identity.Expired, "coordinator c3 of cluster c-one", "expired at", "invite") {
		t.Errorf("who has expired is told: %v", err)
	}
	hear(t, refused)
	c3 := credentials(t, one, identity.Coordinator, "c3", past, time.Hour)
	unaware := stranger(c3)
	pair, err := tls.X509KeyPair(c3.Node, c3.Key)
	if err != nil {
		t.Fatal(err)
	}
	unaware.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	nobody := one.Trusted().ClientTLS(nil)
	for _, c := range []struct {
		what        string
		cfg         *tls.Config
		there, here identity.Why
		said        []string // by the listener
	}{
		{"another cluster's coordinator", stranger(credentials(t, two, identity.Coordinator, "c9", time.Now(), time.Hour)), identity.OtherAuthority, identity.OtherAuthority, []string{"coordinator c9 of cluster c-two"}},
		{"a worker", member(t, one, identity.Worker, "w1").ClientTLS(nil), identity.BadCertificate, identity.WrongRole, []string{"worker w1 of cluster c-one", "raft's port is for a coordinator"}},
		{"an expired one", unaware, identity.Expired, identity.Expired, []string{"coordinator c3 of cluster c-one", "clocks"}},
		{"no certificate", nobody, identity.NoCertificate, identity.NoCertificate, []string{"no certificate"}},
	} {
		// The alert may be lost behind a reset when the dialler still writes; what it reads is whichever came first.
		if err := call(t, addr, c.cfg); err == nil {
			t.Errorf("%s is let in", c.what)
		} else if !is(err, c.there) {
			t.Errorf("%s is told: %v", c.what, err)
		}
		if err := hear(t, refused); !is(err, c.here, c.said...) {
			t.Errorf("of %s the listener says: %v", c.what, err)
		}
	}
}

// One authority may serve two clusters when a person gave it to both: their nodes are still strangers.
func TestDiallersLookAtWhoAnswers(t *testing.T) {
	one, two := authority(t, "c-one"), authority(t, "c-two")
	w := member(t, one, identity.Worker, "w1")
	me := member(t, one, identity.Coordinator, "c2")
	addr, refused := served(t, w.ServerTLS(tls.VerifyClientCertIfGiven, nil), identity.Options{})
	if err := call(t, addr, me.ClientTLS(identity.Node(identity.Coordinator, "c1"))); !is(err, identity.WrongRole, "worker w1 of cluster c-one", "coordinator c1 was meant") {
		t.Errorf("another node answers: %v", err)
	}
	if err := hear(t, refused); !is(err, identity.BadCertificate, "refuses this node's certificate") {
		t.Errorf("the node that was not meant says: %v", err)
	}
	if err := call(t, addr, member(t, two, identity.Coordinator, "c2").ClientTLS(nil)); !is(err, identity.OtherAuthority, "worker w1 of cluster c-one", "another cluster") {
		t.Errorf("another cluster answers: %v", err)
	}
	hear(t, refused)
	fp := one.Trusted().Fingerprint()
	var found identity.Trusted
	if err := call(t, addr, identity.PinnedTLS(fp, nil, func(t identity.Trusted) { found = t })); err != nil || found.Fingerprint() != fp {
		t.Errorf("by its fingerprint: %v, found %v", err, found)
	}
	if err := call(t, addr, identity.PinnedTLS(two.Trusted().Fingerprint(), nil, nil)); !is(err, identity.OtherAuthority, "worker w1 of cluster c-one", "fingerprint") {
		t.Errorf("by another cluster's fingerprint: %v", err)
	}
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	go func() {
		c, err := open.Accept()
		if err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
		io.Copy(io.Discard, c)
	}()
	if err := call(t, open.Addr().String(), me.ClientTLS(nil)); !is(err, identity.PlainText, "does not speak TLS") {
		t.Errorf("an open port answers: %v", err)
	}
}

func TestListenerLooksAfterItself(t *testing.T) {
	one := authority(t, "c-one")
	s := member(t, one, identity.Coordinator, "c1")
	addr, refused := served(t, s.ServerTLS(tls.VerifyClientCertIfGiven, nil), identity.Options{Handshake: 300 * time.Millisecond, Pending: 2})
	plain, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	io.WriteString(plain, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	plain.SetDeadline(time.Now().Add(10 * time.Second))
	answer, _ := io.ReadAll(plain)
	if !strings.HasPrefix(string(answer), "HTTP/1.0 400") || !is(identity.Explain(errors.New(string(answer))), identity.PlainText, "log in") {
		t.Errorf("who speaks without TLS is told %q", answer)
	}
	if err := hear(t, refused); !is(err, identity.PlainText) {
		t.Errorf("the listener says: %v", err)
	}
	addr, refused = served(t, s.ServerTLS(tls.VerifyClientCertIfGiven, nil), identity.Options{Handshake: 300 * time.Millisecond, Pending: 2})
	var silent []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	third, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	kinds := map[string]int{}
	for range 3 {
		switch err := hear(t, refused); {
		case errors.Is(err, identity.ErrPending):
			kinds["pending"]++
		case is(err, identity.Silent):
			kinds["silent"]++
		default:
			t.Errorf("the listener says: %v", err)
		}
	}
	if kinds["pending"] < 1 || kinds["silent"] < 2 {
		t.Errorf("of three silent peers at a listener of two: %v", kinds)
	}
	for _, c := range append(silent, third) {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent peer is still connected: %v", err)
		}
	}
	if err := call(t, addr, one.Trusted().ClientTLS(nil)); err != nil {
		t.Errorf("after them a good one is not let in: %v", err)
	}
}

func TestInstalledIdentityHoldsAtOnce(t *testing.T) {
	old, next := authority(t, "c-one"), authority(t, "c-one")
	s := member(t, old, identity.Coordinator, "c1")
	cfg := s.ServerTLS(tls.RequireAndVerifyClientCert, nil)
	addr, refused := served(t, cfg, identity.Options{})
	w := member(t, next, identity.Worker, "w1")
	if err := call(t, addr, w.ClientTLS(nil)); !is(err, identity.OtherAuthority) {
		t.Fatalf("a node of an authority that is not trusted yet: %v", err)
	}
	hear(t, refused)
	both := append(old.Trusted().PEM(), next.Trusted().PEM()...)
	if err := s.Install(identity.Credentials{Trusted: both}); err != nil {
		t.Fatal(err)
	}
	wcfg := w.ClientTLS(nil)
	if err := w.Install(identity.Credentials{Trusted: both}); err != nil {
		t.Fatal(err)
	}
	if err := call(t, addr, wcfg); err != nil {
		t.Errorf("both authorities are trusted on both sides: %v", err)
	}
	c := credentials(t, next, identity.Coordinator, "c1", time.Now(), time.Hour)
	if err := s.Install(identity.Credentials{Node: c.Node, Key: c.Key, Trusted: next.Trusted().PEM()}); err != nil {
		t.Fatal(err)
	}
	if err := call(t, addr, wcfg); err != nil {
		t.Errorf("the server has changed over: %v", err)
	}
	late := member(t, old, identity.Worker, "w2").ClientTLS(nil)
	late.VerifyConnection = nil
	if err := call(t, addr, late); !is(err, identity.OtherAuthority) {
		t.Errorf("a node of the former authority: %v", err)
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("atelier://c-abc/worker/w1")
	f.Add("atelier://c-abc/coordinator/%2e%2e")
	f.Fuzz(func(t *testing.T, uri string) {
		n, err := identity.ParseName(uri)
		if err == nil && (n.Check() != nil || n.URI() != uri || strings.ContainsAny(n.Node+n.Cluster, "/\\ \x00")) {
			t.Errorf("%q was read as %+v", uri, n)
		}
	})
}

func FuzzParseTrusted(f *testing.F) {
	a, err := identity.NewAuthority("c-one", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Trusted().PEM())
	f.Add(a.KeyPEM())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		trusted, err := identity.ParseTrusted(b)
		if err == nil {
			again, err := identity.ParseTrusted(trusted.PEM())
			if err != nil || again.Fingerprint() != trusted.Fingerprint() || again.Cluster() == "" {
				t.Errorf("read, written and read again: %v", err)
			}
		}
		identity.ParseAuthority(b, b)
	})
}

func FuzzSign(f *testing.F) {
	a, err := identity.NewAuthority("c-one", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	r, err := identity.NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.DER)
	f.Fuzz(func(t *testing.T, der []byte) {
		a.Sign(der, identity.Name{Cluster: "c-one", Role: identity.Worker, Node: "w1"}, time.Now(), time.Hour)
	})
}

// FuzzNodeFile opens folders whose files were written by anybody.
func FuzzNodeFile(f *testing.F) {
	dir := f.TempDir()
	if _, err := identity.Begin(dir, identity.Name{Cluster: "c-one", Role: identity.Coordinator, Node: "c1"}, time.Now()); err != nil {
		f.Fatal(err)
	}
	for i, name := range []string{"node.pem", "gossip.key", "ca.key", "ca.crt"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	good := map[string][]byte{}
	for _, name := range []string{"node.pem", "gossip.key", "ca.key", "ca.crt"} {
		good[name], _ = os.ReadFile(filepath.Join(dir, name))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		at := t.TempDir()
		for name, text := range good {
			os.WriteFile(filepath.Join(at, name), text, 0o600)
		}
		os.WriteFile(filepath.Join(at, []string{"node.pem", "gossip.key", "ca.key", "ca.crt"}[which%4]), b, 0o600)
		s, err := identity.Open(at)
		if err == nil && (s.Name().Check() != nil || len(s.Gossip()) == 0) {
			t.Errorf("opened as %+v", s.Name())
		}
	})
}
