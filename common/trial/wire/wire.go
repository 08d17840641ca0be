// Package wire is the table between the nouns of common/trial and the schema's
// words for them. It is the one place that names the schema's enums; a noun's
// number is the enum's, which its test holds.
package wire

import (
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// From the schema. A number that this program does not know, of a newer peer, stays that number: it is shown as one,
// and handed on unchanged.

// Status is where a trial stands; 0 is not said.
func Status(s atelierv1.TrialStatus) trial.Status { return trial.Status(s) }

// SweepStatus is where a sweep stands; 0 is not said.
func SweepStatus(s atelierv1.SweepStatus) trial.SweepStatus { return trial.SweepStatus(s) }

// Exit is how a run ended; 0 while it goes on.
func Exit(c atelierv1.ExitClass) trial.Exit { return trial.Exit(c) }

// Verdict is what a run is told; 0 is nothing yet.
func Verdict(v atelierv1.Verdict) trial.Verdict { return trial.Verdict(v) }

// Outcome is what became of something a run said.
func Outcome(o atelierv1.Outcome) trial.Outcome { return trial.Outcome(o) }

// Source is where a trial's point came from; 0 is from before that was kept.
func Source(s atelierv1.ProposalSource) trial.Source { return trial.Source(s) }

// Kind is what a sweep's runs do.
func Kind(k atelierv1.Kind) trial.Kind { return trial.Kind(k) }

// Action is what a person wants done with a sweep.
func Action(a atelierv1.SweepAction) trial.Action { return trial.Action(a) }

// Objective is to be minimized where the schema's names no direction.
func Objective(o *atelierv1.Objective) trial.Objective {
	return trial.Objective{Metric: o.GetMetric(), Maximize: o.GetDirection() == atelierv1.Direction_DIRECTION_MAXIMIZE}
}

// Directed reports whether an objective of the schema names its direction: one that does not is a
// fault of whoever sent it.
func Directed(o *atelierv1.Objective) bool {
	return o.GetDirection() == atelierv1.Direction_DIRECTION_MINIMIZE || o.GetDirection() == atelierv1.Direction_DIRECTION_MAXIMIZE
}

// Constraint is a bound, or two, on a metric.
func Constraint(c *atelierv1.Constraint) trial.Constraint {
	return trial.Constraint{Metric: c.GetMetric(), HasMax: c.GetHasMax(), Max: c.GetMax(), HasMin: c.GetHasMin(), Min: c.GetMin()}
}

// Origin is the checkpoint a trial starts from; the zero Origin for nil, which is from scratch.
func Origin(o *atelierv1.Origin) trial.Origin {
	return trial.Origin{Trial: o.GetTrial(), Epoch: o.GetEpoch()}
}

// To the schema: the same numbers.

// ToStatus is Status's inverse.
func ToStatus(s trial.Status) atelierv1.TrialStatus { return atelierv1.TrialStatus(s) }

// ToSweepStatus is SweepStatus's inverse.
func ToSweepStatus(s trial.SweepStatus) atelierv1.SweepStatus { return atelierv1.SweepStatus(s) }

// ToExit is Exit's inverse.
func ToExit(e trial.Exit) atelierv1.ExitClass { return atelierv1.ExitClass(e) }

// ToVerdict is Verdict's inverse.
func ToVerdict(v trial.Verdict) atelierv1.Verdict { return atelierv1.Verdict(v) }

// ToOutcome is Outcome's inverse.
func ToOutcome(o trial.Outcome) atelierv1.Outcome { return atelierv1.Outcome(o) }

// ToSource is Source's inverse.
func ToSource(s trial.Source) atelierv1.ProposalSource { return atelierv1.ProposalSource(s) }

// ToKind is Kind's inverse.
func ToKind(k trial.Kind) atelierv1.Kind { return atelierv1.Kind(k) }

// ToAction is Action's inverse.
func ToAction(a trial.Action) atelierv1.SweepAction { return atelierv1.SweepAction(a) }

// ToObjective always names a direction.
func ToObjective(o trial.Objective) *atelierv1.Objective {
	p := &atelierv1.Objective{Metric: o.Metric, Direction: atelierv1.Direction_DIRECTION_MINIMIZE}
	if o.Maximize {
		p.Direction = atelierv1.Direction_DIRECTION_MAXIMIZE
	}
	return p
}

// ToConstraint is Constraint's inverse.
func ToConstraint(c trial.Constraint) *atelierv1.Constraint {
	return &atelierv1.Constraint{Metric: c.Metric, HasMax: c.HasMax, Max: c.Max, HasMin: c.HasMin, Min: c.Min}
}

// ToOrigins has one for each of a proposal's points, an empty one where it starts
// from scratch.
func ToOrigins(all []trial.Origin) []*atelierv1.Origin {
	return List(all, func(o trial.Origin) *atelierv1.Origin { return &atelierv1.Origin{Trial: o.Trial, Epoch: o.Epoch} })
}

// ToOrigin is nil for a trial that starts from scratch.
func ToOrigin(o trial.Origin) *atelierv1.Origin {
	if o.Trial == 0 {
		return nil
	}
	return &atelierv1.Origin{Trial: o.Trial, Epoch: o.Epoch}
}
