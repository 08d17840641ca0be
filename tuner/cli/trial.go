package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// trialCommands are the verbs about single trials, and those of programs that train elsewhere.
func (e *Env) trialCommands() *ucli.Command {
	g := group("trial", "look at the trials of a sweep",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list a sweep's trials by number", ArgsUsage: "SWEEP",
			Flags: append(listFlags(trial.StatusWords(), "the first `N`; 0 = all"),
				&ucli.Int64Flag{Name: "after", Usage: "only trials numbered above `N`"}),
			Action: e.listTrials}, 1, 1,
			"atelier trial list s-k3v9q2ma", "atelier trial list s-k3v9q2ma --state waiting,running --watch", "atelier trial list s-k3v9q2ma --sort value --limit 5",
			"atelier trial list s-k3v9q2ma --state failed -o json | jq '.[].failure'"),
		verb(&ucli.Command{Name: "show", Usage: "show one trial with its runs and checkpoints", ArgsUsage: "SWEEP TRIAL",
			Flags: []ucli.Flag{outputFlag()}, Action: e.showTrial}, 1, 2,
			"atelier trial show s-k3v9q2ma 7", "atelier trial show facades/7"),
		verb(&ucli.Command{Name: "curve", Usage: "a trial's metrics, epoch by epoch", ArgsUsage: "SWEEP TRIAL",
			Flags: []ucli.Flag{outputFlag()}, Action: e.curve}, 1, 2,
			"atelier trial curve s-k3v9q2ma 7", "atelier trial curve s-k3v9q2ma 7 -o csv > curve.csv"),
		e.logsCommand(),
		verb(&ucli.Command{Name: "stop", Usage: "end a trial early and keep its value", ArgsUsage: "SWEEP TRIAL", Action: e.stopTrial}, 1, 2,
			"atelier trial stop s-k3v9q2ma 7"),
		verb(&ucli.Command{Name: "retry", Usage: "give a failed trial one more run", ArgsUsage: "SWEEP TRIAL", Action: e.retryTrial}, 1, 2,
			"atelier trial retry s-k3v9q2ma 7"),
	)
	g.Subcommands = append(g.Subcommands, e.compareTrialsCommand())
	g.Subcommands = append(g.Subcommands, e.externalCommands()...)
	return g
}

// listTrials asks page by page, by the last number seen: what is proposed meanwhile comes at the
// end, and nothing twice.
func (e *Env) listTrials(c *ucli.Context) error {
	which := client.Which{After: c.Int64("after")}
	states, err := statesOf(c, trial.StatusWords())
	if err != nil {
		return err
	}
	for _, s := range states {
		st, err := trial.ParseStatus(s)
		if err != nil {
			return err
		}
		which.Status = append(which.Status, st)
	}
	if c.String("sort") == "" {
		which.Limit = c.Int("limit")
	}
	api, err := e.lister(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	return show(e, c, listing[trial.Trial]{
		name: func(t trial.Trial) string { return fmt.Sprintf("%s/%d", t.Sweep, t.Number) },
		read: func(ctx context.Context) ([]trial.Trial, error) {
			out := []trial.Trial{}
			for t, err := range api.Trials(ctx, id, which) {
				if err != nil {
					return nil, err
				}
				out = append(out, *t)
			}
			return out, nil
		},
		note: func(all []trial.Trial) {
			var other []int64
			for _, t := range all {
				if t.OtherData {
					other = append(other, t.Number)
				}
			}
			if text := trial.OtherDataText(other); text != "" {
				e.say("warning: %s", text)
			}
		},
		shape: e.trialTable,
	})
}

// trialTable has a row a trial.
func (e *Env) trialTable(all []trial.Trial) table {
	t := table{head: []string{"TRIAL", "STATE", "VALUE", "EPOCH", "RUNS", "WORKER", "TOOK", "PARAMS"},
		flex: []string{"PARAMS", "WHY"}, spare: []string{"RUNS", "WORKER", "EPOCH", "TOOK"}, moves: []string{"TOOK"}}
	for _, x := range all {
		worker := "-"
		if run := x.LastRun(); run != nil {
			worker = run.Worker + others(run)
		}
		t.rows = append(t.rows, []string{count(x.Number), x.Status.String(), shortValue(x.Value), count(int64(x.Epoch)), strconv.Itoa(len(x.Runs)), worker,
			e.span(x.StartedMS, x.EndedMS), pairs(x.Params)})
	}
	// A column only where one of the trials has something to say in it.
	why := func(x trial.Trial) string {
		text := cmp.Or(x.Failure, x.Note, x.StopReason)
		if x.OtherData {
			text = strings.TrimPrefix(text+"; other data", "; ")
		}
		return text
	}
	if slices.ContainsFunc(all, func(x trial.Trial) bool { return why(x) != "" }) {
		t.head = append(t.head, "WHY")
		for i, x := range all {
			t.rows[i] = append(t.rows[i], why(x))
		}
	}
	return t
}

// getTrial reads the trial that the arguments name.
func (e *Env) getTrial(c *ucli.Context, api *client.Client) (*trial.Trial, error) {
	sweep, n, err := e.trialArg(c, api)
	if err != nil {
		return nil, err
	}
	return api.Trial(c.Context, sweep, n)
}

// showTrial prints a trial with its runs and what is kept of its checkpoints.
func (e *Env) showTrial(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := e.getTrial(c, api)
	if err != nil {
		return err
	}
	paces := pacesOf(c.Context, api, r)
	return e.print(c, r, func() table {
		out := table{head: []string{"", ""}}
		add := func(k, v string) { out.rows = append(out.rows, []string{k, v}) }
		add("trial", fmt.Sprintf("%d of sweep %s", r.Number, r.Sweep))
		add("state", r.Status.String())
		if r.Failure != "" {
			add("failure", r.Failure)
		}
		if r.Note != "" {
			add("note", r.Note)
		}
		if r.StopReason != "" {
			add("verdict", r.StopReason)
		}
		add("params", pairs(r.Params))
		if r.Value != nil {
			add("value", fmt.Sprintf("%s at epoch %d", shortValue(r.Value), r.ValueEpoch))
		}
		for _, name := range slices.Sorted(maps.Keys(r.Metrics)) {
			add("", name+" "+short(float64(r.Metrics[name])))
		}
		if r.Infeasible {
			add("", "meets the constraints at no epoch")
		}
		if r.Data != "" {
			add("data", r.Data)
		}
		if r.OtherData {
			add("", "other data than the sweep's first run had: its value is not comparable")
		}
		add("epochs", count(int64(r.Epoch)))
		if r.Source != 0 {
			by := map[trial.Source]string{trial.SourceSearch: "search", trial.SourceEnqueued: "a person", trial.SourcePopulation: "its population"}[r.Source]
			add("proposed", fmt.Sprintf("by %s from %s", by, plural(r.Seen, "observation")))
		}
		if r.OriginTrial != 0 {
			add("began from", fmt.Sprintf("trial %d, epoch %d", r.OriginTrial, r.OriginEpoch))
		}
		if r.Pauses > 0 {
			add("paused", plural(int64(r.Pauses), "time"))
		}
		add("took", e.span(r.StartedMS, r.EndedMS))
		for _, x := range r.Runs {
			text := fmt.Sprintf("%s %s%s, %s", x.Worker, x.Slot, others(&x), e.span(x.StartedMS, x.EndedMS))
			if x.Exit != 0 {
				text += ", " + x.Exit.String()
			}
			if x.ResumedEpoch > 0 {
				text += fmt.Sprintf(", resumed from epoch %d", x.ResumedEpoch)
			}
			if x.Message != "" {
				text += ": " + x.Message
			}
			add(fmt.Sprintf("run %d", x.Number), text)
		}
		e.groupRows(r, paces, add)
		for _, x := range r.Checkpoints {
			add("checkpoint", fmt.Sprintf("epoch %d, %s, %s", x.Epoch, bytesOf(x.Size), x.Location))
		}
		return out
	})
}

// curve prints a trial's reports over all its runs; a metric that an epoch lacks is an empty cell.
func (e *Env) curve(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	n, err := trialNumber(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	sweep, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	records, err := api.Curve(c.Context, sweep, n)
	if err != nil {
		return err
	}
	var columns []string
	for _, x := range records {
		for _, m := range x.Metrics {
			if !slices.Contains(columns, m.Name) {
				columns = append(columns, m.Name)
			}
		}
	}
	return e.print(c, records, func() table {
		t := table{head: append([]string{"EPOCH"}, columns...)}
		// Losses and accuracies matter more than what the training cost.
		for _, name := range slices.Backward(columns) {
			if !strings.HasPrefix(name, "val_") && !strings.HasPrefix(name, "train_") {
				t.spare = append(t.spare, name)
			}
		}
		for _, x := range records {
			row := make([]string, len(t.head))
			row[0] = count(int64(x.Epoch))
			for _, m := range x.Metrics {
				row[1+slices.Index(columns, m.Name)] = short(m.Value)
			}
			t.rows = append(t.rows, row)
		}
		return t
	})
}

// stopTrial ends a trial early; a running one ends at its next report, which counts.
func (e *Env) stopTrial(c *ucli.Context) error {
	n, err := trialNumber(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	sweep, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	t, err := api.StopTrial(c.Context, client.NewRequestID(), sweep, n)
	if err != nil {
		return err
	}
	if t.Status == trial.Running {
		e.say("trial %d of sweep %s stops at its next report", n, sweep)
	} else {
		e.say("trial %d of sweep %s is %s", n, sweep, t.Status)
	}
	return nil
}

// retryTrial lets a failed trial wait again, with all its retries.
func (e *Env) retryTrial(c *ucli.Context) error {
	n, err := trialNumber(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	sweep, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	t, err := api.RetryTrial(c.Context, client.NewRequestID(), sweep, n)
	if err != nil {
		return err
	}
	e.say("trial %d of sweep %s is %s", n, sweep, t.Status)
	return nil
}
