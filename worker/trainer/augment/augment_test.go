package augment_test

import (
	"bytes"
	"slices"
	"testing"

	"atelier/worker/trainer/augment"
)

// picture numbers its pixels: (x, y, 7).
func picture(size int) []byte {
	p := make([]byte, 0, size*size*3)
	for y := range size {
		for x := range size {
			p = append(p, byte(x+1), byte(y+1), 7)
		}
	}
	return p
}

func TestPlainCopy(t *testing.T) {
	const size = 8
	set := append(picture(size), bytes.Repeat([]byte{9}, size*size*3)...)
	got := make([]byte, 3*size*size*3)
	augment.Recipe{}.Batch(got, set, size, []int{1, 0, 1}, 1, 1, 0)
	want := slices.Concat(set[size*size*3:], set[:size*size*3], set[size*size*3:])
	if !bytes.Equal(got, want) {
		t.Error("a batch without augmentation is not a copy")
	}
}

// Every augmented image is a shifted, perhaps mirrored picture: that is
// checked pixel by pixel from what the pixels say of themselves.
func TestCropAndFlip(t *testing.T) {
	const size, n = 16, 400
	r := augment.Standard(size)
	got := make([]byte, n*size*size*3)
	r.Batch(got, picture(size), size, make([]int, n), 42, 3, 7)
	shifts, flips := map[[2]int]bool{}, 0
	for i := range n {
		im := got[i*size*size*3 : (i+1)*size*size*3]
		dx, dy, flip, found := 0, 0, false, false
	search:
		for dx = -r.Pad; dx <= r.Pad; dx++ {
			for dy = -r.Pad; dy <= r.Pad; dy++ {
				for _, flip = range []bool{false, true} {
					if matches(im, size, dx, dy, flip) {
						found = true
						break search
					}
				}
			}
		}
		if !found {
			t.Fatalf("image %d is no shifted picture", i)
		}
		shifts[[2]int{dx, dy}] = true
		if flip {
			flips++
		}
	}
	if all := (2*r.Pad + 1) * (2*r.Pad + 1); len(shifts) != all {
		t.Errorf("%d of %d shifts were drawn", len(shifts), all)
	}
	if flips < n*2/5 || flips > n*3/5 {
		t.Errorf("%d of %d images mirrored", flips, n)
	}
}

func matches(im []byte, size, dx, dy int, flip bool) bool {
	for y := range size {
		for x := range size {
			at := x
			if flip {
				at = size - 1 - x
			}
			px := im[(y*size+at)*3:]
			sx, sy := x-dx, y-dy
			if sx < 0 || sy < 0 || sx >= size || sy >= size {
				if px[0] != 0 || px[1] != 0 || px[2] != 0 {
					return false
				}
			} else if px[0] != byte(sx+1) || px[1] != byte(sy+1) || px[2] != 7 {
				return false
			}
		}
	}
	return true
}

func TestDrawsRepeatAndDiffer(t *testing.T) {
	const size = 16
	draw := func(seed uint64, epoch, batch int) []byte {
		b := make([]byte, 4*size*size*3)
		augment.Standard(size).Batch(b, picture(size), size, make([]int, 4), seed, epoch, batch)
		return b
	}
	if !bytes.Equal(draw(1, 2, 3), draw(1, 2, 3)) {
		t.Error("the same seed, epoch and batch drew different images")
	}
	for _, other := range [][]byte{draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)} {
		if bytes.Equal(draw(1, 2, 3), other) {
			t.Error("another seed, epoch or batch drew the same images")
		}
	}
	if slices.Equal(augment.Order(1, 1, 50), augment.Order(1, 2, 50)) || !slices.Equal(augment.Order(1, 1, 50), augment.Order(1, 1, 50)) {
		t.Error("the order of an epoch must repeat, and differ from the next epoch's")
	}
	sorted := slices.Sorted(slices.Values(augment.Order(9, 9, 50)))
	for i, v := range sorted {
		if i != v {
			t.Fatalf("order is no permutation: %v", sorted)
		}
	}
}
