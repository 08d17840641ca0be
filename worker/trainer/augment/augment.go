// Package augment decides what happens to the images of a batch, and lays
// their bytes out for the device.
//
// A Recipe says what may happen, Draw makes of it a Plan: what does happen to
// each image of one batch. Crops and mirroring are carried out here, while the
// bytes are gathered from the mapped set, in one pass over memory; rotation,
// colour and mixing need arithmetic and are left to the device (torchx).
//
// Every draw comes from a stream of its own for (seed, purpose, epoch, batch):
// no state to store, a resumed run sees the very images an uninterrupted one
// does, and asking for one more change leaves the draws of the others alone.
// The package knows no tensors.
package augment

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Recipe says what may happen to an image. The zero value leaves it as it is.
// Changes are made in the order of the fields, as torchvision pipelines have
// them: crop, flip, rotation, colours, (normalisation,) CutMix.
type Recipe struct {
	Pad      int     // pixels of black laid around before a random crop back to size
	Resized  bool    // in place of that: a random part of the image, stretched to size
	ScaleMin float64 // of Resized: smallest part, as a share of the image's area; the largest is the whole
	Flip     bool    // mirror left and right, one in two
	Rotation float64 // degrees: an angle from -Rotation to Rotation, evenly; black comes into the corners
	Jitter   Jitter
	CutMix   float64 // alpha of the Beta distribution a batch's share is drawn from; 0 = off
}

// String is the recipe in words.
func (r Recipe) String() string {
	var did []string
	add := func(on bool, format string, a ...any) {
		if on {
			did = append(did, fmt.Sprintf(format, a...))
		}
	}
	add(r.Resized, "part of at least %.0f %%", 100*r.ScaleMin)
	add(!r.Resized && r.Pad > 0, "moved by up to %d pixels", r.Pad)
	add(r.Flip, "mirrored")
	add(r.Rotation != 0, "turned by up to %g degrees", r.Rotation)
	add(r.Jitter != Jitter{}, "colours changed")
	add(r.CutMix != 0, "CutMix")
	if len(did) == 0 {
		return "no augmentation"
	}
	return strings.Join(did, ", ")
}

// Jitter says how far colours may go, as torchvision's ColorJitter: factors are
// drawn evenly from max(0, 1-x) to 1+x, the turn of the hue from -Hue to Hue.
type Jitter struct{ Brightness, Contrast, Saturation, Hue float64 }

// Standard is the recipe for images of a size: a crop with an eighth of
// padding, and mirroring.
func Standard(size int) Recipe { return Recipe{Pad: size / 8, Flip: true} }

// Stream is the source of draws for one purpose, epoch and batch of a run.
func Stream(seed uint64, purpose, epoch, batch int) *rand.Rand {
	return rand.New(source(seed, purpose, epoch, batch))
}

func source(seed uint64, purpose, epoch, batch int) *rand.PCG {
	a := mix(seed + uint64(purpose)*0x9e3779b97f4a7c15)
	return rand.NewPCG(a, mix(a^uint64(epoch)<<32^uint64(batch)))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Purposes of streams; a new one gets a new number, so that old runs repeat.
const (
	orderPurpose = iota + 1
	cropPurpose  // padded or resized crop, and mirroring
	anglePurpose
	colourPurpose
	mixPurpose
	balancedPurpose
)

// Order is the order in which an epoch takes n images, each once.
func Order(seed uint64, epoch, n int) []int {
	return Stream(seed, orderPurpose, epoch, 0).Perm(n)
}

// Balanced is an epoch of as many draws as there are labels, with replacement:
// every class is as likely as any other, every image of a class as any other
// of it. (The same as drawing images weighted by 1/size of their class.)
func Balanced(seed uint64, epoch int, labels []int64) []int {
	var classes [][]int // images of each class that has any
	at := map[int64]int{}
	for i, l := range labels {
		c, ok := at[l]
		if !ok {
			c = len(classes)
			at[l], classes = c, append(classes, nil)
		}
		classes[c] = append(classes[c], i)
	}
	draw := Stream(seed, balancedPurpose, epoch, 0)
	order := make([]int, len(labels))
	for i := range order {
		members := classes[draw.IntN(len(classes))]
		order[i] = members[draw.IntN(len(members))]
	}
	return order
}
