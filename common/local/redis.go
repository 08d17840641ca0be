package local

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// StartRedis starts a redis-server on a free loopback port with its folder
// below dir. With persist it writes every command to an append-only file, so
// that a Restart finds what was there; without, it starts empty.
func StartRedis(ctx context.Context, dir string, persist bool, extra ...string) (*Process, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("redis: %w: install it (apt install redis-server) or run without Redis", err)
	}
	// The port may be lost between finding and using it: try others.
	for try := 0; ; try++ {
		port, err := freePort()
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		p := &Process{Name: "redis", Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
			Dir: filepath.Join(dir, "redis"), Log: filepath.Join(dir, "redis.log"), bin: bin, ready: ping}
		p.args = func(p *Process) []string {
			appendonly := "no"
			if persist {
				appendonly = "yes"
			}
			return append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", p.Dir, "--save", "",
				"--appendonly", appendonly, "--daemonize", "no"}, extra...)
		}
		if err = p.Start(ctx); err == nil {
			return p, nil
		}
		if try == 4 || ctx.Err() != nil {
			return nil, err
		}
	}
}

func ping(ctx context.Context, p *Process) error { return command(ctx, p.Addr, "PING", "+PONG") }

// Flush empties a Redis (FLUSHALL).
func (p *Process) Flush(ctx context.Context) error {
	if p.Name != "redis" {
		return fmt.Errorf("flush %s: it is not a Redis", p.Name)
	}
	return command(ctx, p.Addr, "FLUSHALL", "+OK")
}

// Save writes what a Redis has into dump.rdb in its folder (SAVE).
func (p *Process) Save(ctx context.Context) error { return command(ctx, p.Addr, "SAVE", "+OK") }

// command sends one command that has a one-line answer. Two commands are not
// worth a client, and only the board may know one.
func command(ctx context.Context, addr, line, want string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	c.SetDeadline(deadline)
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if got = strings.TrimSpace(got); got != want {
		return fmt.Errorf("redis at %s answered %q to %s", addr, got, line)
	}
	return nil
}
