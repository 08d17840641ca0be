package trial

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
	ID          int32 // from 1 in the run, in order of grants; never given twice
	Worker      string
	Slot        string
	Incarnation string // of the worker
	Request     string // its repeat gets the same lease
	Folder      string // id of the worker's data folder
	GrantedMS   int64
	Leaving     bool   // asked to leave at the next step's boundary
	Address     string // host:port of its worker's file server; in leases only
}

// Name is a member for people: its worker and slot.
func (m GroupMember) Name() string { return m.Worker + "/" + m.Slot }

// View is who computes together from a step on, as the members agreed.
type View struct {
	Number  int32   // from 1
	Members []int32 // ids in rank order; the first reports
	TimeMS  int64
	Step    int64  // steps committed before it
	Reason  string // for people: "start", "w2/cpu0 was lost", "w3/cpu0 joined"
	PauseMS int64  // between the last commit before and the first after; 0 = not known
}
