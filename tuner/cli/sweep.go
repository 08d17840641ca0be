package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"atelier/common/client"
	"atelier/common/mlflow"
	"atelier/common/trial"
	"atelier/tuner/simulate"
	"atelier/tuner/sweep"
	"atelier/tuner/track"

	ucli "github.com/urfave/cli/v2"
)

// sweepCommands are the verbs about whole sweeps. What changes one carries a request id, so that a
// call repeated by the client after a lost answer is done once; what reads may be repeated anyhow.
func (e *Env) sweepCommands() *ucli.Command {
	action := func(name, what string, a trial.Action, description string) *ucli.Command {
		return verb(&ucli.Command{Name: name, Usage: what, ArgsUsage: "SWEEP", Description: description,
			Action: func(c *ucli.Context) error { return e.controlSweep(c, a) }},
			1, 1, "atelier sweep "+name+" s-k3v9q2ma")
	}
	g := group("sweep", "submit, watch and control sweeps",
		verb(&ucli.Command{Name: "submit", Usage: "submit a sweep and print its id", ArgsUsage: "SPEC",
			Description: "SPEC is a YAML file, or - for standard input. The id goes to standard output;\n" +
				"with --follow the command waits for the end, and its exit code is 6 if the sweep\n" +
				"failed or was cancelled. An interrupt ends the watching, not the sweep.\n" +
				"With --dry-run nothing is sent: the command prints what would run (points, trials,\n" +
				"epochs, images, time) and the first points; it needs no cluster.\n" +
				"With --mlflow too it shows the sweep in MLflow while it runs; see sweep export-mlflow.",
			Flags: append([]ucli.Flag{
				&ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "stay and show progress until it has ended"},
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print the id and nothing else"},
				&ucli.BoolFlag{Name: "dry-run", Usage: "send nothing: print what would run, and its first points"},
				outputFlag(),
				&ucli.StringFlag{Name: "base-dir", Usage: "`FOLDER` that relative data paths of the spec start from (default: the working folder)"},
				&ucli.BoolFlag{Name: "mlflow", Usage: "with --follow: show the sweep in MLflow"},
			}, append(trackFlags(), notifyFlags()...)...), Action: e.submit}, 1, 1,
			"atelier sweep submit deploy/conf/facades.yaml --follow",
			"atelier sweep submit deploy/conf/facades.yaml --dry-run",
			"atelier sweep submit deploy/conf/facades.yaml --follow --mlflow --mlflow-uri http://127.0.0.1:5000",
			"id=$(atelier sweep submit -q spec.yaml) && atelier sweep wait $id --timeout 2h",
			"sed 's/seed: 42/seed: 43/' spec.yaml | atelier sweep submit -"),
		verb(&ucli.Command{Name: "wait", Usage: "wait for a sweep's end", ArgsUsage: "SWEEP",
			Description: "Exit code 0: finished or stopped; 6: failed or cancelled; 124: --timeout is over.",
			Flags: []ucli.Flag{outputFlag(),
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress and no summary"},
			}, Action: e.waitSweep}, 1, 1,
			"atelier sweep wait s-k3v9q2ma", "atelier sweep wait s-k3v9q2ma -q --timeout 30m && echo done"),
		verb(&ucli.Command{Name: "show", Usage: "show one sweep", ArgsUsage: "SWEEP",
			Flags: []ucli.Flag{outputFlag(), &ucli.BoolFlag{Name: "spec", Usage: "print the spec as it was submitted"}}, Action: e.showSweep}, 1, 1,
			"atelier sweep show s-k3v9q2ma", "atelier sweep show s-k3v9q2ma -o json | jq .best.params", "atelier sweep show s-k3v9q2ma --spec > again.yaml"),
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list sweeps, newest first",
			Flags: append(listFlags(trial.SweepStatusWords(), "the first `N`; 0 = all"),
				&ucli.BoolFlag{Name: "archived", Usage: "archived sweeps too"},
				&ucli.BoolFlag{Name: "deleted", Usage: "sweeps too that were deleted in the last 24 hours"},
				&ucli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "archived and deleted sweeps too"},
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"}), Action: e.listSweeps}, 0, 0,
			"atelier sweep list", "atelier sweep list --state running,paused --watch", "atelier sweep list --sort best.value --limit 5",
			"atelier sweep list -o csv --columns id,name,best.value"),
		action("pause", "start no new trials; running trials finish", trial.ActionPause, "It continues with: atelier sweep resume."),
		verb(&ucli.Command{Name: "resume", Usage: "resume a paused sweep", ArgsUsage: "SWEEP [SPEC]",
			Description: "With SPEC: refuse if the file has changed since it was submitted.", Action: e.resumeSweep}, 1, 2,
			"atelier sweep resume s-k3v9q2ma", "atelier sweep resume s-k3v9q2ma spec.yaml"),
		action("stop", "end a sweep early and keep its results", trial.ActionStop,
			"Running trials stop at their next epoch; their values count."),
		action("cancel", "cancel a sweep now; unfinished trials are discarded", trial.ActionCancel, "Trials that have ended keep their values."),
		e.exportCommand(), e.reportCommand(),
		verb(&ucli.Command{Name: "simulate", Usage: "run a spec's search alone, without a cluster", ArgsUsage: "SPEC",
			Description: "CMD keeps running, reads one JSON object per line, {\"trial\":1,\"params\":{...}}, and answers\n" +
				"{\"trial\":1,\"value\":0.5}. The output is one JSON object per trial.",
			Flags: []ucli.Flag{
				&ucli.StringFlag{Name: "exec", Usage: "`CMD`, run by sh"},
				&ucli.IntFlag{Name: "parallel", Value: 1, Usage: "keep `N` trials open"},
			}, Action: e.simulate}, 1, 1,
			"atelier sweep simulate spec.yaml --exec './objective.py' --parallel 4"),
	)
	g.Subcommands = append(g.Subcommands, e.compareSweepsCommand())
	g.Subcommands = append(g.Subcommands, e.lifeCommands()...)
	g.Subcommands = append(g.Subcommands, e.labelCommands()...)
	g.Subcommands = append(g.Subcommands, e.shelfCommands()...)
	return g
}

// readSpec reads a spec and the name it goes by in messages: the path as the person sees it, since editors jump by it.
func (e *Env) readSpec(path string) (string, []byte, error) {
	if path == "-" {
		b, err := io.ReadAll(io.LimitReader(e.In, sweep.MaxSize+1))
		return "standard input", b, err
	}
	path = e.path(path)
	b, err := os.ReadFile(path)
	if err := e.opened(path, err); err != nil {
		return "", nil, fmt.Errorf("read the spec: %w", err)
	}
	if rel, err := filepath.Rel(e.Dir, path); err == nil && filepath.IsLocal(rel) {
		path = rel
	}
	return path, b, nil
}

// submit prints the sweep's id on standard output, alone, as soon as the cluster has the sweep:
// whatever fails later, a script can go on with it. All that can be wrong without a cluster is
// looked at first (flags, spec, MLflow's address, image folders), for a sweep that was made goes
// on. With --follow the exit code is the sweep's, and an interrupt ends the watching alone.
func (e *Env) submit(c *ucli.Context) error {
	e.goOn()
	tracks := c.Bool("mlflow") || c.IsSet("mlflow-uri")
	if tracks && !c.Bool("follow") {
		return usage("sweep submit: --mlflow goes with --follow; to export it later: atelier sweep export-mlflow ID")
	}
	if c.Bool("dry-run") && (c.Bool("follow") || tracks) {
		return usage("sweep submit: --dry-run sends nothing that --follow or --mlflow could watch")
	}
	if c.IsSet("output") && !c.Bool("dry-run") {
		return usage("sweep submit: -o is the format of --dry-run; what is submitted is printed as its id")
	}
	if err := checkFormat(c); err != nil {
		return err
	}
	name, text, err := e.readSpec(c.Args().First())
	if err != nil {
		return err
	}
	base := e.path(c.String("base-dir"))
	notify, err := e.notification(c)
	if err != nil {
		return err
	}
	var store mlflow.Store
	if tracks {
		// Before the sweep is made: a wrong address of MLflow is found while nothing has begun.
		if store, err = e.openTracking(c); err != nil {
			return err
		}
	}
	// The cluster parses it again; here faults cost no call, and get the file's name in front.
	checked, err := sweep.ParseToRun(name, text)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return e.dryRun(c, name, checked, base)
	}
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	if client.Loopback(api.Addrs()) {
		// The workers see this machine's folders: what is missing here is
		// missing there.
		if err := checkData(name, text, base); err != nil {
			return err
		}
	}
	quiet := c.Bool("quiet")
	// Submitting has the short patience of single calls, watching the long one.
	once, err := e.client(c)
	if err != nil {
		return err
	}
	defer once.Close()
	s, warnings, err := once.Submit(c.Context, client.Submission{Spec: string(text), Name: name, BaseDir: base, Notify: notify})
	if err != nil {
		return err
	}
	e.warn(warnings)
	// From here on a script has what it needs, whatever becomes of the watching.
	if _, err := fmt.Fprintln(e.Out, s.ID); err != nil {
		return err
	}
	if !quiet {
		e.say("submitted %s: %s, %s, %d at once, seed %d", s.Name, methodOf(s), budgetOf(s), s.Parallelism, s.Seed)
	}
	if !c.Bool("follow") {
		return nil
	}
	var shown *tracking
	if err := track.Mirrors(s); store != nil && err != nil {
		e.say("MLflow: %s", err)
		store.Close(c.Context)
	} else if store != nil {
		shown = e.track(c, store, api, s.ID)
		shown.start(c.Context)
	}
	end, err := e.follow(c.Context, api, s.ID, quiet)
	if shown != nil {
		// The sweep's own outcome counts.
		if e2 := shown.finish(c.Context, time.Minute, quiet); e2 != nil {
			e.say("%s", e2)
		}
	}
	if err != nil {
		// Whoever presses Ctrl-C here wants the terminal back, not the sweep gone.
		if errors.Is(c.Context.Err(), context.Canceled) {
			e.say("the sweep continues: atelier sweep wait %s", s.ID)
		}
		return err
	}
	return e.outcome(end, quiet)
}

// waitSweep ends with the sweep: 0 when it has finished or was stopped, for then its results are
// what was wanted; 6 when it has failed or was cancelled. The sweep is printed only where -o asks
// for it.
func (e *Env) waitSweep(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	quiet := c.Bool("quiet")
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	s, err := e.follow(c.Context, api, id, quiet)
	if err != nil {
		return err
	}
	if c.IsSet("output") {
		if err := e.sayOtherData(c.Context, api, s.ID); err != nil {
			return err
		}
		if err := e.printSweep(c, s); err != nil {
			return err
		}
	}
	return e.outcome(s, quiet)
}

// showSweep prints a sweep; with --spec the text as it was submitted, byte for byte, so that it can
// be submitted again.
func (e *Env) showSweep(c *ucli.Context) error {
	api, err := e.reader(c)
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
	if c.Bool("spec") {
		_, err := io.WriteString(e.Out, s.SpecYAML)
		return err
	}
	if err := e.sayOtherData(c.Context, api, s.ID); err != nil {
		return err
	}
	return e.printSweep(c, s)
}

// listSweeps prints the newest first; with -q ids alone, one a line.
func (e *Env) listSweeps(c *ucli.Context) error {
	states, err := statesOf(c, trial.SweepStatusWords())
	if err != nil {
		return err
	}
	api, err := e.lister(c)
	if err != nil {
		return err
	}
	defer api.Close()
	return show(e, c, listing[trial.Sweep]{
		name: func(s trial.Sweep) string { return s.ID },
		read: func(ctx context.Context) ([]trial.Sweep, error) {
			limit := c.Int("limit")
			if len(states) > 0 || c.String("sort") != "" {
				limit = 0
			}
			hidden := c.Bool("all")
			all, err := api.ListSweeps(ctx, client.Listing{Limit: limit, Archived: hidden || c.Bool("archived"), Deleted: hidden || c.Bool("deleted")})
			if len(states) > 0 {
				all = slices.DeleteFunc(all, func(s trial.Sweep) bool { return !slices.Contains(states, s.Status.String()) })
			}
			return all, err
		},
		shape: e.sweepTable,
	})
}

// sweepTable has a row a sweep.
func (e *Env) sweepTable(all []trial.Sweep) table {
	t := table{head: []string{"ID", "NAME", "STATE", "SEARCH", "TRIALS", "RUNNING", "BEST", "AGE"},
		flex: []string{"NAME"}, spare: []string{"SEARCH", "RUNNING"}, moves: []string{"AGE"}}
	for _, r := range all {
		value := "-"
		if r.Best != nil && r.Kind != trial.Inference {
			value = short(float64(r.Best.Value))
		}
		t.rows = append(t.rows, []string{r.ID, r.Name, stateOf(r), searchOf(r),
			of(r.Counts.Over(), r.BudgetTrials), count(r.Counts.Running), value, e.age(r.CreatedMS)})
	}
	return t
}

// controlSweep pauses, resumes, stops or cancels, and says what the sweep is now: one that is told
// to stop may still be stopping.
func (e *Env) controlSweep(c *ucli.Context, a trial.Action) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	among := anySweep
	if a == trial.ActionCancel {
		among = among.strictly()
	}
	id, err := e.sweepAmong(c, api, c.Args().First(), among)
	if err != nil {
		return err
	}
	s, err := api.Control(c.Context, client.NewRequestID(), id, a)
	if err != nil {
		return err
	}
	e.say("sweep %s is %s", s.ID, s.Status)
	return nil
}

// simulate runs a spec's search here, with a program that computes the values; no cluster is asked.
// A spec without a seed has seed 0 here, and says so: the run can be repeated.
func (e *Env) simulate(c *ucli.Context) error {
	if c.String("exec") == "" {
		return usage("sweep simulate: name the program that computes the values: --exec CMD")
	}
	if c.Int("parallel") < 1 {
		return usage("sweep simulate: --parallel %d: want at least 1", c.Int("parallel"))
	}
	name, text, err := e.readSpec(c.Args().First())
	if err != nil {
		return err
	}
	spec, err := sweep.Parse(name, text)
	if err != nil {
		return err
	}
	if !spec.SeedSet {
		e.say("the spec has no seed: %d is used", spec.Seed)
	}
	return simulate.Run(c.Context, simulate.Options{Spec: spec, Command: []string{"/bin/sh", "-c", c.String("exec")},
		Parallel: c.Int("parallel"), Out: e.Out, Stderr: e.Err})
}

// searchOf is how a sweep's points are found; one of inference searches nothing.
func searchOf(s trial.Sweep) string {
	if s.Kind == trial.Inference {
		return s.Kind.String()
	}
	return s.SearchMethod
}

// methodOf is the search method with its algorithm.
func methodOf(s *trial.Sweep) string {
	if s.Algorithm == "" {
		return s.SearchMethod
	}
	return s.SearchMethod + " (" + s.Algorithm + ")"
}
