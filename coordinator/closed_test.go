package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/secret"
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

// invite makes an invitation through the log, as the API does for an admin.
func (c *testCluster) invite(role access.Role, node string, uses int32) string {
	c.t.Helper()
	secret := access.NewInvite()
	hash := secret.Hash()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := c.waitLeader()
	now := time.Now().UnixMilli()
	res, err := l.node.Propose(ctx, &logv1.Command{TimeMs: now, Op: &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{
		Id: secret.ID, Role: atelierv1.Role(role), Node: node, Sha256: hash[:], ExpiresMs: now + time.Hour.Milliseconds(), Uses: uses}}})
	if err != nil || res.Err != nil {
		c.t.Fatal(err, res.Err)
	}
	return identity.Invitation{Addresses: []string{l.Addresses().API}, Fingerprint: c.identityOf("c1").Trusted().Fingerprint(), Secret: secret.Text()}.Text()
}

// startClosed starts a closed cluster of n coordinators.
func startClosed(t *testing.T, n int) *testCluster {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	c := &testCluster{t: t, dir: t.TempDir()}
	first := c.start("c1", "--bootstrap", "--tls")
	until(t, "the first one leads", func() bool { return c.leader() == first })
	for _, id := range []string{"c2", "c3", "c4", "c5"}[:n-1] {
		c.start(id, "--join", c.invite(access.Coordinator, "", 1))
	}
	c.untilVoters(n)
	return c
}

// admin is how the first admin speaks to the cluster.
func (c *testCluster) admin() []client.Option {
	c.t.Helper()
	file := member.AdminFile(filepath.Join(c.dir, "c1"))
	until(c.t, "the cluster has an admin", func() bool { n := c.leader(); return n != nil && len(n.machine.View().Tokens()) > 0 })
	token, err := secret.FromFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	return []client.Option{client.WithTLS(c.identityOf("c1").Trusted().ClientTLS(nil)), client.WithToken(token)}
}

// The coordinator that begins a closed cluster leaves the first admin's token to its own user, in its data folder
// and where this user's programs look; a start later makes no other, and leaves none that was revoked.
func TestFirstAdmin(t *testing.T) {
	c := startClosed(t, 1)
	settings := access.Settings(os.Getenv)
	_, port, _ := net.SplitHostPort(c.nodes[0].Addresses().API)
	as := c.admin()
	var login access.Login
	until(t, "the login is there", func() (ok bool) { login, ok, _ = access.ReadLogin(settings, port); return ok })
	for _, file := range []string{member.AdminFile(filepath.Join(c.dir, "c1")), filepath.Join(access.LocalLogins(settings), port+".json")} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if strings.Contains(c.nodes[0].log.String(), login.Token.Reveal()[17:]) {
		t.Error("the token is in the log")
	}
	api := client.New([]string{login.Addr}, as...)
	defer api.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	who, err := api.WhoAmI(ctx)
	if err != nil || who.Role != "admin" || who.Name != "first-admin" {
		t.Fatalf("%+v, %v", who, err)
	}
	next := access.NewToken()
	if _, err := api.CreateToken(ctx, next, "ada", access.Admin, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := api.RevokeToken(ctx, "first-admin"); err != nil {
		t.Fatal(err)
	}
	if _, err := api.ListTokens(ctx); client.ExitCode(err) != client.ExitRefused || !strings.Contains(client.Message(err), "was revoked") {
		t.Errorf("after it was revoked: %v", err)
	}
	c.nodes[0].end(t)
	again := c.start("c1")
	until(t, "it leads", func() bool { return c.leader() == again })
	if n := len(again.machine.View().Tokens()); n != 2 {
		t.Errorf("%d tokens after a start", n)
	}
	until(t, "the login of the revoked token is gone", func() bool { _, ok, _ := access.ReadLogin(settings, port); return !ok })
}

// A follower hands a request on in the name of its caller, and nobody can borrow another one's: not by headers that
// coordinators use among themselves, nor by having a request handed on without a credential.
func TestFollowersHandTheCallerOn(t *testing.T) {
	c := startClosed(t, 3)
	as := c.admin()
	l := c.leader()
	worker := c.signed(t.TempDir(), identity.Worker, "w1", time.Now(), time.Hour)
	anybody := c.identityOf("c1").Trusted().ClientTLS(nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	api := client.New([]string{l.Addresses().API}, as...)
	defer api.Close()
	viewer := access.NewToken()
	if _, err := api.CreateToken(ctx, viewer, "viv", access.Viewer, 0); err != nil {
		t.Fatal(err)
	}
	post := func(n *node, secure *tls.Config, method, body string, headers ...string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+n.Addresses().API+"/atelier.v1."+method, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		transport := &http.Transport{TLSClientConfig: secure}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	bearer := "Bearer " + viewer.Text()
	for _, n := range c.nodes {
		for _, x := range []struct {
			what    string
			secure  *tls.Config
			method  string
			body    string
			headers []string
			want    int
		}{
			{"a worker", worker.ClientTLS(nil), "WorkerService/Heartbeat", `{"worker":{"name":"w1","incarnation":"i1"}}`, nil, 200},
			{"a worker as another", worker.ClientTLS(nil), "WorkerService/Heartbeat", `{"worker":{"name":"w2"}}`, nil, 403},
			{"a worker as a coordinator", worker.ClientTLS(nil), "ClusterService/RemoveMember", `{"id":"c3"}`, []string{"Atelier-Forwarded-By", "c1", "Atelier-Caller", "coordinator c1"}, 403},
			{"a viewer", anybody, "SweepService/ListSweeps", `{}`, []string{"Authorization", bearer}, 200},
			{"a viewer who makes a sweep", anybody, "SweepService/CreateSweep", `{}`, []string{"Authorization", bearer}, 403},
			{"a viewer as a worker", anybody, "WorkerService/Heartbeat", `{"worker":{"name":"w1","incarnation":"i1"}}`, []string{"Authorization", bearer, "Atelier-Caller", "worker w1"}, 403},
			{"a stranger as a worker", anybody, "WorkerService/Heartbeat", `{"worker":{"name":"w1","incarnation":"i1"}}`, []string{"Atelier-Caller", "worker w1"}, 401},
			{"a stranger as one handed on", anybody, "ClusterService/RemoveMember", `{"id":"c3"}`, []string{"Atelier-Forwarded-By", "c1"}, 401},
			{"a stranger", anybody, "SweepService/ListSweeps", `{}`, nil, 401},
		} {
			if got, text := post(n, x.secure, x.method, x.body, x.headers...); got != x.want {
				t.Errorf("%s at %s (the leader: %v): %d %s, want %d", x.what, n.Config.ID, n == l, got, text, x.want)
			}
		}
	}
	// What the leader gets of a coordinator counts as handed on for nobody, where it names nobody.
	node := c.identityOf("c2").ClientTLS(nil)
	for _, headers := range [][]string{{"Atelier-Forwarded-By", "c2"}, {"Atelier-Forwarded-By", "c2", "Atelier-Caller", "admin ada"}} {
		if got, text := post(l, node, "ClusterService/RemoveMember", `{"id":"c3"}`, headers...); got != 401 {
			t.Errorf("handed on for nobody: %d %s", got, text)
		}
	}
	// A token that was just made is known at once, and one that was revoked is refused, by whichever node.
	for range 3 {
		token := access.NewToken()
		if _, err := api.CreateToken(ctx, token, "new", access.Viewer, 0); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if got, text := post(n, anybody, "ClusterService/GetNode", `{}`, "Authorization", "Bearer "+token.Text()); got != 200 {
				t.Errorf("a new token at %s: %d %s", n.Config.ID, got, text)
			}
		}
		if _, err := api.RevokeToken(ctx, "new"); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if got, text := post(n, anybody, "SweepService/ListSweeps", `{}`, "Authorization", "Bearer "+token.Text()); got != 401 {
				t.Errorf("a revoked token at %s: %d %s", n.Config.ID, got, text)
			}
		}
	}
}

func TestClosedClusterWorksAsAnOpenOneDoes(t *testing.T) {
	c := startClosed(t, 3)
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addresses().API)
	}
	as := c.admin()
	api := client.New(addrs, as...)
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
		one := client.New([]string{n.Addresses().API}, append(as, client.WithoutFollowing())...)
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

// Machines that an invitation does not let in are told why, and so is the log.
func TestInvitationsThatLetNobodyIn(t *testing.T) {
	c := startClosed(t, 2)
	here := c.leader()
	used := c.invite(access.Coordinator, "", 1)
	c.start("c3", "--join", used)
	text, err := identity.ParseInvitation(used)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(change func(*identity.Invitation)) string {
		i := text
		change(&i)
		return i.Text()
	}
	for _, x := range []struct{ what, text, want string }{
		{"used up", used, "has been used, by c3"},
		{"for a worker", c.invite(access.Worker, "", 1), "is for a worker, not for a coordinator"},
		{"for another name", c.invite(access.Coordinator, "c8", 1), "is for c8, not for c9"},
		{"a guess", wrong(func(i *identity.Invitation) { i.Secret = access.NewInvite().Text() }), "not one of this cluster"},
		{"not even a guess", wrong(func(i *identity.Invitation) { i.Secret = "x" }), "not one of this cluster"},
		{"to another cluster", wrong(func(i *identity.Invitation) { i.Fingerprint = strings.Repeat("ab", 32) }), "is not of the cluster whose authority has the fingerprint"},
	} {
		n, err := c.launch("c9", "--join", x.text)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err = <-n.ended:
			n.ended <- nil
		case <-time.After(60 * time.Second):
			t.Fatalf("%s: still waiting\n%s", x.what, n.log)
		}
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.what, err, x.want)
		}
		if strings.Contains(n.log.String(), text.Secret) || strings.Contains(err.Error(), text.Secret) {
			t.Errorf("%s: the secret is in the log or the error", x.what)
		}
	}
	if there, err := identity.Exists(member.TLSFolder(filepath.Join(c.dir, "c9"))); there || err != nil {
		t.Errorf("who was not let in has an identity: %v, %v", there, err)
	}
	if strings.Contains(here.log.String(), text.Secret) {
		t.Error("the leader has logged a secret")
	}
}

// A member that asks for its next certificate gets it under its own name, and what it does not hold itself.
func TestRenewal(t *testing.T) {
	c := startClosed(t, 1)
	at := []string{c.nodes[0].Addresses().API}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := c.signed(t.TempDir(), identity.Worker, "w1", time.Now(), time.Minute)
	api := client.New(at, client.WithTLS(w.ClientTLS(nil)))
	defer api.Close()
	next, err := api.Renew(ctx)
	if err != nil {
		t.Fatal(err)
	}
	was := w.Certificate()
	if err := w.Install(next); err != nil || !w.Certificate().NotAfter.After(was.NotAfter) || w.Name().Node != "w1" || w.Authority() != nil {
		t.Errorf("renewed: %v, %s until %s", err, w.Name(), w.Certificate().NotAfter)
	}
	stray := client.New(at, client.WithTLS(c.signed(t.TempDir(), identity.Coordinator, "c7", time.Now(), time.Minute).ClientTLS(nil)))
	defer stray.Close()
	if _, err := stray.Renew(ctx); err == nil || !strings.Contains(err.Error(), "is not a member of this cluster") {
		t.Errorf("a coordinator that is not a member: %v", err)
	}
	person := client.New(at, client.WithTLS(c.identityOf("c1").Trusted().ClientTLS(nil)))
	defer person.Close()
	if _, err := person.Renew(ctx); err == nil || client.ExitCode(err) != client.ExitRefused {
		t.Errorf("without a certificate: %v", err)
	}
	if err := c.identityOf("c1").Install(identity.Credentials{Node: next.Node, Key: next.Key}); err == nil {
		t.Error("a coordinator took a worker's certificate for its own")
	}
}
