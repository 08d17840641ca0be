package train

import (
	"fmt"
	"time"
)

// Summary is a line for people: how the training ended.
func (r *Result) Summary() string {
	h := r.History
	text := map[string]string{Finished: "finished", Interrupted: "interrupted", Diverged: "diverged", Failed: "ended early"}[h.Status]
	if h.last() == 0 {
		return text + " before the end of the first epoch"
	}
	if h.Status != Finished {
		text += fmt.Sprintf(" after epoch %d of %d", h.last(), r.Plan.Settings.Epochs)
	}
	text += fmt.Sprintf(" in %s: best val_loss %.4f, val_acc %.3f (epoch %d)", time.Duration(h.Runtime*float64(time.Second)).Round(100*time.Millisecond), h.BestValLoss, h.BestValAcc, h.BestEpoch)
	if h.TestImages > 0 {
		text += fmt.Sprintf(", test accuracy %.3f on %d images", h.TestAcc, h.TestImages)
	}
	if h.Status == Finished && h.last() < r.Plan.Settings.Epochs {
		text += "; " + h.Message
	}
	return text
}
