package cli

import (
	"fmt"

	"atelier/common/trial"
	"atelier/tuner/train"
	"atelier/tuner/tune"
	"atelier/tuner/tune/report"
)

// tuneBar shows a tuning: the sweep's progress, and what is done beside it.
type tuneBar struct {
	progress
}

// Begin tells what is going to be searched.
func (b *tuneBar) Begin(p *tune.Plan, s *trial.Sweep) {
	for _, n := range p.Notes {
		b.prose("%s", n)
	}
	b.prose("%s of %s, %s: %s, %d at once, objective %s, seed %d", methodOf(s), p.Model, s.ID, budgetOf(s), s.Parallelism, s.Objective.Metric, s.Seed)
	if p.Config.Trains() {
		b.say("every trial starts %s", train.StartOf(p.Config.Get(tune.KeyWeights)))
	}
	b.say("results in %s", b.e.relative(p.Folder))
}

// Sweep redraws the progress.
func (b *tuneBar) Sweep(s *trial.Sweep) {
	if !s.Status.Over() {
		b.show(s)
	}
}

// Doing shows what takes a while, on a terminal.
func (b *tuneBar) Doing(text string) {
	if b.e.Live {
		b.draw(b.e.Now(), text)
	}
}

// bestText is the best trial in one line.
func bestText(s *report.Sweep, t *report.Trial) string {
	text := fmt.Sprintf("trial %d, %s %s", t.Number, s.Metric, short(t.Value))
	for k, p := range s.Space.Params {
		if k >= len(t.Point) || t.Point[k].IsAbsent() {
			continue
		}
		value, ok := t.Point[k].Text()
		if f, isFloat := t.Point[k].Float(); isFloat {
			value = short(f)
		} else if !ok {
			value = t.Point[k].String()
		}
		text += fmt.Sprintf(", %s %s", p.Name, value)
	}
	return text
}
