package plot_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"atelier/common/plot"
)

var styles = []string{"american_craftsman", "art_deco", "colonial", "gothic", "queen_anne_architecture", "tudor"}

// every is one of each kind of panel, with data as reports have it.
func every() map[string]*plot.Panel {
	curve := func(n int, f func(i float64) float64) (ys []float64) {
		for i := range n {
			ys = append(ys, f(float64(i)))
		}
		return ys
	}
	cells := plot.Cells{Rows: styles, Columns: styles, Counts: true}
	for i := range styles {
		row := make([]float64, len(styles))
		for k := range row {
			row[k] = float64((i*7 + k*3) % 5)
		}
		row[i] = float64(20 + i)
		cells.Values = append(cells.Values, row)
	}
	heat := plot.Cells{Rows: []string{"16", "32", "64"}, Columns: []string{"0.0001", "0.001", "0.01", "0.1"},
		Values: [][]float64{{0.5, 0.7, 0.8, math.NaN()}, {0.4, 0.6, 0.91, 0.3}, {0.2, 0.55, 0.7, 0.1}}}
	var rows [][]float64
	var level []float64
	for i := range 40 {
		t := float64(i) / 39
		rows = append(rows, []float64{math.Pow(10, -5+4*t), float64(i % 3), 0.5 + 0.4*math.Sin(6*t), t * t})
		level = append(level, t*t)
	}
	var spans []plot.Span
	for i := range 24 {
		spans = append(spans, plot.Span{Row: fmt.Sprintf("w%d/cpu%d", i%2+1, i%4/2), Start: float64(i / 4 * 10), End: float64(i/4*10 + 6 + i%4), Kind: i % 3, Label: fmt.Sprint(i + 1)})
	}
	img := image.NewNRGBA(image.Rect(0, 0, 64, 48))
	for i := range 64 {
		img.Set(i, i*3/4, color.NRGBA{R: 255, A: 255})
	}
	surface := func(n int) plot.Surface {
		s := plot.Surface{Low: 0.3, High: 1.4, LowIsBest: true, Best: 1}
		for i := range n {
			u, v := math.Mod(float64(i)*0.618034, 1), math.Mod(float64(i)*0.754878, 1)
			s.X, s.Y = append(s.X, math.Pow(10, -5+4*u)), append(s.Y, 0.5+0.49*v)
			s.Value = append(s.Value, 0.3+2*(u-0.6)*(u-0.6)+(v-0.4)*(v-0.4))
		}
		return s
	}
	return map[string]*plot.Panel{
		"lines": plot.Lines(plot.Axes{Title: "Loss", X: "epoch", Y: "cross entropy", LogY: true},
			plot.Series{Name: "training", Y: curve(30, func(i float64) float64 { return 2 * math.Exp(-i/9) })},
			plot.Series{Name: "validation", Y: curve(30, func(i float64) float64 {
				if i == 12 {
					return math.NaN()
				}
				return 0.5 + 1.6*math.Exp(-i/7)
			})}),
		"scatter":  plot.Lines(plot.Axes{Title: "lr", X: "lr", Y: "val_acc", LogX: true}, plot.Series{X: curve(40, func(i float64) float64 { return math.Pow(10, -5+i/10) }), Y: curve(40, math.Sin), Points: true, Level: level}),
		"bars":     plot.Bars(plot.Axes{Title: "Per class", Y: "score", Low: plot.At(0), High: plot.At(1)}, styles, plot.Series{Name: "precision", Y: []float64{0.9, 0.8, 0.7, 1, 0.95, 0.4}}, plot.Series{Name: "recall", Y: []float64{0.8, 0.85, 0.5, 1, 0.9, 0.3}}, plot.Series{Name: "F1", Y: []float64{0.85, 0.82, 0.6, 1, 0.93, math.NaN()}}),
		"long":     plot.Bars(plot.Axes{Title: "Per class", High: plot.At(1)}, slices.Repeat([]string{"american_foursquare_architecture", "art_deco"}, 12), plot.Series{Y: curve(24, math.Abs)}),
		"choices":  plot.Lines(plot.Axes{Title: "style", X: "style", Choices: slices.Repeat([]string{"american_foursquare_architecture"}, 9)}, plot.Series{X: curve(9, func(i float64) float64 { return i }), Y: curve(9, math.Sin), Points: true}),
		"ranked":   plot.Ranked(plot.Axes{Title: "Importance", X: "share"}, []string{"lr", "batch_size", "optimizer"}, []float64{0.7, 0.2, 0.1}),
		"matrix":   plot.Matrix(plot.Axes{Title: "Confusion matrix", X: "predicted", Y: "true"}, cells),
		"heat":     plot.Matrix(plot.Axes{Title: "batch_size x lr", X: "lr", Y: "batch_size"}, heat),
		"parallel": plot.Parallel(plot.Axes{Title: "Trials"}, []plot.Axis{{Name: "lr", Log: true}, {Name: "optimizer", Choices: []string{"sgd", "adam", "adamw"}}, {Name: "dropout_rate"}, {Name: "val_acc"}}, rows, level),
		"timeline": plot.Timeline(plot.Axes{Title: "Slots", X: "seconds"}, []string{"w1/cpu0", "w1/cpu1", "w2/cpu0", "w2/cpu1"}, []plot.Kind{{Name: "finished", Fill: plot.Fill{Color: plot.Blue}}, {Name: "stopped", Fill: plot.Fill{Color: plot.Orange, Hatch: plot.Rising}}, {Name: "lost", Fill: plot.Fill{Color: plot.Black, Hatch: plot.Crossed}}}, spans),
		"dots":     plot.Dots(plot.Axes{Title: "Per class", X: "score", High: plot.At(1), Percent: true}, styles, plot.Series{Name: "F1", Y: []float64{1, 0.93, 0.85, 0.82, 0.6, math.NaN()}}, plot.Series{Name: "precision", Y: []float64{1, 0.95, 0.9, 0.8, 0.7, math.NaN()}}, plot.Series{Name: "recall", Y: []float64{1, 0.9, 0.8, 0.85, 0.5, math.NaN()}}),
		"contour":  plot.Contour(plot.Axes{Title: "momentum x lr", X: "lr", Y: "momentum", LogX: true}, surface(60)),
		"few":      plot.Contour(plot.Axes{Title: "momentum x lr", X: "lr", Y: "momentum", LogX: true}, surface(9)),
		"beyond":   plot.Lines(plot.Axes{Title: "Clamped", X: "epoch", WholeX: true, Low: plot.At(0.2), High: plot.At(1)}, plot.Series{Name: "loss", Y: []float64{9, 1.5, 0.9, 0.7, 0.1, 0.5}, Best: 5}),
		"text":     plot.Text("Summary", "accuracy 0.912", "top-3 0.99"),
		"image":    plot.Image("original", img, 120),
	}
}

// The panels are drawn, not empty, and bounded: a chart of each kind, looked
// at with ATELIER_PLOTS=folder.
func TestEveryPanelDraws(t *testing.T) {
	folder := os.Getenv("ATELIER_PLOTS")
	for name, p := range every() {
		var b bytes.Buffer
		if err := (plot.Figure{}).Write(&b, p); err != nil {
			t.Fatal(name, err)
		}
		img, err := png.Decode(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(name, err)
		}
		colors := map[color.Color]bool{}
		for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y += 2 {
			for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x += 2 {
				colors[img.At(x, y)] = true
			}
		}
		if len(colors) < 3 {
			t.Errorf("%s: %d colours", name, len(colors))
		}
		// Nothing touches the figure's margin: no label is cut by the edge.
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			for _, y := range []int{0, 1, img.Bounds().Max.Y - 2, img.Bounds().Max.Y - 1} {
				if r, g, b, _ := img.At(x, y).RGBA(); r+g+b < 3*0xf000 {
					t.Fatalf("%s: ink on the edge at %d,%d", name, x, y)
				}
			}
		}
		for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
			for _, x := range []int{0, 1, img.Bounds().Max.X - 2, img.Bounds().Max.X - 1} {
				if r, g, b, _ := img.At(x, y).RGBA(); r+g+b < 3*0xf000 {
					t.Fatalf("%s: ink on the edge at %d,%d", name, x, y)
				}
			}
		}
		if folder != "" {
			os.MkdirAll(filepath.Join(folder, "panels"), 0o755)
			if err := (plot.Figure{Title: name, About: "resnet18  ·  facades  ·  2026-11-29 12:00 UTC"}).Save(filepath.Join(folder, "panels", name+".png"), p); err != nil {
				t.Error(err)
			}
		}
	}
}

// What has no data, or none that is finite, is said in the chart.
func TestNothingToShow(t *testing.T) {
	nan := math.NaN()
	var b bytes.Buffer
	err := plot.Figure{Title: "a sweep without results", Columns: 2}.Write(&b,
		plot.Lines(plot.Axes{}), plot.Lines(plot.Axes{LogY: true}, plot.Series{Y: []float64{nan, -1, math.Inf(1)}}),
		plot.Bars(plot.Axes{}, nil), plot.Bars(plot.Axes{}, styles, plot.Series{Y: []float64{nan}}), plot.Ranked(plot.Axes{}, nil, nil), plot.Ranked(plot.Axes{}, styles[:1], []float64{nan}),
		plot.Matrix(plot.Axes{}, plot.Cells{}), plot.Matrix(plot.Axes{}, plot.Cells{Rows: styles, Columns: styles}),
		plot.Parallel(plot.Axes{}, nil, nil, nil), plot.Parallel(plot.Axes{}, []plot.Axis{{Name: "a", Log: true}, {Name: "b", Choices: []string{"only"}}}, [][]float64{{-1, 0}, {nan}, {2, nan}}, nil),
		plot.Timeline(plot.Axes{}, nil, nil, nil), plot.Timeline(plot.Axes{}, []string{"w"}, nil, []plot.Span{{Row: "other", Start: 1, End: 1}}), plot.Image("", image.NewNRGBA(image.Rectangle{}), 10))
	if err != nil {
		t.Fatal(err)
	}
	if err := (plot.Figure{}).Write(&b); err == nil {
		t.Error("a figure without panels was drawn")
	}
}

func TestSaveIsWholeOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "a.png")
	if err := (plot.Figure{Columns: 3}).Save(path, plot.Text("one"), plot.Text("two"), plot.Text("three"), plot.Text("four")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := png.DecodeConfig(f); err != nil || c.Width < c.Height {
		t.Error(c, err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 2 {
		t.Errorf("left beside it: %v", left)
	}
	if err := (plot.Figure{}).Save(filepath.Join(path, "below-a-file.png"), plot.Text("")); err == nil {
		t.Error("wrote below a file")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 1234.567: "1,235", 0.00001: "1e-5", 12345678: "1.23e7", 23456.7: "23,457", -3: "-3"} {
		if got := plot.Number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
