package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Before raft sees a connection, both sides say who they are: raft itself mixes
// the logs of whatever nodes it is told to speak to. An address is no proof: it
// may have gone to another node or another cluster since it was written down.
//
// The dialing side sends a hello, the other one a reply, then raft's own bytes
// follow. Both are frames:
//
//	"ATLR", version, kind, length of the rest (uint16), then fields,
//	each its length (uint16) and its bytes
const (
	handshakeMagic   = "ATLR"
	handshakeVersion = 1
	maxFrame         = 4 << 10
	// handshakeTimeout bounds it on both sides, so that nobody who connects and
	// says nothing keeps anything.
	handshakeTimeout = 3 * time.Second

	kindHello = 'h' // cluster, id, folder, id of the node that is meant
	kindReply = 'r' // standing, words, cluster, id, folder
)

// standing is what came of a handshake.
type standing string

const (
	welcome      standing = ""
	otherCluster standing = "cluster" // the two belong to different clusters
	otherNode    standing = "node"    // another node lives at the address
	otherFolder  standing = "folder"  // the id is a member's, the data folder is not
	wasRemoved   standing = "removed" // the asker was taken off the cluster
)

// party is one side of a connection.
type party struct{ cluster, id, folder string }

// hello is the first word of the dialing side.
type hello struct {
	party
	to string // id of the node that is meant
}

// reply answers a hello.
type reply struct {
	party
	standing standing
	words    string
}

// frame is the hello as it is sent.
func (h hello) frame() []byte { return frame(kindHello, h.cluster, h.id, h.folder, h.to) }

// frame is the reply as it is sent.
func (r reply) frame() []byte {
	return frame(kindReply, string(r.standing), r.words, r.cluster, r.id, r.folder)
}

// frame is magic, version, kind, length, and fields behind their lengths. A field that is too long
// is cut: it is text for people, and a handshake must not fail for it.
func frame(kind byte, fields ...string) []byte {
	var body []byte
	for _, f := range fields {
		f = f[:min(len(f), maxFrame/8)]
		body = binary.BigEndian.AppendUint16(body, uint16(len(f)))
		body = append(body, f...)
	}
	b := append([]byte(handshakeMagic), handshakeVersion, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// errNoHandshake is for what does not speak this protocol at all.
var errNoHandshake = errors.New("it does not begin with a handshake of Atelier: it is another program, or a coordinator of an earlier version (stop all coordinators, then start them in the new version)")

// readFrame reads exactly one frame of a kind with n fields. What follows stays
// unread: it is raft's.
func readFrame(r io.Reader, kind byte, n int) ([]string, error) {
	var head [len(handshakeMagic) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	at := len(handshakeMagic)
	size := int(binary.BigEndian.Uint16(head[at+2:]))
	switch {
	case string(head[:at]) != handshakeMagic:
		return nil, errNoHandshake
	case head[at] != handshakeVersion:
		return nil, fmt.Errorf("it speaks version %d of the handshake, this program version %d: run the same version of atelier-coordinator everywhere", head[at], handshakeVersion)
	case head[at+1] != kind:
		return nil, fmt.Errorf("handshake: frame %q where %q belongs", head[at+1], kind)
	case size > maxFrame:
		return nil, fmt.Errorf("handshake: a frame of %d bytes, at most %d are allowed", size, maxFrame)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("handshake: cut short: %w", err)
	}
	fields := make([]string, 0, n)
	for len(body) > 0 && len(fields) < n {
		if len(body) < 2 {
			return nil, errors.New("handshake: half a field")
		}
		l := int(binary.BigEndian.Uint16(body))
		if len(body) < 2+l {
			return nil, fmt.Errorf("handshake: a field of %d bytes, %d are left", l, len(body)-2)
		}
		fields = append(fields, string(body[2:2+l]))
		body = body[2+l:]
	}
	// Further fields are of a later version that speaks this one, too.
	if len(fields) < n {
		return nil, fmt.Errorf("handshake: %d fields, want %d", len(fields), n)
	}
	return fields, nil
}

// readHello reads the dialing side's frame.
func readHello(r io.Reader) (hello, error) {
	f, err := readFrame(r, kindHello, 4)
	if err != nil {
		return hello{}, err
	}
	h := hello{party{f[0], f[1], f[2]}, f[3]}
	if h.cluster == "" || h.id == "" || h.to == "" {
		return hello{}, fmt.Errorf("handshake: cluster %q, node %q, to %q: none may be empty", h.cluster, h.id, h.to)
	}
	return h, nil
}

// readReply reads the answer.
func readReply(r io.Reader) (reply, error) {
	f, err := readFrame(r, kindReply, 5)
	if err != nil {
		return reply{}, err
	}
	return reply{party{f[2], f[3], f[4]}, standing(f[0]), f[1]}, nil
}

// RefusedError is a connection between nodes that do not belong together. Asking
// again changes nothing.
type RefusedError struct {
	standing standing
	words    string
}

func (e *RefusedError) Error() string { return e.words }

// greet speaks first on a connection to a node, and returns who answers.
func greet(c net.Conn, h hello) (reply, error) {
	c.SetDeadline(time.Now().Add(handshakeTimeout))
	defer c.SetDeadline(time.Time{})
	if _, err := c.Write(h.frame()); err != nil {
		return reply{}, err
	}
	r, err := readReply(c)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("it closed the connection without a reply to the handshake (%w)", err)
	}
	return r, err
}

// meet judges whoever is at the other end of a connection, by what this node
// knows of the cluster's members.
func (n *Node) meet(p party) (standing, string) {
	me := n.cfg.ID
	view := n.machine.View()
	switch {
	case p.cluster != n.cfg.ClusterID:
		for _, id := range view.Former() {
			if id == p.cluster {
				return otherCluster, fmt.Sprintf("%s is of cluster %s, which was recovered as cluster %s on %s: to take it back, empty its --data folder and --join again", p.id, p.cluster, n.cfg.ClusterID, me)
			}
		}
		return otherCluster, fmt.Sprintf("%s is of cluster %s, %s is of cluster %s: coordinators of two clusters use each other's addresses", p.id, p.cluster, me, n.cfg.ClusterID)
	case view.Removed(p.folder):
		return wasRemoved, fmt.Sprintf("%s was removed from cluster %s: to take the machine back, empty its --data folder and --join again", p.id, n.cfg.ClusterID)
	case p.id == me && p.folder != n.cfg.folderID:
		return otherFolder, fmt.Sprintf("two coordinators call themselves %s: give each an --id of its own", p.id)
	}
	if m, ok := view.Member(p.id); ok && m.FolderID != "" && p.folder != "" && m.FolderID != p.folder {
		return otherFolder, fmt.Sprintf("member %s of cluster %s has data folder %s, this one is %s: its disk was wiped or another coordinator uses its --id; choose another --id, or `atelier cluster remove %s` first", p.id, n.cfg.ClusterID, m.FolderID, p.folder, p.id)
	}
	return welcome, ""
}

func (n *Node) self() party { return party{n.cfg.ClusterID, n.cfg.ID, n.cfg.folderID} }
