package cli_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/webguard"
	"atelier/tuner/cli"
)

// pemFiles are a certificate for two names, and its key.
func pemFiles(t *testing.T, dir string, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return cert, key
}

// A link is made by whoever can read the token, for the names that the flags give.
func TestServeLink(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) result {
		var out, errs bytes.Buffer
		e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: func() time.Time { return now }, Dir: dir, Environ: []string{"XDG_CONFIG_HOME=" + dir}, Width: func() int { return 80 }}
		code := e.Run(t.Context(), args)
		return result{code, out.String(), errs.String()}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	if r := run("serve", "--link", "--listen", at); r.code != 3 || !strings.Contains(r.err, "start `atelier serve --listen "+at) || r.out != "" {
		t.Errorf("no web app: %+v", r)
	}
	file := filepath.Join(dir, "atelier", "serve", "127.0.0.1-"+port+".token")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	token := webguard.NewToken()
	if err := webguard.WriteToken(file, token); err != nil {
		t.Fatal(err)
	}
	cert, key := pemFiles(t, dir, "*.example", "box.example")
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, "http://127.0.0.1:" + port},
		{[]string{"--host", "gpu-box"}, "http://gpu-box:" + port},
		{[]string{"--tls-cert", cert, "--tls-key", key}, "https://box.example:" + port},
		{[]string{"--token-file", file, "--host", "gpu-box", "--tls-cert", cert, "--tls-key", key}, "https://gpu-box:" + port},
	} {
		r := run(append([]string{"serve", "--link", "--listen", at}, c.flags...)...)
		base, code, _ := strings.Cut(strings.TrimSpace(r.out), "/login#")
		if r.code != 0 || base != c.want || len(code) != 43 || strings.Contains(r.out+r.err, token.Reveal()) {
			t.Errorf("%v: %+v", c.flags, r)
		}
	}
	l.Close()
	if r := run("serve", "--link", "--listen", at); r.code != 3 || !strings.Contains(r.err, "no web app answers") {
		t.Errorf("a web app that was killed: %+v", r)
	}
	os.Chmod(file, 0o644)
	if r := run("serve", "--link", "--listen", at); r.code != 1 || !strings.Contains(r.err, "chmod 600 "+file) {
		t.Errorf("a token that others can read: %+v", r)
	}
}

func TestServeFlagsThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	cert, key := pemFiles(t, dir)
	for want, flags := range map[string][]string{
		"both --tls-cert and --tls-key":             {"--tls-cert", cert},
		"both --tls-cert and --tls-key ":            {"--tls-key", key},
		"give --tls-cert and --tls-key, or --insec": {"--listen", "0.0.0.0:0"},
		"without scheme and port":                   {"--link", "--listen", "127.0.0.1:1", "--host", "gpu-box:80"},
		"want the --listen HOST:PORT":               {"--link", "--listen", "127.0.0.1:0"},
	} {
		if r := run(t, dir, append([]string{"serve"}, flags...)...); r.code != 2 || !strings.Contains(r.err, strings.TrimSpace(want)) {
			t.Errorf("%v: %+v", flags, r)
		}
	}
	if r := run(t, dir, "serve", "--link", "--listen", "127.0.0.1:1", "--tls-cert", key, "--tls-key", cert); r.code != 1 || !strings.Contains(r.err, "--tls-cert") {
		t.Errorf("files exchanged: %+v", r)
	}
}
