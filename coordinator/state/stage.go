package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"

	"google.golang.org/protobuf/proto"
)

// A restore goes through the log, so that it is committed on every replica or
// never was: BeginRestore names what will come, StageRestore brings it in parts,
// CommitRestore puts it in the place of the present state. Each part is read as
// it comes, into a machine of its own, so that the commit has little left to do.

// StreamFormat is the format of BeginRestore that this version reads: Records.
const StreamFormat = 1

// staged is what a restore has brought so far. It never changes; the next part
// makes another one, whose parts only grow behind a View's back.
type staged struct {
	begin    *logv1.BeginRestore
	received int64
	parts    [][]byte // as they came
}

// staging reads what is staged. It can be made again from the parts, and is in
// no View.
type staging struct {
	sum    hash.Hash
	rest   []byte // of a record that is not whole yet
	load   loader
	record logv1.Record
}

func newStaging() *staging { return &staging{sum: sha256.New(), load: loader{m: New()}} }

// feed takes the next part.
func (g *staging) feed(part []byte) error {
	g.sum.Write(part)
	g.rest = append(g.rest, part...)
	at := 0
	for at < len(g.rest) {
		if g.load.ended {
			return errBehindFooter
		}
		size, n := binary.Uvarint(g.rest[at:])
		if n == 0 {
			break
		}
		if n < 0 || size > maxRecord {
			return tooLong(g.load.records, size)
		}
		if uint64(len(g.rest)-at-n) < size {
			break
		}
		body := g.rest[at+n : at+n+int(size)]
		at += n + int(size)
		proto.Reset(&g.record)
		if err := proto.Unmarshal(body, &g.record); err != nil {
			return fmt.Errorf("record %d cannot be read: it is damaged", g.load.records)
		}
		if g.record.GetStaged() != nil {
			return errors.New("it contains a restore that was in progress")
		}
		if err := g.load.take(&g.record); err != nil {
			return err
		}
	}
	g.rest = append(g.rest[:0], g.rest[at:]...)
	return nil
}

// validBegin looks at what a restore says of itself before any of it comes.
func validBegin(c *logv1.BeginRestore) error {
	switch {
	case c.GetId() == "" || len(c.GetId()) > maxName:
		return invalid("begin restore: an id of %d bytes: 1 to %d", len(c.GetId()), maxName)
	case c.GetFormat() != StreamFormat:
		return invalid("begin restore %s: format %d: this version reads %d", c.GetId(), c.GetFormat(), StreamFormat)
	case c.GetBytes() < 1 || c.GetBytes() > maxStaged:
		return invalid("begin restore %s: %d bytes: 1 to %d", c.GetId(), c.GetBytes(), int64(maxStaged))
	case len(c.GetSha256()) != sha256.Size || c.GetTakenMs() < 0:
		return invalid("begin restore %s: a SHA-256 of %d bytes, saved at %d ms", c.GetId(), len(c.GetSha256()), c.GetTakenMs())
	}
	return nil
}

// beginRestore begins to take parts, and drops those of another restore that was under way: its
// sender is gone, or will be told so with its next part.
func (m *Machine) beginRestore(c *logv1.BeginRestore, r *Result) {
	if r.Err = validBegin(c); r.Err != nil {
		return
	}
	if m.live.restoredID == c.GetId() {
		r.Index, r.Outcome = m.live.restoredIndex, trial.OutcomeAlready
		return
	}
	m.live.staged = &staged{begin: proto.CloneOf(c)}
	m.staging = newStaging()
}

// stagedUnder returns what is staged if it has this id.
func (m *Machine) stagedUnder(what, id string, r *Result) *staged {
	g := m.live.staged
	switch {
	case g == nil:
		r.Err = conflict("%s restore %s: it was given up, or never begun", what, cut(id))
	case g.begin.GetId() != id:
		r.Err = conflict("%s restore %s: another one, %s, was begun since", what, cut(id), g.begin.GetId())
	default:
		return g
	}
	return nil
}

// dropStaged gives up what is staged.
func (m *Machine) dropStaged() { m.live.staged, m.staging = nil, nil }

// stageRestore takes the next part. A fault in it drops all that is staged.
func (m *Machine) stageRestore(c *logv1.StageRestore, r *Result) {
	g := m.stagedUnder("stage", c.GetId(), r)
	if g == nil {
		return
	}
	data := c.GetData()
	end := c.GetOffset() + int64(len(data))
	if c.GetOffset() >= 0 && len(data) > 0 && end <= g.received {
		r.Outcome = trial.OutcomeAlready
		return
	}
	err := func() error {
		switch {
		case len(data) == 0 || len(data) > maxPart:
			return fmt.Errorf("a part of %d bytes: 1 to %d", len(data), maxPart)
		case c.GetOffset() != g.received:
			return fmt.Errorf("a part at byte %d after %d bytes: one between them is missing", c.GetOffset(), g.received)
		case end > g.begin.GetBytes():
			return fmt.Errorf("%d bytes, it was to have %d", end, g.begin.GetBytes())
		}
		return m.staging.feed(data)
	}()
	if err != nil {
		m.dropStaged()
		r.Err = invalid("stage restore %s, bytes %d to %d: %v; nothing was changed, what was staged is dropped", c.GetId(), c.GetOffset(), end, err)
		return
	}
	m.live.staged = &staged{begin: g.begin, received: end, parts: append(g.parts, data)}
}

// abortRestore gives up what is staged, under any id where none is named: a new leader does so with
// what the one before left.
func (m *Machine) abortRestore(c *logv1.AbortRestore, r *Result) {
	if g := m.live.staged; g == nil || c.GetId() != "" && c.GetId() != g.begin.GetId() {
		r.Outcome = trial.OutcomeAlready
		return
	}
	m.dropStaged()
}

// commitRestore puts what is staged in the place of the present state. It keeps
// of the present: the cluster's id, its members and who was removed, tokens, invitations and acts, which workers are drained (of
// another cluster's state those too), and that tokens grow. All leases end; trials
// that ran wait again.
func (m *Machine) commitRestore(now int64, c *logv1.CommitRestore, r *Result) {
	if c.GetId() != "" && m.live.restoredID == c.GetId() {
		r.Index, r.Outcome = m.live.restoredIndex, trial.OutcomeAlready
		return
	}
	g := m.stagedUnder("commit", c.GetId(), r)
	if g == nil {
		return
	}
	read := m.staging
	m.dropStaged()
	fresh := read.load.m
	top := max(fresh.live.index+fresh.live.tokenOffset, read.load.newest>>10)
	var why string
	switch {
	case g.received != g.begin.GetBytes():
		why = fmt.Sprintf("%d of %d bytes came", g.received, g.begin.GetBytes())
	case !bytes.Equal(read.sum.Sum(nil), g.begin.GetSha256()):
		why = "its SHA-256 is not the one it was to have"
	case !read.load.ended:
		why = fmt.Sprintf("it ends after %d records, without a footer: it was cut short", read.load.records)
	case fresh.live.index > maxIndex || fresh.live.tokenOffset > maxIndex || top > maxIndex:
		why = fmt.Sprintf("its indexes go up to %d: tokens are exact up to %d", top, uint64(maxIndex))
	}
	if why != "" {
		r.Err = invalid("commit restore %s: %s; nothing was changed, what was staged is dropped", c.GetId(), why)
		return
	}
	m.swap(fresh, c.GetId(), top)
	m.note(Change{Kind: Restored})
	m.fence(now, g.begin.GetTakenMs())
}

// swap takes the state of fresh over, at the present index.
func (m *Machine) swap(fresh *Machine, id string, top uint64) {
	before := m.live
	m.gen++ // what was loaded is stamped 1: it is copied before it changes
	m.live, m.leases, m.requests, m.interned, m.pins = fresh.live, fresh.leases, fresh.requests, fresh.interned, fresh.pins
	m.shared = false
	live := &m.live
	live.index, live.clusterID, live.former = before.index, before.clusterID, before.former
	live.members, live.removed = before.members, before.removed
	live.tokens, live.invites, live.acts, live.refusals = before.tokens, before.invites, before.acts, before.refusals
	live.restoredID, live.restoredIndex = id, before.index
	live.tokenOffset = before.tokenOffset
	if top > live.index {
		live.tokenOffset = max(live.tokenOffset, top-live.index)
	}
	drained := slices.Clone(before.drained)
	if fresh.live.clusterID != before.clusterID {
		for _, worker := range fresh.live.drained {
			if at, found := slices.BinarySearch(drained, worker); !found && len(drained) < maxDrained {
				drained = slices.Insert(drained, at, worker)
			}
		}
	}
	live.drained = drained
	m.clampRequests()
}

// clampRequests lets no remembered request name an index that is to come: whoever
// repeats it may wait for that index.
func (m *Machine) clampRequests() {
	log := &m.live.requests
	for i, result := range log.results {
		if index, sweep, _ := parseRemembered(result); index > m.live.index {
			log.results[i] = rememberedResult(m.live.index, sweep)
			m.requests[log.ids[i]] = log.results[i]
		}
	}
	m.clampPurged()
	for _, s := range m.live.Sweeps() {
		s, _ = m.sweep(s.ID)
		if s.CreateRequest != "" && s.CreatedIndex > m.live.index {
			s.CreatedIndex = m.live.index
			m.requests[requestKey("create", s.CreateRequest)] = rememberedResult(s.CreatedIndex, s.ID)
		}
		results := slices.Clone(s.requests.results)
		for i, result := range results {
			if index, sweep, _ := parseRemembered(result); index > m.live.index {
				results[i] = rememberedResult(m.live.index, sweep)
			}
		}
		s.requests.results = results
	}
}

// fence ends every lease, and sets what the time since the state was saved must
// not count for.
func (m *Machine) fence(now, taken int64) {
	for _, s := range m.live.Sweeps() {
		s, _ = m.sweep(s.ID)
		s.ModifiedIndex = m.live.index
		if s.DeletedMS != 0 {
			s.DeletedMS = max(now, 1) // who restored it may want it back
		}
		if s.RunningSince > 0 && taken > 0 && now > taken {
			s.RunningSince = min(now, s.RunningSince+now-taken)
		}
		if s.Counts.Running == 0 {
			continue
		}
		for _, n := range s.Open() {
			if s.Trial(n).Lease == nil {
				continue // also: the end of another one ended the sweep
			}
			m.endRun(now, s, m.trial(s, n), trial.ExitRestored, "the cluster's state was restored")
		}
	}
}
