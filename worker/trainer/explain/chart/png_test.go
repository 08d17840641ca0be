package chart

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"testing"
)

// What is encoded here is what image/png reads: every length of run, noise,
// even paper, a part of a larger drawing, a drawing without pixels.
func TestEncode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	paint := func(w, h int, f func(x, y int) color.RGBA) *image.RGBA {
		img := image.NewRGBA(image.Rect(0, 0, w, h))
		for y := range h {
			for x := range w {
				c := f(x, y)
				c.A = 255
				img.SetRGBA(x, y, c)
			}
		}
		return img
	}
	any := func() uint8 { return uint8(r.UintN(256)) }
	noise := paint(97, 61, func(int, int) color.RGBA { return color.RGBA{any(), any(), any(), 0} })
	at, left := color.RGBA{}, 0
	runs := paint(700, 90, func(int, int) color.RGBA {
		if left--; left < 0 {
			at, left = color.RGBA{any(), any(), any(), 0}, r.IntN(200)
		}
		return at
	})
	drawings := map[string]*image.RGBA{
		"noise":     noise,
		"part":      noise.SubImage(image.Rect(10, 7, 50, 44)).(*image.RGBA),
		"runs":      runs,
		"white":     paint(1200, 380, func(int, int) color.RGBA { return color.RGBA{255, 255, 255, 0} }),
		"black":     paint(300, 2, func(int, int) color.RGBA { return color.RGBA{} }),
		"one pixel": paint(1, 1, func(int, int) color.RGBA { return color.RGBA{1, 2, 3, 0} }),
		"gradient":  paint(256, 256, func(x, y int) color.RGBA { return color.RGBA{uint8(x), uint8(y), uint8(x * y), 0} }),
	}
	for run := 1; run <= 300; run++ { // a row of one run after two pixels of their own
		drawings["run"] = paint(run+2, 1, func(x, _ int) color.RGBA { return color.RGBA{uint8(min(x, 1) * 9), 5, 7, 0} })
		same(t, "run", drawings["run"])
	}
	for name, img := range drawings {
		same(t, name, img)
	}
}

func same(t *testing.T, name string, img *image.RGBA) {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, img); err != nil {
		t.Fatal(err)
	}
	back, err := png.Decode(&b)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	bounds := img.Bounds()
	if back.Bounds().Size() != bounds.Size() {
		t.Fatalf("%s: %v, want %v", name, back.Bounds(), bounds)
	}
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			want := img.RGBAAt(bounds.Min.X+x, bounds.Min.Y+y)
			if got := color.RGBAModel.Convert(back.At(x, y)); got != want {
				t.Fatalf("%s at %d,%d: %v, want %v", name, x, y, got, want)
			}
		}
	}
}

// Codes are whole (Kraft's sum is one) and within the limit, however uneven the
// counts: Fibonacci's make the deepest trees.
func TestCodeLengths(t *testing.T) {
	fibonacci := []int{1, 1}
	for len(fibonacci) < 40 {
		fibonacci = append(fibonacci, fibonacci[len(fibonacci)-1]+fibonacci[len(fibonacci)-2])
	}
	for name, count := range map[string][]int{"fibonacci": fibonacci, "even": {5, 5, 5, 5, 5}, "one": {0, 0, 9, 0}, "none": {0, 0, 0}, "holes": {0, 3, 0, 100, 1, 0}} {
		for _, most := range []int{7, 15} {
			sum := 0
			lengths := codeLengths(count, most)
			for s, l := range lengths {
				if l > most || l == 0 && count[s] > 0 {
					t.Errorf("%s: symbol %d has %d bits of %d", name, s, l, most)
				}
				if l > 0 {
					sum += 1 << (most - l)
				}
			}
			if sum != 1<<most {
				t.Errorf("%s: lengths %v are no whole code of %d bits", name, lengths, most)
			}
		}
	}
}
