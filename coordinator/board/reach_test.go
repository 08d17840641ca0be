package board_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/secret"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
)

// A Redis by TLS and by a unix socket, with a user and a certificate of ours; whatever is wrong
// is said with what to do, and without the password.
func TestReachRedis(t *testing.T) {
	const password = "s3cret/p@ss"
	r := coordinatortest.StartTLSRedis(t, "board", password)
	ours := board.Certificates{CA: r.CA, Cert: r.Cert, Key: r.Key}
	shown := filepath.Join(t.TempDir(), "shown.key")
	b, err := os.ReadFile(r.Key)
	if err != nil || os.WriteFile(shown, b, 0o644) != nil {
		t.Fatal(err)
	}
	inside := "rediss://board:" + url.QueryEscape(password) + "@" + r.TLSAddr + "/0"
	good := secret.New(password)
	for name, c := range map[string]struct {
		addr     string
		password secret.Text
		certs    board.Certificates
		says     string // "" = a mark is read
	}{
		"tls":                {"rediss://board@" + r.TLSAddr + "/0", good, ours, ""},
		"password inside":    {inside, secret.Text{}, ours, ""},
		"wrong password":     {"rediss://board@" + r.TLSAddr + "/0", secret.New("wr0ng"), ours, "--redis-password-file"},
		"no CA":              {"rediss://board@" + r.TLSAddr + "/0", good, board.Certificates{Cert: r.Cert, Key: r.Key}, "--redis-ca-file"},
		"another CA":         {"rediss://board@" + r.TLSAddr + "/0", good, board.Certificates{CA: r.ForeignCA, Cert: r.Cert, Key: r.Key}, "--redis-ca-file"},
		"another name":       {"rediss://board@" + strings.Replace(r.TLSAddr, "127.0.0.1", "localhost", 1) + "/0", good, ours, "--redis-ca-file"},
		"no certificate":     {"rediss://board@" + r.TLSAddr + "/0", good, board.Certificates{CA: r.CA}, "--redis-cert-file"},
		"foreign one":        {"rediss://board@" + r.TLSAddr + "/0", good, board.Certificates{CA: r.CA, Cert: r.ForeignCert, Key: r.ForeignKey}, "tls"},
		"a plain port":       {"rediss://board@" + r.Addr + "/0", good, ours, "does Redis speak TLS there"},
		"no TLS":             {"redis://board@" + r.Addr + "/0", good, ours, "rediss://"},
		"plain":              {"redis://board@" + r.Addr + "/0", good, board.Certificates{}, ""},
		"socket":             {"unix://board@" + r.Socket, good, board.Certificates{}, ""},
		"socket, other user": {"unix://nobody@" + r.Socket, good, board.Certificates{}, "WRONGPASS"},
		"no socket":          {"unix:///nosuch/redis.sock", secret.Text{}, board.Certificates{}, "/nosuch/redis.sock"},
		"relative socket":    {"unix://run/redis.sock", secret.Text{}, board.Certificates{}, "three slashes"},
		"key without":        {"rediss://board@" + r.TLSAddr, good, board.Certificates{Key: r.Key}, "both files"},
		"no such CA":         {"rediss://board@" + r.TLSAddr, good, board.Certificates{CA: "/nosuch"}, "/nosuch"},
		"key that is shown":  {"rediss://board@" + r.TLSAddr, good, board.Certificates{Cert: r.Cert, Key: shown}, "chmod 600"},
		"no PEM":             {"rediss://board@" + r.TLSAddr, good, board.Certificates{CA: r.Key}, "no certificate"},
	} {
		x, err := board.Open(board.Options{Addr: c.addr, Password: c.password, Certificates: c.certs, Prefix: "atelier:"})
		if err == nil {
			// Two: the first connection may end before it is told why.
			for range 2 {
				if _, err = x.Mark(context.Background()); err == nil {
					break
				}
			}
			x.Close()
		}
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
		if text := fmt.Sprint(err); strings.Contains(text, "s3cret") || strings.Contains(text, "p@ss") || strings.Contains(text, "wr0ng") {
			t.Errorf("%s: the password shows: %s", name, text)
		}
	}
}

func TestSplit(t *testing.T) {
	for addr, want := range map[string][2]string{
		"127.0.0.1:6379":                   {"127.0.0.1:6379", ""},
		"redis://u@h:1/2":                  {"redis://u@h:1/2", ""},
		"redis://u:p%2Fq@h:1/2?protocol=2": {"redis://u@h:1/2?protocol=2", "p/q"},
		"rediss://:p@h:1":                  {"rediss://h:1", "p"},
		"unix://u:p@/run/r.sock?db=1":      {"unix://u@/run/r.sock?db=1", "p"},
		"redis://u:p@h:1/x":                {"redis://u:p@h:1/x", ""}, // Open says what is wrong
	} {
		got, password := board.Split(addr)
		if got != want[0] || password.Reveal() != want[1] {
			t.Errorf("Split(%s) = %s, %q", addr, got, password.Reveal())
		}
	}
}
