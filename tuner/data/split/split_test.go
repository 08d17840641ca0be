package split

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// draw writes an image that is unlike all others: coarse blocks of chance.
func draw(t testing.TB, path string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 9))
	img := image.NewRGBA(image.Rect(0, 0, 32, 32))
	for y := 0; y < 32; y += 4 {
		for x := 0; x < 32; x += 4 {
			c := color.RGBA{uint8(r.IntN(256)), uint8(r.IntN(256)), uint8(r.IntN(256)), 255}
			for i := range 16 {
				img.Set(x+i%4, y+i/4, c)
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	put := func(path string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(path)
}

// places lists what lies where: class/image -> part.
func places(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, part := range Parts {
		root := filepath.Join(dir, part)
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				rel, _ := filepath.Rel(root, path)
				if out[rel] != "" {
					t.Errorf("%s is in %s and in %s", rel, out[rel], part)
				}
				out[rel] = part
			}
			return nil
		})
	}
	return out
}

// Over many folders: proportions in every class, every image once, images
// that are one together, the same seed the same split, another seed another,
// and adding images moves none.
func TestSplitProperties(t *testing.T) {
	for round := range uint64(6) {
		r := rand.New(rand.NewPCG(round, 1))
		from, base := filepath.Join(t.TempDir(), "images"), t.TempDir()
		var id uint64
		twins := map[string]string{}
		add := func(class string, n int) {
			for range n {
				id++
				name := fmt.Sprintf("%s/p%04d.png", class, id)
				draw(t, filepath.Join(from, name), round*10_000+id)
				if id%9 == 0 {
					twin := fmt.Sprintf("%s/p%04d_twin.png", class, id)
					b, _ := os.ReadFile(filepath.Join(from, name))
					os.WriteFile(filepath.Join(from, twin), b, 0o644)
					twins[name] = twin
				}
			}
		}
		for c := range 3 {
			add(fmt.Sprintf("class%d", c), 20+r.IntN(30))
		}
		o := Options{Ratios: [3]float64{0.7, 0.15, 0.15}, Seed: round, Workers: 2}
		to := filepath.Join(base, "a")
		rep, err := Split(t.Context(), from, to, o)
		if err != nil {
			t.Fatal(err)
		}
		check := func(rep *Report, at map[string]string) {
			t.Helper()
			for c := range rep.Classes {
				total := 0
				for _, part := range Parts {
					total += rep.Counts[part][c]
				}
				for p, part := range Parts {
					if got, want := float64(rep.Counts[part][c]), o.Ratios[p]*float64(total); math.Abs(got-want) > 3 {
						t.Errorf("round %d, %s: %v of %d in %s, want %v", round, rep.Classes[c], got, total, part, want)
					}
				}
			}
			for a, b := range twins {
				if at[a] != at[b] || at[a] == "" {
					t.Errorf("%s in %q, its twin in %q", a, at[a], at[b])
				}
			}
		}
		first := places(t, to)
		check(rep, first)
		again := filepath.Join(base, "b")
		if _, err := Split(t.Context(), from, again, o); err != nil {
			t.Fatal(err)
		}
		if second := places(t, again); fmt.Sprint(second) != fmt.Sprint(first) {
			t.Error("the same seed split otherwise")
		}
		other := o
		other.Seed += 1000
		if _, err := Split(t.Context(), from, filepath.Join(base, "c"), other); err != nil {
			t.Fatal(err)
		}
		if third := places(t, filepath.Join(base, "c")); fmt.Sprint(third) == fmt.Sprint(first) {
			t.Error("another seed split the same")
		}
		// More images, one of them a twin of an old one.
		add("class1", 17)
		var old string
		for name := range first {
			if strings.HasPrefix(name, "class0/") && (old == "" || name < old) {
				old = name
			}
		}
		b, _ := os.ReadFile(filepath.Join(from, old))
		os.WriteFile(filepath.Join(from, "class0", "zz_late.png"), b, 0o644)
		twins[old] = "class0/zz_late.png"
		if rep, err = Split(t.Context(), from, to, o); err != nil {
			t.Fatal(err)
		}
		later := places(t, to)
		for name, part := range first {
			if later[name] != part {
				t.Errorf("%s moved from %s to %q", name, part, later[name])
			}
		}
		if len(later) <= len(first) || rep.New != len(later)-len(first) {
			t.Errorf("%d pictures were %d, %d are called new", len(later), len(first), rep.New)
		}
		check(rep, later)
	}
}

func TestSplitRefuses(t *testing.T) {
	from := filepath.Join(t.TempDir(), "images")
	for i := range uint64(8) {
		draw(t, filepath.Join(from, fmt.Sprintf("c%d", i%2), fmt.Sprintf("%d.png", i)), i)
	}
	os.WriteFile(filepath.Join(from, "c0", "broken.png"), []byte("not an image"), 0o644)
	to := filepath.Join(t.TempDir(), "out")
	o := Options{Ratios: [3]float64{0.5, 0.25, 0.25}, Seed: 1, Workers: 1, Link: true}
	rep, err := Split(t.Context(), from, to, o)
	if err != nil || len(rep.Skipped) != 1 {
		t.Fatal(rep, err)
	}
	for name, part := range places(t, to) {
		a, _ := os.Stat(filepath.Join(from, name))
		b, _ := os.Stat(filepath.Join(to, part, name))
		if !os.SameFile(a, b) {
			t.Errorf("%s is no link", name)
		}
	}
	for want, f := range map[string]func() error{
		"add up": func() error {
			_, err := Split(t.Context(), from, to, Options{Ratios: [3]float64{0.5, 0.5, 0.5}})
			return err
		},
		"seed 1":        func() error { p := o; p.Seed = 2; _, err := Split(t.Context(), from, to, p); return err },
		"lies inside":   func() error { _, err := Split(t.Context(), from, filepath.Join(from, "out"), o); return err },
		"split already": func() error { _, err := Split(t.Context(), to, filepath.Join(t.TempDir(), "x"), o); return err },
		"nothing to learn": func() error {
			_, err := Split(t.Context(), from, to, Options{Ratios: [3]float64{0, 0.5, 0.5}})
			return err
		},
		"another content": func() error {
			x := filepath.Join(t.TempDir(), "x")
			for _, part := range Parts {
				for i := range 8 {
					p := filepath.Join(x, part, fmt.Sprintf("c%d", i%2), fmt.Sprintf("%d.png", i))
					os.MkdirAll(filepath.Dir(p), 0o755)
					os.WriteFile(p, []byte("somebody's"), 0o644)
				}
			}
			_, err := Split(t.Context(), from, x, o)
			return err
		},
		"is not known": func() error {
			x := t.TempDir()
			os.WriteFile(filepath.Join(x, Manifest), []byte(`{"version":9}`), 0o644)
			_, err := Split(t.Context(), from, x, o)
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":{"a/b.jpg":"train"}}`))
	f.Add([]byte(`{"version":1,"files":{"../b.jpg":"train"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		for name := range m.Files {
			if !filepath.IsLocal(filepath.FromSlash(name)) {
				t.Errorf("%q leads out of the folder", name)
			}
		}
	})
}
