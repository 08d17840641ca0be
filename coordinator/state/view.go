package state

import (
	"container/heap"
	"math"
	"slices"
	"sort"

	"atelier/common/trial"
)

// View is the state at one index. It never changes; any goroutine may read it.
type View struct {
	index     uint64
	clusterID string
	former    []string  // ids of the clusters this one was recovered from, oldest first
	members   []Member  // by id
	removed   []removed // members that were taken off, oldest first
	aliases   []Alias   // by name; copied before a change
	purged    []purged  // sweeps that were deleted for good, oldest first
	drained   []string  // sorted
	tokens    []Token   // by id; copied before a change
	invites   []Invite  // by id; copied before a change
	acts      []Act     // what was done for whom, oldest first
	refusals  []Act     // what was refused to whom, oldest first
	requests  requestLog
	sweeps    vector[*Sweep]
	byID      map[string]int // position in sweeps; copied before a change once a View has it
	trials    int64

	tokenOffset   uint64  // added to an index to make a token of it
	staged        *staged // a restore under way, nil for none
	restoredID    string  // of the last restore, "" before the first
	restoredIndex uint64
}

// Index is the raft index of the last command applied.
func (v *View) Index() uint64 { return v.index }

// Restored returns the id and the index of the last restore; "" and 0 before the
// first. What was remembered of a View with another index here holds no more:
// sweeps and trials may be gone or be others.
func (v *View) Restored() (id string, index uint64) { return v.restoredID, v.restoredIndex }

// Staging returns the id of the restore that is under way; "" for none.
func (v *View) Staging() string {
	if v.staged == nil {
		return ""
	}
	return v.staged.begin.GetId()
}

// Settled is the view without a restore that is under way, for a copy that is
// to be restored elsewhere.
func (v *View) Settled() *View {
	c := *v
	c.staged = nil
	return &c
}

// ClusterID names the cluster; "" before the first member was set.
func (v *View) ClusterID() string { return v.clusterID }

// Members returns the coordinators, by id.
func (v *View) Members() []Member { return append([]Member(nil), v.members...) }

// Drained reports whether a worker is to get no new leases.
func (v *View) Drained(worker string) bool {
	_, found := slices.BinarySearch(v.drained, worker)
	return found
}

// DrainedWorkers returns their names, sorted.
func (v *View) DrainedWorkers() []string { return append([]string(nil), v.drained...) }

// Sweep returns a sweep by id.
func (v *View) Sweep(id string) (*Sweep, bool) {
	i, ok := v.byID[id]
	if !ok {
		return nil, false
	}
	return v.sweeps.at(i), true
}

// Sweeps returns all sweeps in order of creation.
func (v *View) Sweeps() []*Sweep {
	all := make([]*Sweep, 0, v.sweeps.len())
	v.sweeps.leaves(0, func(_ int, items []*Sweep) bool {
		all = append(all, items...)
		return true
	})
	return all
}

// Trials is the number of trials of all sweeps.
func (v *View) Trials() int64 { return v.trials }

// Best returns the first trial of the leaderboard, nil while none has a value.
func (s *Sweep) Best() *Trial { return s.Trial(s.best) }

// Leaderboard returns the trials that have a value, best first, ties by number;
// at most top of them, all when top <= 0.
func (s *Sweep) Leaderboard(top int) []*Trial {
	ranked := make([]score, 0, max(min(top, s.trials.len()), 0))
	h := worstFirst{ranked, s.Objective}
	s.scores.leaves(0, func(first int, values []float64) bool {
		for i, value := range values {
			if math.IsNaN(value) {
				continue
			}
			c := score{value, int64(first + i + 1)}
			switch {
			case top <= 0:
				h.list = append(h.list, c)
			case len(h.list) < top:
				heap.Push(&h, c)
			case outranks(s.Objective, c, h.list[0]):
				h.list[0] = c
				heap.Fix(&h, 0)
			}
		}
		return true
	})
	sort.Slice(h.list, func(i, j int) bool { return outranks(s.Objective, h.list[i], h.list[j]) })
	board := make([]*Trial, len(h.list))
	for i, c := range h.list {
		board[i] = s.Trial(c.number)
	}
	return board
}

// score is a trial's place in the ranking.
type score struct {
	value  float64
	number int64
}

// outranks reports whether a stands before b; of equals the earlier trial does.
func outranks(o trial.Objective, a, b score) bool {
	if a.value != b.value {
		return o.Better(a.value, b.value)
	}
	return a.number < b.number
}

// worstFirst is a heap of the best scores so far, the worst of them on top.
type worstFirst struct {
	list []score
	o    trial.Objective
}

func (h *worstFirst) Len() int           { return len(h.list) }
func (h *worstFirst) Less(i, j int) bool { return outranks(h.o, h.list[j], h.list[i]) }
func (h *worstFirst) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *worstFirst) Push(x any)         { h.list = append(h.list, x.(score)) }
func (h *worstFirst) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}
