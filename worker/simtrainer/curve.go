package simtrainer

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"slices"

	"atelier/common/trainerproto"
)

// curve is a learning curve: the validation loss falls from start to floor at a
// rate. Floor and rate come from the distance of each parameter to an optimum
// that the landscape's seed places; a little noise comes from the trial's seed.
// The value at an epoch is a function of these alone, so a resumed run goes on
// exactly where an uninterrupted one would be.
type curve struct {
	floor float64
	rate  float64 // of the exponential fall, per epoch
	seed  uint64
}

const (
	startLoss = 1.6 // about ln 5: five classes, nothing learned
	bestLoss  = 0.15
)

// known parameters: how they are scaled, where the optimum is on that scale
// before the landscape shifts it, and how wide the valley is.
var known = map[string]struct {
	scale  func(float64) float64
	centre float64
	width  float64
}{
	"lr":            {log10, -2.5, 1.5},
	"learning_rate": {log10, -2.5, 1.5},
	"weight_decay":  {log10, -4, 2.5},
	"batch_size":    {math.Log2, 5, 3},
	"momentum":      {linear, 0.85, 0.5},
	"depth":         {linear, 3, 2.5},
	"dropout":       {linear, 0.3, 0.4},
}

func linear(x float64) float64 { return x }
func log10(x float64) float64  { return math.Log10(x) }

// Kinds of curves. Quadratic ones seldom cross: the nearer the learning rate is
// to its optimum, the faster they fall, and the lower. Crossing ones fall the
// faster the higher the learning rate is, so that the first epochs mislead.
const (
	quadratic = "quadratic"
	crossing  = "crossing"
)

// newCurve reads the parameters, a JSON object of numbers, strings and bools.
func newCurve(kind string, landscape, seed uint64, params json.RawMessage) (curve, error) {
	var values map[string]any
	if len(params) > 0 {
		if err := json.Unmarshal(params, &values); err != nil {
			return curve{}, fmt.Errorf("params: %w", err)
		}
	}
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	slices.Sort(names)
	penalty, slow, high := 0.0, 0.0, 0.0
	for _, n := range names {
		d := distance(landscape, n, values[n])
		penalty += d * d / (1 + 0.25*d*d)
		if n == "lr" || n == "learning_rate" {
			slow, high = min(math.Abs(d), 3), min(max(d, -2), 2)
		}
	}
	// Saturates: the worst point learns nothing, however many parameters there are.
	floor := bestLoss + (startLoss-bestLoss)*(1-math.Exp(-0.35*penalty))
	rate := 0.9 / (1 + slow)
	if kind == crossing {
		rate = 0.12 * math.Exp(1.1*high)
	}
	return curve{floor: floor, rate: rate, seed: seed}, nil
}

// distance of a parameter's value to its optimum, in widths of the valley.
func distance(landscape uint64, name string, value any) float64 {
	shift := unit(landscape, name, "")*2 - 1
	switch v := value.(type) {
	case float64:
		if k, ok := known[name]; ok {
			x := k.scale(v)
			if math.IsInf(x, 0) || math.IsNaN(x) {
				return 6 // a rate of zero, a negative size
			}
			return (x - k.centre - 0.25*shift*k.width) / k.width
		}
		x := v / (1 + math.Abs(v)) // any number to (-1, 1), smoothly
		return (x - 0.5*shift) / 0.7
	case string:
		return 1.2 * unit(landscape, name, "s:"+v)
	case bool:
		return 1.2 * unit(landscape, name, fmt.Sprintf("b:%t", v))
	}
	return 0
}

// metrics of an epoch from 1: val_loss first.
func (c curve) metrics(epoch int) trainerproto.Metrics {
	fall := math.Exp(-c.rate * float64(epoch))
	loss := c.floor + (startLoss-c.floor)*fall + 0.01*(unit(c.seed, "loss", fmt.Sprint(epoch))-0.5)
	acc := math.Exp(-0.55*math.Max(loss, 0)) + 0.004*(unit(c.seed, "acc", fmt.Sprint(epoch))-0.5)
	train := loss * (1 - 0.25*(1-fall))
	return trainerproto.Metrics{{Name: "val_loss", Value: loss}, {Name: "val_acc", Value: math.Min(math.Max(acc, 0), 1)}, {Name: "train_loss", Value: train}}
}

// unit is a number in [0, 1) that depends on its arguments alone.
func unit(seed uint64, name, value string) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%s", seed, name, value)
	x := h.Sum64()
	// FNV leaves the high bits of short inputs alike: mix them (splitmix64).
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}
