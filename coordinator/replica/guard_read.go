package replica

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// GetLog reads an entry and checks that it is the one that was written. What is
// damaged is not handed on: the node ends.
func (g *guard) GetLog(index uint64, l *raft.Log) error {
	err := g.read(index, l)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) && !g.holds(index) {
		return err
	}
	return g.giveUp(g.rot(fmt.Sprintf("entry %d of the log", index), err))
}

// read reads and checks one entry; a panic of a library on damaged bytes is an error.
func (g *guard) read(index uint64, l *raft.Log) (err error) {
	defer func() {
		if p := recover(); p != nil { // the libraries trust what they read
			err = fmt.Errorf("cannot be read: %v", p)
		}
	}()
	*l = raft.Log{}
	if err := g.durable.GetLog(index, l); err != nil {
		return err
	}
	return unseal(l, index, g.checkedFrom)
}

// holds reports whether the log should have the entry.
func (g *guard) holds(index uint64) bool {
	first, _ := g.durable.FirstIndex()
	last, _ := g.durable.LastIndex()
	if !g.IsMonotonic() && index <= g.Meta().record().Snapshot.Index {
		return false // a store that may have gaps has one where a leader's snapshot came
	}
	return first <= index && index <= last
}

// rot is damage found in this folder.
func (g *guard) rot(what string, err error) *RotError {
	return &RotError{Node: g.node, Folder: g.folder, What: what, Err: err}
}

// giveUp makes every further write fail and ends the node.
func (g *guard) giveUp(err error) error {
	g.broken.CompareAndSwap(nil, &err)
	g.fatal(err)
	return err
}

// lower takes the note of the log's end down before entries go, so that it never
// stands above the log.
func (g *guard) lower(min, max uint64) error {
	if g.tail == nil {
		return nil
	}
	first, err := g.durable.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.durable.LastIndex()
	if err != nil || max < last || last == 0 {
		return err // the end stays
	}
	end := uint64(0)
	if min > first {
		end = min - 1
	}
	g.truncated.Store(end > 0)
	return g.tail.set(end, 0, true)
}

// inspect compares what the disk has with what was noted of it, before raft
// builds on it, and begins the notes in a folder that has none yet. snapshot is
// the index of the newest one, 0 = none.
func (g *guard) inspect(dir string, snapshot uint64) error {
	first, err := g.durable.FirstIndex()
	if err != nil {
		return g.rot("the log's first entry", err)
	}
	last, err := g.durable.LastIndex()
	if err != nil {
		return g.rot("the log's last entry", err)
	}
	meta := g.Meta().record()
	tail, noted, err := openTail(dir)
	if err != nil {
		return g.rot("the note of the log's end", err)
	}
	g.checkedFrom = meta.CheckedFrom
	if g.checkedFrom == 0 {
		g.checkedFrom = last + 1
		noted = false
	}
	switch {
	case meta.CheckedFrom > 0 && !noted:
		return g.rot("the note of the log's end, log/"+tailName+", is gone", nil)
	case last > 0 && first == 0, first > last && last > 0:
		return g.rot(fmt.Sprintf("the log begins with entry %d and ends with %d", first, last), nil)
	case noted && last < tail.index:
		return g.rot(fmt.Sprintf("the log ends with entry %d, and entry %d had been written to it", last, tail.index), nil)
	case last > 0 && first > snapshot+1:
		return g.rot(fmt.Sprintf("the log begins with entry %d, and the newest snapshot ends with %d", first, snapshot), nil)
	}
	term, err := g.durable.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return g.rot("the term", err)
	}
	if term == 0 && (last > 0 || snapshot > 0) {
		return g.rot("the term is gone, and there are entries or snapshots", nil)
	}
	var l raft.Log
	if last > 0 {
		if err := g.read(last, &l); err != nil {
			return g.rot(fmt.Sprintf("entry %d of the log, its last", last), err)
		}
		if l.Term > term {
			return g.rot(fmt.Sprintf("the log's last entry is of term %d, and the term is %d", l.Term, term), nil)
		}
	}
	end := l
	if noted && tail.term != 0 && tail.index >= first && tail.index < last {
		if err := g.read(tail.index, &end); err != nil {
			return g.rot(fmt.Sprintf("entry %d of the log", tail.index), err)
		}
	}
	if noted && tail.term != 0 && tail.index >= first && end.Index == tail.index && end.Term != tail.term {
		return g.rot(fmt.Sprintf("entry %d of the log is of term %d, and one of term %d had been written", tail.index, end.Term, tail.term), nil)
	}
	if err := tail.begin(dir, last, l.Term); err != nil {
		return err
	}
	g.tail = tail
	if meta.CheckedFrom == 0 {
		return g.Meta().change(func(r *metaRecord) { r.CheckedFrom = g.checkedFrom })
	}
	return nil
}

// Close ends the note of the log's end, too.
func (g *guard) Close() error {
	var err error
	if g.tail != nil {
		err = g.tail.close()
	}
	return errors.Join(g.durable.Close(), err)
}
