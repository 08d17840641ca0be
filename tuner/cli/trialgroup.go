package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// shownViews is how many of a run's newest views a page has.
const shownViews = 8

// pacesOf are what the members of a trial's group told last, where one computes now.
// They are beside the point of the page: without them it is printed all the same.
func pacesOf(ctx context.Context, api *client.Client, t *trial.Trial) trial.Paces {
	if run := t.LastRun(); run == nil || run.Group == nil || run.EndedMS != 0 {
		return nil
	}
	workers, err := api.Workers(ctx)
	if err != nil {
		return nil
	}
	return trial.PacesOf(workers)
}

// groupRows is the group of a trial's newest run, a row a member, view and end.
func (e *Env) groupRows(t *trial.Trial, paces trial.Paces, add func(k, v string)) {
	run := t.LastRun()
	if run == nil || run.Group == nil {
		return
	}
	g := run.Group
	span := fmt.Sprintf("%d to %d", g.Min, g.Max)
	if g.Min == g.Max {
		span = count(int64(g.Max))
	}
	// Of a run that is over those of its newest view: some have left before the end was recorded.
	members, when := g.Members, ""
	if v := g.View(); run.EndedMS != 0 && v != nil {
		members, when = g.In(v), " at its end"
	}
	add("members", fmt.Sprintf("%d%s, of %s; %s", len(members), when, span, plural(int64(g.Shards), "shard")))
	reports := int32(0)
	if at := g.Reporter(); at >= 0 {
		reports = g.Members[at].ID
	}
	for _, m := range members {
		text := fmt.Sprintf("#%d %s", m.ID, m.Name())
		if m.ID == reports && run.EndedMS == 0 {
			text += ", reports"
		}
		if v := g.View(); v != nil && run.EndedMS == 0 && !slices.Contains(v.Members, m.ID) {
			text += ", joins"
		}
		if m.Leaving {
			text += ", leaves"
		}
		add("", text)
	}
	if p := paces.Of(t.Sweep, t.Number, g); p != nil {
		add("pace", fmt.Sprintf("%s s a step, %.0f%% of it waiting", short(float64(p.Step)), 100*float64(p.Waiting)))
		if at := g.At(p.Slowest); at >= 0 && len(g.Members) > 1 {
			add("", fmt.Sprintf("slowest #%d %s, %.0f%% longer than the mean", p.Slowest, g.Members[at].Name(), 100*float64(p.Lag)))
		}
	}
	if n := len(g.Views) - shownViews; n > 0 {
		add("views", plural(int64(n), "earlier view"))
	}
	for _, v := range g.Views[max(0, len(g.Views)-shownViews):] {
		ids := make([]string, len(v.Members))
		for i, id := range v.Members {
			ids[i] = fmt.Sprintf("#%d", id)
		}
		text := fmt.Sprintf("%s at step %d: %s", strings.Join(ids, " "), v.Step, v.Reason)
		if v.PauseMS > 0 {
			text += fmt.Sprintf(", pause %v", time.Duration(v.PauseMS)*time.Millisecond)
		}
		add(fmt.Sprintf("view %d", v.Number), text)
	}
	for _, x := range g.Ended[max(0, len(g.Ended)-shownViews):] {
		if v := g.View(); run.EndedMS != 0 && x.Exit == trial.ExitReleased && v != nil && slices.Contains(v.Members, x.Member) {
			continue // it left because the run was at its end
		}
		text := fmt.Sprintf("#%d %s/%s, %s", x.Member, x.Worker, x.Slot, x.Exit)
		if x.Message != "" {
			text += ": " + x.Message
		}
		add("gone", text)
	}
}

// others is how many beside the one that reports carry a run out: " +2".
func others(r *trial.Run) string {
	if r.Group == nil || len(r.Group.Members) < 2 || r.EndedMS != 0 {
		return ""
	}
	return fmt.Sprintf(" +%d", len(r.Group.Members)-1)
}

// slotsOf is what a sweep asks for of slots, and what its runs have: two lines,
// the second empty where no run is under way.
func slotsOf(s *trial.Sweep) (asked, now string) {
	asked = fmt.Sprintf("%d to %d slots a trial", s.MembersMin, s.MembersMax)
	if s.MembersMin == s.MembersMax {
		asked = plural(int64(s.MembersMax), "slot") + " a trial"
	}
	asked += ", " + plural(int64(s.Shards), "shard")
	var sizes []string
	for _, g := range s.Groups {
		sizes = append(sizes, fmt.Sprintf("%s of %d", plural(g.Runs, "run"), g.Members))
	}
	return asked, strings.Join(sizes, ", ")
}
