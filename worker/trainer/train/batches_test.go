//go:build libtorch

package train

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"atelier/common/dataset"
	"atelier/common/settings"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/torchx"
)

// pack makes a packed set: classes a, b, c with so many images each, every
// image of its own texture.
func pack(t testing.TB, size int, counts ...int) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	for c, n := range counts {
		class := filepath.Join(dir, "images", string(rune('a'+c)))
		if err := os.MkdirAll(class, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			m := image.NewNRGBA(image.Rect(0, 0, size, size))
			for y := range size {
				for x := range size {
					m.SetNRGBA(x, y, color.NRGBA{byte(60*c + 9*i), byte(255 * x / size), byte((x*y + 31*i) % 256), 255})
				}
			}
			var b bytes.Buffer
			if err := png.Encode(&b, m); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(class, fmt.Sprint(i, ".png")), b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	folder, err := dataset.List(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	path, _, err := dataset.Pack(folder, dataset.PackOptions{Size: size, CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	set, err := dataset.OpenPack(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	return set
}

// open makes data of a set for training by a recipe.
func open(t testing.TB, set *dataset.Set, recipe augment.Recipe, balanced bool) *data {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	if err := torchx.SetThreads(1); err != nil {
		t.Fatal(err)
	}
	d := &data{train: set, classes: set.Classes(), norm: norm{settings.ImageNetMean, settings.ImageNetStd}, recipe: recipe, balanced: balanced, seed: 17, device: torchx.CPU, channelsLast: true}
	d.scale, d.shift = d.norm.scale()
	return d
}

// seen is a batch read back.
type seen struct {
	x      []float32
	y, y2  []byte
	lambda float64
}

func (a seen) equal(b seen) bool {
	return slices.Equal(a.x, b.x) && bytes.Equal(a.y, b.y) && bytes.Equal(a.y2, b.y2) && a.lambda == b.lambda
}

func read(t testing.TB, b batch, err error) seen {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer b.free()
	s := seen{lambda: b.lambda}
	if s.x, err = torchx.Floats(b.x); err != nil {
		t.Fatal(err)
	}
	if s.y, err = torchx.Bytes(b.y); err != nil {
		t.Fatal(err)
	}
	if b.mixed() {
		if s.y2, err = torchx.Bytes(b.y2); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func all(t testing.TB, f *loader) (batches []seen) {
	t.Helper()
	defer f.close()
	for range f.len() {
		b, err := f.next()
		batches = append(batches, read(t, b, err))
	}
	return batches
}

// everything there is to do to an image.
var everything = augment.Recipe{Resized: true, ScaleMin: 0.3, Flip: true, Rotation: 20,
	Jitter: augment.Jitter{Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.1}, CutMix: 1}

// A run that begins in the middle sees the images that one from the start
// sees: nothing is carried from batch to batch.
func TestResumedRunSeesTheSameImages(t *testing.T) {
	set := pack(t, 32, 9, 5, 3)
	for _, balanced := range []bool{false, true} {
		d := open(t, set, everything, balanced)
		whole := [][]seen{all(t, d.epoch(1, 4)), all(t, d.epoch(2, 4)), all(t, d.epoch(3, 4))}
		resumed := open(t, set, everything, balanced)
		for i, b := range all(t, resumed.epoch(3, 4)) {
			if !b.equal(whole[2][i]) {
				t.Errorf("balanced %v: batch %d of epoch 3 differs", balanced, i)
			}
		}
		if len(whole[0]) != 4 || whole[0][0].equal(whole[1][0]) || slices.Equal(whole[0][0].x, whole[0][1].x) {
			t.Errorf("balanced %v: %d batches; epochs and batches must differ", balanced, len(whole[0]))
		}
		other := open(t, set, everything, balanced)
		other.seed++
		if b := all(t, other.epoch(3, 4)); b[0].equal(whole[2][0]) {
			t.Errorf("balanced %v: another seed, the same images", balanced)
		}
	}
}

// What is laid out ahead is what would be laid out in time, also after a loader
// that was given up early.
func TestLoaderLooksAhead(t *testing.T) {
	set := pack(t, 32, 6, 6)
	d := open(t, set, everything, false)
	early := d.epoch(1, 5)
	b, err := early.next()
	read(t, b, err)
	early.close()
	early.close()
	d.epoch(1, 5).close() // before the first batch
	order := augment.Order(d.seed, 1, set.Len())
	for i, got := range all(t, d.epoch(1, 5)) {
		from := 5 * i
		b, err := d.send(d.lay(set, order, piece{batch: i, start: from, from: from, to: min(from+5, len(order)), end: min(from+5, len(order))}, d.recipe, 1), d.recipe)
		if want := read(t, b, err); !got.equal(want) {
			t.Errorf("batch %d differs", i)
		}
	}
}

func TestValidationIsLeftAsItIs(t *testing.T) {
	set := pack(t, 32, 3, 4)
	d := open(t, set, everything, true)
	at := 0
	for _, b := range all(t, d.whole(set, 3)) {
		if b.y2 != nil || b.lambda != 1 {
			t.Error("validation images are mixed")
		}
		n := len(b.y) / 8
		for i := range n {
			px := set.Pixels(at + i)
			for c := range 3 {
				for p := range 32 * 32 {
					if got, want := b.x[(i*3+c)*32*32+p], float32(px[3*p+c])*d.scale[c]+d.shift[c]; got != want {
						t.Fatalf("image %d colour %d pixel %d is %g, want %g", at+i, c, p, got, want)
					}
				}
			}
			if int(b.y[8*i]) != set.Label(at+i) {
				t.Errorf("image %d has label %d", at+i, b.y[8*i])
			}
		}
		at += n
	}
	if at != set.Len() {
		t.Errorf("%d of %d images", at, set.Len())
	}
}

// Mixed images are the unmixed ones but for the box, which is the
// predecessor's; labels and shares say so.
func TestMixedBatch(t *testing.T) {
	set := pack(t, 32, 5, 5, 5)
	const size = 32
	boxes := 0
	for epoch := 1; epoch <= 4; epoch++ {
		plain := open(t, set, augment.Recipe{Flip: true}, false).epoch(epoch, 5)
		mixed := open(t, set, augment.Recipe{Flip: true, CutMix: 1}, false).epoch(epoch, 5)
		for range plain.len() {
			b, err := plain.next()
			want := read(t, b, err)
			b, err = mixed.next()
			box := b.box
			got := read(t, b, err)
			if got.lambda != 1-float64(box.Area())/(size*size) || !bytes.Equal(got.y, want.y) || !bytes.Equal(got.y2, append(bytes.Clone(want.y[4*8:]), want.y[:4*8]...)) {
				t.Fatalf("lambda %g of box %+v; labels %v and %v", got.lambda, box, got.y, got.y2)
			}
			for i := range got.x {
				n, x, y := i/(3*size*size), i%size, i/size%size
				from := i
				if x >= box.X1 && x < box.X2 && y >= box.Y1 && y < box.Y2 {
					from += ((n+4)%5 - n) * 3 * size * size
				}
				if got.x[i] != want.x[from] {
					t.Fatalf("image %d, (%d, %d): not what box %+v makes it", n, x, y, box)
				}
			}
			if box.Area() > 0 {
				boxes++
			}
		}
		plain.close()
		mixed.close()
	}
	if boxes < 8 {
		t.Errorf("%d of 12 batches mixed", boxes)
	}
}

// Crops that the device makes, as on a GPU, are those the bytes get, but for
// the bytes' rounding.
func TestDeviceAndBytesCropAlike(t *testing.T) {
	set := pack(t, 48, 4, 4)
	for _, recipe := range []augment.Recipe{{Resized: true, ScaleMin: 0.1, Flip: true}, {Pad: 6, Flip: true}} {
		d := open(t, set, recipe, false)
		indices := []int{0, 1, 2, 3, 4, 5, 6, 7}
		b, err := d.send(d.lay(set, indices, piece{to: len(indices), end: len(indices)}, recipe, 1), recipe)
		want := read(t, b, err)
		l := d.lay(set, indices, piece{to: len(indices), end: len(indices)}, recipe, 1)
		l.warp = true
		augment.Copy(l.block.Pixels, set.PixelsRaw(), 48, indices)
		b, err = d.send(l, recipe)
		got := read(t, b, err)
		worst := 0.
		for i := range want.x {
			worst = max(worst, math.Abs(float64(got.x[i]-want.x[i]))/float64(d.scale[i/(48*48)%3]))
		}
		if !(worst < 0.55) {
			t.Errorf("%+v: up to %g levels apart", recipe, worst)
		}
	}
}

func TestBalancedEpoch(t *testing.T) {
	set := pack(t, 32, 40, 4)
	d := open(t, set, augment.Recipe{}, true)
	counts := map[byte]int{}
	for epoch := 1; epoch <= 20; epoch++ {
		f := d.epoch(epoch, 16)
		if f.len() != 3 || len(f.order) != 44 {
			t.Fatalf("%d batches of %d images", f.len(), len(f.order))
		}
		for _, i := range f.order {
			counts[byte(set.Label(i))]++
		}
	}
	if n := counts[1]; math.Abs(float64(n)-440) > 4.5*math.Sqrt(880)/2 {
		t.Errorf("the small class is drawn %d times of 880", n)
	}
}

func TestRecipeOfSettings(t *testing.T) {
	s := settings.Default()
	if got := recipe(s); got != augment.Standard(s.ImageSize) {
		t.Errorf("default recipe %+v", got)
	}
	s.Crop, s.CropScaleMin, s.Rotation, s.CutMix, s.CutMixAlpha = "resized", 0.3, 20, true, 1
	s.JitterBrightness, s.JitterContrast, s.JitterSaturation, s.JitterHue = 0.4, 0.4, 0.4, 0.1
	if got := recipe(s); got != everything {
		t.Errorf("%+v", got)
	}
	s.Augment = false
	if got := recipe(s); got != (augment.Recipe{}) {
		t.Errorf("augment false leaves %+v", got)
	}
}

func TestSheets(t *testing.T) {
	set := pack(t, 32, 7, 3, 5)
	s := settings.Default()
	s.ImageSize, s.BatchSize, s.CutMix, s.JitterHue, s.Rotation = 32, 4, true, 0.2, 30
	s.Train = filepath.Join(filepath.Dir(set.Path()), "images")
	s.Validation = s.Train
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := filepath.Join(t.TempDir(), "image_batches")
	if err := Sheets(t.Context(), s, 3, t.TempDir(), dir, 6, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"a", "b", "c"} {
		f, err := os.Open(filepath.Join(dir, class+".png"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if b := m.Bounds(); b.Dx() != 2*16+3*134-6 || b.Dy() != 95+2*(128+30+6)-6+16 { // six tiles, fourfold, captions of two lines
			t.Errorf("%s: sheet of %v", class, b)
		}
	}
	// Without augmentation the tiles are the images themselves.
	d := open(t, set, augment.Recipe{}, false)
	tiles := make([][]augment.Tile, 3)
	if err := d.collect(tiles, 7, 1, 4, func() bool { return false }); err != nil {
		t.Fatal(err)
	}
	for i, at := range augment.Order(d.seed, 1, set.Len()) {
		c := set.Label(at)
		if !slices.ContainsFunc(tiles[c], func(t augment.Tile) bool { return bytes.Equal(t.Pixels, set.Pixels(at)) }) {
			t.Errorf("image %d in the order is on no sheet", i)
		}
	}
}

// BenchmarkBatch makes batches of 32 images as for training, one thread:
// the figures are of a batch's whole cost, bytes and arithmetic; processor
// time tells more than the clock where others share the machine.
func BenchmarkBatch(b *testing.B) {
	colours := augment.Jitter{Brightness: 0.4, Contrast: 0.4, Saturation: 0.4, Hue: 0.1}
	for _, size := range []int{64, 224} {
		set := pack(b, size, 24, 24)
		for _, c := range []struct {
			name   string
			recipe augment.Recipe
		}{
			{"none", augment.Recipe{}},
			{"pad flip", augment.Standard(size)},
			{"resized flip", augment.Recipe{Resized: true, ScaleMin: 0.08, Flip: true}},
			{"resized flip colours cutmix", augment.Recipe{Resized: true, ScaleMin: 0.08, Flip: true, Jitter: colours, CutMix: 1}},
			{"all with rotation", augment.Recipe{Resized: true, ScaleMin: 0.08, Flip: true, Rotation: 15, Jitter: colours, CutMix: 1}},
		} {
			b.Run(fmt.Sprintf("%d px, %s", size, c.name), func(b *testing.B) {
				d := open(b, set, c.recipe, false)
				indices := augment.Order(1, 1, set.Len())[:32]
				var before, after syscall.Rusage
				syscall.Getrusage(syscall.RUSAGE_SELF, &before)
				for step := range b.N {
					l, err := d.send(d.lay(set, indices, piece{batch: step, to: len(indices), end: len(indices)}, c.recipe, 1), c.recipe)
					if err != nil {
						b.Fatal(err)
					}
					l.free()
				}
				syscall.Getrusage(syscall.RUSAGE_SELF, &after)
				used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				b.ReportMetric(float64(used)/1e6/float64(b.N), "cpu-ms/op")
			})
		}
	}
}
