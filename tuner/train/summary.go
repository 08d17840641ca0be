package train

import (
	"fmt"
	"time"
)

// Summary is a line for people: how the training ended.
func (r *Result) Summary() string {
	h := r.History
	text := map[string]string{Finished: "finished", Interrupted: "interrupted", Diverged: "diverged", Failed: "failed"}[h.Status]
	if h.last() == 0 {
		if h.Status == Failed {
			return "failed before the first epoch ended"
		}
		return text + " before the first epoch ended"
	}
	if h.Status != Finished {
		text += fmt.Sprintf(" after epoch %d of %d", h.last(), r.Plan.Settings.Epochs)
	}
	text += fmt.Sprintf(" in %s: best epoch %d: val_loss %.4g, val_acc %.3f", time.Duration(h.Runtime*float64(time.Second)).Round(100*time.Millisecond), h.BestEpoch, h.BestValLoss, h.BestValAcc)
	if h.TestImages > 0 {
		text += fmt.Sprintf(", test accuracy %.3f on %s", h.TestAcc, images(h.TestImages))
	}
	if h.Status == Finished && h.last() < r.Plan.Settings.Epochs {
		text += "; " + h.Message
	}
	if Exploded(float64(h.BestValLoss)) {
		text += "; it diverged: the loss is far above that of guessing"
	}
	return text
}

func images(n int) string {
	if n == 1 {
		return "1 image"
	}
	return fmt.Sprintf("%d images", n)
}

// Exploded reports whether a loss (cross entropy) is so far above that of
// guessing, which is the logarithm of the number of classes, that the training
// has diverged although every number is finite.
func Exploded(loss float64) bool { return loss > 100 }
