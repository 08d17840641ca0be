//go:build libtorch

package train

import (
	"context"
	"fmt"

	"atelier/worker/trainer/group"
	"atelier/worker/trainer/optim/schedule"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// trained reports whether every update of the epoch is done.
func (r *run) trained() bool { return r.at.Update >= r.work.plan.updates() }

// step is one update: the gradients of its shards, each of its batches' pieces one
// after the other, then the weights. An end before it is done is *ended; of a
// group, errRedo means that it has to be done again.
func (r *run) step(ctx context.Context) error {
	w, u := r.work, r.at.Update
	from, to := r.share(w.plan.present(u))
	if w.loader == nil {
		first, last := r.share(r.settings.Shards)
		w.loader = r.data.training(r.at.Epoch, w.plan.order, w.plan.from(u, first, last))
	}
	if err := r.shards.begin(from, to, w.plan.present(u)); err != nil {
		return err
	}
	round := r.beginRound(w.plan.present(u))
	own, err := r.gradients(ctx, from, to)
	if err != nil {
		return err
	}
	asked, err := r.agree(round, own)
	if err != nil {
		return err
	}
	if err := r.shards.apply(w.plan.batchesOf(u)); err != nil {
		return err
	}
	r.at.LR = r.schedule.At(schedule.Position{Epoch: r.at.Epoch - 1, Update: u, Updates: w.plan.updates(), Drops: r.at.Last.Plateau.Drops})
	if err := r.update(r.at.LR); err != nil {
		return err
	}
	r.at.Update++
	if err := r.tellBatch(); err != nil {
		return err
	}
	if asked != handover.Continue {
		_, done := w.plan.batchesOf(u)
		return r.endAs(asked, done)
	}
	if r.group != nil || !r.trained() {
		return nil
	}
	r.at.Train, err = w.tally.take()
	r.at.Rate = r.rate()
	return err
}

// gradients are those of the shards from up to to. It returns what a group wants
// to know of each piece.
func (r *run) gradients(ctx context.Context, from, to int) (own []sums, err error) {
	w, u := r.work, r.at.Update
	for s := from; s < to; s++ {
		parts := w.plan.parts(u, s)
		for i, p := range parts {
			if err := r.between(ctx, p.batch); err != nil {
				return nil, err
			}
			b, err := w.loader.next()
			if err != nil {
				return nil, err
			}
			if i == len(parts)-1 {
				if err := r.shards.arm(s, w.plan.present(u)); err != nil {
					b.free()
					return nil, err
				}
			}
			if err := r.learn(b, p); err != nil {
				return nil, err
			}
			if r.group == nil {
				continue
			}
			one, err := w.tally.take()
			if err != nil {
				return nil, err
			}
			own = append(own, one)
		}
		if err := r.shards.added(); err != nil {
			return nil, err
		}
	}
	return own, nil
}

// agree commits the step with the other members, and counts what all have
// counted: piece by piece, in the order in which one process works. A loss that is
// no number ends all alike. It returns what was asked of the run.
func (r *run) agree(round *turn, own []sums) (handover.Verdict, error) {
	if round == nil {
		return handover.Continue, nil
	}
	u, present := r.at.Update, r.work.plan.present(r.at.Update)
	pieces := func(rank int) []piece {
		from, to := group.Share(r.settings.Shards, len(round.view.Members), rank)
		var all []piece
		for s := from; s < min(to, present); s++ {
			all = append(all, r.work.plan.parts(u, s)...)
		}
		return all
	}
	tails, err := r.commit(round, handover.Tail{Sums: own}, func(rank int) int { return len(pieces(rank)) })
	if err != nil {
		return handover.Continue, err
	}
	for rank, t := range tails {
		for i, p := range pieces(rank) {
			if !finite(t.Sums[i][0]) {
				return handover.Continue, diverged(r.at.Epoch, "loss %g in batch %d", t.Sums[i][0], p.batch+1)
			}
			r.at.Train.Add(t.Sums[i])
		}
	}
	r.at.Rate, r.at.Seconds = tails[0].Rate, tails[0].Seconds
	return verdict(tails), nil
}

// share is this process's part of so many shards.
func (r *run) share(present int) (from, to int) {
	if r.group == nil {
		return 0, present
	}
	v := r.group.View()
	return min(v.From, present), min(v.To, present)
}

// between is what is looked at before each piece of a batch.
func (r *run) between(ctx context.Context, batch int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v := handover.VerdictOf(r.asked().Verdict); r.group == nil && v != handover.Continue {
		return r.endAs(v, batch)
	}
	return r.kept(false)
}

// endAs is the end that was asked for, after so many batches of the epoch.
func (r *run) endAs(v handover.Verdict, batches int) error {
	return &ended{Reason: v.Reason(), Message: fmt.Sprintf("asked to %s in epoch %d, after %d of %d batches", v, r.at.Epoch, batches, r.work.plan.batches())}
}

// learn is one piece of a batch: forward, loss, backward. It frees the batch.
func (r *run) learn(b batch, p piece) error {
	defer b.free()
	if r.shards != nil {
		if err := torchx.Seed(randomState(r.job.Seed, passRandom, r.at.Epoch, p.batch, p.shard)); err != nil {
			return err
		}
	}
	r.pass.Training = true
	defer r.pass.Close()
	loss, err := r.forward(&b, r.work.tally)
	if err != nil {
		return err
	}
	if r.group == nil && !r.device.CUDA() { // there, reading the loss would wait for the GPU; the epoch's mean tells as well
		v, err := torchx.Item(loss)
		if err != nil {
			return err
		}
		if !finite(v) {
			return diverged(r.at.Epoch, "loss %g in batch %d", v, p.batch+1)
		}
	}
	share := r.work.plan.share(p)
	if r.scaler != nil {
		share *= r.scaler.Scale
	}
	return torchx.BackwardScaled(loss, share)
}

// update moves the weights by the gradients gathered so far.
func (r *run) update(lr float64) error {
	if r.scaler != nil {
		step, err := r.scaler.Unscale(r.opt)
		if err != nil {
			return err
		}
		if r.scaler.Lost() {
			return diverged(r.at.Epoch, "gradients are not finite at any loss scale")
		}
		if !step {
			return nil
		}
	}
	if r.settings.ClipNorm > 0 {
		if err := r.opt.Clip(r.settings.ClipNorm); err != nil {
			return err
		}
	}
	if err := r.opt.Step(lr); err != nil {
		return err
	}
	if r.average != nil {
		return r.average.Update()
	}
	return nil
}

// forward computes the loss of a batch and counts it.
func (r *run) forward(b *batch, t *tally) (loss torchx.Tensor, err error) {
	err = torchx.Autocast(r.device, r.precision, func() error {
		logits := r.model.Forward(&r.pass, b.x)
		loss = r.criterion.loss(&r.pass, logits, b)
		return torchx.Tally(t.counts, logits, b.answers(), loss)
	})
	return loss, err
}
