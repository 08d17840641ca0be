// Package plot draws the charts of reports as PNG and SVG files. It refuses
// interaction and other formats. DESIGN.md says how room is shared.
package plot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"atelier/common/files"
)

const (
	dpi = 110
	gap = 16 * vg.Length(1) // points between panels
	// MaxSide is the longest side of a PNG in pixels: what a viewer shows at
	// its own size, and a page can be filled with.
	MaxSide = 2400
)

// Panel is one chart. Width and height are what it needs to be legible, in
// points (1/72 inch); a figure may give it more.
type Panel struct {
	width, height vg.Length
	draw          func(c draw.Canvas)
}

// Figure sets panels in rows of Columns (0 means 1), below a title and, in
// smaller letters, what the figure is about.
type Figure struct {
	Title   string
	About   string
	Columns int
}

// Write draws the panels and writes one PNG.
func (f Figure) Write(w io.Writer, panels ...*Panel) error {
	return f.write(w, func(width, height vg.Length) canvas {
		// A figure that is larger than a page is drawn smaller, never cut.
		resolution := min(dpi, int(MaxSide*72/float64(max(width, height))))
		return newRaster(width, height, max(resolution, 1))
	}, panels)
}

// WriteSVG draws the same as an SVG document, with text as text.
func (f Figure) WriteSVG(w io.Writer, panels ...*Panel) error {
	return f.write(w, func(width, height vg.Length) canvas { return newVector(width, height, f.Title) }, panels)
}

func (f Figure) write(w io.Writer, on func(width, height vg.Length) canvas, panels []*Panel) error {
	if len(panels) == 0 {
		return errors.New("draw a figure: it has no panels")
	}
	columns := min(max(f.Columns, 1), len(panels))
	rows := (len(panels) + columns - 1) / columns
	widths, heights := make([]vg.Length, columns), make([]vg.Length, rows)
	for i, p := range panels {
		widths[i%columns] = max(widths[i%columns], p.width)
		heights[i/columns] = max(heights[i/columns], p.height)
	}
	total := func(sizes []vg.Length) (sum vg.Length) {
		for _, s := range sizes {
			sum += s + gap
		}
		return sum + gap
	}
	width := total(widths)
	head, titles := f.head(width - 2*gap)
	height := total(heights) + head
	img := on(width, height)
	c := draw.New(img)
	titles(c, height-gap)
	top := height - head - gap
	for r := range rows {
		left := gap
		for k := range columns {
			if i := r*columns + k; i < len(panels) {
				panels[i].draw(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
					Min: vg.Point{X: left, Y: top - heights[r]}, Max: vg.Point{X: left + widths[k], Y: top}}})
			}
			left += widths[k] + gap
		}
		top -= heights[r] + gap
	}
	_, err := img.WriteTo(w)
	return err
}

// head settles the lines of title and subject and the height that they take.
func (f Figure) head(room vg.Length) (height vg.Length, titles func(c draw.Canvas, top vg.Length)) {
	type line struct {
		s     string
		style text.Style
		step  vg.Length
	}
	var lines []line
	for _, part := range []struct {
		s     string
		style text.Style
		step  vg.Length
		most  int
	}{{f.Title, letters(14, true), 18, 2}, {f.About, letters(9, false), 12, 3}} {
		if part.s == "" {
			continue
		}
		part.style.YAlign = text.YTop
		if part.step == 12 {
			part.style.Color = quiet
		}
		for _, s := range wrap(part.s, part.style, room, part.most) {
			lines = append(lines, line{s, part.style, part.step})
			height += part.step
		}
	}
	if height > 0 {
		height += 8
	}
	return height, func(c draw.Canvas, top vg.Length) {
		for _, l := range lines {
			c.FillText(l.style, vg.Point{X: gap, Y: top}, l.s)
			top -= l.step
		}
	}
}

// wrap breaks a text at blanks into at most so many lines; the last is cut if
// there is more.
func wrap(s string, style text.Style, room vg.Length, most int) (lines []string) {
	line := ""
	words := strings.Fields(s)
	for i, w := range words {
		longer := strings.TrimPrefix(line+" "+w, " ")
		if line != "" && style.Width(longer) > room {
			lines = append(lines, line)
			if longer = w; len(lines) == most-1 {
				return append(lines, fit(strings.Join(words[i:], " "), style, room))
			}
		}
		line = longer
	}
	return append(lines, fit(line, style, room))
}

// SVG is the name of the same figure's other file.
func SVG(path string) string { return strings.TrimSuffix(path, ".png") + ".svg" }

// Save writes the figure to a PNG file and beside it, with the ending .svg, as
// an SVG document; each is whole or not there.
func (f Figure) Save(path string, panels ...*Panel) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	for _, form := range []struct {
		path  string
		write func(w io.Writer, panels ...*Panel) error
	}{{path, f.Write}, {SVG(path), f.WriteSVG}} {
		var b bytes.Buffer
		if err := form.write(&b, panels...); err != nil {
			return fmt.Errorf("draw %s: %w", form.path, err)
		}
		if err := files.WriteUnsynced(form.path, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// title draws a panel's heading and returns the canvas below it.
func title(c draw.Canvas, s string) draw.Canvas {
	if s == "" {
		return c
	}
	style := letters(10.5, true)
	style.YAlign = text.YTop
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, fit(s, style, c.Max.X-c.Min.X))
	return draw.Crop(c, 0, 0, 0, -20)
}

// Text is a panel of lines of text, for figures and lists beside charts.
func Text(heading string, lines ...string) *Panel {
	style := letters(9, false)
	width := max(widest(lines, style), letters(10.5, true).Width(heading)) + 16
	return &Panel{width: max(width, 200), height: vg.Length(len(lines))*13 + 30, draw: func(c draw.Canvas) {
		c = title(c, heading)
		for i, l := range lines {
			style.YAlign = text.YTop
			c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y - vg.Length(i)*13}, fit(l, style, c.Max.X-c.Min.X))
		}
	}}
}

// empty stands in for a chart without data.
func empty(heading string) *Panel {
	return &Panel{width: 300, height: 200, draw: func(c draw.Canvas) {
		c = title(c, heading)
		style := letters(10, false)
		style.XAlign, style.Color = text.XCenter, quiet
		c.FillText(style, c.Center(), "no data")
	}}
}

// Space is a place that is left free.
func Space() *Panel { return &Panel{draw: func(draw.Canvas) {}} }

// Wide makes a panel some times as wide as it needs to be.
func Wide(p *Panel, times float64) *Panel {
	wide := *p
	wide.width *= vg.Length(times)
	return &wide
}
