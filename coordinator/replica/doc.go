// Package replica keeps the state machine the same on every coordinator. It is
// the only room that sees raft: it wires the library, the durable log, the
// snapshots and the transport round a state.Machine and offers Propose, a few
// questions about leadership, and the handling of members.
//
// It refuses to know what a command means, and to serve reads: those go to the
// machine's View, after VerifyLeader where they must be linearizable. It gives up
// the whole process rather than go on with a disk that failed or hangs.
package replica
