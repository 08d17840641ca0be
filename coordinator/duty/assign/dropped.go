package assign

import (
	"slices"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// maxDropped bounds how many files a worker that is away is remembered to
// delete. What is forgotten goes with the leftovers that workers sweep up.
const maxDropped = 10_000

// discard remembers a file that its worker is to delete.
func (s *Scheduler) discard(c *state.Change) {
	if c.Location == "" || len(s.dropped[c.Worker]) >= maxDropped {
		return
	}
	s.dropped[c.Worker] = append(s.dropped[c.Worker], trial.Location(c.Location))
}

// files returns what a worker is to delete. Each file is named in two answers,
// so that one that is lost does no harm.
func (s *Scheduler) files(worker string) []trial.Location {
	list, once := s.dropped[worker], s.told[worker]
	if len(list) == 0 {
		delete(s.dropped, worker)
		delete(s.told, worker)
		return nil
	}
	s.dropped[worker], s.told[worker] = list[once:], len(list)-once
	return slices.Clone(list)
}
