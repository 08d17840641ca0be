package dataset

import (
	"fmt"
	"image"
	"math"
	"sync"
)

// Filter is a resampling kernel.
type Filter uint8

const (
	// Bilinear is the triangle kernel, torchvision's default for Resize.
	Bilinear Filter = iota
	// Bicubic is Keys' kernel with a = -0.5, which EfficientNet's weights were trained with.
	Bicubic
)

func (f Filter) String() string {
	switch f {
	case Bilinear:
		return "bilinear"
	case Bicubic:
		return "bicubic"
	}
	return fmt.Sprintf("Filter(%d)", uint8(f))
}

func (f Filter) support() float64 {
	if f == Bicubic {
		return 2
	}
	return 1
}

func (f Filter) at(x float64) float64 {
	x = math.Abs(x)
	if f == Bicubic {
		const a = -0.5
		switch {
		case x < 1:
			return ((a+2)*x-(a+3))*x*x + 1
		case x < 2:
			return (((x-5)*x+8)*x - 4) * a
		}
		return 0
	}
	return max(0, 1-x)
}

// Mode says how an image of any shape becomes a square.
type Mode uint8

const (
	// CenterCrop resizes the shorter side to ResizeTo and cuts the middle Size x Size: Resize + CenterCrop.
	CenterCrop Mode = iota
	// Stretch resizes both sides to Size and gives up the aspect ratio.
	Stretch
)

func (m Mode) String() string {
	switch m {
	case CenterCrop:
		return "centre-crop"
	case Stretch:
		return "stretch"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// Square writes an image as a size x size square of RGB bytes (height, width, channel) into dst, which must
// hold 3*size*size bytes. With CenterCrop the shorter side first becomes resizeTo (at least size).
//
// The resampling is Pillow's, to the bit: a kernel widened by the scale (so that shrinking averages instead
// of skipping), horizontal before vertical, 22-bit fixed point, bytes in between. Only what the crop keeps is
// computed.
func Square(dst []byte, img image.Image, format string, size, resizeTo int, mode Mode, filter Filter) {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	newW, newH, left, top := size, size, 0, 0
	if mode == CenterCrop {
		newW, newH = shorterSide(w, h, resizeTo)
		left, top = halfEven(newW-size), halfEven(newH-size)
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	xs := s.kernel(0, w, newW, left, left+size, filter)
	ys := s.kernel(1, h, newH, top, top+size, filter)
	firstRow := ys.first[0]
	lastRow := ys.first[size-1] + ys.count[size-1]
	for i := range size {
		firstRow = min(firstRow, ys.first[i])
		lastRow = max(lastRow, ys.first[i]+ys.count[i])
	}
	if squareFast(dst, img, format, xs, ys, firstRow, lastRow, s) {
		return
	}
	squarePlain(dst, img, format, xs, ys, firstRow, lastRow)
}

// scratch is what Square needs besides, kept for the next image, which is mostly of the same size.
type scratch struct {
	made           [2][4]int // what the kernels were made from: in, out, from, to
	filter         [2]Filter
	kernels        [2]*kernel // across, down
	source, narrow []byte
	sums           []int32
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) kernel(which, in, out, from, to int, f Filter) *kernel {
	if want := [4]int{in, out, from, to}; s.kernels[which] == nil || s.made[which] != want || s.filter[which] != f {
		s.kernels[which], s.made[which], s.filter[which] = coefficients(in, out, from, to, f), want, f
	}
	return s.kernels[which]
}

// room makes *b n long; what is in it is anything.
func room[T any](b *[]T, n int) []T {
	if cap(*b) < n {
		*b = make([]T, n)
	}
	*b = (*b)[:n]
	return *b
}

// squarePlain resizes by two kernels, of the rows from firstRow to lastRow.
func squarePlain(dst []byte, img image.Image, format string, xs, ys *kernel, firstRow, lastRow int) {
	stride := 3 * len(xs.first)
	rows := rgbRows(img, format)
	source := make([]byte, 3*img.Bounds().Dx())
	narrow := make([]byte, stride*(lastRow-firstRow))
	for y := firstRow; y < lastRow; y++ {
		rows(y, source)
		xs.horizontal(narrow[stride*(y-firstRow):][:stride], source)
	}
	sums := make([]int32, stride)
	for i, first := range ys.first {
		vertical(dst[i*stride:][:stride], narrow[(first-firstRow)*stride:], stride, ys.weights[i*ys.width:][:ys.count[i]], sums)
	}
}

// shorterSide is torchvision's size after Resize(to): the longer side is cut, not rounded.
func shorterSide(w, h, to int) (int, int) {
	if w <= h {
		return to, int(float64(to) * float64(h) / float64(w))
	}
	return int(float64(to) * float64(w) / float64(h)), to
}

// halfEven is Python's round(n / 2).
func halfEven(n int) int {
	return int(math.RoundToEven(float64(n) / 2))
}

const precisionBits = 32 - 8 - 2

// kernel holds, for each output position, the first input position, the number of inputs and their weights.
type kernel struct {
	first, count []int
	weights      []int32 // width a position
	width        int
	wide         wide // the same for the processor, once asked for
}

func coefficients(in, out, from, to int, f Filter) *kernel {
	scale := float64(in) / float64(out)
	filterScale := max(scale, 1)
	support := f.support() * filterScale
	k := &kernel{
		first: make([]int, to-from),
		count: make([]int, to-from),
		width: int(math.Ceil(support))*2 + 1,
	}
	k.weights = make([]int32, k.width*(to-from))
	tmp := make([]float64, k.width)
	for i := range to - from {
		center := (float64(from+i) + 0.5) * scale
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), in)
		sum := 0.0
		for x := range hi - lo {
			tmp[x] = f.at((float64(x+lo) - center + 0.5) / filterScale)
			sum += tmp[x]
		}
		for x := range hi - lo {
			v := tmp[x]
			if sum != 0 {
				v /= sum
			}
			k.weights[i*k.width+x] = int32(math.Trunc(v*(1<<precisionBits) + math.Copysign(0.5, v)))
		}
		k.first[i], k.count[i] = lo, hi-lo
	}
	return k
}

func (k *kernel) horizontal(dst, src []byte) {
	for i, first := range k.first {
		weights := k.weights[i*k.width:][:k.count[i]]
		r, g, b := int32(1<<(precisionBits-1)), int32(1<<(precisionBits-1)), int32(1<<(precisionBits-1))
		in := src[3*first:][:3*len(weights)]
		for j, w := range weights {
			r += int32(in[3*j]) * w
			g += int32(in[3*j+1]) * w
			b += int32(in[3*j+2]) * w
		}
		dst[3*i], dst[3*i+1], dst[3*i+2] = clip(r), clip(g), clip(b)
	}
}

// vertical makes one row from as many as there are weights; sums is as long as dst.
func vertical(dst, src []byte, stride int, weights, sums []int32) {
	for x := range sums {
		sums[x] = 1 << (precisionBits - 1)
	}
	for j, w := range weights {
		row := src[j*stride:][:len(dst)]
		for x, v := range row {
			sums[x] += int32(v) * w
		}
	}
	for x, s := range sums {
		dst[x] = clip(s)
	}
}

func clip(v int32) byte {
	return byte(min(max(v>>precisionBits, 0), 255))
}
