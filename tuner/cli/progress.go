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
	p := &progress{e: e, quiet: quiet}
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
		return &exitError{client.ExitSweepFailed, fmt.Sprintf("sweep %s failed: %s", s.GetId(), dash(s.GetFailure()))}
	case trial.SweepCancelled:
		return &exitError{client.ExitSweepFailed, fmt.Sprintf("sweep %s was cancelled", s.GetId())}
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

// lineEvery is how often progress is written where no terminal redraws it.
const lineEvery = 10 * time.Second

type progress struct {
	e     *Env
	quiet bool
	drawn bool // a bar stands on the terminal's line

	first, last time.Time
	firstDone   int64
	lastReports int64
	perSecond   float64 // smoothed
	printed     time.Time
	printedText string
}

func (p *progress) show(s *atelierv1.Sweep) {
	if p.quiet {
		return
	}
	now := p.e.Now()
	c := s.GetCounts()
	if p.first.IsZero() {
		p.first, p.last, p.firstDone, p.lastReports = now, now, done(c), c.GetReports()
	} else if dt := now.Sub(p.last).Seconds(); dt >= 1 {
		rate := float64(c.GetReports()-p.lastReports) / dt
		weight := min(1, dt/5) // about the last five seconds
		if p.perSecond == 0 {
			weight = 1
		}
		p.perSecond += weight * (rate - p.perSecond)
		p.last, p.lastReports = now, c.GetReports()
	}
	if p.e.Live {
		text := p.line(s, now, true)
		if w := p.e.Width() - 1; len(text) > w {
			text = text[:max(w, 0)]
		}
		p.e.redraw(text)
		p.drawn = true
		return
	}
	if text := p.line(s, now, false); now.Sub(p.printed) >= lineEvery && text != p.printedText {
		p.printed, p.printedText = now, text
		p.e.say("%s", text)
	}
}

func (p *progress) line(s *atelierv1.Sweep, now time.Time, bar bool) string {
	c := s.GetCounts()
	d, all := done(c), s.GetBudgetTrials()
	text := s.GetId() + " "
	if bar && all > 0 {
		const cells = 20
		full := int(min(d*cells/all, cells))
		text += "[" + strings.Repeat("#", full) + strings.Repeat("-", cells-full) + "] "
	}
	text += fmt.Sprintf("%s trials, %d running", of(d, all), c.GetRunning())
	if wire.SweepStatus(s.GetStatus()) != trial.SweepRunning {
		text += ", " + wire.SweepStatus(s.GetStatus()).String()
	}
	text += best(s)
	if p.perSecond > 0 {
		text += fmt.Sprintf(", %.1f reports/s", p.perSecond)
	}
	// Time left at the pace seen since the watching began.
	if gained := d - p.firstDone; gained > 0 && all > d {
		text += ", about " + roundly(time.Duration(float64(now.Sub(p.first))/float64(gained)*float64(all-d))) + " left"
	}
	return text
}

func (p *progress) clear() {
	if p.drawn {
		p.e.redraw("")
		p.drawn = false
	}
}
