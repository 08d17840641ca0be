package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/files"
	"atelier/common/secret"
)

// Files of a node's identity, in a folder that its own user alone may enter.
const (
	fileTrusted   = "ca.crt"     // authorities that are believed, the one that signed this node first
	fileAuthority = "ca.key"     // of coordinators alone
	fileNode      = "node.pem"   // certificate and key in one file: they change together
	fileGossip    = "gossip.key" // a key a line in base64, the first of them encrypts
)

// gossipKey is the length of a gossip key in bytes.
const gossipKey = 32

// Credentials are what makes a machine a member.
type Credentials struct {
	Node      []byte   // PEM: the certificate and the authority's
	Key       []byte   // PEM: the node's own key, which never leaves its machine
	Trusted   []byte   // PEM: authorities to believe
	Gossip    [][]byte // 32 bytes each, the first encrypts
	Authority []byte   // PEM: the authority's key; only coordinators are given it
}

// Request is what a machine asks for a certificate with.
type Request struct {
	DER []byte // PKCS #10
	Key []byte // PEM
}

// NewRequest makes a key and asks for a certificate of it.
func NewRequest() (Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Request{}, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return Request{der, keyPEM(key)}, err
}

// NewGossipKey makes a key for gossip.
func NewGossipKey() []byte {
	b := make([]byte, gossipKey)
	rand.Read(b)
	return b
}

// Store is a node's identity: on disk, and in all TLS that was made of it. What Install changes holds for
// every connection from then on; those that are open stay.
type Store struct {
	dir string
	now func() time.Time

	write sync.Mutex
	held  atomic.Pointer[held]
}

// held is what the files say.
type held struct {
	name      Name
	cert      tls.Certificate
	trusted   Trusted
	pool      *x509.CertPool
	gossip    [][]byte
	authority *Authority // nil where this node holds none
}

// Exists reports whether a folder holds an identity: whether its node is of a closed cluster.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, fileNode))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) { // a folder that is a file has none either
		return false, nil
	}
	return err == nil, err
}

// Open reads the identity in a folder.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, now: time.Now}
	var c Credentials
	node, err := s.secret(fileNode)
	if err != nil {
		return nil, err
	}
	if c.Node, c.Key, err = splitNode(node); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(fileNode), err)
	}
	if c.Trusted, err = os.ReadFile(s.path(fileTrusted)); err != nil {
		return nil, err
	}
	lines, err := s.secret(fileGossip)
	if err != nil {
		return nil, err
	}
	if c.Gossip, err = parseGossip(lines); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path(fileGossip), err)
	}
	if c.Authority, err = s.secret(fileAuthority); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	h, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s.held.Store(h)
	return s, nil
}

// Create writes a new identity into a folder and opens it.
func Create(dir string, c Credentials) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, now: time.Now}
	return s, s.Install(c)
}

// Begin makes the identity of a cluster's first coordinator, and with it the cluster's authority and gossip key.
func Begin(dir string, n Name, now time.Time) (*Store, error) {
	a, err := NewAuthority(n.Cluster, now)
	if err != nil {
		return nil, err
	}
	r, err := NewRequest()
	if err != nil {
		return nil, err
	}
	cert, err := a.Sign(r.DER, n, now, NodeLife)
	if err != nil {
		return nil, err
	}
	return Create(dir, Credentials{Node: cert, Key: r.Key, Trusted: a.Trusted().PEM(), Gossip: [][]byte{NewGossipKey()}, Authority: a.KeyPEM()})
}

// Install replaces the identity, on disk and in use. Empty fields stay as they are.
func (s *Store) Install(c Credentials) error {
	s.write.Lock()
	defer s.write.Unlock()
	if old := s.held.Load(); old != nil {
		c = c.over(old)
	}
	h, err := c.read()
	if err != nil {
		return err
	}
	if old := s.held.Load(); old != nil && old.name != h.name {
		return fmt.Errorf("the new certificate is of %s, this is %s", h.name, old.name)
	}
	// The node's own file last: a folder without it holds no identity yet.
	for _, f := range []struct {
		name string
		b    []byte
	}{{fileTrusted, c.Trusted}, {fileGossip, formatGossip(c.Gossip)}, {fileAuthority, c.Authority}, {fileNode, append(bytes.Clone(c.Node), c.Key...)}} {
		if len(f.b) == 0 {
			continue
		}
		if err := files.Write(s.path(f.name), f.b, 0o600); err != nil {
			return err
		}
	}
	s.held.Store(h)
	return nil
}

// over fills empty fields from what is held.
func (c Credentials) over(h *held) Credentials {
	if len(c.Node) == 0 {
		for _, der := range h.cert.Certificate {
			c.Node = append(c.Node, certPEM(der)...)
		}
		c.Key = keyPEM(h.cert.PrivateKey.(*ecdsa.PrivateKey))
	}
	if len(c.Trusted) == 0 {
		c.Trusted = h.trusted.PEM()
	}
	if len(c.Gossip) == 0 {
		c.Gossip = h.gossip
	}
	if len(c.Authority) == 0 && h.authority != nil {
		c.Authority = h.authority.KeyPEM()
	}
	return c
}

// read checks that all parts fit together.
func (c Credentials) read() (*held, error) {
	h := &held{gossip: c.Gossip}
	certs, err := parseCerts(c.Node)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	key, err := parseKey(c.Key)
	if err != nil {
		return nil, fmt.Errorf("the node's key: %w", err)
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, errors.New("the node's key does not belong to its certificate")
	}
	if h.name, err = NameOf(certs[0]); err != nil {
		return nil, err
	}
	h.cert = tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, cert := range certs {
		h.cert.Certificate = append(h.cert.Certificate, cert.Raw)
	}
	if h.trusted, err = ParseTrusted(c.Trusted); err != nil {
		return nil, fmt.Errorf("the trusted authorities: %w", err)
	}
	h.pool = h.trusted.pool()
	if h.trusted.Cluster() != h.name.Cluster {
		return nil, fmt.Errorf("the certificate is of %s, the trusted authority of cluster %s", h.name, h.trusted.Cluster())
	}
	// Whether it has expired is said where it is used.
	if !slices.ContainsFunc(h.trusted, func(ca *x509.Certificate) bool { return certs[0].CheckSignatureFrom(ca) == nil }) {
		return nil, fmt.Errorf("none of the trusted authorities has signed the certificate of %s", h.name)
	}
	if len(c.Authority) > 0 {
		if h.authority, err = ParseAuthority(c.Trusted, c.Authority); err != nil {
			return nil, err
		}
	}
	if len(h.gossip) == 0 {
		return nil, errors.New("no gossip key")
	}
	for _, k := range h.gossip {
		if len(k) != gossipKey {
			return nil, fmt.Errorf("a gossip key of %d bytes, not %d", len(k), gossipKey)
		}
	}
	return h, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// secret reads a file that nobody else may read.
func (s *Store) secret(name string) ([]byte, error) {
	return secret.ReadFile(s.path(name))
}

// parseGossip reads a key a line.
func parseGossip(b []byte) ([][]byte, error) {
	var out [][]byte
	for line := range strings.FieldsSeq(string(b)) {
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(k) != gossipKey || len(out) == maxTrusted {
			return nil, fmt.Errorf("want at most %d keys of %d bytes in base64, one per line", maxTrusted, gossipKey)
		}
		out = append(out, k)
	}
	return out, nil
}

func formatGossip(keys [][]byte) []byte {
	var b []byte
	for _, k := range keys {
		b = append(base64.StdEncoding.AppendEncode(b, k), '\n')
	}
	return b
}

// Name is who this node is.
func (s *Store) Name() Name { return s.held.Load().name }

// Trusted are the authorities that this node believes.
func (s *Store) Trusted() Trusted { return s.held.Load().trusted }

// Gossip are the keys of gossip; the first encrypts, all decrypt.
func (s *Store) Gossip() [][]byte { return s.held.Load().gossip }

// Authority is the cluster's, nil on a node that does not hold it.
func (s *Store) Authority() *Authority { return s.held.Load().authority }

// Certificate is this node's own.
func (s *Store) Certificate() *x509.Certificate { return s.held.Load().cert.Leaf }
