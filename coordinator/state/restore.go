package state

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"google.golang.org/protobuf/proto"
)

// Restore replaces the whole state by what a snapshot holds. The stream is read
// to its Footer and must end there. When it is damaged, of another version or at
// odds with itself, the error says where, and the state is as it was.
func (m *Machine) Restore(r io.Reader) error {
	fresh := New()
	if err := fresh.load(r); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen++ // what was loaded is stamped 1: it is copied before it changes
	m.live, m.leases, m.requests, m.interned, m.staging, m.pins = fresh.live, fresh.leases, fresh.requests, fresh.interned, fresh.staging, fresh.pins
	m.shared = false
	m.published.Store(nil)
	return nil
}

// recordReader reads a stream record by record, with one buffer: its size is checked before memory is taken.
type recordReader struct {
	src    *source
	r      *bufio.Reader
	body   bytes.Buffer
	record logv1.Record
}

// errNoSnapshot is of a stream whose first record cannot be read: it was never a
// snapshot, and what is wrong with its bytes helps nobody.
var errNoSnapshot = errors.New("it is not a snapshot of Atelier: want a file that `atelier cluster snapshot FILE` wrote")

// next reads record n, which is good until the next call.
func (rr *recordReader) next(n int64) error {
	err := rr.read(n)
	if err != nil && n == 0 && rr.src.err == nil {
		return errNoSnapshot
	}
	return err
}

// source keeps the error of where the bytes come from, which is none of the bytes.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (rr *recordReader) read(n int64) error {
	size, err := binary.ReadUvarint(rr.r)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("it ends after %d records, without a footer: it was cut short", n)
		}
		return err
	}
	if size > maxRecord {
		return tooLong(n, size)
	}
	rr.body.Reset()
	if got, err := io.CopyN(&rr.body, rr.r, int64(size)); err != nil && rr.src.err != nil {
		return rr.src.err
	} else if err != nil {
		return fmt.Errorf("record %d has %d of %d bytes: it was cut short", n, got, size)
	}
	proto.Reset(&rr.record)
	if err := proto.Unmarshal(rr.body.Bytes(), &rr.record); err != nil {
		return fmt.Errorf("record %d cannot be read: it is damaged", n)
	}
	return nil
}

func tooLong(n int64, size uint64) error {
	return fmt.Errorf("record %d claims %d bytes, more than %d: it is damaged or no snapshot", n, size, maxRecord)
}

var errBehindFooter = errors.New("there is something behind the footer")

// load reads a stream into an empty machine.
func (m *Machine) load(r io.Reader) error {
	src := &source{r: r}
	rr := &recordReader{src: src, r: bufio.NewReaderSize(src, 1<<16)}
	l := loader{m: m}
	for !l.ended {
		if err := rr.next(l.records); err != nil {
			return err
		}
		if err := l.take(&rr.record); err != nil {
			return err
		}
	}
	if _, err := rr.r.ReadByte(); err != io.EOF {
		return errBehindFooter
	}
	return nil
}

// loader takes the records of a stream one after another into an empty machine.
type loader struct {
	m       *Machine
	records int64
	ended   bool   // the footer came
	newest  uint64 // token of all runs

	sweep *Sweep // whose trials are to come next, nil for none
	next  int64
	last  int64
	parts int64 // of a staged restore, to come
}

// take takes one record. After an error the machine is of no use.
func (l *loader) take(r *logv1.Record) error {
	l.records++
	if l.records == 1 {
		header := r.GetHeader()
		switch {
		case header == nil:
			return errNoSnapshot
		case header.GetVersion() < 1 || header.GetVersion() > SnapshotVersion:
			return fmt.Errorf("version %d: this program reads versions 1 to %d", header.GetVersion(), SnapshotVersion)
		}
		return l.m.loadHeader(header)
	}
	if l.sweep != nil {
		return l.trial(r.GetTrial())
	}
	if l.parts > 0 {
		return l.part(r.GetPart())
	}
	switch record := r.GetRecord().(type) {
	case *logv1.Record_Sweep:
		s, err := l.m.loadSweep(record.Sweep)
		if err != nil {
			return err
		}
		l.sweep, l.next, l.last = s, 1, record.Sweep.GetTrials()
		return l.sweepDone()
	case *logv1.Record_Staged:
		if err := validBegin(record.Staged.GetBegin()); err != nil || l.m.live.staged != nil || record.Staged.GetParts() < 0 {
			return fmt.Errorf("record %d: a staged restore of %d parts: %v", l.records-1, record.Staged.GetParts(), err)
		}
		l.m.live.staged = &staged{begin: proto.CloneOf(record.Staged.GetBegin())}
		l.m.staging = newStaging()
		l.parts = record.Staged.GetParts()
		return nil
	case *logv1.Record_Footer:
		if record.Footer.GetRecords() != l.records-1 {
			return fmt.Errorf("the footer counts %d records, there are %d", record.Footer.GetRecords(), l.records-1)
		}
		l.ended = true
		return nil
	}
	return fmt.Errorf("record %d is neither a sweep nor the footer", l.records-1)
}

// trial takes the next trial of the sweep under way.
func (l *loader) trial(t *logv1.TrialRecord) error {
	s := l.sweep
	if t == nil || t.GetNumber() != l.next {
		return fmt.Errorf("sweep %s: record %d is not its trial %d", s.ID, l.records-1, l.next)
	}
	if err := l.m.loadTrial(s, t); err != nil {
		return fmt.Errorf("sweep %s: trial %d: %w", s.ID, l.next, err)
	}
	for _, run := range t.GetRuns() {
		l.newest = max(l.newest, run.GetToken())
	}
	l.next++
	return l.sweepDone()
}

// sweepDone ends a sweep once its last trial came.
func (l *loader) sweepDone() error {
	s := l.sweep
	if l.next <= l.last {
		return nil
	}
	l.sweep = nil
	if s.Findings == 0 {
		l.m.numberFindings(s)
	}
	if s.Ended() && s.Counts.Open() > 0 {
		return fmt.Errorf("sweep %s: it has ended with %d trials open", s.ID, s.Counts.Open())
	}
	return nil
}

// part takes a part of what was staged: nothing that Apply would not have taken.
func (l *loader) part(p *logv1.StagedPart) error {
	if p == nil {
		return fmt.Errorf("record %d is not a part of the staged restore, %d are missing", l.records-1, l.parts)
	}
	var r Result
	g := l.m.live.staged
	l.m.stageRestore(&logv1.StageRestore{Id: g.begin.GetId(), Offset: g.received, Data: p.GetData()}, &r)
	l.parts--
	return r.Err
}

// loadHeader takes what is about the cluster as a whole.
func (m *Machine) loadHeader(h *logv1.Header) error {
	m.live.index, m.live.clusterID = h.GetIndex(), h.GetClusterId()
	m.live.tokenOffset, m.live.restoredID, m.live.restoredIndex = h.GetTokenOffset(), h.GetRestoredId(), h.GetRestoredIndex()
	ids := make([]string, 0, len(h.GetMembers()))
	for _, b := range h.GetMembers() {
		ids = append(ids, b.GetId())
		m.live.members = append(m.live.members, Member{ID: b.GetId(), RaftAddress: b.GetRaftAddress(), APIAddress: b.GetApiAddress(), GossipAddress: b.GetGossipAddress(), FolderID: b.GetFolderId()})
	}
	for _, b := range h.GetRemoved() {
		m.live.removed = append(m.live.removed, removed{b.GetId(), b.GetFolderId()})
	}
	m.live.former = slices.Clone(h.GetFormerClusterIds())
	m.live.drained = slices.Clone(h.GetDrained())
	switch {
	case len(m.live.removed) > maxRemoved || len(m.live.former) > maxFormer:
		return fmt.Errorf("header: %d removed members and %d former clusters", len(m.live.removed), len(m.live.former))
	case !sortedUnique(ids):
		return errors.New("header: members are not in order")
	case h.GetTokenOffset() > maxIndex || h.GetRestoredIndex() > h.GetIndex() || len(h.GetRestoredId()) > maxName:
		return fmt.Errorf("header: tokens from %d on, restored at %d", h.GetTokenOffset(), h.GetRestoredIndex())
	case !sortedUnique(m.live.drained):
		return errors.New("header: drained workers are not in order")
	}
	if err := m.live.requests.load(h.GetRequests(), h.GetRequestResults(), maxRequests+maxKinds*maxOfKind); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for i, key := range m.live.requests.ids {
		m.requests[key] = m.live.requests.results[i]
	}
	if err := m.loadAliases(h.GetAliases()); err != nil {
		return err
	}
	if err := m.loadAccess(h); err != nil {
		return err
	}
	return m.loadPurged(h.GetPurged())
}

// loadSweep is the inverse of Sweep.record. Snapshots of earlier versions lack what is
// newer: absence has to mean what was true then.
func (m *Machine) loadSweep(r *logv1.SweepRecord) (*Sweep, error) {
	s, err := newSweep(r.GetSpec(), false)
	if err != nil {
		return nil, err
	}
	if _, twice := m.live.byID[s.ID]; twice {
		return nil, fmt.Errorf("sweep %s twice", s.ID)
	}
	s.Status, s.Failure, s.Exhausted = wire.SweepStatus(r.GetStatus()), r.GetFailure(), r.GetExhausted()
	s.CreatedMS, s.EndedMS, s.ModifiedIndex = r.GetCreatedMs(), r.GetEndedMs(), r.GetModifiedIndex()
	s.metrics = slices.Clone(r.GetMetrics())
	s.Findings, s.EnqueuedTaken, s.Ending, s.Data = r.GetFindings(), r.GetEnqueuedTaken(), r.GetEnding(), m.intern(r.GetData())
	s.SpentMS, s.RunningSince = r.GetSpentMs(), r.GetRunningSinceMs()
	if s.Status == trial.SweepRunning && s.RunningSince == 0 {
		s.RunningSince = max(s.CreatedMS, 1) // from before its time was kept
	}
	s.Name, s.Tags, s.UserNote = cmp.Or(r.GetName(), s.Name), slices.Clone(r.GetTags()), r.GetUserNote()
	s.ArchivedMS, s.DeletedMS = r.GetArchivedMs(), r.GetDeletedMs()
	if err := s.validLabels(); err != nil {
		return nil, err
	}
	if s.Notification = wire.Notification(r.GetNotification()); s.Notification != nil {
		if err := validNotification(s.ID, s.Notification); err != nil {
			return nil, err
		}
	}
	trials := r.GetTrials()
	_, gone := m.live.Purged(s.ID)
	switch {
	case gone || s.ArchivedMS < 0 || s.DeletedMS < 0 || s.DeletedMS != 0 && !s.Ended():
		return nil, fmt.Errorf("sweep %s: deleted and here, or deleted while it is %s", s.ID, s.Status)
	case s.Status < trial.SweepRunning || s.Status > trial.SweepFailed:
		return nil, fmt.Errorf("sweep %s: status %d", s.ID, s.Status)
	case len(s.metrics) > maxMetrics || !unique(s.metrics):
		return nil, fmt.Errorf("sweep %s: %d metrics, not all different or too many", s.ID, len(s.metrics))
	case s.EnqueuedTaken < 0 || s.EnqueuedTaken > int64(len(s.Enqueued)) || s.SpentMS < 0 || s.Findings < 0:
		return nil, fmt.Errorf("sweep %s: %d of %d given points taken, %d ms spent, %d findings", s.ID, s.EnqueuedTaken, len(s.Enqueued), s.SpentMS, s.Findings)
	case trials < 0 || s.Budget > 0 && trials > s.Budget || trials > maxBudget:
		return nil, fmt.Errorf("sweep %s: %d trials of a budget of %d", s.ID, trials, s.Budget)
	}
	if err := s.requests.load(r.GetRequests(), r.GetRequestResults(), maxKinds*maxOfKind); err != nil {
		return nil, fmt.Errorf("sweep %s: %w", s.ID, err)
	}
	if s.CreateRequest, s.CreatedIndex = r.GetCreateRequest(), r.GetCreatedIndex(); s.CreateRequest != "" {
		key := requestKey("create", s.CreateRequest)
		if _, twice := m.requests[key]; twice || len(s.CreateRequest) > maxName {
			return nil, fmt.Errorf("sweep %s: request %.300q made another sweep, or is too long", s.ID, s.CreateRequest)
		}
		m.requests[key] = rememberedResult(s.CreatedIndex, s.ID)
	}
	m.addSweep(s)
	return s, nil
}

// numberFindings gives the ended trials of a snapshot from before findings were
// kept their findings, in the order of their ends.
func (m *Machine) numberFindings(s *Sweep) {
	var all []*Trial
	for t := range s.Trials(1) {
		if t.Ended() {
			all = append(all, m.trial(s, t.Number))
		}
	}
	slices.SortStableFunc(all, func(a, b *Trial) int { return cmp.Compare(a.EndedMS, b.EndedMS) })
	for _, t := range all {
		m.learn(s, t)
	}
}

// loadTrial is the inverse of Trial.record. It checks what Apply takes for granted, since
// a file may come from anywhere; counts, open trials and ranking follow in addTrial.
func (m *Machine) loadTrial(s *Sweep, r *logv1.TrialRecord) error {
	t := &Trial{Number: r.GetNumber(), ParamsJSON: r.GetParamsJson(), Status: wire.Status(r.GetStatus()), Verdict: wire.Verdict(r.GetVerdict()),
		HasValue: r.GetHasValue(), Value: r.GetValue(), ValueEpoch: r.GetValueEpoch(),
		StopReason: m.intern(r.GetStopReason()), Failure: m.intern(r.GetFailure()),
		CreatedMS: r.GetCreatedMs(), StartedMS: r.GetStartedMs(), EndedMS: r.GetEndedMs(), FailedRuns: r.GetFailedRuns(), LostRuns: r.GetLostRuns(), Refusals: r.GetRefusals(), Pauses: r.GetPauses(),
		Source: wire.Source(r.GetSource()), ProposedSeen: r.GetProposedSeen(), ProposedBudget: r.GetProposedBudget(),
		Origin: wire.Origin(r.GetOrigin())}
	switch {
	case s.Counts.of(t.Status) == nil:
		return fmt.Errorf("status %d", t.Status)
	case t.Verdict < 0 || t.Verdict > trial.VerdictStop:
		return fmt.Errorf("verdict %d", t.Verdict)
	case t.HasValue && (math.IsNaN(t.Value) || math.IsInf(t.Value, 0)):
		return errors.New("its value is not finite")
	case len(r.GetRuns()) > maxRuns || len(r.GetCredentials()) != 0 && len(r.GetCredentials()) != len(r.GetRuns()):
		return fmt.Errorf("%d runs, %d credentials", len(r.GetRuns()), len(r.GetCredentials()))
	case slices.ContainsFunc(r.GetCredentials(), func(b []byte) bool { return len(b) > maxCredential }):
		return errors.New("a credential whose hash is too long")
	}
	if t.ProposedSeen < 0 || t.ProposedSeen > s.Findings || t.Origin.Trial < 0 || t.Origin.Trial >= t.Number {
		return fmt.Errorf("proposed after %d of %d findings, from trial %d", t.ProposedSeen, s.Findings, t.Origin.Trial)
	}
	for i, f := range r.GetFindings() {
		if f.GetOrdinal() < 1 || f.GetOrdinal() > s.Findings || i > 0 && f.GetOrdinal() <= t.Findings[i-1].Ordinal {
			return fmt.Errorf("finding %d has number %d of %d", i+1, f.GetOrdinal(), s.Findings)
		}
		t.Findings = append(t.Findings, Finding{Ordinal: f.GetOrdinal(), Status: wire.Status(f.GetStatus()), HasValue: f.GetHasValue(), Value: f.GetValue(), ValueEpoch: f.GetValueEpoch(), Epoch: f.GetEpoch()})
	}
	t.Runs = make([]Run, 0, len(r.GetRuns()))
	for i, run := range r.GetRuns() {
		if i > 0 && run.GetToken() <= t.Runs[i-1].Token {
			return fmt.Errorf("run %d: its token does not grow", i+1)
		}
		t.Runs = append(t.Runs, Run{Number: run.GetNumber(), ResumedEpoch: run.GetResumedEpoch(), Token: run.GetToken(), Worker: m.intern(run.GetWorker()), Slot: m.intern(run.GetSlot()),
			StartedMS: run.GetStartedMs(), EndedMS: run.GetEndedMs(), Exit: wire.Exit(run.GetExit()), Message: m.intern(run.GetMessage()), Data: m.intern(run.GetData()), Group: wire.RunGroup(run.GetGroup())})
		if i < len(r.GetCredentials()) {
			t.Runs[i].Credential = string(r.GetCredentials()[i])
		}
		if why := faultOf(t.Runs[i].Group); why != "" {
			return fmt.Errorf("run %d: %s", i+1, why)
		}
	}
	for _, c := range r.GetCheckpoints() {
		t.Checkpoints = append(t.Checkpoints, Checkpoint{Epoch: c.GetEpoch(), HasMetric: c.GetHasMetric(), Metric: c.GetMetric(), Size: c.GetSize(), SHA256: c.GetSha256(),
			Location: c.GetLocation(), Worker: m.intern(c.GetWorker()), CreatedMS: c.GetCreatedMs(), Token: c.GetToken()})
	}
	if n := len(t.Checkpoints); n > 2 && len(m.needed(s, t, t.Checkpoints)) != n {
		return fmt.Errorf("%d checkpoints, of which no alias names some", n)
	}
	if err := m.loadLease(s, t, r.GetLease()); err != nil {
		return err
	}
	if err := t.loadCurve(m, s, r); err != nil {
		return err
	}
	m.addTrial(s, t)
	return nil
}

// loadLease wants a lease exactly where the trial runs, under the token of its last run.
func (m *Machine) loadLease(s *Sweep, t *Trial, l *logv1.LeaseRecord) error {
	if (l == nil) != (t.Status != trial.Running) {
		return fmt.Errorf("%s, lease %d", t.Status, l.GetToken())
	}
	if l == nil {
		return nil
	}
	if len(t.Runs) == 0 || t.Runs[len(t.Runs)-1].Token != l.GetToken() || t.lastExit() != 0 {
		return fmt.Errorf("lease %d has no run", l.GetToken())
	}
	if l.GetEnd() != nil && !validEnd(endOf(l.GetEnd())) {
		return fmt.Errorf("lease %d ends at epoch %d with verdict %d", l.GetToken(), l.GetEnd().GetEpoch(), l.GetEnd().GetVerdict())
	}
	t.Lease = &Lease{Token: l.GetToken(), Worker: m.intern(l.GetWorker()), Incarnation: m.intern(l.GetIncarnation()), Slot: m.intern(l.GetSlot()), Request: l.GetRequest(), GrantedMS: l.GetGrantedMs(), TermMS: l.GetTermMs(),
		End: endOf(l.GetEnd()), Final: l.GetFinal(), Folder: m.intern(l.GetFolder())}
	if g := t.Runs[len(t.Runs)-1].Group; g != nil {
		t.Lease.Members = g.Members
	}
	for _, key := range t.Lease.keys() {
		if _, twice := m.leases[key.leaseKey]; twice {
			return fmt.Errorf("lease %d: its request has another lease", l.GetToken())
		}
		m.leases[key.leaseKey] = leaseAt{s.ID, t.Number, key.member}
	}
	return nil
}

// loadCurve wants epochs that ascend and a value for each epoch and column; absent ones
// are listed by their place.
func (t *Trial) loadCurve(m *Machine, s *Sweep, r *logv1.TrialRecord) error {
	rows, columns := len(r.GetEpochs()), r.GetColumns()
	switch {
	case rows > maxReports || len(r.GetTimesMs()) != rows || len(columns) > maxMetrics || len(r.GetValues()) != rows*len(columns) || len(r.GetValues()) > maxValues:
		return fmt.Errorf("curve: %d epochs, %d times, %d columns, %d values", rows, len(r.GetTimesMs()), len(columns), len(r.GetValues()))
	case rows == 0 && len(columns) > 0:
		return errors.New("curve: columns without a row")
	case rows > 0 && r.GetEpochs()[0] < 1 || !sortedUnique(r.GetEpochs()):
		return errors.New("curve: epochs do not ascend from 1")
	case !unique(columns):
		return errors.New("curve: a column twice")
	case !sortedUnique(r.GetAbsent()) || len(r.GetAbsent()) > 0 && int64(r.GetAbsent()[len(r.GetAbsent())-1]) >= int64(len(r.GetValues())):
		return errors.New("curve: absent values out of place")
	}
	if rows == 0 {
		return nil
	}
	names := make([]string, len(columns))
	for i, at := range columns {
		if at < 0 || int(at) >= len(s.metrics) {
			return fmt.Errorf("curve: column %d of %d metrics", at, len(s.metrics))
		}
		names[i] = s.metrics[at]
	}
	// The record's slices are its own: proto.Reset drops them.
	t.curve = curve{layout: m.addLayout(s.ID, names), epochs: exact(r.GetEpochs()), values: exact(r.GetValues()), absent: exact(r.GetAbsent())}
	t.curve.times = make([]int64, rows)
	at := int64(0)
	for i, step := range r.GetTimesMs() {
		at += step
		t.curve.times[i] = at
	}
	return nil
}
