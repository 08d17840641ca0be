// Package members carries out one training with several trainers on this
// machine, the members of a group: it starts them, links each two, gives each its
// part, takes the reports of whichever reports, and puts another in the place of
// one that was lost.
//
// It refuses to judge how a training ended, and to know what members say to each
// other: who computes together they agree among themselves.
package members

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"atelier/common/child"
	"atelier/common/links"
	"atelier/common/trainerproto"
)

// Times of a group on one machine.
const (
	silence  = 2 * time.Second  // without an event: the member hangs
	settle   = 20 * time.Second // the same before its first event, while it reads the job
	together = 15 * time.Second // for a group to end, before each is asked to by SIGTERM
	grace    = 20 * time.Second // between SIGTERM and SIGKILL
)

// Replacements are bounded: at most so many in a window, so that trainers which
// cannot live here, for want of memory, do not keep the others from work.
const (
	replacements = 3
	window       = time.Minute
)

// token is of all groups on a machine without a cluster: each has sockets of its own.
const token = 1

// Config of a group.
type Config struct {
	// Start starts the trainer of a place and waits for its hello, at most until ctx
	// ends.
	Start  func(ctx context.Context, place int) (*child.Trainer, error)
	Job    trainerproto.Job // of each, but for what depends on the member
	Places []Place          // a member each; two at least
	Shards int              // of each batch

	// On takes epoch, checkpoint, progress and view events in order, each epoch
	// once. When it has returned, an epoch is recorded and a checkpoint kept for good.
	On func(trainerproto.Event) error

	// Changed is told who is lost and who takes part, for people; present counts the
	// members.
	Changed func(text string, present int)
}

// Place is where a member computes.
type Place struct{ Device string }

// End is how a training ended: the done or failed event of the member that
// decided, if it wrote one, and that member.
type End struct {
	Last   trainerproto.Event
	By     *child.Trainer
	Place  int
	Silent bool // it hung and was ended
}

// member is one trainer.
type member struct {
	*child.Trainer
	id, place int
	in        bool // it takes part; a newcomer does from a view on
	last      trainerproto.Event
	silent    bool
	broken    error // it broke the protocol
}

func (m *member) name() string { return fmt.Sprintf("member %d", m.id) }

// heard is an event of a member; one without a kind is its end.
type heard struct {
	m *member
	e trainerproto.Event
}

// started is the trainer of a place, or why there is none.
type started struct {
	place int
	t     *child.Trainer
	err   error
}

// crew is a group at work; its fields are of the goroutine in Run.
type crew struct {
	Config
	heard    chan heard
	started  chan started
	starting int
	cancel   context.CancelFunc // of starts
	live     []*member          // by id
	next     int                // id
	view     int                // newest number
	vacant   []int              // places to be filled
	times    []time.Time        // of the last replacements
	retry    <-chan time.Time   // a further one is allowed
	reported int                // last epoch
	kept     int                // last epoch with a checkpoint
	said     []string           // messages of progress that were passed on
	over     bool               // nothing further is to be done but to wait
	end      *End               // so far
	weight   int                // of end
	fault    error              // of On, or of the protocol
}

// Run carries a training out, to its end or that of ctx, which pauses it: the
// members end with their last checkpoint. The error is of On, or of a trainer where
// none started.
func Run(ctx context.Context, c Config) (End, error) {
	starts, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &crew{Config: c, heard: make(chan heard), started: make(chan started), cancel: cancel, next: 1, reported: c.Job.ResumeEpoch, kept: c.Job.ResumeEpoch}
	if err := w.begin(starts); err != nil {
		return End{}, err
	}
	ended := ctx.Done()
	var late <-chan time.Time
	for len(w.live)+w.starting > 0 {
		select {
		case h := <-w.heard:
			w.take(h)
		case s := <-w.started:
			w.arrive(s)
		case <-w.retry:
			w.retry = nil
		case <-ended:
			ended = nil
			w.finish()
			w.tell(trainerproto.Control{Verdict: "pause"})
		case <-late:
			w.stop()
		}
		if w.over && late == nil {
			late = time.After(together)
		}
		w.fill(starts)
	}
	if w.end == nil {
		return End{}, w.fault
	}
	return *w.end, w.fault
}

// begin starts a trainer for each place and makes those that start a group. A
// place without one is filled later, like that of a lost member; if there is none
// at all, or ctx has ended, none is left.
func (w *crew) begin(ctx context.Context) error {
	for place := range w.Places {
		w.start(ctx, place)
	}
	var begun, failed []started
	var late <-chan time.Time
	for waits := true; waits && w.starting > 0; {
		select {
		case s := <-w.started:
			w.starting--
			if s.err != nil {
				failed = append(failed, s)
				continue
			}
			begun = append(begun, s)
			late = time.After(settle)
		case <-late: // one that does not come keeps the others from work no longer
			waits = ctx.Err() != nil
		}
	}
	if len(begun) == 0 || ctx.Err() != nil {
		for _, s := range begun {
			discard(s.t)
		}
		if len(failed) == 0 {
			return ctx.Err()
		}
		return failed[0].err
	}
	slices.SortFunc(begun, func(a, b started) int { return a.place - b.place })
	for _, s := range begun {
		w.live = append(w.live, &member{Trainer: s.t, id: w.next, place: s.place, in: true})
		w.next++
	}
	for i, m := range w.live {
		w.engage(m, w.live[:i], false)
	}
	for _, s := range failed {
		w.absent(s)
	}
	return nil
}

// absent notes that a place has no trainer.
func (w *crew) absent(s started) {
	w.vacant = append(w.vacant, s.place)
	left := w.present()
	w.Changed(fmt.Sprintf("no trainer could be started in place %d; %s: %v", s.place+1, others(left), s.err), left)
}

// start starts the trainer of a place; it is received from w.started.
func (w *crew) start(ctx context.Context, place int) {
	w.starting++
	go func() {
		t, err := w.Start(ctx, place)
		w.started <- started{place, t, err}
	}()
}

// engage links a member to others and gives it its job. What a trainer that is
// dying does not take is seen at its end.
func (w *crew) engage(m *member, others []*member, join bool) {
	for _, o := range others {
		links.Connect(token, links.End{To: o.Links(), Member: o.id, Name: o.name()}, links.End{To: m.Links(), Member: m.id, Name: m.name()})
	}
	job := w.Job
	job.Device = w.Places[m.place].Device
	if m.id > 1 {
		job.SheetsDir = "" // one draws them
	}
	job.Group = &trainerproto.Group{Token: token, Member: m.id, Join: join, Shards: w.Shards}
	for _, o := range w.live {
		job.Group.Members = append(job.Group.Members, trainerproto.Fellow{Member: o.id, Name: o.name()})
	}
	m.Send(job)
	if w.reported > 0 {
		m.Send(trainerproto.Control{Reported: w.reported, Kept: w.kept})
	}
	go w.listen(m)
}

// listen passes a member's events on until it has ended, and ends it where it
// hangs.
func (w *crew) listen(m *member) {
	for limit := settle; ; limit = silence {
		e, err := m.EventWithin(limit)
		if err == nil {
			w.heard <- heard{m, e}
			continue
		}
		switch {
		case errors.Is(err, io.EOF):
		case errors.Is(err, child.ErrSilent):
			m.silent = true
			m.Kill()
		default:
			m.broken = err
			m.GiveUp()
		}
		break
	}
	m.CloseInput()
	select {
	case <-m.Exited():
	case <-time.After(grace):
		m.Kill()
		<-m.Exited()
	}
	m.Close()
	w.heard <- heard{m: m}
}
