package state

import "slices"

// What a run's first report tells of the run itself.

// learnData keeps what the present run trains and validates on, the first word
// of it, and of the first run of a sweep for the sweep.
func (m *Machine) learnData(s *Sweep, t *Trial, data string) (*Sweep, *Trial) {
	if run := t.run(t.Lease.Token); run == nil || run.Data != "" {
		return s, t
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	data = m.intern(data)
	t.Runs = slices.Clone(t.Runs) // Views keep the old ones
	t.run(t.Lease.Token).Data = data
	if s.Data == "" {
		s.Data = data
	}
	s.ModifiedIndex = m.live.index
	return s, t
}

// learnBegin corrects what a run is said to have gone on from. Its grant names the
// newest checkpoint; where that file could not be had, as after a restore, the run began
// with an older one or from scratch, and reports epochs that it cannot have gone on from.
func (m *Machine) learnBegin(s *Sweep, t *Trial, epoch int32) (*Sweep, *Trial) {
	run := t.run(t.Lease.Token)
	if run == nil || epoch > run.ResumedEpoch {
		return s, t
	}
	began := int32(0)
	for i := range t.Checkpoints {
		if c := &t.Checkpoints[i]; c.Token != run.Token && c.Epoch < epoch {
			began = max(began, c.Epoch)
		}
	}
	s, _ = m.sweep(s.ID)
	t = m.trial(s, t.Number)
	t.Runs = slices.Clone(t.Runs) // Views keep the old ones
	t.run(t.Lease.Token).ResumedEpoch = began
	s.ModifiedIndex = m.live.index
	return s, t
}
