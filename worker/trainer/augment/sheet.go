package augment

import (
	"bufio"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strings"

	"atelier/common/files"
	"atelier/common/typeface"
)

// Tile is one augmented image to look at.
type Tile struct {
	Pixels  []byte // size x size, interleaved RGB
	Caption string // in at most two lines
	Mixed   Box    // outlined: what CutMix put in; may be empty
}

// Heading is what a sheet has above its tiles.
type Heading struct {
	Class string
	Data  string // the images' folder
	Of    Recipe // what was done to them
}

const (
	tileSide  = 128  // pixels at least: smaller images are enlarged by a whole factor
	mostSide  = 2400 // of a sheet: larger images are shown smaller by a whole factor
	lineSpace = 15
	margin    = 16
	gap       = 6
	titleHigh = 26
)

var (
	ink   = color.RGBA{34, 34, 34, 255}
	quiet = color.RGBA{105, 105, 110, 255}
)

// WriteSheet writes tiles as one PNG, row by row in a grid about as wide as
// high. The file is complete or not there.
func WriteSheet(path string, h Heading, size int, tiles []Tile) error {
	if len(tiles) == 0 {
		return fmt.Errorf("sample sheet %s: no images", path)
	}
	m := sheet(h, size, tiles)
	f, err := files.Create(path, 0o644)
	if err == nil {
		defer f.Abort()
		w := bufio.NewWriter(f)
		if err = errors.Join(png.Encode(w, m), w.Flush()); err == nil {
			err = f.CommitUnsynced()
		}
	}
	if err != nil {
		return fmt.Errorf("sample sheet %s: %w", path, err)
	}
	return nil
}

// lines is the text above the tiles, below the class.
func (h Heading) lines(size, factor, every, images int) []string {
	count := fmt.Sprintf("%d training images as the first epochs see them", images)
	if h.Data != "" {
		count += "  ·  " + h.Data
	}
	scale := fmt.Sprintf("%d x %d pixels", size, size)
	switch {
	case every > 1:
		scale += fmt.Sprintf(", shown at 1/%d", every)
	case factor > 1:
		scale += fmt.Sprintf(", enlarged %d times", factor)
	}
	return []string{count, h.Of.String(), scale}
}

func sheet(h Heading, size int, tiles []Tile) *image.RGBA {
	columns := int(math.Ceil(math.Sqrt(float64(len(tiles)))))
	rows := (len(tiles) + columns - 1) / columns
	factor := max(1, (tileSide+size-1)/size)
	const roomy = mostSide - 200 // headings and captions take the rest
	every := max(1, (columns*size+roomy-1)/roomy)
	side := (size*factor + every - 1) / every
	below := 0
	for _, t := range tiles {
		if t.Caption != "" {
			below = max(below, lineSpace*(1+strings.Count(t.Caption, "\n")))
		}
	}
	title, text := typeface.New(17, true), typeface.New(12, false)
	lines := h.lines(size, factor, every, len(tiles))
	width := max(2*margin+columns*(side+gap)-gap, 360)
	top := margin + titleHigh + len(lines)*lineSpace + 8
	m := image.NewRGBA(image.Rect(0, 0, width, top+rows*(side+below+gap)-gap+margin))
	draw.Draw(m, m.Bounds(), image.White, image.Point{}, draw.Src)
	title.Draw(m, ink, margin, margin+15, width-2*margin, h.Class)
	for i, l := range lines {
		text.Draw(m, quiet, margin, margin+titleHigh+i*lineSpace+10, width-2*margin, l)
	}
	for i, t := range tiles {
		left, top := margin+i%columns*(side+gap), top+i/columns*(side+below+gap)
		for y := range side {
			for x := range side {
				p := t.Pixels[(y*every/factor*size+x*every/factor)*3:]
				m.SetRGBA(left+x, top+y, color.RGBA{p[0], p[1], p[2], 255})
			}
		}
		if t.Mixed.Area() > 0 {
			outline(m, image.Rect(t.Mixed.X1, t.Mixed.Y1, t.Mixed.X2, t.Mixed.Y2), factor, every, image.Pt(left, top))
		}
		for k, l := range strings.Split(t.Caption, "\n") {
			if l != "" {
				text.Draw(m, ink, left, top+side+12+k*lineSpace, side, l)
			}
		}
	}
	return m
}

// outline draws a dotted line, black and white to be seen on any ground, just
// inside a box of an image that is enlarged by factor, shown at every so many
// pixels, and lies at corner.
func outline(m *image.RGBA, box image.Rectangle, factor, every int, corner image.Point) {
	r := image.Rectangle{Min: box.Min.Mul(factor).Div(every).Add(corner), Max: box.Max.Mul(factor).Div(every).Add(corner)}
	dot := func(x, y int) {
		c := color.RGBA{255, 255, 255, 255}
		if (x+y)/3%2 == 0 {
			c = color.RGBA{0, 0, 0, 255}
		}
		m.SetRGBA(x, y, c)
	}
	for x := r.Min.X; x < r.Max.X; x++ {
		dot(x, r.Min.Y)
		dot(x, r.Max.Y-1)
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		dot(r.Min.X, y)
		dot(r.Max.X-1, y)
	}
}
