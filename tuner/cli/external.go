package cli

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/files"
	"atelier/common/setting"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// externalCommands serve programs that train elsewhere: they ask for a trial and
// tell what they measured.
func (e *Env) externalCommands() []*ucli.Command {
	return []*ucli.Command{
		verb(&ucli.Command{Name: "ask", Usage: "take a trial of a sweep with `trainer: external`", ArgsUsage: "SWEEP",
			Description: "Prints the trial as JSON. It is yours until --term is over; every tell renews the lease.\n" +
				"Exit code 3: the sweep has ended; 124: no trial came within --wait.",
			Flags: []ucli.Flag{&ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "json", Usage: "`FORMAT`: table, wide, json, yaml or csv"},
				&ucli.StringFlag{Name: "credential-file", Usage: "write to `FILE` what reports on this trial, and no other, as ATELIER_TOKEN (of a closed cluster)"},
				&ucli.DurationFlag{Name: "term", Value: 10 * time.Minute, Usage: "hand the trial to someone else after `DURATION` without a tell"},
				&ucli.DurationFlag{Name: "wait", Value: time.Minute, Usage: "wait for a trial for `DURATION`"},
				&ucli.StringFlag{Name: "name", Usage: "`NAME` of the program that asks, for lists"}}, Action: e.ask}, 1, 1,
			"atelier trial ask s-k3v9q2ma", "atelier trial ask s-k3v9q2ma --term 2h --wait 5m | jq .params"),
		verb(&ucli.Command{Name: "tell", Usage: "report what was measured of a trial, or that it has ended", ArgsUsage: "SWEEP TRIAL",
			Description: "Without anything to report it renews the lease. The answer's verdict is continue, or\n" +
				"stop or pause: then end soon and tell --stopped or --paused. The same epoch counts once.",
			Flags: []ucli.Flag{outputFlag(),
				&ucli.StringFlag{Name: "value", Usage: "the objective is `NUMBER` (nan and inf are allowed)"},
				&ucli.StringSliceFlag{Name: "metric", Usage: "`NAME=NUMBER` (may be given again)"},
				&ucli.IntFlag{Name: "epoch", Usage: "measured at epoch `N`, from 1 (default: the one after the last)"},
				&ucli.BoolFlag{Name: "done", Usage: "it is trained to its end"},
				&ucli.BoolFlag{Name: "stopped", Usage: "it ended early, after the verdict stop"},
				&ucli.BoolFlag{Name: "paused", Usage: "it paused, after the verdict pause"},
				&ucli.StringFlag{Name: "failed", Usage: "it failed, with `CLASS`: " + strings.Join(failures(), ", ")},
				&ucli.StringFlag{Name: "message", Usage: "why it failed: a `TEXT` for people"},
				&ucli.Uint64Flag{Name: "token", Usage: "the `TOKEN` that ask gave (default: that of the trial's latest run)"},
			}, Action: e.tell}, 1, 2,
			"atelier trial tell s-k3v9q2ma 7 --epoch 1 --value 0.31 --metric val_acc=0.88",
			"atelier trial tell s-k3v9q2ma 7 --value 0.29 --done",
			"atelier trial tell s-k3v9q2ma 7 --failed out_of_memory --message 'batch of 512'"),
	}
}

// failures lists the exit classes that a program may give for a failure.
func failures() (out []string) {
	for _, class := range failureClasses {
		out = append(out, class.String())
	}
	return out
}

// failureClasses are those that a program can know of itself; lost and the like are for the cluster
// to say.
var failureClasses = []trial.Exit{trial.ExitDiverged, trial.ExitOutOfMemory, trial.ExitBadSpec, trial.ExitDataMissing, trial.ExitDeviceFault, trial.ExitDiskFull,
	trial.ExitKilled, trial.ExitCrashed}

// ask prints a trial, or ends with 3 when the sweep is over and 124 when there was none in time: a
// loop of a shell script ends on the first and goes on after the second. One request id serves all
// calls of one command, so a lost answer gives the same trial again and takes no second one.
func (e *Env) ask(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	term, wait := c.Duration("term"), c.Duration("wait")
	if term < time.Second || wait < 0 {
		return usage("trial ask: --term %v, --wait %v: want a term of at least 1s and a wait that is not negative", term, wait)
	}
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	req := client.Ask{RequestID: client.NewRequestID(), Sweep: id, Name: c.String("name"), Term: term}
	credential := access.NewTrialSecret()
	if c.String("credential-file") != "" {
		hash := credential.Hash()
		req.Credential = hash[:]
	}
	began := time.Now()
	for {
		left := max(wait-time.Since(began), 0)
		req.Wait = min(left, 20*time.Second)
		got, status, err := api.AskTrial(c.Context, req)
		switch {
		case err != nil:
			return err
		case got != nil:
			if file := c.String("credential-file"); file != "" {
				if err := files.Write(e.path(file), []byte(credential.ForTrial(id, got.Trial).Text()+"\n"), 0o600); err != nil {
					return fmt.Errorf("trial ask: --credential-file: %w", err)
				}
			}
			return e.print(c, got, func() table {
				return table{head: []string{"TRIAL", "RUN", "TOKEN", "TERM", "PARAMS"}, prose: "PARAMS", rows: [][]string{
					{count(got.Trial), count(int64(got.Run)), strconv.FormatUint(got.Token, 10), roundly(time.Duration(got.TermMS) * time.Millisecond), pairs(got.Params)}}}
			})
		case status.Over():
			return notFound("sweep %s is %s: it has no trial to give", req.Sweep, status)
		case left == 0:
			return &exitError{code: client.ExitTimeout, text: fmt.Sprintf("sweep %s, which is %s, had no trial to give within %v", req.Sweep, status, wait)}
		}
	}
}

type tellRecord struct {
	Sweep   string        `json:"sweep"`
	Trial   int64         `json:"trial"`
	Status  trial.Status  `json:"state"`
	Epoch   int32         `json:"epoch"`
	Outcome trial.Outcome `json:"outcome"` // recorded; already: known before; empty: nothing was said
	Verdict trial.Verdict `json:"verdict"`
	Reason  string        `json:"reason"`
}

// tell reports and ends a trial for a program that trains elsewhere. Token and epoch are looked up
// before anything is sent and stand in the request, so that a repeat after a lost answer is
// recognised and counts once. The answer's verdict is what the program has to obey.
func (e *Env) tell(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	n, err := trialNumber(c)
	if err != nil {
		return err
	}
	metrics, err := metricsOf(c)
	if err != nil {
		return err
	}
	req := client.Tell{Trial: n, Token: c.Uint64("token"), Message: c.String("message")}
	if req.Exit, err = endOf(c); err != nil {
		return err
	}
	if req.Exit == 0 && len(metrics) == 0 && (c.IsSet("epoch") || c.IsSet("message")) {
		return usage("trial tell: --epoch and --message go with --value, --metric or an end")
	}
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	req.Sweep = id
	t, err := api.Trial(c.Context, id, n)
	if err != nil {
		return err
	}
	// For a person who tells by hand. A program says its token, and learns when the trial went to
	// somebody else.
	if run := t.LastRun(); req.Token == 0 && run != nil {
		req.Token = run.Token
	}
	if c.IsSet("value") {
		s, err := api.Sweep(c.Context, id)
		if client.ExitCode(err) == client.ExitRefused {
			return usage("trial tell: --value needs the name of the objective, which the credential of a trial does not show: give --metric NAME=NUMBER")
		}
		if err != nil {
			return err
		}
		name := s.Objective.Metric
		if _, again := metrics[1:].Get(name); again {
			return usage("trial tell: --value is %s, the objective, and --metric gives it again", name)
		}
		metrics[0].Name = name
	}
	if len(metrics) > 0 {
		// Named before it is sent: the same report sent twice counts once.
		req.Report = &trial.Report{Epoch: int32(c.Int("epoch")), Metrics: metrics, TimeMS: e.Now().UnixMilli()}
		if !c.IsSet("epoch") {
			req.Report.Epoch = t.Epoch + 1
		}
	}
	told, err := api.TellTrial(c.Context, req)
	if err != nil {
		return err
	}
	out := tellRecord{id, n, told.Trial.Status, told.Trial.Epoch, told.Outcome, told.Verdict, told.Reason}
	if told.Verdict == trial.VerdictContinue || told.Trial.Status != trial.Running {
		out.Reason = ""
	}
	return e.print(c, out, func() table {
		return table{head: []string{"TRIAL", "STATE", "EPOCH", "OUTCOME", "VERDICT", "REASON"}, prose: "REASON", rows: [][]string{
			{count(out.Trial), out.Status.String(), count(int64(out.Epoch)), dash(out.Outcome.String()), dash(out.Verdict.String()), dash(out.Reason)}}}
	})
}

// metric reads a number of a trial's, which may be none: a training that
// diverged says NaN.
func metric(text string) (float64, error) {
	v, ok, err := setting.Number(text)
	switch x := v.(type) {
	case int64:
		return float64(x), nil
	case uint64:
		return float64(x), nil
	case float64:
		return x, nil
	}
	if f, e := strconv.ParseFloat(text, 64); err == nil && !ok && e == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return f, nil
	}
	return 0, cmp.Or(err, fmt.Errorf("%q is not a number", text))
}

// metricsOf reads --value, first and without a name, and --metric.
func metricsOf(c *ucli.Context) (out trial.Metrics, err error) {
	if c.IsSet("value") {
		v, err := metric(c.String("value"))
		if err != nil {
			return nil, usage("trial tell: --value %q is not a number", c.String("value"))
		}
		out = append(out, trial.Metric{Value: v})
	}
	for _, text := range c.StringSlice("metric") {
		name, number, ok := strings.Cut(text, "=")
		v, err := metric(number)
		if !ok || name == "" || err != nil {
			return nil, usage("trial tell: --metric %q: want NAME=NUMBER", text)
		}
		out = append(out, trial.Metric{Name: name, Value: v})
	}
	if c.IsSet("epoch") && c.Int("epoch") < 1 {
		return nil, usage("trial tell: --epoch %d: epochs count from 1", c.Int("epoch"))
	}
	return out, nil
}

// endOf reads how the run ended; 0 where it goes on.
func endOf(c *ucli.Context) (trial.Exit, error) {
	var classes []trial.Exit
	for flag, class := range map[string]trial.Exit{"done": trial.ExitFinished, "stopped": trial.ExitStopped, "paused": trial.ExitPaused} {
		if c.Bool(flag) {
			classes = append(classes, class)
		}
	}
	if c.IsSet("failed") {
		at := slices.Index(failures(), c.String("failed"))
		if at < 0 {
			return 0, usage("trial tell: --failed %s: want one of %s", c.String("failed"), strings.Join(failures(), ", "))
		}
		classes = append(classes, failureClasses[at])
	}
	switch len(classes) {
	case 0:
		return 0, nil
	case 1:
		return classes[0], nil
	}
	return 0, usage("trial tell: give one of --done, --stopped, --paused and --failed")
}
