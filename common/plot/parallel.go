package plot

import (
	"fmt"
	"math"
	"sort"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Axis is one upright axis of parallel coordinates. Choices names its places
// from the bottom; without them it is numeric over the data's range.
type Axis struct {
	Name    string
	Log     bool
	Choices []string
}

// Parallel draws parallel coordinates: one line a row, coloured by level (a
// share in [0, 1], 1 = best, drawn last). Values[row][axis] is a number, or
// the index of a choice; NaN leaves the line out between its neighbours.
func Parallel(a Axes, axes []Axis, values [][]float64, level []float64) *Panel {
	if len(axes) == 0 || len(values) == 0 {
		return empty(a.Title)
	}
	type bounds struct{ low, high float64 }
	ranges := make([]bounds, len(axes))
	for k, axis := range axes {
		b := bounds{math.Inf(1), math.Inf(-1)}
		for _, row := range values {
			if k < len(row) && finite(row[k]) && (!axis.Log || row[k] > 0) {
				b.low, b.high = math.Min(b.low, row[k]), math.Max(b.high, row[k])
			}
		}
		if axis.Choices != nil {
			b = bounds{0, float64(len(axis.Choices) - 1)}
		}
		ranges[k] = b
	}
	place := func(k int, v float64) float64 {
		b := ranges[k]
		switch {
		case !finite(v) || b.low > b.high:
			return math.NaN()
		case b.low == b.high:
			return 0.5
		case axes[k].Log && axes[k].Choices == nil:
			return math.Log(v/b.low) / math.Log(b.high/b.low)
		}
		return (v - b.low) / (b.high - b.low)
	}
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	at := func(i int) float64 {
		if i < len(level) && finite(level[i]) {
			return level[i]
		}
		return -1
	}
	sort.SliceStable(order, func(x, y int) bool { return at(order[x]) < at(order[y]) })
	return &Panel{width: vg.Length(len(axes))*110 + 60, height: 300, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		body := draw.Crop(c, 46, -64, 34, -16)
		step := vg.Length(0)
		if len(axes) > 1 {
			step = (body.Max.X - body.Min.X) / vg.Length(len(axes)-1)
		}
		x := func(k int) vg.Length { return body.Min.X + vg.Length(k)*step }
		for _, i := range order {
			style := draw.LineStyle{Color: viridis.at(max(at(i), 0)), Width: 0.8}
			if at(i) < 0 {
				style.Color, style.Width = faint, 0.5
			}
			var run []vg.Point
			for k := range axes {
				share := math.NaN()
				if k < len(values[i]) {
					share = place(k, values[i][k])
				}
				if !finite(share) {
					c.StrokeLines(style, run)
					run = nil
					continue
				}
				run = append(run, vg.Point{X: x(k), Y: body.Min.Y + vg.Length(share)*(body.Max.Y-body.Min.Y)})
			}
			c.StrokeLines(style, run)
		}
		small, name := letters(7, false), letters(9, true)
		name.XAlign, name.YAlign = text.XCenter, text.YTop
		for k, axis := range axes {
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.8}, x(k), body.Min.Y, x(k), body.Max.Y)
			c.FillText(name, vg.Point{X: x(k), Y: c.Min.Y + 18}, fit(axis.Name, name, max(step-8, 90)))
			mark := func(share float64, label string) {
				y := body.Min.Y + vg.Length(share)*(body.Max.Y-body.Min.Y)
				c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.6}, x(k)-2, y, x(k)+2, y)
				label = fit(label, small, max(step*0.6, 50))
				fill(c, veil, x(k)+3, y-4, x(k)+5+small.Width(label), y+4)
				c.FillText(small, vg.Point{X: x(k) + 4, Y: y}, label)
			}
			if axis.Choices != nil {
				for i, choice := range axis.Choices {
					mark(place(k, float64(i)), choice)
				}
				continue
			}
			if b := ranges[k]; b.low < b.high {
				for _, share := range []float64{0, 0.25, 0.5, 0.75, 1} {
					v := b.low + share*(b.high-b.low)
					if axis.Log {
						v = b.low * math.Pow(b.high/b.low, share)
					}
					mark(share, fmt.Sprintf("%.3g", v))
				}
			} else if b.low == b.high {
				mark(0.5, Number(b.low))
			}
		}
		viridis.bar(draw.Crop(c, body.Max.X-c.Min.X+34, 0, 34, -16), "worst", "best")
	}}
}
