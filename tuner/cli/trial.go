package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/nearest"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
	ucli "github.com/urfave/cli/v2"
)

func (e *Env) trialCommands() *ucli.Command {
	g := group("trial", "look at the trials of a sweep",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list a sweep's trials by number", ArgsUsage: "SWEEP",
			Flags: []ucli.Flag{outputFlag(),
				&ucli.StringSliceFlag{Name: "state", Usage: "only trials in `STATE` (may be given again): " + strings.Join(trial.StatusWords(), ", ")},
				&ucli.IntFlag{Name: "limit", Usage: "at most `N`; 0 = all"},
				&ucli.Int64Flag{Name: "after", Usage: "only trials numbered above `N`"},
			}, Action: e.listTrials}, 1, 1,
			"atelier trial list s-k3v9q2ma", "atelier trial list s-k3v9q2ma --state failed -o json | jq '.[].failure'"),
		verb(&ucli.Command{Name: "show", Usage: "show one trial with its runs and checkpoints", ArgsUsage: "SWEEP TRIAL",
			Flags: []ucli.Flag{outputFlag()}, Action: e.showTrial}, 2, 2,
			"atelier trial show s-k3v9q2ma 7"),
		verb(&ucli.Command{Name: "curve", Usage: "a trial's metrics, epoch by epoch", ArgsUsage: "SWEEP TRIAL",
			Flags: []ucli.Flag{outputFlag()}, Action: e.curve}, 2, 2,
			"atelier trial curve s-k3v9q2ma 7", "atelier trial curve s-k3v9q2ma 7 -o csv > curve.csv"),
		verb(&ucli.Command{Name: "logs", Usage: "print what a trial's trainer wrote for people", ArgsUsage: "SWEEP TRIAL",
			Description: "The log is fetched from the worker that carried out the run, which must be up.",
			Flags:       []ucli.Flag{&ucli.IntFlag{Name: "run", Usage: "of run `N`; 0 = the latest"}}, Action: e.logs}, 2, 2,
			"atelier trial logs s-k3v9q2ma 7", "atelier trial logs s-k3v9q2ma 7 --run 1 | tail"),
		verb(&ucli.Command{Name: "stop", Usage: "end a trial early and keep its value", ArgsUsage: "SWEEP TRIAL", Action: e.stopTrial}, 2, 2,
			"atelier trial stop s-k3v9q2ma 7"),
		verb(&ucli.Command{Name: "retry", Usage: "give a failed trial one more run", ArgsUsage: "SWEEP TRIAL", Action: e.retryTrial}, 2, 2,
			"atelier trial retry s-k3v9q2ma 7"),
	)
	g.Subcommands = append(g.Subcommands, e.externalCommands()...)
	return g
}

func trialStatus(s string) (atelierv1.TrialStatus, error) {
	status, err := trial.ParseStatus(s)
	if err == nil {
		return wire.ToStatus(status), nil
	}
	text := fmt.Sprintf("--state %s: want one of %s", s, strings.Join(trial.StatusWords(), ", "))
	if n, ok := nearest.Close(s, trial.StatusWords()); ok {
		text += fmt.Sprintf("; did you mean %q?", n)
	}
	return 0, usage("%s", text)
}

// trialArg reads the two arguments SWEEP TRIAL.
func trialArg(c *ucli.Context) (string, int64, error) {
	n, err := setting.Whole(c.Args().Get(1))
	if err != nil || n < 1 {
		return "", 0, usage("%s: trial %q: want a number from 1", c.Command.HelpName, c.Args().Get(1))
	}
	return c.Args().First(), n, nil
}

// trialPage is how many trials one request asks for.
const trialPage = 1000

func (e *Env) listTrials(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	req := &atelierv1.ListTrialsRequest{SweepId: c.Args().First(), After: c.Int64("after")}
	for _, s := range c.StringSlice("state") {
		st, err := trialStatus(s)
		if err != nil {
			return err
		}
		req.Status = append(req.Status, st)
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	limit := c.Int("limit")
	records := []trialRecord{}
	for {
		req.Limit = trialPage
		if limit > 0 {
			req.Limit = int32(min(trialPage, limit-len(records)))
		}
		r, err := api.Trials.ListTrials(c.Context, connect.NewRequest(req))
		if err != nil {
			return err
		}
		got := r.Msg.GetTrials()
		for _, t := range got {
			records = append(records, trialOf(t))
		}
		// A page that is not full is the last one.
		if len(got) < int(req.Limit) || limit > 0 && len(records) >= limit {
			break
		}
		req.After = got[len(got)-1].GetNumber()
	}
	var other []int64
	for _, x := range records {
		if x.OtherData {
			other = append(other, x.Trial)
		}
	}
	if text := trial.OtherDataText(other); text != "" {
		e.say("warning: %s", text)
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"TRIAL", "STATE", "VALUE", "EPOCH", "RUNS", "WORKER", "TOOK", "PARAMS"}}
		for _, x := range records {
			worker := "-"
			if n := len(x.Runs); n > 0 {
				worker = x.Runs[n-1].Worker
			}
			t.rows = append(t.rows, []string{count(x.Trial), x.State, shortValue(x.Value), count(int64(x.Epoch)), strconv.Itoa(len(x.Runs)), worker,
				e.span(x.StartedMS, x.EndedMS), pairs(x.Params)})
		}
		why := func(x trialRecord) string {
			text := cmp.Or(x.Failure, x.Note, x.StopReason)
			if x.OtherData {
				text = strings.TrimPrefix(text+"; other data", "; ")
			}
			return text
		}
		if slices.ContainsFunc(records, func(x trialRecord) bool { return why(x) != "" }) {
			t.head = append(t.head, "WHY")
			for i, x := range records {
				t.rows[i] = append(t.rows[i], why(x))
			}
		}
		return t
	})
}

func (e *Env) getTrial(c *ucli.Context, api *client.Client) (*atelierv1.Trial, error) {
	sweep, n, err := trialArg(c)
	if err != nil {
		return nil, err
	}
	r, err := api.Trials.GetTrial(c.Context, connect.NewRequest(&atelierv1.GetTrialRequest{SweepId: sweep, Trial: n}))
	if err != nil {
		return nil, err
	}
	return r.Msg.GetTrial(), nil
}

func (e *Env) showTrial(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	t, err := e.getTrial(c, api)
	if err != nil {
		return err
	}
	r := trialOf(t)
	return e.print(c, r, func() table {
		out := table{head: []string{"", ""}}
		add := func(k, v string) { out.rows = append(out.rows, []string{k, v}) }
		add("trial", fmt.Sprintf("%d of sweep %s", r.Trial, r.Sweep))
		add("state", r.State)
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
		if r.Source != "" {
			add("proposed", fmt.Sprintf("by %s, knowing %d results", map[string]string{"search": "search", "enqueued": "a person", "population": "its population"}[r.Source], r.Seen))
		}
		if r.OriginTrial != 0 {
			add("began from", fmt.Sprintf("trial %d, epoch %d", r.OriginTrial, r.OriginEpoch))
		}
		if r.Pauses > 0 {
			add("paused", fmt.Sprintf("%d times", r.Pauses))
		}
		add("took", e.span(r.StartedMS, r.EndedMS))
		for _, x := range r.Runs {
			text := fmt.Sprintf("%s %s, %s", x.Worker, x.Slot, e.span(x.StartedMS, x.EndedMS))
			if x.Exit != "" {
				text += ", " + x.Exit
			}
			if x.ResumedEpoch > 0 {
				text += fmt.Sprintf(", went on from epoch %d", x.ResumedEpoch)
			}
			if x.Message != "" {
				text += ": " + x.Message
			}
			add(fmt.Sprintf("run %d", x.Number), text)
		}
		for _, x := range r.Checkpoints {
			add("checkpoint", fmt.Sprintf("epoch %d, %s, %s", x.Epoch, bytesOf(x.Size), x.Location))
		}
		return out
	})
}

// metrics keeps the order in which they were reported.
type metrics []*atelierv1.Metric

func (m metrics) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, x := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(x.GetName())
		if err != nil {
			return nil, err
		}
		v, err := num(x.GetValue()).MarshalJSON()
		if err != nil {
			return nil, err
		}
		b.Write(append(append(k, ':'), v...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

type reportRecord struct {
	Epoch   int32   `json:"epoch"`
	TimeMS  int64   `json:"time_ms"`
	Metrics metrics `json:"metrics"`
}

func (e *Env) curve(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	sweep, n, err := trialArg(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Trials.GetCurve(c.Context, connect.NewRequest(&atelierv1.GetCurveRequest{SweepId: sweep, Trial: n}))
	if err != nil {
		return err
	}
	records := []reportRecord{}
	var columns []string
	for _, x := range r.Msg.GetReports() {
		records = append(records, reportRecord{x.GetEpoch(), x.GetTimeMs(), x.GetMetrics()})
		for _, m := range x.GetMetrics() {
			if !slices.Contains(columns, m.GetName()) {
				columns = append(columns, m.GetName())
			}
		}
	}
	return e.print(c, records, func() table {
		t := table{head: append([]string{"EPOCH"}, columns...)}
		for _, x := range records {
			row := make([]string, len(t.head))
			row[0] = count(int64(x.Epoch))
			for _, m := range x.Metrics {
				row[1+slices.Index(columns, m.GetName())] = short(m.GetValue())
			}
			t.rows = append(t.rows, row)
		}
		return t
	})
}

// logs finds the worker of a run and fetches the run's log from it.
func (e *Env) logs(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	t, err := e.getTrial(c, api)
	if err != nil {
		return err
	}
	runs := t.GetRuns()
	if len(runs) == 0 {
		return notFound("trial %d of sweep %s has not run yet", t.GetNumber(), c.Args().First())
	}
	run := runs[len(runs)-1]
	if n := c.Int("run"); n != 0 {
		i := slices.IndexFunc(runs, func(r *atelierv1.Run) bool { return int(r.GetNumber()) == n })
		if i < 0 {
			return notFound("trial %d of sweep %s has no run %d; it has %d", t.GetNumber(), c.Args().First(), n, len(runs))
		}
		run = runs[i]
	}
	w, err := e.findWorker(c, api, run.GetWorker())
	if err != nil {
		return err
	}
	body, err := client.Files{}.Open(c.Context, trial.Location(fmt.Sprintf("http://%s/logs/%s/%d/run-%d.log", w.GetAddress(), c.Args().First(), t.GetNumber(), run.GetNumber())))
	if exitCode(err) == client.ExitNotFound {
		return notFound("worker %s holds no log of run %d: the trainer wrote nothing, or the log has been dropped since", w.GetName(), run.GetNumber())
	}
	if err != nil {
		return fmt.Errorf("log of run %d on worker %s: %w", run.GetNumber(), w.GetName(), err)
	}
	defer body.Close()
	_, err = io.Copy(e.Out, body)
	return err
}

func (e *Env) findWorker(c *ucli.Context, api *client.Client, name string) (*atelierv1.Worker, error) {
	r, err := api.Workers.ListWorkers(c.Context, connect.NewRequest(&atelierv1.ListWorkersRequest{}))
	if err != nil {
		return nil, err
	}
	for _, w := range r.Msg.GetWorkers() {
		if w.GetName() == name {
			return w, nil
		}
	}
	return nil, notFound("worker %s is not in the cluster now", name)
}

func (e *Env) stopTrial(c *ucli.Context) error {
	sweep, n, err := trialArg(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Trials.StopTrial(c.Context, connect.NewRequest(&atelierv1.StopTrialRequest{RequestId: client.NewRequestID(), SweepId: sweep, Trial: n}))
	if err != nil {
		return err
	}
	if t := r.Msg.GetTrial(); wire.Status(t.GetStatus()) == trial.Running {
		e.say("trial %d of sweep %s is told to stop", n, sweep)
	} else {
		e.say("trial %d of sweep %s is %s", n, sweep, wire.Status(t.GetStatus()))
	}
	return nil
}

func (e *Env) retryTrial(c *ucli.Context) error {
	sweep, n, err := trialArg(c)
	if err != nil {
		return err
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Trials.RetryTrial(c.Context, connect.NewRequest(&atelierv1.RetryTrialRequest{RequestId: client.NewRequestID(), SweepId: sweep, Trial: n}))
	if err != nil {
		return err
	}
	e.say("trial %d of sweep %s is %s", n, sweep, wire.Status(r.Msg.GetTrial().GetStatus()))
	return nil
}
