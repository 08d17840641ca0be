// Package cam computes with attention maps: weighing activations (Grad-CAM,
// Selvaraju et al., arXiv 1610.02391), scaling, resizing, the figures of
// quality, and colours. It knows nothing of models.
package cam

import (
	"math"
)

// Map is an attention map, row by row from the top.
type Map struct {
	Width, Height int
	Values        []float32 // Width*Height
}

// Weigh makes a class activation map of one image from the activations of a
// layer and the gradient of the class's score there, both [channels, height,
// width] row by row: ReLU(sum over k of mean(gradient_k) * activation_k).
func Weigh(activation, gradient []float32, channels, height, width int) Map {
	area := height * width
	sum := make([]float64, area)
	for k := range channels {
		var g float64
		for _, v := range gradient[k*area : (k+1)*area] {
			g += float64(v)
		}
		g /= float64(area)
		if g == 0 {
			continue
		}
		for i, v := range activation[k*area : (k+1)*area] {
			sum[i] += g * float64(v)
		}
	}
	m := Map{Width: width, Height: height, Values: make([]float32, area)}
	for i, v := range sum {
		if v > 0 {
			m.Values[i] = float32(v)
		}
	}
	return m
}

// Scaled brings a map into [0, 1]: (v - min) / (max - min + 1e-7). A map of equal
// values becomes zero.
func (m Map) Scaled() Map {
	low, high := float32(math.Inf(1)), float32(math.Inf(-1))
	for _, v := range m.Values {
		low, high = min(low, v), max(high, v)
	}
	out := Map{m.Width, m.Height, make([]float32, len(m.Values))}
	for i, v := range m.Values {
		out.Values[i] = (v - low) / (high - low + 1e-7)
	}
	return out
}

// Resized is the map at another size: bilinear, half-pixel centres, edges held
// (torch's interpolate with align_corners=False, OpenCV's INTER_LINEAR).
func (m Map) Resized(width, height int) Map {
	if width == m.Width && height == m.Height {
		return m
	}
	x0, x1, fx := taps(m.Width, width)
	y0, y1, fy := taps(m.Height, height)
	out := Map{width, height, make([]float32, width*height)}
	for y := range height {
		a, b, v := m.Values[y0[y]*m.Width:], m.Values[y1[y]*m.Width:], fy[y]
		row := out.Values[y*width : (y+1)*width]
		for x := range row {
			l, r, u := x0[x], x1[x], fx[x]
			top := a[l] + (a[r]-a[l])*u
			low := b[l] + (b[r]-b[l])*u
			row[x] = top + (low-top)*v
		}
	}
	return out
}

// taps are the two source places of each target place, and the share of the second.
func taps(from, to int) (first, second []int, share []float32) {
	first, second, share = make([]int, to), make([]int, to), make([]float32, to)
	for i := range to {
		at := max((float64(i)+0.5)*float64(from)/float64(to)-0.5, 0)
		first[i] = min(int(at), from-1)
		second[i] = min(first[i]+1, from-1)
		share[i] = float32(at - float64(first[i]))
	}
	return first, second, share
}

// Concentration is the Gini coefficient of a map of values >= 0: 0 where all
// are equal (or all zero), towards 1 where a single pixel holds everything.
func (m Map) Concentration() float64 {
	n := len(m.Values)
	if n == 0 {
		return 0
	}
	sorted := ascending(m.Values)
	var sum, weighted float64
	for i, v := range sorted {
		sum += float64(v)
		weighted += float64(i+1) * float64(v)
	}
	if sum <= 0 {
		return 0
	}
	return 2*weighted/(float64(n)*sum) - float64(n+1)/float64(n)
}

// Coverage is the share of pixels with at least the threshold.
func (m Map) Coverage(threshold float32) float64 {
	if len(m.Values) == 0 {
		return 0
	}
	n := 0
	for _, v := range m.Values {
		if v >= threshold {
			n++
		}
	}
	return float64(n) / float64(len(m.Values))
}

// ascending sorts values >= 0, whose bits stand in the order of the numbers,
// by three passes over 11 bits: a tenth of the time of comparing at 224 px.
func ascending(values []float32) []float32 {
	keys, other := make([]uint32, len(values)), make([]uint32, len(values))
	for i, v := range values {
		keys[i] = math.Float32bits(max(v, 0))
	}
	for shift := 0; shift < 32; shift += 11 {
		var count [1 << 11]int
		for _, k := range keys {
			count[k>>shift&0x7ff]++
		}
		at := 0
		for i, c := range count {
			count[i] = at
			at += c
		}
		for _, k := range keys {
			d := k >> shift & 0x7ff
			other[count[d]] = k
			count[d]++
		}
		keys, other = other, keys
	}
	out := make([]float32, len(keys))
	for i, k := range keys {
		out[i] = math.Float32frombits(k)
	}
	return out
}
