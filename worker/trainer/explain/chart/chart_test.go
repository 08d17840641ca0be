package chart_test

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"atelier/common/inference"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/explain/chart"
)

func subject(w, h int) chart.Subject {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	m := cam.Map{Width: w, Height: h, Values: make([]float32, w*h)}
	for y := range h {
		for x := range w {
			img.Set(x, y, color.RGBA{R: uint8(x * 255 / w), G: uint8(y * 255 / h), B: 90, A: 255})
			m.Values[y*w+x] = float32(math.Exp(-(math.Pow(float64(x)/float64(w)-0.7, 2) + math.Pow(float64(y)/float64(h)-0.3, 2)) * 12))
		}
	}
	return chart.Subject{Name: "test/queen_anne_architecture/a house with a rather long name 0001.jpg", True: "tudor", Image: img, Map: m,
		Top:   []chart.Share{{"queen_anne_architecture", 0.812}, {"tudor", 0.1}, {"american_craftsman_and_more_than_fits_into_the_room_there_is", 0.05}, {"gothic", 0.03}, {"colonial", 0.008}},
		Flags: []string{inference.Reason("low_confidence_drop"), inference.Reason("high_coverage")}, About: "resnet18, epoch 12, 224 px", Notes: "confidence drop 3.1 %, increase -2.0 %, concentration 0.41, coverage 0.78"}
}

func TestFourPanels(t *testing.T) {
	s := subject(200, 200)
	img := chart.Four(s)
	b := img.Bounds()
	// Each quarter holds its own: the image's colours, the scale's bright end at the map's peak, a mix of both, bars.
	at := func(panel int, x, y float64) color.RGBA {
		return img.RGBAAt(16+panel*(chart.Side+16)+int(x*chart.Side), 80+int(y*chart.Side))
	}
	if c := at(0, 0.7, 0.3); c.B < 70 || c.B > 110 || c.R < 150 {
		t.Errorf("original %v", c)
	}
	if c := at(1, 0.7, 0.3); c.R < 230 || c.G < 200 {
		t.Errorf("heat map's peak %v", c)
	}
	if c, o, h := at(2, 0.7, 0.3), at(0, 0.7, 0.3), at(1, 0.7, 0.3); math.Abs(float64(c.G)-(0.4*float64(o.G)+0.6*float64(h.G))) > 8 {
		t.Errorf("overlay %v of %v and %v", c, o, h)
	}
	if c := at(3, 0.5, 0.13); c.B < 150 || c.R > 30 {
		t.Errorf("the best class's bar %v", c)
	}
	if c := at(3, 0.95, 0.13); c.R < 220 {
		t.Errorf("the bar is longer than its share: %v", c)
	}
	for x := range b.Dx() { // nothing runs over the rim
		for _, y := range []int{0, b.Dy() - 1} {
			if img.RGBAAt(x, y) != (color.RGBA{255, 255, 255, 255}) {
				t.Fatalf("ink at %d,%d", x, y)
			}
		}
	}
	if c, o := at(2, 0.05, 0.95), at(0, 0.05, 0.95); math.Abs(float64(c.R)-float64(o.R)) > 3 || math.Abs(float64(c.G)-float64(o.G)) > 3 {
		t.Errorf("where the map is weak the overlay hides the image: %v, it is %v", c, o)
	}
	dir := t.TempDir()
	if to := os.Getenv("ATELIER_PLOTS"); to != "" {
		chart.Save(filepath.Join(to, "four.png"), img)
		chart.Save(filepath.Join(to, "compare.png"), chart.Compare(s, s.Top, []cam.Map{s.Map, s.Map, s.Map, s.Map, s.Map}))
		s.True, s.Flags, s.Map = s.Top[0].Class, nil, cam.Map{Width: 200, Height: 200, Values: make([]float32, 40000)}
		chart.Save(filepath.Join(to, "empty.png"), chart.Four(s))
	}
	path := filepath.Join(dir, "new", "folder", "x.png")
	if err := chart.Save(path, img); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if back, err := png.Decode(f); err != nil || back.Bounds() != b {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// Right and wrong are told apart without their colours: by words, a tick and a
// cross, and where the true class is among the best.
func TestRightAndWrongDiffer(t *testing.T) {
	right, wrong := subject(200, 200), subject(200, 200)
	right.True = right.Top[0].Class
	grey := func(img *image.RGBA, r image.Rectangle) (out []uint8) {
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				out = append(out, color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
			}
		}
		return out
	}
	a, b := chart.Four(right), chart.Four(wrong)
	for name, r := range map[string]image.Rectangle{"badge": image.Rect(16, 8, 36, 28), "headline": image.Rect(41, 8, 600, 28), "the best class": image.Rect(904, 80, 1184, 96)} {
		x, y := grey(a, r), grey(b, r)
		differ := 0
		for i := range x {
			if d := int(x[i]) - int(y[i]); d > 60 || d < -60 {
				differ++
			}
		}
		if differ < 12 {
			t.Errorf("%s: %d pixels differ in grey", name, differ)
		}
	}
}

// A map without evidence leaves the image as it is.
func TestEmptyMapShowsTheImage(t *testing.T) {
	s := subject(chart.Side, chart.Side)
	s.Flags, s.Map = nil, cam.Map{Width: chart.Side, Height: chart.Side, Values: make([]float32, chart.Side*chart.Side)}
	img := chart.Four(s)
	for y := range chart.Side {
		for x := range chart.Side {
			if got, want := img.RGBAAt(16+2*(chart.Side+16)+x, 58+y), s.Image.RGBAAt(x, y); got != want {
				t.Fatalf("%d,%d is %v in the overlay, %v in the image", x, y, got, want)
			}
		}
	}
}

// A comparison has three panels in a row, and stays narrow with many classes.
func TestComparisonWraps(t *testing.T) {
	s := subject(100, 100)
	for n, rows := range map[int]int{1: 1, 2: 1, 3: 2, 5: 2, 6: 3} {
		shares, maps := make([]chart.Share, n), make([]cam.Map, n)
		for i := range maps {
			shares[i], maps[i] = chart.Share{Class: "class", Confidence: 0.1}, s.Map
		}
		b := chart.Compare(s, shares, maps).Bounds()
		if b.Dx() > 3*chart.Side+4*16 || b.Dy() < rows*chart.Side || b.Dy() > rows*(chart.Side+46)+120 {
			t.Errorf("%d classes: %v", n, b)
		}
	}
}

// Odd images are drawn too.
func TestOddSubjects(t *testing.T) {
	for _, s := range []chart.Subject{subject(300, 20), subject(1, 1), {Image: image.NewRGBA(image.Rect(0, 0, 4, 4)), Map: cam.Map{Width: 4, Height: 4, Values: make([]float32, 16)}}} {
		if img := chart.Four(s); img.Bounds().Dx() < 4*chart.Side {
			t.Error(img.Bounds())
		}
		chart.Compare(s, s.Top[:min(1, len(s.Top))], []cam.Map{s.Map})
	}
}

func BenchmarkFourAndSave(b *testing.B) {
	s := subject(chart.Side, chart.Side)
	path := filepath.Join(b.TempDir(), "x.png")
	for b.Loop() {
		if err := chart.Save(path, chart.Four(s)); err != nil {
			b.Fatal(err)
		}
	}
}
