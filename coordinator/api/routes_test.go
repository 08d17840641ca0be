package api_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/access"
	"atelier/common/identity"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/api"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
	"atelier/coordinator/state"
)

// closed is a closed cluster of one node, and callers of every kind.
type closed struct {
	*node.Node
	t    *testing.T
	url  string
	http map[string]*http.Client // by who calls
}

// tokenOf writes a token into the state, as its admin would, and returns its text.
func (c *closed) tokenOf(name string, role access.Role, expires int64) access.Credential {
	c.t.Helper()
	token := access.NewToken()
	c.propose(&logv1.Command{TimeMs: 1, Op: &logv1.Command_CreateToken{CreateToken: state.NewToken(token, name, role, expires)}})
	return token
}

func (c *closed) propose(cmd *logv1.Command) {
	c.t.Helper()
	r, err := c.Replica.Propose(coordinatortest.Context(c.t), cmd)
	if err != nil || r.Err != nil {
		c.t.Fatal(err, r.Err)
	}
}

// calls are clients with a token of a text.
func (c *closed) calls(text string) coordinatortest.API {
	return coordinatortest.DialAs(c.url, c.Store.Trusted().ClientTLS(nil), text)
}

// member is a client with a certificate of a cluster.
func member(t *testing.T, of, expect *identity.Store, role identity.Role, name string, life time.Duration) *http.Client {
	t.Helper()
	request, err := identity.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := of.Authority().Sign(request.DER, identity.Name{Cluster: of.Name().Cluster, Role: role, Node: name}, time.Now(), life)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, request.Key)
	if err != nil {
		t.Fatal(err)
	}
	secure := expect.Trusted().ClientTLS(nil)
	secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	return &http.Client{Transport: &http.Transport{TLSClientConfig: secure}}
}

func startClosed(t *testing.T) *closed {
	t.Helper()
	c := &closed{Node: node.Start(t, node.Options{Closed: true}), t: t, http: map[string]*http.Client{}}
	c.url = "https://" + c.Addr
	person := func(who, text string) { c.http[who] = c.calls(text).HTTP }
	person("without a credential", "")
	person("no token", "opensesame")
	person("viewer", c.tokenOf("viv", access.Viewer, 0).Text())
	person("operator", c.tokenOf("ola", access.Operator, 0).Text())
	person("admin", c.tokenOf("ada", access.Admin, 0).Text())
	person("unknown token", access.NewToken().Text())
	person("expired token", c.tokenOf("old", access.Admin, 2).Text())
	gone := c.tokenOf("gone", access.Admin, 0)
	person("revoked token", gone.Text())
	c.propose(&logv1.Command{TimeMs: 2, Op: &logv1.Command_RevokeToken{RevokeToken: &logv1.RevokeToken{Id: gone.ID}}})
	forged := access.NewToken()
	forged.ID = gone.ID
	person("forged token", forged.Text())
	invite := access.NewInvite()
	hash := invite.Hash()
	c.propose(&logv1.Command{TimeMs: 2, Op: &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{Id: invite.ID, Role: atelierv1.Role(access.Worker), Sha256: hash[:], ExpiresMs: 1 << 50, Uses: 1}}})
	person("invitation", invite.Text())
	c.http["worker"] = member(t, c.Store, c.Store, identity.Worker, "w1", identity.NodeLife)
	c.http["coordinator"] = member(t, c.Store, c.Store, identity.Coordinator, "c2", identity.NodeLife)
	c.http["expired certificate"] = member(t, c.Store, c.Store, identity.Coordinator, "c2", -time.Minute)
	foreign, err := identity.Begin(t.TempDir(), identity.Name{Cluster: "c-other", Role: identity.Coordinator, Node: "c9"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.http["certificate of another cluster"] = member(t, foreign, c.Store, identity.Coordinator, "c9", identity.NodeLife)
	return c
}

// ask sends one request and returns its status; 0 where there was no connection.
func ask(t *testing.T, h *http.Client, method, url string, header http.Header) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(coordinatortest.Context(t), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := h.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b)
}

// Every declared route, asked by every kind of caller with every method, refuses all but whom its
// row allows, with the status of the fault. Streams are asked as connect asks them.
func TestEveryRouteRefusesWhoMayNot(t *testing.T) {
	c := startClosed(t)
	has := map[string]access.Role{"viewer": access.Viewer, "operator": access.Operator, "admin": access.Admin, "worker": access.Worker, "coordinator": access.Coordinator}
	noConnection := map[string]bool{"expired certificate": true, "certificate of another cluster": true}
	counted := map[int]int{}
	for _, route := range api.Routes() {
		methods := map[string]access.Need{http.MethodPost: route.Write}
		if !strings.HasPrefix(route.Path, "/atelier.") {
			methods = map[string]access.Need{http.MethodGet: route.Need, http.MethodPut: route.Write, http.MethodDelete: route.Write}
		}
		for method, need := range methods {
			for who, h := range c.http {
				path := route.Path
				if strings.HasSuffix(path, "/") {
					path += "s-1/1/1"
				}
				status, text := ask(t, h, method, c.url+path, nil)
				counted[status]++
				role := has[who]
				what := fmt.Sprintf("%s %s by %s", method, path, who)
				switch {
				case noConnection[who]:
					if status != 0 {
						t.Errorf("%s: %d, want no connection", what, status)
					}
				case role == access.Worker && strings.Contains(text, "the certificate is of worker w1, the request of worker"):
					// It came to the method, which looks at whom the (empty) message is of.
				case need.Allows(role):
					if status == http.StatusUnauthorized || status == http.StatusForbidden || status == 0 {
						t.Errorf("%s: %d %s, and it is allowed", what, status, text)
					}
				case role == access.Nobody:
					if status != http.StatusUnauthorized {
						t.Errorf("%s: %d %.200s, want 401", what, status, text)
					}
				case status != http.StatusForbidden || !strings.Contains(text, need.Lowest()):
					t.Errorf("%s: %d %.200s, want 403 and the role %s", what, status, text, need.Lowest())
				}
			}
		}
	}
	if counted[401] < 200 || counted[403] < 100 || counted[0] < 80 {
		t.Errorf("answers by status: %v", counted)
	}
}

// What no row declares is not found, whatever it is under.
func TestUndeclaredIsNotFound(t *testing.T) {
	c := startClosed(t)
	for _, path := range []string{"/", "/atelier.v1.ClusterService/", "/atelier.v1.ClusterService/Nuke", "/debug/pprof/", "/metrics/x", "/atelier.v1.ClusterService/GetNode/x"} {
		for _, who := range []string{"admin", "without a credential"} {
			if status, _ := ask(t, c.http[who], http.MethodPost, c.url+path, nil); status != http.StatusNotFound {
				t.Errorf("%s by %s: %d, want 404", path, who, status)
			}
		}
	}
}

// Whoever is refused is named in the list, with the reason and how often.
func TestRefusalsAreListed(t *testing.T) {
	c := startClosed(t)
	list := "/atelier.v1.AccessService/ListTokens"
	for range 3 {
		ask(t, c.http["revoked token"], http.MethodPost, c.url+list, nil)
	}
	ask(t, c.http["worker"], http.MethodPost, c.url+list, nil)
	admin := c.calls(c.tokenOf("admin-2", access.Admin, 0).Text())
	coordinatortest.Until(t, "both are listed", func() bool {
		got := coordinatortest.Call(t, admin.Access.ListAudit, &atelierv1.ListAuditRequest{Limit: 10})
		revoked, worker := false, false
		for _, e := range got.Entries {
			revoked = revoked || e.What == "ListTokens" && strings.Contains(e.Refused, "(gone) was revoked") && e.Count == 3 && e.By == "a caller at 127.0.0.1" && e.About == "at n1"
			worker = worker || e.What == "ListTokens" && e.By == "worker w1" && strings.Contains(e.Refused, "needs admin")
		}
		return revoked && worker
	})
}

// A person's change is listed under the token's name; the open cluster, which knows nobody, refuses
// tokens and lists nothing.
func TestChangesAreListed(t *testing.T) {
	c := startClosed(t)
	ola := c.calls(c.tokenOf("ola-2", access.Operator, 0).Text())
	made := coordinatortest.Call(t, ola.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{RequestId: "q1", SpecYaml: coordinatortest.Spec(2, 1)}).Sweep
	coordinatortest.Call(t, ola.Sweeps.ControlSweep, &atelierv1.ControlSweepRequest{RequestId: "q2", Id: made.Id, Action: wire.ToAction(trial.ActionCancel)})
	admin := c.calls(c.tokenOf("admin-2", access.Admin, 0).Text())
	var got []string
	for _, e := range coordinatortest.Call(t, admin.Access.ListAudit, &atelierv1.ListAuditRequest{By: "ola-2"}).Entries {
		got = append(got, e.What+" "+e.About)
	}
	if want := fmt.Sprint([]string{"create sweep " + made.Id, "cancel sweep " + made.Id}); fmt.Sprint(got) != want {
		t.Errorf("listed %v, want %s", got, want)
	}
	open := node.Start(t, node.Options{})
	coordinatortest.Call(t, open.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{RequestId: "q1", SpecYaml: coordinatortest.Spec(2, 1)})
	if acts := open.Machine.View().Acts(); len(acts) != 0 {
		t.Errorf("an open cluster lists %v", acts)
	}
	who := coordinatortest.Call(t, open.Access.WhoAmI, &atelierv1.WhoAmIRequest{})
	if who.Closed || who.Name != "" {
		t.Errorf("in an open cluster: %v", who)
	}
	coordinatortest.Refused(t, "a token of an open cluster", open.Access.CreateToken, &atelierv1.CreateTokenRequest{}, connect.CodeFailedPrecondition, "open")
}

// WhoAmI says who is known, and what is wrong with a credential, without one of its own.
func TestWhoAmI(t *testing.T) {
	c := startClosed(t)
	for who, want := range map[string]string{"viewer": `"name":"viv"`, "worker": `"role":"ROLE_WORKER"`, "without a credential": `{"closed":true}`, "revoked token": "was revoked", "expired token": "has expired", "forged token": "does not know it"} {
		status, text := ask(t, c.http[who], http.MethodPost, c.url+"/atelier.v1.AccessService/WhoAmI", nil)
		if text = strings.ReplaceAll(text, " ", ""); status != 200 || !strings.Contains(text, strings.ReplaceAll(want, " ", "")) {
			t.Errorf("%s: %d %s", who, status, text)
		}
	}
}
