package plot

import (
	"math"
	"strconv"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Axes names a chart and its axes. Low and High, where given, bound the
// vertical axis; else it follows the data.
type Axes struct {
	Title, X, Y string
	LogX, LogY  bool
	Low, High   *float64
	Choices     []string  // names of the horizontal axis' whole numbers, from 0
	Levels      [2]string // where points have levels: what the colours' ends mean, beside a colour bar
}

// labelGap keeps the horizontal axis' name off its ticks' labels.
const labelGap = 5

// At is a bound of an axis.
func At(v float64) *float64 { return &v }

func (a Axes) axes() *gonum.Plot {
	p := gonum.New()
	p.BackgroundColor = nil
	for _, axis := range []*gonum.Axis{&p.X, &p.Y} {
		style := letters(9, false)
		axis.Label.TextStyle.Font, axis.Label.TextStyle.Color = style.Font, ink
		style.Font.Size = 8
		axis.Tick.Label.Font, axis.Tick.Label.Color = style.Font, ink
		axis.Tick.Length = 3
		axis.Padding = 2
	}
	p.X.Label.Padding = labelGap
	p.X.Label.Text, p.Y.Label.Text = a.X, a.Y
	return p
}

// name puts the choices on the horizontal axis and returns the height that
// they take more than numbers do, and the room they need on the left.
func (a Axes) name(p *gonum.Plot, room vg.Length) (below, left vg.Length) {
	if len(a.Choices) == 0 {
		return 0, 0
	}
	p.X.Min, p.X.Max = -0.5, float64(len(a.Choices))-0.5
	below, left = nominal(&p.X, a.Choices, room/vg.Length(len(a.Choices)))
	return below - 14, left
}

// below is the height that the horizontal axis' name takes from the gap down.
func (a Axes) below() vg.Length {
	if a.X == "" {
		return 0
	}
	return labelGap
}

// bound settles the ranges once all data is in: a little air, logarithms only
// over positive numbers, never an empty range.
func (a Axes) bound(p *gonum.Plot) {
	for _, axis := range []struct {
		a   *gonum.Axis
		log bool
	}{{&p.X, a.LogX}, {&p.Y, a.LogY}} {
		x := axis.a
		if x.Min > x.Max {
			x.Min, x.Max = 0, 1
		}
		if axis.log && x.Min > 0 {
			x.Scale, x.Tick.Marker = gonum.LogScale{}, gonum.LogTicks{Prec: -1}
			if x.Max/x.Min < 10 { // decades alone would leave the axis bare
				x.Tick.Marker = plainTicks{gonum.DefaultTicks{}}
			}
			if x.Min == x.Max {
				x.Min, x.Max = x.Min/2, x.Max*2
			}
			continue
		}
		if x.Min == x.Max {
			d := math.Max(math.Abs(x.Min)*0.05, 1e-9)
			x.Min, x.Max = x.Min-d, x.Max+d
		}
		x.Tick.Marker = plainTicks{gonum.DefaultTicks{}}
	}
	if a.Low != nil {
		p.Y.Min = *a.Low
	}
	if a.High != nil {
		p.Y.Max = *a.High
	}
	if p.Y.Min >= p.Y.Max {
		p.Y.Max = p.Y.Min + 1
	}
}

// plainTicks writes ticks as short numbers.
type plainTicks struct{ of gonum.Ticker }

func (t plainTicks) Ticks(low, high float64) []gonum.Tick {
	ticks := t.of.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = Number(ticks[i].Value)
		}
	}
	return ticks
}

// Number writes a value in at most four figures, as charts need it.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 1e6 || a < 1e-4:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// grid draws faint lines at the vertical axis' labelled ticks.
func grid(c draw.Canvas, p *gonum.Plot) {
	_, ty := p.Transforms(&c)
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if t.Label == "" || t.Value < p.Y.Min || t.Value > p.Y.Max {
			continue
		}
		y := ty(t.Value)
		c.StrokeLine2(draw.LineStyle{Color: faint, Width: 0.6}, c.Min.X, y, c.Max.X, y)
	}
}

// plotterFunc draws into a chart's data area.
type plotterFunc func(c draw.Canvas, p *gonum.Plot)

func (f plotterFunc) Plot(c draw.Canvas, p *gonum.Plot) { f(c, p) }

// span widens a chart's ranges to hold a point.
func span(p *gonum.Plot, x, y float64) {
	if math.IsNaN(x) || math.IsInf(x, 0) || math.IsNaN(y) || math.IsInf(y, 0) {
		return
	}
	p.X.Min, p.X.Max = math.Min(p.X.Min, x), math.Max(p.X.Max, x)
	p.Y.Min, p.Y.Max = math.Min(p.Y.Min, y), math.Max(p.Y.Max, y)
}

// entry is one line of a legend: a name and how it is drawn.
type entry struct {
	name string
	mark func(c draw.Canvas, left, y vg.Length)
}

const markWidth = 20

// legend draws entries in rows below a chart and returns the canvas that is
// left. A single nameless series needs none.
func legend(c draw.Canvas, entries []entry) draw.Canvas {
	style := letters(8, false)
	style.YAlign = text.YCenter
	shown := entries[:0:0]
	for _, e := range entries {
		if e.name != "" {
			shown = append(shown, e)
		}
	}
	if len(shown) == 0 {
		return c
	}
	room := c.Max.X - c.Min.X
	rows := [][]entry{nil}
	used := vg.Length(0)
	width := func(e entry) vg.Length { return min(style.Width(e.name), room-markWidth-8) + markWidth + 12 }
	for _, e := range shown {
		if w := width(e); used+w > room && len(rows[len(rows)-1]) > 0 {
			rows, used = append(rows, nil), 0
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], e)
		used += width(e)
	}
	const height = 12
	for i, row := range rows {
		y := c.Min.Y + vg.Length(len(rows)-1-i)*height + height/2
		left := c.Min.X
		for _, e := range row {
			e.mark(c, left, y)
			c.FillText(style, vg.Point{X: left + markWidth, Y: y}, fit(e.name, style, room-markWidth-8))
			left += width(e)
		}
	}
	return draw.Crop(c, 0, 0, vg.Length(len(rows))*height+4, 0)
}

// chart puts heading, axes and legend together.
func (a Axes) chart(width, height vg.Length, p *gonum.Plot, entries []entry) *Panel {
	a.bound(p)
	below, left := a.name(p, width-60)
	height += below + a.below()
	right := vg.Length(4)
	if a.Levels != [2]string{} {
		right = 26 + max(letters(8, false).Width(a.Levels[0]), letters(8, false).Width(a.Levels[1]))
	}
	return &Panel{width: width + left, height: height, draw: func(c draw.Canvas) {
		c = legend(title(c, a.Title), entries)
		p.Draw(draw.Crop(c, left, -right, 0, 0))
		if right > 4 {
			viridis.bar(draw.Crop(c, c.Max.X-c.Min.X-right+10, 0, 40, -6), a.Levels[0], a.Levels[1])
		}
	}}
}

// Wide makes a panel some times as wide as it needs to be.
func Wide(p *Panel, times float64) *Panel {
	wide := *p
	wide.width *= vg.Length(times)
	return &wide
}
