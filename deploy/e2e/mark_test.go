package e2e_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	_ "image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/metadata"
)

// Two classes of the same houses, one with a small coloured mark in a corner:
// whatever the model knows, it knows from the mark. The maps must say so, and
// production must not trust it.
func TestAttentionFindsTheMark(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	houses := filepath.Join(dir, "houses")
	if _, stderr, code := atelier(t, ctx, nil, "data", "synth", houses, "--train", "120", "--validation", "40", "--test", "40", "--size", "96",
		"--style", "gothic", "--style", "modernist"); code != 0 {
		t.Fatalf("data synth: exit %d: %s", code, stderr)
	}
	const mark = 8 // pixels of 96, in the upper right corner
	data := filepath.Join(dir, "data")
	for _, part := range []string{"train", "validation", "test"} {
		files, err := filepath.Glob(filepath.Join(houses, part, "gothic", "*"))
		must(t, err)
		for i, name := range files {
			f, err := os.Open(name)
			must(t, err)
			img, _, err := image.Decode(f)
			f.Close()
			must(t, err)
			class := "plain"
			out := image.NewRGBA(img.Bounds())
			draw.Draw(out, out.Bounds(), img, img.Bounds().Min, draw.Src)
			if i%2 == 0 {
				class = "marked"
				b := out.Bounds()
				draw.Draw(out, image.Rect(b.Max.X-mark, b.Min.Y, b.Max.X, b.Min.Y+mark), image.NewUniform(color.RGBA{R: 255, B: 200, A: 255}), image.Point{}, draw.Src)
			}
			to := filepath.Join(data, part, class, fmt.Sprintf("%03d.jpg", i))
			must(t, os.MkdirAll(filepath.Dir(to), 0o755))
			w, err := os.Create(to)
			must(t, err)
			must(t, jpeg.Encode(w, out, &jpeg.Options{Quality: 92}))
			must(t, w.Close())
		}
	}
	model := filepath.Join(dir, "model")
	if _, stderr, code := atelier(t, ctx, nil, "train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "9", "--lr", "0.002", "--no-mlflow",
		"--set", "image_size=96", "--set", "augment=false", "--set", "threads=1", "--out", model, "-q"); code != 0 {
		t.Fatalf("train: exit %d: %s", code, stderr)
	}
	h, err := readHistory(model)
	must(t, err)
	if h.TestAcc == nil || *h.TestAcc < 0.9 {
		t.Fatalf("the model did not learn the mark: %+v", h)
	}
	best := filepath.Join(model, "best_model.pth")
	marked := filepath.Join(data, "test", "marked")
	out := filepath.Join(dir, "batch")
	if _, stderr, code := atelier(t, ctx, nil, "infer", "--trainer-bin", trainer, "--mode", "explain_batch", "--checkpoint", best, "--image-dir", marked, "--output-dir", out,
		"--set", "outputs.gradcam_heatmaps.raw=true"); code != 0 {
		t.Fatalf("explain_batch: exit %d: %s", code, stderr)
	}
	maps, err := filepath.Glob(filepath.Join(out, "heatmaps", "*.npy"))
	must(t, err)
	hits := 0
	for _, path := range maps {
		values, width := readNPY(t, path)
		top := 0
		for i, v := range values {
			if v > values[top] {
				top = i
			}
		}
		// Within the mark and a cell of the layer (8 pixels) around it.
		if x, y := top%width, top/width; x >= width-mark-8 && y < mark+8 {
			hits++
		}
	}
	t.Logf("the map's peak is at the mark in %d of %d pictures; test accuracy %.3f", hits, len(maps), *h.TestAcc)
	if len(maps) != 20 || hits < 16 {
		t.Errorf("the map's peak is at the mark in %d of %d pictures", hits, len(maps))
	}

	prod := filepath.Join(dir, "prod")
	if _, stderr, code := atelier(t, ctx, nil, "infer", "--trainer-bin", trainer, "--mode", "production", "--checkpoint", best, "--image-dir", filepath.Join(data, "test"), "--output-dir", prod); code != 0 {
		t.Fatalf("production: exit %d: %s", code, stderr)
	}
	f, err := os.Open(filepath.Join(prod, "inference_metadata.jsonl"))
	must(t, err)
	defer f.Close()
	flagged, all := 0, 0
	_, err = metadata.Query{Class: "marked"}.Each(f, func(r metadata.Record) error {
		all++
		if r.Suspicious {
			flagged++
		}
		t.Logf("%s: %v, drop %.1f, concentration %.2f, coverage %.3f", r.Image, r.Flags, r.Quality.Drop, r.Quality.Concentration, r.Quality.Coverage)
		return nil
	})
	must(t, err)
	if all < 15 || flagged*10 < all*8 {
		t.Errorf("%d of %d predictions by the mark are flagged", flagged, all)
	}
}

// readNPY reads a two-dimensional float32 array as `infer` writes it.
func readNPY(t *testing.T, path string) (values []float32, width int) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	length := int(binary.LittleEndian.Uint16(b[8:]))
	_, shape, _ := strings.Cut(string(b[10:10+length]), "'shape': (")
	var height int
	if _, err := fmt.Sscanf(shape, "%d, %d", &height, &width); err != nil {
		t.Fatalf("%s: shape %q: %v", path, shape, err)
	}
	for data := b[10+length:]; len(data) >= 4; data = data[4:] {
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	if len(values) != width*height {
		t.Fatalf("%s: %d values of %d x %d", path, len(values), height, width)
	}
	return values, width
}
