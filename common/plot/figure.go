// Package plot draws the charts of reports as PNG files. It refuses
// interaction and other formats. DESIGN.md says how room is shared.
package plot

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"atelier/common/files"
)

const (
	dpi       = 110
	gap       = 14 * vg.Length(1) // points between panels
	maxPixels = 60 << 20
)

// Panel is one chart. Width and height are what it needs to be legible, in
// points (1/72 inch); a figure may give it more.
type Panel struct {
	width, height vg.Length
	draw          func(c draw.Canvas)
}

// Figure sets panels in rows of Columns (0 means 1), with a title above.
type Figure struct {
	Title   string
	Columns int
}

// Write draws the panels and writes one PNG.
func (f Figure) Write(w io.Writer, panels ...*Panel) error {
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
	head := vg.Length(0)
	if f.Title != "" {
		head = 26
	}
	total := func(sizes []vg.Length) (sum vg.Length) {
		for _, s := range sizes {
			sum += s + gap
		}
		return sum + gap
	}
	width, height := total(widths), total(heights)+head
	resolution := dpi
	for float64(width)*float64(height)*float64(resolution*resolution)/72/72 > maxPixels && resolution > 30 {
		resolution -= 10
	}
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(resolution), vgimg.UseBackgroundColor(color.White))
	c := draw.New(img)
	if f.Title != "" {
		style := letters(14, true)
		style.XAlign, style.YAlign = text.XCenter, text.YTop
		c.FillText(style, vg.Point{X: width / 2, Y: height - gap}, fit(f.Title, style, width-2*gap))
	}
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
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(w)
	return err
}

// Save writes the figure to a file, whole or not at all.
func (f Figure) Save(path string, panels ...*Panel) error {
	var b bytes.Buffer
	if err := f.Write(&b, panels...); err != nil {
		return fmt.Errorf("draw %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return files.WriteUnsynced(path, b.Bytes(), 0o644)
}

var (
	ink   = color.NRGBA{R: 34, G: 34, B: 34, A: 255}
	faint = color.NRGBA{R: 224, G: 224, B: 224, A: 255}
	shade = color.NRGBA{R: 160, G: 165, B: 175, A: 255} // one line of many
	veil  = color.NRGBA{R: 255, G: 255, B: 255, A: 200} // under letters that stand on lines
)

func letters(size vg.Length, bold bool) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = stdfont.WeightBold
	}
	return text.Style{Color: ink, Font: f, Handler: text.Plain{Fonts: font.DefaultCache}, XAlign: text.XLeft, YAlign: text.YCenter}
}

// fit cuts a text that is wider than the room, and shows that it did.
func fit(s string, style text.Style, room vg.Length) string {
	if style.Width(s) <= room {
		return s
	}
	r := []rune(s)
	for len(r) > 1 && style.Width(string(r)+"…") > room {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

// widest is the width of the widest of some labels.
func widest(labels []string, style text.Style) (w vg.Length) {
	for _, l := range labels {
		w = max(w, style.Width(l))
	}
	return w
}

// title draws a panel's heading and returns the canvas below it.
func title(c draw.Canvas, s string) draw.Canvas {
	if s == "" {
		return c
	}
	style := letters(11, true)
	style.XAlign, style.YAlign = text.XCenter, text.YTop
	c.FillText(style, vg.Point{X: c.Center().X, Y: c.Max.Y}, fit(s, style, c.Max.X-c.Min.X))
	return draw.Crop(c, 0, 0, 0, -18)
}

// Text is a panel of lines of text, for figures and lists beside charts.
func Text(heading string, lines ...string) *Panel {
	style := letters(9, false)
	width := max(widest(lines, style), letters(11, true).Width(heading)) + 16
	return &Panel{width: max(width, 200), height: vg.Length(len(lines))*13 + 30, draw: func(c draw.Canvas) {
		c = title(c, heading)
		for i, l := range lines {
			style.YAlign = text.YTop
			c.FillText(style, vg.Point{X: c.Min.X + 8, Y: c.Max.Y - vg.Length(i)*13}, fit(l, style, c.Max.X-c.Min.X-8))
		}
	}}
}

// empty stands in for a chart without data.
func empty(heading string) *Panel {
	return &Panel{width: 300, height: 200, draw: func(c draw.Canvas) {
		c = title(c, heading)
		style := letters(10, false)
		style.XAlign = text.XCenter
		c.FillText(style, c.Center(), "no data")
	}}
}
