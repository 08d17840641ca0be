package trial

import "time"

// Heartbeat is what a worker says every few seconds, and at once after a
// start.
type Heartbeat struct {
	Worker Worker

	// Leases are all that this agent holds, prefetched ones too. A lease of its
	// incarnation that is not named is not renewed; those of an earlier incarnation
	// of the same worker end at once as lost.
	Leases []LeaseRef

	Folder   string // id of its data folder: a name belongs to one folder at a time
	Admitted bool   // a leader has answered this incarnation before, and did not refuse it
	Cluster  string // that the worker's folder belongs to; "" = none yet
}

// HeartbeatAnswer is what the leader says to it.
type HeartbeatAnswer struct {
	TTL          time.Duration  // of the leases renewed: count it from before the request was sent
	Lost         []LeaseRef     // named, and no longer valid: kill those runs
	Verdicts     []LeaseVerdict // other than continue
	Leave        []LeaseRef     // members that are to leave their group at the next step's boundary
	Drain        bool           // take no new leases
	Coordinators []string       // API addresses of all members
	Dropped      []Location     // checkpoints of this worker that the index gave up: delete the files
	Refused      string         // not "": this agent is none of the cluster's, and why
	Final        bool           // of Refused: end. Else the name may become free: ask again soon

	Cluster        string   // whose leader answers
	FormerClusters []string // that this one was recovered from
}

// LeaseVerdict is a verdict on a running
type LeaseVerdict struct {
	Lease   LeaseRef
	Verdict Verdict
	Reason  string
}
