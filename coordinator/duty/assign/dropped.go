package assign

import (
	"slices"

	"atelier/coordinator/state"
)

// maxDropped bounds how many files a worker that is away is remembered to
// delete. What is forgotten goes with the leftovers that workers sweep up.
const maxDropped = 10_000

// discard remembers a file that its worker is to delete.
func (t *term) discard(c *state.Change) {
	if c.Location == "" || len(t.dropped[c.Worker]) >= maxDropped {
		return
	}
	t.dropped[c.Worker] = append(t.dropped[c.Worker], c.Location)
}

// files returns what a worker is to delete. Each file is named in two answers,
// so that one that is lost does no harm.
func (t *term) files(worker string) []string {
	list, once := t.dropped[worker], t.told[worker]
	if len(list) == 0 {
		delete(t.dropped, worker)
		delete(t.told, worker)
		return nil
	}
	t.dropped[worker], t.told[worker] = list[once:], len(list)-once
	return slices.Clone(list)
}
