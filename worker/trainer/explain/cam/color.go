package cam

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
)

// inferno (van der Walt and Smith, 2015) at nine even steps: its lightness rises
// evenly, so that it reads in grey and for colour-blind eyes.
var inferno = [9][3]float64{{0, 0, 4}, {31, 12, 72}, {85, 15, 109}, {136, 34, 106}, {187, 55, 84}, {227, 89, 51}, {249, 140, 10}, {249, 201, 50}, {252, 255, 164}}

// Color is the colour of a map's value, dark to bright over [0, 1]. Its alpha is
// the value's strength when the map lies over an image: nothing where the map
// says nothing, so that the image stays visible there. The colours are not
// multiplied by it.
func Color(v float32) color.NRGBA {
	f := float64(min(max(v, 0), 1))
	at := f * 8
	i := min(int(at), 7)
	mix := func(k int) uint8 {
		return uint8(math.Round(inferno[i][k]*(1-at+float64(i)) + inferno[i+1][k]*(at-float64(i))))
	}
	const from, to = 0.1, 0.65
	s := min(max((f-from)/(to-from), 0), 1)
	return color.NRGBA{R: mix(0), G: mix(1), B: mix(2), A: uint8(math.Round(255 * s * s * (3 - 2*s)))}
}

var colors = func() (table [256]color.NRGBA) {
	for i := range table {
		table[i] = Color(float32(i) / 255)
	}
	return table
}()

// Scale is Color in 256 steps: red, green, blue and alpha of each.
func Scale() []byte {
	var out []byte
	for _, c := range colors {
		out = append(out, c.R, c.G, c.B, c.A)
	}
	return out
}

func (m Map) color(i int) color.NRGBA {
	return colors[int(min(max(m.Values[i], 0), 1)*255+0.5)]
}

// HeatMap draws the map in colours, opaque.
func (m Map) HeatMap() *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i := range m.Values {
		c := m.color(i)
		to := img.Pix[4*i : 4*i+4 : 4*i+4]
		to[0], to[1], to[2], to[3] = c.R, c.G, c.B, 255
	}
	return img
}

// Overlay lays the map over an image of its size; share is how much of the
// image its strongest values hide.
func (m Map) Overlay(original *image.RGBA, share float64) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	b := original.Bounds()
	var parts [256]uint32 // of 65536, by alpha
	for a := range parts {
		parts[a] = uint32(math.Round(float64(a) / 255 * share * 65536))
	}
	for y := range min(m.Height, b.Dy()) {
		for x := range min(m.Width, b.Dx()) {
			i := y*m.Width + x
			c := m.color(i)
			f := parts[c.A]
			mix := func(heat, below uint8) uint8 { return uint8((uint32(heat)*f + uint32(below)*(65536-f) + 32768) >> 16) }
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
