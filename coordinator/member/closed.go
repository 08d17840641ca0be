package member

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"atelier/common/client"
	"atelier/common/identity"
)

// apiPending bounds the handshakes under way at the API: clients come in swarms.
const apiPending = 1024

// enclose opens this node's identity, where its cluster is closed: where the folder holds one, or where it is to begin
// such a cluster.
func (m *Member) enclose() error {
	dir := m.folder.TLS()
	there, err := identity.Exists(dir)
	switch {
	case err != nil:
		return err
	case there:
		return m.reopen(dir)
	case !m.cfg.TLS:
		return nil
	case !m.fresh:
		return fmt.Errorf("--tls: data folder %s is of an open cluster, which --tls does not close: leave it out, or begin a closed cluster in an empty folder", m.cfg.Data)
	case !m.cfg.Bootstrap:
		return errors.New("--tls is for the coordinator that begins a closed cluster with --bootstrap; others learn from whom they join that it is closed")
	case len(m.cfg.Join) > 0 || m.cfg.Invitation != nil:
		return errors.New("--bootstrap --tls begins a closed cluster, which has no other members yet: leave --join out")
	}
	m.clusterID = newClusterID()
	name := identity.Name{Cluster: m.clusterID, Role: identity.Coordinator, Node: m.cfg.ID}
	if m.store, err = identity.Begin(dir, name, time.Now()); err != nil {
		return fmt.Errorf("begin a closed cluster: %w", err)
	}
	if _, err = m.adminToken(); err != nil {
		return err
	}
	m.log.Info("begins a closed cluster: it has an authority of its own, of which this node keeps the key", "folder", dir, "fingerprint", m.store.Trusted().Fingerprint())
	return nil
}

// reopen reads the identity that the folder holds.
func (m *Member) reopen(dir string) (err error) {
	if m.store, err = identity.Open(dir); err != nil {
		return fmt.Errorf("the identity of this node: %w", err)
	}
	n := m.store.Name()
	if n.Role != identity.Coordinator || n.Node != m.cfg.ID {
		return fmt.Errorf("%s is the identity of %s, not of coordinator %s: give each node its own --data", dir, n, m.cfg.ID)
	}
	if m.store.Authority() == nil {
		return fmt.Errorf("%s has no ca.key, without which a coordinator cannot sign certificates: empty %s and join again with an invite", dir, m.cfg.Data)
	}
	if m.fresh && m.cfg.Bootstrap { // the process ended before raft began
		m.clusterID = n.Cluster
	}
	return nil
}

// Enroll joins the closed cluster that this node is invited to, unless it is of one already. It comes before Listen, which
// needs the certificate.
func (m *Member) Enroll(ctx context.Context) error {
	i := m.cfg.Invitation
	switch {
	case i == nil:
		return nil
	case m.store != nil:
		m.log.Info("the invitation is not used: the data folder has an identity already", "member", m.store.Name())
		return nil
	case !m.fresh:
		return fmt.Errorf("--join: data folder %s is of an open cluster: empty it to join a closed one", m.cfg.Data)
	}
	m.log.Info("joins a closed cluster", "api", i.Addresses, "fingerprint", i.Fingerprint)
	e, err := client.Enroll(ctx, *i, identity.Coordinator, m.cfg.ID, func(err error) {
		m.log.Warn("waiting to join", "api", i.Addresses, "error", err)
	})
	if err != nil {
		return fmt.Errorf("--join: %s", client.Message(err))
	}
	// The seeds first: with its identity the folder needs no invitation any more.
	m.self.ID, m.self.Seeds = m.cfg.ID, e.Gossip
	if err := m.folder.Remember(m.self); err != nil {
		return err
	}
	m.store, err = identity.Create(m.folder.TLS(), e.Credentials)
	return err
}

// KeepFresh renews this node's certificate until ctx ends. It holds the authority, so it asks no other.
func (m *Member) KeepFresh(ctx context.Context) {
	if m.store != nil {
		m.store.KeepFresh(ctx, m.log, m.store.RenewSelf)
	}
}

// Store is this node's identity, nil where its cluster is open.
func (m *Member) Store() *identity.Store { return m.store }

// guardAPI does the handshakes of the API's connections. Machines show a certificate, people none.
func (m *Member) guardAPI(l net.Listener) net.Listener {
	return identity.Listen(l, m.store.ServerTLS(tls.VerifyClientCertIfGiven, nil), identity.Options{Pending: apiPending, Refused: m.refuser("api")})
}

// guardRaft lets only coordinators of this cluster in.
func (m *Member) guardRaft(l net.Listener) net.Listener {
	only := identity.Only("raft's port", identity.Coordinator)
	return identity.Listen(l, m.store.ServerTLS(tls.RequireAndVerifyClientCert, only), identity.Options{Refused: m.refuser("raft")})
}

// refuser logs who was refused, and has it listed.
func (m *Member) refuser(port string) func(net.Addr, error) {
	log := identity.LogRefused(m.log, port)
	return func(from net.Addr, err error) {
		log(from, err)
		var r *identity.RefusedError
		list := m.listRefusal.Load()
		if list == nil || !errors.As(err, &r) {
			return
		}
		who := r.Peer.String()
		if r.Peer == (identity.Name{}) {
			host, _, _ := net.SplitHostPort(from.String())
			who = "a caller at " + host
		}
		(*list)(who, "connect to "+port, r.Text)
	}
}

// ListRefusals has list called for each connection that is refused: who came, what for, and why it was refused.
func (m *Member) ListRefusals(list func(who, what, why string)) { m.listRefusal.Store(&list) }

// ClientTLS is for this node's calls to the API of other coordinators; nil where the cluster is open.
func (m *Member) ClientTLS() *tls.Config {
	if m.store == nil {
		return nil
	}
	return m.store.ClientTLS(identity.Only("the API", identity.Coordinator))
}

// dialRaft connects to the coordinator id and no other.
func (m *Member) dialRaft(id, addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	d := tls.Dialer{Config: m.store.ClientTLS(identity.Node(identity.Coordinator, id))}
	return d.DialContext(ctx, "tcp", addr)
}

// claims compares whom a coordinator says it is in raft's handshake with its certificate.
func claims(c net.Conn, id string) error {
	t, ok := c.(*tls.Conn)
	if !ok {
		return errors.New("the connection is not encrypted")
	}
	cs := t.ConnectionState()
	if n, ok := identity.Peer(&cs); !ok || n.Node != id {
		return fmt.Errorf("%s calls itself %s", n, id)
	}
	return nil
}
