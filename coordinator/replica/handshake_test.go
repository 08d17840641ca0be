package replica

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"atelier/coordinator/state"
)

func FuzzHandshake(f *testing.F) {
	f.Add(hello{party{"c-1", "n1", "f-1"}, "n2"}.frame())
	f.Add(reply{party{"c-1", "n2", "f-2"}, otherCluster, "no"}.frame())
	f.Add(reply{}.frame())
	f.Add([]byte("ATLR\x01h\xff\xff"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		if h, err := readHello(r); err == nil {
			if h.cluster == "" || h.id == "" || h.to == "" {
				t.Errorf("%q gave %+v", b, h)
			}
			again, err := readHello(bytes.NewReader(h.frame()))
			if err != nil || again != h && len(h.frame()) < maxFrame/8 {
				t.Errorf("%+v came back as %+v, %v", h, again, err)
			}
		}
		readReply(bytes.NewReader(b))
	})
}

// What follows the frame is raft's and stays unread.
func TestHandshakeReadsItsFrameOnly(t *testing.T) {
	want := hello{party{"c-1", "n1", "f-1"}, "n2"}
	r := bytes.NewReader(append(want.frame(), "rest"...))
	got, err := readHello(r)
	rest, _ := io.ReadAll(r)
	if err != nil || got != want || string(rest) != "rest" {
		t.Errorf("%+v, %v, then %q", got, err, rest)
	}
	later := frame(kindHello, "c-1", "n1", "f-1", "n2", "a field of a later version")
	if got, err := readHello(bytes.NewReader(later)); err != nil || got != want {
		t.Errorf("with one more field: %+v, %v", got, err)
	}
	for text, b := range map[string][]byte{
		"earlier version": []byte("\x00\x83\xa4Term\x01\x02\x03\x04"),
		"version 9":       append([]byte("ATLR\x09h"), 0, 0),
		"4 fields, want":  nil,
		"cut short":       want.frame()[:12],
		"none may be":     hello{party{"", "n1", ""}, "n2"}.frame(),
	} {
		if b == nil {
			b, text = frame(kindHello, "c-1"), "fields, want"
		}
		if _, err := readHello(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", b, err, text)
		}
	}
}

func openOne(t *testing.T, cluster string, logs *bytes.Buffer) *Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Open(Config{ID: "n1", DataDir: t.TempDir(), Listener: l, Bootstrap: true, ClusterID: cluster, Machine: state.New(),
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Shutdown(t.Context()) })
	return n
}

// Who says nothing, or something else, hinders nobody and is cut off.
func TestStrangersAtTheRaftPort(t *testing.T) {
	var logs bytes.Buffer
	n := openOne(t, "c-1", &logs)
	var silent []net.Conn
	for range maxGreeting / 2 {
		c, err := net.Dial("tcp", n.cfg.Advertise)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	speak := func(b []byte) (reply, error) {
		c, err := net.Dial("tcp", n.cfg.Advertise)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write(b)
		return readReply(c)
	}
	mine := party{"c-1", "n2", "f-2"}
	for _, c := range []struct {
		say  hello
		want standing
	}{
		{hello{mine, "n1"}, welcome},
		{hello{party{"c-2", "n2", "f-2"}, "n1"}, otherCluster},
		{hello{mine, "n3"}, otherNode},
		{hello{party{"c-1", "n1", "f-other"}, "n1"}, otherFolder},
	} {
		r, err := speak(c.say.frame())
		if err != nil || r.standing != c.want || r.cluster != "c-1" || r.id != "n1" || r.folder != n.Identity().FolderID || (r.words == "") != (c.want == welcome) {
			t.Errorf("%+v got %+v, %v", c.say, r, err)
		}
	}
	if _, err := speak([]byte("GET / HTTP/1.1\r\n\r\n")); err == nil {
		t.Error("a browser was answered")
	}
	for _, c := range silent {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("a silent connection: %v", err)
		}
	}
}
