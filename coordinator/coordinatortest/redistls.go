package coordinatortest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TLSRedis is a Redis that is also reached with TLS, where it wants a certificate of its
// clients, and by a unix socket. Everyone gives user and password; the plain port, by
// which tests look into it, knows the default user.
type TLSRedis struct {
	*Redis
	TLSAddr string // 127.0.0.1:PORT, which its certificate names
	Socket  string
	// Files in PEM: the CA of both sides, a certificate for clients, and the same of another CA.
	CA, Cert, Key                      string
	ForeignCA, ForeignCert, ForeignKey string
}

// StartTLSRedis starts one with a user beside the default one, who may do what deploy/docs/operate.md says it needs, below
// the prefix atelier:. It keeps the hash of the password alone.
func StartTLSRedis(t *testing.T, user string, password string) *TLSRedis {
	t.Helper()
	dir, err := os.MkdirTemp("", "redis") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &TLSRedis{TLSAddr: l.Addr().String(), Socket: filepath.Join(dir, "redis.sock")}
	l.Close()
	ours, foreign := newAuthority(t, dir, "ours"), newAuthority(t, dir, "foreign")
	serverCert, serverKey := ours.sign("server")
	r.CA, r.ForeignCA = ours.file, foreign.file
	r.Cert, r.Key = ours.sign("client")
	r.ForeignCert, r.ForeignKey = foreign.sign("client")
	_, port, _ := net.SplitHostPort(r.TLSAddr)
	r.Redis = StartRedis(t, "--tls-port", port, "--tls-cert-file", serverCert, "--tls-key-file", serverKey, "--tls-ca-cert-file", ours.file,
		"--tls-auth-clients", "yes", "--unixsocket", r.Socket, "--unixsocketperm", "700", "--user", user, "on", "#"+fmt.Sprintf("%x", sha256.Sum256([]byte(password))), "resetchannels", "~atelier:*", "+@read", "+@write", "+@scripting", "+@connection", "+@transaction", "+time")
	return r
}

// authority is a CA of a test.
type authority struct {
	t    *testing.T
	dir  string
	name string
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, name: name}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.file, _ = a.make("ca", template)
	return a
}

// sign makes a certificate for 127.0.0.1 with its key.
func (a *authority) sign(name string) (cert, key string) {
	a.t.Helper()
	return a.make(name, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
}

// make signs a template and writes certificate and key. The first one signs itself.
func (a *authority) make(name string, template *x509.Certificate) (cert, key string) {
	a.t.Helper()
	must := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, k
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, signer)
	must(err)
	if a.cert == nil {
		a.cert, err = x509.ParseCertificate(der)
		must(err)
		a.key = k
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	must(err)
	cert, key = filepath.Join(a.dir, a.name+"-"+name+".crt"), filepath.Join(a.dir, a.name+"-"+name+".key")
	must(os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return cert, key
}
