package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// follow waits for a sweep's end and shows how it goes on: a bar that is
// redrawn on a terminal, else a line now and then. It returns the sweep as it
// ended.
func (e *Env) follow(ctx context.Context, c *client.Client, id string, quiet bool) (*atelierv1.Sweep, error) {
	p := &progress{bar: bar{e: e, quiet: quiet}}
	defer p.clear()
	return c.Follow(ctx, id, func(s *atelierv1.Sweep) error {
		if !wire.SweepStatus(s.GetStatus()).Over() {
			p.show(s)
		}
		return nil
	})
}

func done(c *atelierv1.SweepCounts) int64 {
	return c.GetFinished() + c.GetStopped() + c.GetDiverged() + c.GetFailed() + c.GetCancelled()
}

// outcome turns how a sweep ended into what the program says and exits with.
func (e *Env) outcome(s *atelierv1.Sweep, quiet bool) error {
	if !quiet {
		e.say("%s", summary(e, s))
	}
	switch wire.SweepStatus(s.GetStatus()) {
	case trial.SweepFailed:
		return &exitError{code: client.ExitSweepFailed, text: fmt.Sprintf("sweep %s failed: %s", s.GetId(), dash(s.GetFailure()))}
	case trial.SweepCancelled:
		return &exitError{code: client.ExitSweepFailed, text: fmt.Sprintf("sweep %s was cancelled", s.GetId())}
	}
	return nil
}

func summary(e *Env, s *atelierv1.Sweep) string {
	c := s.GetCounts()
	var parts []string
	for _, x := range []struct {
		n    int64
		word string
	}{{c.GetFinished(), "finished"}, {c.GetStopped(), "stopped"}, {c.GetDiverged(), "diverged"}, {c.GetFailed(), "failed"}, {c.GetCancelled(), "cancelled"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.word))
		}
	}
	text := fmt.Sprintf("sweep %s %s after %s: %d trials", s.GetId(), wire.SweepStatus(s.GetStatus()).String(), e.span(s.GetCreatedMs(), s.GetEndedMs()), done(c))
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text + best(s)
}

func best(s *atelierv1.Sweep) string {
	b := s.GetBest()
	if !b.GetHasValue() {
		return ""
	}
	return fmt.Sprintf(", best %s %s (trial %d)", s.GetObjective().GetMetric(), short(b.GetValue()), b.GetNumber())
}

// progress shows how a sweep goes on.
type progress struct {
	bar
	trials pace

	counted   time.Time
	reports   int64   // there were then
	perSecond float64 // of them, smoothed
}

func (p *progress) show(s *atelierv1.Sweep) {
	now, reports := p.e.Now(), s.GetCounts().GetReports()
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

func (p *progress) line(s *atelierv1.Sweep, now time.Time) string {
	c := s.GetCounts()
	d, all := done(c), s.GetBudgetTrials()
	text := s.GetId() + " "
	if p.e.Live && all > 0 {
		text += cells(float64(d)/float64(all)) + " "
	}
	text += fmt.Sprintf("%s trials, %d running", of(d, all), c.GetRunning())
	if wire.SweepStatus(s.GetStatus()) != trial.SweepRunning {
		text += ", " + wire.SweepStatus(s.GetStatus()).String()
	}
	text += best(s)
	if p.perSecond > 0 {
		text += fmt.Sprintf(", %.1f reports/s", p.perSecond)
	}
	_, rest := p.trials.at(now, d, all)
	return text + left(rest)
}
