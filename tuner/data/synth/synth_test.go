package synth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"image/jpeg"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"atelier/tuner/data/synth"
)

func difficulty(d float64) *float64 { return &d }

func small() synth.Options {
	return synth.Options{Styles: []string{"gothic", "tudor", "colonial"}, Train: 4, Validation: 2, Test: 1, Size: 48, Seed: 7}
}

// tree returns each file's path and hash.
func tree(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mustDraw(t *testing.T, dir string, o synth.Options) synth.Summary {
	t.Helper()
	s, err := synth.Draw(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "facades")
	o := small()
	last := 0
	o.Progress = func(done, total int) {
		if done != last+1 || total != 21 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}
	s := mustDraw(t, dir, o)
	if s.Images != 21 || s.Drawn != 21 || last != 21 || s.Train != filepath.Join(dir, "train") || s.Test != filepath.Join(dir, "test") {
		t.Errorf("%+v, progress %d", s, last)
	}
	for part, n := range map[string]int{"train": 4, "validation": 2, "test": 1} {
		entries, err := os.ReadDir(filepath.Join(dir, part))
		if err != nil || len(entries) != 3 || entries[0].Name() != "colonial" || entries[2].Name() != "tudor" {
			t.Fatalf("%s: %v %v", part, entries, err)
		}
		for _, e := range entries {
			files, _ := filepath.Glob(filepath.Join(dir, part, e.Name(), "*.jpg"))
			if len(files) != n {
				t.Errorf("%s/%s: %d pictures", part, e.Name(), len(files))
			}
			for _, f := range files {
				b, _ := os.ReadFile(f)
				cfg, err := jpeg.DecodeConfig(bytes.NewReader(b))
				if err != nil || cfg.Width != 48 || cfg.Height != 48 {
					t.Errorf("%s: %v %v", f, cfg, err)
				}
			}
		}
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	a, b, c, d := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	o := small()
	o.Workers = 1
	mustDraw(t, a, o)
	o.Workers = 5
	mustDraw(t, b, o)
	o.Seed = 8
	mustDraw(t, c, o)
	// More images and styles leave those there as they are.
	o.Seed, o.Train, o.Styles = 7, 6, append(o.Styles, "art_deco")
	mustDraw(t, d, o)
	ta, tb, tc, td := tree(t, a), tree(t, b), tree(t, c), tree(t, d)
	if len(ta) != 22 || fmt.Sprint(ta) != fmt.Sprint(tb) {
		t.Error("the number of workers changes the pictures")
	}
	seen := map[[32]byte]string{}
	for name, h := range ta {
		if name == "synth.json" {
			continue
		}
		if tc[name] == h {
			t.Errorf("%s is the same with another seed", name)
		}
		if td[name] != h {
			t.Errorf("%s changed when pictures and styles were added", name)
		}
		if other, twice := seen[h]; twice {
			t.Errorf("%s and %s are the same image", name, other)
		}
		seen[h] = name
	}
}

// TestPixelsOfThisVersion pins what Version means. When it fails because the drawing was changed on purpose,
// count Version up and take the new sums.
func TestPixelsOfThisVersion(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("sums are pinned for amd64: other machines may fuse a multiplication with an addition")
	}
	all := sha256.New()
	for _, name := range synth.Styles() {
		for n := range 3 {
			img, err := synth.Render(name, "train", n+1, synth.Options{Seed: 1, Size: 64})
			if err != nil {
				t.Fatal(err)
			}
			for y := range 64 {
				for x := range 64 {
					r, g, b, _ := img.At(x, y).RGBA()
					all.Write([]byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)})
				}
			}
		}
	}
	const want = "3edc5262ed3ee3b50582407d71b33d32ed4a104234f29633a3432157364b2744"
	if got := fmt.Sprintf("%x", all.Sum(nil)); got != want {
		t.Errorf("pixels of version %d have sum %s, pinned is %s", synth.Version, got, want)
	}
}

func TestFolderIsOursOrRefused(t *testing.T) {
	dir := t.TempDir()
	o := small()
	mustDraw(t, dir, o)
	before := tree(t, dir)
	if s := mustDraw(t, dir, o); s.Drawn != 0 || s.Images != 21 {
		t.Errorf("the second time %+v", s)
	}
	// What went missing comes back, the same.
	files, _ := filepath.Glob(filepath.Join(dir, "train", "gothic", "*.jpg"))
	os.Remove(files[1])
	os.Truncate(files[2], 0)
	if s := mustDraw(t, dir, o); s.Drawn != 2 || fmt.Sprint(tree(t, dir)) != fmt.Sprint(before) {
		t.Errorf("after a loss %+v", s)
	}
	// Other options, another's folder.
	o.Seed = 99
	_, err := synth.Draw(context.Background(), dir, o)
	if err == nil || !strings.Contains(err.Error(), "seed 7") || !strings.Contains(err.Error(), "seed 99") || !strings.Contains(err.Error(), "choose another folder") {
		t.Errorf("error %v", err)
	}
	if fmt.Sprint(tree(t, dir)) != fmt.Sprint(before) {
		t.Error("a refused folder was touched")
	}
	foreign := t.TempDir()
	os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("dear"), 0o644)
	_, err = synth.Draw(context.Background(), foreign, small())
	if err == nil || !strings.Contains(err.Error(), "not empty") || len(tree(t, foreign)) != 1 {
		t.Errorf("error %v, files %d", err, len(tree(t, foreign)))
	}
	os.WriteFile(filepath.Join(dir, "synth.json"), []byte("{"), 0o644)
	if _, err = synth.Draw(context.Background(), dir, small()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v", err)
	}
}

func TestInterruptedAndResumed(t *testing.T) {
	dir, whole := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	o := small()
	o.Progress = func(done, _ int) {
		if done == 3 {
			cancel()
		}
	}
	if _, err := synth.Draw(ctx, dir, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	mustDraw(t, dir, small())
	mustDraw(t, whole, small())
	if fmt.Sprint(tree(t, dir)) != fmt.Sprint(tree(t, whole)) {
		t.Error("resumed and undisturbed differ")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]synth.Options{
		`no style "baroque"`: {Styles: []string{"baroque"}}, "given twice": {Styles: []string{"tudor", "tudor"}},
		"-1 images": {Train: -1}, "images of 8 pixels": {Size: 8}, "difficulty 1.5": {Difficulty: difficulty(1.5)},
		"are more than": {Train: 9_000_000},
	} {
		dir := filepath.Join(t.TempDir(), "x")
		if _, err := synth.Draw(context.Background(), dir, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v should say %q", err, want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: the folder was made all the same", want)
		}
	}
}

// TestEveryStyleEverySize draws each style at the extremes and looks at the pixels: nothing flat, nothing black.
func TestEveryStyleEverySize(t *testing.T) {
	for _, name := range synth.Styles() {
		for _, size := range []int{32, 200} {
			for _, d := range []float64{0, 1} {
				img, err := synth.Render(name, "test", 3, synth.Options{Size: size, Difficulty: difficulty(d)})
				if err != nil {
					t.Fatal(err)
				}
				var sum, square float64
				for y := range size {
					for x := range size {
						_, g, _, a := img.At(x, y).RGBA()
						if a != 0xffff {
							t.Fatalf("%s: a transparent pixel", name)
						}
						v := float64(g >> 8)
						sum += v
						square += v * v
					}
				}
				n := float64(size * size)
				mean := sum / n
				if variance := square/n - mean*mean; mean < 20 || mean > 240 || variance < 150 {
					t.Errorf("%s at %d px, difficulty %g: mean %.0f, variance %.0f", name, size, d, mean, variance)
				}
			}
		}
	}
}

func BenchmarkRender(b *testing.B) {
	for _, size := range []int{96, 224} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			styles := synth.Styles()
			for i := 0; b.Loop(); i++ {
				if _, err := synth.Render(styles[i%len(styles)], "train", i+1, synth.Options{Size: size}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
