package assign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/coordinator/state"
)

// Note is, for people, what keeps a sweep's trials from slots: workers that do not
// have its data, and slots that a group lacks. "" where nothing is known to.
func (s *Scheduler) Note(sw *state.Sweep) string {
	if sw.Ended() {
		return ""
	}
	var notes []string
	for _, note := range []string{s.noteOfData(sw), s.noteOfGroup(sw)} {
		if note != "" {
			notes = append(notes, note)
		}
	}
	return strings.Join(notes, "; ")
}

// noteOfData names the workers that do not have a sweep's data.
func (s *Scheduler) noteOfData(sw *state.Sweep) string {
	var names []string
	for k, r := range s.refusals {
		if k.sweep == sw.ID && r.lacks != "" {
			names = append(names, k.worker)
		}
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("worker %s does not have its data and leaves its trials to others: %s", names[0], s.refusals[refusalKey{sw.ID, names[0]}].lacks)
	}
	return fmt.Sprintf("workers %s do not have its data and leave its trials to others: %s", strings.Join(names, ", "), s.refusals[refusalKey{sw.ID, names[0]}].lacks)
}

// noteOfGroup is what the next trial of a sweep waits for, whose runs groups carry
// out.
func (s *Scheduler) noteOfGroup(sw *state.Sweep) string {
	since, waits := s.waits[sw.ID]
	if !waits || !sw.Members.Group() {
		return ""
	}
	need, exist := int(sw.Members.Min), s.exist(sw)
	if sw.Counts.Waiting == 0 {
		for _, l := range s.groups() {
			if n := l.lasting(); l.trialKey.sweep == sw.ID && n < need {
				return fmt.Sprintf("trial %d has %d of %d members, waits for %d since %v", l.trial, n, need, need-n, s.now.Sub(since).Round(time.Second))
			}
		}
		return ""
	}
	text := ""
	if most := exist.most(); most < need {
		text = fmt.Sprintf("needs %d %s, %d exist", need, plural(need, "slot"), most)
		if most == 1 {
			text = strings.Replace(text, "exist", "exists", 1)
		}
		if names := s.ungrouped(sw); len(names) > 0 {
			text += fmt.Sprintf(": trainer %s of %s %s cannot train in groups", sw.Trainer, plural(len(names), "worker"), strings.Join(names, ", "))
		}
		return text
	}
	var free counts
	seen := map[place]bool{}
	for _, w := range s.waiters {
		kind, ok := s.kind(w.Worker, w.Name)
		if ok && !seen[w.place()] && s.suits(w, sw) {
			seen[w.place()] = true
			free.add(kind, 1)
		}
	}
	if most := free.most(); most < need && need > 1 {
		return fmt.Sprintf("needs %d %s; %d %s free, waits for %d since %v", need, plural(need, "slot"), most, isAre(most), need-most, s.now.Sub(since).Round(time.Second))
	}
	return ""
}

// ungrouped names the workers whose trainer would do for a sweep, but for groups.
func (s *Scheduler) ungrouped(sw *state.Sweep) (names []string) {
	for name, w := range s.workers {
		if s.now.Sub(w.seen) <= s.ttl && slices.Contains(w.told.Trainers, sw.Trainer) && labelled(w.told.Labels, sw) && !offers(&w.told, sw) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
