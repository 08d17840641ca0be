// Package chart draws what inference shows of one image: the four panels of
// Grad-CAM and the comparison of classes. It draws straight into pixels; a
// charting library takes ten times as long an image, and production runs draw
// thousands. It knows nothing of models.
package chart

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	ximage "golang.org/x/image/draw"

	"atelier/common/files"
	"atelier/common/typeface"
	"atelier/worker/trainer/explain/cam"
)

// Side is the width and height of a panel in pixels.
const Side = 280

const (
	margin  = 16
	heading = 58 // above the panels: what was predicted, and panels' names
	footing = 26 // below: figures of quality
)

var (
	white = image.NewUniform(color.White)
	ink   = image.NewUniform(color.RGBA{R: 34, G: 34, B: 34, A: 255})
	grey  = image.NewUniform(color.RGBA{R: 110, G: 110, B: 110, A: 255})
	pale  = image.NewUniform(color.RGBA{R: 232, G: 236, B: 240, A: 255})
	blue  = image.NewUniform(color.RGBA{G: 114, B: 178, A: 255})
	red   = image.NewUniform(color.RGBA{R: 190, G: 30, B: 45, A: 255})
	green = image.NewUniform(color.RGBA{G: 120, B: 80, A: 255})
)

// faces are made once; a Face keeps a buffer and is not safe for concurrent
// use, so each drawing takes a set from the pool.
type faces struct{ small, plain, bold typeface.Face }

var pool = sync.Pool{New: func() any {
	return &faces{typeface.New(12, false), typeface.New(13, false), typeface.New(16, true)}
}}

// canvas is a chart under way.
type canvas struct {
	*image.RGBA
	f *faces
}

func newCanvas(width, height int) canvas {
	c := canvas{image.NewRGBA(image.Rect(0, 0, width, height)), pool.Get().(*faces)}
	draw.Draw(c.RGBA, c.Bounds(), white, image.Point{}, draw.Src)
	return c
}

func (c canvas) done() *image.RGBA {
	pool.Put(c.f)
	return c.RGBA
}

func (c canvas) fill(r image.Rectangle, with image.Image) {
	draw.Draw(c.RGBA, r, with, image.Point{}, draw.Src)
}

// text writes s with its top left corner at x, y, cut to room pixels (0 = no
// limit), and returns its width.
func (c canvas) text(f typeface.Face, with *image.Uniform, x, y, room int, s string) int {
	return f.Draw(c.RGBA, with.C, x, y+f.Metrics().Ascent.Ceil(), room, s)
}

// panel sets an image into a square at x, y, as large as it fits.
func (c canvas) panel(img image.Image, x, y, side int) {
	b := img.Bounds()
	w, h := side, side
	if b.Dx() > b.Dy() {
		h = max(side*b.Dy()/b.Dx(), 1)
	} else if b.Dy() > b.Dx() {
		w = max(side*b.Dx()/b.Dy(), 1)
	}
	at := image.Rect(x+(side-w)/2, y+(side-h)/2, x+(side-w)/2+w, y+(side-h)/2+h)
	if b.Dx() == w && b.Dy() == h {
		draw.Draw(c.RGBA, at, img, b.Min, draw.Src)
		return
	}
	ximage.ApproxBiLinear.Scale(c.RGBA, at, img, b, draw.Src, nil)
}

// Share is a class and the confidence in it, in [0, 1].
type Share struct {
	Class      string
	Confidence float64
}

// Subject is what was found of one image.
type Subject struct {
	Name  string // of the file, for the heading
	True  string // empty when unknown
	Image *image.RGBA
	Map   cam.Map  // scaled to [0, 1], of the image's size
	Top   []Share  // best first
	Flags []string // why to look again, in words
	Notes string   // figures for the line below the panels
	About string   // the model, at that line's right end
}

// covered is how much of the image the strongest places of a map hide.
const covered = 0.6

// Four draws original, heat map, overlay and the best classes side by side.
func Four(s Subject) *image.RGBA {
	width, top := 4*Side+5*margin, s.headHeight()
	c := newCanvas(width, top+Side+footing+margin)
	s.head(c, width)
	heat := s.Map.HeatMap()
	if empty(s.Map) {
		draw.Draw(heat, heat.Bounds(), pale, image.Point{}, draw.Src)
	}
	for i, p := range []struct {
		name string
		img  image.Image
	}{{"original", s.Image}, {"heat map", heat}, {"overlay", s.Map.Overlay(s.Image, covered)}} {
		x := margin + i*(Side+margin)
		c.text(c.f.plain, grey, x, top-20, Side, p.name)
		c.panel(p.img, x, top, Side)
	}
	if empty(s.Map) {
		w := c.f.small.Width(nothing)
		c.text(c.f.small, ink, margin+(Side+margin)+max((Side-w)/2, 0), top+Side/2-8, Side, nothing)
	}
	x := margin + 3*(Side+margin)
	c.text(c.f.plain, grey, x, top-20, Side, fmt.Sprintf("top %d", len(s.Top)))
	s.bars(c, x, top, Side, Side)
	s.foot(c, top+Side+8, width)
	return c.done()
}

// foot writes the line below the panels.
func (s Subject) foot(c canvas, y, width int) {
	room := width - 2*margin
	if s.About != "" {
		w := min(c.f.small.Width(s.About), room/2)
		c.text(c.f.small, grey, width-margin-w, y, room/2, s.About)
		room -= w + margin
	}
	if s.Notes != "" {
		c.text(c.f.small, grey, margin, y, room, s.Notes)
	}
}

// headHeight is the room above the panels: what was predicted, why to look
// again if there is a reason, and the panels' names.
func (s Subject) headHeight() int {
	if len(s.Flags) > 0 {
		return heading + 22
	}
	return heading
}

func (s Subject) head(c canvas, width int) {
	best := Share{}
	if len(s.Top) > 0 {
		best = s.Top[0]
	}
	color, left := ink, margin
	said := fmt.Sprintf("%s, %.1f %%", best.Class, 100*best.Confidence)
	if s.True != "" {
		right := s.True == best.Class
		if color = green; !right {
			color = red
			said += "; it is " + s.True
		}
		c.badge(color, left+9, 18, right)
		left += 25
	}
	room := width - margin - left
	n := c.text(c.f.bold, color, left, 8, room, said)
	if rest := room - n - 2*margin; rest > 60 {
		w := min(c.f.small.Width(s.Name), rest)
		c.text(c.f.small, grey, width-margin-w, 12, rest, s.Name)
	}
	if len(s.Flags) > 0 {
		again := "Look again: "
		w := c.text(c.f.plain, red, margin, 33, 0, again)
		c.text(c.f.plain, ink, margin+w, 33, width-2*margin-w, strings.Join(s.Flags, "; "))
	}
}

// badge is a disc with a tick for a right answer, with a cross for a wrong one.
func (c canvas) badge(with *image.Uniform, x, y int, right bool) {
	strokes := [][4]float64{{-3.5, -3.5, 3.5, 3.5}, {-3.5, 3.5, 3.5, -3.5}}
	if right {
		strokes = [][4]float64{{-4, 0.2, -1.2, 3.2}, {-1.2, 3.2, 4, -3.2}}
	}
	const radius, half = 8.5, 1.1
	r, g, b, _ := with.RGBA()
	disc := [3]float64{float64(r >> 8), float64(g >> 8), float64(b >> 8)}
	for py := -10; py <= 10; py++ {
		for px := -10; px <= 10; px++ {
			fx, fy := float64(px), float64(py)
			cover := min(max(radius-math.Hypot(fx, fy)+0.5, 0), 1)
			line := 0.0
			for _, s := range strokes {
				dx, dy := s[2]-s[0], s[3]-s[1]
				t := min(max(((fx-s[0])*dx+(fy-s[1])*dy)/(dx*dx+dy*dy), 0), 1)
				line = max(line, min(max(half-math.Hypot(fx-s[0]-t*dx, fy-s[1]-t*dy)+0.5, 0), 1))
			}
			at := c.PixOffset(x+px, y+py)
			for k, v := range disc {
				v = v*(1-line) + 255*line
				c.Pix[at+k] = uint8(float64(c.Pix[at+k])*(1-cover) + v*cover + 0.5)
			}
		}
	}
}

// bars lists the best classes with their shares; the true one is named.
func (s Subject) bars(c canvas, x, y, width, height int) {
	if len(s.Top) == 0 {
		return
	}
	row := min(height/len(s.Top), 52)
	for i, t := range s.Top {
		at := y + i*row
		value := fmt.Sprintf("%.1f %%", 100*t.Confidence)
		w := c.f.small.Width(value)
		room := width - w - 8
		with := blue
		if s.True != "" && t.Class == s.True {
			with = green
			const mark = "true class"
			room -= c.f.small.Width(mark) + 8
			n := c.text(c.f.small, ink, x, at, room, t.Class)
			c.text(c.f.small, green, x+n+8, at, 0, mark)
		} else {
			c.text(c.f.small, ink, x, at, room, t.Class)
		}
		c.text(c.f.small, ink, x+width-w, at, 0, value)
		bar := image.Rect(x, at+17, x+width, at+max(row-8, 19))
		c.fill(bar, pale)
		bar.Max.X = x + int(float64(width)*min(max(t.Confidence, 0), 1))
		c.fill(bar, with)
	}
}

// inRow is how many panels of a comparison are side by side.
const inRow = 3

// Compare shows where the model looks for each of several classes: the
// original, then an overlay for each class, three in a row. Maps belong to the
// classes one by one.
func Compare(s Subject, classes []Share, maps []cam.Map) *image.RGBA {
	panels, top := len(classes)+1, s.headHeight()
	columns := min(panels, inRow)
	rows := (panels + inRow - 1) / inRow
	const step = Side + 46 // a panel with its name and the words below it
	width := inRow*Side + (inRow+1)*margin
	if columns < inRow {
		width = columns*Side + (columns+1)*margin
	}
	c := newCanvas(width, top+rows*step-22+footing)
	s.head(c, width)
	at := func(i int) (x, y int) { return margin + i%inRow*(Side+margin), top + i/inRow*step }
	x, y := at(0)
	c.text(c.f.plain, grey, x, y-20, Side, "original")
	c.panel(s.Image, x, y, Side)
	for i, t := range classes {
		x, y := at(i + 1)
		rest := fmt.Sprintf(", %.1f %%", 100*t.Confidence)
		if s.True != "" && t.Class == s.True {
			rest += ", true class"
		}
		n := c.text(c.f.plain, ink, x, y-20, Side-c.f.plain.Width(rest), t.Class)
		c.text(c.f.plain, ink, x+n, y-20, 0, rest)
		c.panel(maps[i].Overlay(s.Image, covered), x, y, Side)
		if empty(maps[i]) {
			c.text(c.f.small, grey, x, y+Side+4, Side, nothing)
		}
	}
	s.foot(c, top+rows*step-22, width)
	return c.done()
}

// nothing is said of a map without a bright spot: Grad-CAM keeps what speaks
// for a class alone.
const nothing = "no evidence for this class"

func empty(m cam.Map) bool {
	for _, v := range m.Values {
		if v > 1e-6 {
			return false
		}
	}
	return true
}

// Save writes an opaque chart as PNG, whole or not at all; missing folders are
// made.
func Save(path string, img *image.RGBA) error {
	tmp, err := files.Create(path, 0o644)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			tmp, err = files.Create(path, 0o644)
		}
	}
	if err != nil {
		return err
	}
	defer tmp.Abort()
	if err = encode(tmp, img); err == nil {
		err = tmp.CommitUnsynced()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
