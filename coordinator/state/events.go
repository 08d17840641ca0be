package state

import (
	"fmt"
	"math"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// recordEvents takes the events in their order, each with a result of its own. What is
// kept of a trial's checkpoints is told with each of them, so that the worker deletes
// no file that the index names.
func (m *Machine) recordEvents(now int64, c *logv1.RecordEvents, r *Result) {
	events := c.GetEvents()
	if len(events) > maxEvents {
		r.Err = invalid("%d events in one command: at most %d", len(events), maxEvents)
		return
	}
	r.Events = make([]EventResult, len(events))
	for i, e := range events {
		a := &r.Events[i]
		m.event(now, e, a)
		if e.GetCheckpoint() != nil && (a.Outcome == trial.OutcomeRecorded || a.Outcome == trial.OutcomeAlready) {
			a.Kept = m.kept(e.GetSweepId(), e.GetTrial())
		}
	}
}

// event is the fence: only what comes under the token of the trial's present lease
// changes anything, but for a checkpoint that is given up. Of late ones see late.
func (m *Machine) event(now int64, e *atelierv1.RunEvent, a *EventResult) {
	refuse := func(why string) { a.Outcome, a.Message = trial.OutcomeRefused, why }
	s, ok := m.peek(e.GetSweepId())
	if !ok { // made after the state that was restored
		refuse("unknown sweep")
		a.Verdict = trial.VerdictStop
		return
	}
	if s.Overdue(now) {
		m.overrun(now, s)
		s, _ = m.peek(s.ID)
	}
	t := s.Trial(e.GetTrial())
	if t == nil {
		refuse("unknown trial")
		a.Verdict = trial.VerdictStop
		return
	}
	if gone := e.GetCheckpointLost(); gone != nil {
		m.checkpointLost(s, t, e.GetToken(), gone, a)
		return
	}
	if t.Lease == nil || t.Lease.Token != e.GetToken() {
		m.late(t, e, a)
		return
	}
	if !m.speaks(t, e, a) {
		return
	}
	switch event := e.GetEvent().(type) {
	case *atelierv1.RunEvent_Report:
		m.report(now, s, t, event.Report, a)
	case *atelierv1.RunEvent_Checkpoint:
		m.checkpoint(now, s, t, e.GetMember(), event.Checkpoint, a)
	case *atelierv1.RunEvent_View:
		m.recordView(now, s, t, e.GetMember(), event.View, a)
	case *atelierv1.RunEvent_MemberEnded:
		class := wire.Exit(event.MemberEnded.GetExit())
		if !m.known(class) {
			refuse("unknown exit class")
			return
		}
		m.memberEnded(now, s, t, e.GetMember(), class, event.MemberEnded.GetMessage(), a)
		return
	case *atelierv1.RunEvent_Ended:
		class := wire.Exit(event.Ended.GetExit())
		if !m.known(class) {
			refuse("unknown exit class")
			return
		}
		if !m.endsRun(t.Group(), e) {
			m.memberEnded(now, s, t, e.GetMember(), class, event.Ended.GetMessage(), a) // the others continue
			return
		}
		s, _ = m.sweep(s.ID)
		a.Outcome = trial.OutcomeRecorded
		m.endRun(now, s, m.trial(s, t.Number), class, event.Ended.GetMessage())
		return
	default:
		refuse("an event of no kind this version knows")
		return
	}
	if a.Verdict == 0 {
		s, _ = m.peek(s.ID)
		t = s.Trial(t.Number)
		a.Verdict = max(t.Verdict, trial.VerdictContinue)
		if a.Verdict != trial.VerdictContinue && a.Message == "" {
			a.Message = t.StopReason
		}
	}
}

// late answers an event whose token is not the trial's lease. What a run said
// before it ended itself may come again when the answer was lost; all else is
// from a run that lost its lease and must stop.
func (m *Machine) late(t *Trial, e *atelierv1.RunEvent, a *EventResult) {
	a.Outcome, a.Verdict, a.Message = trial.OutcomeFenced, trial.VerdictStop, "the lease is over"
	run := t.run(e.GetToken())
	if run == nil || t.Status == trial.Cancelled || run.Exit == trial.ExitLost || run.Exit == trial.ExitRestored {
		return
	}
	known := false
	switch event := e.GetEvent().(type) {
	case *atelierv1.RunEvent_Report:
		_, known = t.curve.row(event.Report.GetEpoch())
	case *atelierv1.RunEvent_Checkpoint:
		_, known = t.curve.row(event.Checkpoint.GetEpoch())
	case *atelierv1.RunEvent_Ended:
		known = wire.Exit(event.Ended.GetExit()) == run.Exit
	case *atelierv1.RunEvent_MemberEnded:
		known = run.Group != nil && e.GetMember() >= 1 && e.GetMember() <= run.Group.Joined
	case *atelierv1.RunEvent_View:
		known = recorded(run.Group, event.View) == trial.OutcomeAlready
	}
	if known {
		a.Outcome, a.Message = trial.OutcomeAlready, ""
	}
}

// report takes the metrics of an epoch. The first report of an epoch stands, and no
// earlier epoch follows a later one: a run that went on from a checkpoint repeats some.
func (m *Machine) report(now int64, s *Sweep, t *Trial, p *atelierv1.Report, a *EventResult) {
	if p.GetData() != "" && len(p.GetData()) <= maxName {
		s, t = m.learnData(s, t, p.GetData())
	}
	if m.rules >= 4 && p.GetEpoch() >= 1 {
		s, t = m.learnBegin(s, t, p.GetEpoch())
	}
	switch {
	case p.GetEpoch() < 1:
		a.Outcome, a.Message = trial.OutcomeRefused, "epochs count from 1"
		return
	case p.GetEpoch() <= t.Epoch():
		a.Outcome = trial.OutcomeAlready
		return
	case t.ReportCount() >= maxReports:
		a.Outcome, a.Message = trial.OutcomeRefused, "the trial has a million reports"
		return
	case len(t.curve.values)+max(len(p.GetMetrics()), t.curve.width()) > maxValues:
		a.Outcome, a.Message = trial.OutcomeRefused, "the trial has four million metric values"
		return
	}
	if t.atEnd() {
		// Nothing that a run trains beyond its end counts: others go on from there.
		a.Outcome, a.Verdict, a.Message = trial.OutcomeRefused, max(t.Verdict, t.Lease.End.Verdict), fmt.Sprintf("the run's last epoch is %d: %s", t.Lease.End.Epoch, t.Lease.End.Reason)
		return
	}
	before := t.Trained()
	if s.BudgetEpochs > 0 && !s.affords(t, t.with(p.GetEpoch())-before) {
		a.Outcome, a.Verdict, a.Message = trial.OutcomeRefused, trial.VerdictStop, "the sweep's budget of epochs is used"
		return
	}
	l, why := m.layoutOf(s, t, p.GetMetrics())
	if why != "" {
		a.Outcome, a.Message = trial.OutcomeRefused, why
		return
	}
	if t.curve.layout != nil && l != t.curve.layout && (t.ReportCount()+1)*len(l.names) > maxValues {
		a.Outcome, a.Message = trial.OutcomeRefused, "the trial has four million metric values"
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	m.addRow(t, l, p, now)
	s.Counts.Reports++
	s.ModifiedIndex = m.live.index
	if v, ok := t.curve.metric(len(t.curve.epochs)-1, s.Objective.Metric); ok && !math.IsNaN(v) && !math.IsInf(v, 0) {
		if (!t.HasValue || s.Objective.Better(v, t.Value)) && s.feasible(t, len(t.curve.epochs)-1) {
			t.HasValue, t.Value, t.ValueEpoch = true, v, p.GetEpoch()
			m.rank(s, t)
		}
	}
	m.spendEpochs(now, s, t, t.Trained()-before)
	a.Outcome = trial.OutcomeRecorded
	m.note(Change{Kind: ReportRecorded, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token})
	if t.atEnd() && t.Verdict != trial.VerdictStop {
		// The run knows; whoever looks at the state should, too.
		t.Verdict, t.StopReason = t.Lease.End.Verdict, t.Lease.End.Reason
		m.note(Change{Kind: VerdictSet, Sweep: s.ID, Trial: t.Number, Worker: t.Lease.Worker, Token: t.Lease.Token})
	}
}

// known reports whether a run may end so, under the rules of the command.
func (m *Machine) known(class trial.Exit) bool {
	if class == trial.ExitDataMissing {
		return m.rules >= 1
	}
	return class > 0 && class <= trial.ExitLost
}

// layoutOf finds or makes the layout that holds what the trial has and what the
// report brings; why is set when the report is malformed.
func (m *Machine) layoutOf(s *Sweep, t *Trial, metrics []*atelierv1.Metric) (l *layout, why string) {
	if have := t.curve.layout; have != nil && have.matches(metrics) {
		return have, ""
	}
	if t.curve.layout == nil {
		for _, known := range s.layouts {
			if known.matches(metrics) {
				return known, ""
			}
		}
	}
	var names []string
	if t.curve.layout != nil {
		names = t.curve.layout.names
	}
	had := len(names)
	names = names[:had:had]
	fresh := 0
	for i, metric := range metrics {
		name := metric.GetName()
		if name == "" || len(name) > maxName {
			return nil, "a metric's name must be of 1 to 256 bytes"
		}
		for _, other := range metrics[:i] {
			if other.GetName() == name {
				return nil, "metric " + name + " twice in one report"
			}
		}
		if slices.Contains(names, name) {
			continue
		}
		if !slices.Contains(s.metrics, name) {
			fresh++
		}
		names = append(names, name)
	}
	if len(s.metrics)+fresh > maxMetrics {
		return nil, "the sweep has 256 metrics already"
	}
	if t.curve.layout != nil && len(names) == had {
		return t.curve.layout, ""
	}
	return m.addLayout(s.ID, names), ""
}

// addLayout makes a layout of names and keeps it for the sweep's other trials.
func (m *Machine) addLayout(sweep string, names []string) *layout {
	s, _ := m.sweep(sweep)
	for _, known := range s.layouts {
		if slices.Equal(known.names, names) {
			return known
		}
	}
	l := &layout{}
	for _, name := range names {
		at := slices.Index(s.metrics, name)
		if at < 0 {
			at = len(s.metrics)
			s.metrics = append(s.metrics, name)
		}
		l.names = append(l.names, s.metrics[at])
		l.columns = append(l.columns, int32(at))
	}
	s.layouts = append(slices.Clone(s.layouts[max(0, len(s.layouts)-7):]), l)
	return l
}

func (l *layout) matches(metrics []*atelierv1.Metric) bool {
	if len(metrics) != len(l.names) {
		return false
	}
	for i, metric := range metrics {
		if metric.GetName() != l.names[i] {
			return false
		}
	}
	return true
}

// addRow appends a report to a trial's curve.
func (m *Machine) addRow(t *Trial, l *layout, p *atelierv1.Report, now int64) {
	c := &t.curve
	if c.layout != l {
		c.widen(l)
	}
	c.epochs = append(c.epochs, p.GetEpoch())
	if p.GetTimeMs() > 0 {
		now = p.GetTimeMs()
	}
	c.times = append(c.times, now)
	metrics := p.GetMetrics()
	if l.matches(metrics) {
		for _, metric := range metrics {
			c.values = append(c.values, metric.GetValue())
		}
		return
	}
	for _, name := range l.names {
		at := slices.IndexFunc(metrics, func(metric *atelierv1.Metric) bool { return metric.GetName() == name })
		if at < 0 {
			c.absent = append(c.absent, uint32(len(c.values)))
			c.values = append(c.values, math.NaN())
			continue
		}
		c.values = append(c.values, metrics[at].GetValue())
	}
}

// checkpoint takes a stored model into the index and drops what it displaces: kept are
// the newest and the best.
func (m *Machine) checkpoint(now int64, s *Sweep, t *Trial, member int32, p *atelierv1.Checkpoint, a *EventResult) {
	if p.GetEpoch() < 1 || p.GetLocation() == "" || len(p.GetLocation()) > maxMessage || len(p.GetSha256()) > maxName || len(p.GetWorker()) > maxName || p.GetSize() < 0 {
		a.Outcome, a.Message = trial.OutcomeRefused, "a checkpoint needs an epoch from 1, a size and a location"
		return
	}
	if over := t.atEnd() || m.rules >= 1 && s.BudgetEpochs > 0 && t.Verdict == trial.VerdictStop; over && p.GetEpoch() > t.Epoch() {
		a.Outcome, a.Message = trial.OutcomeRefused, "the run's last epoch is over: a checkpoint of a later one does not count"
		return
	}
	token := t.Lease.Token
	if newest := t.Checkpoints; len(newest) > 0 && newest[0].Token == token && p.GetEpoch() <= newest[0].Epoch {
		a.Outcome = trial.OutcomeAlready
		return
	}
	c := Checkpoint{Epoch: p.GetEpoch(), HasMetric: p.GetHasMetric(), Metric: p.GetMetric(), Size: p.GetSize(), SHA256: p.GetSha256(),
		Location: p.GetLocation(), Worker: m.intern(p.GetWorker()), CreatedMS: p.GetCreatedMs(), Token: token}
	if c.Worker == "" {
		c.Worker = t.Lease.Worker
		if g := t.Group(); g != nil {
			c.Worker = g.Members[g.At(member)].Worker
		}
	}
	if c.CreatedMS <= 0 {
		c.CreatedMS = now
	}
	if !c.HasMetric {
		if i, ok := t.curve.row(c.Epoch); ok {
			c.Metric, c.HasMetric = t.curve.metric(i, s.Objective.Metric)
		}
	}
	if i, ok := t.curve.row(c.Epoch); ok && !s.feasible(t, i) {
		c.HasMetric = false // not one that could be the best
	}
	if !c.HasMetric || math.IsNaN(c.Metric) {
		c.HasMetric, c.Metric = false, 0
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	rows := []Checkpoint{c}
	for _, old := range t.Checkpoints {
		if old.Epoch != c.Epoch || m.pinned(s, t, &old) { // a later run's checkpoint of the same epoch takes its place
			rows = append(rows, old)
		}
	}
	kept := m.needed(s, t, rows)
	s.ModifiedIndex = m.live.index
	a.Outcome = trial.OutcomeRecorded
	m.note(Change{Kind: CheckpointRecorded, Sweep: s.ID, Trial: t.Number, Worker: c.Worker, Token: token})
	m.keep(s, t, kept, false)
	m.press(s)
}

// kept are the locations of a trial's checkpoints, for the worker: which may go
// depends on constraints, budgets and reports that are known here.
func (m *Machine) kept(sweep string, number int64) []string {
	s, ok := m.peek(sweep)
	if !ok {
		return nil
	}
	t := s.Trial(number)
	if t == nil {
		return nil
	}
	locations := make([]string, len(t.Checkpoints))
	for i := range t.Checkpoints {
		locations[i] = t.Checkpoints[i].Location
	}
	return locations
}

// checkpointLost gives up a checkpoint whose file is gone, as who has it, or who
// asked for it there, found out. It must be that very file: the statement may
// come late.
func (m *Machine) checkpointLost(s *Sweep, t *Trial, token uint64, gone *atelierv1.CheckpointLost, a *EventResult) {
	at := slices.IndexFunc(t.Checkpoints, func(c Checkpoint) bool {
		return c.Token == token && c.Epoch == gone.GetEpoch() && c.Location == gone.GetLocation()
	})
	if at < 0 {
		a.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	kept := append(make([]Checkpoint, 0, 1), t.Checkpoints[:at]...)
	m.keep(s, t, append(kept, t.Checkpoints[at+1:]...), false)
	s.ModifiedIndex = m.live.index
	a.Outcome = trial.OutcomeRecorded
}

// bestCheckpoint is the place of the best of a trial's checkpoints, of which
// there is one.
func bestCheckpoint(o trial.Objective, rows []Checkpoint) int {
	return trial.BestAt(rows, o.Maximize, func(c *Checkpoint) trial.Mark {
		return trial.Mark{HasMetric: c.HasMetric, Metric: c.Metric, Token: c.Token, Epoch: c.Epoch}
	})
}
