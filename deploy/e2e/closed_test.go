package e2e_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"
	"atelier/common/secret"
	"atelier/common/trial"
)

// closedCluster is one of real processes, and its first admin.
type closedCluster struct {
	first  *daemon
	admin  *client.Client
	shared *identity.Store // the identity of the first coordinator, read from its folder
}

// beginClosed starts the first coordinator of a closed cluster.
func beginClosed(t *testing.T, ctx context.Context, id string) *closedCluster {
	t.Helper()
	c := &closedCluster{first: startDaemon(t, "atelier-coordinator", "--id", id, "--bootstrap", "--tls")}
	api := c.first.address(t, ctx, "api")
	var err error
	c.shared, err = identity.Open(filepath.Join(c.first.data, "tls"))
	must(t, err)
	var token secret.Text
	for token, err = secret.FromFile(filepath.Join(c.first.data, "tls", "admin.token")); err != nil; token, err = secret.FromFile(filepath.Join(c.first.data, "tls", "admin.token")) {
		if ctx.Err() != nil {
			t.Fatalf("the cluster has no admin: %v\n%s", err, &c.first.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.admin = client.New([]string{api}, client.WithTLS(c.shared.Trusted().ClientTLS(nil)), client.WithToken(token))
	t.Cleanup(c.admin.Close)
	for who, err := c.admin.WhoAmI(ctx); err != nil || who.Role != "admin"; who, err = c.admin.WhoAmI(ctx) { // once it is in the log
		if ctx.Err() != nil {
			t.Fatalf("the admin is %+v, %v", who, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return c
}

// invite makes an invitation.
func (c *closedCluster) invite(t *testing.T, ctx context.Context, role access.Role) string {
	t.Helper()
	made := access.NewInvite()
	got, err := c.admin.CreateInvite(ctx, made, client.Invitation{Role: role})
	must(t, err)
	return identity.Invitation{Addresses: got.Addrs, Fingerprint: hex.EncodeToString(got.CA), Secret: made.Text()}.Text()
}

// signed is an identity in a folder that the cluster's authority signed at some time for an hour.
func (c *closedCluster) signed(t *testing.T, dir string, role identity.Role, node string, at time.Time) *identity.Store {
	t.Helper()
	r, err := identity.NewRequest()
	must(t, err)
	cert, err := c.shared.Authority().Sign(r.DER, identity.Name{Cluster: c.shared.Name().Cluster, Role: role, Node: node}, at, time.Hour)
	must(t, err)
	s, err := identity.Create(dir, identity.Credentials{Node: cert, Key: r.Key, Trusted: c.shared.Trusted().PEM(), Gossip: c.shared.Gossip()})
	must(t, err)
	return s
}

// Three coordinators and two workers, joined by invitations, carry out a sweep over TLS; its logs and checkpoints are read
// through the coordinators; and each port refuses a machine of another cluster, one of a role that has no business there,
// one whose certificate has expired and one without TLS, and names it.
func TestClosedCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	c := beginClosed(t, ctx, "c1")
	var addrs []string
	for _, id := range []string{"c2", "c3"} {
		d := startDaemon(t, "atelier-coordinator", "--id", id, "--join", c.invite(t, ctx, access.Coordinator))
		addrs = append(addrs, d.address(t, ctx, "api"))
		d.says(t, ctx, "member of the cluster")
	}
	used := c.invite(t, ctx, access.Worker)
	w1 := startDaemon(t, "atelier-worker", "--name", "w1", "--join", used)
	w1.says(t, ctx, "serves a cluster")
	w2 := startDaemon(t, "atelier-worker", "--name", "w2", "--join", c.invite(t, ctx, access.Worker))
	w2.says(t, ctx, "serves a cluster")

	id := submit(t, ctx, c.admin, "search_method: random\nseed: 1\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 6}\ntrainer: sim\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\ntraining: {epochs: 3, epoch_seconds: 0.05}\n")
	if s := await(t, ctx, c.admin, id, "the sweep has ended", ended); s.Status != trial.SweepFinished {
		t.Fatalf("the sweep is %v", s.Status)
	}
	on := map[string]int{}
	for _, x := range trials(t, ctx, c.admin, id) {
		if x.Status != trial.Finished {
			t.Errorf("trial %d is %v", x.Number, x.Status)
		}
		on[x.LastRun().Worker]++
	}
	if on["w1"] == 0 || on["w2"] == 0 {
		t.Errorf("trials by worker: %v", on)
	}
	kept, _, err := c.admin.Checkpoints(ctx, id, 0, client.From{})
	must(t, err)
	if len(kept) == 0 || !strings.HasPrefix(string(kept[0].Location), "https://") {
		t.Fatalf("checkpoints: %+v", kept)
	}
	list, err := c.admin.Workers(ctx)
	must(t, err)
	for i, at := range append(addrs, c.first.address(t, ctx, "api")) { // the leader, and others that hand it on
		near := client.New([]string{at}, append(c.as(t), client.WithoutFollowing())...)
		must(t, near.Files("").Pull(ctx, &kept[i%len(kept)], filepath.Join(t.TempDir(), "model.pth")))
		for _, w := range list {
			if _, err := near.Files("").Open(ctx, near.WorkerURL(w.Address, "/logs/none/1/run-1.log")); client.CodeOf(err) != client.CodeNotFound {
				t.Errorf("a log that is not there: %v", err)
			}
			if _, err := near.Files("").Open(ctx, near.WorkerURL(w.Address, "/metrics")); err == nil {
				t.Error("a coordinator passes on more than files and logs")
			}
		}
		near.Close()
	}
	if _, err := c.admin.Files("").Open(ctx, "https://127.0.0.1:1/logs/x/1/run-1.log"); err == nil || !strings.Contains(err.Error(), "no worker of this cluster is known") {
		t.Errorf("an address that is no worker's: %v", err)
	}

	late := startDaemon(t, "atelier-worker", "--name", "w3", "--join", used)
	late.says(t, ctx, "has been used, by w1")
	if strings.Contains(late.log.String(), used[len(used)-60:]) {
		t.Error("the invitation is in the log")
	}
	c.refuses(t, ctx, w1)
}

// as is how the admin speaks to one coordinator.
func (c *closedCluster) as(t *testing.T) []client.Option {
	t.Helper()
	token, err := secret.FromFile(filepath.Join(c.first.data, "tls", "admin.token"))
	must(t, err)
	return []client.Option{client.WithTLS(c.shared.Trusted().ClientTLS(nil)), client.WithToken(token)}
}

// refuses knocks at every port of the first coordinator and of a worker.
func (c *closedCluster) refuses(t *testing.T, ctx context.Context, w *daemon) {
	t.Helper()
	other := beginClosed(t, ctx, "c9")
	blind := func(s *identity.Store) *tls.Config { // believes whoever answers
		cfg := s.ClientTLS(nil)
		cfg.VerifyConnection = nil
		return cfg
	}
	// One that does not look at its own clock: a node itself would not even dial.
	dir := t.TempDir()
	expired := blind(c.signed(t, dir, identity.Coordinator, "c7", time.Now().Add(-2*time.Hour)))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "node.pem"), filepath.Join(dir, "node.pem"))
	must(t, err)
	expired.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	files := w.address(t, ctx, "listen")
	api, raft := c.first.address(t, ctx, "api"), c.first.address(t, ctx, "raft")
	for _, x := range []struct {
		what, at string
		cfg      *tls.Config
		told     string
		by       *daemon
		says     string
	}{
		{"another cluster's coordinator at the API", api, blind(other.shared), "another cluster's authority", c.first, "api: a connection was refused"},
		{"another cluster's coordinator at raft's port", raft, blind(other.shared), "another cluster's authority", c.first, "raft: a connection was refused"},
		{"another cluster's coordinator at a worker", files, blind(other.shared), "another cluster's authority", w, "coordinator c9 of cluster " + other.shared.Name().Cluster},
		{"a worker at raft's port", raft, c.signed(t, t.TempDir(), identity.Worker, "w8", time.Now()).ClientTLS(nil), "refuses this node's certificate", c.first, "worker w8 of cluster " + c.shared.Name().Cluster + " is refused: raft's port is for a coordinator"},
		{"an expired one at the API", api, expired, "it has expired", c.first, "the certificate of coordinator c7"},
		{"an expired one at raft's port", raft, expired, "it has expired", c.first, "the certificate of coordinator c7"},
		{"an expired one at a worker", files, expired, "it has expired", w, "the certificate of coordinator c7"},
		{"a person at raft's port", raft, c.shared.Trusted().ClientTLS(nil), "asks for a certificate", c.first, "showed no certificate"},
	} {
		conn, err := (&tls.Dialer{Config: x.cfg}).DialContext(ctx, "tcp", x.at)
		if err == nil {
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err = identity.Explain(err); err == nil || !strings.Contains(err.Error(), x.told) {
			t.Errorf("%s is told: %v", x.what, err)
		}
		x.by.says(t, ctx, x.says)
	}
	for _, at := range []string{api, raft, files} {
		conn, err := net.Dial("tcp", at)
		must(t, err)
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		b, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.Contains(string(b), "this cluster is closed") {
			t.Errorf("without TLS %s answers %q", at, b)
		}
	}
	stray := startDaemon(t, "atelier-worker", "--name", "w9", "--join", c.first.address(t, ctx, "gossip"))
	stray.says(t, ctx, "perhaps another cluster")
	c.first.says(t, ctx, "gossips with this closed cluster")
	if on, err := c.admin.Workers(ctx); err != nil || len(on) != 2 {
		t.Errorf("%d workers, %v", len(on), err)
	}
}
