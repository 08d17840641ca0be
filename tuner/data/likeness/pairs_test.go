package likeness_test

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"atelier/common/dataset"
	"atelier/tuner/data/likeness"
	"atelier/tuner/data/planted"
	"atelier/tuner/data/synth"
)

// sets are images with their likenesses: drawn houses and, where they lie
// beside the project, real ones, each planted again in one of the ways or as a
// crop of any place and size; among the drawn ones also patterns and flat colours.
func sets(t *testing.T) map[string][]*likeness.Print {
	t.Helper()
	dir := t.TempDir()
	if _, err := synth.Draw(t.Context(), dir, synth.Options{Train: 15, Size: 128, Seed: 11}); err != nil {
		t.Fatal(err)
	}
	all := map[string][]*likeness.Print{}
	for name, from := range map[string]string{"drawn": filepath.Join(dir, "train"), "real": "../../../../shared/data/building-styles"} {
		if _, err := os.Stat(from); err != nil {
			continue
		}
		tree := filepath.Join(dir, name)
		if _, err := planted.Into(from, tree, func(i int) planted.Kind { return planted.Again[i%len(planted.Again)] }); err != nil {
			t.Fatal(err)
		}
		files := 0
		r := rand.New(rand.NewPCG(1, 2))
		err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] = append(all[name], printOf(t, b))
			if files++; files%2 == 0 {
				img, _, err := dataset.Decode(b, 0)
				if err != nil {
					return err
				}
				all[name] = append(all[name], printOf(t, encoded(t, cropped(img, 0.02+0.1*r.Float64(), r))))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 12 {
		img := image.NewRGBA(image.Rect(0, 0, 96, 96))
		for y := range 96 {
			for x := range 96 {
				g := uint8(128 + i/6)
				if i >= 4 && (x/4+y/4)%2 == 0 { // the others are flat
					g = uint8(60 + r.IntN(8+20*(i%3)))
				}
				img.Set(x, y, color.RGBA{g, g, g, 255})
			}
		}
		all["drawn"] = append(all["drawn"], printOf(t, encoded(t, img)), printOf(t, encoded(t, cropped(img, 0.05, r))), nil)
	}
	return all
}

func printOf(t *testing.T, b []byte) *likeness.Print {
	t.Helper()
	p, err := likeness.Of(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cropped takes a share off both sides, at a drawn place.
func cropped(img image.Image, share float64, r *rand.Rand) image.Image {
	b := img.Bounds()
	w, h := int(float64(b.Dx())*(1-share)), int(float64(b.Dy())*(1-share))
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(out, out.Bounds(), img, b.Min.Add(image.Pt(r.IntN(b.Dx()-w+1), r.IntN(b.Dy()-h+1))), draw.Src)
	return out
}

func encoded(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 88}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Pairs finds what comparing all with all finds, to the bit, in any order of the images.
func TestPairsAreThoseOfAllWithAll(t *testing.T) {
	for name, prints := range sets(t) {
		rand.New(rand.NewPCG(5, 6)).Shuffle(len(prints), func(i, k int) { prints[i], prints[k] = prints[k], prints[i] })
		var want []likeness.Pair
		kinds := map[likeness.Kind]int{}
		for a, p := range prints {
			for b := a + 1; b < len(prints); b++ {
				if p == nil || prints[b] == nil {
					continue
				}
				if kind, score := likeness.Compare(p, prints[b]); kind != "" {
					want = append(want, likeness.Pair{A: a, B: b, Kind: kind, Score: score})
					kinds[kind]++
				}
			}
		}
		got := likeness.Pairs(prints)
		t.Logf("%s: %d pictures, pairs %v", name, len(prints), kinds)
		for _, kind := range []likeness.Kind{likeness.Copy, likeness.Same, likeness.Mirrored, likeness.Cropped} {
			if kinds[kind] < 10 {
				t.Errorf("%s: only %d pairs %s: the set shows nothing", name, kinds[kind], kind)
			}
		}
		for _, p := range want {
			if !slices.Contains(got, p) {
				t.Errorf("%s: %v was overlooked", name, p)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d pairs, want %d, in order", name, len(got), len(want))
		}
	}
}

func TestPairsOfNothing(t *testing.T) {
	for _, prints := range [][]*likeness.Print{nil, {nil, nil}} {
		if got := likeness.Pairs(prints); len(got) != 0 {
			t.Error(got)
		}
	}
}
