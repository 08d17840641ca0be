package replica

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/version"
	"atelier/coordinator/state"
)

// Every node should have the same state after the same entry. A MarkHash in the
// log makes each of them keep its View of that moment, which costs nothing, and
// hash it beside Apply. duty/audit, on the leader, asks the voters for what they
// found and writes a CompareHash with what a majority of them agrees on: who
// found something else has a state of its own and ends itself, be it the leader.
// Without a majority nobody ends; nobody can tell who is right.
//
// A node that took its state from a snapshot since the mark has found nothing and
// compares nothing. Nor do nodes of different versions compare: what one refuses
// the other may know.

// HashFormat names the form in which this version hashes a state.
func HashFormat() string { return fmt.Sprintf("%s/%d", version.Version, state.SnapshotVersion) }

// Mark is a node's state after an entry with a MarkHash.
type Mark struct {
	Index uint64
	Hash  [32]byte
}

// marks are the newest of them. One is hashed at a time; while one is, others are
// left out, so that a node that replays its log does not fall behind over them.
type marks struct {
	mu      sync.Mutex
	hashing bool
	newest  Mark
	// compare waits for the mark being hashed.
	index   uint64
	compare *logv1.CompareHash
}

// MarkedState returns the newest mark that is hashed, the zero Mark before.
func (n *Node) MarkedState() Mark {
	n.marks.mu.Lock()
	defer n.marks.mu.Unlock()
	return n.marks.newest
}

// observe is called after an entry was applied.
func (n *Node) observe(e *logv1.Entry) {
	for _, c := range e.Commands {
		switch op := c.Op.(type) {
		case *logv1.Command_MarkHash:
			n.mark(n.machine.View())
		case *logv1.Command_CompareHash:
			n.compare(op.CompareHash)
		}
	}
}

// mark hashes the state as it is after this entry, beside Apply. A mark that comes while one is
// hashed is passed over: the audit asks again.
func (n *Node) mark(v *state.View) {
	m := &n.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hashing {
		return
	}
	m.hashing, m.index, m.compare = true, v.Index(), nil
	go func() {
		found := Mark{v.Index(), v.Hash()}
		m.mu.Lock()
		m.hashing, m.newest = false, found
		waiting := m.compare
		m.compare = nil
		m.mu.Unlock()
		n.log.Info("state hashed", "index", found.Index, "sha256", hex.EncodeToString(found.Hash[:]))
		if waiting != nil {
			n.judge(found, waiting)
		}
	}()
}

// compare judges by what a majority found, now or when the hash is ready. What this node has not
// hashed it does not compare: it got a snapshot since, or is of another version.
func (n *Node) compare(c *logv1.CompareHash) {
	m := &n.marks
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case c.Format != HashFormat():
	case m.hashing && m.index == c.Index:
		m.compare = c
	case m.newest.Index == c.Index:
		go n.judge(m.newest, c)
	}
}

// judge ends the node when its state is not that of the majority. The folder is
// marked, so that no restart brings it back.
func (n *Node) judge(found Mark, c *logv1.CompareHash) {
	if bytes.Equal(found.Hash[:], c.Hash) {
		return
	}
	err := n.rot(fmt.Sprintf("the state of %s after entry %d is another than that of %s: its SHA-256 is %x, theirs is %x",
		n.cfg.ID, found.Index, strings.Join(c.Agreed, ", "), found.Hash, c.Hash), nil)
	n.log.Error("this node's state differs from the others'", "index", found.Index, "own", hex.EncodeToString(found.Hash[:]), "others", hex.EncodeToString(c.Hash))
	if e := n.store.Meta().change(func(r *metaRecord) { r.Forked = err.What }); e != nil {
		n.log.Error("the data folder was not marked as damaged", "error", e)
	}
	n.store.giveUp(err)
}
