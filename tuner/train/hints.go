package train

import (
	"fmt"
	"strings"

	"atelier/common/trainerproto"
	"atelier/tuner/session"
)

// failureHints are what a person can do after a failure (runbook 7.1). kept
// tells that the training left a checkpoint.
func failureHints(f *session.Failure, p *Plan, dir string, kept bool) []string {
	s := p.Settings
	if f.Remote && f.Class != trainerproto.FailedOutOfMemory && f.Class != trainerproto.FailedDiverged {
		return []string{"what the worker logged: atelier trial logs " + p.sweep + " 1"}
	}
	switch f.Class {
	case trainerproto.FailedOutOfMemory:
		var hints []string
		if f.Killed && kept {
			hints = append(hints, "to resume after the last epoch: atelier train --resume "+dir)
		}
		if s.BatchSize > 1 {
			smaller := []string{}
			for _, n := range []int{16, 8, 4, 2} {
				if n < s.BatchSize && len(smaller) < 2 {
					smaller = append(smaller, fmt.Sprint(n))
				}
			}
			hint := fmt.Sprintf("reduce --batch-size (it is %d", s.BatchSize)
			if f.Killed {
				hint = "if memory was short: " + hint
			}
			if len(smaller) > 0 {
				hint += "; try " + strings.Join(smaller, " or ")
			}
			hints = append(hints, hint+")")
		}
		if s.CutMix && s.Augment {
			hints = append(hints, "switch CutMix off for a while: --set augmentation.cutmix.enabled=false")
		}
		return append(hints, fmt.Sprintf("or take smaller images (--set image_size=N, now %d) or a smaller model (mobilenet_v2)", s.ImageSize))
	case trainerproto.FailedDiverged:
		hints := []string{fmt.Sprintf("try a lower learning rate: --lr %g (it is %g)", s.LR/10, s.LR)}
		if s.ClipNorm == 0 {
			hints = append(hints, "or bound the gradients: --set clip_norm=1")
		}
		if !kept {
			return append(hints, "no epoch ended, so there is no model; start again with other settings (--out DIR or --overwrite)")
		}
		return append(hints, "the last good checkpoint is kept; a training with other settings starts from the beginning (--out DIR or --overwrite)")
	case trainerproto.FailedDiskFull:
		return []string{"free some disk space for " + dir + ", then resume: atelier train --resume " + dir}
	case trainerproto.FailedDeviceFault:
		return []string{"train on another device (--set device=cpu), or look at the GPU's health (nvidia-smi), then resume: atelier train --resume " + dir}
	case trainerproto.FailedCrashed:
		return []string{"the trainer's log is " + dir + "/" + session.ResumeDir + "/" + logFile}
	}
	return nil
}

// hints are what the numbers of a training suggest (runbook 7.1 and 8).
func (r *Result) hints() []string {
	h, s := r.History, r.Plan.Settings
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	if len(h.Epochs) == 0 {
		return nil
	}
	classes := 0
	if f := r.Plan.Data[0].Folder; f != nil {
		classes = len(f.Classes)
		counts := f.Counts()
		least, most := counts[0], counts[0]
		for _, n := range counts {
			least, most = min(least, n), max(most, n)
		}
		if most >= 2*least && s.ClassWeights == "none" && s.Sampling == "shuffle" {
			say("classes are out of balance (%d to %d images): consider --set class_weights=balanced or --set sampling=balanced", least, most)
		}
	}
	at := h.at(h.BestEpoch)
	if at < 0 {
		return out
	}
	if Exploded(float64(h.BestValLoss)) {
		say("the loss is far above that of guessing (%.4g): it diverged; try a lower learning rate: --lr %.4g (it is %.4g)", float64(h.BestValLoss), s.LR/10, s.LR)
		return out
	}
	trainAcc, valAcc := float64(h.TrainAcc[at]), float64(h.BestValAcc)
	if chance := 1 / float64(max(classes, 1)); classes > 1 && len(h.Epochs) >= 3 && valAcc < 1.2*chance {
		say("the model hardly learns (validation accuracy %.1f %%, chance is %.1f %%): check the split of the data, try another --lr (it is %g), raise --patience", 100*valAcc, 100*chance, s.LR)
	} else if trainAcc-valAcc > 0.15 {
		remedy := "more images, a higher dropout_rate or weight_decay"
		if !s.CutMix || !s.Augment {
			remedy = "CutMix (--set augmentation.cutmix.enabled=true), " + remedy
		}
		if s.Weights != "" && !s.FreezeFeatures {
			remedy += ", --freeze-features"
		}
		say("it knows the training images better than others (accuracy %.1f %% against %.1f %%): %s may help", 100*trainAcc, 100*valAcc, remedy)
	}
	if h.Status == Finished && h.BestEpoch == h.last() && h.last() == s.Epochs && s.Epochs >= 3 {
		say("the last epoch was the best: more may help (atelier train --resume %s --epochs %d)", r.Folder, 2*s.Epochs)
	}
	if s.Patience == 0 && h.Status == Finished && len(h.Epochs) >= 10 && h.last()-h.BestEpoch > len(h.Epochs)/2 {
		say("nothing got better after epoch %d of %d: --patience N would have ended it sooner", h.BestEpoch, h.last())
	}
	return out
}
