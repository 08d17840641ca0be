// Package typeface is the letters of all charts and sheets: Liberation Sans,
// regular and bold, which is in the programs. Arial and Helvetica have the same
// widths, so that a text of an SVG file takes the room that was measured for it
// on a machine without these letters. It refuses to know what is drawn.
package typeface

import (
	"image"
	"image/color"
	"image/draw"
	"sync"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

var fonts = [2]func() *opentype.Font{parse(liberationsansregular.TTF), parse(liberationsansbold.TTF)}

func parse(ttf []byte) func() *opentype.Font {
	return sync.OnceValue(func() *opentype.Font {
		f, err := opentype.Parse(ttf)
		if err != nil {
			panic(err) // the letters are in the program
		}
		return f
	})
}

// Font is the letters in all sizes; it is safe for concurrent use.
func Font(bold bool) *opentype.Font {
	if bold {
		return fonts[1]()
	}
	return fonts[0]()
}

// Face is the letters in one size. It keeps a buffer: it is not safe for
// concurrent use.
type Face struct {
	font.Face
	Height int // of a line, in pixels
}

// unkerned leaves letters at their own widths. The typeface draws the two
// digits of 11 and the dot after a y so near that they touch at the size of
// charts.
type unkerned struct{ font.Face }

func (unkerned) Kern(rune, rune) fixed.Int26_6 { return 0 }

// New makes a face of so many pixels.
func New(size float64, bold bool) Face {
	f, err := opentype.NewFace(Font(bold), &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		panic(err)
	}
	return Face{unkerned{f}, int(size*1.3 + 0.5)}
}

// Width of a text in pixels.
func (f Face) Width(s string) int { return font.MeasureString(f, s).Ceil() }

// Fit cuts a text that is wider than room pixels and ends it in three dots; a
// room of 0 or less has no limit.
func (f Face) Fit(s string, room int) string {
	if room <= 0 {
		return s
	}
	return Cut(s, func(s string) bool { return f.Width(s) <= room })
}

// Cut shortens a text until it fits, and shows that it did.
func Cut(s string, fits func(string) bool) string {
	if fits(s) {
		return s
	}
	r := []rune(s)
	for len(r) > 1 && !fits(string(r)+"…") {
		r = r[:len(r)-1]
	}
	return string(r) + "…"
}

// Draw writes a text with its baseline's left end at x, y, cut to room pixels
// (0 = no limit), and returns its width.
func (f Face) Draw(to draw.Image, with color.Color, x, y, room int, s string) int {
	s = f.Fit(s, room)
	d := font.Drawer{Dst: to, Src: image.NewUniform(with), Face: f, Dot: fixed.P(x, y)}
	d.DrawString(s)
	return f.Width(s)
}
