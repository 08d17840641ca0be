// Package jpeg decodes the JPEG files that people have, baseline ones, several
// times as fast as image/jpeg and to the same bytes; all others (progressive,
// arithmetic, CMYK, RGB, odd sampling, damaged) it hands to image/jpeg, whose
// image or error is then the answer. It can also decode an image at a half,
// a quarter or an eighth of its size for little more than reading its codes.
//
// The format is ITU-T T.81. What is fast: the whole file in memory, 64 bits at
// a time; a code and its value found by one look at ten bits; the inverse
// cosine transform of eight rows at once where the processor has AVX2.
package jpeg

import (
	"bytes"
	"image"
	"image/jpeg"
	"sync"
)

// Decode is image/jpeg's Decode of a file in memory: the same image, the same errors.
func Decode(b []byte) (image.Image, error) {
	if img, _ := fast(b, 8, 0); img != nil {
		return img, nil
	}
	return jpeg.Decode(bytes.NewReader(b))
}

// Reduced decodes an image at a half, a quarter or an eighth of its size, the
// least of them whose shorter side has at least so many pixels, and says how
// large it really is. Each pixel is the mean of those that it stands for.
// What only image/jpeg decodes comes whole. Errors are those of Decode: the
// codes of the whole image are read.
func Reduced(b []byte, least int) (img image.Image, full image.Point, err error) {
	if img, full := fast(b, 0, least); img != nil {
		return img, full, nil
	}
	if img, err = jpeg.Decode(bytes.NewReader(b)); err != nil {
		return nil, image.Point{}, err
	}
	return img, img.Bounds().Size(), nil
}

// Config is image/jpeg's DecodeConfig of a file, or of its beginning, in memory; of the colour model it says nothing.
func Config(b []byte) (image.Config, error) {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	if d.header(b) {
		d.data = nil
		return image.Config{Width: d.width, Height: d.height}, nil
	}
	return jpeg.DecodeConfig(bytes.NewReader(b))
}

// Free gives the memory of a decoded image to the next one. Nobody may look at it any more.
func Free(img image.Image) {
	var all []byte
	switch m := img.(type) {
	case *image.YCbCr:
		all = m.Y // the others lie behind it
	case *image.Gray:
		all = m.Pix
	}
	if 0 < cap(all) && cap(all) <= 16<<20 { // larger ones would be kept for nothing
		planes.Put(&all)
	}
}

var planes sync.Pool // of *[]byte

// pixelsOf are n bytes of anything.
func pixelsOf(n int) []byte {
	if old, _ := planes.Get().(*[]byte); old != nil && cap(*old) >= n {
		return (*old)[:n]
	}
	return make([]byte, n)
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// fast decodes what it knows and gives nil for everything else. Blocks of 8 x 8
// become each x each pixels; each = 0 takes what least allows.
func fast(b []byte, each, least int) (image.Image, image.Point) {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	if !d.header(b) {
		return nil, image.Point{}
	}
	full := image.Pt(d.width, d.height)
	if each == 0 {
		for each = 1; each < 8 && min(d.width, d.height)*each < 8*least; each *= 2 {
		}
	}
	img := d.allocate(each)
	if !d.scan(each) {
		Free(img)
		img = nil
	}
	d.data = nil
	for i := range d.comp {
		d.comp[i].plane = nil
	}
	if img == nil {
		full = image.Point{}
	}
	return img, full
}

// component is one of luma, Cb and Cr.
type component struct {
	id     byte
	h, v   int // blocks in a unit of the scan
	quant  byte
	dc, ac byte  // tables
	last   int32 // DC of the block before
	plane  []byte
	stride int
}

type decoder struct {
	data               []byte
	at                 int // next byte
	width, height      int
	components         int
	comp               [3]component
	restart            int          // units between restart markers; 0 = none
	jfif, straightRGB  bool         // what the file says of its colours
	quant              [4][64]int32 // in zigzag order
	dcTables, acTables [2]table
	bits               bits
	block              [64]int32 // coefficients, column by column
}

// unzig is where the zigzag's coefficients stand in a block that is kept column by column.
var unzig = [64]uint8{
	0, 8, 1, 2, 9, 16, 24, 17,
	10, 3, 4, 11, 18, 25, 32, 40,
	33, 26, 19, 12, 5, 6, 13, 20,
	27, 34, 41, 48, 56, 49, 42, 35,
	28, 21, 14, 7, 15, 22, 29, 36,
	43, 50, 57, 58, 51, 44, 37, 30,
	23, 31, 38, 45, 52, 59, 60, 53,
	46, 39, 47, 54, 61, 62, 55, 63,
}

// header reads everything before the scan; false is for image/jpeg to judge.
func (d *decoder) header(b []byte) bool {
	d.data, d.at, d.components, d.restart = b, 2, 0, 0
	d.jfif, d.straightRGB = false, false
	d.quant, d.block = [4][64]int32{}, [64]int32{}
	for i := range d.dcTables {
		d.dcTables[i].defined, d.acTables[i].defined = false, false
	}
	if len(b) < 4 || b[0] != 0xff || b[1] != 0xd8 {
		return false
	}
	for {
		for d.at+1 < len(b) && b[d.at] == 0xff && b[d.at+1] == 0xff {
			d.at++
		}
		if d.at+4 > len(b) || b[d.at] != 0xff {
			return false
		}
		marker, n := b[d.at+1], int(b[d.at+2])<<8|int(b[d.at+3])
		if n < 2 || d.at+2+n > len(b) {
			return false
		}
		body := b[d.at+4 : d.at+2+n]
		d.at += 2 + n
		ok := true
		switch {
		case marker == 0xc0:
			ok = d.frame(body)
		case marker == 0xc4:
			ok = d.huffman(body)
		case marker == 0xdb:
			ok = d.quantisation(body)
		case marker == 0xdd:
			if ok = len(body) == 2; ok {
				d.restart = int(body[0])<<8 | int(body[1])
			}
		case marker == 0xda:
			return d.scanHeader(body)
		case marker == 0xe0:
			if len(body) >= 5 {
				d.jfif = string(body[:5]) == "JFIF\x00"
			}
		case marker == 0xee:
			if len(body) >= 12 && string(body[:5]) == "Adobe" {
				d.straightRGB = body[11] == 0
			}
		case marker > 0xe0 && marker <= 0xef || marker == 0xfe:
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
}

func (d *decoder) frame(b []byte) bool {
	if d.components != 0 || len(b) < 6 || b[0] != 8 {
		return false
	}
	d.height, d.width, d.components = int(b[1])<<8|int(b[2]), int(b[3])<<8|int(b[4]), int(b[5])
	if d.height == 0 || d.width == 0 || d.components != 1 && d.components != 3 || len(b) != 6+3*d.components {
		return false
	}
	for i := range d.components {
		f := b[6+3*i:]
		c := component{id: f[0], h: int(f[1] >> 4), v: int(f[1] & 15), quant: f[2]}
		if c.quant > 3 {
			return false
		}
		switch {
		case d.components == 1:
			if c.h < 1 || c.h > 4 || c.h == 3 || c.v < 1 || c.v > 4 || c.v == 3 {
				return false
			}
			c.h, c.v = 1, 1 // the only component's blocks follow one another
		case i == 0 && (c.h < 1 || c.h > 2 || c.v < 1 || c.v > 2), i > 0 && (c.h != 1 || c.v != 1):
			return false
		}
		d.comp[i] = c
	}
	ids := [3]byte{d.comp[0].id, d.comp[1].id, d.comp[2].id}
	return d.components == 1 || ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]
}

func (d *decoder) quantisation(b []byte) bool {
	for len(b) > 0 {
		which, wide := b[0]&15, b[0]>>4
		if which > 3 || wide > 1 {
			return false
		}
		b = b[1:]
		if len(b) < 64*(1+int(wide)) {
			return false
		}
		q := &d.quant[which]
		for i := range q {
			if wide == 0 {
				q[i] = int32(b[i])
			} else {
				q[i] = int32(b[2*i])<<8 | int32(b[2*i+1])
			}
		}
		b = b[64*(1+int(wide)):]
	}
	return true
}

func (d *decoder) huffman(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 17 {
			return false
		}
		class, which := b[0]>>4, b[0]&15
		codes := 0
		for _, n := range b[1:17] {
			codes += int(n)
		}
		if class > 1 || which > 1 || codes == 0 || codes > 256 || len(b) < 17+codes {
			return false
		}
		t := &d.dcTables[which]
		if class == 1 {
			t = &d.acTables[which]
		}
		if !t.define(b[1 : 17+codes]) {
			return false
		}
		b = b[17+codes:]
	}
	return true
}

// scanHeader wants one scan with all components in the frame's order.
func (d *decoder) scanHeader(b []byte) bool {
	if d.components == 0 || len(b) != 4+2*d.components || int(b[0]) != d.components {
		return false
	}
	for i := range d.components {
		c := &d.comp[i]
		c.dc, c.ac = b[2+2*i]>>4, b[2+2*i]&15
		if b[1+2*i] != c.id || c.dc > 1 || c.ac > 1 || !d.dcTables[c.dc].defined || !d.acTables[c.ac].defined {
			return false
		}
	}
	if d.components == 3 && !d.jfif && (d.straightRGB || d.comp[0].id == 'R' && d.comp[1].id == 'G' && d.comp[2].id == 'B') {
		return false
	}
	return true
}

// allocate makes the image that the scan fills.
func (d *decoder) allocate(each int) image.Image {
	across, down := d.units()
	reduced := func(n int) int { return (n*each + 7) / 8 }
	size := image.Rect(0, 0, reduced(d.width), reduced(d.height))
	at := [4]int{} // where the planes begin
	for i := range d.components {
		c := &d.comp[i]
		c.stride = each * c.h * across
		at[i+1] = at[i] + c.stride*each*c.v*down
	}
	all := pixelsOf(at[d.components])
	for i := range d.components {
		d.comp[i].plane = all[at[i]:at[i+1]]
	}
	if d.components == 1 {
		return &image.Gray{Pix: all, Stride: d.comp[0].stride, Rect: size}
	}
	ratio := image.YCbCrSubsampleRatio444
	switch d.comp[0].h<<4 | d.comp[0].v {
	case 0x12:
		ratio = image.YCbCrSubsampleRatio440
	case 0x21:
		ratio = image.YCbCrSubsampleRatio422
	case 0x22:
		ratio = image.YCbCrSubsampleRatio420
	}
	return &image.YCbCr{Y: d.comp[0].plane, Cb: d.comp[1].plane, Cr: d.comp[2].plane, YStride: d.comp[0].stride, CStride: d.comp[1].stride,
		SubsampleRatio: ratio, Rect: size}
}

// units are the scan's units across and down the image.
func (d *decoder) units() (across, down int) {
	h, v := 8*d.comp[0].h, 8*d.comp[0].v
	return (d.width + h - 1) / h, (d.height + v - 1) / v
}

// scan decodes all units. False: the data do not go as they should.
func (d *decoder) scan(each int) bool {
	d.bits = bits{data: d.data, at: d.at}
	across, down := d.units()
	expect := byte(0xd0)
	left := d.restart
	for my := range down {
		for mx := range across {
			if d.restart > 0 {
				if left == 0 {
					if !d.bits.marker(expect) {
						return false
					}
					expect = 0xd0 | (expect+1)&7
					for i := range d.comp {
						d.comp[i].last = 0
					}
					left = d.restart
				}
				left--
			}
			for i := range d.components {
				c := &d.comp[i]
				for y := range c.v {
					for x := range c.h {
						k := d.coefficients(c)
						if k < 0 {
							return false
						}
						at := each * ((my*c.v+y)*c.stride + mx*c.h + x)
						d.pixels(c.plane[at:], c.stride, each, k)
					}
				}
			}
		}
	}
	return d.bits.marker(0xd9)
}

// coefficients reads a block and gives the place of its last coefficient in
// the zigzag, or -1. The block is all zeros before.
func (d *decoder) coefficients(c *component) int {
	b := &d.bits
	acc, n := b.acc, b.n
	q, ac := &d.quant[c.quant&3], &d.acTables[c.ac&1]
	if n < 32 {
		acc, n = b.fill(acc, n)
	}
	// T.81 F.2.2.1: the difference to the DC before.
	size, length := d.dcTables[c.dc].symbol(acc)
	if length == 0 || size > 11 {
		return -1
	}
	acc, n = acc<<length, n-int(length)
	if size > 0 {
		c.last += extend(acc, size)
		acc, n = acc<<size, n-int(size)
	}
	d.block[0] = c.last * q[0]
	last := 0
	// F.2.2.2: runs of zeros and what follows them.
	for k := 1; k < 64; k++ {
		if n < look {
			acc, n = b.fill(acc, n)
		}
		if e := ac.quick[acc>>(64-look)]; e != 0 {
			length := uint(e & 0xff)
			acc, n = acc<<length, n-int(length)
			k += int(e >> 8 & 0x7f)
			if k > 63 {
				if e>>8&0x7f == end {
					break
				}
				return -1
			}
			d.block[unzig[k&63]&63] = (e >> 16) * q[k&63] // & 63: k is less, and the compiler knows
			last = k
			continue
		}
		if n < 32 {
			acc, n = b.fill(acc, n)
		}
		symbol, length := ac.symbol(acc)
		if length == 0 {
			return -1
		}
		acc, n = acc<<length, n-int(length)
		run, size := int(symbol>>4), uint(symbol&15)
		if size == 0 {
			if run == 0 {
				break
			}
			if run != 15 {
				return -1
			}
			k += 15
			continue
		}
		if k += run; k > 63 {
			return -1
		}
		d.block[unzig[k&63]&63] = extend(acc, size) * q[k&63]
		acc, n = acc<<size, n-int(size)
		last = k
	}
	b.acc, b.n = acc, n
	return last
}

// extend is a value of size bits at the top of acc (F.2.2.1).
func extend(acc uint64, size uint) int32 {
	v := int32(acc >> (64 - size))
	if v < 1<<(size-1) {
		v += -1<<size + 1
	}
	return v
}
