package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Why is the kind of a refusal. Programs branch on it, never on the words.
type Why string

// The kinds of refusals.
const (
	OtherCluster   Why = "other cluster"
	OtherAuthority Why = "other authority" // a certificate that none of the trusted authorities has signed
	WrongRole      Why = "wrong role"      // or another node than the one meant
	Expired        Why = "expired"         // or not valid yet
	NoCertificate  Why = "no certificate"
	Nameless       Why = "nameless"        // a certificate that names no node
	PlainText      Why = "plain text"      // one side speaks TLS, the other one does not
	BadCertificate Why = "bad certificate" // the peer's words for other cluster, wrong role, nameless
	Silent         Why = "silent"          // no handshake within its time
)

// RefusedError is a connection that one side refused for who the other is.
type RefusedError struct {
	Why  Why
	Here bool // this side refused, else the other one did
	Peer Name // where it has named itself; else zero
	Text string
}

func (e *RefusedError) Error() string { return e.Text }

// Explain turns the error of a connection into a RefusedError that says what was wrong and what to do, where it is
// one; any other error stays as it is. In TLS 1.3 the refused side hears no more than a word, and only with its first
// read: pass the errors of reads and writes here, too.
func Explain(err error) error {
	var known *RefusedError
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &verify):
		return unverified(verify)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return &RefusedError{Why: PlainText, Here: true, Text: "it does not speak TLS: its side of the cluster is open (begun without --tls), or the port is another program's"}
	}
	text := err.Error()
	for _, r := range remarks {
		if strings.Contains(text, r.has) {
			return &RefusedError{Why: r.why, Here: r.here, Text: r.text}
		}
	}
	return err
}

// remarks are errors that Go gives by their text alone.
var remarks = []struct {
	has  string
	here bool
	why  Why
	text string
}{
	{"client didn't provide a certificate", true, NoCertificate, "it showed no certificate: only members of the cluster may connect here"},
	{"tls: client offered only unsupported versions", true, PlainText, "it speaks an older TLS than 1.3"},
	{"tls: unknown certificate authority", false, OtherAuthority, "the other side refuses this node's certificate: it is of another cluster's authority. Give this node the addresses of its own cluster, or join that one with an invite"},
	{"tls: expired certificate", false, Expired, "the other side refuses this node's certificate: it has expired (or the clocks of the two machines differ). Look at the clocks; if it has expired, join the cluster again with an invite"},
	{"tls: certificate required", false, NoCertificate, "the other side is a closed cluster and asks for a certificate, this node has none: join the cluster with an invite"},
	{"tls: bad certificate", false, BadCertificate, "the other side refuses this node's certificate: it is of another cluster, or of a role that has no business there"},
	{"tls: protocol version not supported", false, PlainText, "the other side asks for another version of TLS: 1.3 alone is spoken here"},
	{"Client sent an HTTP request to an HTTPS server", false, PlainText, "the other side speaks TLS, this one does not: the cluster is closed; join it with an invite, or log in"},
}

// unverified says what is wrong with a certificate that was shown here.
func unverified(e *tls.CertificateVerificationError) error {
	if len(e.UnverifiedCertificates) == 0 {
		return &RefusedError{Why: BadCertificate, Here: true, Text: e.Err.Error()}
	}
	leaf := e.UnverifiedCertificates[0]
	peer, _ := NameOf(leaf)
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(e.Err, &authority):
		return &RefusedError{Why: OtherAuthority, Here: true, Peer: peer, Text: who(leaf) + " shows a certificate of another authority: it is of another cluster"}
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		return &RefusedError{Why: Expired, Here: true, Peer: peer, Text: fmt.Sprintf("the certificate of %s counts from %s to %s only: look at the clocks of both machines; if it has expired, let the node join again with an invite",
			who(leaf), leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))}
	}
	return &RefusedError{Why: BadCertificate, Here: true, Peer: peer, Text: who(leaf) + ": " + e.Err.Error()}
}

// who is a certificate's holder as it says itself, for people.
func who(c *x509.Certificate) string {
	if n, err := NameOf(c); err == nil {
		return n.String()
	}
	return fmt.Sprintf("%.100q", c.Subject.CommonName)
}

// gone reports whether a peer left before or during its handshake: a port scan, a health check.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
