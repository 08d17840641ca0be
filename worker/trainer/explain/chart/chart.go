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
	"os"
	"path/filepath"
	"strings"
	"sync"

	ximage "golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"atelier/common/files"
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

type face struct {
	font.Face
	height int
}

// faces are made once; a Face keeps a buffer and is not safe for concurrent
// use, so each drawing takes a set from the pool.
type faces struct{ small, plain, bold face }

var pool = sync.Pool{New: func() any {
	make := func(ttf []byte, size float64) face {
		f, err := opentype.Parse(ttf)
		if err != nil {
			panic(err) // the fonts are in the program
		}
		x, err := opentype.NewFace(f, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
		if err != nil {
			panic(err)
		}
		return face{x, int(size * 1.3)}
	}
	return &faces{make(goregular.TTF, 12), make(goregular.TTF, 13), make(gobold.TTF, 16)}
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
func (c canvas) text(f face, with image.Image, x, y, room int, s string) int {
	s = fit(f, s, room)
	d := font.Drawer{Dst: c.RGBA, Src: with, Face: f, Dot: fixed.P(x, y+f.Metrics().Ascent.Ceil())}
	d.DrawString(s)
	return font.MeasureString(f, s).Ceil()
}

func fit(f face, s string, room int) string {
	if room <= 0 || font.MeasureString(f, s).Ceil() <= room {
		return s
	}
	r := []rune(s)
	for len(r) > 1 && font.MeasureString(f, string(r)+"…").Ceil() > room {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
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
	Map   cam.Map // scaled to [0, 1], of the image's size
	Top   []Share // best first
	Flags []string
	// Notes are figures for the line below the panels.
	Notes string
}

// Four draws original, heat map, overlay and the best classes side by side.
func Four(s Subject) *image.RGBA {
	width := 4*Side + 5*margin
	c := newCanvas(width, heading+Side+footing+margin)
	s.head(c, width)
	top := heading
	for i, p := range []struct {
		name string
		img  image.Image
	}{{"original", s.Image}, {"heat map", s.Map.HeatMap()}, {"overlay", s.Map.Overlay(s.Image, 0.5)}} {
		x := margin + i*(Side+margin)
		c.text(c.f.plain, grey, x, heading-20, Side, p.name)
		c.panel(p.img, x, top, Side)
	}
	x := margin + 3*(Side+margin)
	c.text(c.f.plain, grey, x, heading-20, Side, fmt.Sprintf("top %d", len(s.Top)))
	s.bars(c, x, top, Side, Side)
	notes := s.Notes
	if empty(s.Map) {
		notes = strings.TrimSpace(nothing + "   " + notes)
	}
	if notes != "" {
		c.text(c.f.small, grey, margin, heading+Side+8, width-2*margin, notes)
	}
	return c.done()
}

func (s Subject) head(c canvas, width int) {
	best := Share{}
	if len(s.Top) > 0 {
		best = s.Top[0]
	}
	color := ink
	said := fmt.Sprintf("%s, %.1f %%", best.Class, 100*best.Confidence)
	if s.True != "" && s.True != best.Class {
		color = red
		said += "; it is " + s.True
	} else if s.True != "" {
		color = green
	}
	room := width - 2*margin
	if len(s.Flags) > 0 {
		flags := "FLAGGED:"
		for _, f := range s.Flags {
			flags += " " + f
		}
		flags = fit(c.f.plain, flags, width/2)
		w := font.MeasureString(c.f.plain, flags).Ceil()
		c.text(c.f.plain, red, width-margin-w, 11, 0, flags)
		room -= w + margin
	}
	n := c.text(c.f.bold, color, margin, 8, room, said)
	c.text(c.f.small, grey, margin+n+12, 12, room-n-12, s.Name)
}

// bars lists the best classes with their shares.
func (s Subject) bars(c canvas, x, y, width, height int) {
	if len(s.Top) == 0 {
		return
	}
	row := min(height/len(s.Top), 52)
	for i, t := range s.Top {
		at := y + i*row
		value := fmt.Sprintf("%.1f %%", 100*t.Confidence)
		w := font.MeasureString(c.f.small, value).Ceil()
		c.text(c.f.small, ink, x, at, width-w-8, t.Class)
		c.text(c.f.small, ink, x+width-w, at, 0, value)
		bar := image.Rect(x, at+17, x+width, at+max(row-8, 19))
		c.fill(bar, pale)
		with := blue
		if s.True != "" && t.Class == s.True {
			with = green
		}
		bar.Max.X = x + int(float64(width)*min(max(t.Confidence, 0), 1))
		c.fill(bar, with)
	}
}

// Compare shows where the model looks for each of several classes: the
// original, then an overlay a class. Maps belong to the classes one by one.
func Compare(s Subject, classes []Share, maps []cam.Map) *image.RGBA {
	columns := len(classes) + 1
	width := columns*Side + (columns+1)*margin
	c := newCanvas(width, heading+Side+footing+margin)
	s.head(c, width)
	c.text(c.f.plain, grey, margin, heading-20, Side, "original")
	c.panel(s.Image, margin, heading, Side)
	for i, t := range classes {
		x := margin + (i+1)*(Side+margin)
		c.text(c.f.plain, ink, x, heading-20, Side, fmt.Sprintf("%s, %.1f %%", t.Class, 100*t.Confidence))
		c.panel(maps[i].Overlay(s.Image, 0.5), x, heading, Side)
		if empty(maps[i]) {
			c.text(c.f.small, grey, x, heading+Side+4, Side, nothing)
		}
	}
	c.text(c.f.small, grey, margin, heading+Side+20, width-2*margin, s.Notes)
	return c.done()
}

// nothing is said of a map without a bright spot: Grad-CAM keeps what speaks
// for a class alone.
const nothing = "nothing here speaks for this class"

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
