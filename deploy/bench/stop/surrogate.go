package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// point is a place in the space of the surrogate; its JSON is what the trainer
// takes as a trial's parameters.
type point struct {
	LR          float64 `json:"lr"`
	WeightDecay float64 `json:"weight_decay"`
	BatchSize   int     `json:"batch_size"`
	Model       string  `json:"model"`
	Schedule    string  `json:"schedule"`
}

// curve is one real training: validation accuracy and loss after each epoch.
type curve struct {
	Point point     `json:"point"`
	Acc   []float64 `json:"val_acc"`
	Loss  []float64 `json:"val_loss"`
}

// recording is the file of curves.
type recording struct {
	Curves []curve `json:"curves"`
}

//go:embed testdata/curves.json
var recorded []byte

// Bounds of the space.
const (
	lowLR, highLR       = 1e-3, 0.5
	lowDecay, highDecay = 1e-5, 3e-2
)

var (
	batchSizes = []int{16, 64}
	models     = []string{"vanilla", "resnet18"}
	schedules  = []string{"constant", "cosine"}
)

// place is the n-th recorded configuration, n from 1: Halton's points.
func place(n int) point {
	return at(halton(n, 2), halton(n, 3), int(2*halton(n, 5)), int(2*halton(n, 7)), int(2*halton(n, 11)))
}

func at(u, v float64, batch, model, schedule int) point {
	geometric := func(low, high, u float64) float64 {
		x := low * math.Pow(high/low, u)
		digits := math.Pow(10, 3-math.Ceil(math.Log10(x)))
		return math.Round(x*digits) / digits
	}
	return point{LR: geometric(lowLR, highLR, u), WeightDecay: geometric(lowDecay, highDecay, v),
		BatchSize: batchSizes[batch], Model: models[model], Schedule: schedules[schedule]}
}

func halton(n, base int) float64 {
	f, r := 1.0, 0.0
	for ; n > 0; n /= base {
		f /= float64(base)
		r += f * float64(n%base)
	}
	return r
}

// draw is a random place.
func draw(r *rand.Rand) point {
	return at(r.Float64(), r.Float64(), r.IntN(2), r.IntN(2), r.IntN(2))
}

// surrogate stands for a training anywhere in the space: a mean of the recorded
// curves, smoothed and weighted by nearness (Nadaraya and Watson's estimate),
// and what smoothing took from the nearest, so that it jumps from epoch to epoch
// as real trainings do. Losses are averaged as logarithms: early ones
// of high learning rates are thousands of times those of others.
type surrogate struct {
	points []point
	curves [][]float64 // of one metric, as recorded, all of the same length; logarithms of a loss
	smooth [][]float64 // running medians of five epochs
	loss   bool
}

// newSurrogate makes one of a metric of the recording: val_acc or val_loss.
func newSurrogate(metric string) (*surrogate, error) {
	var set recording
	if err := json.Unmarshal(recorded, &set); err != nil {
		return nil, fmt.Errorf("recorded curves: %w", err)
	}
	s := &surrogate{loss: metric == "val_loss"}
	length, worst := 0, 0.0
	for _, c := range set.Curves {
		values := c.Acc
		if s.loss {
			values = nil
			for _, v := range c.Loss {
				values = append(values, math.Log(max(v, 1e-9)))
				worst = max(worst, values[len(values)-1])
			}
		}
		length = max(length, len(values))
		s.points = append(s.points, c.Point)
		s.curves = append(s.curves, values)
	}
	for i, c := range s.curves {
		for len(c) < length { // it diverged: as bad as can be from there
			c = append(c, worst)
		}
		s.curves[i] = c
		s.smooth = append(s.smooth, medians(c))
	}
	return s, nil
}

func (s *surrogate) epochs() int { return len(s.curves[0]) }

// Widths of the kernel: how far a recorded curve speaks, in decades of the
// learning rate and of weight decay; other settings count as so far away.
const (
	widthLR, widthDecay                   = 0.25, 0.8
	otherBatch, otherModel, otherSchedule = 1.2, 1.8, 1.2
)

func (s *surrogate) weights(p point) []float64 {
	w := make([]float64, len(s.points))
	nearest := math.Inf(1)
	for i, q := range s.points {
		lr, decay := math.Log10(p.LR/q.LR)/widthLR, math.Log10(p.WeightDecay/q.WeightDecay)/widthDecay
		w[i] = lr*lr + decay*decay
		for _, other := range []struct {
			is   bool
			away float64
		}{{p.BatchSize != q.BatchSize, otherBatch}, {p.Model != q.Model, otherModel}, {p.Schedule != q.Schedule, otherSchedule}} {
			if other.is {
				w[i] += other.away * other.away
			}
		}
		nearest = min(nearest, w[i])
	}
	sum := 0.0
	for i := range w {
		w[i] = math.Exp(-(w[i] - nearest) / 2)
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// train returns the metric after each epoch of a training at p, and what it
// would be at the last one without noise.
func (s *surrogate) train(p point, r *rand.Rand) (values []float64, worth float64) {
	values = make([]float64, s.epochs())
	w := s.weights(p)
	jumps := 0 // the curve whose jumps it has: the nearest
	for i, share := range w {
		if share > w[jumps] {
			jumps = i
		}
		for e, v := range s.smooth[i] {
			values[e] += share * v
		}
	}
	natural := func(v float64) float64 {
		if s.loss {
			return math.Exp(v)
		}
		return min(max(v, 0), 1)
	}
	worth = natural(values[len(values)-1])
	for e := range values {
		from := min(max(e-2+r.IntN(5), 0), len(values)-1)
		values[e] = natural(values[e] + s.curves[jumps][from] - s.smooth[jumps][from])
	}
	return values, worth
}

// medians are those of five epochs, of fewer at the ends.
func medians(c []float64) []float64 {
	out := make([]float64, len(c))
	for e := range c {
		near := min(e, len(c)-1-e, 2)
		window := slices.Sorted(slices.Values(c[e-near : e+near+1]))
		out[e] = window[near]
	}
	return out
}
