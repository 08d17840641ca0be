package plot

import (
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Cells is a matrix with names: Values[row][column]. Rows are drawn from the
// top. NaN is a cell without data.
type Cells struct {
	Rows, Columns []string
	Values        [][]float64
	Labels        [][]string // written into the cells, in lines; nil = the values
	Counts        bool       // white to blue from 0, as a confusion matrix; else viridis over the values' range
	Low, High     *float64   // the colours' range; nil = the values'
	LowIsBest     bool       // the bright end stands for low values
}

// Matrix draws a heat map with the numbers in its cells.
func Matrix(a Axes, m Cells) *Panel {
	if len(m.Rows) == 0 || len(m.Columns) == 0 {
		return empty(a.Title)
	}
	small := letters(8, false)
	const most = 130
	side := min(widest(m.Rows, small), most) + 22
	cell := vg.Length(min(max(420/max(len(m.Rows), len(m.Columns)), 14), 52))
	turned := widest(m.Columns, small) > cell-4
	below := vg.Length(30)
	if turned {
		below = min(widest(m.Columns, small), most)*0.72 + 24
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range m.Values {
		for _, v := range row {
			if finite(v) {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	colors := viridis
	if m.Counts {
		colors, low = blues, 0
	}
	if m.Low != nil {
		low = *m.Low
	}
	if m.High != nil {
		high = *m.High
	}
	if low > high {
		low, high = 0, 1
	}
	if m.LowIsBest {
		colors = slices.Clone(colors)
		slices.Reverse(colors)
	}
	share := func(v float64) float64 {
		if high == low {
			return 0.5
		}
		return (v - low) / (high - low)
	}
	const right = 58
	return &Panel{width: max(side+cell*vg.Length(len(m.Columns))+right, 260), height: cell*vg.Length(len(m.Rows)) + below + 24, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		body := draw.Crop(c, side, -right, below, 0)
		w, h := (body.Max.X-body.Min.X)/vg.Length(len(m.Columns)), (body.Max.Y-body.Min.Y)/vg.Length(len(m.Rows))
		number := letters(min(9, max(5, h*0.32)), false)
		number.XAlign = text.XCenter
		for i := range m.Rows {
			for k := range m.Columns {
				v := math.NaN()
				if i < len(m.Values) && k < len(m.Values[i]) {
					v = m.Values[i][k]
				}
				x, y := body.Min.X+vg.Length(k)*w, body.Max.Y-vg.Length(i+1)*h
				clr := colors.at(share(v))
				fill(c, clr, x, y, x+w, y+h)
				label := ""
				// Of many classes a matrix is nearly empty: noughts would hide what is there.
				if finite(v) && (v != 0 || !m.Counts || len(m.Rows) <= 20) {
					label = Number(math.Round(v*1000) / 1000)
				}
				if m.Labels != nil && i < len(m.Labels) && k < len(m.Labels[i]) {
					label = m.Labels[i][k]
				}
				number.Color = on(clr)
				lines := strings.Split(label, "\n")
				step := number.Font.Size * 1.15
				if label == "" || widest(lines, number) > w-2 || h < 9 || vg.Length(len(lines))*step > h {
					continue
				}
				for n, text := range lines {
					c.FillText(number, vg.Point{X: x + w/2, Y: y + h/2 + (vg.Length(len(lines)-1)/2-vg.Length(n))*step}, text)
				}
			}
		}
		edge := draw.LineStyle{Color: ink, Width: 0.5}
		c.StrokeLines(edge, []vg.Point{body.Min, {X: body.Max.X, Y: body.Min.Y}, body.Max, {X: body.Min.X, Y: body.Max.Y}, body.Min})
		name := small
		name.XAlign = text.XRight
		for i, r := range m.Rows {
			c.FillText(name, vg.Point{X: body.Min.X - 4, Y: body.Max.Y - (vg.Length(i)+0.5)*h}, fit(r, small, side-20))
		}
		name.XAlign, name.YAlign = text.XCenter, text.YTop
		if turned {
			name.Rotation, name.XAlign, name.YAlign = math.Pi/4, text.XRight, text.YCenter
		}
		for k, col := range m.Columns {
			c.FillText(name, vg.Point{X: body.Min.X + (vg.Length(k)+0.5)*w, Y: body.Min.Y - 5}, fit(col, small, most))
		}
		axis := letters(9, false)
		axis.XAlign, axis.YAlign = text.XCenter, text.YBottom
		c.FillText(axis, vg.Point{X: (body.Min.X + body.Max.X) / 2, Y: c.Min.Y}, a.X)
		axis.Rotation, axis.YAlign = math.Pi/2, text.YTop
		c.FillText(axis, vg.Point{X: c.Min.X, Y: (body.Min.Y + body.Max.Y) / 2}, a.Y)
		colors.bar(draw.Crop(c, body.Max.X-c.Min.X+10, 0, below, 0), Number(low), Number(high))
	}}
}
