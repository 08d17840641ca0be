//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

import (
	"fmt"
	"math"
	"unsafe"
)

// Block is one batch laid out on the host, for one journey to the device. On a
// way to a GPU its memory is pinned. The slices live until Free.
type Block struct {
	Labels []int64 // classes
	Others []int64 // classes of the images mixed in, if any are
	Pixels []byte  // images, interleaved RGB

	shades, warp, colour []float32
	n, size              int
	device               Device
	memory               Tensor
}

// Changes are what the device does to a block's images, in this order.
type Changes struct {
	Warp         bool     // crop, mirror and turn each as SetWarp said
	Colour       bool     // as SetColour said
	Order        [4]int32 // of colour changes: 0 brightness, 1 contrast, 2 saturation, 3 hue
	ChannelsLast bool
}

// NewBlock takes memory for n square images.
func NewBlock(n, size int, d Device) (*Block, error) {
	if n < 1 || size < 1 {
		return nil, fmt.Errorf("torchx: a block of %d images of %d pixels", n, size)
	}
	var t C.tx_tensor
	var data unsafe.Pointer
	if err := check(C.tx_block(C.int64_t(n), C.int64_t(size), flag(d.CUDA()), &t, &data)); err != nil {
		return nil, err
	}
	b := &Block{n: n, size: size, device: d, memory: wrap(t)}
	whole := unsafe.Slice((*int64)(data), 2*n)
	b.Labels, b.Others = whole[:n:n], whole[n:]
	floats := unsafe.Slice((*float32)(unsafe.Add(data, 16*n)), 6+7*n+4*n)
	b.shades, b.warp, b.colour = floats[:6:6], floats[6:6+7*n:6+7*n], floats[6+7*n:]
	b.Pixels = unsafe.Slice((*byte)(unsafe.Add(data, 16*n+4*len(floats))), n*size*size*3)
	return b, nil
}

// SetWarp says which part of image i is taken, whether it is mirrored, and by
// how many degrees it is turned counter-clockwise.
func (b *Block) SetWarp(i, left, top, width, height int, mirrored bool, degrees float64) {
	side := float32(1)
	if mirrored {
		side = -1
	}
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	copy(b.warp[7*i:7*i+7], []float32{float32(left), float32(top), float32(width), float32(height), side, float32(cos), float32(sin)})
}

// SetColour gives image i's factors, 1 for no change, and turn of hue.
func (b *Block) SetColour(i int, brightness, contrast, saturation, hue float64) {
	copy(b.colour[4*i:4*i+4], []float32{float32(brightness), float32(contrast), float32(saturation), float32(hue)})
}

// Send brings a block to its device: images [n, 3, size, size] changed and
// normalised (byte*scale[c] + shift[c]), labels [n] and the others' labels
// [n]. On a GPU nothing waits; the block may be freed at once all the same.
func (b *Block) Send(scale, shift []float32, ch Changes) (images, labels, others Tensor, err error) {
	copy(b.shades, scale[:3])
	copy(b.shades[3:], shift[:3])
	bits := 0
	for bit, on := range map[int]bool{C.TX_WARP: ch.Warp, C.TX_COLOUR: ch.Colour} {
		if on {
			bits |= bit
		}
	}
	var x, y, y2 C.tx_tensor
	err = check(C.tx_block_images(raw(b.memory), C.int64_t(b.n), C.int64_t(b.size), C.int(bits), (*C.int32_t)(unsafe.Pointer(&ch.Order[0])),
		b.device.name, flag(ch.ChannelsLast), &x, &y, &y2))
	return wrap(x), wrap(y), wrap(y2), err
}

// Free gives the memory up. Freeing twice is harmless.
func (b *Block) Free() {
	if b != nil {
		Free(b.memory)
		b.Labels, b.Others, b.Pixels = nil, nil, nil
	}
}

// CutMix puts, in place, a box (columns x1 up to x2, rows y1 up to y2) of each
// image's predecessor into it; the first's predecessor is the last.
func CutMix(images Tensor, x1, y1, x2, y2 int) error {
	return check(C.tx_cut_mix(raw(images), C.int64_t(x1), C.int64_t(y1), C.int64_t(x2), C.int64_t(y2)))
}
