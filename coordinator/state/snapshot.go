package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial/wire"

	"google.golang.org/protobuf/proto"
)

// The stream of a snapshot: a Header, then each sweep in order of creation, each
// followed by its trials in order of number, then what a restore under way has
// staged, then a Footer that counts what came before it. Every Record goes behind its length, a varint.
const maxRecord = 128 << 20 // bytes; no state that Apply lets come about needs more

// SnapshotVersion is that of the stream's form. It grows when the same state is
// written otherwise than before; older forms are read.
//
//	1  a sweep's spec field by field
//	2  a sweep's spec as spec_json
const SnapshotVersion = 2

// Hash is the SHA-256 of the stream that WriteTo writes. Replicas that applied
// the same entries up to the same index have the same hash.
func (v *View) Hash() [32]byte {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 1<<16)
	if _, err := v.WriteTo(w); err != nil {
		panic("state: a hash cannot fail to be written to: " + err.Error())
	}
	w.Flush()
	return [32]byte(h.Sum(nil))
}

// WriteTo writes the state as a snapshot. The writer should be buffered.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	rw := recordWriter{w: w}
	header := &logv1.Header{Version: SnapshotVersion, Index: v.index, ClusterId: v.clusterID, Drained: v.drained,
		Requests: v.requests.ids, RequestResults: v.requests.results,
		TokenOffset: v.tokenOffset, RestoredId: v.restoredID, RestoredIndex: v.restoredIndex}
	for _, b := range v.members {
		header.Members = append(header.Members, &logv1.SetMember{Id: b.ID, RaftAddress: b.RaftAddress, ApiAddress: b.APIAddress, GossipAddress: b.GossipAddress, FolderId: b.FolderID})
	}
	for _, b := range v.removed {
		header.Removed = append(header.Removed, &logv1.RemovedMember{Id: b.id, FolderId: b.folder})
	}
	header.FormerClusterIds, header.Purged, header.Aliases = v.former, v.purgedRecords(), v.aliasRecords()
	v.accessRecords(header)
	rw.write(&logv1.Record{Record: &logv1.Record_Header{Header: header}})
	v.sweeps.leaves(0, func(_ int, sweeps []*Sweep) bool {
		for _, s := range sweeps {
			rw.write(&logv1.Record{Record: &logv1.Record_Sweep{Sweep: s.record()}})
			for t := range s.Trials(1) {
				rw.trial(t)
			}
		}
		return rw.err == nil
	})
	if g := v.staged; g != nil {
		rw.write(&logv1.Record{Record: &logv1.Record_Staged{Staged: &logv1.StagedRestore{Begin: g.begin, Parts: int64(len(g.parts))}}})
		for _, part := range g.parts {
			rw.write(&logv1.Record{Record: &logv1.Record_Part{Part: &logv1.StagedPart{Data: part}}})
		}
	}
	rw.write(&logv1.Record{Record: &logv1.Record_Footer{Footer: &logv1.Footer{Records: rw.records}}})
	return rw.bytes, rw.err
}

type recordWriter struct {
	w       io.Writer
	records int64
	bytes   int64
	err     error
	body    []byte
	head    [binary.MaxVarintLen64]byte

	// One record, filled again for every trial.
	spare logv1.TrialRecord
}

// write writes one record behind its length. Marshalling is deterministic, for the hash is
// taken over these bytes; the first error stays.
func (rw *recordWriter) write(r *logv1.Record) {
	if rw.err != nil {
		return
	}
	rw.body, rw.err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(rw.body[:0], r)
	if rw.err != nil {
		return
	}
	rw.put(rw.head[:binary.PutUvarint(rw.head[:], uint64(len(rw.body)))])
	rw.put(rw.body)
	rw.records++
}

// put writes bytes unless something failed before.
func (rw *recordWriter) put(b []byte) {
	if rw.err != nil {
		return
	}
	n, err := rw.w.Write(b)
	rw.bytes += int64(n)
	rw.err = err
}

// trial writes a trial by way of the one spare record, so that a snapshot of many trials makes
// little garbage.
func (rw *recordWriter) trial(t *Trial) {
	t.record(&rw.spare)
	rw.write(&logv1.Record{Record: &logv1.Record_Trial{Trial: &rw.spare}})
}

// record is a sweep as it stands in a snapshot: how it was made, and what cannot be
// derived from its trials. loadSweep is its inverse: a field that only one of the two
// knows is lost with every restart.
func (s *Sweep) record() *logv1.SweepRecord {
	name := s.Name
	if name == s.Spec.Name {
		name = ""
	}
	return &logv1.SweepRecord{Name: name, Tags: s.Tags, UserNote: s.UserNote, ArchivedMs: s.ArchivedMS, DeletedMs: s.DeletedMS, Notification: wire.ToNotification(s.Notification), Spec: s.created(), Status: wire.ToSweepStatus(s.Status), Failure: s.Failure, Exhausted: s.Exhausted, CreatedMs: s.CreatedMS, EndedMs: s.EndedMS,
		Trials: s.Len(), Metrics: s.metrics, ModifiedIndex: s.ModifiedIndex,
		Findings: s.Findings, EnqueuedTaken: s.EnqueuedTaken, SpentMs: s.SpentMS, RunningSinceMs: s.RunningSince, Ending: s.Ending,
		CreateRequest: s.CreateRequest, CreatedIndex: s.CreatedIndex, Requests: s.requests.ids, RequestResults: s.requests.results, Data: s.Data}
}

// record fills r, whose slices it uses again.
func (t *Trial) record(r *logv1.TrialRecord) {
	epochs, times := r.Epochs[:0], r.TimesMs[:0]
	proto.Reset(r)
	r.Number, r.Status, r.ParamsJson = t.Number, wire.ToStatus(t.Status), t.ParamsJSON
	r.HasValue, r.Value, r.ValueEpoch = t.HasValue, t.Value, t.ValueEpoch
	r.CreatedMs, r.StartedMs, r.EndedMs = t.CreatedMS, t.StartedMS, t.EndedMS
	r.Failure, r.Verdict, r.StopReason = t.Failure, wire.ToVerdict(t.Verdict), t.StopReason
	r.FailedRuns, r.LostRuns, r.Refusals, r.Pauses = t.FailedRuns, t.LostRuns, t.Refusals, t.Pauses
	r.Source, r.ProposedSeen, r.ProposedBudget, r.Origin = wire.ToSource(t.Source), t.ProposedSeen, t.ProposedBudget, wire.ToOrigin(t.Origin)
	for i := range t.Findings {
		r.Findings = append(r.Findings, t.Findings[i].Proto())
	}
	for i := range t.Runs {
		r.Runs = append(r.Runs, t.Runs[i].Proto())
	}
	if slices.ContainsFunc(t.Runs, func(r Run) bool { return r.Credential != "" }) {
		for i := range t.Runs {
			r.Credentials = append(r.Credentials, []byte(t.Runs[i].Credential))
		}
	}
	for i := range t.Checkpoints {
		r.Checkpoints = append(r.Checkpoints, t.Checkpoints[i].Proto("", 0))
	}
	if l := t.Lease; l != nil {
		r.Lease = &logv1.LeaseRecord{Token: l.Token, Worker: l.Worker, Incarnation: l.Incarnation, Slot: l.Slot, Request: l.Request, GrantedMs: l.GrantedMS, TermMs: l.TermMS,
			End: l.End.Proto(), Final: l.Final, Folder: l.Folder}
	}
	c := &t.curve
	if c.layout == nil {
		return
	}
	r.Epochs = append(epochs, c.epochs...)
	// Times are written as differences, which are small numbers and so short ones.
	before := int64(0)
	for _, ms := range c.times {
		times = append(times, ms-before)
		before = ms
	}
	r.TimesMs = times
	r.Columns, r.Values, r.Absent = c.layout.columns, c.values, c.absent
}

// sortedUnique reports whether list ascends strictly.
func sortedUnique[T ~string | ~uint32 | ~int32](list []T) bool {
	for i := 1; i < len(list); i++ {
		if list[i] <= list[i-1] {
			return false
		}
	}
	return true
}

// unique reports whether nothing is in list twice; most lists are too short for a map to pay.
func unique[T comparable](list []T) bool {
	if len(list) <= 8 {
		for i, a := range list {
			if slices.Contains(list[:i], a) {
				return false
			}
		}
		return true
	}
	seen := make(map[T]bool, len(list))
	for _, a := range list {
		if seen[a] {
			return false
		}
		seen[a] = true
	}
	return true
}
