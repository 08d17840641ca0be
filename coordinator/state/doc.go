// Package state is the cluster's replicated memory: sweeps, trials, leases,
// curves, checkpoints and members, and the commands that change them.
//
// It is pure. It reads no clock, makes no id, starts no goroutine, opens no
// file, and lets no map's order reach a result, a snapshot or a hash: two
// machines that applied the same entries at the same indexes are equal byte for
// byte. It refuses to know about raft, the network, Redis or search methods.
//
// Writing goes through Machine.Apply, one caller at a time. Reading goes through
// Machine.View, from any goroutine: a View never changes, costs nothing to take
// and holds no lock while it is read.
package state
