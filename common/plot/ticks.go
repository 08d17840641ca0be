package plot

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot/vg"
)

// tick is a place on an axis; an empty label is a small mark between.
type tick struct {
	at    float64
	label string
}

// axis is one of a chart: its range, and how values are written on it.
type axis struct {
	name      string
	low, high float64
	log       bool
	whole     bool     // ticks at whole numbers alone
	base      bool     // 0 is the frame itself: what grows from it
	percent   bool     // values are shares, written as per cent
	names     []string // of the whole numbers from 0, in place of numbers
}

// share is a value's place on the axis, 0 at its low end; NaN where a
// logarithm has none.
func (a *axis) share(v float64) float64 {
	if !a.log {
		return (v - a.low) / (a.high - a.low)
	}
	if v <= 0 {
		return math.NaN()
	}
	return math.Log(v/a.low) / math.Log(a.high/a.low)
}

// take widens the range to hold a value.
func (a *axis) take(v float64) {
	if finite(v) && (!a.log || v > 0) {
		a.low, a.high = math.Min(a.low, v), math.Max(a.high, v)
	}
}

// settle ends the choice of a range: a little air at both ends, so that no
// point sits on the frame; from 0 where that is not far; never empty. low and
// high, if given, are bounds that data may lie beyond.
func (a *axis) settle(low, high *float64) {
	if a.names != nil {
		a.low, a.high, a.log = -0.5, float64(len(a.names))-0.5, false
		return
	}
	const air = 0.04
	if low != nil {
		a.low = *low
	}
	if high != nil {
		a.high = *high
	}
	if a.low > a.high {
		a.low, a.high = 0, 1
	}
	if a.log = a.log && a.low > 0; a.log {
		if a.low == a.high {
			a.low, a.high = a.low/2, a.high*2
		}
		times := math.Pow(a.high/a.low, air)
		a.low, a.high = a.low/times, a.high*times
		return
	}
	if a.base && a.low == 0 {
		a.high += (a.high - a.low) * air
		if a.high == 0 {
			a.high = 1
		}
		return
	}
	near := 0.3
	if a.whole { // an axis of 1 to 5 has no 0
		near = 0.12
	}
	zero := low == nil && a.low >= 0 && a.low <= near*a.high && a.high > 0
	if a.low == a.high && !zero {
		d := math.Max(math.Abs(a.low)*0.05, 1e-9)
		if a.whole {
			d = 1
		}
		a.low, a.high = a.low-d, a.high+d
		return
	}
	if zero {
		a.low = 0
	}
	room := (a.high - a.low) * air
	if a.whole {
		room = max(room, 0.2)
	}
	a.high += room
	if !zero {
		a.low -= room
	} else if a.low >= 0 {
		a.low -= room / 4
	}
}

// ticks are about one for each `each` points of an axis of this length: at 1,
// 2 and 5 times powers of ten, all written with the same number of decimals.
func (a *axis) ticks(length, each vg.Length) []tick {
	if a.names != nil {
		out := make([]tick, len(a.names))
		for i, n := range a.names {
			out[i] = tick{float64(i), n}
		}
		return out
	}
	most := max(int(length/each), 2)
	if a.log && a.high/a.low > 3 {
		return a.decades(most)
	}
	return a.even(most)
}

func (a *axis) even(most int) []tick {
	step := niceStep((a.high-a.low)/float64(most), a.whole)
	if a.percent {
		step = max(step, 0.001)
	}
	var at []float64
	for i := math.Ceil(a.low/step - 1e-9); i*step <= a.high+step*1e-9; i++ {
		if v := i * step; !a.log || v > 0 {
			at = append(at, v+0) // no minus 0
		}
	}
	labels := a.write(at, step)
	out := make([]tick, len(at))
	for i := range at {
		out[i] = tick{at[i], labels[i]}
	}
	return out
}

// niceStep is the smallest of 1, 2, 5 times a power of ten that is not below
// step; whole numbers have no smaller one than 1.
func niceStep(step float64, whole bool) float64 {
	if step <= 0 || !finite(step) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(step)))
	nice := 10 * power
	for _, m := range []float64{1, 2, 5} {
		if m*power >= step*(1-1e-9) {
			nice = m * power
			break
		}
	}
	if whole {
		nice = max(nice, 1)
	}
	return nice
}

// decades are the ticks of a logarithmic axis: powers of ten, where they are
// few also 2 and 5 times them.
func (a *axis) decades(most int) []tick {
	first, last := int(math.Floor(math.Log10(a.low))), int(math.Ceil(math.Log10(a.high)))
	span := math.Log10(a.high / a.low)
	every := max(1, int(math.Ceil(span/float64(most))))
	multiples := []float64{1}
	switch {
	case span*3 <= float64(most) || span < 1:
		multiples = []float64{1, 2, 5}
	case span*2 <= float64(most) && span < 2:
		multiples = []float64{1, 3}
	}
	var out []tick
	var labelled []float64
	for d := first; d <= last; d++ {
		for m := 1; m <= 9; m++ {
			v := float64(m) * math.Pow(10, float64(d))
			if v < a.low*(1-1e-9) || v > a.high*(1+1e-9) {
				continue
			}
			t := tick{at: v}
			for _, x := range multiples {
				if float64(m) == x && (d%every == 0 || len(multiples) > 1) {
					t.label = "?"
					labelled = append(labelled, v)
				}
			}
			if t.label != "" || every == 1 && span < 6 {
				out = append(out, t)
			}
		}
	}
	labels := a.write(labelled, 0)
	for i := range out {
		if out[i].label != "" {
			out[i].label, labels = labels[0], labels[1:]
		}
	}
	return out
}

// write gives the numbers of an axis one form: so many decimals as the step
// has, or all with an exponent. A step of 0 leaves decimals to each.
func (a *axis) write(values []float64, step float64) []string {
	out := make([]string, len(values))
	largest, smallest := 0.0, math.Inf(1)
	for _, v := range values {
		largest = math.Max(largest, math.Abs(v))
		if v != 0 {
			smallest = math.Min(smallest, math.Abs(v))
		}
	}
	for i, v := range values {
		switch {
		case a.percent:
			out[i] = decimals(100*v, places(100*step)) + " %"
		case largest >= 1e6 || smallest < 1e-4 && largest < 1 && step == 0 || step > 0 && step < 1e-4:
			out[i] = exponent(v, 3)
		case step == 0:
			out[i] = Number(v)
		default:
			out[i] = decimals(v, places(step))
		}
	}
	return out
}

// places is how many decimals a step needs.
func places(step float64) int {
	if step <= 0 {
		return 0
	}
	return max(0, -int(math.Floor(math.Log10(step)+1e-9)))
}

// decimals writes a number with so many decimals, thousands apart.
func decimals(v float64, n int) string {
	s := strconv.FormatFloat(v, 'f', n, 64)
	if strings.Trim(s, "-0.") == "" {
		s = strings.TrimPrefix(s, "-")
	}
	whole, rest, found := strings.Cut(s, ".")
	if found {
		rest = "." + rest
	}
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return sign + whole + rest
}

// exponent writes 1.5e-5: no zeros that say nothing.
func exponent(v float64, figures int) string {
	if v == 0 {
		return "0"
	}
	s := strconv.FormatFloat(v, 'e', figures-1, 64)
	mantissa, power, _ := strings.Cut(s, "e")
	if strings.Contains(mantissa, ".") {
		mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
	}
	n, _ := strconv.Atoi(power)
	return mantissa + "e" + strconv.Itoa(n)
}

// Number writes a value in at most four figures, as charts need it.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 1e6 || a < 1e-4:
		return exponent(v, 3)
	case a >= 1e3:
		return decimals(v, 0)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Count writes a number of things, thousands apart.
func Count(n int) string { return decimals(float64(n), 0) }

// Numbers writes values that are compared with one another: all with the same
// decimals, so many as tell them apart and no more than four figures of the
// largest.
func Numbers(values []float64) []string {
	largest, smallest := 0.0, math.Inf(1)
	whole := true
	for _, v := range values {
		if finite(v) {
			largest, smallest = math.Max(largest, math.Abs(v)), math.Min(smallest, math.Abs(v))
			whole = whole && v == math.Trunc(v)
		}
	}
	out := make([]string, len(values))
	for i, v := range values {
		switch {
		case !finite(v):
			out[i] = "none"
		case whole && largest < 1e6:
			out[i] = decimals(v, 0)
		case largest >= 1e6 || largest < 1e-3 && largest > 0:
			out[i] = exponent(v, 3)
		default:
			out[i] = decimals(v, max(0, 2-int(math.Floor(math.Log10(largest)))))
		}
	}
	for endInZero(out) {
		for i, s := range out {
			if s != "none" {
				out[i] = strings.TrimSuffix(s[:len(s)-1], ".")
			}
		}
	}
	return out
}

// endInZero reports whether the last decimal of all numbers is 0: it says
// nothing then.
func endInZero(written []string) bool {
	some := false
	for _, s := range written {
		if s == "none" {
			continue
		}
		if some = true; !strings.Contains(s, ".") || strings.Contains(s, "e") || !strings.HasSuffix(s, "0") {
			return false
		}
	}
	return some
}
