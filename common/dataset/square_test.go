package dataset

import (
	"image"
	"image/color"
	"math/rand/v2"
	"slices"
	"testing"
)

// Both forms of Square's arithmetic give the same bytes.
func TestSquareFastIsPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	used := new(scratch)
	for n := range 300 {
		w, h, size := 1+r.IntN(90), 1+r.IntN(90), 1+r.IntN(70)
		var img image.Image
		switch n % 3 {
		case 0, 1:
			ratio := []image.YCbCrSubsampleRatio{image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio420, image.YCbCrSubsampleRatio422,
				image.YCbCrSubsampleRatio440, image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410}[n/3%6]
			m := image.NewYCbCr(image.Rect(0, 0, w, h), ratio)
			for _, p := range [][]byte{m.Y, m.Cb, m.Cr} {
				for i := range p {
					p[i] = byte(r.IntN(256))
				}
			}
			img = m
		default:
			m := image.NewNRGBA(image.Rect(0, 0, w, h))
			for i := range m.Pix {
				m.Pix[i] = byte(r.IntN(256))
			}
			img = m
		}
		mode, filter := Mode(r.IntN(2)), Filter(r.IntN(2))
		newW, newH, left, top := size, size, 0, 0
		if mode == CenterCrop {
			newW, newH = shorterSide(w, h, size)
			left, top = halfEven(newW-size), halfEven(newH-size)
		}
		xs, ys := coefficients(w, newW, left, left+size, filter), coefficients(h, newH, top, top+size, filter)
		firstRow, lastRow := slices.Min(ys.first), 0
		for i := range size {
			lastRow = max(lastRow, ys.first[i]+ys.count[i])
		}
		want, got := make([]byte, 3*size*size), make([]byte, 3*size*size)
		squarePlain(want, img, "jpeg", xs, ys, firstRow, lastRow)
		if !squareFast(got, img, "jpeg", xs, ys, firstRow, lastRow, used) {
			t.Skip("this processor has only the plain form")
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d x %d to %d, %v, %v: the bytes differ", w, h, size, mode, filter)
		}
	}
}

// Every colour there is in the corners and between.
func TestFullRange(t *testing.T) {
	m := image.NewYCbCr(image.Rect(0, 0, 256, 81), image.YCbCrSubsampleRatio444)
	levels := []byte{0, 1, 60, 127, 128, 129, 200, 254, 255}
	for y := range 81 {
		for x := range 256 {
			m.Y[y*m.YStride+x], m.Cb[y*m.CStride+x], m.Cr[y*m.CStride+x] = byte(x), levels[y/9], levels[y%9]
		}
	}
	got := make([]byte, 3*81*81)
	Square(got, m, "jpeg", 81, 81, CenterCrop, Bilinear)
	left := (256 - 81) / 2
	if d := halfEven(256 - 81); d != left {
		left = d
	}
	for y := range 81 {
		for x := range 81 {
			r, g, b := color.YCbCrToRGB(byte(x+left), levels[y/9], levels[y%9])
			if c := got[3*(81*y+x):][:3]; c[0] != r || c[1] != g || c[2] != b {
				t.Fatalf("at %d, %d: %v, want %d %d %d", x, y, c, r, g, b)
			}
		}
	}
}
