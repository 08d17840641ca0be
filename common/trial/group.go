package trial

import "slices"

// Group is what a member has to know of those it carries a run out with.
type Group struct {
	Member   int32         // its own id
	Members  []GroupMember // that hold the lease when it is granted, itself too, by id
	Join     bool          // the others are at work: its state comes from one of them
	Min, Max int32         // it is granted with so many slots at least, and grows up to so many
	Shards   int32         // of each batch: what the result depends on
}

// GroupMember is one slot's part in a run.
type GroupMember struct {
	ID          int32  `json:"id"` // from 1 in the run, in order of grants; never given twice
	Worker      string `json:"worker"`
	Slot        string `json:"slot"`
	Incarnation string `json:"-"` // of the worker
	Request     string `json:"-"` // its repeat gets the same lease
	Folder      string `json:"-"` // id of the worker's data folder
	GrantedMS   int64  `json:"granted_ms"`
	Leaving     bool   `json:"leaving"` // asked to leave at the next step's boundary
	Address     string `json:"-"`       // host:port of its worker's file server; in leases only
}

// Name is a member for people: its worker and slot.
func (m GroupMember) Name() string { return m.Worker + "/" + m.Slot }

// RunGroup is the group of a run, as the coordinators know it.
type RunGroup struct {
	Min     int32         `json:"min"`
	Max     int32         `json:"max"`
	Shards  int32         `json:"shards"`
	Members []GroupMember `json:"members"` // that hold the lease now, by id; of an ended run those of its end
	Views   []View        `json:"views"`   // newest last; the first ones of a long run are dropped
	Joined  int32         `json:"joined"`  // members granted in all: the greatest id given
	Ended   []GroupEnd    `json:"ended"`   // members that are gone, newest last; the first ones of a long run are dropped
}

// At is the place of a member among those that hold the lease, -1 where it does not.
func (g *RunGroup) At(member int32) int {
	if g == nil {
		return -1
	}
	return slices.IndexFunc(g.Members, func(m GroupMember) bool { return m.ID == member })
}

// View is the newest one recorded; nil before the first.
func (g *RunGroup) View() *View {
	if g == nil || len(g.Views) == 0 {
		return nil
	}
	return &g.Views[len(g.Views)-1]
}

// In are a view's members, as far as they are known still.
func (g *RunGroup) In(v *View) (out []GroupMember) {
	for _, id := range v.Members {
		if at := g.At(id); at >= 0 {
			out = append(out, g.Members[at])
		} else if at := slices.IndexFunc(g.Ended, func(e GroupEnd) bool { return e.Member == id }); at >= 0 {
			out = append(out, GroupMember{ID: id, Worker: g.Ended[at].Worker, Slot: g.Ended[at].Slot})
		}
	}
	return out
}

// Reporter is the place of the member that reports: of the newest view's members
// the first that still holds the lease, without such a one the lowest id. -1 where
// there is no member.
func (g *RunGroup) Reporter() int {
	if v := g.View(); v != nil {
		for _, id := range v.Members {
			if at := g.At(id); at >= 0 {
				return at
			}
		}
	}
	return min(len(g.Members), 1) - 1
}

// Paces are what members told their coordinators last.
type Paces map[MemberRef]*Pace

// MemberRef names a member of a trial's run under way.
type MemberRef struct {
	Sweep  string
	Trial  int64
	Member int32
}

// PacesOf are those that workers' slots have.
func PacesOf(workers []Worker) Paces {
	out := Paces{}
	for _, w := range workers {
		for _, s := range w.Slots {
			if s.Member != 0 && s.Pace != nil && w.State != "lost" {
				out[MemberRef{s.Sweep, s.Trial, s.Member}] = s.Pace
			}
		}
	}
	return out
}

// Of is the pace of a trial's group: as its reporting member told, else any other.
// nil where none did.
func (p Paces) Of(sweep string, number int64, g *RunGroup) *Pace {
	if at := g.Reporter(); at >= 0 {
		if one := p[MemberRef{sweep, number, g.Members[at].ID}]; one != nil {
			return one
		}
	}
	for _, m := range g.Members {
		if one := p[MemberRef{sweep, number, m.ID}]; one != nil {
			return one
		}
	}
	return nil
}

// GroupEnd is how a member's part in a run ended.
type GroupEnd struct {
	Member  int32  `json:"member"`
	Worker  string `json:"worker"`
	Slot    string `json:"slot"`
	Exit    Exit   `json:"exit"`
	Message string `json:"message"`
	TimeMS  int64  `json:"time_ms"`
}

// GroupSize is how many runs have so many members now.
type GroupSize struct {
	Members int32 `json:"members"`
	Runs    int64 `json:"runs"`
}

// Pace is how a group's steps went lately, as one member sees it.
type Pace struct {
	Step    Number `json:"step_s"`  // seconds of a step, mean
	Waiting Number `json:"waiting"` // share of it in which a member waits for others, mean over the members
	Slowest int32  `json:"slowest"` // id of the member that computes longest
	Lag     Number `json:"lag"`     // how much longer than the mean it computes, a share
}

// View is who computes together from a step on, as the members agreed.
type View struct {
	Number  int32   `json:"number"`  // from 1
	Members []int32 `json:"members"` // ids in rank order; the first reports
	TimeMS  int64   `json:"time_ms"`
	Step    int64   `json:"step"`     // steps committed before it
	Reason  string  `json:"reason"`   // for people: "start", "w2/cpu0 was lost", "w3/cpu0 joined"
	PauseMS int64   `json:"pause_ms"` // between the last commit before and the first after; 0 = not known
}
