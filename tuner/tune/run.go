package tune

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
	"atelier/tuner/session"
	"atelier/tuner/tune/report"
)

// Watcher is shown how a tuning goes. Its methods are called one at a time.
type Watcher interface {
	Begin(p *Plan, s *trial.Sweep) // the sweep is submitted, or taken up again
	Sweep(s *trial.Sweep)          // it has changed
	Doing(text string)             // what takes a while beside it
}

// Options of Run.
type Options struct {
	Trainer   string         // file of atelier-trainer for a local worker; "" = its own search
	API       *client.Client // cluster that is addressed; nil = one on this machine
	Addresses string         // as it was addressed
	Files     client.Files   // of the addressed cluster
	Overwrite bool
	Watch     Watcher
	// Track is called once the sweep has an id; what it returns is called with
	// the report's folder and files once they are written.
	Track func(ctx context.Context, api *client.Client, id string) (done func(ctx context.Context, dir string, files []string))
}

// Result is what came of a session.
type Result struct {
	Folder   string
	Sweep    trial.Sweep   // as it was last seen; without an id before it was made
	Report   *report.Sweep // what was written; nil if nothing was
	Written  *report.Written
	Local    bool
	Begun    bool // it can be resumed
	Warnings []string
}

func (r *Result) warn(text string) { r.Warnings = append(r.Warnings, text) }

// lastWords is how long an interrupted tuning may take to write what is known.
const lastWords = 30 * time.Second

type tuning struct {
	tracked func(ctx context.Context, dir string, files []string) // of Options.Track; nil before
	plan    *Plan
	o       Options
	folder  folder
	saved   *saved
	result  *Result
}

// Run carries a plan out: submits its sweep, or takes it up again, waits for
// the end and writes the report. The Result is there with an error too, once
// the folder is held.
func Run(ctx context.Context, p *Plan, o Options) (*Result, error) {
	held, err := session.Hold(kind, p.Folder)
	if err != nil {
		return nil, err
	}
	defer held.Release()
	f := folder{held}
	s := &tuning{plan: p, o: o, folder: f, saved: p.again, result: &Result{Folder: p.Folder, Local: o.API == nil}}
	defer s.giveBack()
	if s.saved == nil {
		if err := f.Begin(o.Overwrite); err != nil {
			return nil, err
		}
		if err := p.makeSubsets(); err != nil {
			return nil, err
		}
	}
	defer func() { s.result.Begun = s.saved != nil }()
	api, files := o.API, o.Files
	if api == nil {
		o.Watch.Doing("starting a cluster on this machine")
		cluster, err := s.startLocal(ctx)
		if err != nil {
			if ctx.Err() != nil {
				err = session.ErrInterrupted
			}
			return s.result, err
		}
		whole := false
		defer func() {
			if err := cluster.Close(); err != nil {
				s.result.warn(err.Error())
			}
			if whole {
				if err := f.clearLocal(); err != nil {
					s.result.warn(err.Error())
				}
			}
		}()
		api, files = cluster.Client(), cluster.Client().Files(cluster.SharedDir)
		err = s.run(ctx, api, files, cluster)
		// Of a sweep that failed everything stays: the trainers' logs say why.
		whole = s.saved != nil && s.saved.Status != statusRunning && s.saved.Status != "failed" && !s.plan.Config.Bool(keyKeep)
		return s.result, err
	}
	return s.result, s.run(ctx, api, files, nil)
}

// giveBack puts an earlier tuning back that was to be replaced where no sweep
// was asked for. Of a sweep without a value the logs may say why: it stays, and the
// earlier tuning beside it.
func (s *tuning) giveBack() {
	switch {
	case !s.folder.Replaces():
	case s.saved == nil: // nothing was asked of a cluster
		if err := s.folder.PutBack(); err != nil {
			s.result.warn("the earlier tuning is still in " + s.folder.Path(session.ReplacedDir) + ": " + err.Error())
			return
		}
		s.result.warn("nothing came of the new tuning; the earlier one is in its folder as it was")
	default:
		s.result.warn("no trial of the new tuning has a value yet: the earlier one is kept in " + s.folder.Path(session.ReplacedDir))
	}
}

// run follows the sweep and writes what came of it. How it ended decides what is left behind: a
// cluster's sweep goes on without this command, one on this machine is taken up again with
// --resume, and either way the report says what is known.
func (s *tuning) run(ctx context.Context, api *client.Client, files client.Files, cluster *local.Cluster) error {
	// A server that dies takes the session along, not the data.
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if cluster != nil {
		go func() {
			if err := cluster.AwaitExit(watched); watched.Err() == nil {
				cancel(err)
			}
		}()
	}
	err := s.follow(watched, api)
	switch {
	case ctx.Err() != nil && cluster == nil:
		s.leave(ctx)
		return session.ErrGoesOn
	case ctx.Err() != nil:
		return errors.Join(session.ErrInterrupted, s.sayWhatIsKnown(ctx, api))
	case watched.Err() != nil:
		s.leave(ctx)
		return fmt.Errorf("the cluster on this machine broke down: %w; once that is fixed, --resume continues", context.Cause(watched))
	case err != nil:
		s.leave(ctx)
		return err
	}
	return s.report(watched, api, files)
}

// follow submits the sweep and waits for its end.
func (s *tuning) follow(ctx context.Context, api *client.Client) error {
	if s.saved == nil || s.saved.Sweep == "" {
		if err := s.submit(ctx, api); err != nil {
			return err
		}
	} else {
		now, err := api.Sweep(ctx, s.saved.Sweep)
		if err != nil {
			return err
		}
		s.result.Sweep = *now
		if err := s.extend(ctx, api); err != nil {
			return err
		}
	}
	s.o.Watch.Begin(s.plan, &s.result.Sweep)
	s.tracked = func(context.Context, string, []string) {}
	if s.o.Track != nil {
		s.tracked = s.o.Track(ctx, api, s.saved.Sweep)
	}
	_, err := api.Follow(ctx, s.saved.Sweep, func(now *trial.Sweep) error {
		s.result.Sweep = *now
		s.o.Watch.Sweep(now)
		if now.Best != nil { // it is worth having
			return s.folder.DropReplaced()
		}
		return nil
	})
	return err
}

// submit makes the sweep. What is asked for is written down first, under the id
// that keeps it from being made twice.
func (s *tuning) submit(ctx context.Context, api *client.Client) error {
	if s.saved == nil {
		least, err := s.plan.members()
		if err != nil {
			return err
		}
		parallelism := int64(s.plan.Config.Float(KeyParallelism))
		if parallelism == 0 || s.result.Local {
			n, err := slotsOf(ctx, api)
			if err != nil {
				return err
			}
			if s.result.Local && least > n { // no other worker will come
				return fmt.Errorf("members: each trial needs %d slots, and this machine has %d: set members to %d or less, or divide the machine further with --set local.slots=%d", least, n, max(1, n), least)
			}
			if parallelism == 0 {
				parallelism = max(1, n/least)
			}
		}
		spec, _, err := s.plan.Spec(parallelism)
		if err != nil {
			return err
		}
		s.saved = &saved{Head: session.NewHead(s.plan.base), RequestID: client.NewRequestID(), Addresses: s.o.Addresses, Status: statusRunning, Values: map[string]any{}, spec: spec}
		for _, v := range s.plan.Config.All() {
			if kept(v.Key) && v.Data != nil {
				s.saved.Values[v.Key] = v.Data
			}
		}
		if err := s.folder.save(s.saved); err != nil {
			return err
		}
	}
	made, warnings, err := api.Submit(ctx, client.Submission{RequestID: s.saved.RequestID, Spec: string(s.saved.spec), Name: "tuning", BaseDir: s.saved.Base})
	if err != nil {
		return err
	}
	for _, w := range warnings {
		s.result.warn(w)
	}
	s.result.Sweep, s.saved.Sweep = *made, made.ID
	return s.folder.save(s.saved)
}

// extend gives a sweep that is resumed as many trials as were asked for.
func (s *tuning) extend(ctx context.Context, api *client.Client) error {
	had := s.result.Sweep.BudgetTrials
	more := s.plan.trials - had
	switch {
	case s.plan.trials == 0 || more == 0 && s.saved.Status == statusRunning:
		return nil
	case had == 0:
		return fmt.Errorf("--trials %d: the tuning has no budget of trials: it tries its whole grid", s.plan.trials)
	case more <= 0:
		return fmt.Errorf("--trials %d: the tuning has a budget of %d trials in all: name more", s.plan.trials, had)
	}
	// It is to be resumed from now on, also if this ends before the cluster answers.
	was := *s.saved
	s.saved.Status, s.saved.Values[KeyTrials] = statusRunning, s.plan.Config.Get(KeyTrials).Data
	if err := s.folder.save(s.saved); err != nil {
		return err
	}
	extended, err := api.Extend(ctx, fmt.Sprintf("%s-%d", s.saved.RequestID, s.plan.trials), s.saved.Sweep, client.Budget{Trials: more})
	if err != nil {
		if client.CodeOf(err) == client.CodeFailedPrecondition { // as ended as before
			s.saved.Status = was.Status
			err = errors.Join(err, s.folder.save(s.saved))
		}
		return err
	}
	s.result.Sweep = *extended
	return nil
}

// slotsOf counts the slots of workers that take trials.
func slotsOf(ctx context.Context, api *client.Client) (n int64, err error) {
	workers, err := api.Workers(ctx)
	if err != nil {
		return 0, err
	}
	for _, w := range workers {
		if w.State == "ready" {
			n += int64(len(w.Slots))
		}
	}
	return n, nil
}

// report writes all that came of the sweep.
func (s *tuning) report(ctx context.Context, api *client.Client, files client.Files) error {
	s.o.Watch.Doing("reading the trials")
	r, err := Collect(ctx, api, s.saved.Sweep)
	if err != nil {
		return err
	}
	if err := s.fetchModels(ctx, api, files, r); err != nil {
		return err
	}
	if err := s.write(r); err != nil {
		return err
	}
	s.tracked(ctx, s.folder.Dir, s.result.Written.Files)
	s.saved.Status = r.Status.String()
	return s.folder.save(s.saved)
}

// write writes the report over the one that is there.
func (s *tuning) write(r *report.Sweep) (err error) {
	s.o.Watch.Doing("writing the report")
	// The trials may have a part of these, in a folder of the tuning.
	r.Base = ""
	if s.plan.Config.Trains() {
		r.Data, r.Validation = s.plan.Config.Images(KeyTrain).Text(), s.plan.Config.Images(KeyValidation).Text()
	}
	s.result.Written, err = report.Write(s.folder.Dir, r, report.Options{NoPlots: !s.plan.Config.Bool(KeyPlots)})
	if err == nil {
		s.result.Report = r
	}
	return err
}

// sayWhatIsKnown writes the report of an interrupted tuning.
func (s *tuning) sayWhatIsKnown(ctx context.Context, api *client.Client) error {
	if s.saved == nil || s.saved.Sweep == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	r, err := Collect(ctx, api, s.saved.Sweep)
	if err == nil {
		err = s.write(r)
	}
	if err != nil {
		s.result.warn("no report of the results so far: " + strings.TrimSpace(client.Message(err)))
	}
	s.leave(ctx)
	return nil
}

// leave ends the tracking of a sweep that goes on.
func (s *tuning) leave(ctx context.Context) {
	if s.tracked != nil {
		s.tracked(context.WithoutCancel(ctx), "", nil)
	}
}
