package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"atelier/common/client"
	"atelier/common/mlflow"
	"atelier/common/trial"
	"atelier/tuner/session"
	"atelier/tuner/track"
	"atelier/tuner/train"
	"atelier/tuner/tune"
	"atelier/tuner/tune/report"

	ucli "github.com/urfave/cli/v2"
)

// tuneCommand has the flags of its table, as train does. DIR is an argument and not a value of
// --resume, since it may be left out.
func (e *Env) tuneCommand() *ucli.Command {
	flags := append(settingFlags(tune.Document),
		&ucli.StringFlag{Name: "data", Usage: "`DIR` of images: train/ and validation/ in it, or one folder per class, which is split 70/15/15 into DIR_split"},
		&ucli.BoolFlag{Name: "quick", Usage: "a small tuning to try out: few trials, epochs and images (quick.* in the file)"},
		&ucli.StringFlag{Name: "out", Usage: "`DIR` for the results (default: checkpoints_tuning/<model>/<search_method>)"},
		&ucli.BoolFlag{Name: "resume", Usage: "resume the tuning in DIR (longer: --trials N); without DIR the newest unfinished one"},
		&ucli.BoolFlag{Name: "overwrite", Usage: "start again in a folder with an earlier tuning; its results are kept in replaced/ meanwhile"},
		&ucli.BoolFlag{Name: "local", Usage: "tune on this machine although a cluster is addressed (ATELIER_ADDR)"},
		&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`, where checkpoints lie in one"},
		trainerFlag(),
		&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress; print the folder and nothing else"})
	return verb(&ucli.Command{Name: "tune", Usage: "search for good hyperparameters", ArgsUsage: "[DIR]",
		Description: "Runs a sweep in the cluster that --addr or ATELIER_ADDR names, else on this machine, where it starts\n" +
			"a coordinator and a worker for as long as it takes. Leaves tuning_results.json,\n" +
			"diagnostics_summary.txt, charts and trials/ with the best model of each trial in the results'\n" +
			"folder, whose path goes to standard output. Without any flag, on a terminal, it asks for folder,\n" +
			"model and tracking (with --quick, too). A value is taken from its flag, else from the environment (ATELIER_TUNE_TRIALS=30), else\n" +
			"from the answers, else from the configuration file, else (data folders and training settings) from\n" +
			train.Document.File + ", else it is the default. An interrupt, or a kill, loses nothing that was\n" +
			"trained: --resume continues. In a cluster an interrupt ends the watching; --resume watches again.\n" +
			"--resume DIR --trials N gives a tuning, also one that has ended, N trials in all.",
		Flags: flags, Action: e.tune}, 0, 1,
		"atelier tune", "atelier tune --quick --model vanilla --data run/facades --no-mlflow",
		"atelier tune --config conf/tuning_config.yaml --model resnet18 --mlflow",
		"atelier tune --model vanilla --search-method genetic --trials 60 --set space.lr.high=0.03 --set image_size=96",
		"atelier tune --resume", "atelier tune --resume checkpoints_tuning/vanilla/genetic",
		"atelier tune --resume checkpoints_tuning/vanilla/genetic --trials 90")
}

// tune settles everything before a sweep is made, as train does. A tuning that is resumed goes on
// where it began: in its cluster (perhaps at another address, --addr) or on this machine; with a
// cluster's address a new one begins there.
func (e *Env) tune(c *ucli.Context) error {
	e.goOn()
	conf := tune.New()
	conf.Home = e.home()
	var resumed *tune.Resumption
	var err error
	if c.Bool("resume") {
		resumed, err = e.resumeTuning(c, conf)
	} else if c.NArg() > 0 {
		return usage("tune: %q: give a folder with --resume (continue there) or --out (start there)", c.Args().First())
	} else {
		err = e.tuneConfig(c, conf)
	}
	if err != nil {
		return settingFault(tune.Document, err)
	}
	q := e.questions("tune")
	if resumed == nil && conf.Trains() {
		if err := e.chooseData(c, q, conf, conf.Images, "train", "validation"); err != nil {
			return err
		}
	}
	if c.NumFlags() == 0 && e.Ask {
		if err := q.model(c.Context, conf); err != nil {
			return err
		}
		if err := q.tracking(c.Context, conf, "Track this tuning with MLflow?"); err != nil {
			return err
		}
	}
	if resumed == nil && conf.Trains() {
		if err := e.startWeights(c, conf, tune.KeyWeights); err != nil {
			return err
		}
	}
	addrs := ""
	if resumed != nil {
		// A tuning of this machine stays on it, even where ATELIER_ADDR is set: its sweep is in a
		// cluster of its own folder.
		if addrs = resumed.Addresses; addrs != "" {
			addrs = e.clusterOf(c, addrs)
		}
	} else if c.IsSet("addr") && !c.Bool("local") {
		addrs = c.String("addr")
	}
	var api *client.Client
	if addrs != "" {
		instead := ""
		if resumed == nil {
			instead = withoutCluster(c)
		}
		if api, err = e.connect(c, addrs, retryFor(c, patience), instead); err != nil {
			return err
		}
		defer api.Close()
	}
	var plan *tune.Plan
	if resumed != nil {
		plan = resumed.Plan(conf)
	} else {
		out := c.String("out")
		if out != "" {
			out = e.path(out)
		}
		plan, err = tune.NewPlan(conf, tune.Wishes{Base: e.Dir, Out: out, Quick: c.Bool("quick"), Distant: api != nil && !client.Loopback(api.Addrs())})
		if err != nil {
			return settingFault(tune.Document, err)
		}
	}
	trainer := ""
	// Looked for before a cluster of this machine is started, which would only be taken down again.
	if api == nil && conf.String("trainer") == "torch" {
		if trainer, err = train.FindTrainer(e.folder(c, "trainer-bin")); err != nil {
			return err
		}
	}
	bar := &tuneBar{progress{bar: bar{e: e, quiet: c.Bool("quiet")}}}
	o := tune.Options{Trainer: trainer, API: api, Addresses: addrs, Files: e.files(c, api), Overwrite: c.Bool("overwrite"), Watch: bar}
	store, err := track.Open(conf.Config, plan.Base(), "atelier tune", e.note)
	if err != nil {
		return err
	}
	if store != nil {
		o.Track = e.trackTuning(store, conf.String(track.KeyExperiment), bar)
	}
	r, err := tune.Run(c.Context, plan, o)
	bar.clear()
	return e.tuned(c, bar, plan, r, err)
}

// trackTuning mirrors the sweep beside the tuning, and adds the report's files
// at the end.
func (e *Env) trackTuning(store mlflow.Store, experiment string, bar *tuneBar) func(context.Context, *client.Client, string) func(context.Context, string, []string) {
	return func(ctx context.Context, api *client.Client, id string) func(context.Context, string, []string) {
		t := &tracking{e: e, id: id, store: store, mirror: track.New(store, experiment, id, api), said: map[string]bool{}, done: make(chan struct{})}
		t.start(ctx)
		return func(ctx context.Context, dir string, files []string) {
			// The report's files belong to the sweep's run, which is closed at the end of the last
			// pass.
			for _, f := range files {
				t.attach = append(t.attach, filepath.Join(dir, f))
			}
			bar.Doing("delivering to MLflow")
			err := t.finish(ctx, time.Minute, true)
			bar.clear()
			if err != nil {
				(&warner{e: e, clear: bar.clear}).warn(fmt.Sprintf("MLflow: %s", err))
			} else if !bar.quiet {
				e.tracked(store.Hint())
			}
		}
	}
}

// failed are the trials that failed, each cause once, with the first that
// had it.
func failed(r *tune.Result) (out []string) {
	if r.Report == nil {
		return nil
	}
	said := map[string]bool{}
	for _, t := range r.Report.Trials {
		if t.Status == trial.Failed && !said[t.Failure] {
			said[t.Failure] = true
			out = append(out, fmt.Sprintf("trial %d failed: %s", t.Number, dash(t.Failure)))
		}
	}
	return out
}

// tuned says how a tuning ended. What was trained is never lost, so every end but success names the command that
// goes on. The exit code is the sweep's, where it came to its end.
func (e *Env) tuned(c *ucli.Context, bar *tuneBar, plan *tune.Plan, r *tune.Result, err error) error {
	if r == nil {
		return e.notBegun("tune", err)
	}
	if !bar.quiet {
		w := &warner{e: e, clear: bar.clear}
		for _, text := range r.Warnings {
			w.warn(text)
		}
		for _, text := range failed(r) {
			w.warn(text)
		}
	}
	folder := e.relative(r.Folder)
	again := "atelier tune --resume " + folder
	switch {
	// Nothing was made that could be gone on with.
	case !r.Begun && c.Context.Err() != nil:
		e.say("interrupted before the sweep was made")
		return &exitError{code: client.ExitInterrupted}
	case errors.Is(err, session.ErrGoesOn):
		e.say("the sweep continues as %s; to watch it and write the report: %s", r.Sweep.ID, again)
		return &exitError{code: client.ExitInterrupted}
	case errors.Is(err, session.ErrInterrupted):
		text := "interrupted"
		if r.Report != nil {
			text = fmt.Sprintf("interrupted after %d of %s trials; partial results are in %s", r.Sweep.Counts.Over(), dash(fmt.Sprint(r.Sweep.BudgetTrials)), folder)
		}
		e.say("%s; to resume: %s", text, again)
		return &exitError{code: client.ExitInterrupted}
	case err != nil:
		if r.Begun {
			e.say("nothing that was trained is lost; to resume: %s", again)
		}
		return err
	}
	if !bar.quiet {
		e.prose("%s", summary(e, &r.Sweep))
		for _, o := range r.Written.Omitted {
			if c.Bool("no-plots") {
				break
			}
			e.prose("no %s: %s", o.Name, o.Reason)
		}
		if b := r.Report.Best(); b != nil {
			e.prose("best: %s", bestText(r.Report, b))
		}
		e.prose("summary: %s (with the command that trains it at length)", filepath.Join(folder, report.SummaryFile))
		if b := r.Report.Best(); b != nil && b.Model != "" {
			e.nextCommands(filepath.Join(folder, b.Model), plan.Validation())
		}
	}
	if _, err := fmt.Fprintln(e.Out, folder); err != nil {
		return err
	}
	return verdict(&r.Sweep)
}
