package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"atelier/common/sparselog"
)

// delegate is the Pool as memberlist calls it. memberlist calls these while it
// holds its own locks, so none of them may call back into it.
type delegate Pool

// NodeMeta is what others are told of this node.
func (d *delegate) NodeMeta(limit int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.meta) > limit {
		return nil
	}
	return d.meta
}

// Nothing but who is there is gossiped: no messages, no state.
func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

func (d *delegate) NotifyJoin(n *memberlist.Node)   { d.see(n, true) }
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.see(n, true) }
func (d *delegate) NotifyLeave(n *memberlist.Node)  { d.see(n, false) }

// NotifyConflict warns now and then: a node that moved looks like two for some seconds.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.sparse.Warn("name/"+existing.Name, "gossip: two nodes use one name; give each its own, or wait if this one has just moved",
		"name", existing.Name, "address", addrOf(existing), "other", addrOf(other))
}

// see notes a node, dead or alive, and wakes whoever follows. One whose metadata cannot be read, of
// another program or version, is passed over.
func (d *delegate) see(n *memberlist.Node, alive bool) {
	if n.Name == d.name {
		return
	}
	meta, err := DecodeMeta(n.Meta)
	if err != nil && alive {
		d.logger.Warn("gossip: peer passed over", "name", n.Name, "address", addrOf(n), "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil { // a good-bye may come without metadata: keep what was known
		if old := d.peers[n.Name]; old != nil {
			meta = old.Meta
		} else {
			return
		}
	}
	d.peers[n.Name] = &seen{Peer: Peer{Name: n.Name, Addr: addrOf(n), Meta: meta, Alive: alive}, since: time.Now()}
	close(d.moved)
	d.moved = make(chan struct{})
}

// addrOf is a node's gossip address.
func addrOf(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// lines turns memberlist's log lines into records of their own level.
type lines struct {
	to     *slog.Logger
	sparse *sparselog.Log
	done   <-chan struct{} // closed when the pool ends
}

// newStdLogger is the logger that memberlist is given.
func newStdLogger(to *slog.Logger, sparse *sparselog.Log, done <-chan struct{}) *log.Logger {
	return log.New(lines{to, sparse, done}, "", 0)
}

// Write takes one line. What a person can do something about is said now and then, the rest at the
// level that memberlist gives it, one lower.
func (l lines) Write(b []byte) (int, error) {
	text := string(bytes.TrimSpace(b))
	if why := keyTrouble(text); why != "" {
		l.sparse.Warn("key/"+peerOf(text)+why, "gossip: "+why, "peer", peerOf(text))
		return len(b), nil
	}
	if strings.HasSuffix(text, errOtherCluster.Error()) || strings.Contains(text, "Conflicting address for ") {
		return len(b), nil // said by the delegate
	}
	level := slog.LevelDebug
	for prefix, lv := range map[string]slog.Level{"[ERR]": slog.LevelWarn, "[WARN]": slog.LevelInfo} {
		if strings.HasPrefix(text, prefix) {
			level = lv
		}
	}
	select {
	case <-l.done: // what fails now fails because the pool ends
		level = slog.LevelDebug
	default:
	}
	if i := strings.Index(text, "] "); i >= 0 {
		text = text[i+2:]
	}
	l.to.Log(context.Background(), level, "gossip: "+strings.TrimPrefix(text, "memberlist: "))
	return len(b), nil
}
