package board

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/redis/go-redis/v9"

	"atelier/common/secret"
)

// userinfo is what stands before the last @ of a URL's authority: a password may
// hold anything, also what should have been escaped.
var userinfo = regexp.MustCompile(`://(.*)@`)

// Password reports whether an address holds one.
func Password(addr string) bool {
	m := userinfo.FindStringSubmatch(addr)
	return m != nil && strings.Contains(m[1], ":")
}

// Mask is an address as it may be shown.
func Mask(addr string) string {
	return userinfo.ReplaceAllStringFunc(addr, func(s string) string {
		user, _, secret := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(s, "://"), "@"), ":")
		if !secret {
			return s
		}
		return "://" + user + ":xxxxx@"
	})
}

// Split takes the password out of an address. One that is not a URL, or a wrong one, comes back
// as it is: Open says what is wrong with it.
func Split(addr string) (string, secret.Text) {
	o, err := redis.ParseURL(addr)
	if err != nil || o.Password == "" {
		return addr, secret.Text{}
	}
	u, err := url.Parse(addr)
	if err != nil {
		return addr, secret.Text{}
	}
	name := u.User.Username()
	if u.User = nil; name != "" {
		u.User = url.User(name)
	}
	return u.String(), secret.New(o.Password)
}

// parse reads HOST:PORT or a URL. Its errors name the address without what may be a password.
func parse(addr string) (*redis.Options, error) {
	if !strings.Contains(addr, "://") {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			if at := strings.LastIndex(addr, "@"); at >= 0 {
				addr = "xxxxx" + addr[at:]
			}
			return nil, fmt.Errorf("%q: want HOST:PORT, or a URL such as redis://USER@HOST:PORT/DB", addr)
		}
		return &redis.Options{Addr: addr}, nil
	}
	o, err := redis.ParseURL(addr)
	if u, e := url.Parse(addr); err == nil && e == nil && o.Network == "unix" && u.Host != "" {
		err = fmt.Errorf("%s is taken for a host: want unix:///FOLDER/redis.sock with three slashes", u.Host)
	}
	if err == nil {
		return o, nil
	}
	if strings.Contains(addr, "@") {
		// The library's words quote pieces of the address, and they may be any.
		err = errors.New("characters such as / # ? % and @ in a password have to be escaped there; a password file needs no escapes")
	}
	return nil, fmt.Errorf("%s is not a URL such as redis://USER@HOST:PORT/DB (rediss:// with TLS, unix:///PATH for a socket): %w", Mask(addr), err)
}

// Certificates are files in PEM for a Redis with TLS; all may be "".
type Certificates struct {
	CA        string // signed Redis's certificate; "" = the system's
	Cert, Key string // shown to a Redis that wants one (tls-auth-clients)
}

// config adds them to what the address asks for. The own certificate is read again for each
// connection: a renewed one counts without a restart.
func (c Certificates) config(o *redis.Options) error {
	if c == (Certificates{}) {
		return nil
	}
	if o.TLSConfig == nil {
		return errors.New("certificates are of no use without TLS: begin the address with rediss://")
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return fmt.Errorf("the CA of Redis: %w", err)
		}
		o.TLSConfig.RootCAs = x509.NewCertPool()
		if !o.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("the CA of Redis: no certificate in %s", c.CA)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("a certificate for Redis needs its key, and a key its certificate: give both files")
	}
	if c.Cert == "" {
		return nil
	}
	if _, err := c.pair(); err != nil {
		return err
	}
	o.TLSConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.pair() }
	return nil
}

func (c Certificates) pair() (*tls.Certificate, error) {
	cert, err := os.ReadFile(c.Cert)
	if err != nil {
		return nil, fmt.Errorf("the certificate for Redis: %w", err)
	}
	key, err := secret.ReadFile(c.Key)
	if err != nil {
		return nil, fmt.Errorf("the key for Redis: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the certificate for Redis: %s and %s: %w", c.Cert, c.Key, err)
	}
	return &pair, nil
}

// dialTLS makes connections with TLS that say, when they fail, at what.
func dialTLS(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
		defer cancel()
		c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		t := tls.Client(c, config)
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, &handshakeError{addr, err}
		}
		return t, nil
	}
}

// handshakeError is a connection that was made, and spoke no TLS with us.
type handshakeError struct {
	addr  string
	cause error
}

func (e *handshakeError) Error() string {
	return fmt.Sprintf("TLS handshake with %s: %v", e.addr, e.cause)
}
func (e *handshakeError) Unwrap() error { return e.cause }

// explain adds what to do to the refusals of a password and of certificates.
func explain(err error) error {
	if err == nil {
		return nil
	}
	for _, sign := range []string{"NOAUTH", "WRONGPASS", "NOPERM"} {
		if strings.Contains(err.Error(), sign) {
			return fmt.Errorf("%w: see --redis-password-file (or ATELIER_REDIS_PASSWORD), and the user in --redis redis://USER@HOST:PORT", err)
		}
	}
	var foreign *tls.CertificateVerificationError
	var handshake *handshakeError
	switch {
	case errors.As(err, &foreign):
		return fmt.Errorf("%w: see --redis-ca-file, and whether the certificate names the host of --redis", err)
	case strings.Contains(err.Error(), "certificate required"):
		return fmt.Errorf("%w: Redis wants a certificate of ours: see --redis-cert-file and --redis-key-file", err)
	case errors.As(err, &handshake) && !strings.Contains(err.Error(), "remote error"):
		return fmt.Errorf("%w: does Redis speak TLS there (its tls-port)? without TLS the address begins with redis://", err)
	}
	return err
}
