package state

import (
	"cmp"
	"slices"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// An alias is a name for a checkpoint. What it names, and what it named before that, is
// pinned: neither a later checkpoint of the trial nor the budget of its sweep drops it, so
// that a promotion can be taken back. An alias moves in one step, and remembers its places.

// Alias is a name and its places, newest first; the first is what it names now.
type Alias struct {
	Name   string
	Places []AliasPlace // never changed in place
}

// AliasPlace is a checkpoint that an alias names or named.
type AliasPlace struct {
	Sweep   string
	Trial   int64
	Epoch   int32
	Token   uint64 // of the run that wrote it
	SHA256  string // in hex
	Size    int64  // bytes
	SinceMS int64
	By      string // who said so
}

// pin is a checkpoint that is kept because an alias names it, or did last.
type pin struct {
	sweep string
	trial int64
	epoch int32
	token uint64
}

func (p AliasPlace) pin() pin { return pin{p.Sweep, p.Trial, p.Epoch, p.Token} }

// pinnedPlaces is how many of an alias's places, from the newest on, are kept.
const pinnedPlaces = 2

// Aliases returns all aliases, by name.
func (v *View) Aliases() []Alias { return slices.Clone(v.aliases) }

// Alias returns an alias by name.
func (v *View) Alias(name string) (Alias, bool) {
	if at, found := v.alias(name); found {
		return v.aliases[at], true
	}
	return Alias{}, false
}

func (v *View) alias(name string) (int, bool) {
	return slices.BinarySearchFunc(v.aliases, name, func(a Alias, name string) int { return cmp.Compare(a.Name, name) })
}

// AliasesOf returns the names of the aliases that name a checkpoint of a sweep now.
func (v *View) AliasesOf(sweep string) (names []string) {
	for _, a := range v.aliases {
		if a.Places[0].Sweep == sweep {
			names = append(names, a.Name)
		}
	}
	return names
}

// Checkpoint returns the checkpoint of a place, while the index has it.
func (v *View) Checkpoint(p AliasPlace) (*Checkpoint, bool) {
	s, ok := v.Sweep(p.Sweep)
	if !ok {
		return nil, false
	}
	if t := s.Trial(p.Trial); t != nil {
		for i := range t.Checkpoints {
			if c := &t.Checkpoints[i]; c.Epoch == p.Epoch && c.Token == p.Token {
				return c, true
			}
		}
	}
	return nil, false
}

// pinned reports whether an alias keeps a checkpoint.
func (m *Machine) pinned(s *Sweep, t *Trial, c *Checkpoint) bool {
	return len(m.pins) > 0 && m.pins[pin{s.ID, t.Number, c.Epoch, c.Token}]
}

// pinAll makes the index of pinned checkpoints anew.
func (m *Machine) pinAll() {
	m.pins = map[pin]bool{}
	for _, a := range m.live.aliases {
		for _, p := range a.Places[:min(pinnedPlaces, len(a.Places))] {
			m.pins[p.pin()] = true
		}
	}
}

// setAlias gives a checkpoint that is kept a name, which it takes from the one that had it.
func (m *Machine) setAlias(now int64, c *logv1.SetAlias, r *Result) {
	name := c.GetName()
	if !trial.ValidAlias(name) || unfit(c.GetBy(), maxName, false) != "" {
		r.Err = invalid("alias %.80q: 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit and not with s-", name)
		return
	}
	at, found := m.live.alias(name)
	next := Alias{Name: name}
	var before []AliasPlace
	if found {
		before = m.live.aliases[at].Places
	}
	if c.GetSweepId() == "" {
		if !found {
			r.Outcome = trial.OutcomeAlready
			return
		}
		m.live.aliases = slices.Delete(slices.Clone(m.live.aliases), at, at+1)
		m.release(before)
		return
	}
	s, t := m.findTrial(c.GetSweepId(), c.GetTrial(), r)
	if t == nil {
		return
	}
	place := AliasPlace{Sweep: s.ID, Trial: t.Number, Epoch: c.GetEpoch(), Token: c.GetToken(), SinceMS: now, By: c.GetBy()}
	kept, ok := m.live.Checkpoint(place)
	switch {
	case !ok:
		r.Err = conflict("alias %s: the checkpoint of epoch %d of trial %d of sweep %s is not kept", name, place.Epoch, place.Trial, s.ID)
	case s.DeletedMS != 0:
		r.Err = conflict("alias %s: sweep %s is deleted", name, s.ID)
	case s.Kind != trial.Training:
		r.Err = conflict("alias %s: sweep %s was a run of inference: it has results and no model", name, s.ID)
	case !found && len(m.live.aliases) >= maxAliases:
		r.Err = invalid("alias %s: there are %d, the most there may be", name, len(m.live.aliases))
	case found && before[0].pin() == place.pin():
		r.Outcome = trial.OutcomeAlready
	default:
		place.SHA256, place.Size = kept.SHA256, kept.Size
		next.Places = append([]AliasPlace{place}, before[:min(len(before), maxPlaces-1)]...)
		m.live.aliases = slices.Clone(m.live.aliases)
		if found {
			m.live.aliases[at] = next
		} else {
			m.live.aliases = slices.Insert(m.live.aliases, at, next)
		}
		m.release(before)
	}
}

// release gives up what was kept for the sake of an alias alone, and is no more.
func (m *Machine) release(before []AliasPlace) {
	m.pinAll()
	for _, p := range before[:min(pinnedPlaces, len(before))] {
		s, ok := m.peek(p.Sweep)
		if m.pins[p.pin()] || !ok || s.Trial(p.Trial) == nil {
			continue
		}
		s, _ = m.sweep(p.Sweep)
		t := m.trial(s, p.Trial)
		if kept := m.needed(s, t, t.Checkpoints); len(kept) < len(t.Checkpoints) {
			s.ModifiedIndex = m.live.index
			m.keep(s, t, kept, true)
		}
		if s.CheckpointBytes > 0 && s.StoredBytes > s.CheckpointBytes {
			s.ModifiedIndex = m.live.index
			m.press(s)
		}
	}
}

// needed are those of a trial's checkpoints, newest first, that stay: the newest, the best,
// and what aliases keep.
func (m *Machine) needed(s *Sweep, t *Trial, rows []Checkpoint) []Checkpoint {
	if len(rows) == 0 {
		return nil
	}
	best := bestCheckpoint(s.Objective, rows)
	kept := rows[:1:1]
	for i := 1; i < len(rows); i++ {
		if i == best || m.pinned(s, t, &rows[i]) {
			kept = append(kept, rows[i])
		}
	}
	return kept
}

// dropAliases removes the aliases that name a checkpoint of a sweep, which is gone.
func (m *Machine) dropAliases(sweep string) {
	var gone []AliasPlace
	m.live.aliases = slices.DeleteFunc(slices.Clone(m.live.aliases), func(a Alias) bool {
		if a.Places[0].Sweep != sweep {
			return false
		}
		gone = append(gone, a.Places[min(1, len(a.Places)-1)]) // what it named before may be of another sweep
		return true
	})
	m.pinAll()
	for _, p := range gone {
		m.release([]AliasPlace{p})
	}
}

// Proto returns the alias as the API speaks of it; the location is that of the file, where
// the index of a view has it.
func (a Alias) Proto(v *View) *atelierv1.Alias {
	p := &atelierv1.Alias{Name: a.Name}
	for _, x := range a.Places {
		p.Places = append(p.Places, &atelierv1.AliasPlace{SweepId: x.Sweep, Trial: x.Trial, Epoch: x.Epoch, Token: x.Token, Sha256: x.SHA256, Size: x.Size, SinceMs: x.SinceMS, By: x.By})
	}
	if v != nil {
		if c, ok := v.Checkpoint(a.Places[0]); ok {
			p.Location = c.Location
		}
	}
	return p
}

// aliasRecords is what a snapshot has of the aliases; loadAliases is its inverse.
func (v *View) aliasRecords() (list []*atelierv1.Alias) {
	for _, a := range v.aliases {
		list = append(list, a.Proto(nil))
	}
	return list
}

func (m *Machine) loadAliases(list []*atelierv1.Alias) error {
	if len(list) > maxAliases {
		return invalid("header: %d aliases", len(list))
	}
	for i, p := range list {
		a := Alias{Name: p.GetName()}
		if !trial.ValidAlias(a.Name) || len(p.GetPlaces()) < 1 || len(p.GetPlaces()) > maxPlaces || i > 0 && a.Name <= list[i-1].GetName() {
			return invalid("header: alias %.80q with %d places", a.Name, len(p.GetPlaces()))
		}
		for _, x := range p.GetPlaces() {
			a.Places = append(a.Places, AliasPlace{Sweep: x.GetSweepId(), Trial: x.GetTrial(), Epoch: x.GetEpoch(), Token: x.GetToken(), SHA256: x.GetSha256(), Size: x.GetSize(), SinceMS: x.GetSinceMs(), By: x.GetBy()})
		}
		m.live.aliases = append(m.live.aliases, a)
	}
	m.pinAll()
	return nil
}
