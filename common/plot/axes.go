package plot

import (
	"math"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Axes names a chart and its axes.
type Axes struct {
	Title, X, Y string
	LogX, LogY  bool
	// WholeX and WholeY are axes of counts and epochs: ticks at whole numbers.
	WholeX, WholeY bool
	// Percent writes values as per cent: they are shares.
	Percent bool
	// Low and High, where given, bound the upright axis; else it follows the
	// data. What lies beyond is marked at the edge.
	Low, High *float64
	Choices   []string  // names of the horizontal axis' whole numbers, from 0
	Levels    [2]string // where points have levels: what the colours' ends mean, beside a colour bar
	Marks     []Mark
}

// Mark is an upright line at a place of the horizontal axis.
type Mark struct {
	X    float64
	Name string
}

// At is a bound of an axis.
func At(v float64) *float64 { return &v }

// grid is the frame of a chart: two axes that values are placed on.
type grid struct {
	Axes
	x, y    axis
	entries []entry
	draw    func(c draw.Canvas, g *grid)             // into the data area
	busy    func(c draw.Canvas, r vg.Rectangle) bool // reports whether data lies there; nil = no
	width   vg.Length
	height  vg.Length
}

func (a Axes) grid(width, height vg.Length) *grid {
	inf := math.Inf(1)
	return &grid{Axes: a, width: width, height: height,
		x: axis{name: a.X, low: inf, high: -inf, log: a.LogX, whole: a.WholeX, names: a.Choices},
		y: axis{name: a.Y, low: inf, high: -inf, log: a.LogY, whole: a.WholeY, percent: a.Percent}}
}

// at places a point in the data area.
func (g *grid) at(c draw.Canvas, x, y float64) vg.Point {
	return vg.Point{X: c.Min.X + vg.Length(g.x.share(x))*(c.Max.X-c.Min.X), Y: c.Min.Y + vg.Length(g.y.share(y))*(c.Max.Y-c.Min.Y)}
}

const (
	tickGap    = 4  // between an axis and its labels
	labelsHigh = 11 // a row of tick labels
	nameHigh   = 14 // an axis' name
	mostTurned = 130
)

// slant is how the names below a chart stand: turned where they would touch.
// It returns the height that they take and how far the first reaches out on
// the left of its place.
func slant(names []string, room vg.Length) (angle float64, below, left vg.Length) {
	style := letters(8, false)
	w := min(widest(names, style), mostTurned)
	switch {
	case w <= room-6:
		return 0, labelsHigh, w/2 - room/2
	case room >= 17:
		for i, n := range names {
			left = max(left, min(style.Width(n), mostTurned)*0.72-(vg.Length(i)+0.5)*room)
		}
		return math.Pi / 4, w*0.72 + 8, left
	}
	return math.Pi / 2, w + 2, 0
}

// below draws names under an axis, as slant says.
func below(c draw.Canvas, names []string, angle float64, place func(i int) vg.Length, y vg.Length) {
	style := letters(8, false)
	style.XAlign, style.YAlign = text.XCenter, text.YTop
	if angle != 0 {
		style.Rotation, style.XAlign, style.YAlign = angle, text.XRight, text.YCenter
	}
	for i, n := range names {
		at := vg.Point{X: place(i), Y: y}
		if angle > 0 && angle < 1 {
			at.Y -= 3
		}
		c.FillText(style, at, fit(n, style, mostTurned))
	}
}

// panel settles the axes; what is drawn follows when the room is known.
func (g *grid) panel() *Panel {
	g.x.settle(nil, nil)
	low, high := g.Low, g.High
	g.y.settle(low, high)
	style := letters(8, false)
	height := g.height
	angle, under, left := 0.0, vg.Length(labelsHigh), vg.Length(0)
	if g.x.names != nil {
		angle, under, left = slant(g.x.names, (g.width-50)/vg.Length(len(g.x.names)))
		height += under - labelsHigh
	}
	right := vg.Length(8)
	if g.Levels != [2]string{} {
		right = 34 + widest(g.Levels[:], style)
	}
	name := vg.Length(0)
	if g.X != "" {
		name = nameHigh
	}
	return &Panel{width: g.width + max(0, left-30), height: height, draw: func(c draw.Canvas) {
		c = legend(title(c, g.Title), g.entries)
		bottom := under + tickGap + name
		// The upright axis first: its labels' width is the left margin.
		area := draw.Crop(c, 0, -right, bottom, -5)
		ys := g.y.ticks(area.Max.Y-area.Min.Y, 26)
		margin := vg.Length(0)
		for _, t := range ys {
			margin = max(margin, style.Width(t.label))
		}
		margin += tickGap
		if g.Y != "" {
			margin += nameHigh
		}
		area = draw.Crop(area, max(margin, left), 0, 0, 0)
		g.rules(c, area, ys, angle)
		g.draw(area, g)
		for _, m := range g.Marks {
			g.mark(area, m)
		}
		if g.Levels != [2]string{} {
			rising.bar(draw.Crop(c, area.Max.X-c.Min.X+14, 0, bottom, -5), g.Levels[0], g.Levels[1])
		}
	}}
}

// rules draws the frame: faint lines, ticks, numbers and names.
func (g *grid) rules(c, area draw.Canvas, ys []tick, angle float64) {
	label, name := letters(8, false), letters(9, false)
	thin := draw.LineStyle{Color: faint, Width: 0.6}
	axis := draw.LineStyle{Color: frame, Width: 0.8}
	label.XAlign = text.XRight
	for _, t := range ys {
		y := g.at(area, g.x.low, t.at).Y
		if t.label == "" {
			c.StrokeLine2(axis, area.Min.X-2, y, area.Min.X, y)
			continue
		}
		c.StrokeLine2(thin, area.Min.X, y, area.Max.X, y)
		c.FillText(label, vg.Point{X: area.Min.X - tickGap, Y: y}, t.label)
	}
	c.StrokeLine2(axis, area.Min.X, area.Min.Y, area.Max.X, area.Min.Y)
	c.StrokeLine2(axis, area.Min.X, area.Min.Y, area.Min.X, area.Max.Y)
	if g.x.names != nil {
		below(c, g.x.names, angle, func(i int) vg.Length { return g.at(area, float64(i), g.y.low).X }, area.Min.Y-tickGap)
	} else {
		label.XAlign, label.YAlign = text.XCenter, text.YTop
		last := area.Min.X - 100
		for _, t := range g.x.ticks(area.Max.X-area.Min.X, 44) {
			x := g.at(area, t.at, g.y.low).X
			long := vg.Length(2)
			if t.label != "" {
				if long = 3; x-label.Width(t.label)/2 < last+4 {
					continue // would touch its neighbour
				}
				last = x + label.Width(t.label)/2
				c.FillText(label, vg.Point{X: min(x, c.Max.X-label.Width(t.label)/2), Y: area.Min.Y - tickGap}, t.label)
			}
			c.StrokeLine2(axis, x, area.Min.Y-long, x, area.Min.Y)
		}
	}
	name.XAlign, name.YAlign = text.XCenter, text.YBottom
	room := area.Max.X - area.Min.X
	c.FillText(name, vg.Point{X: (area.Min.X + area.Max.X) / 2, Y: c.Min.Y}, fit(g.X, name, room))
	name.Rotation, name.YAlign = math.Pi/2, text.YTop
	c.FillText(name, vg.Point{X: c.Min.X, Y: (area.Min.Y + area.Max.Y) / 2}, fit(g.Y, name, area.Max.Y-area.Min.Y))
}

func (g *grid) mark(area draw.Canvas, m Mark) {
	x := g.at(area, m.X, g.y.high).X
	area.StrokeLine2(draw.LineStyle{Color: quiet, Width: 0.8, Dashes: []vg.Length{3, 2}}, x, area.Min.Y, x, area.Max.Y)
	style := letters(8, false)
	style.YAlign, style.Color = text.YTop, quiet
	w := style.Width(m.Name)
	right, left := x+4, x-4-w
	var places []vg.Rectangle
	for _, y := range []vg.Length{area.Max.Y - 11, area.Min.Y + 2} {
		for _, from := range []vg.Length{right, left} {
			if from >= area.Min.X && from+w <= area.Max.X {
				places = append(places, vg.Rectangle{Min: vg.Point{X: from, Y: y}, Max: vg.Point{X: from + w, Y: y + 11}})
			}
		}
	}
	if len(places) == 0 {
		return
	}
	at := places[0]
	for _, r := range places {
		if g.busy == nil || !g.busy(area, r) {
			at = r
			break
		}
	}
	fill(area, veil, at.Min.X-1, at.Min.Y, at.Max.X+1, at.Max.Y)
	area.FillText(style, vg.Point{X: at.Min.X, Y: at.Max.Y}, m.Name)
}

// entry is one line of a legend: a name and how it is drawn.
type entry struct {
	name string
	mark func(c draw.Canvas, left, y vg.Length)
}

const (
	markWidth  = 20
	legendHigh = 18 // of one row
)

// legend draws entries in rows below a chart and returns the canvas that is
// left. A single nameless series needs none.
func legend(c draw.Canvas, entries []entry) draw.Canvas {
	style := letters(8, false)
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
	const height = 13
	for i, row := range rows {
		y := c.Min.Y + vg.Length(len(rows)-1-i)*height + height/2
		left := c.Min.X
		for _, e := range row {
			e.mark(c, left, y)
			c.FillText(style, vg.Point{X: left + markWidth, Y: y}, fit(e.name, style, room-markWidth-8))
			left += width(e)
		}
	}
	return draw.Crop(c, 0, 0, vg.Length(len(rows))*height+5, 0)
}

// swatch is a filled area's entry.
func swatch(name string, f Fill) entry {
	return entry{name, func(c draw.Canvas, left, y vg.Length) { f.paint(c, left, y-4.5, left+16, y+4.5) }}
}
