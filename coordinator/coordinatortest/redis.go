// Package coordinatortest is what tests of several of the coordinator's rooms need:
// real servers, started and ended by a test. Nothing but tests imports it.
package coordinatortest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Redis is a real redis-server on a free loopback port.
type Redis struct {
	Addr string
	Dir  string // where it keeps what SAVE writes
	t    *testing.T
	cmd  *exec.Cmd
	Args []string // beyond those that every one has
}

// StartRedis starts one that keeps nothing by itself; it ends with the test.
func StartRedis(t *testing.T, args ...string) *Redis {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{Addr: l.Addr().String(), Dir: t.TempDir(), Args: args, t: t}
	l.Close()
	r.Start()
	t.Cleanup(func() {
		if r.cmd != nil {
			r.Stop()
		}
	})
	return r
}

// Start starts it again at its address, with what its folder holds.
func (r *Redis) Start() {
	r.t.Helper()
	_, port, _ := net.SplitHostPort(r.Addr)
	r.cmd = exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", r.Dir}, r.Args...)...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatalf("start redis-server (Debian package redis-server): %v", err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := r.ask("PING")
		if err == nil || strings.HasPrefix(err.Error(), "NOAUTH") {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("redis-server answers PING with %q, %v", answer, err)
		}
	}
}

// Stop kills it.
func (r *Redis) Stop() {
	r.t.Helper()
	r.cmd.Process.Kill()
	r.cmd.Wait()
	r.cmd = nil
}

// Do sends one command and returns what it answers, a list or one string.
func (r *Redis) Do(args ...string) []string {
	r.t.Helper()
	answer, err := r.ask(args...)
	if err != nil {
		r.t.Fatalf("redis: %v: %v", args, err)
	}
	return answer
}

func (r *Redis) ask(args ...string) ([]string, error) {
	c, err := net.DialTimeout("tcp", r.Addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(a), a)
	}
	return answer(bufio.NewReader(c))
}

// answer reads one answer of Redis's protocol.
func answer(in *bufio.Reader) ([]string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	kind, text := line[0], strings.TrimSpace(line[1:])
	switch kind {
	case '-':
		return nil, fmt.Errorf("%s", text)
	case '$', '*':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, err
		}
		if kind == '$' {
			b := make([]byte, n+2)
			_, err := io.ReadFull(in, b)
			return []string{string(b[:n])}, err
		}
		var all []string
		for range n {
			one, err := answer(in)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	return []string{text}, nil
}
