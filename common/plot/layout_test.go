package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// sheet is a canvas that keeps where texts are, turned ones too.
type sheet struct {
	canvas
	at    []frame2
	texts []box
}

// frame2 is a turn and a shift.
type frame2 struct{ a, b, c, d, x, y float64 }

type box struct {
	text    string
	corners [4][2]float64
}

func (s *sheet) top() *frame2 { return &s.at[len(s.at)-1] }
func (s *sheet) Push()        { s.canvas.Push(); s.at = append(s.at, *s.top()) }
func (s *sheet) Pop()         { s.canvas.Pop(); s.at = s.at[:len(s.at)-1] }
func (s *sheet) Rotate(r float64) {
	s.canvas.Rotate(r)
	t := s.top()
	sin, cos := math.Sincos(r)
	*t = frame2{t.a*cos + t.c*sin, t.b*cos + t.d*sin, t.c*cos - t.a*sin, t.d*cos - t.b*sin, t.x, t.y}
}
func (s *sheet) FillString(f font.Face, at vg.Point, text string) {
	s.canvas.FillString(f, at, text)
	w, size := float64(letterpress{}.width(f, text)), float64(f.Font.Size)
	t := s.top()
	var b box
	b.text = text
	// What ink has: digits and small letters, not the room for accents.
	for i, p := range [4][2]float64{{0, -0.05 * size}, {w, -0.05 * size}, {w, 0.62 * size}, {0, 0.62 * size}} {
		x, y := float64(at.X)+p[0], float64(at.Y)+p[1]
		b.corners[i] = [2]float64{t.a*x + t.c*y + t.x, t.b*x + t.d*y + t.y}
	}
	s.texts = append(s.texts, b)
}

// apart reports whether a line between two turned boxes parts them (the
// separating axis theorem).
func apart(p, q box) bool {
	for _, b := range []box{p, q} {
		for i := range 4 {
			n := [2]float64{b.corners[(i+1)%4][1] - b.corners[i][1], b.corners[i][0] - b.corners[(i+1)%4][0]}
			low, high := [2]float64{math.Inf(1), math.Inf(1)}, [2]float64{math.Inf(-1), math.Inf(-1)}
			for k, o := range []box{p, q} {
				for _, c := range o.corners {
					v := c[0]*n[0] + c[1]*n[1]
					low[k], high[k] = min(low[k], v), max(high[k], v)
				}
			}
			if high[0] <= low[1]+1e-9 || high[1] <= low[0]+1e-9 {
				return true
			}
		}
	}
	return false
}

func texts(t *testing.T, f Figure, panels ...*Panel) (found []box, width, height float64) {
	t.Helper()
	var s *sheet
	err := f.write(io.Discard, func(w, h vg.Length) canvas {
		s = &sheet{canvas: newVector(w, h, ""), at: []frame2{{a: 1, d: 1}}}
		width, height = float64(w), float64(h)
		return s
	}, panels)
	if err != nil {
		t.Fatal(err)
	}
	return s.texts, width, height
}

func classes(n int) (out []string) {
	words := []string{"american_craftsman", "art_deco", "colonial", "gothic", "queen_anne_architecture", "tudor"}
	for i := range n {
		out = append(out, fmt.Sprintf("%s_%d", words[i%len(words)], i))
	}
	return out
}

// some is data of n classes, epochs or trials.
func some(n int) (out []float64) {
	for i := range n {
		out = append(out, math.Abs(math.Sin(float64(i)*1.7)))
	}
	return out
}

// No text lies on another one or beyond the edge, with few classes and with
// many, in narrow panels and in wide ones.
func TestTextsDoNotOverlap(t *testing.T) {
	for _, n := range []int{2, 5, 12, 30, 60} {
		names := classes(n)
		cells := Cells{Rows: names, Columns: names, Counts: true}
		for i := range n {
			row := make([]float64, n)
			row[i], row[(i*7+3)%n] = 31, 2
			cells.Values = append(cells.Values, row)
		}
		var spans []Span
		for i := range n {
			spans = append(spans, Span{Row: names[i%min(n, 9)], Start: float64(i), End: float64(i + 1), Label: fmt.Sprint(i)})
		}
		panels := map[string]*Panel{
			"matrix":   Matrix(Axes{Title: "Confusion matrix", X: "predicted", Y: "true"}, cells),
			"bars":     Bars(Axes{Title: "Bars", Y: "score", Low: At(0), High: At(1), Percent: true}, names, Series{Name: "precision", Y: some(n)}, Series{Name: "recall", Y: some(n)}),
			"dots":     Dots(Axes{Title: "Dots", High: At(1), Percent: true}, names, Series{Name: "F1", Y: some(n)}, Series{Name: "recall", Y: some(n)}),
			"ranked":   Ranked(Axes{Title: "Ranked", X: "share"}, names, some(n)),
			"lines":    Lines(Axes{Title: "Lines", X: "epoch", Y: "loss", WholeX: true}, Series{Name: "training", Y: some(n)}),
			"log":      Lines(Axes{Title: "Lines", X: "lr", Y: "loss", LogX: true, LogY: true}, Series{Name: "training", X: some(n), Y: some(n), Points: true}),
			"choices":  Lines(Axes{Title: "Choices", X: "class", Choices: names}, Series{Y: some(n), Points: true}),
			"timeline": Timeline(Axes{Title: "Slots", X: "seconds"}, names[:min(n, 9)], []Kind{{Name: "finished", Fill: Fill{Color: Blue}}}, spans),
		}
		for name, p := range panels {
			found, width, height := texts(t, Figure{Title: "A title of the usual length", About: "resnet18  ·  facades"}, p)
			for i, a := range found {
				for _, c := range a.corners {
					if c[0] < 1 || c[1] < 1 || c[0] > width-1 || c[1] > height-1 {
						t.Errorf("%d %s: %q is at %.0f,%.0f of %.0f x %.0f", n, name, a.text, c[0], c[1], width, height)
					}
				}
				for _, b := range found[:i] {
					if !apart(a, b) {
						t.Errorf("%d %s: %q and %q overlap", n, name, a.text, b.text)
					}
				}
			}
			if len(found) < 4 {
				t.Errorf("%d %s: %d texts", n, name, len(found))
			}
		}
	}
}

// Ticks are 1, 2 or 5 times a power of ten apart, on round numbers, all written
// with the same decimals.
func TestTicks(t *testing.T) {
	text := func(ticks []tick) string {
		var out []string
		for _, x := range ticks {
			if x.label != "" {
				out = append(out, x.label)
			}
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		a      axis
		length vg.Length
		want   string
	}{
		{axis{low: 0, high: 31}, 300, "0 10 20 30"},
		{axis{low: 0, high: 31}, 320, "0 5 10 15 20 25 30"},
		{axis{low: 0.8, high: 5.2, whole: true}, 300, "1 2 3 4 5"},
		{axis{low: 0.8, high: 2.2, whole: true}, 300, "1 2"},
		{axis{low: -0.01, high: 0.26}, 300, "0.00 0.05 0.10 0.15 0.20 0.25"},
		{axis{low: 0, high: 1, percent: true}, 240, "0 % 20 % 40 % 60 % 80 % 100 %"},
		{axis{low: 0, high: 12500}, 160, "0 5,000 10,000"},
		{axis{low: 1e-5, high: 0.1, log: true}, 300, "1e-5 1e-4 1e-3 1e-2 1e-1"},
		{axis{low: 0.001, high: 0.02, log: true}, 300, "0.001 0.002 0.005 0.01 0.02"},
		{axis{low: 0.31, high: 0.52, log: true}, 240, "0.35 0.40 0.45 0.50"},
		{axis{low: 0, high: 3e-6}, 240, "0 1e-6 2e-6 3e-6"},
		{axis{low: 0, high: 7e6}, 240, "0 2e6 4e6 6e6"},
		{axis{names: []string{"adam", "sgd"}}, 240, "adam sgd"},
	} {
		if got := text(c.a.ticks(c.length, 44)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.a, got, c.want)
		}
	}
}

// An axis has air at its ends, begins at 0 where that is near, and is never
// empty.
func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name      string
		a         axis
		low, high *float64
		ok        func(a axis) bool
	}{
		{"epochs begin at 0", axis{low: 1, high: 30, whole: true}, nil, nil, func(a axis) bool { return a.low <= 0 && a.low > -1 && a.high > 30 }},
		{"a few whole numbers begin at the first", axis{low: 1, high: 5, whole: true}, nil, nil, func(a axis) bool { return a.low > 0 && a.low < 1 && a.high > 5 }},
		{"values far from 0", axis{low: 0.8, high: 0.9}, nil, nil, func(a axis) bool { return a.low > 0.7 && a.low < 0.8 && a.high > 0.9 && a.high < 1 }},
		{"negative values", axis{low: -3, high: -1}, nil, nil, func(a axis) bool { return a.low < -3 && a.high > -1 && a.high < 0 }},
		{"one value", axis{low: 0.5, high: 0.5}, nil, nil, func(a axis) bool { return a.low < 0.5 && a.high > 0.5 }},
		{"nothing but 0", axis{low: 0, high: 0}, nil, nil, func(a axis) bool { return a.low < a.high }},
		{"no value", axis{low: math.Inf(1), high: math.Inf(-1)}, nil, nil, func(a axis) bool { return a.low <= 0 && a.high >= 1 }},
		{"bounds have air", axis{low: 0, high: 9}, At(0), At(1), func(a axis) bool { return a.low < 0 && a.high > 1 && a.high < 1.1 }},
		{"bars grow from the frame", axis{low: 0, high: 9, base: true}, At(0), At(1), func(a axis) bool { return a.low == 0 && a.high > 1 }},
		{"a logarithm of 0", axis{low: 0, high: 9, log: true}, nil, nil, func(a axis) bool { return !a.log }},
		{"a logarithm", axis{low: 0.001, high: 1, log: true}, nil, nil, func(a axis) bool { return a.log && a.low < 0.001 && a.low > 0.0005 && a.high > 1 }},
	} {
		a := c.a
		if a.settle(c.low, c.high); !c.ok(a) {
			t.Errorf("%s: %g to %g, logarithmic %t", c.name, a.low, a.high, a.log)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want string
	}{
		{[]float64{1, 0.5, 0.8571, 0.004}, "1.00 0.50 0.86 0.00"},
		{[]float64{0.5, 0.7}, "0.5 0.7"},
		{[]float64{3, 1200}, "3 1,200"},
		{[]float64{0.25, math.NaN()}, "0.25 none"},
		{[]float64{math.NaN()}, "none"},
		{[]float64{2e-5, 1.5e-4}, "2e-5 1.5e-4"},
		{[]float64{0.3377, 1.06}, "0.34 1.06"},
	} {
		if got := strings.Join(Numbers(c.in), " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.in, got, c.want)
		}
	}
	if got := strings.Join(numbers([]float64{1, 0.857}, true), " "); got != "100.0 % 85.7 %" {
		t.Error(got)
	}
}

// What is beyond the axis is a triangle at its edge, and nothing sits on the
// frame.
func TestBeyondTheAxis(t *testing.T) {
	draw := func(high float64) string {
		var b bytes.Buffer
		p := Lines(Axes{Title: "x", Low: At(0), High: At(high)}, Series{X: []float64{1, 2, 3}, Y: []float64{0.2, 0.5, 7}, Points: true})
		if err := (Figure{}).WriteSVG(&b, p); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	triangles := func(s string) (n int) {
		for _, l := range strings.Split(s, "\n") {
			if strings.HasPrefix(l, "<path") && strings.Count(l, "L") == 2 && strings.Contains(l, "fill:#0072B2") {
				n++
			}
		}
		return n
	}
	if n := triangles(draw(1)); n != 1 {
		t.Errorf("%d triangles for one value beyond the axis", n)
	}
	if n := triangles(draw(8)); n != 0 {
		t.Errorf("%d triangles with all values on the axis", n)
	}
}

// Best is darkest, and no end of a scale is lost on paper; letters on every
// colour are legible (a contrast of about 4; WCAG 2.2 wants 3 of large ones).
func TestColours(t *testing.T) {
	contrast := func(a, b color.NRGBA) float64 {
		x, y := light(a), light(b)
		return (max(x, y) + 0.05) / (min(x, y) + 0.05)
	}
	last := math.Inf(1)
	for i := range 101 {
		c := rising.at(float64(i) / 100)
		if l := light(c); l > last+1e-9 {
			t.Errorf("the scale grows lighter at %d %%", i)
		} else {
			last = l
		}
		if k := contrast(c, paper); k < 1.5 {
			t.Errorf("%v at %d %% has a contrast of %.2f with the paper", c, i, k)
		}
		for _, s := range []scale{rising, blues} {
			c := s.at(float64(i) / 100)
			r, g, b, _ := on(c).RGBA()
			letters := color.NRGBA{R: uint8(r >> 8), G: uint8(g >> 8), B: uint8(b >> 8), A: 255}
			if k := contrast(c, letters); k < 3.9 {
				t.Errorf("letters on %v have a contrast of %.2f", c, k)
			}
		}
	}
	if !slices.Contains(okabeIto, Blue) || okabeIto[0] != (color.NRGBA{R: 0, G: 114, B: 178, A: 255}) || okabeIto[1] != (color.NRGBA{R: 213, G: 94, B: 0, A: 255}) {
		t.Error("series are not drawn in Okabe and Ito's colours")
	}
}

// A hatch stays inside its area.
func TestHatches(t *testing.T) {
	for h := Plain; h <= Dotted; h++ {
		var b bytes.Buffer
		p := &Panel{width: 60, height: 40, draw: func(c draw.Canvas) { Fill{Blue, h}.paint(c, c.Min.X+10, c.Min.Y+10, c.Min.X+47, c.Min.Y+31) }}
		if err := (Figure{}).WriteSVG(&b, p); err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, l := range strings.Split(b.String(), "\n") {
			var x0, y0, x1, y1 float64
			if n, _ := fmt.Sscanf(l, `<path d="M%f,%fL%f,%f"`, &x0, &y0, &x1, &y1); n == 4 && strings.Contains(l, "stroke:") {
				lines++
				for _, p := range [][2]float64{{x0, y0}, {x1, y1}} {
					if p[0] < 25.9 || p[0] > 63.1 || p[1] < 25.9 || p[1] > 47.1 {
						t.Errorf("hatch %d: a line ends at %v", h, p)
					}
				}
			}
		}
		if want := h != Plain && h != Dotted; (lines > 2) != want {
			t.Errorf("hatch %d: %d lines", h, lines)
		}
	}
}

// An SVG is well formed, keeps text as text, and is the same every time; so is
// the PNG.
func TestSameEveryTime(t *testing.T) {
	draw := func(svg bool) []byte {
		var b bytes.Buffer
		f := Figure{Title: "Häuser & <Kanäle>", About: About{Model: "resnet18", Data: "facades"}.String()}
		write := f.Write
		if svg {
			write = f.WriteSVG
		}
		h := History{TrainLoss: some(20), ValLoss: some(20), TrainAcc: some(20), ValAcc: some(20)}
		_, panels := h.Figure(About{})
		if err := write(&b, panels...); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, svg := range []bool{false, true} {
		if !bytes.Equal(draw(svg), draw(svg)) {
			t.Errorf("SVG %t: two drawings differ", svg)
		}
	}
	doc := draw(true)
	d := xml.NewDecoder(bytes.NewReader(doc))
	var words []string
	depth := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			words = append(words, strings.TrimSpace(string(x)))
		}
	}
	for _, want := range []string{"Häuser & <Kanäle>", "resnet18 · facades", "Loss", "Accuracy", "training", "validation", "epoch"} {
		if !slices.Contains(words, want) {
			t.Errorf("%q is not a text of the SVG", want)
		}
	}
	if n := bytes.Count(doc, []byte("<text ")); n < 20 || n != bytes.Count(doc, []byte("textLength=")) {
		t.Errorf("of %d texts %d have their measured width", n, bytes.Count(doc, []byte("textLength=")))
	}
	if depth != 0 || !bytes.Contains(doc, []byte("font-family:'Liberation Sans',Arial")) || bytes.Contains(doc, []byte("font-family:Liberation Sans;")) {
		t.Error("the SVG names one typeface alone")
	}
}

// The best epoch is marked; a loss with outliers has a logarithmic axis, one
// without has not.
func TestTrainingCurve(t *testing.T) {
	draw := func(h History) string {
		var b bytes.Buffer
		f, panels := h.Figure(About{Model: "vanilla"})
		if err := f.WriteSVG(&b, panels...); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	h := History{TrainLoss: []float64{2, 1, 0.7, 0.5}, ValLoss: []float64{2, 1.2, 0.9, 1.1}, TrainAcc: some(4), ValAcc: some(4)}
	if s := draw(h); strings.Count(s, "best: epoch 3") != 2 || strings.Contains(s, "logarithmic") {
		t.Error("the best epoch is not marked in both panels")
	}
	// The mark's name is beside the curves, also where they have a few points.
	flat := []float64{0.1, 0.9, 0.91, 0.92}
	_, panels := History{ValLoss: []float64{2, 1.1, 1, 1.2}, TrainAcc: flat, ValAcc: flat}.Figure(About{})
	found, _, height := texts(t, Figure{}, panels[1])
	if i := slices.IndexFunc(found, func(b box) bool { return strings.HasPrefix(b.text, "best") }); i < 0 || found[i].corners[0][1] > height/2 {
		t.Errorf("the best epoch's name lies on the curve, of %d texts", len(found))
	}
	h.ValLoss[0] = 5000
	if s := draw(h); !strings.Contains(s, "logarithmic") {
		t.Error("an outlier presses the others into a line")
	}
	var read History
	if err := read.UnmarshalJSON([]byte(`{"train_loss":[1,null],"val_loss":[0.5,null],"lr":[0.1,0.1]}`)); err != nil {
		t.Fatal(err)
	}
	if len(read.TrainLoss) != 2 || !math.IsNaN(read.TrainLoss[1]) || read.TrainAcc != nil || read.LR[1] != 0.1 {
		t.Errorf("%+v", read)
	}
	if read.best() != 1 {
		t.Errorf("the best epoch is %d, the second diverged", read.best())
	}
}

// A figure of any size fits a page.
func TestPagesAreBounded(t *testing.T) {
	var b bytes.Buffer
	if err := (Figure{}).Write(&b, Ranked(Axes{Title: "many"}, classes(900), some(900))); err != nil {
		t.Fatal(err)
	}
	if w, h := size(b.Bytes()); w > MaxSide || h > MaxSide || h < MaxSide/2 {
		t.Errorf("%d x %d pixels", w, h)
	}
}

// size reads a PNG's header.
func size(b []byte) (w, h int) {
	at := func(i int) int { return int(b[i])<<24 | int(b[i+1])<<16 | int(b[i+2])<<8 | int(b[i+3]) }
	return at(16), at(20)
}
