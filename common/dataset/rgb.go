package dataset

import (
	"image"
	"image/color"
)

// rowReader writes row y (0 is the top) of an image as RGB, three bytes a pixel, into dst.
type rowReader func(y int, dst []byte)

// rgbRows converts a decoded image to RGB row by row, as Pillow's convert("RGB") does: alpha is dropped
// (not blended), grey is repeated, a palette is looked up, CMYK goes through (255-c)(255-k)/255. Of 16-bit
// samples the high byte is kept, also for grey, which Pillow cuts off at 255 and so shows all white.
func rgbRows(img image.Image, format string) rowReader {
	b := img.Bounds()
	w := b.Dx()
	switch m := img.(type) {
	case *rgbImage:
		return func(y int, dst []byte) { copy(dst[:3*w], m.pix[3*w*y:]) }
	case *image.Gray:
		return func(y int, dst []byte) {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:w]
			for x, v := range row {
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		}
	case *image.Gray16:
		return func(y int, dst []byte) {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:2*w]
			for x := range w {
				v := row[2*x]
				dst[3*x], dst[3*x+1], dst[3*x+2] = v, v, v
			}
		}
	case *image.YCbCr:
		if format == "webp" {
			return func(y int, dst []byte) { studioRow(m, y, dst) }
		}
		return func(y int, dst []byte) { fullRangeRow(m, y, dst) }
	case *image.NYCbCrA:
		return func(y int, dst []byte) { studioRow(&m.YCbCr, y, dst) }
	case *image.NRGBA:
		return func(y int, dst []byte) { fourByteRow(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:4*w], dst) }
	case *image.RGBA:
		if m.Opaque() {
			return func(y int, dst []byte) { fourByteRow(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:4*w], dst) }
		}
	case *image.NRGBA64:
		return func(y int, dst []byte) {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:8*w]
			for x := range w {
				dst[3*x], dst[3*x+1], dst[3*x+2] = row[8*x], row[8*x+2], row[8*x+4]
			}
		}
	case *image.Paletted:
		table := make([][3]byte, 256) // an index beyond the palette is black
		for i, c := range m.Palette {
			if i < len(table) {
				table[i] = straight(c)
			}
		}
		return func(y int, dst []byte) {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:w]
			for x, v := range row {
				copy(dst[3*x:3*x+3], table[v][:])
			}
		}
	case *image.CMYK:
		return func(y int, dst []byte) {
			row := m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):][:4*w]
			for x := range w {
				dst[3*x], dst[3*x+1], dst[3*x+2] = color.CMYKToRGB(row[4*x], row[4*x+1], row[4*x+2], row[4*x+3])
			}
		}
	}
	return func(y int, dst []byte) {
		for x := range w {
			c := straight(img.At(b.Min.X+x, b.Min.Y+y))
			copy(dst[3*x:3*x+3], c[:])
		}
	}
}

func fourByteRow(row, dst []byte) {
	for i, j := 0, 0; i+3 < len(row); i, j = i+4, j+3 {
		dst[j], dst[j+1], dst[j+2] = row[i], row[i+1], row[i+2]
	}
}

// straight returns a colour's red, green and blue with alpha dropped.
func straight(c color.Color) [3]byte {
	switch v := c.(type) {
	case color.NRGBA:
		return [3]byte{v.R, v.G, v.B}
	case color.NRGBA64:
		return [3]byte{byte(v.R >> 8), byte(v.G >> 8), byte(v.B >> 8)}
	case color.RGBA:
		if v.A == 255 {
			return [3]byte{v.R, v.G, v.B}
		}
	}
	n := color.NRGBAModel.Convert(c).(color.NRGBA)
	return [3]byte{n.R, n.G, n.B}
}

// chroma returns row y of an image's chroma planes, its luma, and how far a column is shifted to find its chroma.
// (Images come from decoders: their bounds begin at 0, 0 or at least at an even column.)
func chroma(m *image.YCbCr, y int) (luma, cb, cr []byte, shift uint) {
	b := m.Rect
	luma = m.Y[m.YOffset(b.Min.X, b.Min.Y+y):][:b.Dx()]
	at := m.COffset(b.Min.X, b.Min.Y+y)
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		shift = 1
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		shift = 2
	}
	return luma, m.Cb[at:], m.Cr[at:], shift
}

// fullRangeRow converts by JFIF's formulas.
func fullRangeRow(m *image.YCbCr, y int, dst []byte) {
	luma, cb, cr, shift := chroma(m, y)
	for x, l := range luma {
		r, g, b := ycbcr(l, cb[x>>shift], cr[x>>shift])
		out := dst[3*x : 3*x+3 : 3*x+3]
		out[0], out[1], out[2] = r, g, b
	}
}

func ycbcr(y, cb, cr byte) (r, g, b byte) { return color.YCbCrToRGB(y, cb, cr) }

// studioRow converts WebP's lossy images, whose luma runs from 16 to 235, with libwebp's arithmetic;
// image.YCbCr alone would take them for full range and show them washed out.
func studioRow(m *image.YCbCr, y int, dst []byte) {
	luma, cb, cr, shift := chroma(m, y)
	for x, c := range luma {
		l := int(c) * 19077 >> 8
		u, v := int(cb[x>>shift]), int(cr[x>>shift])
		dst[3*x] = clip6(l + v*26149>>8 - 14234)
		dst[3*x+1] = clip6(l - u*6419>>8 - v*13320>>8 + 8708)
		dst[3*x+2] = clip6(l + u*33050>>8 - 17685)
	}
}

func clip6(v int) byte {
	return byte(min(max(v>>6, 0), 255))
}
