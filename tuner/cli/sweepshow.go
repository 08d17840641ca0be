package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// printSweep prints a sweep on a page: what does not differ from the ordinary is left out of the
// table, never out of the records.
func (e *Env) printSweep(c *ucli.Context, r *trial.Sweep) error {
	return e.print(c, r, func() table {
		n := r.Counts
		t := table{head: []string{"", ""}, rows: [][]string{
			{"id", r.ID}, {"name", r.Name}, {"state", stateOf(*r)}}}
		add := func(k, v string) { t.rows = append(t.rows, []string{k, v}) }
		if r.Kind == trial.Inference {
			add("kind", r.Kind.String())
		}
		if r.Failure != "" {
			add("failure", r.Failure)
		}
		if r.Notify != nil {
			add("notify", strings.TrimPrefix(notifyText(r), "its "))
		}
		if r.DeletedMS != 0 {
			add("deleted", fmt.Sprintf("%s, goes for good at %s", clock(r.DeletedMS), clock(r.PurgeMS)))
		}
		if len(r.Tags) > 0 {
			add("tags", strings.Join(r.Tags, ", "))
		}
		for i, line := range strings.Split(r.UserNote, "\n") {
			if r.UserNote != "" {
				add(map[bool]string{true: "note"}[i == 0], line)
			}
		}
		if r.Note != "" {
			add("waiting", r.Note)
		}
		if r.Ending != "" {
			add("because", r.Ending)
		}
		for i, o := range r.Objectives {
			add(map[bool]string{true: "objective"}[i == 0], o.Direction()+" "+o.Metric)
		}
		for _, x := range r.Constraints {
			add("constraint", boundsOf(x))
		}
		add("search", methodOf(r))
		add("seed", strconv.FormatUint(r.Seed, 10))
		add("trainer", r.Trainer)
		if r.MembersMax > 1 {
			asked, now := slotsOf(r)
			if add("members", asked); now != "" {
				add("", now)
			}
		}
		trials := fmt.Sprintf("%s ended, %d running, %d waiting, at most %d at once", strings.Replace(of(n.Over(), r.BudgetTrials), "/", " of ", 1), n.Running, n.Waiting, r.Parallelism)
		if n.Paused > 0 {
			trials += fmt.Sprintf(", %d paused", n.Paused)
		}
		if r.Enqueued > 0 {
			trials += ", " + plural(r.Enqueued, "given point") + " to come"
		}
		add("trials", trials)
		if r.BudgetEpochs > 0 {
			add("epochs", fmt.Sprintf("%d of %d", r.Epochs, r.BudgetEpochs))
		}
		if r.BudgetMS > 0 {
			add("time", roundly(time.Duration(r.SpentMS)*time.Millisecond)+" of "+roundly(time.Duration(r.BudgetMS)*time.Millisecond))
		}
		if r.CheckpointBytes > 0 {
			add("checkpoints", bytesOf(r.StoredBytes)+" of "+bytesOf(r.CheckpointBytes))
		}
		if r.Priority != 0 {
			add("priority", count(int64(r.Priority)))
		}
		if r.WarmStart != "" {
			add("warm start", plural(r.WarmTrials, "trial")+" of "+r.WarmStart)
		}
		if len(r.Requires) > 0 {
			add("requires", labels(r.Requires))
		}
		if string(r.Stopping) != "null" {
			add("stopping", pairs(r.Stopping))
		}
		add("ended", fmt.Sprintf("%d finished, %d stopped, %d diverged, %d failed, %d cancelled", n.Finished, n.Stopped, n.Diverged, n.Failed, n.Cancelled))
		add("runs", fmt.Sprintf("%s, %s", thousands(n.Runs), plural(n.Reports, "report")))
		add("created", clock(r.CreatedMS))
		add("took", e.span(r.CreatedMS, r.EndedMS))
		if r.Best != nil {
			add("best", fmt.Sprintf("%s (trial %d, epoch %d)", short(float64(r.Best.Value)), r.Best.Trial, r.Best.Epoch))
			add("", pairs(r.Best.Params))
			if text := otherMetrics(r); text != "" {
				add("", text)
			}
		}
		return t
	})
}

// otherMetrics are what the best trial reported beside the objective: of the
// validation, or else all.
func otherMetrics(r *trial.Sweep) string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(r.Best.Metrics)), func(n string) bool { return n == r.Objective.Metric })
	if of := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, "val_") }); len(of) > 0 {
		names = of
	}
	var out []string
	for _, n := range names {
		out = append(out, n+" "+metricCell(r.Best.Metrics, n))
	}
	return strings.Join(out, ", ")
}

// boundsOf is a constraint as the table has it: 1 <= mb <= 100.
func boundsOf(c trial.Constraint) string {
	text := c.Metric
	if c.HasMin {
		text = short(c.Min) + " <= " + text
	}
	if c.HasMax {
		text += " <= " + short(c.Max)
	}
	return text
}

// of writes how many of how many, where there is a limit.
func of(n, limit int64) string {
	if limit == 0 {
		return count(n)
	}
	return fmt.Sprintf("%d/%d", n, limit)
}

// labels writes labels by name: gpu=a100 zone=b.
func labels(of map[string]string) string {
	names := slices.Sorted(maps.Keys(of))
	for i, name := range names {
		names[i] = name + "=" + of[name]
	}
	return strings.Join(names, " ")
}
