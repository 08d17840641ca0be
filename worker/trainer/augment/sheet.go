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

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"atelier/common/files"
)

// Tile is one augmented image to look at.
type Tile struct {
	Pixels  []byte // size x size, interleaved RGB
	Caption string
	Mixed   Box // outlined: what CutMix put in; may be empty
}

const (
	tileSide  = 112 // pixels at least: smaller images are enlarged by a whole factor
	lineSpace = 15  // under a tile, for its caption
	gap       = 4
)

// WriteSheet writes tiles as one PNG, row by row in a grid about as wide as
// high. The file is complete or not there.
func WriteSheet(path string, size int, tiles []Tile) error {
	if len(tiles) == 0 {
		return fmt.Errorf("sample sheet %s: no images", path)
	}
	m := sheet(size, tiles)
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

func sheet(size int, tiles []Tile) *image.RGBA {
	factor := max(1, (tileSide+size-1)/size)
	side := size * factor
	columns := int(math.Ceil(math.Sqrt(float64(len(tiles)))))
	rows := (len(tiles) + columns - 1) / columns
	m := image.NewRGBA(image.Rect(0, 0, gap+columns*(side+gap), gap+rows*(side+lineSpace+gap)))
	draw.Draw(m, m.Bounds(), image.White, image.Point{}, draw.Src)
	for i, t := range tiles {
		left, top := gap+i%columns*(side+gap), gap+i/columns*(side+lineSpace+gap)
		for y := range side {
			for x := range side {
				p := t.Pixels[(y/factor*size+x/factor)*3:]
				m.SetRGBA(left+x, top+y, color.RGBA{p[0], p[1], p[2], 255})
			}
		}
		if t.Mixed.Area() > 0 {
			outline(m, image.Rect(t.Mixed.X1, t.Mixed.Y1, t.Mixed.X2, t.Mixed.Y2), factor, image.Pt(left, top))
		}
		clip := m.SubImage(image.Rect(left, top+side, left+side, top+side+lineSpace)).(*image.RGBA)
		d := font.Drawer{Dst: clip, Src: image.Black, Face: basicfont.Face7x13, Dot: fixed.P(left, top+side+12)}
		d.DrawString(t.Caption)
	}
	return m
}

// outline draws a dotted line, black and white to be seen on any ground, just
// inside a box of an image that is enlarged by factor and lies at corner.
func outline(m *image.RGBA, box image.Rectangle, factor int, corner image.Point) {
	r := image.Rectangle{Min: box.Min.Mul(factor).Add(corner), Max: box.Max.Mul(factor).Add(corner)}
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
