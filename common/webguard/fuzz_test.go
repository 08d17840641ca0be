package webguard_test

import (
	"encoding/json"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/webguard"
)

// A Host that is let in leads a browser to this machine: localhost or a loopback address.
func FuzzHost(f *testing.F) {
	for _, h := range []string{"127.0.0.1:8501", "localhost", "[::1]:1", "evil.example", "[::ffff:127.0.0.1]", "[::1%25lo]:80", "localhost.", "@localhost", "localhost:", "[localhost]"} {
		f.Add(h)
	}
	s := start(f, "127.0.0.1:8501")
	f.Fuzz(func(t *testing.T, host string) {
		if strings.ContainsAny(host, "\r\n") || s.ask("GET", "/login", "", "Host: "+host).StatusCode == 421 {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil {
			return // no browser sends it
		}
		name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		ip, err := netip.ParseAddr(name)
		if name != "localhost" && (err != nil || !ip.Unmap().WithZone("").IsLoopback()) {
			t.Errorf("%q is let in: %s", host, name)
		}
	})
}

// No body but that of a link signs in.
func FuzzSignIn(f *testing.F) {
	for _, b := range []string{`{"once":"x"}`, `{"once":""}`, "[[[[", `{"once":"\ud800"}`, "null", "", `{"once":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`} {
		f.Add(b)
	}
	s := start(f, "127.0.0.1:8501")
	f.Fuzz(func(t *testing.T, body string) {
		resp := s.ask("POST", "/login", body, "Content-Type: application/json")
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode < 400 || resp.StatusCode > 499 || len(resp.Cookies()) > 0 || !json.Valid(b) {
			t.Errorf("%d %s", resp.StatusCode, b)
		}
	})
}

// What a token file is read as can be sent as a header.
func FuzzToken(f *testing.F) {
	for _, b := range []string{"Authorization: Bearer 0123456789012345678901234567890123456789", "0123456789012345678901234567890123456789\n", "Authorization:", "\xff", ""} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := webguard.ReadToken(file)
		if err != nil {
			return
		}
		if text := token.Reveal(); len(text) < 32 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q", text)
		}
	})
}
