package augment_test

import (
	"bytes"
	"image"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"atelier/worker/trainer/augment"
)

// numbered is an image whose pixels say where they are: (x, y, 7).
func numbered(size int) []byte {
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
	set := append(numbered(size), bytes.Repeat([]byte{9}, size*size*3)...)
	got := make([]byte, 3*size*size*3)
	augment.Recipe{}.Batch(got, set, size, []int{1, 0, 1}, 1, 1, 0)
	want := slices.Concat(set[size*size*3:], set[:size*size*3], set[size*size*3:])
	if !bytes.Equal(got, want) {
		t.Error("a batch without augmentation is not a copy")
	}
}

// Every augmented image is a shifted, perhaps mirrored image: that is
// checked pixel by pixel from what the pixels say of themselves.
func TestCropAndFlip(t *testing.T) {
	const size, n = 16, 400
	r := augment.Standard(size)
	got := make([]byte, n*size*size*3)
	r.Batch(got, numbered(size), size, make([]int, n), 42, 3, 7)
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
		augment.Standard(size).Batch(b, numbered(size), size, make([]int, 4), seed, epoch, batch)
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

// full asks for everything there is.
var full = augment.Recipe{Resized: true, ScaleMin: 0.2, Flip: true, Rotation: 30,
	Jitter: augment.Jitter{Brightness: 0.4, Contrast: 0.3, Saturation: 0.2, Hue: 0.1}, CutMix: 1}

func TestPlansRepeatAndDiffer(t *testing.T) {
	equal := func(a, b augment.Plan) bool {
		return slices.Equal(a.Images, b.Images) && a.Order == b.Order && a.Mix == b.Mix && a.Lambda == b.Lambda
	}
	plan := full.Draw(64, 8, 5, 2, 3)
	if !equal(plan, full.Draw(64, 8, 5, 2, 3)) {
		t.Error("the same seed, epoch and batch gave different plans")
	}
	for _, p := range []augment.Plan{full.Draw(64, 8, 6, 2, 3), full.Draw(64, 8, 5, 3, 3), full.Draw(64, 8, 5, 2, 4)} {
		if p.Images[0].Angle == plan.Images[0].Angle || p.Images[0].Hue == plan.Images[0].Hue || p.Mix == plan.Mix || p.Images[0].Left == plan.Images[0].Left && p.Images[1].Left == plan.Images[1].Left {
			t.Error("another seed, epoch or batch gave the same plan")
		}
	}
	// One change more leaves the draws of the others alone.
	less := full
	less.Rotation, less.CutMix, less.Jitter = 0, 0, augment.Jitter{}
	for i, c := range less.Draw(64, 8, 5, 2, 3).Images {
		p := plan.Images[i]
		if c.Left != p.Left || c.Top != p.Top || c.Width != p.Width || c.Height != p.Height || c.Flip != p.Flip {
			t.Errorf("image %d is cropped differently without rotation, jitter and CutMix", i)
		}
	}
}

// evenly reports whether values look drawn evenly from low to high: the
// Kolmogorov-Smirnov distance at a risk of 1 in 100,000.
func evenly(t *testing.T, name string, values []float64, low, high float64) {
	t.Helper()
	slices.Sort(values)
	n, distance := float64(len(values)), 0.
	for i, v := range values {
		at := (v - low) / (high - low)
		distance = max(distance, at-float64(i)/n, float64(i+1)/n-at)
	}
	if limit := 2.47 / math.Sqrt(n); !(distance <= limit) || values[0] < low || values[len(values)-1] > high {
		t.Errorf("%s from %g to %g, distance %.4f of an even draw from %g to %g (limit %.4f)", name, values[0], values[len(values)-1], distance, low, high, limit)
	}
}

func TestDistributions(t *testing.T) {
	const batches, n, size = 400, 16, 64
	var angle, brightness, contrast, saturation, hue, x, y []float64
	orders := map[[4]augment.Colour]int{}
	flips, r := 0, full
	r.Jitter.Brightness, r.CutMix = 1, 0.7
	for b := range batches {
		p := r.Draw(size, n, 11, 1, b)
		orders[p.Order]++
		for _, c := range p.Images {
			angle = append(angle, c.Angle)
			brightness = append(brightness, c.Brightness)
			contrast = append(contrast, c.Contrast)
			saturation = append(saturation, c.Saturation)
			hue = append(hue, c.Hue)
			if c.Flip {
				flips++
			}
			if c.Left < 0 || c.Top < 0 || c.Left+c.Width > size || c.Top+c.Height > size || c.Width < 1 || c.Height < 1 {
				t.Fatalf("%+v is no part of the image", c)
			}
		}
		if got := 1 - float64(p.Mix.Area())/(size*size); got != p.Lambda || p.Mix.X1 < 0 || p.Mix.Y1 < 0 || p.Mix.X2 > size || p.Mix.Y2 > size {
			t.Fatalf("box %+v, lambda %g", p.Mix, p.Lambda)
		}
	}
	evenly(t, "angles", angle, -30, 30)
	evenly(t, "brightness", brightness, 0, 2)
	evenly(t, "contrast", contrast, 0.7, 1.3)
	evenly(t, "saturation", saturation, 0.8, 1.2)
	evenly(t, "hue", hue, -0.1, 0.1)
	if d := math.Abs(float64(flips) - batches*n/2); d > 4.5*math.Sqrt(batches*n)/2 {
		t.Errorf("%d of %d mirrored", flips, batches*n)
	}
	if len(orders) != 24 {
		t.Errorf("%d of 24 orders of colours in %d batches", len(orders), batches)
	}

	// Centres of boxes cover the image: seen where a small share leaves them whole.
	for b := range 4000 {
		p := augment.Recipe{CutMix: 50}.Draw(1000, 1, 3, 1, b)
		if p.Mix.X1 > 0 && p.Mix.X2 < 1000 && p.Mix.Y1 > 0 && p.Mix.Y2 < 1000 {
			x, y = append(x, float64(p.Mix.X1+p.Mix.X2)/2), append(y, float64(p.Mix.Y1+p.Mix.Y2)/2)
		}
	}
	if len(x) < 50 || len(x) > 2000 || slices.Max(x)-slices.Min(x) < 100 || slices.Max(y)-slices.Min(y) < 100 {
		t.Errorf("%d whole boxes of 4000, centres from %g to %g and %g to %g", len(x), slices.Min(x), slices.Max(x), slices.Min(y), slices.Max(y))
	}
}

func TestShareIsBeta(t *testing.T) {
	src := rand.NewPCG(4, 5)
	for _, alpha := range []float64{1, 0.2, 4} {
		var v []float64
		for range 20_000 {
			v = append(v, augment.Share(src, alpha))
		}
		// Beta(a, a): mean 1/2, variance 1/(4(2a+1)), here with the deviation of its estimate.
		mean, m := moments(v)
		variance, want := m*float64(len(v)), 1/(4*(2*alpha+1))
		if math.Abs(mean-0.5) > 4.5*math.Sqrt(m) || math.Abs(variance/want-1) > 0.05 {
			t.Errorf("alpha %g: mean %.4f, variance %.4f; want 0.5 and %.4f", alpha, mean, variance, want)
		}
		if alpha == 1 {
			evenly(t, "Beta(1,1)", v, 0, 1)
		}
	}
	ones := 0.
	for range 1000 {
		x := augment.Share(src, 1e-6)
		if !(x >= 0 && x <= 1) {
			t.Fatalf("share %g", x)
		}
		ones += x
	}
	if ones < 400 || ones > 600 {
		t.Errorf("a tiny alpha is 1 in %g of 1000", ones)
	}
}

func TestBalanced(t *testing.T) {
	var labels []int64 // 900, 90 and 10 images; class 1 has none
	for i := range 1000 {
		switch {
		case i < 900:
			labels = append(labels, 2)
		case i < 990:
			labels = append(labels, 0)
		default:
			labels = append(labels, 3)
		}
	}
	classes, images := map[int64]int{}, map[int]int{}
	for epoch := 1; epoch <= 30; epoch++ {
		order := augment.Balanced(7, epoch, labels)
		if len(order) != len(labels) || !slices.Equal(order, augment.Balanced(7, epoch, labels)) {
			t.Fatal("an epoch's draws must repeat, one a label")
		}
		for _, i := range order {
			classes[labels[i]]++
			images[i]++
		}
	}
	for class, n := range classes { // 30,000 draws, a third each
		if math.Abs(float64(n)-10_000) > 4.5*math.Sqrt(30_000*2./9) {
			t.Errorf("class %d drawn %d times of 30000", class, n)
		}
	}
	if len(classes) != 3 || len(images) != 1000 {
		t.Errorf("%d classes and %d of 1000 images drawn", len(classes), len(images))
	}
	for i := 990; i < 1000; i++ { // 10,000 draws, a tenth each
		if math.Abs(float64(images[i])-1000) > 4.5*30 {
			t.Errorf("image %d drawn %d times of 10000", i, images[i])
		}
	}
	if slices.Equal(augment.Balanced(7, 1, labels), augment.Balanced(7, 2, labels)) {
		t.Error("two epochs drew the same")
	}
}

// A sheet has a heading, tiles in a grid with their captions whole, and no empty
// strip where there are none; with ATELIER_PLOTS=folder it stays to be looked at.
func TestSheet(t *testing.T) {
	const size = 32
	draw := func(path, caption string) image.Image {
		var tiles []augment.Tile
		for i := range 5 {
			tiles = append(tiles, augment.Tile{Pixels: bytes.Repeat([]byte{byte(10 * i), 100, 200}, size*size), Caption: caption})
		}
		tiles[4].Mixed = augment.Box{X1: 8, Y1: 8, X2: 24, Y2: 16}
		h := augment.Heading{Class: "gothic", Data: "facades/train", Of: augment.Recipe{Pad: 4, Flip: true, CutMix: 1}}
		if err := augment.WriteSheet(path, h, size, tiles); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	dir := t.TempDir()
	if to := os.Getenv("ATELIER_PLOTS"); to != "" {
		dir = to
	}
	// 3 columns, 2 rows; images of 32 pixels are drawn four times as large.
	const top, step = 16 + 26 + 3*15 + 8, 134
	m := draw(filepath.Join(dir, "image_batch.png"), "26 % of\namerican_craftsman")
	plain := draw(filepath.Join(dir, "image_batch_plain.png"), "")
	if b, p := m.Bounds(), plain.Bounds(); b.Dx() != 2*16+3*step-6 || b.Dy() != top+2*(128+30+6)-6+16 || p.Dy() != top+2*step-6+16 {
		t.Fatalf("sheets of %v and, without captions, %v", b, p)
	}
	at := func(tile, x, y int) [3]uint32 {
		r, g, b, _ := m.At(16+tile%3*step+x, top+tile/3*(step+30)+y).RGBA()
		return [3]uint32{r >> 8, g >> 8, b >> 8}
	}
	for i := range 5 {
		if got := at(i, 1, 1); got != [3]uint32{uint32(10 * i), 100, 200} {
			t.Errorf("tile %d is %v", i, got)
		}
	}
	if edge, inside := at(4, 4*8, 4*8+5), at(4, 4*8+5, 4*8+5); edge == inside || edge[0] != edge[2] {
		t.Errorf("the box's edge is %v, its inside %v", edge, inside)
	}
	if at(3, 4*8, 4*8+5) != at(3, 1, 1) {
		t.Error("a tile without a box has an outline")
	}
	for name, r := range map[string]image.Rectangle{"class": image.Rect(16, 16, 100, 36), "scale": image.Rect(16, 72, 200, 88), "caption": image.Rect(16, top+128, 144, top+158)} {
		dark := 0
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				if c, _, _, _ := m.At(x, y).RGBA(); c>>8 < 150 {
					dark++
				}
			}
		}
		if dark < 40 {
			t.Errorf("%s: %d dark pixels", name, dark)
		}
	}
	if err := augment.WriteSheet(filepath.Join(dir, "none.png"), augment.Heading{}, size, nil); err == nil {
		t.Error("a sheet of nothing was written")
	}
	// Large images are shown smaller: a sheet is never larger than a page.
	var large []augment.Tile
	for range 16 {
		large = append(large, augment.Tile{Pixels: make([]byte, 1024*1024*3), Mixed: augment.Box{X1: 1000, Y1: 1000, X2: 1024, Y2: 1024}})
	}
	path := filepath.Join(t.TempDir(), "large.png")
	if err := augment.WriteSheet(path, augment.Heading{Class: "gothic"}, 1024, large); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := png.DecodeConfig(f); err != nil || c.Width > 2400 || c.Height > 2400 || c.Width < 1600 {
		t.Errorf("16 images of 1024 pixels: %d x %d, %v", c.Width, c.Height, err)
	}
}

func TestRecipeInWords(t *testing.T) {
	for want, r := range map[string]augment.Recipe{
		"no augmentation":                   {},
		"moved by up to 8 pixels, mirrored": augment.Standard(64),
		"part of at least 25 %, turned by up to 15 degrees, colours changed, CutMix": {Resized: true, ScaleMin: 0.25, Pad: 3, Rotation: 15, Jitter: augment.Jitter{Hue: 0.1}, CutMix: 1},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
