package cam_test

import (
	"bytes"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/worker/trainer/explain/cam"
)

func near(a, b []float32, by float64) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Abs(float64(x-y)) <= by })
}

func TestWeigh(t *testing.T) {
	// Channel 0 has gradient mean 2, channel 1 mean -1.
	activation := []float32{1, 0, 2, 1, 0, 3, 1, 2}
	gradient := []float32{1, 3, 2, 2, -4, 0, 0, 0}
	m := cam.Weigh(activation, gradient, 2, 2, 2)
	if !slices.Equal(m.Values, []float32{2, 0, 3, 0}) {
		t.Errorf("%v", m.Values)
	}
	if s := m.Scaled(); !near(s.Values, []float32{2. / 3, 0, 1, 0}, 1e-6) {
		t.Errorf("scaled %v", s.Values)
	}
	if s := (cam.Map{Width: 2, Height: 1, Values: []float32{5, 5}}).Scaled(); !slices.Equal(s.Values, []float32{0, 0}) {
		t.Errorf("an even map became %v", s.Values)
	}
}

// Known answers of torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
func TestResized(t *testing.T) {
	m := cam.Map{Width: 2, Height: 1, Values: []float32{0, 4}}
	if r := m.Resized(4, 2); !near(r.Values, []float32{0, 1, 3, 4, 0, 1, 3, 4}, 1e-6) {
		t.Errorf("%v", r.Values)
	}
	m = cam.Map{Width: 3, Height: 1, Values: []float32{0, 3, 6}}
	if r := m.Resized(2, 1); !near(r.Values, []float32{0.75, 5.25}, 1e-6) {
		t.Errorf("%v", r.Values)
	}
	if r := (cam.Map{Width: 1, Height: 1, Values: []float32{7}}).Resized(3, 2); !near(r.Values, []float32{7, 7, 7, 7, 7, 7}, 0) {
		t.Errorf("%v", r.Values)
	}
}

func TestConcentrationAndCoverage(t *testing.T) {
	one := make([]float32, 100)
	one[37] = 0.9
	for name, c := range map[string]struct {
		values []float32
		gini   float64
	}{
		"uniform":   {[]float32{0.5, 0.5, 0.5, 0.5}, 0},
		"all zero":  {make([]float32, 9), 0},
		"one pixel": {one, 0.99},
		"half":      {[]float32{0, 1, 0, 1}, 0.5},
		"none":      {nil, 0},
	} {
		if g := (cam.Map{Width: len(c.values), Height: 1, Values: c.values}).Concentration(); math.Abs(g-c.gini) > 1e-6 {
			t.Errorf("%s: %v, want %v", name, g, c.gini)
		}
	}
	// Against the definition: mean absolute difference over twice the mean.
	r := rand.New(rand.NewPCG(1, 2))
	v := make([]float32, 300)
	var sum, diff float64
	for i := range v {
		v[i] = float32(r.ExpFloat64() / 9)
		sum += float64(v[i])
	}
	for _, a := range v {
		for _, b := range v {
			diff += math.Abs(float64(a) - float64(b))
		}
	}
	if got, want := (cam.Map{Width: 300, Height: 1, Values: v}).Concentration(), diff/(2*300*sum); math.Abs(got-want) > 1e-9 {
		t.Errorf("%v, want %v", got, want)
	}
	if c := (cam.Map{Width: 4, Height: 1, Values: []float32{0.5, 0.49, 1, 0}}).Coverage(0.5); c != 0.5 {
		t.Errorf("coverage %v", c)
	}
}

// The scale grows lighter all the way, and hides nothing where the map is empty.
func TestColours(t *testing.T) {
	last, alpha := -1.0, -1
	for i := range 256 {
		c := cam.Color(float32(i) / 255)
		if l := 0.2126*float64(c.R) + 0.7152*float64(c.G) + 0.0722*float64(c.B); l < last {
			t.Errorf("the scale grows darker at %d: %v", i, c)
		} else {
			last = l
		}
		if int(c.A) < alpha {
			t.Errorf("a stronger value hides less at %d: %v", i, c)
		}
		alpha = int(c.A)
	}
	if low, high := cam.Color(0.05), cam.Color(1); low.A != 0 || high.A != 255 || high != (color.NRGBA{252, 255, 164, 255}) {
		t.Errorf("%v to %v", low, high)
	}
	if s := cam.Scale(); len(s) != 1024 || s[1020] != 252 || s[3] != 0 || s[1023] != 255 {
		t.Errorf("%d bytes of scale", len(s))
	}
	p := image.NewRGBA(image.Rect(0, 0, 2, 1))
	p.Set(0, 0, color.RGBA{R: 100, A: 255})
	p.Set(1, 0, color.RGBA{R: 7, G: 8, B: 9, A: 255})
	m := cam.Map{Width: 2, Height: 1, Values: []float32{1, 0}}
	if o := m.Overlay(p, 0.5); o.RGBAAt(0, 0) != (color.RGBA{R: 176, G: 128, B: 82, A: 255}) || o.RGBAAt(1, 0) != p.RGBAAt(1, 0) {
		t.Errorf("%v %v", o.RGBAAt(0, 0), o.RGBAAt(1, 0))
	}
	if h := m.HeatMap(); h.RGBAAt(0, 0) != (color.RGBA{252, 255, 164, 255}) || h.RGBAAt(1, 0) != (color.RGBA{0, 0, 4, 255}) {
		t.Errorf("%v", h.RGBAAt(0, 0))
	}
}

func TestNumPyReadsIt(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import numpy").Run(); err != nil {
		t.Skipf("no numpy (apt-get install python3-numpy): %v", err)
	}
	var b bytes.Buffer
	if err := (cam.Map{Width: 3, Height: 2, Values: []float32{0, 1, 2, 3, 4, 5.5}}).WriteNPY(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.npy")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "-c", "import numpy,sys; a=numpy.load(sys.argv[1]); print(a.shape, a.dtype, a[1,2], a[0,1])", path).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "(2, 3) float32 5.5 1.0" {
		t.Errorf("%s %v", out, err)
	}
}

func BenchmarkConcentration(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	m := cam.Map{Width: 7, Height: 7, Values: make([]float32, 49)}
	for i := range m.Values {
		m.Values[i] = r.Float32()
	}
	m = m.Resized(224, 224)
	for b.Loop() {
		m.Concentration()
	}
}
