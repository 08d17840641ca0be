package settings

import (
	"atelier/common/setting"
)

// Bounds of a training over several slots.
const (
	MaxMembers = 256
	MaxShards  = 4096
)

// Group is what a training asks for of slots: how many compute together, and
// into how many parts each batch is cut, on which alone the result depends.
type Group struct{ Min, Max, Shards int }

// Group is what the settings ask for, with what is left out filled in.
func (s Settings) Group() Group {
	g := Group{Min: max(s.MembersMin, 1), Max: s.MembersMax, Shards: s.Shards}
	if g.Max == 0 {
		g.Max = g.Min
	}
	if g.Shards == 0 {
		for g.Shards = 1; g.Shards < g.Max; {
			g.Shards *= 2
		}
	}
	return g
}

// Members are the least and the most slots that compute together.
func (s Settings) Members() (least, most int) {
	g := s.Group()
	return g.Min, g.Max
}

// GroupOf reads what a sweep's training settings, a JSON object, ask for, of
// any trainer: keys that are not of a group are left alone. The error is
// setting.Faults.
func GroupOf(training []byte) (Group, error) {
	rows := Table.Only(func(s setting.Setting) bool {
		return s.Object() == "members" || s.Name == "shards" || s.Name == "batch_size"
	})
	var known []setting.Member
	members, err := setting.Members(training)
	if err != nil {
		return Group{Min: 1, Max: 1, Shards: 1}, nil // of inference, or none: whoever carries it out judges it
	}
	for _, m := range members {
		if rows.Has(m.Key) || rows.Group(m.Key) {
			known = append(known, m)
		}
	}
	var s Settings
	given, faults := rows.ReadJSON("training", setting.Object(known))
	setting.Fill(&s, given)
	if s.BatchSize == 0 { // another trainer has its own
		s.BatchSize = s.Group().Shards
	}
	return s.Group(), append(faults, s.group()...).OrNil()
}

// group are the faults of members, shards and batches together.
func (s Settings) group() (faults setting.Faults) {
	g := s.Group()
	if g.Min > g.Max {
		// Nothing more: how many shards there are may follow from the members.
		return append(faults, fault("members.min %d is above members.max %d", g.Min, g.Max))
	}
	if most := g.Max; most > g.Shards {
		faults = append(faults, fault("%d members cannot share %d shards: each computes one at least; set shards to %d, or members to %d or less", most, g.Shards, most, g.Shards))
	}
	if left := s.BatchSize % g.Shards; left != 0 {
		near := s.BatchSize - left
		if near == 0 {
			near = g.Shards
		}
		faults = append(faults, fault("a batch_size of %d does not divide into %d shards: take %d or %d", s.BatchSize, g.Shards, near, near+g.Shards))
	}
	return faults
}
