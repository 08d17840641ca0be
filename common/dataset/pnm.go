package dataset

import (
	"errors"
	"fmt"
	"image"
	"image/color"
)

// The netpbm formats that ImageFolder names: P2/P5 (grey) and P3/P6 (colour), plain and raw, up to 16 bits.
// P1/P4 (bitmaps) and PAM are left to other tools.

var errPNMTruncated = errors.New("pnm: truncated")

type pnmHeader struct {
	kind          byte // '2', '3', '5' or '6'
	width, height int
	maximum       int // greatest sample value, 1..65535
	data          []byte
}

func isPNM(b []byte) bool {
	return len(b) >= 3 && b[0] == 'P' && (b[1] == '2' || b[1] == '3' || b[1] == '5' || b[1] == '6') && isSpace(b[2])
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f'
}

// pnmNumber reads one decimal number after blanks and comments and returns the rest.
func pnmNumber(b []byte) (int, []byte, error) {
	for {
		for len(b) > 0 && isSpace(b[0]) {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != '#' {
			break
		}
		for len(b) > 0 && b[0] != '\n' && b[0] != '\r' {
			b = b[1:]
		}
	}
	if len(b) == 0 {
		return 0, nil, errPNMTruncated
	}
	n, digits := 0, 0
	for len(b) > 0 && b[0] >= '0' && b[0] <= '9' {
		n = n*10 + int(b[0]-'0')
		if digits++; digits > 9 {
			return 0, nil, errors.New("pnm: number too long")
		}
		b = b[1:]
	}
	if digits == 0 {
		return 0, nil, fmt.Errorf("pnm: %q where a number should be", b[0])
	}
	if len(b) > 0 && !isSpace(b[0]) && b[0] != '#' {
		return 0, nil, fmt.Errorf("pnm: %q after a number", b[0])
	}
	return n, b, nil
}

func parsePNMHeader(b []byte) (pnmHeader, error) {
	if !isPNM(b) {
		return pnmHeader{}, errors.New("pnm: no P2, P3, P5 or P6 signature")
	}
	h := pnmHeader{kind: b[1]}
	rest := b[2:]
	for _, field := range []*int{&h.width, &h.height, &h.maximum} {
		n, r, err := pnmNumber(rest)
		if err != nil {
			return pnmHeader{}, err
		}
		*field, rest = n, r
	}
	if h.width < 1 || h.height < 1 {
		return pnmHeader{}, fmt.Errorf("pnm: %d x %d pixels", h.width, h.height)
	}
	if h.maximum < 1 || h.maximum > 65535 {
		return pnmHeader{}, fmt.Errorf("pnm: greatest value %d, allowed are 1 to 65535", h.maximum)
	}
	// Exactly one blank ends the header of the raw formats; what follows is data, even if it looks blank.
	if len(rest) == 0 {
		return pnmHeader{}, errPNMTruncated
	}
	h.data = rest[1:]
	return h, nil
}

// decodePNM decodes an image whose size the caller has already found acceptable.
func decodePNM(b []byte) (image.Image, error) {
	h, err := parsePNMHeader(b)
	if err != nil {
		return nil, err
	}
	samples := 1
	if h.kind == '3' || h.kind == '6' {
		samples = 3
	}
	plain := h.kind == '2' || h.kind == '3'
	width := 1 // bytes a sample takes at the least
	if plain {
		width = 2 // a digit and a blank (the last blank may be missing)
	} else if h.maximum > 255 {
		width = 2
	}
	// Checked before memory is taken for the image: a small file cannot ask for a big one.
	need := int64(h.width) * int64(h.height) * int64(samples) * int64(width)
	if plain {
		need--
	}
	if int64(len(h.data)) < need {
		return nil, errPNMTruncated
	}
	rect := image.Rect(0, 0, h.width, h.height)
	var pix []byte
	var img image.Image
	if samples == 1 {
		g := image.NewGray(rect)
		pix, img = g.Pix, g
	} else {
		pix = make([]byte, 3*h.width*h.height)
		img = &rgbImage{pix: pix, rect: rect}
	}
	scale := func(v int) (byte, error) {
		if v > h.maximum {
			return 0, fmt.Errorf("pnm: value %d above the greatest, %d", v, h.maximum)
		}
		if h.maximum == 255 {
			return byte(v), nil
		}
		return byte((v*255 + h.maximum/2) / h.maximum), nil
	}
	data := h.data
	for i := range pix {
		v := 0
		switch {
		case plain:
			if v, data, err = pnmNumber(data); err != nil {
				return nil, err
			}
		case h.maximum > 255:
			v = int(data[2*i])<<8 | int(data[2*i+1])
		default:
			v = int(data[i])
		}
		if pix[i], err = scale(v); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// rgbImage is an image of three bytes a pixel.
type rgbImage struct {
	pix  []byte
	rect image.Rectangle
}

func (m *rgbImage) ColorModel() color.Model { return color.NRGBAModel }
func (m *rgbImage) Bounds() image.Rectangle { return m.rect }
func (m *rgbImage) At(x, y int) color.Color {
	if !(image.Point{X: x, Y: y}).In(m.rect) {
		return color.NRGBA{}
	}
	i := 3 * ((y-m.rect.Min.Y)*m.rect.Dx() + x - m.rect.Min.X)
	return color.NRGBA{R: m.pix[i], G: m.pix[i+1], B: m.pix[i+2], A: 255}
}
