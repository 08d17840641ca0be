package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/identity"
	"atelier/common/proto/atelier/v1/atelierv1connect"
)

// enlist gives a node of an authority's cluster an identity in a folder.
func enlist(t *testing.T, a *identity.Authority, dir string, role identity.Role, node string, at time.Time) *identity.Store {
	t.Helper()
	r, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(r.DER, identity.Name{Cluster: a.Cluster(), Role: role, Node: node}, at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s, err := identity.Create(dir, identity.Credentials{Node: cert, Key: r.Key, Trusted: a.Trusted().PEM(), Gossip: [][]byte{make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func authority(t *testing.T, cluster string) *identity.Authority {
	t.Helper()
	a, err := identity.NewAuthority(cluster, time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// startClosedCoordinator is startCoordinator over TLS, for workers with a certificate.
func startClosedCoordinator(t *testing.T, s *identity.Store, training string) (*coordinator, string) {
	t.Helper()
	c := &coordinator{ttl: 2 * time.Second, training: training, epochs: map[uint64]int{}}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewWorkerServiceHandler(c))
	mux.Handle(atelierv1connect.NewClusterServiceHandler(c))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(identity.Listen(l, s.ServerTLS(tls.RequireAndVerifyClientCert, identity.Only("this test", identity.Worker)), identity.Options{}))
	t.Cleanup(func() { srv.Close() })
	return c, l.Addr().String()
}

func TestWorkerOfAClosedCluster(t *testing.T) {
	one, two := authority(t, "c-one"), authority(t, "c-two")
	api := enlist(t, one, t.TempDir(), identity.Coordinator, "c1", time.Now())
	c, at := startClosedCoordinator(t, api, `{"epochs":100000,"epoch_seconds":0.02,"checkpoint_every":1}`)
	data := t.TempDir()
	enlist(t, one, filepath.Join(data, "tls"), identity.Worker, "w1", time.Now())
	p := startProgram(t, data, at)
	c.until(t, "the run reports", 10*time.Second, func() bool { return c.epochs[1] > 3 })
	get := func(cfg *tls.Config, path string) (int, string) {
		t.Helper()
		web := client.FileClient(cfg)
		defer web.CloseIdleConnections()
		scheme := "https://"
		if cfg == nil {
			scheme = "http://"
		}
		resp, err := web.Get(scheme + p.listen + path)
		if err != nil {
			return 0, identity.Explain(err).Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	blind := func(s *identity.Store) *tls.Config {
		c := s.ClientTLS(nil)
		c.VerifyConnection = nil
		return c
	}
	w2 := enlist(t, one, t.TempDir(), identity.Worker, "w2", time.Now())
	stranger := enlist(t, two, t.TempDir(), identity.Worker, "w9", time.Now())
	person := one.Trusted().ClientTLS(nil)
	const metrics, links = "/metrics", "/groups/1/1/2"
	for _, x := range []struct {
		what string
		cfg  *tls.Config
		path string
		code int
		says string
	}{
		{"another worker", w2.ClientTLS(nil), metrics, 200, "atelier_worker_slots"},
		{"a coordinator", api.ClientTLS(nil), metrics, 200, "atelier_worker_slots"},
		{"a person", person, metrics, 401, "only members"},
		{"a person", person, "/logs/s-test/1/run-1.log", 401, "only members"},
		{"a person", person, "/checkpoints/s-test/1/x.pth", 401, "only members"},
		{"a person", person, links, 401, "only members"},
		{"a person", person, "/healthz", 200, "ok"},
		{"another cluster's worker", blind(stranger), "/healthz", 0, "another cluster's authority"},
		{"who speaks without TLS", nil, "/healthz", 400, "closed"},
	} {
		code, body := get(x.cfg, x.path)
		if code != x.code || !strings.Contains(body, x.says) {
			t.Errorf("%s asks for %s: %d %q, want %d %q", x.what, x.path, code, body, x.code, x.says)
		}
	}
	for end := time.Now().Add(30 * time.Second); !strings.Contains(p.log.String(), "worker w9 of cluster c-two"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stranger is not named in the worker's log")
		}
	}
	if strings.Contains(p.log.String(), "without encryption") {
		t.Error("the worker says that its links are not encrypted")
	}
}

// A worker of another cluster, an expired one and one under another name learn why nothing comes of it.
func TestWorkersThatAClosedClusterDoesNotTake(t *testing.T) {
	one, two := authority(t, "c-one"), authority(t, "c-two")
	_, at := startClosedCoordinator(t, enlist(t, one, t.TempDir(), identity.Coordinator, "c1", time.Now()), `{}`)
	for _, x := range []struct {
		what string
		as   *identity.Authority
		node string
		at   time.Time
		says string
	}{
		{"of another cluster", two, "w1", time.Now(), "coordinator c1 of cluster c-one shows a certificate of another authority"},
		{"expired", one, "w1", time.Now().Add(-2 * time.Hour), "the certificate of this node, worker w1 of cluster c-one, expired at"},
	} {
		data := t.TempDir()
		enlist(t, x.as, filepath.Join(data, "tls"), identity.Worker, x.node, x.at)
		p := startProgram(t, data, at)
		for end := time.Now().Add(30 * time.Second); !strings.Contains(p.log.String(), x.says); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s: it does not say %q:\n%s", x.what, x.says, p.log)
				break
			}
		}
		p.Process.Kill()
		p.wait(t, 10*time.Second)
	}
	m := NewMain()
	data := t.TempDir()
	enlist(t, one, filepath.Join(data, "tls"), identity.Coordinator, "w1", time.Now())
	m.Config = Config{Name: "w1", Data: data}
	if err := m.openIdentity(t.Context(), &home{}); err == nil || !strings.Contains(err.Error(), "identity of coordinator w1 of cluster c-one, not of worker w1") {
		t.Errorf("under a coordinator's identity: %v", err)
	}
}
