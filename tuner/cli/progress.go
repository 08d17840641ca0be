package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
)

// follow waits for a sweep's end and shows how it goes on: a bar that is
// redrawn on a terminal, else a line now and then. It returns the sweep as it
// ended.
func (e *Env) follow(ctx context.Context, c *client.Client, id string, quiet bool) (*trial.Sweep, error) {
	p := &progress{bar: bar{e: e, quiet: quiet}}
	defer p.clear()
	return c.Follow(ctx, id, func(s *trial.Sweep) error {
		if !s.Status.Over() {
			p.show(s)
		}
		return nil
	})
}

// outcome turns how a sweep ended into what the program says and exits with: a stopped sweep is no failure, for
// somebody wanted it to end and its results are kept.
func (e *Env) outcome(s *trial.Sweep, quiet bool) error {
	if !quiet {
		e.prose("%s", summary(e, s))
	}
	return verdict(s)
}

// verdict is what the program exits with after a sweep.
func verdict(s *trial.Sweep) error {
	switch s.Status {
	case trial.SweepFailed:
		return &exitError{code: client.ExitSweepFailed, text: fmt.Sprintf("sweep %s failed: %s", s.ID, dash(s.Failure))}
	case trial.SweepCancelled:
		return &exitError{code: client.ExitSweepFailed, text: fmt.Sprintf("sweep %s was cancelled", s.ID)}
	}
	return nil
}

// summary is a sweep's end in one line.
func summary(e *Env, s *trial.Sweep) string {
	c := s.Counts
	var parts []string
	for _, x := range []struct {
		n    int64
		word string
	}{{c.Finished, "finished"}, {c.Stopped, "stopped"}, {c.Diverged, "diverged"}, {c.Failed, "failed"}, {c.Cancelled, "cancelled"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	text := fmt.Sprintf("sweep %s %s after %s: %s", s.ID, s.Status, e.span(s.CreatedMS, s.EndedMS), plural(c.Over(), "trial"))
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text + best(s)
}

// best is the best value so far, to be put behind a line.
func best(s *trial.Sweep) string {
	if s.Best == nil {
		return ""
	}
	return fmt.Sprintf(", best %s %s (trial %d)", s.Objective.Metric, short(float64(s.Best.Value)), s.Best.Trial)
}

// progress shows how a sweep goes on.
type progress struct {
	bar
	trials, epochs pace

	counted   time.Time
	reports   int64   // there were then
	perSecond float64 // of them, smoothed
}

// show measures the pace of reports and draws the line. The pace is smoothed: reports come in
// bursts, and a number that jumps tells nothing.
func (p *progress) show(s *trial.Sweep) {
	now, reports := p.e.Now(), s.Counts.Reports
	if p.counted.IsZero() {
		p.counted, p.reports = now, reports
	} else if dt := now.Sub(p.counted).Seconds(); dt >= 1 {
		rate := float64(reports-p.reports) / dt
		weight := min(1, dt/5) // about the last five seconds
		if p.perSecond == 0 {
			weight = 1
		}
		p.perSecond += weight * (rate - p.perSecond)
		p.counted, p.reports = now, reports
	}
	p.draw(now, p.line(s, now))
}

// line is what there is to say of a running sweep: on a terminal what matters most
// comes first, and what does not fit any more is left out whole.
func (p *progress) line(s *trial.Sweep, now time.Time) string {
	c := s.Counts
	d, all := c.Over(), s.BudgetTrials
	counts := fmt.Sprintf("%s trials, %d running", of(d, all), c.Running)
	if s.Status != trial.SweepRunning {
		counts += ", " + s.Status.String()
	}
	rate := ""
	if p.perSecond > 0 {
		rate = fmt.Sprintf(", %.1f reports/s", p.perSecond)
	}
	rest := p.rest(s, now)
	if !p.e.Live {
		return s.ID + " " + counts + best(s) + rate + rest
	}
	text := counts
	if all > 0 {
		text = cells(float64(d)/float64(all)) + " " + counts
	}
	for _, part := range []string{rest, best(s), rate, ", " + s.ID} {
		if len(text)+len(part) < p.e.Width() {
			text += part
		}
	}
	return text
}

// rest is the time left, to be put behind a line. Where every trial trains the same
// epochs it is known from the first reports on, else once trials have ended.
func (p *progress) rest(s *trial.Sweep, now time.Time) string {
	if n := epochsEach(s); n > 0 && s.BudgetTrials > 0 {
		_, rest := p.epochs.at(now, s.Counts.Reports, n*s.BudgetTrials)
		return left(rest)
	}
	_, rest := p.trials.at(now, s.Counts.Over(), s.BudgetTrials)
	return left(rest)
}

// epochsEach is how many epochs each trial of a sweep trains; 0 where that differs
// or is not known.
func epochsEach(s *trial.Sweep) int64 {
	if s.SpecJSON == "" || len(s.Stopping) > 0 && string(s.Stopping) != "null" {
		return 0
	}
	checked, err := spec.Decode(s.SpecJSON)
	if err != nil || slices.ContainsFunc(checked.Space.Params, func(p space.Parameter) bool { return p.Name == "epochs" || p.Name == "patience" }) {
		return 0
	}
	var training struct {
		Epochs   int64 `json:"epochs"`
		Patience int64 `json:"patience"`
	}
	if json.Unmarshal([]byte(checked.TrainingJSON), &training) != nil || training.Patience != 0 {
		return 0
	}
	return training.Epochs
}
