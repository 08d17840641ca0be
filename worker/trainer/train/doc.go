// Package train carries out one run: a job in, events out.
//
// Run reads once from top to bottom: prepare (settings, data, model, optimiser,
// perhaps weights or a checkpoint to go on from), then steps (step.go), rounds of
// validation (validate.go) and the ends of epochs (epoch.go), each decided by the
// position that the run has come to. A run killed at any moment and resumed from
// its last checkpoint ends with the same weights, bit for bit, as one that was
// left alone, on the same machine with the same threads; and one that several
// members carry out with those of a single process (group.go).
//
// The package refuses to know who listens: events go to a Sender, verdicts come
// from a Steering.
package train
