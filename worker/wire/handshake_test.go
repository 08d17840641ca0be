package wire

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestAnswerIsReadToItsEnd(t *testing.T) {
	r := strings.NewReader("HTTP/1.1 101 Switching Protocols\r\nUpgrade: Atelier-Link\r\n\r\nfrom the trainer")
	if a, err := readAnswer(r); err != nil || a.status != 101 || r.Len() != len("from the trainer") {
		t.Errorf("%+v, %v, %d bytes are left", a, err, r.Len())
	}
	a, err := readAnswer(strings.NewReader("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n"))
	if err != nil || a != (answer{404, "nope"}) {
		t.Errorf("%+v, %v", a, err)
	}
	for text, want := range map[string]string{
		"": "without an answer",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n": "another protocol",
		"SSH-2.0-OpenSSH_9.2\r\n\r\n":                                    "not of HTTP",
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxAnswer):        "more than 4096 bytes",
	} {
		if _, err := readAnswer(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

// FuzzAnswer: what another host answers is read within limits, and never beyond
// the head of a 101.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: atelier-link\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwait\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 404 \r\n\r\n\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		a, err := readAnswer(r)
		if err != nil {
			return
		}
		if len(a.message) > 3*maxMessage {
			t.Errorf("a reason of %d bytes", len(a.message))
		}
		if a.status != http.StatusSwitchingProtocols {
			return
		}
		if read := b[:len(b)-r.Len()]; !bytes.HasSuffix(read, []byte("\r\n\r\n")) || bytes.Count(read, []byte("\r\n\r\n")) != 1 {
			t.Errorf("%q was read", read)
		}
	})
}

// FuzzRequest: what another host asks for is two members and a token, or refused.
func FuzzRequest(f *testing.F) {
	f.Add("/groups/18446744073709551615/2/1", "w2%2Fcpu0")
	f.Add("/groups/1/2/1/", "%")
	f.Add("/groups/01/+2/1", "w")
	f.Fuzz(func(t *testing.T, path, name string) {
		token, from, to, err := parsePath(path)
		if err == nil && (token == 0 || from < 1 || to < 1 || from == to) {
			t.Errorf("%q: token %d, from %d to %d", path, token, from, to)
		}
		h := http.Header{memberHeader: {name}}
		if name, err := parseName(h); err == nil && (name == "" || len(name) > 512) {
			t.Errorf("a name %q", name)
		}
	})
}
