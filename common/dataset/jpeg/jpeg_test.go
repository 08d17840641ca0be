package jpeg

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// scene is an image with flat parts, edges and noise.
func scene(w, h int, seed uint64) *image.RGBA {
	r := rand.New(rand.NewPCG(seed, 1))
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{uint8(x * 255 / w), uint8(y * 255 / h), 120, 255}
			switch {
			case (x/16+y/16)%5 == 0:
				c = color.RGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(r.IntN(256)), 255}
			case x > w/2 && y > h/3:
				c = color.RGBA{200, 30, 10, 255}
			case math.Hypot(float64(x-w/3), float64(y-h/2)) < float64(w)/6:
				c = color.RGBA{250, 250, 255, 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

func encode(t testing.TB, m image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// same compares with image/jpeg's answer, image or error.
func same(t testing.TB, b []byte) {
	t.Helper()
	want, wantErr := jpeg.Decode(bytes.NewReader(b))
	got, err := Decode(b)
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%v, image/jpeg says %v", err, wantErr)
	}
	if err != nil {
		return
	}
	defer Free(got) // so that the next one finds its pixels
	if got.Bounds() != want.Bounds() {
		t.Fatalf("%v, want %v", got.Bounds(), want.Bounds())
	}
	switch want := want.(type) {
	case *image.Gray:
		got, ok := got.(*image.Gray)
		if !ok {
			t.Fatalf("%T", got)
		}
		for y := range want.Rect.Dy() {
			if n := want.Rect.Dx(); !bytes.Equal(got.Pix[y*got.Stride:][:n], want.Pix[y*want.Stride:][:n]) {
				t.Fatalf("row %d differs", y)
			}
		}
	case *image.YCbCr:
		got, ok := got.(*image.YCbCr)
		if !ok || got.SubsampleRatio != want.SubsampleRatio {
			t.Fatalf("%T", got)
		}
		for y := range want.Rect.Dy() {
			for x := range want.Rect.Dx() {
				if got.YCbCrAt(x, y) != want.YCbCrAt(x, y) {
					t.Fatalf("at %d, %d: %v, want %v", x, y, got.YCbCrAt(x, y), want.YCbCrAt(x, y))
				}
			}
		}
	}
}

func known(b []byte) bool { m, _ := fast(b, 8, 0); return m != nil }

func TestBytesAreImageJPEGs(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {7, 9}, {8, 8}, {16, 16}, {17, 33}, {64, 48}, {200, 123}, {256, 256}} {
		for _, quality := range []int{1, 10, 50, 75, 90, 100} {
			m := scene(size[0], size[1], uint64(quality))
			b := encode(t, m, quality)
			if !known(b) {
				t.Errorf("%v at %d: given to image/jpeg", size, quality)
			}
			same(t, b)
			grey := image.NewGray(m.Rect)
			for y := range size[1] {
				for x := range size[0] {
					grey.Set(x, y, m.At(x, y))
				}
			}
			if b = encode(t, grey, quality); !known(b) {
				t.Errorf("grey %v at %d: given to image/jpeg", size, quality)
			}
			same(t, b)
		}
	}
}

// Other programs' files: all samplings, restart markers, tables of their own;
// and what image/jpeg is left with.
func TestOtherEncoders(t *testing.T) {
	files, err := filepath.Glob("testdata/*.jpg")
	if err != nil || len(files) < 14 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(f), func(t *testing.T) {
			same(t, b)
			name := filepath.Base(f)
			if left := slices.Contains([]string{"progressive.jpg", "cmyk.jpg", "rgb.jpg", "s411.jpg", "arithmetic.jpg"}, name); known(b) == left {
				t.Errorf("given to image/jpeg: %v", !left)
			}
		})
	}
}

// Every place a file may be cut at or a byte may be wrong in: the same image or the same error.
func TestDamage(t *testing.T) {
	b := encode(t, scene(40, 24, 3), 60)
	for n := range b {
		same(t, b[:n])
	}
	r := rand.New(rand.NewPCG(4, 4))
	for range 4000 {
		x := bytes.Clone(b)
		for range 1 + r.IntN(3) {
			x[r.IntN(len(x))] = byte(r.IntN(256))
		}
		same(t, x)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, scene(20, 12, 5), 75))
	files, _ := filepath.Glob("testdata/*.jpg")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && len(b) < 20<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if cfg, err := jpeg.DecodeConfig(bytes.NewReader(b)); err == nil && cfg.Width*cfg.Height > 1<<18 {
			return
		}
		same(t, b)
		Reduced(b, 5)
	})
}

func TestTransforms(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 2000 {
		var b [64]int32
		for range r.IntN(64) {
			b[r.IntN(64)] = int32(r.IntN(4096) - 2048)
		}
		for name, f := range map[string][2]func(*[64]int32, []byte, int){"whole": {whole, wholeGo}, "four": {four, fourGo}} {
			var got, want [64]byte
			left := b
			f[0](&left, got[:], 8)
			f[1](&b, want[:], 8)
			if got != want {
				t.Fatalf("%s of %v: %v, want %v", name, b, got, want)
			}
			if left != [64]int32{} {
				t.Fatalf("%s left %v", name, left)
			}
		}
	}
}

// A reduced image is the whole one averaged over squares, to a level or so.
func TestReduced(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	m := image.NewGray(image.Rect(0, 0, 240, 160))
	for y := range 160 {
		for x := range 240 {
			v := 128 + 60*math.Sin(float64(x)/25) + 50*math.Cos(float64(x+y)/3)
			if x > 120 {
				v = 40 + 170*r.Float64()
			}
			m.SetGray(x, y, color.Gray{uint8(v)})
		}
	}
	b := encode(t, m, 92)
	whole, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for least, each := range map[int]int{80: 4, 48: 4, 40: 2, 30: 2, 20: 1, 10: 1, 81: 8, 160: 8, 500: 8} {
		img, full, err := Reduced(b, least)
		if err != nil {
			t.Fatal(err)
		}
		if full != image.Pt(240, 160) || img.Bounds().Size() != image.Pt(240*each/8, 160*each/8) {
			t.Fatalf("at least %d: %v of %v", least, img.Bounds(), full)
		}
		n := 8 / each
		worst := 0.0
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				want := 0.0
				for dy := range n {
					for dx := range n {
						want += float64(whole.(*image.Gray).GrayAt(x*n+dx, y*n+dy).Y)
					}
				}
				worst = max(worst, math.Abs(float64(img.(*image.Gray).GrayAt(x, y).Y)-want/float64(n*n)))
			}
		}
		if worst > 1.5 {
			t.Errorf("at least %d: off by %.1f", least, worst)
		}
	}
	if _, _, err := Reduced(b[:len(b)/2], 48); err == nil {
		t.Error("half a file")
	}
}

func BenchmarkDecode(b *testing.B) {
	data := encode(b, scene(256, 256, 1), 75)
	b.Run("here", func(b *testing.B) {
		for b.Loop() {
			if _, err := Decode(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("quarter", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := Reduced(data, 64); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("image/jpeg", func(b *testing.B) {
		for b.Loop() {
			if _, err := jpeg.Decode(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
