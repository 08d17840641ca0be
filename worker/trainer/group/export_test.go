package group

import (
	"context"
	"errors"
)

// Wholes are the levels and indices of a member's greatest whole nodes.
func Wholes(from, to, present int) (list [][2]int) {
	for _, n := range wholes(from, to, present) {
		list = append(list, [2]int{n.level, n.i})
	}
	return list
}

// Kill ends a member as SIGKILL ends its process: at once, its links with it.
func (g *Group) Kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail(errKilled)
	for _, p := range g.peers {
		p.mu.Lock()
		p.discard()
		p.mu.Unlock()
		p.conn.Close()
	}
}

var errKilled = errors.New("killed")

// New and Start are what group.Start does; Kill can come between.
func New(cfg Config) (*Group, error) { return newGroup(cfg) }

func (g *Group) Start(ctx context.Context) error { return g.start(ctx) }
