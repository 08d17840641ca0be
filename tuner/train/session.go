package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"atelier/common/files"
	"atelier/common/plot"
	"atelier/common/trainerproto"
	"atelier/tuner/session"
	"atelier/tuner/track"
)

// Watcher is shown how a training goes on.
type Watcher interface {
	Begin(*Plan) // nothing stands in its way
	Progress(Progress)
	Epoch(Epoch)
	Members(text string) // who is lost, or takes part, of several
}

// Progress is a moment between two reports.
type Progress struct {
	Message       string // before the first epoch: what is being prepared
	Epoch, Epochs int    // the epoch under way, from 1
	Done          float64
	Loss, Acc     float64 // of training, so far in this epoch
	ImagesPerS    float64
	Left          time.Duration // of the training; 0 = not known yet
	Members       int           // that compute together
	Waiting       float64       // share of a step in which a member waits for others; 0 = not known
}

// Epoch is a report.
type Epoch struct {
	Epoch, Epochs int
	Metrics       trainerproto.Metrics
	Seconds       float64
	Best          bool
	BestEpoch     int           // so far; 0 = none
	BestAcc       float64       // val_acc of that epoch
	Left          time.Duration // of the training
}

// Result is what came of a training.
type Result struct {
	Folder         string
	History        *History
	Plan           *Plan
	SessionSeconds float64  // seconds this call took
	Hint           []string // how to look at what was tracked
	Sweep          string   // that trained it; "" = this machine did
	Workers        []string // of the cluster, a run each
	// GaveBack says that it ended without a checkpoint, and the training that it was to overwrite is in its place
	// again.
	GaveBack bool
	machine  []fact
	changes  []fact // of the members, by time
	pace     *trainerproto.Pace

	mu     sync.Mutex
	warned []string
}

// mostChanges is how many changes of members the diagnostics list.
const mostChanges = 200

func (r *Result) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warned = append(r.warned, text)
}

// Warnings are what went wrong without ending the training.
func (r *Result) Warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.warned)
}

// Options of a training.
type Options struct {
	Trainer   string // program; see FindTrainer. Remote does without, if need be
	Overwrite bool   // replace the results of an earlier training
	Watch     Watcher
	Now       func() time.Time
}

// training is one session of it: a call of Local or Remote.
type training struct {
	o       Options
	plan    *Plan
	folder  folder
	history *History
	result  *Result
	began   time.Time
	before  float64  // seconds of earlier sessions
	track   *tracker // nil: not tracked
	members int      // that compute together now

	pace struct { // of the epoch under way
		epoch int
		since time.Time
		done  float64
	}
}

// runSession holds the folder while body trains, and records how that ended.
func runSession(ctx context.Context, p *Plan, o Options, body func(*training) error) (*Result, error) {
	s := &training{o: o, plan: p, began: o.Now(), members: p.Members(), result: &Result{Folder: p.Folder, Plan: p}}
	store, err := track.Open(p.Config, p.BaseDir, "atelier train", s.result.warn)
	if err != nil {
		return nil, err
	}
	f, err := session.Hold(kind, p.Folder)
	if err == nil {
		defer f.Release()
		s.folder = folder{f}
		err = s.open()
	}
	if err != nil {
		if store != nil {
			store.Close(ctx) // nothing was written
		}
		return nil, err
	}
	o.Watch.Begin(p)
	s.result.machine = machine(p, "")
	s.track = startTracker(ctx, store, p, f.Dir, s.began, s.result.warn)
	if err = s.rememberRun(); err == nil {
		err = body(s)
	}
	return s.result, s.close(ctx, err)
}

// rememberRun keeps the id of the tracked run, which a server gives in its own
// time, for a session that goes on with it.
func (s *training) rememberRun() error {
	id := s.track.id()
	if id == "" || id == s.plan.trackedRun {
		return nil
	}
	s.plan.trackedRun = id
	return s.folder.save(s.plan)
}

// open settles history and folder: a new training, or one to go on with.
func (s *training) open() (err error) {
	p := s.plan
	if !p.again {
		if before := s.folder.State(); s.o.Overwrite && before.GoesOn {
			p.Notes = append(p.Notes, fmt.Sprintf("warning: what is replaced continues in the cluster as sweep %s; to end it: atelier sweep cancel %s", before.Sweep, before.Sweep))
		}
		if err := s.folder.Begin(s.o.Overwrite); err != nil {
			return err
		}
	}
	if s.history, err = ReadHistory(s.folder.Path(HistoryFile)); err != nil {
		return err
	}
	h := s.history
	if p.again {
		h.cut(p.resumeEpoch)
		// What lies behind the point of return is done again.
		if err := s.folder.drop(func(e int) bool { return e > p.resumeEpoch }); err != nil {
			return err
		}
		if p.resumeFile != "" && h.BestEpoch == p.resumeEpoch {
			// The session before may have ended between report and checkpoint.
			if err := s.folder.markBest(p.resumeFile); err != nil {
				return err
			}
		}
	}
	h.Model, h.Seed, h.Device, h.Status, h.Message = p.Settings.Model, p.Seed, p.Device, Running, ""
	h.TestLoss, h.TestAcc, h.TestImages, h.TestClasses = Number(nan), Number(nan), 0, nil
	if h.Started == 0 {
		h.Started = s.began.UnixMilli()
	}
	s.before, s.result.History = h.Runtime, h
	if err := s.folder.save(p); err != nil {
		return err
	}
	return s.note()
}

// note writes the history down.
func (s *training) note() error {
	s.history.Runtime = s.before + s.o.Now().Sub(s.began).Seconds()
	return s.history.write(s.folder.Path(HistoryFile))
}

// take is called for each event, in order.
func (s *training) take(e trainerproto.Event) error {
	if e.Pace != nil {
		s.result.pace = e.Pace
	}
	switch e.Kind {
	case trainerproto.EventProgress:
		s.o.Watch.Progress(s.progress(e))
	case trainerproto.EventEpoch:
		s.history.add(e.Epoch, e.Metrics, e.Seconds)
		s.track.epoch(e.Epoch, e.Reported(), e.Seconds)
		s.pace.epoch = 0
		s.o.Watch.Epoch(Epoch{Epoch: e.Epoch, Epochs: s.plan.Settings.Epochs, Metrics: e.Metrics, Seconds: e.Seconds,
			Best: s.history.BestEpoch == e.Epoch, BestEpoch: s.history.BestEpoch, BestAcc: float64(s.history.BestValAcc), Left: s.left(s.plan.Settings.Epochs - e.Epoch)})
		return errors.Join(s.note(), s.rememberRun())
	case trainerproto.EventCheckpoint:
		if s.history.BestEpoch == e.Epoch {
			if err := s.folder.markBest(e.Path); err != nil {
				return err
			}
		}
		// Device, data and weights are good and a checkpoint stands: what it replaces may go.
		return errors.Join(s.folder.keepFrom(e.Epoch), s.folder.DropReplaced())
	}
	return nil
}

// changed is called when members are lost or take part.
func (s *training) changed(text string, present int) {
	s.members = present
	if len(s.result.changes) < mostChanges {
		s.result.changes = append(s.result.changes, fact{s.o.Now().UTC().Format(time.TimeOnly), text})
	}
	s.o.Watch.Members(text)
}

// left is the time of so many epochs at the pace of the last ones.
func (s *training) left(epochs int) time.Duration {
	seconds := s.history.Seconds
	seconds = seconds[max(0, len(seconds)-5):]
	if len(seconds) == 0 {
		return 0
	}
	sum := 0.0
	for _, x := range seconds {
		sum += float64(x)
	}
	return time.Duration(sum / float64(len(seconds)) * float64(epochs) * float64(time.Second))
}

// progress is an event for eyes: how far the epoch is, and about how long the rest takes, by the
// epochs before, or in the first one by its own pace.
func (s *training) progress(e trainerproto.Event) Progress {
	epochs := s.plan.Settings.Epochs
	out := Progress{Message: e.Message, Epoch: e.Epoch, Epochs: epochs, Members: s.members}
	if s.result.pace != nil {
		out.Waiting = s.result.pace.Waiting
	}
	if e.Epoch == 0 || e.Steps < int64(epochs) {
		return out
	}
	batches := float64(e.Steps) / float64(epochs)
	out.Done = min(max(float64(e.Step)/batches-float64(e.Epoch-1), 0), 1)
	out.Loss, _ = e.Metrics.Get("train_loss")
	out.Acc, _ = e.Metrics.Get("train_acc")
	out.ImagesPerS, _ = e.Metrics.Get("images_per_s")
	rest := float64(epochs-e.Epoch) + 1 - out.Done // epochs
	if len(s.history.Seconds) > 0 {
		out.Left = time.Duration(float64(s.left(1)) * rest)
		return out
	}
	// The first epoch: at its own pace since its first word.
	if now := s.o.Now(); s.pace.epoch != e.Epoch {
		s.pace.epoch, s.pace.since, s.pace.done = e.Epoch, now, out.Done
	} else if gained := out.Done - s.pace.done; gained > 0 {
		out.Left = time.Duration(float64(now.Sub(s.pace.since)) / gained * rest)
	}
	return out
}

// close makes the folder say how it ended, whatever did.
func (s *training) close(ctx context.Context, err error) error {
	h := s.history
	err = asDiskFull(err, s.plan, s.folder.Dir)
	var f *session.Failure
	switch {
	case err == nil:
		h.Status = Finished
	case errors.Is(err, session.ErrInterrupted):
		h.Status, h.Message = Interrupted, "interrupted"
	case errors.Is(err, session.ErrGoesOn):
		h.Message = "continues as sweep " + s.plan.sweep
		s.track.leave()
		return errors.Join(err, s.note())
	case errors.As(err, &f) && f.Class == trainerproto.FailedDiverged:
		h.Status, h.Message = Diverged, f.Message
	default:
		h.Status, h.Message = Failed, err.Error()
	}
	if f != nil {
		f.Hints = failureHints(f, s.plan, s.folder.Dir, h.last() > 0)
	}
	away := s.plan.sweep != "" && err != nil && f == nil // it goes on in a cluster, and its results can still be fetched
	if s.folder.Replaces() && !away {
		stands, e := s.folder.Stands()
		if e == nil && stands {
			e = s.folder.DropReplaced()
		} else if e == nil {
			return s.giveBack(ctx, err)
		}
		err = errors.Join(err, e)
	}
	if e := s.folder.export(err == nil, h.last()); e != nil {
		err = errors.Join(err, asDiskFull(e, s.plan, s.folder.Dir))
		h.Status = Failed
	}
	if err == nil && s.plan.hasTest() && s.o.Trainer == "" {
		s.result.warn("not tested: that takes an atelier-trainer on this machine")
	} else if err == nil && len(h.Epochs) > 0 && s.plan.hasTest() {
		if err = s.test(ctx); err != nil {
			h.Status, h.Message = Failed, err.Error()
			if ctx.Err() != nil {
				err, h.Status = session.ErrInterrupted, Interrupted
			}
		}
	}
	s.result.SessionSeconds = s.o.Now().Sub(s.began).Seconds()
	s.draw()
	e := s.note()
	if e == nil {
		e = files.Write(s.folder.Path(DiagnosticsFile), s.result.diagnostics(s.o.Now()), 0o644)
	}
	if e != nil {
		err = errors.Join(err, asDiskFull(e, s.plan, s.folder.Dir))
	}
	s.result.Hint = s.track.end(h, s.folder)
	return err
}

// draw makes the learning curve of what the epochs reported.
func (s *training) draw() {
	h := s.history
	if len(h.Epochs) == 0 {
		return
	}
	curve := plot.History{TrainLoss: plain(h.TrainLoss), TrainAcc: plain(h.TrainAcc), ValLoss: plain(h.ValLoss), ValAcc: plain(h.ValAcc), LR: plain(h.LR)}
	about := plot.About{Model: h.Model, Data: filepath.Base(filepath.Dir(s.plan.Settings.Train)), When: time.UnixMilli(h.Started)}
	if err := curve.Save(s.folder.Path(CurveFile), about); err != nil {
		s.result.warn("no " + CurveFile + ": " + err.Error())
	}
}

func plain(list []Number) []float64 {
	out := make([]float64, len(list))
	for i, v := range list {
		out[i] = float64(v)
	}
	return out
}

// giveBack ends a training of which nothing came with the earlier one in its
// place.
func (s *training) giveBack(ctx context.Context, err error) error {
	s.result.SessionSeconds = s.o.Now().Sub(s.began).Seconds()
	s.result.Hint = s.track.end(s.history, s.folder)
	s.result.GaveBack = true
	return errors.Join(err, s.folder.PutBack())
}

var nan = math.NaN()

// asDiskFull names the cause people can do something about.
func asDiskFull(err error, p *Plan, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f := &session.Failure{Class: trainerproto.FailedDiskFull, Message: "disk full: " + err.Error()}
		f.Hints = failureHints(f, p, dir, true) // of no matter for this class
		return f
	}
	return err
}
