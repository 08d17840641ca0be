package plot

import (
	"math"
	"slices"
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
// the index of a choice; NaN, of a parameter that the row does not use, has a
// place of its own below the axis.
func Parallel(a Axes, axes []Axis, values [][]float64, level []float64) *Panel {
	if len(axes) == 0 || len(values) == 0 {
		return empty(a.Title)
	}
	scales := make([]axis, len(axes))
	unused := make([]bool, len(axes)) // by some row
	for k, x := range axes {
		s := axis{low: math.Inf(1), high: math.Inf(-1), log: x.Log}
		for _, row := range values {
			if k < len(row) {
				s.take(row[k])
			}
		}
		if x.Choices != nil {
			s = axis{low: 0, high: float64(len(x.Choices) - 1)}
		}
		for _, row := range values {
			v := math.NaN()
			if k < len(row) {
				v = row[k]
			}
			unused[k] = unused[k] || !finite(v) || s.log && v <= 0
		}
		scales[k] = s
	}
	place := func(k int, v float64) float64 {
		s := &scales[k]
		switch {
		case !finite(v) || s.low > s.high || s.log && v <= 0:
			return math.NaN()
		case s.low == s.high:
			return 0.5
		}
		return s.share(v)
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
	lane := vg.Length(0) // below the axes, for what a row does not use
	if slices.Contains(unused, true) {
		lane = 26
	}
	return &Panel{width: vg.Length(len(axes))*115 + 80, height: 310, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		body := draw.Crop(c, 20, -96, 20+lane, -10)
		step := vg.Length(0)
		if len(axes) > 1 {
			step = (body.Max.X - body.Min.X) / vg.Length(len(axes)-1)
		}
		x := func(k int) vg.Length { return body.Min.X + vg.Length(k)*step }
		y := func(share float64) vg.Length {
			if math.IsNaN(share) {
				return body.Min.Y - lane + 6
			}
			return body.Min.Y + vg.Length(share)*(body.Max.Y-body.Min.Y)
		}
		best := len(order) - 1
		for n, i := range order {
			style := draw.LineStyle{Color: rising.at(max(at(i), 0)), Width: vg.Length(0.7 + 0.7*max(at(i), 0))}
			if at(i) < 0 {
				style.Color, style.Width = faint, 0.5
			}
			if n == best && len(order) > 1 && at(i) >= 0 {
				style.Width = 2.4
			}
			var run []vg.Point
			for k := range axes {
				share := math.NaN()
				if k < len(values[i]) {
					share = place(k, values[i][k])
				}
				run = append(run, vg.Point{X: x(k), Y: y(share)})
			}
			c.StrokeLines(style, run)
			if n == best && len(order) > 1 && at(i) >= 0 {
				star(c, run[len(run)-1].X, run[len(run)-1].Y, 5)
			}
		}
		small, name := letters(7.5, false), letters(9, true)
		name.XAlign, name.YAlign = text.XCenter, text.YTop
		for k, axis := range axes {
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.8}, x(k), body.Min.Y, x(k), body.Max.Y)
			label := fit(axis.Name, name, max(step-8, 90))
			half := name.Width(label) / 2
			c.FillText(name, vg.Point{X: min(max(x(k), c.Min.X+half), c.Max.X-half), Y: body.Min.Y - lane - 7}, label)
			mark := func(at vg.Length, label string) {
				c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.6}, x(k)-2, at, x(k)+2, at)
				label = fit(label, small, max(step*0.6, 50))
				fill(c, veil, x(k)+3, at-4.5, x(k)+6+small.Width(label), at+4.5)
				c.FillText(small, vg.Point{X: x(k) + 5, Y: at}, label)
			}
			if unused[k] {
				mark(y(math.NaN()), "not used")
			}
			switch s := &scales[k]; {
			case axis.Choices != nil:
				for i, choice := range axis.Choices {
					mark(y(place(k, float64(i))), choice)
				}
			case s.low == s.high:
				mark(y(0.5), Number(s.low))
			case s.low < s.high:
				for _, t := range s.ticks(body.Max.Y-body.Min.Y, 40) {
					if t.label != "" {
						mark(y(s.share(t.at)), t.label)
					}
				}
			}
		}
		rising.bar(draw.Crop(c, body.Max.X-c.Min.X+62, 0, 20+lane, -10), "worst", "best")
	}}
}
