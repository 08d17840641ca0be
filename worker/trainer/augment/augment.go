// Package augment lays a batch of images out for the device: it draws, per
// image, where to crop and whether to mirror, and copies the bytes so, in one
// pass over memory, straight from the mapped set.
//
// Every draw comes from a stream of its own for (seed, epoch, batch): no state
// to store, and a resumed run sees the very images an uninterrupted one does.
// The package knows no tensors; operations that need arithmetic (rotation,
// colour, mixing) belong on the device.
package augment

import "math/rand/v2"

// Recipe says what may happen to an image. The zero value copies it as it is.
type Recipe struct {
	Pad  int  // pixels of black laid around before a random crop back to size
	Flip bool // mirror left and right, one in two
}

// Standard is the recipe for images of a size: a crop with an eighth of
// padding, and mirroring.
func Standard(size int) Recipe { return Recipe{Pad: size / 8, Flip: true} }

// Stream is the source of draws for one purpose, epoch and batch of a run.
func Stream(seed uint64, purpose, epoch, batch int) *rand.Rand {
	a := mix(seed + uint64(purpose)*0x9e3779b97f4a7c15)
	return rand.New(rand.NewPCG(a, mix(a^uint64(epoch)<<32^uint64(batch))))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Order is the order in which an epoch takes n images.
func Order(seed uint64, epoch, n int) []int {
	return Stream(seed, orderPurpose, epoch, 0).Perm(n)
}

// Purposes of streams; a new one gets a new number, so that old runs repeat.
const (
	orderPurpose = iota + 1
	cropPurpose
)

// Batch copies images (size x size, interleaved RGB, all in pixels) of the
// given indices into dst, each as the recipe and the stream of (seed, epoch,
// batch) have it. dst has len(indices)*size*size*3 bytes.
func (r Recipe) Batch(dst, pixels []byte, size int, indices []int, seed uint64, epoch, batch int) {
	bytes := size * size * 3
	if r.Pad == 0 && !r.Flip {
		for i, at := range indices {
			copy(dst[i*bytes:(i+1)*bytes], pixels[at*bytes:])
		}
		return
	}
	draw := Stream(seed, cropPurpose, epoch, batch)
	for i, at := range indices {
		dx, dy := draw.IntN(2*r.Pad+1)-r.Pad, draw.IntN(2*r.Pad+1)-r.Pad
		flip := r.Flip && draw.Uint64()&1 == 1
		place(dst[i*bytes:(i+1)*bytes], pixels[at*bytes:(at+1)*bytes], size, dx, dy, flip)
	}
}

// place copies src moved by (dx, dy), black where nothing comes to lie, and
// mirrors it if asked.
func place(dst, src []byte, size, dx, dy int, flip bool) {
	row := size * 3
	left, right := max(0, dx), min(size, size+dx) // columns of dst that are covered
	for y := range size {
		out := dst[y*row : (y+1)*row]
		from := y - dy
		if from < 0 || from >= size {
			clear(out)
			continue
		}
		in := src[from*row : (from+1)*row]
		clear(out[:left*3])
		copy(out[left*3:right*3], in[(left-dx)*3:])
		clear(out[right*3:])
		if flip {
			for a, b := 0, row-3; a < b; a, b = a+3, b-3 {
				out[a], out[b] = out[b], out[a]
				out[a+1], out[b+1] = out[b+1], out[a+1]
				out[a+2], out[b+2] = out[b+2], out[a+2]
			}
		}
	}
}
