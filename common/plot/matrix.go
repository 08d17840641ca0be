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
	Counts        bool       // paper to blue from 0, as a confusion matrix; zeros stay blank
	Low, High     *float64   // the colours' range; nil = the values'
	LowIsBest     bool       // the dark end stands for low values
	Least         float64    // values below it are not written: they would hide the others
}

// Matrix draws a heat map with the numbers in its cells.
func Matrix(a Axes, m Cells) *Panel {
	if len(m.Rows) == 0 || len(m.Columns) == 0 {
		return empty(a.Title)
	}
	small := letters(8, false)
	most := max(len(m.Rows), len(m.Columns))
	side := min(widest(m.Rows, small), mostTurned) + 24
	cell := vg.Length(min(max(460/most, 16), 56))
	angle, under, left := slant(m.Columns, cell)
	side = max(side, left+4)
	bottom := under + 22
	low, high := math.Inf(1), math.Inf(-1)
	for _, row := range m.Values {
		for _, v := range row {
			if finite(v) {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	colors := rising
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
	share := func(v float64) float64 {
		switch {
		case math.IsNaN(v):
			return v
		case high == low:
			return 0.5
		case m.LowIsBest:
			return (high - v) / (high - low)
		}
		return (v - low) / (high - low)
	}
	var flat []float64
	for _, row := range m.Values {
		flat = append(flat, row...)
	}
	forms := Numbers(flat)
	written := func(v float64) string {
		switch {
		case !finite(v) || m.Counts && (v == 0 || v < m.Least):
			return ""
		case a.Percent:
			return decimals(100*v, 0)
		}
		return forms[slices.Index(flat, v)]
	}
	ends := Numbers([]float64{low, high})
	if a.Percent {
		ends = []string{decimals(100*low, 0) + " %", decimals(100*high, 0) + " %"}
	}
	if m.LowIsBest {
		ends[0], ends[1] = ends[1], ends[0]
	}
	const right = 62
	return &Panel{width: max(side+cell*vg.Length(len(m.Columns))+right, 260), height: cell*vg.Length(len(m.Rows)) + bottom + 24, draw: func(c draw.Canvas) {
		c = title(c, a.Title)
		body := draw.Crop(c, side, -right, bottom, 0)
		// A panel may be given more room than it needs: cells keep their form.
		w := min((body.Max.X-body.Min.X)/vg.Length(len(m.Columns)), cell*1.3)
		h := min((body.Max.Y-body.Min.Y)/vg.Length(len(m.Rows)), cell*1.3)
		body.Max.X, body.Min.Y = body.Min.X+w*vg.Length(len(m.Columns)), body.Max.Y-h*vg.Length(len(m.Rows))
		number := letters(min(9, max(6, h*0.42)), false)
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
				label := written(v)
				if m.Labels != nil && i < len(m.Labels) && k < len(m.Labels[i]) {
					label = m.Labels[i][k]
				}
				number.Color = on(clr)
				lines := strings.Split(label, "\n")
				step := number.Font.Size * 1.15
				if label == "" || widest(lines, number) > w-1 || vg.Length(len(lines))*step > h {
					continue
				}
				for n, text := range lines {
					c.FillText(number, vg.Point{X: x + w/2, Y: y + h/2 + (vg.Length(len(lines)-1)/2-vg.Length(n))*step}, text)
				}
			}
		}
		thin := draw.LineStyle{Color: faint, Width: 0.5}
		for i := 1; i < len(m.Rows); i++ {
			c.StrokeLine2(thin, body.Min.X, body.Max.Y-vg.Length(i)*h, body.Max.X, body.Max.Y-vg.Length(i)*h)
		}
		for k := 1; k < len(m.Columns); k++ {
			c.StrokeLine2(thin, body.Min.X+vg.Length(k)*w, body.Min.Y, body.Min.X+vg.Length(k)*w, body.Max.Y)
		}
		outline(c, draw.LineStyle{Color: frame, Width: 0.8}, body.Min.X, body.Min.Y, body.Max.X, body.Max.Y)
		name := small
		name.XAlign = text.XRight
		for i, r := range m.Rows {
			c.FillText(name, vg.Point{X: body.Min.X - 4, Y: body.Max.Y - (vg.Length(i)+0.5)*h}, fit(r, small, min(side-20, mostTurned)))
		}
		below(c, m.Columns, angle, func(k int) vg.Length { return body.Min.X + (vg.Length(k)+0.5)*w }, body.Min.Y-4)
		axis := letters(9, false)
		axis.XAlign, axis.YAlign = text.XCenter, text.YTop
		c.FillText(axis, vg.Point{X: (body.Min.X + body.Max.X) / 2, Y: body.Min.Y - under - 8}, a.X)
		axis.Rotation = math.Pi / 2
		c.FillText(axis, vg.Point{X: max(c.Min.X, body.Min.X-22-min(widest(m.Rows, small), mostTurned)), Y: (body.Min.Y + body.Max.Y) / 2}, a.Y)
		colors.bar(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{Min: vg.Point{X: body.Max.X + 12, Y: body.Min.Y}, Max: body.Max}}, ends[0], ends[1])
	}}
}
