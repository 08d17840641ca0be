package cam

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
)

// Jet is the colour scale of heat maps: blue over cyan, green and yellow to red.
func Jet(v float32) color.RGBA {
	channel := func(centre float64) uint8 {
		return uint8(math.Round(255 * min(max(1.5-math.Abs(4*float64(v)-centre), 0), 1)))
	}
	return color.RGBA{R: channel(3), G: channel(2), B: channel(1), A: 255}
}

var jet = func() (table [256]color.RGBA) {
	for i := range table {
		table[i] = Jet(float32(i) / 255)
	}
	return table
}()

func (m Map) color(i int) color.RGBA {
	return jet[int(min(max(m.Values[i], 0), 1)*255+0.5)]
}

// HeatMap draws the map in colours.
func (m Map) HeatMap() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i := range m.Values {
		c := m.color(i)
		to := img.Pix[4*i : 4*i+4 : 4*i+4]
		to[0], to[1], to[2], to[3] = c.R, c.G, c.B, 255
	}
	return img
}

// Overlay lays the map over an image of its size; share is the map's, 0.5 by
// custom.
func (m Map) Overlay(original *image.RGBA, share float64) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	b := original.Bounds()
	var heat, below [256]float64 // what a byte of either adds
	for v := range 256 {
		heat[v], below[v] = float64(v)*share, float64(v)*(1-share)
	}
	mix := func(a, b uint8) uint8 { return uint8(heat[a] + below[b] + 0.5) }
	for y := range min(m.Height, b.Dy()) {
		for x := range min(m.Width, b.Dx()) {
			i := y*m.Width + x
			c := m.color(i)
			p := original.Pix[original.PixOffset(b.Min.X+x, b.Min.Y+y):]
			to := img.Pix[4*i : 4*i+4 : 4*i+4]
			to[0], to[1], to[2], to[3] = mix(c.R, p[0]), mix(c.G, p[1]), mix(c.B, p[2]), 255
		}
	}
	return img
}

// WriteNPY writes the map as NumPy's .npy (format 1.0): float32, little endian,
// shape (height, width).
func (m Map) WriteNPY(w io.Writer) error {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", m.Height, m.Width)
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	b = append(b, header...)
	for _, v := range m.Values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	_, err := w.Write(b)
	return err
}
