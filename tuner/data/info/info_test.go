package info_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/dataset"
	"atelier/tuner/data/info"
)

// paint writes an image of one colour.
func paint(t *testing.T, path string, w, h int, c color.Color) {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	err := png.Encode(&b, m)
	if strings.HasSuffix(path, ".jpg") {
		b.Reset()
		err = jpeg.Encode(&b, m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, b.Bytes())
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, path string) *info.Info {
	t.Helper()
	n, err := info.Look(t.Context(), path, func(int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

var red, blue = color.RGBA{220, 20, 20, 255}, color.RGBA{20, 20, 220, 255}

func TestSplitFolder(t *testing.T) {
	dir := t.TempDir()
	for i := range 6 {
		paint(t, filepath.Join(dir, "train/gothic", fmt.Sprintf("%d.jpg", i)), 40+i, 30, red)
	}
	paint(t, filepath.Join(dir, "train/tudor/a.png"), 100, 200, blue)
	paint(t, filepath.Join(dir, "train/tudor/named.png"), 50, 60, blue)
	paint(t, filepath.Join(dir, "val/gothic/x.jpg"), 8, 9, red)
	put(t, filepath.Join(dir, "val/tudor/page.jpg"), []byte("<html>not a picture</html>"))
	put(t, filepath.Join(dir, "val/tudor/empty.png"), nil)
	put(t, filepath.Join(dir, "split.json"), []byte("{}"))
	n := look(t, dir)
	if n.Kind != info.Split || n.Images != 9 || len(n.Classes) != 2 || len(n.Parts) != 2 {
		t.Fatalf("%+v", n)
	}
	if (n.Width != info.Spread{Min: 8, Median: 43, Max: 100}) || (n.Height != info.Spread{Min: 9, Median: 30, Max: 200}) {
		t.Errorf("sizes %+v %+v", n.Width, n.Height)
	}
	if n.Formats["jpeg"] != 7 || n.Formats["png"] != 2 {
		t.Errorf("formats %v", n.Formats)
	}
	g, td := n.Classes[0], n.Classes[1]
	if g.Class != "gothic" || g.Images != 7 || g.Parts["train"] != 6 || g.Parts["validation"] != 1 || td.Images != 2 || td.Parts["validation"] != 0 {
		t.Errorf("%+v %+v", g, td)
	}
	if b := n.Balance; b.Largest != "gothic" || b.Smallest != "tudor" || b.Ratio != 3.5 {
		t.Errorf("%+v", b)
	}
	if p := n.Parts[1]; p.Part != "validation" || p.Images != 1 || p.Ratio != 0 {
		t.Errorf("%+v", p)
	}
	if len(n.Faults) != 2 || n.Faults[0].Path != "val/tudor/empty.png" || !strings.Contains(n.Faults[0].Reason, "empty") || !strings.Contains(n.Faults[1].Reason, "text") {
		t.Errorf("%+v", n.Faults)
	}
	var sum int64
	for _, c := range n.Classes {
		sum += c.Bytes
	}
	if sum != n.Bytes || sum == 0 {
		t.Errorf("%d bytes, %d in classes", n.Bytes, sum)
	}
}

// A class may be called test, and a class may have no images.
func TestPlainFolder(t *testing.T) {
	dir := t.TempDir()
	paint(t, filepath.Join(dir, "test/1.png"), 5, 5, red)
	paint(t, filepath.Join(dir, "other/1.png"), 5, 5, red)
	if err := os.MkdirAll(filepath.Join(dir, "none"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := look(t, dir)
	if n.Kind != info.Folder || len(n.Classes) != 3 || n.Classes[0].Class != "none" || n.Classes[0].Images != 0 || n.Balance.Ratio != 0 {
		t.Errorf("%+v", n)
	}
	if _, err := n.Sheet(t.Context(), 3, time.Time{}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{filepath.Join(dir, "nosuch"), filepath.Join(dir, "none")} {
		if _, err := info.Look(t.Context(), bad, func(int, int) {}); err == nil || !strings.Contains(err.Error(), "subfolder") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := info.Look(ctx, dir, func(int, int) {}); err == nil {
		t.Error("went on after the end")
	}
}

// The sheet has a row of cells a class, in its colours, from a folder and from its pack.
func TestSheet(t *testing.T) {
	dir := t.TempDir()
	pics := filepath.Join(dir, "pics")
	for i := range 3 {
		paint(t, filepath.Join(pics, "a_class_with_a_name_that_is_much_too_long_for_the_sheet", fmt.Sprintf("%d.png", i)), 64, 64, red)
		paint(t, filepath.Join(pics, "b", fmt.Sprintf("%d.png", i)), 64, 64, blue)
	}
	folder, err := dataset.List(pics)
	if err != nil {
		t.Fatal(err)
	}
	pack, _, err := dataset.Pack(folder, dataset.PackOptions{Size: 16, CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pics, pack} {
		n := look(t, path)
		if n.Images != 6 || (path == pack) != (n.Kind == info.Pack) {
			t.Fatalf("%+v", n)
		}
		img, err := n.Sheet(t.Context(), 5, time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "sheet.png")
		if err := info.Save(file, img); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = png.Decode(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		counts := map[color.RGBA]int{}
		ink := false
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				c := color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
				counts[c]++
				ink = ink || x < 200 && c.R < 60 && c.G < 60 && c.B < 60
			}
		}
		if want := 3 * 128 * 128; counts[red] != want || counts[blue] != want || !ink {
			t.Errorf("%s: %d red, %d blue pixels, want %d of each; text: %v", path, counts[red], counts[blue], want, ink)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".sheet*")); len(left) > 0 {
			t.Errorf("left %v", left)
		}
		if _, err := n.Sheet(t.Context(), 0, time.Time{}); err == nil {
			t.Error("a sheet of nothing")
		}
	}
}

// Many classes are set in columns, on a sheet that is no larger than a page; what
// is written beside a row has its room.
func TestSheetOfManyClasses(t *testing.T) {
	for _, c := range []struct{ classes, images int }{{2, 4}, {5, 8}, {12, 8}, {30, 4}, {30, 8}, {30, 100}, {70, 8}} {
		dir := t.TempDir()
		for i := range c.classes {
			for k := range 2 {
				shade := uint8(60 + 180*i/c.classes)
				paint(t, filepath.Join(dir, "facades/train", fmt.Sprintf("american_foursquare_architecture_%02d", i), fmt.Sprintf("%d.png", k)), 24, 18+3*k, color.RGBA{shade, 255 - shade, uint8(80 * k), 255})
			}
		}
		n := look(t, filepath.Join(dir, "facades"))
		img, err := n.Sheet(t.Context(), c.images, time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		b := img.Bounds()
		if b.Dx() > 2400 || b.Dy() > 2400 {
			t.Errorf("%d classes, %d images of each: %d x %d pixels", c.classes, c.images, b.Dx(), b.Dy())
		}
		if c.classes == 30 && c.images == 8 && b.Dy() > 2200 {
			t.Errorf("30 classes are %d pixels high", b.Dy())
		}
		if to := os.Getenv("ATELIER_PLOTS"); to != "" {
			if err := info.Save(filepath.Join(to, fmt.Sprintf("sheet_%d_%d.png", c.classes, c.images)), img); err != nil {
				t.Fatal(err)
			}
		}
	}
}
