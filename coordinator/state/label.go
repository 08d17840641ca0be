package state

import (
	"slices"
	"strings"
	"unicode/utf8"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// Name, tags and note are for people. Nothing in the log, in search or among the
// workers depends on them.

// unfit returns why a text cannot be a name, a tag or a note; "" where it can.
// What is refused is listed here and not asked of package unicode, whose tables
// differ between the builds that play one log.
func unfit(text string, most int, lines bool) string {
	switch {
	case len(text) > most:
		return "it is too long"
	case !utf8.ValidString(text):
		return "it is not UTF-8"
	}
	for _, r := range text {
		switch {
		case lines && (r == '\n' || r == '\t'):
		case r < 0x20, r >= 0x7f && r <= 0x9f, // control characters
			r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, // direction of text
			r == 0x2028, r == 0x2029, r == 0xfeff: // ends of lines, byte order
			return "it has a control character"
		}
	}
	return ""
}

// unfitTag is unfit for a tag: a word that needs no quotes in a shell or a list.
func unfitTag(tag string) string {
	why := unfit(tag, maxTag, false)
	switch {
	case why != "":
	case tag == "":
		why = "it is empty"
	case strings.ContainsAny(tag, " ,\"'`") || strings.ContainsAny(tag[:1], "-@+"):
		why = "no blank, comma or quote in it, and no -, @ or + in front"
	}
	return why
}

// validLabels checks the labels of a snapshot.
func (s *Sweep) validLabels() error {
	if len(s.Name) > maxName || unfit(s.UserNote, maxNote, true) != "" || len(s.Tags) > maxTags || !sortedUnique(s.Tags) {
		return invalid("sweep %s: name of %d bytes, note of %d bytes, %d tags", s.ID, len(s.Name), len(s.UserNote), len(s.Tags))
	}
	for _, tag := range s.Tags {
		if why := unfitTag(tag); why != "" {
			return invalid("sweep %s: tag %.80q: %s", s.ID, tag, why)
		}
	}
	return nil
}

// labelSweep gives a sweep, in whatever state it is, a name, tags and a note.
func (m *Machine) labelSweep(now int64, c *logv1.LabelSweep, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	name, note, tags := s.Name, s.UserNote, slices.Clone(s.Tags)
	if c.Name != nil {
		if name = c.GetName(); name == "" {
			name = s.Spec.Name
		} else if why := unfit(name, maxName, false); why != "" || strings.TrimSpace(name) != name {
			r.Err = invalid("name of sweep %s: 1 to %d bytes of UTF-8 without control characters, and no blank at either end", s.ID, maxName)
			return
		}
	}
	if c.Note != nil {
		if note = c.GetNote(); unfit(note, maxNote, true) != "" {
			r.Err = invalid("note of sweep %s, %d bytes: at most %d bytes of UTF-8 without control characters", s.ID, len(note), maxNote)
			return
		}
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return slices.Contains(c.GetRemoveTags(), tag) })
	for _, tag := range c.GetAddTags() {
		if why := unfitTag(tag); why != "" {
			r.Err = invalid("tag %.80q of sweep %s: %s (a tag has 1 to %d bytes of UTF-8)", tag, s.ID, why, maxTag)
			return
		}
		if at, found := slices.BinarySearch(tags, tag); !found {
			tags = slices.Insert(tags, at, tag)
		}
	}
	switch {
	case len(tags) > maxTags:
		r.Err = invalid("tags of sweep %s: %d, at most %d", s.ID, len(tags), maxTags)
	case name == s.Name && note == s.UserNote && slices.Equal(tags, s.Tags):
		r.Outcome = trial.OutcomeAlready
	default:
		s, _ = m.sweep(s.ID)
		s.Name, s.UserNote, s.Tags = name, note, tags
		m.setSweep(now, s, s.Status)
	}
}
