package cli_test

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/tuner/cli"
)

// lockedOutput is written by the command and by its notices.
type lockedOutput struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *lockedOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *lockedOutput) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// On a terminal the line about a cluster that does not answer is redrawn in its
// place, counts down, and is gone when the answer comes.
func TestWaitingIsDrawnAndTakenAway(t *testing.T) {
	f := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var out bytes.Buffer
	var errs lockedOutput
	e := &cli.Env{Out: &out, Err: &errs, Live: true, Dir: t.TempDir(), Now: time.Now, Width: func() int { return 100 }}
	code := make(chan int, 1)
	go func() { code <- e.Run(t.Context(), []string{"--addr", addr, "--retry-for", "30s", "sweep", "list"}) }()
	drawn := "\r\x1b[Kno coordinator at " + addr + " yet (connection refused); trying for 2"
	for until := time.Now().Add(20 * time.Second); strings.Count(errs.String(), drawn) < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not drawn: %q", errs.String())
		}
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal("the port was taken by another program meanwhile: ", err)
	}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewSweepServiceHandler(f))
	mux.Handle(atelierv1connect.NewClusterServiceHandler(f))
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	defer s.Close()
	if c := <-code; c != 0 || !strings.Contains(out.String(), "s-aaaaaaaa") {
		t.Fatalf("exit %d: %q %q", c, out.String(), errs.String())
	}
	if text := errs.String(); !strings.HasSuffix(text, "\r\x1b[K") || strings.Contains(text, "\n") {
		t.Errorf("the line stays: %q", text)
	}
}
