// Package board is the leaderboard and the checkpoint index: as Redis holds
// them, read by any coordinator, and the same answers from the replicated state
// when Redis is away, behind or not wanted.
//
// Redis is disposable here. Everything in it can be computed from the state;
// what it holds is named by cluster, generation and watermark (the raft index
// it reflects), and every write is one script that checks all three first. The
// package refuses to take Redis's word where these do not fit, and it never
// makes a caller wait long for a Redis that does not answer.
package board
