package likeness

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"testing"

	ximage "golang.org/x/image/draw"
)

// icon is an image of 64 px on a common ground: shapes in saturated colours of
// its own, of which variant moves or colours one small detail.
func icon(family uint64, variant int) *image.RGBA {
	r := rand.New(rand.NewPCG(family, 1))
	m := image.NewRGBA(image.Rect(0, 0, 64, 64))
	fill := func(b image.Rectangle, c color.Color) { draw.Draw(m, b, image.NewUniform(c), image.Point{}, draw.Src) }
	bright := func(r *rand.Rand) color.RGBA {
		c := [3]uint8{}
		c[r.IntN(3)] = 255
		c[r.IntN(3)] = uint8(r.IntN(256))
		return color.RGBA{c[0], c[1], c[2], 255}
	}
	fill(m.Bounds(), color.RGBA{240, 240, 245, 255})
	fill(image.Rect(6, 6, 58, 58), bright(r))
	for range 4 {
		x, y := 8+r.IntN(34), 8+r.IntN(34)
		fill(image.Rect(x, y, x+4+r.IntN(12), y+4+r.IntN(12)), bright(r))
	}
	for range 6 {
		x, y := 8+r.IntN(44), 8+r.IntN(44)
		fill(image.Rect(x, y, x+1+r.IntN(3), y+10), bright(r))
	}
	v := rand.New(rand.NewPCG(family, uint64(100+variant)))
	x, y := 10+8*(variant%5), 12+8*(variant/5%5)
	fill(image.Rect(x, y, x+8, y+8), bright(v))
	return m
}

func icons() (all []*image.RGBA) {
	for family := range uint64(6) {
		for variant := range 10 {
			all = append(all, icon(family, variant))
		}
	}
	return all
}

func asPrint(t *testing.T, m image.Image, quality int) *Print {
	t.Helper()
	var b bytes.Buffer
	var err error
	if quality == 0 {
		err = png.Encode(&b, m)
	} else {
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: quality})
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := Of(b.Bytes(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Icons whose members differ in one detail: encoded anew or a little larger at
// least nine of ten are found, and no two of them are one, in no form.
func TestIcons(t *testing.T) {
	all := icons()
	prints := make([]*Print, len(all))
	for i, m := range all {
		prints[i] = asPrint(t, m, 0)
	}
	scaled := func(m image.Image, side int) image.Image {
		out := image.NewRGBA(image.Rect(0, 0, side, side))
		ximage.CatmullRom.Scale(out, out.Bounds(), m, m.Bounds(), draw.Src, nil)
		return out
	}
	for name, again := range map[string]func(image.Image) *Print{
		"the same":  func(m image.Image) *Print { return asPrint(t, m, 0) },
		"JPEG 60":   func(m image.Image) *Print { return asPrint(t, m, 60) },
		"JPEG 85":   func(m image.Image) *Print { return asPrint(t, m, 85) },
		"102 px":    func(m image.Image) *Print { return asPrint(t, scaled(m, 102), 85) },
		"128 px":    func(m image.Image) *Print { return asPrint(t, scaled(m, 128), 60) },
		"48 px PNG": func(m image.Image) *Print { return asPrint(t, scaled(m, 48), 0) },
	} {
		found := 0
		for i, m := range all {
			p := again(m)
			for k := range all {
				kind, score := Compare(prints[k], p)
				switch {
				case k == i && (kind == Same || kind == Copy):
					found++
				case k != i && (kind == Same || kind == Copy):
					t.Errorf("%s: %d is called %d (%.4f)", name, i, k, score)
				}
			}
		}
		t.Logf("%s: %d of %d", name, found, len(all))
		if 10*found < 9*len(all) {
			t.Errorf("%s: %d of %d found", name, found, len(all))
		}
	}
}
