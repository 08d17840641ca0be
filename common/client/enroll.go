package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"atelier/common/identity"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// Enrolled is what a machine gets that joins a closed cluster.
type Enrolled struct {
	identity.Credentials
	API    []string // addresses of the coordinators
	Gossip []string // their gossip addresses
}

// enrollAttempt bounds one attempt at one coordinator: the log may have to elect a leader first.
const enrollAttempt = 10 * time.Second

// Enroll joins a closed cluster under a name. It repeats the request until it is answered or ctx ends, and tells waiting
// now and then why it is not; an answer that refuses it is final. Only a cluster whose authority has the invitation's
// fingerprint is shown the secret.
func Enroll(ctx context.Context, i identity.Invitation, role identity.Role, node string, waiting func(error)) (Enrolled, error) {
	r, err := identity.NewRequest()
	if err != nil {
		return Enrolled{}, err
	}
	var mu sync.Mutex
	var shown identity.Trusted
	pinned := identity.PinnedTLS(i.Fingerprint, identity.Only("the API", identity.Coordinator), func(t identity.Trusted) {
		mu.Lock()
		defer mu.Unlock()
		shown = t
	})
	c := New(i.Addresses, WithoutFollowing(), WithAttemptTimeout(enrollAttempt), WithRetryFor(enrollAttempt), WithTLS(pinned))
	defer c.Close()
	as := atelierv1.Role_ROLE_WORKER
	if role == identity.Coordinator {
		as = atelierv1.Role_ROLE_COORDINATOR
	}
	// One key for all attempts: by it the cluster knows that it is the same machine that asks.
	req := &atelierv1.EnrollRequest{Invitation: i.Secret, Role: as, Node: node, Request: r.DER}
	m, err := ask(ctx, c.raw.Cluster.Enroll, req)
	for err != nil {
		var refused *identity.RefusedError
		if ctx.Err() != nil || connect.CodeOf(err) != connect.CodeUnavailable || errors.As(err, &refused) && refused.Why == identity.OtherAuthority {
			return Enrolled{}, err
		}
		waiting(err)
		m, err = ask(ctx, c.raw.Cluster.Enroll, req)
	}
	e := enrolled(m, r)
	mu.Lock()
	defer mu.Unlock()
	trusted, err := identity.ParseTrusted(e.Trusted)
	if err != nil {
		return Enrolled{}, err
	}
	for _, t := range trusted { // what is believed from now on must hold the one that was shown
		if t.Equal(shown[0]) {
			return e, nil
		}
	}
	return Enrolled{}, errors.New("the cluster hands out other authorities than the one that its invitation names")
}

// Renew asks for the next certificate of this client's node.
func (c *Client) Renew(ctx context.Context) (identity.Credentials, error) {
	r, err := identity.NewRequest()
	if err != nil {
		return identity.Credentials{}, err
	}
	m, err := ask(ctx, c.raw.Cluster.Renew, &atelierv1.RenewRequest{Request: r.DER})
	if err != nil {
		return identity.Credentials{}, err
	}
	return enrolled(m, r).Credentials, nil
}

func enrolled(m *atelierv1.EnrollResponse, r identity.Request) Enrolled {
	return Enrolled{identity.Credentials{Node: m.Certificate, Key: r.Key, Trusted: m.Trusted, Gossip: m.GossipKeys, Authority: m.AuthorityKey}, m.ApiAddresses, m.GossipAddresses}
}
