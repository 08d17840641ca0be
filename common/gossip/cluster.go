package gossip

import (
	"fmt"
	"net"
	"sort"
	"strings"

	"github.com/hashicorp/memberlist"
)

// NotifyAlive is asked by memberlist before it takes a node in, whoever tells
// of it. A node of another cluster is refused, so that two clusters that know
// one another's addresses stay two. Before this node knows its own cluster it
// takes everybody, to learn which there are.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	meta, err := DecodeMeta(n.Meta)
	if err != nil {
		return nil // see says what is wrong with it
	}
	d.mu.Lock()
	mine, ours := d.own.Cluster, d.belongs(meta)
	d.mu.Unlock()
	if ours {
		return nil
	}
	args := []any{"peer", n.Name, "address", addrOf(n), "cluster", meta.Cluster, "own_cluster", mine}
	if meta.Role == RoleCoordinator && d.own.Role == RoleCoordinator {
		args = append(args, "advice", "if this node was begun with --bootstrap in place of one that lost its data, stop it, atelier cluster remove ID in the other cluster, and start it with an empty --data folder and --join")
	}
	d.sparse.Warn("cluster/"+meta.Cluster+"/"+n.Name, "gossip: a node of another cluster was refused", args...)
	return errOtherCluster
}

// errOtherCluster stands in memberlist's log line, which is passed over.
var errOtherCluster = fmt.Errorf("it is of another cluster")

// belongs reports whether a node may be of this node's cluster, as far as both have one. The caller holds the lock.
func (d *delegate) belongs(m Meta) bool {
	switch {
	case d.own.Cluster == "" || m.Cluster == "" || m.Cluster == d.own.Cluster:
		return true
	case d.own.Role == RoleWorker:
		// Coordinators of the cluster that was recovered from the worker's.
		return m.Was == d.own.Cluster
	case m.Role == RoleWorker:
		// A worker that has not heard yet that its cluster was recovered as this one.
		return d.own.Was != "" && m.Cluster == d.own.Was
	}
	return false
}

// Tried is closed once every seed was tried.
func (p *Pool) Tried() <-chan struct{} { return p.tried }

// Clusters lists the clusters whose coordinators are seen, each with their API
// addresses.
func (p *Pool) Clusters() map[string][]string {
	out := map[string][]string{}
	for _, q := range p.Peers() {
		if q.Alive && q.Meta.Role == RoleCoordinator && q.Meta.Cluster != "" {
			out[q.Meta.Cluster] = append(out[q.Meta.Cluster], q.Meta.API)
		}
	}
	return out
}

// ErrTwoClusters is what a node that belongs to none yet ends with when it sees
// several: it would join whichever answered first.
type ErrTwoClusters struct{ Clusters map[string][]string }

func (e *ErrTwoClusters) Error() string {
	var list []string
	for id, addrs := range e.Clusters {
		list = append(list, id+" (API "+strings.Join(addrs, ", ")+")")
	}
	sort.Strings(list)
	return fmt.Sprintf("--join leads to %d clusters: %s: name nodes of the one that this node is to join", len(list), strings.Join(list, " and "))
}

// keyTrouble gives words to memberlist's complaints about keys, "" for any
// other line. Each side of a connection hears of it in its own way.
func keyTrouble(line string) string {
	has := func(s string) bool { return strings.Contains(strings.ToLower(line), s) }
	switch {
	case has("encryption is configured but remote state is not encrypted"):
		return "a node gossips without a key and this one has one: give both the same --gossip-key-file"
	case has("remote state is encrypted and encryption is not configured"):
		return "a node's gossip is encrypted and this one has no key: give both the same --gossip-key-file"
	case has("no installed keys could decrypt"), has("decrypt packet failed"):
		return "a node's gossip cannot be decrypted: give both the same --gossip-key-file"
	case has("unacceptable label"):
		label, _, _ := strings.Cut(line[strings.Index(strings.ToLower(line), "unacceptable label")+len("unacceptable label"):], ":")
		if label = strings.TrimSpace(label); label == `""` {
			return "a node of an open cluster, or one that has not joined yet, gossips with this closed cluster: let it join with an invite"
		}
		return fmt.Sprintf("a node of cluster %.66s gossips with this one, which is another cluster: look at the addresses of both", label)
	}
	return ""
}

// cause is the part of memberlist's errors that a person needs: they repeat the
// address, and come as a list of one.
func cause(text string) string {
	if why := keyTrouble(text); why != "" {
		return why
	}
	text = strings.TrimSpace(text)
	if lines := strings.Split(text, "\n"); len(lines) > 1 {
		text = strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "* ")
	}
	for _, known := range []string{"connection refused", "no such host", "i/o timeout", "no route to host", "network is unreachable"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	if strings.HasSuffix(text, "EOF") || strings.Contains(text, "connection reset") {
		return "it closes the connection (perhaps another cluster, another --gossip-key-file, or no gossip address)"
	}
	return text
}

// peerOf finds the host in a line of memberlist's, which ends with from=HOST:PORT.
func peerOf(line string) string {
	_, rest, _ := strings.Cut(line, "from=")
	addr, _, _ := strings.Cut(rest, " ")
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
