package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// logsCommand prints what trainers wrote for people.
func (e *Env) logsCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "logs", Usage: "print a trial's log", ArgsUsage: "SWEEP TRIAL",
		Description: "The log comes from the worker that carried out the run. Where that worker is gone, the coordinators\n" +
			"have the last 64 KiB that it sent: during the run, and at its end.\n" +
			"--follow prints what is added, run after run, until the trial has ended.",
		Flags: []ucli.Flag{&ucli.IntFlag{Name: "run", Usage: "of run `N`; 0 = the latest"},
			&ucli.BoolFlag{Name: "all-runs", Usage: "of all runs, one after the other"},
			&ucli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "print what is added, until the trial ends"},
			&ucli.IntFlag{Name: "tail", Value: -1, DefaultText: "all", Usage: "only the last `N` lines of a run"},
			&ucli.DurationFlag{Name: "since", Usage: "only what was written within the last `DURATION`, such as 10m"},
		}, Action: e.logs}, 2, 2,
		"atelier trial logs s-k3v9q2ma 7", "atelier trial logs s-k3v9q2ma 7 --follow --tail 20", "atelier trial logs s-k3v9q2ma 7 --run 1 --since 10m")
}

const (
	logPoll = 500 * time.Millisecond
	// A worker that the cluster has lost may answer all the same; it is not waited for.
	lostPatience = 2 * time.Second
)

// logReader prints the logs of one trial.
type logReader struct {
	e      *Env
	c      *ucli.Context
	api    *client.Client
	t      *trial.Trial
	tail   int // lines; below 0 = all
	since  time.Duration
	follow bool
}

// logs prints the log of a run, of all runs, or of those that come. What was
// written goes to standard output as it is, and what is about it to standard error.
func (e *Env) logs(c *ucli.Context) error {
	if c.Int("tail") < -1 || c.Duration("since") < 0 || c.Int("run") < 0 {
		return usage("trial logs: --tail, --since and --run: want 0 or more")
	}
	if c.Bool("all-runs") && c.Int("run") > 0 {
		return usage("trial logs: give --run N or --all-runs, not both")
	}
	r := &logReader{e: e, c: c, tail: c.Int("tail"), since: c.Duration("since"), follow: c.Bool("follow")}
	connect := e.client
	if r.follow {
		connect = e.patient
	}
	var err error
	if r.api, err = connect(c); err != nil {
		return err
	}
	defer r.api.Close()
	if r.t, err = e.getTrial(c, r.api); err != nil {
		return err
	}
	first := int32(1)
	switch n := c.Int("run"); {
	case n > len(r.t.Runs):
		return notFound("trial %d of sweep %s has no run %d; it has %d", r.t.Number, r.t.Sweep, n, len(r.t.Runs))
	case n > 0:
		return r.run(int32(n))
	case len(r.t.Runs) == 0 && !r.follow:
		return notFound("trial %d of sweep %s has not run yet", r.t.Number, r.t.Sweep)
	case !c.Bool("all-runs"):
		first = int32(max(1, len(r.t.Runs)))
	}
	return r.from(first)
}

// from prints the logs of the runs from a number on: those that there are, and with
// --follow those that come.
func (r *logReader) from(n int32) error {
	many := r.c.Bool("all-runs") || r.follow
	var missing error
	for ; ; n++ {
		for int(n) > len(r.t.Runs) {
			if !r.follow || r.t.Status.Over() {
				return missing
			}
			if err := r.wait(); err != nil {
				return err
			}
		}
		if run := r.t.Runs[n-1]; many && len(r.t.Runs) > 1 {
			r.e.say("run %d on worker %s:", n, run.Worker)
		}
		missing = r.run(n)
		if exitCode(missing) == client.ExitNotFound && many {
			r.e.say("%s", missing)
			if int(n) < len(r.t.Runs) {
				missing = nil
			}
		} else if missing != nil {
			return missing
		}
		r.tail, r.since = -1, 0 // of the first alone: what comes later is new
		if r.c.Bool("all-runs") && !r.follow {
			r.tail, r.since = r.c.Int("tail"), r.c.Duration("since")
		}
	}
}

// wait lets some time pass and reads the trial anew.
func (r *logReader) wait() error {
	select {
	case <-r.c.Context.Done():
		return r.c.Context.Err()
	case <-time.After(logPoll):
	}
	t, err := r.api.Trial(r.c.Context, r.t.Sweep, r.t.Number)
	if err == nil {
		r.t = t
	}
	return err
}

// run prints the log of a run to its end: with --follow the end of the run, else
// what is there.
func (r *logReader) run(n int32) error {
	at := int64(-1) // where to go on; -1 = nothing is printed yet
	for {
		run := r.t.Runs[n-1]
		over := run.EndedMS != 0 || !r.follow
		w, err := findWorker(r.c, r.api, run.Worker)
		if err != nil && exitCode(err) != client.ExitNotFound {
			return err
		}
		if err == nil {
			at, err = r.added(w, run.Number, at)
		}
		switch {
		case err == nil:
		case r.c.Context.Err() != nil:
			return r.c.Context.Err()
		case over && at < 0:
			return r.kept(w, &run, err)
		case over:
			r.e.say("the rest of the log of run %d is not there: %s", run.Number, r.absent(w, run.Worker, err))
		}
		if over {
			return nil
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

// logAt is where a worker has the log of a run.
func (r *logReader) logAt(w *trial.Worker, run int32) trial.Location {
	return r.api.WorkerURL(w.Address, fmt.Sprintf("/logs/%s/%d/run-%d.log", r.t.Sweep, r.t.Number, run))
}

// added prints what a log has beyond at, and returns where it ends now.
func (r *logReader) added(w *trial.Worker, run int32, at int64) (int64, error) {
	ctx := r.c.Context
	if w.State == "lost" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lostPatience)
		defer cancel()
	}
	if at >= 0 || r.tail < 0 && r.since == 0 {
		from := max(at, 0)
		body, err := r.api.Files("").OpenFrom(ctx, r.logAt(w, run), from)
		var beyond *client.RangeError
		if errors.As(err, &beyond) {
			if beyond.Size < from { // a new file was begun, the old one was full
				return 0, nil
			}
			return from, nil
		}
		if err != nil {
			return at, err
		}
		defer body.Close()
		n, err := io.Copy(r.e.Out, body)
		return from + n, err
	}
	text, err := r.readLog(ctx, r.logAt(w, run))
	if err != nil {
		return at, err
	}
	begin := 0
	if r.since > 0 {
		times, err := r.readLog(ctx, r.logAt(w, run)+".times")
		if err != nil {
			r.e.say("when its lines were written is not recorded in this log: all of it is printed")
		} else {
			begin = writtenSince(times, r.e.Now().Add(-r.since), len(text))
		}
	}
	_, err = r.e.Out.Write(lastLines(text[begin:], r.tail))
	return int64(len(text)), err
}

// readLog reads a file of a worker.
func (r *logReader) readLog(ctx context.Context, at trial.Location) ([]byte, error) {
	body, err := r.api.Files("").Open(ctx, at)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// writtenSince is where in a log of so many bytes the part begins that was written
// after a time: times has lines OFFSET MILLISECONDS, one a second at most, so that
// what follows a line was written within a second of it.
func writtenSince(times []byte, since time.Time, size int) int {
	for line := range strings.Lines(string(times)) {
		offset, ms, _ := strings.Cut(strings.TrimSpace(line), " ")
		at, err := strconv.Atoi(offset)
		when, err2 := strconv.ParseInt(ms, 10, 64)
		if err == nil && err2 == nil && at <= size && time.UnixMilli(when).Add(time.Second).After(since) {
			return at
		}
	}
	return size
}

// lastLines are the last n lines of a text; all of it where n is below 0.
func lastLines(text []byte, n int) []byte {
	if n < 0 {
		return text
	}
	at := len(text)
	for ; n > 0 && at > 0; n-- {
		at = bytes.LastIndexByte(text[:at-1], '\n') + 1
	}
	return text[at:]
}

// absent says why a worker does not give a log.
func (r *logReader) absent(w *trial.Worker, name string, err error) string {
	switch {
	case w == nil:
		return fmt.Sprintf("worker %s is not in the cluster now", name)
	case exitCode(err) == client.ExitNotFound:
		return fmt.Sprintf("worker %s has no log of it", name)
	case w.State == "lost":
		return fmt.Sprintf("worker %s is lost (last heard %s ago)", name, roundly(r.e.Now().Sub(time.UnixMilli(w.LastSeenMS))))
	}
	return fmt.Sprintf("worker %s does not give it (%s)", name, err)
}

// kept prints what the coordinators have of a log that its worker does not give.
func (r *logReader) kept(w *trial.Worker, run *trial.Run, err error) error {
	why := r.absent(w, run.Worker, err)
	k := r.api.KeptRunLog(r.c.Context, r.t.Sweep, r.t.Number, run.Number)
	if k == nil {
		if w != nil && exitCode(err) == client.ExitNotFound {
			return notFound("worker %s has no log of run %d: the trainer wrote nothing, or the log has been dropped since", w.Name, run.Number)
		}
		return notFound("%s, and nothing of the log of run %d was sent before", why, run.Number)
	}
	r.e.say("%s; the last %s it sent, at %s:", why, bytesOf(int64(len(k.Text))), k.At.Format("15:04:05"))
	if r.since > 0 && k.At.Before(r.e.Now().Add(-r.since)) {
		return nil
	}
	_, err = r.e.Out.Write(lastLines(k.Text, r.tail))
	return err
}

// findWorker finds a worker that the leader has heard of.
func findWorker(c *ucli.Context, api *client.Client, name string) (*trial.Worker, error) {
	all, err := api.Workers(c.Context)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(w trial.Worker) bool { return w.Name == name }); i >= 0 {
		return &all[i], nil
	}
	return nil, notFound("worker %s is not in the cluster now", name)
}
