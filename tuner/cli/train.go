package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/tuner/session"
	"atelier/tuner/train"

	ucli "github.com/urfave/cli/v2"
)

// trainCommand has a flag for each setting of the table that names one; the others are reached by
// --set. What follows is about this call, and stands in no configuration file.
func (e *Env) trainCommand() *ucli.Command {
	flags := append(settingFlags(train.Document),
		&ucli.StringFlag{Name: "data", Usage: "`DIR` of images: train/ and validation/ in it, perhaps test/, or one folder per class, which is split 70/15/15 into DIR_split"},
		&ucli.StringFlag{Name: "out", Usage: "`DIR` for the results (default: checkpoints/<model>_ep<epochs>_bs<batch>_lr<lr>)"},
		&ucli.StringFlag{Name: "resume", Usage: "resume the training in `[PATH]`, its folder or a checkpoint of it; without PATH the newest unfinished one"},
		&ucli.BoolFlag{Name: "overwrite", Usage: "replace the results of an earlier training in the folder"},
		&ucli.BoolFlag{Name: "local", Usage: "train on this machine although a cluster is addressed (ATELIER_ADDR)"},
		&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`, where checkpoints lie in one"},
		trainerFlag(),
		&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress; print the folder and nothing else"})
	return verb(&ucli.Command{Name: "train", Usage: "train one model",
		Description: "Trains on this machine, or in the cluster that --addr or ATELIER_ADDR names, and leaves\n" +
			"best_model.pth, final_model.pth, training_history.json, training_diagnostics.txt and\n" +
			"image_batches/ in the results' folder, whose path goes to standard output. Without any\n" +
			"flag, on a terminal, it asks for folder, model, start (weights, image size) and tracking.\n" +
			"A value is taken from its flag, else from the environment (ATELIER_TRAIN_EPOCHS=30), else\n" +
			"from the configuration file, else it is the default. An interrupt ends the training with\n" +
			"its last checkpoint (exit code 130); --resume continues from there, bit for bit.\n" +
			"In a cluster an interrupt ends the watching; --resume watches again and fetches.\n" +
			"With --members several trainers train one model: one that dies or hangs is replaced while\n" +
			"the others continue, and the model is the same, byte for byte, for any number of members.",
		Flags: flags, Action: e.train}, 0, 0,
		"atelier train", "atelier train --model resnet18 --data run/facades --epochs 30 --batch-size 32 --lr 0.001",
		"atelier train --model vanilla --data run/facades --set augmentation.cutmix.enabled=true",
		"atelier train --members 2 --data run/facades --model resnet18",
		"atelier train --resume", "atelier train --resume checkpoints/resnet18_ep30_bs32_lr0.001 --epochs 60")
}

// train settles everything before it trains: settings layer by layer, then questions (only where
// nothing was said and a person is there), then the place. The results' folder goes to standard
// output at the end, alone. Exit codes: 130 after an interrupt, with the command that goes on; 1 or
// 6 after a failure, here or in a cluster.
func (e *Env) train(c *ucli.Context) error {
	e.goOn()
	conf, resumed, err := e.trainConfig(c)
	if err != nil {
		return settingFault(train.Document, err)
	}
	q := e.questions("train")
	if resumed == nil {
		if err := e.chooseData(c, q, conf, conf.Get, "train", "validation", "test"); err != nil {
			return err
		}
	}
	if c.NumFlags() == 0 && e.Ask {
		if err := q.model(c.Context, conf); err != nil {
			return err
		}
		if resumed == nil {
			if err := q.start(c, conf); err != nil {
				return err
			}
		}
		if err := q.tracking(c.Context, conf, "Track this training with MLflow?"); err != nil {
			return err
		}
	}
	if resumed == nil {
		if err := e.startWeights(c, conf, train.KeyWeights); err != nil {
			return err
		}
	}
	// Before the plan: whether data folders are looked at here hangs on whose machine trains.
	api, err := e.trainCluster(c, conf, resumed)
	if err != nil {
		return err
	}
	if api != nil {
		defer api.Close()
	}
	base, out := e.Dir, c.String("out")
	if out != "" {
		out = e.path(out)
	}
	// Relative data paths are those of the training that goes on, wherever it is called from.
	if resumed != nil && resumed.Base != "" {
		base = resumed.Base
	}
	plan, err := train.NewPlan(conf, base, out, api != nil && !client.Loopback(api.Addrs()))
	if err != nil {
		return settingFault(train.Document, err)
	}
	if resumed != nil {
		plan.From(resumed)
		if done, err := e.alreadyTrained(c, conf, plan, resumed); done || err != nil {
			return err
		}
	}
	return e.carryOut(c, plan, api)
}

// alreadyTrained reports whether a training that is to be resumed has nothing left
// to train: then nothing is written, and its folder is printed. Settings that
// would need training are refused. A test folder, or a training in a cluster,
// whose results may still have to be fetched, is another matter.
func (e *Env) alreadyTrained(c *ucli.Context, conf *setting.Config, plan *train.Plan, r *train.Resumption) (bool, error) {
	if r.Folder == "" || r.Remote || !r.Finished || r.Epoch < plan.Settings.Epochs || conf.Get("data.test").Origin > setting.Resumed {
		return false, nil
	}
	folder := e.relative(r.Folder)
	for _, v := range conf.All() {
		if v.Origin > setting.Resumed && train.IsTraining(v.Key) && v.Key != "epochs" {
			return false, usage("train: %s: the training in %s has finished (%s): it would not train with that; --epochs N, more than it had, resumes it with the new settings, --out DIR begins another", v.Source(), folder, counted(r.Epoch, "epoch"))
		}
	}
	if !c.Bool("quiet") {
		e.say("the training in %s has finished (%s); for more: --epochs N", folder, counted(r.Epoch, "epoch"))
	}
	_, err := fmt.Fprintln(e.Out, folder)
	return true, err
}

// trainCluster connects to the cluster that was addressed, if one was: nil
// means this machine. A training goes on where it began.
func (e *Env) trainCluster(c *ucli.Context, conf *setting.Config, resumed *train.Resumption) (*client.Client, error) {
	switch {
	case resumed != nil && resumed.Remote:
		sweep := "sweep " + resumed.Sweep
		if resumed.Sweep == "" {
			sweep = "a sweep that was requested"
		}
		if c.Bool("local") {
			return nil, usage("train: this training continues in a cluster, as %s; --local cannot take it over", sweep)
		}
		if resumed.Cluster == "" && !c.IsSet("addr") {
			return nil, usage("train: this training runs in a cluster, as %s, and its folder does not record where: give the cluster's address with --addr HOST:PORT", sweep)
		}
		for _, v := range conf.All() {
			if v.Origin > setting.Resumed && train.IsTraining(v.Key) && v.Key != "data.test" {
				return nil, usage("train: %s: %s trains with the settings it was submitted with; begin another training (--out DIR)", v.Source(), sweep)
			}
		}
		return e.connect(c, e.clusterOf(c, resumed.Cluster), retryFor(c, patience), "")
	// A training of this machine goes on here, whatever ATELIER_ADDR says.
	case resumed != nil || c.Bool("local") || !c.IsSet("addr"):
		return nil, nil
	}
	return e.patient(c)
}

// trainConfig lays the layers of the configuration over one another: defaults, file, environment, flags. With
// --resume the settings of the training that goes on take the file's place, since other ones would be another training.
func (e *Env) trainConfig(c *ucli.Context) (*setting.Config, *train.Resumption, error) {
	conf := train.New()
	conf.Home = e.home()
	var resumed *train.Resumption
	if c.IsSet("resume") {
		for _, f := range []string{"overwrite", "config"} {
			if c.IsSet(f) {
				return nil, nil, usage("train: --resume uses the training's own settings; it does not take --%s", f)
			}
		}
		path, err := e.resumePath(c)
		if err != nil {
			return nil, nil, err
		}
		resumed, err = train.Resume(e.path(path), conf)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, notFound("train: --resume: there is no training in %s%s", path, e.trainedHere())
		}
		if err != nil {
			return nil, nil, err
		}
		if resumed.Folder != "" && c.IsSet("out") && e.path(c.String("out")) != resumed.Folder {
			return nil, nil, usage("train: --resume continues in %s; it does not take --out", resumed.Folder)
		}
	} else {
		name, text, err := e.readConfig(c, train.Document)
		if err == nil {
			err = conf.ReadFile(name, text)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return conf, resumed, e.layers(c, train.Document, conf, func() error {
		// The split writes files: what else can be refused is refused before it.
		if err := train.NeedsWeights(conf, train.KeyFreeze, train.KeyWeights); err != nil {
			return err
		}
		return e.dataFolders(c, conf, "train", "validation", "test")
	})
}

// resumePath is what --resume gives, or the newest training that has not finished
// where it gives nothing, and prints which.
func (e *Env) resumePath(c *ucli.Context) (string, error) {
	if path := c.String("resume"); path != "" {
		return path, nil
	}
	conf := train.New() // the file may put results elsewhere
	conf.Home = e.home()
	name, text, err := e.readConfig(c, train.Document)
	if err == nil {
		err = conf.ReadFile(name, text)
	}
	if err == nil {
		err = conf.ReadEnvironment(train.Document.Prefix, e.Environ)
	}
	if err != nil {
		return "", err
	}
	dir, err := train.Unfinished(e.Dir, conf)
	if errors.Is(err, fs.ErrNotExist) {
		return "", notFound("train: --resume: %s", err)
	}
	if err == nil && !c.Bool("quiet") {
		e.say("resuming %s, the newest unfinished training", e.relative(dir))
	}
	return dir, err
}

// carryOut trains on this machine, or in the cluster behind api. A cluster's workers have their own trainers: only
// one that was named has to be here.
func (e *Env) carryOut(c *ucli.Context, plan *train.Plan, api *client.Client) error {
	given := e.folder(c, "trainer-bin")
	trainer, err := train.FindTrainer(given)
	// A cluster's workers have their own: only one that was named has to be here.
	if err != nil && (api == nil || given != "") {
		return err
	}
	bar := &trainBar{bar: bar{e: e, quiet: c.Bool("quiet")}, cluster: api != nil}
	o := train.Options{Trainer: trainer, Overwrite: c.Bool("overwrite"), Watch: bar, Now: e.Now}
	var r *train.Result
	if api == nil {
		if err := plan.Divide(train.ThisMachine()); err != nil {
			return settingFault(train.Document, err)
		}
		r, err = train.Local(c.Context, plan, o)
	} else {
		r, err = train.Remote(c.Context, plan, o, train.Cluster{API: api, Addresses: c.String("addr"), Files: e.files(c, api)})
	}
	bar.clear()
	if r == nil {
		return e.notBegun("train", err)
	}
	// The command that goes on has to work when it is pasted, so it names the cluster where the
	// environment does not.
	again := "atelier train --resume " + e.relative(r.Folder)
	if r.Sweep != "" && !slices.ContainsFunc(e.Environ, func(kv string) bool { return strings.HasPrefix(kv, "ATELIER_ADDR=") }) {
		again += " --addr " + c.String("addr")
	}
	return e.trained(c.Context, bar, r, again, err)
}

// notBegun is the error of work that did not begin.
func (e *Env) notBegun(verb string, err error) error {
	if exists, ok := errors.AsType[*session.ExistsError](err); ok {
		exists.Dir = e.relative(exists.Dir)
		return fmt.Errorf("%s: %w", verb, exists)
	}
	return err
}

// trained says how a training ended; again is the command that goes on with it.
func (e *Env) trained(ctx context.Context, bar *trainBar, r *train.Result, again string, err error) error {
	for _, w := range r.Warnings() {
		if slices.Contains(r.Plan.Notes, "warning: "+w) {
			continue // said at the start
		}
		bar.say("warning: %s", w)
		e.advise(errors.New(w))
	}
	var f *session.Failure
	if r.GaveBack && ctx.Err() == nil {
		e.say("the new training kept no checkpoint; the one before is in %s as it was", e.relative(r.Folder))
	}
	switch {
	case err == nil:
		if !bar.quiet {
			bar.prose("%s", r.Summary())
			e.next(r)
		}
		_, err := fmt.Fprintln(e.Out, e.relative(r.Folder))
		return err
	case errors.Is(err, session.ErrGoesOn):
		e.say("the training continues as sweep %s; to watch it and fetch its results: %s", r.Sweep, again)
		return &exitError{code: client.ExitInterrupted}
	case r.GaveBack && errors.Is(err, session.ErrInterrupted) && ctx.Err() != nil:
		e.say("interrupted before the first checkpoint; the training that was there before is in %s as it was", e.relative(r.Folder))
		return &exitError{code: client.ExitInterrupted}
	case errors.Is(err, session.ErrInterrupted) && ctx.Err() != nil:
		e.say("%s; to resume: %s", r.Summary(), again)
		return &exitError{code: client.ExitInterrupted}
	case errors.As(err, &f):
		text, class := f.Message, strings.ReplaceAll(f.Class, "_", " ")
		if !strings.HasPrefix(text, class) && !f.Killed {
			text = class + ": " + text
		}
		e.say("atelier train: %s", text)
		for _, h := range f.Hints {
			e.hint(h)
		}
		e.say("%s", r.Summary())
		if f.Remote {
			return &exitError{code: client.ExitSweepFailed}
		}
		return &exitError{code: client.ExitError}
	}
	return err
}

// relative is a path as seen from the working folder, where it lies below.
func (e *Env) relative(path string) string {
	if rel, err := filepath.Rel(e.Dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}

// trainerFlag is where the trainer is, for commands that start one here.
func trainerFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "trainer-bin", EnvVars: []string{"ATELIER_TRAINER_BIN"}, Usage: "`FILE` of atelier-trainer (default: beside this program, then the PATH)"}
}
