package chart_test

import (
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

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
		Flags: []string{"low_confidence_drop", "high_coverage"}, Notes: "confidence drop 3.1 %, increase -2.0 %, concentration 0.41, coverage 0.78"}
}

func TestFourPanels(t *testing.T) {
	s := subject(200, 200)
	img := chart.Four(s)
	b := img.Bounds()
	// Each quarter holds its own: the image's colours, jet's red at the map's peak, a mix of both, bars.
	at := func(panel int, x, y float64) color.RGBA {
		return img.RGBAAt(16+panel*(chart.Side+16)+int(x*chart.Side), 58+int(y*chart.Side))
	}
	if c := at(0, 0.7, 0.3); c.B < 70 || c.B > 110 || c.R < 150 {
		t.Errorf("original %v", c)
	}
	if c := at(1, 0.7, 0.3); c.R < 100 || c.G > 30 || c.B > 30 {
		t.Errorf("heat map's peak %v", c)
	}
	if c, o, h := at(2, 0.7, 0.3), at(0, 0.7, 0.3), at(1, 0.7, 0.3); math.Abs(float64(c.R)-(float64(o.R)+float64(h.R))/2) > 6 {
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
	dir := t.TempDir()
	if to := os.Getenv("ATELIER_PLOTS"); to != "" {
		chart.Save(filepath.Join(to, "four.png"), img)
		chart.Save(filepath.Join(to, "compare.png"), chart.Compare(s, s.Top[:3], []cam.Map{s.Map, s.Map, s.Map}))
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
