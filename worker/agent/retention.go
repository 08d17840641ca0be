package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/worker/store"
)

// retention deletes the checkpoint files of a trial that the index names no
// more, as the answer to each checkpoint tells. It does not judge for itself:
// which is the best depends on the sweep's constraints and on reports of earlier
// runs. Coordinators that do not tell keep the newest and the best (of
// common/trial), and so does this then. It works in the relay's goroutine.
type retention struct {
	store *store.Store
	log   *slog.Logger
	max   bool
	rows  []trial.Checkpoint // in the order they were acknowledged
}

func newRetention(s *store.Store, l *trial.Lease, log *slog.Logger) *retention {
	r := &retention{store: s, log: log, max: l.Objective.Maximize}
	for _, c := range slices.Backward(l.Checkpoints) { // newest first there
		if c.Trial == l.Trial { // another trial's files are not this one's to delete
			r.rows = append(r.rows, c)
		}
	}
	return r
}

// acknowledged takes a checkpoint's answer and deletes what it displaced.
func (r *retention) acknowledged(c trial.Checkpoint, res trial.EventResult) {
	if res.Outcome != trial.OutcomeRecorded && res.Outcome != trial.OutcomeAlready {
		return // not indexed; swept with the other leftovers
	}
	r.rows = append(r.rows, c)
	kept := r.rows[:0:0]
	for i, row := range r.rows {
		if r.needed(i, res.Kept) {
			kept = append(kept, row)
			continue
		}
		go func() { // a large file takes a while to go; the relay must not wait for it
			if err := r.store.Remove(row.Location); err != nil {
				r.log.Warn("an old checkpoint stays", "location", row.Location, "error", err)
			}
		}()
	}
	r.rows = kept
}

// needed reports whether a row's file stays: the index names it. Where the index
// does not tell, those stay that are the last acknowledged, of the highest epoch, or
// the best.
func (r *retention) needed(i int, named []trial.Location) bool {
	if len(named) > 0 {
		return slices.Contains(named, r.rows[i].Location)
	}
	return i == len(r.rows)-1 || &r.rows[i] == trial.Best(r.rows, r.max) ||
		!slices.ContainsFunc(r.rows, func(d trial.Checkpoint) bool { return d.Epoch > r.rows[i].Epoch })
}

const (
	cleanUpEvery = 5 * time.Minute
	logAge       = 14 * 24 * time.Hour
	leftover     = 10 * time.Minute // files younger than this may be on their way into the index
	cleanUpAfter = 2 * time.Second  // a lease was lost, so the index may be another: time for the others to end
)

// cleanUpSoon has the index looked at before the five minutes are over.
func (a *Agent) cleanUpSoon() {
	select {
	case a.cleanUpNow <- struct{}{}:
	default:
	}
}

// reportLost lets the index give up a checkpoint whose file is gone. Needs no lease.
func (a *Agent) reportLost(c trial.Checkpoint) {
	lost := &trial.LostCheckpoint{Epoch: c.Epoch, Location: c.Location, Worker: a.cfg.Name}
	by := trial.LeaseRef{Sweep: c.Sweep, Trial: c.Trial, Token: c.Token} // that wrote it
	a.relay.push(trial.Event{LeaseRef: by, Lost: lost}, nil, func(res trial.EventResult) {
		a.log.Info("reported to the index that a checkpoint's file is gone",
			"sweep", c.Sweep, "trial", c.Trial, "epoch", c.Epoch, "location", c.Location, "outcome", res.Outcome)
	})
}

// cleanUp deletes checkpoint files the index does not name: of runs that
// were fenced or killed, of trials that went on elsewhere. When the
// coordinators do not know the sweep, or do not answer, nothing goes; of one that
// they know as deleted all goes. Where the
// index names a file that this worker is to have and has no more, it is told.
func (a *Agent) cleanUp(ctx context.Context) {
	tick := time.NewTicker(cleanUpEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.cleanUpNow:
			if !sleep(ctx, cleanUpAfter) {
				return
			}
		}
		removeOldLogs(a.cfg.LogDir, time.Now().Add(-logAge))
		if n, err := a.removeLeftovers(ctx, leftover); err != nil {
			a.log.Warn("leftover checkpoints were not swept", "error", err)
		} else if n > 0 {
			a.log.Info("leftover checkpoints swept", "files", n)
		}
		if n, err := a.cfg.Store.DropResults(time.Now(), store.ResultsBytes); err != nil {
			a.log.Warn("results of inference that were collected stay", "error", err)
		} else if n > 0 {
			a.log.Info("results of inference dropped", "files", n)
		}
	}
}

// deleteDropped deletes checkpoint files that the index gave up: those of a trial that
// went on elsewhere, and what the sweep's budget has no room for.
func (a *Agent) deleteDropped(locations []trial.Location) {
	for _, location := range locations {
		if err := a.cfg.Store.Remove(location); err != nil {
			a.log.Warn("a checkpoint that is no longer needed stays", "location", location, "error", err)
		}
	}
}

// removeOldLogs deletes logs of runs not written to since then, and the folders
// that leaves empty.
func removeOldLogs(dir string, since time.Time) {
	var dirs []string
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return nil
		}
		info, err := d.Info()
		switch {
		case err != nil || !info.ModTime().Before(since):
		case d.IsDir():
			dirs = append(dirs, p)
		case d.Type().IsRegular():
			os.Remove(p)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		os.Remove(d) // fails for one that is not empty, as it should
	}
}

// removeLeftovers asks the index of each sweep that has files here, and deletes those
// which are older than age and not named, but for trials in work.
func (a *Agent) removeLeftovers(ctx context.Context, age time.Duration) (int, error) {
	sweeps, err := a.cfg.Store.Trials()
	if err != nil {
		return 0, err
	}
	gone := 0
	for sweep, trials := range sweeps {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		rows, err := a.cfg.Index.IndexedCheckpoints(call, sweep, 0)
		cancel()
		deleted := client.RefusalOf(err).Reason == client.ReasonDeleted
		if client.CodeOf(err) == client.CodeNotFound && !deleted {
			continue
		}
		if err != nil && !deleted {
			return gone, err
		}
		locations := map[int64][]trial.Location{}
		for _, c := range rows {
			locations[c.Trial] = append(locations[c.Trial], c.Location)
			if a.cfg.Store.Gone(c) {
				a.reportLost(c)
			}
		}
		for _, t := range trials {
			if a.held.hasTrial(sweep, t) {
				continue
			}
			n, err := a.cfg.Store.DeleteUnindexed(sweep, t, locations[t], age)
			gone += n
			if err != nil {
				return gone, err
			}
		}
	}
	return gone, nil
}

// isDiskFull reports whether there is no room, or no quota, to write.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
