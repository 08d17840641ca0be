package search

import (
	"math"
	"math/rand/v2"
)

const (
	regionAxes  = 10 // spaces of at most so many axes are searched whole
	regionFirst = 0.8
	regionLeast = 1.0 / 128
	regionWins  = 3 // improvements in a row that widen the region
)

// confine sets the box that candidates come from. In few dimensions that is the
// whole cube. In many the model is trusted near the best point only (TuRBO:
// Eriksson et al., 2019): the box doubles after some improvements in a row and
// halves after as many failures as there are axes; when it has collapsed, the
// next trials start from the whole cube again. Its size is replayed from the
// history, so that it is no state.
func (s *searcher) confine(done []observation) {
	d := len(s.category)
	s.low, s.high = make([]float64, d), make([]float64, d)
	for j := range s.high {
		s.high[j] = 1
	}
	if d <= regionAxes || len(s.top) == 0 {
		return
	}
	size := regionSize(done, d)
	s.centre = s.top[0].unit
	// Sides are as long as the model's length scales, the volume as the size says.
	mean := 0.0
	for _, w := range s.g.weight {
		mean -= 0.5 * math.Log(w) / float64(d)
	}
	for j, w := range s.g.weight {
		if s.category[j] {
			continue
		}
		side := size * math.Min(4, math.Max(0.25, math.Exp(-0.5*math.Log(w)-mean)))
		s.low[j] = math.Max(0, s.centre[j]-side/2)
		s.high[j] = math.Min(1, s.centre[j]+side/2)
	}
}

// regionSize replays the successes and failures of the history.
func regionSize(done []observation, d int) float64 {
	size, best := regionFirst, math.Inf(1)
	wins, losses := 0, 0
	far := violations(done)
	for i := range done {
		o := &done[i]
		won := o.result == scored && (far == nil || far[i] == 0) && (math.IsInf(best, 1) || o.value < best-1e-3*math.Abs(best))
		if won {
			best = o.value
		}
		if i < 2*d { // the design, and a look round
			continue
		}
		if won {
			wins, losses = wins+1, 0
		} else {
			wins, losses = 0, losses+1
		}
		switch {
		case wins == regionWins:
			size, wins = math.Min(2*size, 1.6), 0
		case losses == max(4, d):
			size, losses = size/2, 0
			if size < regionLeast {
				size = regionFirst
			}
		}
	}
	return size
}

// perturb keeps some axes of a candidate at the best point's: in many
// dimensions a step along a few is more likely to be a good one.
func (s *searcher) perturb(u []float64, rng *rand.Rand) []float64 {
	if s.centre == nil {
		return u
	}
	share := math.Min(1, 20/float64(len(u)))
	sure := rng.IntN(len(u))
	for j := range u {
		if j != sure && rng.Float64() >= share {
			u[j] = s.centre[j]
		}
	}
	return u
}
