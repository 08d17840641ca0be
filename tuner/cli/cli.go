// Package cli is the atelier command: verbs, flags, output and exit codes.
//
// Data goes to standard output in the format asked for, messages go to
// standard error, and nothing is coloured or redrawn unless a terminal is
// there to see it. The package holds no knowledge of its own: it calls the
// API, the spec's parser and the data tools, and prints. Only a bare `atelier
// train` or `atelier tune` on a terminal asks; what destroys wants --yes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/exit"
	"atelier/common/man"
	"atelier/common/setting"
	"atelier/common/stdio"
	"atelier/common/terminal"
	"atelier/common/version"
	"atelier/tuner/hint"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// Env is what a run of the command touches outside itself.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Live     bool             // Err is a terminal: lines may be redrawn
	Screen   bool             // Out is a terminal: tables are as wide as it at most
	Ask      bool             // In is a terminal too: a person may be asked
	Environ  []string         // NAME=value
	Width    func() int       // columns of the terminal
	Now      func() time.Time // for ages and rates
	Dir      string           // working folder, absolute

	line    standing
	origin  hint.Origin // of the cluster's address, once a command connects
	chosen  chosen      // cluster, and by what
	command string      // that runs, by its last word; advice depends on it
}

// Process is the Env of this process.
func Process() *Env {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	live := term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb"
	return &Env{In: os.Stdin, Out: stdio.Output(), Err: stdio.Err(), Dir: dir, Now: time.Now, Environ: os.Environ(),
		Live: live, Screen: term.IsTerminal(int(os.Stdout.Fd())), Ask: term.IsTerminal(int(os.Stderr.Fd())) && term.IsTerminal(int(os.Stdin.Fd())),
		Width: func() int {
			for _, f := range []*os.File{os.Stderr, os.Stdout} {
				if w, _, err := term.GetSize(int(f.Fd())); err == nil && w >= 20 {
					return w
				}
			}
			return 80
		}}
}

// usageError is a command line that makes no sense: exit code 2.
type usageError struct{ text string }

// Error is shown without advice: it says what to type.
func (e *usageError) Error() string { return e.text }

// usage is an error of the command line: nothing was done, and the same line fails again.
func usage(format string, a ...any) error { return &usageError{fmt.Sprintf(format, a...)} }

// exitError carries an exit code of its own; an empty text prints nothing, which is for verbs that have said
// themselves what happened.
type exitError struct {
	code  int
	text  string
	cause error // may be nil
}

func (e *exitError) Error() string { return e.text }

func (e *exitError) Unwrap() error { return e.cause }

// notFound is an error about something that is not there; scripts tell it from others by its exit
// code.
func notFound(format string, a ...any) error {
	return &exitError{code: client.ExitNotFound, text: fmt.Sprintf(format, a...)}
}

// Run carries out one command line, without the program's name, and returns
// the exit code, one of exit.Atelier.
//
// Codes and the split of standard output (data) and standard error (everything else) are what scripts hold on to.
// A limit or an interrupt that cuts a call short makes it fail with whatever error: so they are looked at before the
// error is, and only where that error decides nothing by itself.
func (e *Env) Run(ctx context.Context, args []string) int {
	app := e.app()
	// The library sees nothing that arrange does not understand.
	argv, err := arrange(app, args, e.home())
	var alone *noCommand
	if errors.As(err, &alone) {
		app.Writer = e.sized(e.Err, e.Live)
		if err := app.RunContext(ctx, append(append([]string{app.Name}, alone.path...), "--help")); err != nil {
			e.say("%s", err)
		}
		return client.ExitUsage
	}
	var cut *timeLimit
	e.chosen = chosen{global: globalWords(argv)}
	if err == nil {
		ctx, cut = withLimit(ctx)
		defer cut.stop()
		err = app.RunContext(ctx, append([]string{app.Name}, argv...))
	}
	code := exitCode(err)
	if err != nil && (code == client.ExitError || code == client.ExitInterrupted || code == client.ExitTimeout) && cut != nil {
		if cut.over() {
			text := fmt.Sprintf("time-out: gave up after %s", cut.limit)
			var u *client.UnreachableError
			if errors.As(err, &u) {
				text += ": " + u.Error()
			}
			code, err = client.ExitTimeout, errors.New(text)
		} else if ctx.Err() != nil {
			code, err = client.ExitInterrupted, nil
		}
	}
	if err != nil {
		if text := client.Message(err); text != "" {
			if !strings.HasPrefix(text, app.Name+" ") && !strings.HasPrefix(text, app.Name+":") {
				text = app.Name + ": " + text
			}
			if e.origin == hint.Context {
				text += " (context " + e.chosen.context + ")"
			}
			e.say("%s", text)
			// A usage error has what to type in itself.
			if code == client.ExitError || code == client.ExitNotFound || code == client.ExitSweepFailed || code == client.ExitRefused || code == client.ExitNoLeader {
				e.advise(err)
			}
		}
	}
	return code
}

// advise says what can be done about an error.
func (e *Env) advise(err error) {
	for _, h := range hint.For(err, e.origin, e.command) {
		e.hint(h)
	}
}

// hint prints a line of advice, folded where a terminal shows it; in a file it is one line.
func (e *Env) hint(text string) {
	lines := []string{text}
	if e.Live {
		lines = terminal.Fold(terminal.Text(text), e.Width()-4)
	}
	for i, line := range lines {
		e.say("%s%s", []string{"  - ", "    "}[min(i, 1)], line)
	}
}

// sized is a writer for helps, as wide as its terminal, if it is one.
func (e *Env) sized(w io.Writer, isTerminal bool) io.Writer {
	if isTerminal && e.Width != nil {
		return man.Sized{Writer: w, Columns: e.Width()}
	}
	return w
}

// exitCode is an error's, the command's own first, then what an answer of the API means.
func exitCode(err error) int {
	var u *usageError
	var x *exitError
	switch {
	case errors.As(err, &u):
		return client.ExitUsage
	case errors.As(err, &x):
		return x.code
	}
	code := client.ExitCode(err)
	// A file or a folder that a person named, whatever the command does with it.
	if code == client.ExitError && errors.Is(err, fs.ErrNotExist) {
		return client.ExitNotFound
	}
	return code
}

// timeLimit is --timeout: it is known only once the flags are parsed, so the
// context exists before its limit does.
type timeLimit struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
	ctx    context.Context
}

var errTimeout = errors.New("time-out")

// limitKey finds the limit in the context, in Before, which has nothing else.
type limitKey struct{}

// withLimit makes the context of a run; its limit is set once --timeout is known.
func withLimit(parent context.Context) (context.Context, *timeLimit) {
	l := &timeLimit{}
	l.ctx, l.cancel = context.WithCancelCause(context.WithValue(parent, limitKey{}, l))
	return l.ctx, l
}

// set begins the limit.
func (l *timeLimit) set(d time.Duration) {
	l.limit = d
	l.timer = time.AfterFunc(d, func() { l.cancel(errTimeout) })
}

// over reports whether the limit ended the context, and not an interrupt.
func (l *timeLimit) over() bool { return errors.Is(context.Cause(l.ctx), errTimeout) }

// stop ends the context in any case.
func (l *timeLimit) stop() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.cancel(nil)
}

// app is the whole tree of verbs. It is built anew for each run, since flags keep what they parsed; arrange and the
// completion read it as a table.
func (e *Env) app() *ucli.App {
	app := &ucli.App{
		Name:                      "atelier",
		HelpName:                  "atelier",
		Usage:                     "a distributed training and tuning cluster for image classifiers",
		Version:                   version.Version,
		Reader:                    e.In,
		Writer:                    e.sized(e.Out, e.Screen),
		ErrWriter:                 e.Err,
		HideHelpCommand:           true,
		ExitErrHandler:            func(*ucli.Context, error) {}, // Run decides
		OnUsageError:              onUsageError,
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Before:                    e.before,
		Metadata:                  map[string]any{contextsKey: e.readContexts},
		Commands: []*ucli.Command{
			e.sweepCommands(), e.leaderboardCommand(), e.trialCommands(), e.checkpointCommands(),
			e.workerCommands(), e.clusterCommands(), e.tokenCommands(), e.loginCommand(), e.contextCommands(), e.dataCommands(), e.weightsCommands(), e.trainCommand(), e.tuneCommand(), e.inferCommand(), e.metadataCommands(), e.serveCommand(), e.explainCommand(), e.completionCommand(), e.manCommand(), e.versionCommand(),
		},
	}
	verbatim(app.Commands)
	e.remember(app.Commands)
	app.CustomAppHelpTemplate = ucli.AppHelpTemplate + `
EXIT CODES:
` + exit.Text(exit.Atelier, "   ") + `
EXAMPLES:
   atelier data synth run/facades
   atelier train --model resnet18 --data run/facades --epochs 30
   atelier infer --checkpoint checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth --image-dir run/facades/test
   atelier sweep submit deploy/conf/facades.yaml --follow
`
	return app
}

// remember notes which command runs, once its flags are parsed.
func (e *Env) remember(commands []*ucli.Command) {
	for _, c := range commands {
		if before := c.Before; before != nil {
			c.Before = func(x *ucli.Context) error {
				e.command = x.Command.Name
				return before(x)
			}
		}
		e.remember(c.Subcommands)
	}
}

// globalFlags stand before or behind the verb. Only --addr has an environment variable: where the
// cluster is belongs to the machine, patience to the call.
func globalFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "addr", EnvVars: []string{"ATELIER_ADDR"}, Value: client.DefaultAddr, Usage: "`HOST:PORT[,..]` of one or more coordinators"},
		&ucli.StringFlag{Name: "context", EnvVars: []string{"ATELIER_CONTEXT"}, Usage: "the cluster of this `NAME`; see atelier context (default: the one in use)"},
		&ucli.DurationFlag{Name: "timeout", Usage: "give up after `DURATION` (exit code 124); 0 = never"},
		&ucli.DurationFlag{Name: "retry-for", Value: single, DefaultText: "5s; 1m for commands that train or watch", Usage: "look for a leader for `DURATION` before giving up (exit code 5)"},
	}
}

// before begins --timeout and chooses the cluster, once flags are parsed.
func (e *Env) before(c *ucli.Context) error {
	if d := c.Duration("timeout"); d < 0 {
		return usage("--timeout %s: want a positive duration such as 10m", d)
	} else if l, ok := c.Context.Value(limitKey{}).(*timeLimit); ok && d > 0 {
		l.set(d)
	}
	return e.chooseCluster(c)
}

// onUsageError gives the library's complaints the exit code of ours.
func onUsageError(_ *ucli.Context, err error, _ bool) error { return usage("%s", err) }

// client connects for single calls. Nothing is asked yet.
func (e *Env) client(c *ucli.Context) (*client.Client, error) {
	return e.connect(c, c.String("addr"), retryFor(c, single), withoutCluster(c))
}

// reader connects for a reading verb, once its -o is known to be good: a misspelt format must not cost a call first.
func (e *Env) reader(c *ucli.Context) (*client.Client, error) {
	if err := checkFormat(c); err != nil {
		return nil, err
	}
	return e.client(c)
}

// lister connects for a listing, which outlasts a change of leaders where it is watched.
func (e *Env) lister(c *ucli.Context) (*client.Client, error) {
	if err := checkList(c); err != nil {
		return nil, err
	}
	if c.Bool("watch") {
		return e.patient(c)
	}
	return e.client(c)
}

// patient connects for training and watching, which outlast a change of leaders.
func (e *Env) patient(c *ucli.Context) (*client.Client, error) {
	return e.connect(c, c.String("addr"), retryFor(c, patience), withoutCluster(c))
}

// warn says warnings, one a line.
func (e *Env) warn(notes []string) {
	for _, n := range notes {
		e.say("warning: %s", n)
	}
}

// home is the person's home folder; "" where nobody says it.
func (e *Env) home() string { return e.environ("HOME") }

// path makes a path of the command line absolute, from Env's working folder and not the process's: tests have several.
func (e *Env) path(p string) string {
	if in, err := setting.Expand(p, e.home()); err == nil {
		p = in
	}
	return setting.Absolute(e.Dir, p)
}

// goOn is for verbs with work to do: it does not end when nobody reads what they
// print any more.
func (e *Env) goOn() {
	if o, ok := e.Out.(*stdio.Out); ok {
		o.GoOn()
	}
}

// folder is a flag's path that may come from the environment, where no shell
// has read ~/; unlike path it leaves a relative one as it is.
func (e *Env) folder(c *ucli.Context, flag string) string {
	p, err := setting.Expand(c.String(flag), e.home())
	if err != nil {
		return c.String(flag)
	}
	return p
}

// say writes a message. Whoever wrote the names in it, the terminal shows them.
func (e *Env) say(format string, a ...any) {
	e.unshow()
	io.WriteString(e.Err, terminal.Text(fmt.Sprintf(format, a...))+"\n")
}

// prose writes a message of whole words: on a terminal folded at blanks to its width.
func (e *Env) prose(format string, a ...any) {
	columns := 0
	if e.Live {
		columns = e.Width()
	}
	e.say("%s", terminal.Fit(fmt.Sprintf(format, a...), columns))
}

// redraw writes a line over the one the cursor stands in.
func (e *Env) redraw(text string) {
	e.unshow()
	io.WriteString(e.Err, "\r\x1b[K"+terminal.Line(text))
}
