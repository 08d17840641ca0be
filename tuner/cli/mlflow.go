package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/mlflow"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/track"

	ucli "github.com/urfave/cli/v2"
)

// trackEvery is how often a sweep that is followed is mirrored.
const trackEvery = 2 * time.Second

// trackFlags say where MLflow is.
func trackFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "mlflow-uri", Usage: "`URI` of MLflow: a server's address or a folder (default: MLFLOW_TRACKING_URI, then ./mlruns)"},
		&ucli.StringFlag{Name: "mlflow-experiment", Value: track.TuningExperiment, Usage: "`NAME` of the experiment"},
	}
}

// exportCommand may be repeated at any time: MLflow gets what it lacks, and nothing twice.
func (e *Env) exportCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "export-mlflow", Usage: "show a sweep in MLflow", ArgsUsage: "SWEEP",
		Description: "The sweep becomes a run, its trials nested runs: parameters, metrics by epoch, tags. Doing it\n" +
			"again adds what is new and nothing twice, so a running sweep can be exported at any time.\n" +
			"A server's password is taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or\n" +
			"MLFLOW_TRACKING_TOKEN; from a file of mode 0600 with MLFLOW_TRACKING_PASSWORD_FILE or\n" +
			"MLFLOW_TRACKING_TOKEN_FILE. What a server could not take is kept on disk and sent at the next export.",
		Flags: append([]ucli.Flag{
			&ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "stay and mirror the sweep until it has ended"},
			&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress; faults only"},
		}, trackFlags()...), Action: e.exportMLflow}, 1, 1,
		"atelier sweep export-mlflow s-k3v9q2ma",
		"MLFLOW_TRACKING_TOKEN_FILE=token atelier sweep export-mlflow s-k3v9q2ma --mlflow-uri https://mlflow.example.org",
		"atelier sweep export-mlflow s-k3v9q2ma --follow --mlflow-experiment facades")
}

// tracking mirrors one sweep beside whatever else the command does. MLflow being away is never the sweep's fault: it is
// said, and the exit code stays the sweep's.
type tracking struct {
	e      *Env
	id     string
	store  mlflow.Store
	mirror *track.Mirror
	said   map[string]bool
	stop   context.CancelFunc
	done   chan struct{}
	whole  bool     // the last pass saw the end of the sweep
	attach []string // files for the run of the sweep, once that has ended
}

// openTracking opens the store that the flags name.
func (e *Env) openTracking(c *ucli.Context) (mlflow.Store, error) {
	on := true
	d, err := mlflow.Choice{Flag: &on, FlagURI: c.String("mlflow-uri"), Getenv: e.environ}.Decide()
	if err != nil {
		return nil, usage("%s", err)
	}
	if d.URI, err = setting.Expand(d.URI, e.home()); err != nil {
		return nil, usage("MLflow: %s", err)
	}
	uri, password := mlflow.SplitPassword(d.URI)
	if password.Set() && c.String("mlflow-uri") != "" {
		e.say("%s", mlflow.PasswordShown)
	}
	return mlflow.Open(uri, mlflow.Options{Dir: e.Dir, Source: c.Command.HelpName, Notify: e.note, Password: password})
}

// environ is a variable of the environment.
func (e *Env) environ(name string) string {
	for _, kv := range e.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// note says something while a bar may stand on the terminal's line.
func (e *Env) note(text string) {
	if e.Live {
		e.redraw("")
	}
	e.say("%s", text)
}

// track prepares the mirror of a sweep; start or finish set it to work.
func (e *Env) track(c *ucli.Context, store mlflow.Store, api *client.Client, id string) *tracking {
	return &tracking{e: e, id: id, store: store, mirror: track.New(store, c.String("mlflow-experiment"), id, api), said: map[string]bool{}, done: make(chan struct{})}
}

// pass mirrors once; what goes wrong is said once, and is no fault of the sweep.
func (t *tracking) pass(ctx context.Context) error {
	s, err := t.mirror.Sync(ctx)
	if err == nil {
		t.whole = s.Status.Over()
		return nil
	}
	if text := client.Message(err); ctx.Err() == nil && !t.said[text] {
		t.said[text] = true
		t.e.note(text)
	}
	return err
}

// start mirrors in the background until finish.
func (t *tracking) start(ctx context.Context) {
	ctx, t.stop = context.WithCancel(ctx)
	go func() {
		defer close(t.done)
		for ctx.Err() == nil {
			t.pass(ctx)
			select {
			case <-time.After(trackEvery):
			case <-ctx.Done():
			}
		}
	}()
}

// finish makes a last pass and delivers what waits, within limit, also after an interrupt: what is known should be
// there when the person looks. The error says how to make up for it later, which is always possible, since a mirror
// adds what is missing.
func (t *tracking) finish(ctx context.Context, limit time.Duration, quiet bool) error {
	// Two passes at once would say the same thing twice.
	if t.stop != nil {
		t.stop()
		<-t.done
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	err := t.pass(ctx)
	// The cluster may be electing: a few seconds are worth a mirror that is complete.
	for try := 1; err != nil && try < 5 && ctx.Err() == nil; try++ {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		err = t.pass(ctx)
	}
	if err == nil && t.whole && len(t.attach) > 0 {
		err = t.mirror.Attach(ctx, t.attach)
	}
	if e := t.mirror.Close(ctx); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s; when that is mended: atelier sweep export-mlflow %s", client.Message(err), t.id)
	}
	if !quiet {
		for _, line := range t.store.Hint() {
			t.e.say("MLflow: %s", line)
		}
	}
	return nil
}

// exportMLflow mirrors a sweep once, or with --follow until it ends. The sweep is looked up first,
// so that a wrong id leaves no empty run in MLflow.
func (e *Env) exportMLflow(c *ucli.Context) error {
	store, err := e.openTracking(c)
	if err != nil {
		return err
	}
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	quiet := c.Bool("quiet")
	id, err := e.trainingArg(c, api)
	if err == nil {
		var s *trial.Sweep
		if s, err = api.Sweep(c.Context, id); err == nil {
			err = track.Mirrors(s)
		}
	}
	if err != nil {
		store.Close(c.Context)
		return err
	}
	t := e.track(c, store, api, id)
	if !c.Bool("follow") {
		return t.finish(c.Context, 10*time.Minute, quiet)
	}
	t.start(c.Context)
	_, err = e.follow(c.Context, api, id, quiet)
	if e := t.finish(c.Context, time.Minute, quiet); err == nil {
		err = e
	}
	return err
}
