package wire_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/worker/wire"
)

// message is the gradient of resnet18 in float32, in bytes: what two members send
// each other in a step.
const message = 46_800_000

// BenchmarkLink sends such messages both ways at once between two members, and
// shows the processor time that all parts of the way take together.
func BenchmarkLink(b *testing.B) {
	for _, x := range []struct {
		name string
		make func(testing.TB) (net.Conn, net.Conn)
	}{
		{"one-agent", oneAgent},
		{"direct", func(t testing.TB) (net.Conn, net.Conn) { return twoAgents(t, wire.Direct, nil) }},
		{"agents", func(t testing.TB) (net.Conn, net.Conn) { return twoAgents(t, wire.Agents, nil) }},
		{"agents-tls", func(t testing.TB) (net.Conn, net.Conn) { return twoAgents(t, wire.Agents, certificate(t)) }},
	} {
		b.Run(x.name, func(b *testing.B) {
			one, two := x.make(b)
			out := make([]byte, message)
			var in [2][]byte
			in[0], in[1] = make([]byte, message), make([]byte, message)
			b.SetBytes(2 * message)
			before := processorTime(b)
			b.ResetTimer()
			for range b.N {
				var all sync.WaitGroup
				for i, c := range []net.Conn{one, two} {
					all.Go(func() {
						if _, err := c.Write(out); err != nil {
							b.Error(err)
						}
					})
					all.Go(func() {
						for at := 0; at < message; {
							n, err := c.Read(in[i][at:])
							if at += n; err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			}
			b.StopTimer()
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N)/(2*message)*1e9, "cpu-s/GB")
		})
	}
}

// processorTime that this process has used.
func processorTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// member is a trainer's end of its links.
func member(t testing.TB) (*links.Sender, <-chan links.Link) {
	a, b, err := links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	s, r := links.NewSender(a), links.NewReceiver(b)
	got := make(chan links.Link, 16)
	go func() {
		defer close(got)
		for {
			l, err := r.Next()
			if err != nil {
				return
			}
			got <- l
		}
	}()
	t.Cleanup(func() { s.Close(); r.Close() })
	return s, got
}

// next link that a trainer is handed.
func next(t testing.TB, got <-chan links.Link) links.Link {
	t.Helper()
	select {
	case l, ok := <-got:
		if !ok {
			t.Fatal("no more links")
		}
		t.Cleanup(func() { l.Conn.Close() })
		return l
	case <-time.After(20 * time.Second):
		t.Fatal("no link")
	}
	panic("not reached")
}

func seat(t testing.TB, h *wire.Hub, token uint64, self wire.Peer) *wire.Seat {
	t.Helper()
	s, err := h.Seat(token, self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func oneAgent(t testing.TB) (net.Conn, net.Conn) {
	h := wire.New(wire.Config{Worker: "w1"})
	m1, m2 := wire.Peer{ID: 1, Name: "w1/cpu0", Worker: "w1", Here: true}, wire.Peer{ID: 2, Name: "w1/cpu1", Worker: "w1", Here: true}
	s1, g1 := member(t)
	s2, g2 := member(t)
	seat(t, h, 7, m1).Open(s1, []wire.Peer{m1, m2})
	seat(t, h, 7, m2).Open(s2, []wire.Peer{m1, m2})
	return next(t, g1).Conn, next(t, g2).Conn
}

func twoAgents(t testing.TB, kind wire.Kind, cert *tls.Certificate) (net.Conn, net.Conn) {
	m1, m2 := wire.Peer{ID: 1, Name: "w1/cpu0", Worker: "w1"}, wire.Peer{ID: 2, Name: "w2/cpu0", Worker: "w2", Address: "127.0.0.1:1"}
	var dial func(context.Context, string, string) (net.Conn, error)
	if cert != nil {
		dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}).DialContext(ctx, "tcp", addr)
		}
	}
	h1 := wire.New(wire.Config{Worker: "w1", Kind: kind})
	m1.Address = listen(t, h1, cert)
	h2 := wire.New(wire.Config{Worker: "w2", Kind: kind, Dial: dial})
	s1, g1 := member(t)
	s2, g2 := member(t)
	seat(t, h1, 7, m1).Open(s1, []wire.Peer{m1, m2})
	seat(t, h2, 7, m2).Open(s2, []wire.Peer{m1, m2})
	return next(t, g1).Conn, next(t, g2).Conn
}

// listen serves a hub and returns its address.
func listen(t testing.TB, h http.Handler, cert *tls.Certificate) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if cert != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})
	}
	srv := &http.Server{Handler: h, ReadTimeout: 10 * time.Second}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return addr
}

func certificate(t testing.TB) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"agent"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
