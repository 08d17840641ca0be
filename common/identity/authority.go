package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"time"
)

const (
	// AuthorityLife is how long an authority may sign and is believed.
	AuthorityLife = 10 * 365 * 24 * time.Hour
	// NodeLife is how long a node's certificate counts; it is renewed after two thirds.
	NodeLife = 30 * 24 * time.Hour
	// backdate is by how much clocks of machines may differ.
	backdate = time.Hour
)

// Authority signs the certificates of one cluster. Who holds it can become any node, so only
// coordinators do.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes the authority of a new cluster (ECDSA P-256).
func NewAuthority(cluster string, now time.Time) (*Authority, error) {
	if !part.MatchString(cluster) {
		return nil, fmt.Errorf("%q is not the id of a cluster", cluster)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Atelier cluster " + cluster}, URIs: []*url.URL{{Scheme: scheme, Host: cluster}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(AuthorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert, key}, err
}

// ParseAuthority reads an authority from PEM text.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	certs, err := ParseTrusted(certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	// Several are trusted while one takes over from another.
	for _, c := range certs {
		if key.PublicKey.Equal(c.PublicKey) {
			return &Authority{c, key}, nil
		}
	}
	return nil, errors.New("the key of the authority belongs to none of the trusted certificates")
}

// Cluster is the id of the cluster that it signs for.
func (a *Authority) Cluster() string { return a.cert.URIs[0].Host }

// Trusted is what nodes are to believe: its own certificate.
func (a *Authority) Trusted() Trusted { return Trusted{a.cert} }

// KeyPEM is its secret.
func (a *Authority) KeyPEM() []byte { return keyPEM(a.key) }

// Sign makes a certificate of a request (DER), which proves that who asks has the key. Nothing but the
// public key is taken from the request. The answer is PEM: the certificate and the authority's own.
func (a *Authority) Sign(request []byte, n Name, now time.Time, life time.Duration) ([]byte, error) {
	if err := n.Check(); err != nil {
		return nil, err
	}
	if n.Cluster != a.Cluster() {
		return nil, fmt.Errorf("the authority of cluster %s cannot sign for %s", a.Cluster(), n)
	}
	csr, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(n.URI())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: n.String()}, URIs: []*url.URL{u},
		NotBefore: now.Add(min(-backdate, life)), NotAfter: now.Add(life), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(certPEM(der), certPEM(a.cert.Raw)), nil
}

// parseRequest reads a request for a certificate and checks that who made it has the key.
func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("the request for a certificate cannot be read: %w", err)
	}
	if k, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("the request for a certificate has another key than ECDSA P-256")
	}
	return csr, nil
}

// RequestKey is the SHA-256 of the public key of a request, by which a machine that asks again is known.
func RequestKey(request []byte) (sum [sha256.Size]byte, err error) {
	csr, err := parseRequest(request)
	if err != nil {
		return sum, err
	}
	return sha256.Sum256(csr.RawSubjectPublicKeyInfo), nil
}

// serial is a random number that no other certificate has.
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// Trusted are certificates of authorities that are believed: one, or two while one takes over.
type Trusted []*x509.Certificate

// Cluster is the id of the cluster of which they are.
func (t Trusted) Cluster() string { return t[0].URIs[0].Host }

// PEM is how they are kept and sent.
func (t Trusted) PEM() []byte {
	var b []byte
	for _, c := range t {
		b = append(b, certPEM(c.Raw)...)
	}
	return b
}

// pool is for verification.
func (t Trusted) pool() *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range t {
		p.AddCert(c)
	}
	return p
}

// Fingerprint of the first one, by which a person or an invite knows it: hex SHA-256 of the certificate.
func (t Trusted) Fingerprint() string { return fingerprint(t[0]) }

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
