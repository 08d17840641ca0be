// Package schedule says how large an update's step is: constant, step, cosine
// or plateau, after a linear warm-up, with the values of PyTorch's
// lr_scheduler classes.
//
// Everything here is a pure function of the settings and of how far the run
// has come: a resumed run takes the very steps an uninterrupted one does. The
// package keeps no state and knows no optimiser.
package schedule

import "math"

// Kinds of schedules.
const (
	Constant = "constant"
	Step     = "step"    // StepLR: times Gamma every StepEpochs epochs
	Cosine   = "cosine"  // CosineAnnealingLR, stepped each update: from LR to Min over what the warm-up leaves
	Plateau  = "plateau" // ReduceLROnPlateau: times Gamma after StepEpochs epochs without a better objective
)

// Schedule is a run's. Epochs are counted from the end of the warm-up.
type Schedule struct {
	Kind       string
	LR         float64 // at the end of the warm-up
	Min        float64 // no drop goes below; where cosine ends
	Gamma      float64 // factor of a drop
	StepEpochs int
	Epochs     int     // of the whole run, warm-up included
	Warmup     float64 // epochs
}

// Position is where a run stands before an update.
type Position struct {
	Epoch   int // complete ones
	Update  int // complete ones of this epoch
	Updates int // of an epoch
	Drops   int // of plateau, see State
}

// At is the learning rate of the update at p.
//
// The warm-up is LinearLR(start_factor=1/(n+1), total_iters=n) for n updates:
// the first one already learns, the one after the last has the whole rate.
func (s Schedule) At(p Position) float64 {
	t, warm := p.Epoch*p.Updates+p.Update, s.warm(p.Updates)
	if t < warm {
		return s.LR * float64(t+1) / float64(warm+1)
	}
	t -= warm
	switch s.Kind {
	case Step:
		return s.dropped(t / (s.StepEpochs * p.Updates))
	case Plateau:
		return s.dropped(p.Drops)
	case Cosine:
		all := s.Epochs*p.Updates - warm
		return s.Min + (s.LR-s.Min)*(1+math.Cos(math.Pi*float64(t)/float64(all)))/2
	}
	return s.LR
}

// warm is the length of the warm-up in updates.
func (s Schedule) warm(updates int) int {
	return int(math.Ceil(s.Warmup * float64(updates)))
}

func (s Schedule) dropped(times int) float64 {
	return max(s.LR*math.Pow(s.Gamma, float64(times)), min(s.Min, s.LR))
}

// State is what plateau knows of the past. The zero value knows nothing.
type State struct {
	Best  float64
	Known bool // Best is
	Bad   int  // epochs in a row that were not better
	Drops int
}

// threshold is ReduceLROnPlateau's: by which part a value must be better.
const threshold = 1e-4

// Observe returns the state after an epoch (from 1) with its objective. NaN is
// not better. Epochs of the warm-up do not count.
func (s Schedule) Observe(st State, epoch int, objective float64, maximize bool) State {
	if float64(epoch) <= s.Warmup {
		return st
	}
	better := objective < st.Best*(1-threshold)
	if maximize {
		better = objective > st.Best*(1+threshold)
	}
	if better || (!st.Known && !math.IsNaN(objective)) {
		st.Best, st.Known, st.Bad = objective, true, 0
		return st
	}
	if st.Bad++; st.Bad >= s.StepEpochs { // PyTorch's patience is one less
		st.Bad = 0
		st.Drops++
	}
	return st
}
