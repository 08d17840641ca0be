//go:build libtorch

package train

import (
	"fmt"
	"slices"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/train/handover"
)

// reporting are an epoch's report and checkpoint on their way out. A run by itself
// sends them and forgets them. The members of a group all have them until they
// are safe, so that another can send them again: the first in rank sends, and
// whoever becomes that begins with what is not safe.
type reporting struct {
	sends   bool // this process
	reports []handover.Report
	told    int     // how many of them this process has sent
	states  []*kept // whose checkpoints are not safe, oldest first
	digest  string  // of the data, for the first report of a process
}

// report takes the report of an epoch and its state in.
func (r *run) report(epoch handover.Report, state *kept) error {
	r.out.reports = append(r.out.reports, epoch)
	r.out.states = append(r.out.states, state)
	if r.group != nil {
		r.spare(state.progress)
	}
	if err := r.publish(); err != nil {
		return err
	}
	return r.kept(false)
}

// spare lets the states go that are neither the newest nor the best: those of a
// run whose coordinators do not answer for long.
func (r *run) spare(p progress) {
	r.out.states = slices.DeleteFunc(r.out.states, func(k *kept) bool {
		old := k.progress.Epoch != p.Epoch && k.progress.Epoch != p.BestEpoch && k != r.writer.current
		if old {
			r.writer.release(k)
		}
		return old
	})
}

// publish sends the reports that were not sent.
func (r *run) publish() error {
	if !r.out.sends {
		return nil
	}
	for _, e := range r.out.reports[r.out.told:] {
		if err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: e.Epoch, Metrics: e.Metrics, Seconds: e.Seconds, Data: r.out.digest, Pace: r.pace()}); err != nil {
			return fmt.Errorf("report epoch %d: %w", e.Epoch, err)
		}
		r.out.told++
		r.out.digest = ""
	}
	if r.group == nil {
		r.out.reports, r.out.told = nil, 0
	}
	return nil
}

// kept begins to write the states that were not written, one at a time, and tells
// of each once it is whole, synced and hashed; with wait it waits until there is
// none left. It is called between batches, before the next epoch is reported and
// before the run ends, however that does.
func (r *run) kept(wait bool) error {
	for r.writer != nil {
		if r.writer.writing == nil {
			next := slices.IndexFunc(r.out.states, func(k *kept) bool { return !k.told })
			if next < 0 || !r.out.sends {
				return nil
			}
			r.writer.begin(r.out.states[next])
		}
		var w written
		if wait {
			w = <-r.writer.writing
		} else {
			select {
			case w = <-r.writer.writing:
			default:
				return nil
			}
		}
		if err := r.keptOne(w); err != nil {
			return err
		}
	}
	return nil
}

// keptOne tells of a checkpoint.
func (r *run) keptOne(w written) error {
	r.writer.writing, r.writer.current = nil, nil
	if w.err != nil {
		return w.err
	}
	p := w.of.progress
	r.writer.files[p.Epoch] = w.path
	if err := r.events.Send(trainerproto.Event{Kind: trainerproto.EventCheckpoint, Epoch: p.Epoch, Path: w.path, Size: w.info.Bytes, SHA256: w.info.SHA256, Metrics: w.of.metrics}); err != nil {
		return fmt.Errorf("report checkpoint of epoch %d: %w", p.Epoch, err)
	}
	w.of.told = true
	if r.group == nil {
		r.forget(p.Epoch)
	}
	r.writer.prune(p, r.log)
	return nil
}

// forget lets the states of the epochs up to one go: their checkpoints are safe.
func (r *run) forget(epoch int) {
	r.out.states = slices.DeleteFunc(r.out.states, func(k *kept) bool {
		done := k.progress.Epoch <= epoch && k != r.writer.current
		if done {
			r.writer.release(k)
		}
		return done
	})
}

// safe takes in what agents know to be safe.
func (r *run) safe(reported, keptEpoch int) {
	for len(r.out.reports) > 0 && r.out.reports[0].Epoch <= reported {
		r.out.reports = r.out.reports[1:]
		r.out.told = max(r.out.told-1, 0)
	}
	r.forget(keptEpoch)
}

// takeOver makes this process the one that sends, or one that does not: what is
// not safe is sent from the start.
func (r *run) takeOver(sends bool) error {
	if sends != r.out.sends {
		r.out.sends, r.out.told = sends, 0
		for _, k := range r.out.states {
			k.told = false
		}
	}
	return r.publish()
}
