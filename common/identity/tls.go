package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Accept judges whoever a certificate of this cluster names; nil lets it in.
type Accept func(Name) error

// Only accepts nodes of these roles. at is what they are kept from, as in "raft's port".
func Only(at string, roles ...Role) Accept {
	return func(n Name) error {
		for _, r := range roles {
			if n.Role == r {
				return nil
			}
		}
		return fmt.Errorf("%s is for a %s", at, roles[0])
	}
}

// Node accepts one node alone: who dials knows whom it means.
func Node(role Role, node string) Accept {
	return func(n Name) error {
		if n.Role != role || n.Node != node {
			return fmt.Errorf("%s %s was meant", role, node)
		}
		return nil
	}
}

// base is what all TLS here has in common. HTTP/2 is left out: the API's clients keep a connection for
// each request under way. Sessions are not resumed: a resumed one carries the certificate of its first handshake,
// and the connections of a cluster last.
func base(now func() time.Time) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true, Time: now}
}

// ServerTLS is TLS for what listens. clients says whether a certificate is asked for (tls.RequireAndVerifyClientCert,
// tls.VerifyClientCertIfGiven); one of another cluster is always refused, one of this cluster where accept says why.
// Without a certificate accept is not asked.
func (s *Store) ServerTLS(clients tls.ClientAuthType, accept Accept) *tls.Config {
	c := base(s.now)
	c.ClientAuth = clients
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		h := s.held.Load()
		c := base(s.now)
		c.ClientAuth, c.ClientCAs, c.Certificates = clients, h.pool, []tls.Certificate{h.cert}
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return judge(cs.PeerCertificates[0], h.name.Cluster, accept)
		}
		return c, nil
	}
	// For whoever looks into the configuration; connections take the one above.
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &s.held.Load().cert, nil }
	return c
}

// ClientTLS is TLS for what dials, with this node's certificate. expect judges who answers; nil takes every node
// of this cluster.
func (s *Store) ClientTLS(expect Accept) *tls.Config {
	c := base(s.now)
	c.InsecureSkipVerify = true // certificates name nodes, not hosts: VerifyConnection verifies
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		h := s.held.Load()
		return h.trusted.verify(cs, h.pool, s.now(), expect)
	}
	// Without this function a certificate that does not fit the server's list is silently kept back, and the node is a
	// stranger there instead of a node of another cluster.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		h := s.held.Load()
		if leaf := h.cert.Leaf; s.now().After(leaf.NotAfter) {
			return nil, &RefusedError{Why: Expired, Here: true, Text: fmt.Sprintf("the certificate of this node, %s, expired at %s: join the cluster again with an invite", h.name, leaf.NotAfter.UTC().Format(time.RFC3339))}
		}
		return &h.cert, nil
	}
	return c
}

// ClientTLS is TLS for who has no certificate, as a person with a token.
func (t Trusted) ClientTLS(expect Accept) *tls.Config {
	c := base(time.Now)
	c.InsecureSkipVerify = true
	pool := t.pool()
	c.VerifyConnection = func(cs tls.ConnectionState) error { return t.verify(cs, pool, time.Now(), expect) }
	return c
}

// PinnedTLS is TLS for who knows of the authority no more than its fingerprint, as from an invite. found is called with
// the authority once the server has shown to be of it.
func PinnedTLS(fp string, expect Accept, found func(Trusted)) *tls.Config {
	c := base(time.Now)
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		for _, sent := range cs.PeerCertificates[1:] {
			if _, err := clusterOf(sent); err != nil || fingerprint(sent) != fp {
				continue
			}
			t := Trusted{sent}
			if err := t.verify(cs, t.pool(), time.Now(), expect); err != nil {
				return err
			}
			if found != nil {
				found(t)
			}
			return nil
		}
		return &RefusedError{Why: OtherAuthority, Here: true, Text: fmt.Sprintf("%s is not of the cluster whose authority has the fingerprint %.16s...: it is another cluster's, or another program answers in its place", who(cs.PeerCertificates[0]), fp)}
	}
	return c
}

// verify is what a client asks of a server's certificate.
func (t Trusted) verify(cs tls.ConnectionState, pool *x509.CertPool, now time.Time, expect Accept) error {
	leaf := cs.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return judge(leaf, t.Cluster(), expect)
}

// judge looks at the name in a certificate that a trusted authority has signed.
func judge(leaf *x509.Certificate, cluster string, accept Accept) error {
	n, err := NameOf(leaf)
	if err != nil {
		return &RefusedError{Why: Nameless, Here: true, Text: err.Error()}
	}
	if n.Cluster != cluster {
		return &RefusedError{Why: OtherCluster, Here: true, Peer: n, Text: fmt.Sprintf("%s is not of cluster %s", n, cluster)}
	}
	if accept == nil {
		return nil
	}
	if err := accept(n); err != nil {
		return &RefusedError{Why: WrongRole, Here: true, Peer: n, Text: fmt.Sprintf("%s is refused: %v", n, err)}
	}
	return nil
}

// Peer is who is at the other end of a connection, once its handshake is done: ok is false where it has shown no
// certificate. For connections of this package's TLS, which has verified it.
func Peer(cs *tls.ConnectionState) (n Name, ok bool) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return Name{}, false
	}
	n, err := NameOf(cs.PeerCertificates[0])
	return n, err == nil
}
