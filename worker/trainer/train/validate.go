//go:build libtorch

package train

import (
	"context"

	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// toValidate is how many batches the validation set has.
func (r *run) toValidate() int {
	size := r.settings.BatchSize
	return (r.data.validation.Len() + size - 1) / size
}

// validated reports whether all of them are measured.
func (r *run) validated() bool { return len(r.at.Validation) >= r.toValidate() }

// validation is the sums of all batches, added in their order.
func (r *run) validation() (all sums) {
	for _, s := range r.at.Validation {
		all.Add(s)
	}
	return all
}

// measureSome measures validation batches that are left: all, or of a group one
// for each member, who tell each other what they counted.
func (r *run) measureSome(ctx context.Context) error {
	done, all := len(r.at.Validation), r.toValidate()
	round := r.beginRound(0)
	if round == nil {
		results, err := r.measureBatches(ctx, done, all)
		r.at.Validation = results
		return err
	}
	if err := r.between(ctx, 0); err != nil {
		return err
	}
	of := func(rank int) (from, to int) { return min(done+rank, all), min(done+rank+1, all) }
	from, to := of(round.view.Rank)
	own, err := r.measureBatches(ctx, from, to)
	if err != nil {
		return err
	}
	tails, err := r.commit(round, handover.Tail{Sums: own}, func(rank int) int { from, to := of(rank); return to - from })
	for _, t := range tails {
		r.at.Validation = append(r.at.Validation, t.Sums...)
	}
	if val := scoreOf(r.validation()); err == nil && !finite(val.loss) {
		return diverged(r.at.Epoch, "train_loss %g, val_loss %g", scoreOf(r.at.Train).loss, val.loss)
	}
	return err
}

// measureBatches is the sums of the validation batches from up to to, with the averaged
// weights if there are any.
func (r *run) measureBatches(ctx context.Context, from, to int) (results []sums, err error) {
	var counted []*tally // read at the end: until then nothing waits for a GPU
	defer func() {
		for _, t := range counted {
			t.free()
		}
	}()
	batches := r.data.whole(r.data.validation, r.settings.BatchSize)
	batches.pieces = batches.pieces[from:to]
	defer batches.close()
	r.pass.Training = false
	err = r.averaged(func() error {
		return torchx.NoGrad(func() error {
			for range batches.len() {
				if err := ctx.Err(); err != nil {
					return err
				}
				t, err := r.newTally()
				if err != nil {
					return err
				}
				counted = append(counted, t)
				b, err := batches.next()
				if err != nil {
					return err
				}
				_, err = r.forward(&b, t)
				r.pass.Close()
				b.free()
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	for _, t := range counted {
		if err != nil {
			break
		}
		var one sums
		one, err = t.peek()
		results = append(results, one)
	}
	return results, err
}

// averaged runs f while the model holds the averaged weights, or its own where
// no average is kept.
func (r *run) averaged(f func() error) error {
	if r.average == nil {
		return f()
	}
	return r.average.Show(f)
}
