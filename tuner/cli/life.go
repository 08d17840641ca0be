package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/sweep"

	ucli "github.com/urfave/cli/v2"
)

// lifeCommands are the verbs that steer and explain a sweep while it lives.
func (e *Env) lifeCommands() []*ucli.Command {
	return []*ucli.Command{
		verb(&ucli.Command{Name: "extend", Usage: "add to a sweep's budget", ArgsUsage: "SWEEP", Description: "A finished sweep continues.",
			Flags: []ucli.Flag{&ucli.Int64Flag{Name: "trials", Usage: "`N` further trials"},
				&ucli.Int64Flag{Name: "epochs", Usage: "`N` further epochs, of all trials together"},
				&ucli.DurationFlag{Name: "time", Usage: "`DURATION` more to run, such as 30m"}}, Action: e.extendSweep}, 1, 1,
			"atelier sweep extend s-k3v9q2ma --trials 20", "atelier sweep extend s-k3v9q2ma --epochs 500 --time 2h"),
		verb(&ucli.Command{Name: "enqueue", Usage: "queue points to try next", ArgsUsage: "SWEEP",
			Description: "Queued points are tried before any that search proposes, in their order, and count\n" +
				"towards the budget. Each needs a value for every active parameter.",
			Flags:  []ucli.Flag{&ucli.StringSliceFlag{Name: "params", Usage: "a point as a `JSON` object (may be given again), or - for a JSON list on standard input"}},
			Action: e.enqueue}, 1, 1,
			`atelier sweep enqueue s-k3v9q2ma --params '{"lr":0.01,"batch_size":32}'`,
			"atelier leaderboard s-aaaaaaaa --top 3 -o json | jq '[.[].params]' | atelier sweep enqueue s-bbbbbbbb --params -"),
		verb(&ucli.Command{Name: "priority", Usage: "choose which sweep gets free slots first", ArgsUsage: "SWEEP N",
			Description: "The sweep with the highest number (default 0) gets free slots first; equal priorities share.\nRunning trials are not preempted. Write a negative N after --.",
			Action:      e.priority}, 2, 2,
			"atelier sweep priority s-k3v9q2ma 10", "atelier sweep priority s-k3v9q2ma -- -5"),
		verb(&ucli.Command{Name: "verify", Usage: "recompute every proposal and compare it with the log", ArgsUsage: "SWEEP",
			Description: "Each point, and the checkpoint it starts from, is computed from what search knew when it was\nproposed. Exit code 1 if one differs from the log. It takes as long as the search itself did.",
			Flags:       []ucli.Flag{outputFlag()}, Action: e.verify}, 1, 1,
			"atelier sweep verify s-k3v9q2ma"),
		verb(&ucli.Command{Name: "importance", Usage: "which parameters mattered for the best results", ArgsUsage: "SWEEP",
			Description: "PED-ANOVA on the trials that have ended with a value; it needs 10 of them. Shares add up to 1.",
			Flags:       []ucli.Flag{outputFlag()}, Action: e.importance}, 1, 1,
			"atelier sweep importance s-k3v9q2ma"),
		verb(&ucli.Command{Name: "progress", Usage: "the best value so far, trial by trial", ArgsUsage: "SWEEP",
			Description: "Trials in the order in which they ended, with the time since the sweep was made and the\nepochs trained until then.",
			Flags:       []ucli.Flag{outputFlag()}, Action: e.bestSoFar}, 1, 1,
			"atelier sweep progress s-k3v9q2ma", "atelier sweep progress s-k3v9q2ma -o csv > progress.csv"),
	}
}

// extendSweep adds to budgets that the sweep has; one that ended by its budget goes on.
func (e *Env) extendSweep(c *ucli.Context) error {
	n, epochs, d := c.Int64("trials"), c.Int64("epochs"), c.Duration("time")
	if n < 0 || epochs < 0 || d < 0 || n == 0 && epochs == 0 && d < time.Millisecond {
		return usage("sweep extend: what is to be added? --trials N, --epochs N or --time DURATION")
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Extend(c.Context, client.NewRequestID(), id, client.Budget{Trials: n, Epochs: epochs, Time: d})
	if err != nil {
		return err
	}
	e.say("sweep %s is %s with a budget of %s", s.ID, s.Status, budgetOf(s))
	return nil
}

// budgetOf writes a budget as people do: 40 trials, 500 epochs, 2h.
func budgetOf(s *trial.Sweep) string {
	var parts []string
	if n := s.BudgetTrials; n > 0 {
		parts = append(parts, plural(n, "trial"))
	}
	if n := s.BudgetEpochs; n > 0 {
		parts = append(parts, plural(n, "epoch"))
	}
	if ms := s.BudgetMS; ms > 0 {
		parts = append(parts, roundly(time.Duration(ms)*time.Millisecond))
	}
	return strings.Join(parts, ", ")
}

// points reads the points of --params, each a JSON object. What they hold is not understood here: the cluster checks
// them against the sweep's space, all of them before it takes any.
func (e *Env) points(given []string) (out []string, err error) {
	for _, text := range given {
		where, list := "--params "+text, []json.RawMessage{json.RawMessage(text)}
		if text == "-" {
			b, err := io.ReadAll(io.LimitReader(e.In, 64<<20))
			if err != nil {
				return nil, err
			}
			where = "standard input"
			if err := json.Unmarshal(b, &list); err != nil {
				return nil, usage("sweep enqueue: standard input: want a JSON list of points, such as [{\"lr\":0.01}]: %s", err)
			}
		}
		for _, p := range list {
			var point map[string]any
			if err := json.Unmarshal(p, &point); err != nil || point == nil {
				return nil, usage("sweep enqueue: %.80s: want a JSON object, such as '{\"lr\":0.01}'", where)
			}
			out = append(out, string(p))
		}
	}
	if len(out) == 0 {
		return nil, usage(`sweep enqueue: which points? --params '{"lr":0.01}'`)
	}
	return out, nil
}

// enqueue gives points that are tried before any that search proposes; they count towards the
// budget.
func (e *Env) enqueue(c *ucli.Context) error {
	points, err := e.points(c.StringSlice("params"))
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Enqueue(c.Context, client.NewRequestID(), id, points)
	if err != nil {
		return err
	}
	e.say("sweep %s: %s to be tried next", s.ID, plural(s.Enqueued, "given point"))
	return nil
}

// priority says which sweep gets free slots first; nothing that runs is taken away.
func (e *Env) priority(c *ucli.Context) error {
	n, err := setting.Whole(c.Args().Get(1))
	if err != nil || n != int64(int32(n)) {
		return usage("sweep priority: %q: want a whole number", c.Args().Get(1))
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Prioritize(c.Context, client.NewRequestID(), id, int32(n))
	if err != nil {
		return err
	}
	e.say("sweep %s has priority %d", s.ID, s.Priority)
	return nil
}

// from says where a trial starts, behind its parameters.
func from(o *trial.Origin) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf(" from trial %d, epoch %d", o.Trial, o.Epoch)
}

// verify has the cluster compute every proposal again, in parts of some seconds so that no call
// outlasts its limits, and ends with 1 where one differs: the promise that a sweep is a function of
// spec, seed and history is broken then.
func (e *Env) verify(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	v, err := api.Verify(c.Context, id)
	if err != nil {
		return err
	}
	records := v.Differences
	// Without a difference a person needs no empty table; a program gets its empty list.
	if len(records) > 0 || !tabular(c) {
		err = e.print(c, records, func() table {
			t := table{head: []string{"TRIAL", "SOURCE", "SEEN", "RECORDED", "COMPUTED"}, flex: []string{"RECORDED", "COMPUTED"}, spare: []string{"SEEN", "SOURCE"}}
			for _, x := range records {
				t.rows = append(t.rows, []string{count(x.Trial), x.Source.String(), count(x.Seen), pairs(x.Recorded) + from(x.RecordedOrigin), pairs(x.Computed) + from(x.ComputedOrigin)})
			}
			return t
		})
		if err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%s recomputed at index %d", plural(v.Checked, "proposal"), v.Index)
	if n := v.Unchecked; n > 0 {
		text += fmt.Sprintf(", %d not (made by other means than search, or before this was recorded)", n)
	}
	if n := len(records); n > 0 {
		return &exitError{code: client.ExitError, text: fmt.Sprintf("%s: %d differ, the first is trial %d", text, n, records[0].Trial)}
	}
	e.say("%s: no difference", text)
	return nil
}

// importance prints shares that add up to 1, the most important first, from the trials that have a
// value now.
func (e *Env) importance(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	found, err := api.Importance(c.Context, id)
	if err != nil {
		return err
	}
	e.say("%s, from %s at index %d", found.Method, plural(found.Trials, "trial"), found.Index)
	return e.print(c, found.Parameters, func() table {
		t := table{head: []string{"PARAMETER", "IMPORTANCE"}}
		for _, x := range found.Parameters {
			t.rows = append(t.rows, []string{x.Parameter, strconv.FormatFloat(float64(x.Importance), 'f', 3, 64)})
		}
		return t
	})
}

// bestSoFar prints the trials in the order of their ends, with the best value until then.
func (e *Env) bestSoFar(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	records, objective, err := api.Progress(c.Context, id)
	if err != nil {
		return err
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"ENDED", "TRIAL", strings.ToUpper(dash(objective.Metric)), "BEST", "OF TRIAL", "AFTER", "EPOCHS"}, spare: []string{"EPOCHS", "AFTER"}}
		for _, x := range records {
			t.rows = append(t.rows, []string{count(x.Ended), count(x.Trial), short(float64(x.Value)), short(float64(x.Best)), count(x.BestTrial),
				roundly(time.Duration(x.TimeMS) * time.Millisecond), count(x.Epochs)})
		}
		return t
	})
}

// resumeSweep lets a paused sweep go on. A spec that is named must be the one
// that was submitted: a sweep does not change its question.
func (e *Env) resumeSweep(c *ucli.Context) error {
	if c.NArg() == 2 {
		if err := e.sameSpec(c); err != nil {
			return err
		}
	}
	return e.controlSweep(c, trial.ActionResume)
}

// sameSpec is an error, with the line, where a file is not what was submitted. It is parsed first:
// faults of its own are more use than the first difference.
func (e *Env) sameSpec(c *ucli.Context) error {
	name, text, err := e.readSpec(c.Args().Get(1))
	if err != nil {
		return err
	}
	if _, err := sweep.Parse(name, text); err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Sweep(c.Context, id)
	if err != nil {
		return err
	}
	line, was, is := firstChange(s.SpecYAML, string(text))
	if line == 0 {
		return nil
	}
	return fmt.Errorf("%s:%d: it is not the spec of sweep %s: there %q, here %q; a sweep keeps its spec. "+
		"`atelier sweep extend` adds to its budget; for anything else submit a new sweep with `warm_start: %s`", name, line, id, was, is, id)
}

// firstChange names the first line in which two texts differ; 0 if none does. Ends of lines and blank lines at the end
// do not count: editors change them unasked.
func firstChange(a, b string) (line int, was, is string) {
	x, y := strings.Split(strings.TrimRight(a, "\n"), "\n"), strings.Split(strings.TrimRight(b, "\n"), "\n")
	for i := range max(len(x), len(y)) {
		was, is = "", ""
		if i < len(x) {
			was = strings.TrimRight(x[i], " \r")
		}
		if i < len(y) {
			is = strings.TrimRight(y[i], " \r")
		}
		if was != is || i >= len(x) || i >= len(y) {
			return i + 1, was, is
		}
	}
	return 0, "", ""
}
