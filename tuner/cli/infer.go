package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	slashed "path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/hint"
	"atelier/tuner/infer"
	"atelier/tuner/session"
	"atelier/tuner/train"

	ucli "github.com/urfave/cli/v2"
)

// inferCommand has the flags of its table, as train does.
func (e *Env) inferCommand() *ucli.Command {
	flags := append(settingFlags(infer.Document),
		&ucli.BoolFlag{Name: "overwrite", Usage: "replace files in the results' folder that no earlier inference wrote"},
		&ucli.BoolFlag{Name: "local", Usage: "work on this machine although a cluster is addressed (ATELIER_ADDR)"},
		&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`, where checkpoints lie in one"},
		trainerFlag(),
		&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress; print the output folder and nothing else"})
	return verb(&ucli.Command{Name: "infer", Usage: "evaluate a model, see where it looks, find what to distrust",
		Description: "evaluate                   figures and charts of a test folder\n" +
			"explain_single             Grad-CAM of one image, and by class\n" +
			"explain_batch              Grad-CAM of every image of a folder\n" +
			"explain_misclassifications Grad-CAM of what evaluate got wrong; evaluates first where that is missing\n" +
			"inference                  predictions of a folder, with what outputs asks for\n" +
			"production                 predictions, quality checks, suspicious ones apart, a report\n\n" +
			"Architecture, classes and normalisation come from the checkpoint. A value is taken from its\n" +
			"flag, else from the environment (ATELIER_INFER_MODE=production), else from the configuration\n" +
			"file. The folder of the results goes to standard output. Results of an earlier inference in it\n" +
			"are replaced, file by file, and listed. A folder given as checkpoint means the best model in it.\n" +
			"Without a model, on a terminal, it offers those of checkpoints/ and checkpoints_tuning/.\n\n" +
			"With --addr or ATELIER_ADDR a worker of that cluster does the work and the results come here;\n" +
			"checkpoint and images are paths that the worker can read. --checkpoint may also be a\n" +
			"checkpoint of the cluster: SWEEP (its best), SWEEP/TRIAL, SWEEP/TRIAL/EPOCH or alias:NAME.",
		Flags: flags, Action: e.infer}, 0, 0,
		"atelier infer --checkpoint checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth --image-dir images/test",
		"atelier infer --mode explain_single --checkpoint best_model.pth --image house.jpg",
		"atelier infer --mode production --config conf/inference.yaml --output-dir results",
		"atelier --addr 10.0.0.5:7600 infer --checkpoint s-k3v9q2ma --image-dir /mnt/images/test")
}

// infer looks at what it would replace before it works: files in the results' folder that no
// inference wrote are left alone without --overwrite, and that has to be known before hours of
// work. The folder goes to standard output, alone.
func (e *Env) infer(c *ucli.Context) error {
	e.goOn()
	conf, err := e.inferConfig(c)
	if err != nil {
		return settingFault(infer.Document, err)
	}
	q := e.questions("infer")
	q.such = "--checkpoint FILE --image-dir DIR --no-mlflow"
	if err := e.inferSubject(c, q, conf); err != nil {
		return err
	}
	if e.Ask && !c.Bool("quiet") {
		if err := q.tracking(c.Context, conf, "Track this run with MLflow?"); err != nil {
			return err
		}
	}
	bar := &inferBar{bar: bar{e: e, quiet: c.Bool("quiet")}}
	w := &warner{e: e, clear: bar.clear}
	o := infer.Options{Dir: e.Dir, Log: io.Discard, Progress: bar.show, Warn: w.warn, Skipped: w.skip, Say: func(text string) { bar.say("%s", text) }}
	carry, model, err := e.inferPlace(c, conf, o)
	if err != nil {
		return err
	}
	// What is there now is told apart from what this run will write: afterwards nobody could.
	there, err := infer.Earlier(conf, e.Dir, model)
	if err != nil && !c.Bool("overwrite") {
		return usage("infer: %s", err)
	}
	// The last thing that can be wrong before the work begins.
	tracking, err := infer.Track(c.Context, conf, e.Dir, w.warn)
	if err != nil {
		return err
	}
	out, err := carry(c.Context)
	bar.clear()
	// However it ended, MLflow hears of it.
	hints := tracking.End(out, err)
	var f *session.Failure
	switch {
	case errors.Is(err, session.ErrInterrupted) && c.Context.Err() != nil:
		e.say("interrupted: the results are incomplete; the same command begins again")
		return &exitError{code: client.ExitInterrupted}
	case errors.As(err, &f):
		// What failed on a worker is the sweep's failure to a script that watches sweeps.
		code := client.ExitError
		switch {
		case f.Remote:
			code = client.ExitSweepFailed
		case e.namesMissing(conf):
			code = client.ExitNotFound
		}
		return &exitError{code, "infer: " + f.Message, f}
	case err != nil:
		return err
	}
	if !c.Bool("quiet") {
		if names := infer.Replaced(there, out); len(names) > 0 {
			e.say("replaced %s", strings.Join(names, ", "))
		}
		e.inferred(out, conf.String("mode"))
		e.inferNext(out, conf, model)
		for _, h := range hints {
			e.say("MLflow: %s", h)
		}
	}
	_, err = fmt.Fprintln(e.Out, e.relative(out.Dir))
	return err
}

// namesMissing reports whether a file or folder to be read is not there.
func (e *Env) namesMissing(conf *setting.Config) bool {
	return slices.ContainsFunc([]string{"model.checkpoint", "paths.image_dir", "paths.image_path"}, func(key string) bool {
		path := conf.String(key)
		if path == "" {
			return false
		}
		_, err := os.Stat(e.path(path))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// mostSkipped is how many images that could not be used are named on the
// screen; the log and the report name all.
const mostSkipped = 10

// warner says warnings, and each piece of advice once.
type warner struct {
	e       *Env
	clear   func() // takes away what stands on the terminal's line
	skipped int
	advised []string
}

// warn says a warning on a line of its own, with what can be done about it.
func (w *warner) warn(text string) {
	w.clear()
	w.e.say("warning: %s", text)
	for _, h := range hint.For(errors.New(text), hint.Unknown, w.e.command) {
		if !slices.Contains(w.advised, h) {
			w.advised = append(w.advised, h)
			w.e.hint(h)
		}
	}
}

// skip warns of an image that is left out.
func (w *warner) skip(text string) {
	switch w.skipped++; {
	case w.skipped <= mostSkipped:
		w.warn(text)
	case w.skipped == mostSkipped+1:
		w.warn("more images are skipped: " + inference.LogFile + " names them all")
	}
}

// inferPlace finds who does the work: a trainer of this machine, or a worker of
// the cluster that was addressed.
func (e *Env) inferPlace(c *ucli.Context, conf *setting.Config, o infer.Options) (carry func(context.Context) (*inference.Summary, error), model *inference.Stored, err error) {
	name := conf.String("model.checkpoint")
	_, missing := os.Stat(e.path(name))
	var stored []string
	alias, aliasMeant := strings.CutPrefix(name, aliasPrefix)
	aliasMeant = aliasMeant && missing != nil
	if missing != nil { // else a file of that name
		stored = storedName.FindStringSubmatch(name)
	}
	if c.Bool("local") || !c.IsSet("addr") {
		if stored != nil || aliasMeant {
			return nil, nil, usage("infer: %s is a checkpoint of a cluster: address it with --addr, or fetch it first: atelier checkpoint pull %s", name, strings.ReplaceAll(name, "/", " "))
		}
		if o.Trainer, err = train.FindTrainer(e.folder(c, "trainer-bin")); err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) (*inference.Summary, error) { return infer.Local(ctx, conf, o) }, nil, nil
	}
	api, err := e.patient(c)
	if err != nil {
		return nil, nil, err
	}
	cl := infer.Cluster{API: api, Files: e.files(c, api)}
	switch {
	case aliasMeant:
		k, err := aliased(c.Context, api, alias)
		if err != nil {
			api.Close()
			return nil, nil, fmt.Errorf("infer: --checkpoint %s: %w", name, err)
		}
		e.say("%s is %s/%d/%d", name, k.Sweep, k.Trial, k.Epoch)
		cl.Model = &inference.Stored{Sweep: k.Sweep, Trial: k.Trial, Epoch: int(k.Epoch), SHA256: k.SHA256}
	case missing != nil:
		if stored, err = e.storedIn(c, api, name); err != nil {
			api.Close()
			return nil, nil, err
		}
	}
	if stored != nil {
		if cl.Model, err = findStored(c.Context, api, stored[1], stored[2], stored[3]); err != nil {
			api.Close()
			return nil, nil, fmt.Errorf("infer: --checkpoint %s: %w", name, err)
		}
	}
	return func(ctx context.Context) (*inference.Summary, error) {
		defer api.Close()
		return infer.Remote(ctx, conf, o, cl)
	}, cl.Model, nil
}

// storedName is a checkpoint of the cluster: SWEEP, SWEEP/TRIAL or
// SWEEP/TRIAL/EPOCH.
var storedName = regexp.MustCompile(`^(s-[a-z0-9]{4,16})(?:/([1-9][0-9]{0,17}))?(?:/([1-9][0-9]{0,8}))?$`)

// storedBy is the same with whatever names a sweep (see sweepID); a word with an
// ending is a file.
var storedBy = regexp.MustCompile(`^([^/.]+)(?:/([1-9][0-9]{0,17}))?(?:/([1-9][0-9]{0,8}))?$`)

// storedIn takes a checkpoint's name apart, with the sweep's id in place of what
// names it; nil where it names none, and may be a path on a worker.
func (e *Env) storedIn(c *ucli.Context, api *client.Client, name string) ([]string, error) {
	parts := storedName.FindStringSubmatch(name)
	if parts == nil {
		parts = storedBy.FindStringSubmatch(name)
	}
	if parts == nil {
		return nil, nil
	}
	id, err := e.trainingID(c, api, parts[1])
	if err != nil {
		if exitCode(err) == client.ExitNotFound && !strings.Contains(name, "@") {
			return nil, nil
		}
		return nil, fmt.Errorf("infer: --checkpoint %s: %w", name, err)
	}
	parts[1] = id
	return parts, nil
}

// findStored looks a checkpoint up as `checkpoint pull` does: the best trial's
// best, unless said otherwise.
func findStored(ctx context.Context, api *client.Client, sweep, trialText, epochText string) (*inference.Stored, error) {
	number, _ := strconv.ParseInt(trialText, 10, 64) // the name's form allows no other texts
	epoch, _ := strconv.Atoi(epochText)
	s, k, err := findCheckpoint(ctx, api, sweep, number, epoch, false)
	if s != nil && s.Kind == trial.Inference {
		return nil, fmt.Errorf("sweep %s was a run of inference: its checkpoints are results, not models", sweep)
	}
	if err != nil {
		return nil, err
	}
	return &inference.Stored{Sweep: sweep, Trial: k.Trial, Epoch: int(k.Epoch)}, nil
}

// inferred says in a few lines what came of it.
func (e *Env) inferred(o *inference.Summary, mode string) {
	if mode == inference.ExplainWrong && o.Images == 0 && o.Skipped == 0 {
		e.say("the evaluation has no mistakes: there is nothing to explain")
	}
	if o.Accuracy != nil {
		e.say("accuracy %.2f %%, macro F1 %.4f on %s", 100**o.Accuracy, *o.MacroF1, counted(o.Evaluated, "image"))
	}
	text := fmt.Sprintf("%s in %s", counted(o.Images, "image"), roundly(time.Duration(o.Seconds*float64(time.Second))))
	if o.Suspicious > 0 {
		text += fmt.Sprintf(", %d suspicious", o.Suspicious)
	}
	if o.Charts > 0 {
		text += ", " + counted(o.Charts, "chart")
	}
	if o.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped (see %s)", o.Skipped, filepath.Join(e.relative(o.Dir), inference.LogFile))
	}
	e.say("%s", text)
	for _, n := range o.Notes {
		e.say("%s", n)
	}
	e.say("wrote %s", strings.Join(append(slices.Clone(o.Files), drawn(o)...), ", "))
}

// drawn names the charts of single images: each of a few, else their folders.
func drawn(o *inference.Summary) (names []string) {
	if o.Charts <= 4 {
		return o.Drawn
	}
	for _, name := range o.Drawn {
		if folder := slashed.Dir(name) + "/"; !slices.Contains(names, folder) {
			names = append(names, folder)
		}
	}
	return names
}

// counted is a number with its noun.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// inferConfig lays the layers of the configuration over one another: defaults, file, environment, flags.
func (e *Env) inferConfig(c *ucli.Context) (*setting.Config, error) {
	conf := infer.New()
	conf.Home = e.home()
	name, text, err := e.readConfig(c, infer.Document)
	if err == nil {
		err = conf.ReadFile(name, text)
	}
	if err != nil {
		return nil, err
	}
	return conf, e.layers(c, infer.Document, conf, nil)
}

// inferBar shows how many images are done.
type inferBar struct {
	bar
	images pace
	what   string // is counted
}

// show draws how far it is, with the pace of what is counted now.
func (b *inferBar) show(what string, done, total int64) {
	if total == 0 || !b.e.Live && done >= total {
		return
	}
	if what != b.what {
		b.what, b.images = what, pace{}
	}
	now := b.e.Now()
	text := fmt.Sprintf("%s %d of %d images", what, done, total)
	if rate, rest := b.images.at(now, done, total); rate > 0 {
		text += fmt.Sprintf(", %.3g a second%s", rate, left(rest))
	}
	if b.e.Live {
		text = cells(float64(done)/float64(total)) + " " + text
	}
	b.draw(now, text)
}
