package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections are those on which no request has come yet. Clients under load open
// some to spare, and http.Server.Shutdown waits 5 s for a first request on each:
// a coordinator that stops closes them itself.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]time.Time
}

// follow is a http.Server's ConnState.
func (c *connections) follow(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != http.StateNew {
		delete(c.open, conn)
		return
	}
	if c.open == nil {
		c.open = map[net.Conn]time.Time{}
	}
	c.open[conn] = time.Now()
}

// firstRequest is how long a connection may take to bring one while the node stops.
const firstRequest = 100 * time.Millisecond

// closeUntil closes what stays unused, until ctx ends.
func (c *connections) closeUntil(ctx context.Context) {
	tick := time.NewTicker(firstRequest / 2)
	defer tick.Stop()
	for {
		c.mu.Lock()
		for conn, since := range c.open {
			if time.Since(since) > firstRequest {
				conn.Close()
				delete(c.open, conn)
			}
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
