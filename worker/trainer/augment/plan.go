package augment

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"
)

// Plan is what happens to the images of one batch.
type Plan struct {
	Images []Change
	Order  [4]Colour // in which colours change; one order for the batch
	Mix    Box       // part of every image that its neighbour's takes the place of; empty without CutMix
	Lambda float64   // share of an image's area that stays its own: 1 without CutMix
}

// Change is what happens to one image.
type Change struct {
	Left, Top     int // corner of the part that is taken, in pixels; what lies outside the image is black
	Width, Height int // of that part, which is stretched to the whole
	Flip          bool
	Angle         float64 // degrees, counter-clockwise

	Brightness, Contrast, Saturation float64 // factors; 1 changes nothing
	Hue                              float64 // turns of the colour circle, -0.5..0.5
}

// Colour is one kind of change of colours.
type Colour int32

// Kinds of change, as torchvision numbers them.
const (
	Brightness Colour = iota
	Contrast
	Saturation
	Hue
)

// Box is a part of an image: columns X1 up to X2, rows Y1 up to Y2.
type Box struct{ X1, Y1, X2, Y2 int }

// Area of a box in pixels.
func (b Box) Area() int { return (b.X2 - b.X1) * (b.Y2 - b.Y1) }

// Coloured reports whether a recipe changes colours.
func (r Recipe) Coloured() bool { return r.Jitter != Jitter{} }

// Draw plans a batch of n images of size x size.
func (r Recipe) Draw(size, n int, seed uint64, epoch, batch int) Plan {
	p := Plan{Images: make([]Change, n), Lambda: 1, Order: [4]Colour{Brightness, Contrast, Saturation, Hue}}
	for i := range p.Images {
		p.Images[i] = Change{Width: size, Height: size, Brightness: 1, Contrast: 1, Saturation: 1}
	}
	if r.Resized || r.Pad != 0 || r.Flip {
		draw := Stream(seed, cropPurpose, epoch, batch)
		for i := range p.Images {
			c := &p.Images[i]
			if r.Resized {
				c.Left, c.Top, c.Width, c.Height = resizedCrop(draw, size, r.ScaleMin)
			} else {
				c.Left, c.Top = r.Pad-draw.IntN(2*r.Pad+1), r.Pad-draw.IntN(2*r.Pad+1)
			}
			c.Flip = r.Flip && draw.Uint64()&1 == 1
		}
	}
	if r.Rotation != 0 {
		draw := Stream(seed, anglePurpose, epoch, batch)
		for i := range p.Images {
			p.Images[i].Angle = between(draw, -r.Rotation, r.Rotation)
		}
	}
	if r.Coloured() {
		draw := Stream(seed, colourPurpose, epoch, batch)
		for i, c := range draw.Perm(4) {
			p.Order[i] = Colour(c)
		}
		for i := range p.Images {
			c := &p.Images[i]
			c.Brightness = between(draw, max(0, 1-r.Jitter.Brightness), 1+r.Jitter.Brightness)
			c.Contrast = between(draw, max(0, 1-r.Jitter.Contrast), 1+r.Jitter.Contrast)
			c.Saturation = between(draw, max(0, 1-r.Jitter.Saturation), 1+r.Jitter.Saturation)
			c.Hue = between(draw, -r.Jitter.Hue, r.Jitter.Hue)
		}
	}
	if r.CutMix > 0 {
		src := source(seed, mixPurpose, epoch, batch)
		lambda := share(src, r.CutMix)
		draw := rand.New(src)
		p.Mix, p.Lambda = CutMix(size, size, lambda, draw.IntN(size), draw.IntN(size))
	}
	return p
}

// Part is the plan of a batch's images from up to to, whose neighbours are each
// other; images of the other parts have theirs.
func (p Plan) Part(from, to int) Plan {
	p.Images = p.Images[from:to]
	return p
}

func between(draw *rand.Rand, low, high float64) float64 { return low + (high-low)*draw.Float64() }

// share draws from Beta(alpha, alpha).
func share(src rand.Source, alpha float64) float64 {
	x := distuv.Beta{Alpha: alpha, Beta: alpha, Src: src}.Rand()
	if math.IsNaN(x) { // both gammas below the smallest number: a tiny alpha is all or nothing
		x = float64(src.Uint64() & 1)
	}
	return x
}

// CutMix is the box of transforms.v2.CutMix (after Yun et al. 2019, arXiv
// 1905.04899) for a share lambda and a centre (rx, ry), and the share that is
// left once the box is cut off at the image's edges.
func CutMix(width, height int, lambda float64, rx, ry int) (Box, float64) {
	r := 0.5 * math.Sqrt(1-lambda)
	halfW, halfH := int(r*float64(width)), int(r*float64(height))
	b := Box{X1: max(rx-halfW, 0), Y1: max(ry-halfH, 0), X2: min(rx+halfW, width), Y2: min(ry+halfH, height)}
	return b, 1 - float64(b.Area())/float64(width*height)
}

// resizedCrop draws a part of a square as torchvision's RandomResizedCrop does,
// with its ratio of 3/4 to 4/3 and its ten tries; then the whole is taken,
// which is what its central crop comes to on a square.
func resizedCrop(draw *rand.Rand, size int, scaleMin float64) (left, top, width, height int) {
	edge := math.Log(4. / 3)
	for range 10 {
		area := float64(size) * float64(size) * between(draw, scaleMin, 1)
		ratio := math.Exp(between(draw, -edge, edge))
		w, h := int(math.RoundToEven(math.Sqrt(area*ratio))), int(math.RoundToEven(math.Sqrt(area/ratio)))
		if 0 < w && w <= size && 0 < h && h <= size {
			top = draw.IntN(size - h + 1)
			return draw.IntN(size - w + 1), top, w, h
		}
	}
	return 0, 0, size, size
}
