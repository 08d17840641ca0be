package augment_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"atelier/worker/trainer/augment"
)

// torchvision asks testdata/augment.py, whose head says what there is to ask.
func torchvision(t *testing.T, asked map[string]any, answer any) {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch, torchvision").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	question, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "../testdata/augment.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(question), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/augment.py: %v", err)
	}
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatal(err)
	}
}

// moments of a sample: mean, and the variance of that mean.
func moments(v []float64) (mean, variance float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		variance += (x - mean) * (x - mean) / float64(len(v)-1)
	}
	return mean, variance / float64(len(v))
}

func TestAgainstTorchvision(t *testing.T) {
	// An image of noise, smooth in one colour; parts of all shapes of it.
	const size = 40
	noise := rand.New(rand.NewPCG(1, 2))
	pixels := make([]byte, 0, size*size*3)
	for y := range size {
		for x := range size {
			pixels = append(pixels, byte(noise.UintN(256)), byte(6*x), byte(noise.UintN(2)*255*uint(y%2)))
		}
	}
	recipe := augment.Recipe{Resized: true, ScaleMin: 0.08, Flip: true}
	const n = 200
	plan := recipe.Draw(size, n, 3, 1, 0)
	plan.Images[0] = augment.Change{Left: 7, Top: 39, Width: 3, Height: 1}
	var boxes [][5]int
	for _, c := range plan.Images {
		flip := 0
		if c.Flip {
			flip = 1
		}
		boxes = append(boxes, [5]int{c.Left, c.Top, c.Width, c.Height, flip})
	}
	// Boxes of every size, with centres everywhere and at the edges.
	var draws [][5]float64
	for range 2000 {
		w, h := 1+noise.IntN(300), 1+noise.IntN(300)
		draws = append(draws, [5]float64{float64(w), float64(h), noise.Float64(), float64(noise.IntN(w)), float64(noise.IntN(h))})
	}
	draws = append(draws, [5]float64{64, 64, 0, 0, 0}, [5]float64{64, 64, 0, 32, 32}, [5]float64{64, 64, 1, 5, 5}, [5]float64{64, 64, 0.5, 63, 63})

	const crops = 20_000
	var answer struct {
		Stretch []byte
		Cutmix  [][5]float64
		Crops   [][4]int
	}
	torchvision(t, map[string]any{
		"stretch": map[string]any{"size": size, "pixels": pixels, "boxes": boxes},
		"cutmix":  map[string]any{"boxes": draws},
		"crops":   map[string]any{"size": size, "scale": 0.3, "n": crops},
	}, &answer)

	t.Run("stretched parts", func(t *testing.T) {
		want := answer.Stretch
		if len(want) != n*size*size*3 {
			t.Fatalf("%d bytes", len(want))
		}
		got := make([]byte, len(want))
		plan.Gather(got, pixels, size, make([]int, n))
		other := 0
		for i := range want {
			switch d := int(got[i]) - int(want[i]); {
			case d < -1 || d > 1:
				t.Fatalf("byte %d of image %d (%+v) is %d, torchvision's %d", i%(size*size*3), i/(size*size*3), plan.Images[i/(size*size*3)], got[i], want[i])
			case d != 0:
				other++
			}
		}
		share := float64(other) / float64(len(want))
		t.Logf("%.3f %% of bytes are rounded the other way", 100*share)
		if share > 0.02 { // ties: parts in simple ratios give many
			t.Errorf("%.2f %% of bytes differ by one", 100*share)
		}
	})

	t.Run("boxes of CutMix", func(t *testing.T) {
		if len(answer.Cutmix) != len(draws) {
			t.Fatalf("%d boxes", len(answer.Cutmix))
		}
		for i, d := range draws {
			box, lambda := augment.CutMix(int(d[0]), int(d[1]), d[2], int(d[3]), int(d[4]))
			want := answer.Cutmix[i]
			if (box != augment.Box{X1: int(want[0]), Y1: int(want[1]), X2: int(want[2]), Y2: int(want[3])}) || lambda != want[4] {
				t.Errorf("draws %v: %+v, %g; torchvision's %v", d, box, lambda, want)
			}
		}
	})

	t.Run("parts that are drawn", func(t *testing.T) {
		features := func(left, top, width, height int) [5]float64 {
			w, h := float64(width), float64(height)
			whole := 0.
			if width == size && height == size {
				whole = 1
			}
			return [5]float64{w * h / size / size, math.Abs(math.Log(w / h)), float64(left), float64(top), whole}
		}
		var ours, theirs [5][]float64
		plan := augment.Recipe{Resized: true, ScaleMin: 0.3}.Draw(size, crops, 8, 1, 0)
		for i, c := range plan.Images {
			b := answer.Crops[i]
			for k, v := range features(c.Left, c.Top, c.Width, c.Height) {
				ours[k] = append(ours[k], v)
			}
			for k, v := range features(b[0], b[1], b[2], b[3]) {
				theirs[k] = append(theirs[k], v)
			}
		}
		for k, name := range []string{"area", "ratio", "left", "top", "whole images"} {
			a, va := moments(ours[k])
			b, vb := moments(theirs[k])
			t.Logf("%s: mean %.4f, torchvision's %.4f", name, a, b)
			if math.Abs(a-b) > 4.5*math.Sqrt(va+vb) {
				t.Errorf("%s: mean %g, torchvision's %g: %.1f deviations apart", name, a, b, math.Abs(a-b)/math.Sqrt(va+vb))
			}
		}
	})
}
