package dataset

import (
	"image"

	"golang.org/x/sys/cpu"
)

var avx2 = cpu.X86.HasAVX2

// wide is a kernel for horizontalAVX2: two inputs at a time, each as R, G, B and a byte nobody looks at.
type wide struct {
	first, weights []int32
	pairs          int
}

func (k *kernel) widen() *wide {
	v := &k.wide
	if v.first != nil {
		return v
	}
	most := 0
	for _, n := range k.count {
		most = max(most, n)
	}
	v.pairs = (most + 1) / 2
	v.first, v.weights = make([]int32, len(k.first)), make([]int32, 8*v.pairs*len(k.first))
	for i, at := range k.first {
		v.first[i] = int32(at)
		for j, w := range k.weights[i*k.width:][:k.count[i]] {
			four := v.weights[8*v.pairs*i+4*j:][:4]
			four[0], four[1], four[2], four[3] = w, w, w, w
		}
	}
	return v
}

// squareFast is Square's arithmetic, eight numbers at a time; false where the processor cannot.
func squareFast(dst []byte, img image.Image, format string, xs, ys *kernel, firstRow, lastRow int, s *scratch) bool {
	if !avx2 {
		return false
	}
	w := img.Bounds().Dx()
	size := len(xs.first)
	stride := 3 * size
	x := xs.widen()
	rows := fourByteRows(img, format)
	source := room(&s.source, 4*(w+2*x.pairs)) // what is read beyond the end has no weight
	narrow := room(&s.narrow, stride*(lastRow-firstRow)+1)
	for y := firstRow; y < lastRow; y++ {
		rows(y, source)
		horizontalAVX2(&narrow[stride*(y-firstRow)], &source[0], &x.first[0], &x.weights[0], x.pairs, size)
	}
	whole := stride &^ 31
	sums := room(&s.sums, stride-whole)
	for i, at := range ys.first {
		taps := ys.weights[i*ys.width:][:ys.count[i]]
		if whole > 0 {
			verticalAVX2(&dst[i*stride], &narrow[(at-firstRow)*stride], stride, &taps[0], len(taps), whole)
		}
		if whole < stride {
			vertical(dst[i*stride+whole:(i+1)*stride], narrow[(at-firstRow)*stride+whole:], stride, taps, sums)
		}
	}
	return true
}

// fourByteRows is rgbRows with four bytes a pixel.
func fourByteRows(img image.Image, format string) rowReader {
	w := img.Bounds().Dx()
	if m, ok := img.(*image.YCbCr); ok && format != "webp" {
		return func(y int, dst []byte) {
			luma, cb, cr, shift := chroma(m, y)
			whole := 0
			if shift <= 1 {
				if whole = w &^ 7; whole > 0 {
					fullRangeAVX2(&dst[0], &luma[0], &cb[0], &cr[0], whole, int(shift))
				}
			}
			for x := whole; x < w; x++ {
				c := dst[4*x : 4*x+4 : 4*x+4]
				c[0], c[1], c[2] = ycbcr(luma[x], cb[x>>shift], cr[x>>shift])
			}
		}
	}
	rows, row := rgbRows(img, format), make([]byte, 3*w)
	return func(y int, dst []byte) {
		rows(y, row)
		for x := range w {
			c := row[3*x : 3*x+3 : 3*x+3]
			d := dst[4*x : 4*x+4 : 4*x+4]
			d[0], d[1], d[2] = c[0], c[1], c[2]
		}
	}
}

// horizontalAVX2 makes n pixels of three bytes (and writes one byte more):
// pixel i from 2*pairs pixels of four bytes from first[i], each byte with the
// weight at its place.
//
//go:noescape
func horizontalAVX2(dst, src *byte, first, weights *int32, pairs, n int)

// verticalAVX2 makes n bytes, a multiple of 32, from those of taps rows.
//
//go:noescape
func verticalAVX2(dst, src *byte, stride int, weights *int32, taps, n int)

// fullRangeAVX2 is fullRangeRow to four bytes a pixel; n is a multiple of 8,
// shift 0 or 1.
//
//go:noescape
func fullRangeAVX2(dst, luma, cb, cr *byte, n, shift int)
