//go:build libtorch

package train

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"atelier/common/kernels"
	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// stall is how long the others wait for a member that computes and computes, and a
// newcomer for them.
const stall = 5 * time.Minute

// safeWithin is how long the end of a run waits for its coordinators to have the
// last checkpoint, before the members that could write it again are let go.
const safeWithin = 10 * time.Second

// errLeft ends a member's part in a run that the others continue.
var errLeft = errors.New("left the group")

// joins reports whether the run is under way at others, from whom its state comes.
func (r *run) joins() bool { return r.shared() && r.job.Group.Join }

// shared reports whether the run is one of several members. A job of one shard has
// one, and no group to speak of.
func (r *run) shared() bool { return r.job.Group != nil && r.settings.Shards > 1 }

// join makes this process a member of the run's group: the first view begins, or
// the state has come from the others. It is warm before it offers itself, so that
// taking it in costs the others nothing.
func (r *run) join(ctx context.Context) error {
	if !r.shared() {
		return nil
	}
	job := *r.job.Group
	if job.Shards != r.settings.Shards {
		return badSpec("the run's group has %d shards, its settings have %d", job.Shards, r.settings.Shards)
	}
	if r.links == nil {
		return fmt.Errorf("a member of a group needs descriptor %d, a socket over which it is handed links to the others", trainerproto.LinksFD)
	}
	mover, err := r.mover()
	if err != nil {
		return err
	}
	if err := r.warm(); err != nil {
		return err
	}
	within := ctx
	if job.Join { // those who have the state may all be dead, and only newcomers be left
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, stall)
		defer cancel()
	}
	g, err := group.Start(within, group.Config{Job: job, Links: r.links, Engine: r.engine(), State: state{r}, Mover: mover, Stall: stall, Log: r.log, OnView: r.viewed})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return &Failure{trainerproto.FailedCutOff, fmt.Errorf("no member of the group has taken this one in within %s", stall)}
	}
	if err != nil {
		return groupFailure(err)
	}
	r.group = g
	return r.takeOver(g.View().Rank == 0)
}

// groupFailure classifies an error of the group.
func groupFailure(err error) error {
	var mismatch *group.Mismatch
	var unreachable *group.Unreachable
	var cut *group.CutOff
	switch {
	case errors.As(err, &mismatch):
		return &Failure{trainerproto.FailedBadSpec, err}
	case errors.As(err, &unreachable), errors.As(err, &cut):
		return &Failure{trainerproto.FailedCutOff, err}
	}
	return err
}

// warm takes a step of the size of a shard on a model of its own.
func (r *run) warm() error {
	return r.drawingNothing(func() error {
		like, err := r.alike()
		if err != nil {
			return err
		}
		defer like.Free()
		opt, err := r.optimizer(like)
		if err != nil {
			return err
		}
		defer opt.Free()
		return r.tryStep(like, opt, max(r.settings.BatchSize/r.settings.Shards, 2))
	})
}

// engine is what members have to have in common to compute the same bits.
func (r *run) engine() string {
	s := r.settings
	s.MembersMin, s.MembersMax, s.NumWorkers = 0, 0, 0
	s.Train, s.Validation, s.Test, s.Weights = "", "", "", "" // wherever they are: the images count, and the state
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // plain values
	}
	on, _ := kernels.Chosen(r.settings.Kernels) // prepare has refused what is wrong
	device := "cpu"
	if r.device.CUDA() {
		device = "cuda"
	}
	return strings.Join([]string{
		"libtorch " + torchx.Version(), "instructions " + torchx.Instructions(), fmt.Sprintf("kernels %v", on),
		fmt.Sprintf("threads of a shard %d", r.job.Threads), "device " + device, "precision " + s.Precision,
		fmt.Sprintf("training images %.12s", r.data.train.Digest()), fmt.Sprintf("validation images %.12s", r.data.validation.Digest()),
		fmt.Sprintf("settings %.12x", sha256.Sum256(text)), fmt.Sprintf("seed %d", r.job.Seed),
		fmt.Sprintf("objective %s", r.metric), fmt.Sprintf("last epoch %d", r.job.EndEpoch),
	}, ", ")
}

// viewed tells of a view that this member is in; its pause is known after its first
// step. All members do, so that the coordinators know of each view although who
// reports in it may be gone before its word is with them.
func (r *run) viewed(v group.View) {
	r.log.Info("view", "number", v.Number, "members", v.Members, "rank", v.Rank, "step", v.Step, "reason", v.Reason, "pause", v.Pause.Seconds())
	if v.Rank < 0 || r.over {
		return
	}
	// An error comes back with the next event that has to arrive.
	_ = r.events.Send(trainerproto.Event{Kind: trainerproto.EventView,
		View: &trainerproto.View{Number: v.Number, Members: v.Members, Step: v.Step, Reason: v.Reason, Pause: v.Pause.Seconds()}})
}

// turn is a step, or a round without one, of those who are in the view.
type turn struct {
	view  group.View
	round *group.Round
}

// beginRound is the next round; present shards have images in it.
func (r *run) beginRound(present int) *turn {
	if r.group == nil {
		return nil
	}
	if r.asked().Verdict == "leave" {
		r.group.Leave()
	}
	var m group.Memory
	if present > 0 {
		m = r.shards.memory
	}
	return &turn{r.group.View(), r.group.Begin(r.at.Step+1, present, m)}
}

// errRedo is the error of a round that does not count: it is done again, from the
// position that the run has now.
var errRedo = errors.New("the step is to be done again")

// commit ends a round: the tails of all members in rank order, which have so many
// sums each. With errRedo nothing has happened; errLeft comes after a round that
// counts, for the others.
func (r *run) commit(c *turn, t handover.Tail, counts func(rank int) int) ([]handover.Tail, error) {
	now := r.asked()
	t.Verdict, t.Reported, t.Kept = handover.VerdictOf(now.Verdict), now.Reported, now.Kept
	if r.work != nil {
		t.Rate, t.Seconds = r.rate(), time.Since(r.work.began).Seconds()
	}
	raw, err := c.round.Commit(t.Append(nil))
	var changed *group.Changed
	switch {
	case errors.As(err, &changed):
		r.log.Info(trainerproto.LogAgain, "step", changed.View.Step+1, "view", changed.View.Number, "behind", changed.Behind)
		if r.work != nil {
			r.work.reposition()
		}
		if !changed.Behind {
			if err := r.shards.drop(); err != nil {
				return nil, err
			}
		}
		if err := r.takeOver(changed.View.Rank == 0); err != nil {
			return nil, err
		}
		return nil, errRedo
	case errors.Is(err, group.ErrLeft):
		return nil, errLeft
	case err != nil:
		return nil, groupFailure(err)
	}
	tails := make([]handover.Tail, len(c.view.Members))
	for rank, id := range c.view.Members {
		if tails[rank], err = handover.DecodeTail(raw[id], counts(rank)); err != nil {
			return nil, fmt.Errorf("member %d (%s): %w", id, r.group.Name(id), err)
		}
	}
	r.at.Step++
	for _, t := range tails {
		r.safe(t.Reported, t.Kept)
	}
	if v := r.group.View(); v.Number != c.view.Number && r.work != nil {
		r.work.reposition()
	}
	return tails, r.takeOver(r.group.View().Rank == 0)
}

// verdict is what the agents of all members together have asked for: the strongest.
func verdict(tails []handover.Tail) (v handover.Verdict) {
	for _, t := range tails {
		v = max(v, t.Verdict)
	}
	return v
}

// part waits, all members together, until nothing would be lost if the others
// ended: the one that reports has told of the last checkpoint, and its
// coordinators have it. It returns nil to that one and errLeft to the others.
func (r *run) part(ctx context.Context) error {
	for began := time.Now(); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.kept(false); err != nil {
			return err
		}
		safe := len(r.out.states) == 0 && len(r.out.reports) == 0 || time.Since(began) > safeWithin
		c, done := r.beginRound(0), r.out.sends && r.writer.writing == nil && r.allTold() && safe
		tails, err := r.commit(c, handover.Tail{Done: done}, nothing)
		switch {
		case errors.Is(err, errRedo):
			continue
		case err != nil:
			return err
		case tails[0].Done && c.view.Rank == 0:
			return nil
		case tails[0].Done:
			r.group.Leave()
			continue
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// dismiss sees the others off once the end is told: one of them that had not all
// of the round in which it was decided would else take this process for lost, and
// tell the end again. Members that are slow about it find out by themselves.
func (r *run) dismiss() {
	for began := time.Now(); len(r.group.View().Members) > 1 && time.Since(began) < 2*time.Second; {
		if _, err := r.commit(r.beginRound(0), handover.Tail{Done: true}, nothing); err != nil && !errors.Is(err, errRedo) {
			return
		}
	}
}

// nothing is how many sums a tail has in a round without any.
func nothing(int) int { return 0 }

// allTold reports whether this process has told of every state it has.
func (r *run) allTold() bool {
	for _, k := range r.out.states {
		if !k.told {
			return false
		}
	}
	return true
}

// pace is how the group's steps went lately; nil without one.
func (r *run) pace() *trainerproto.Pace {
	if r.group == nil {
		return nil
	}
	return r.group.Pace()
}

// alive tells that this is no hung process, until the function that it returns is
// called.
func (r *run) alive() (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(trainerproto.AlivePause)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				if r.events.Send(trainerproto.Event{Kind: trainerproto.EventAlive}) != nil {
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
}

// Links is where a member's connections to the others come from.
type Links = links.Receiver
