package layout

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/dataset"
)

// put writes files: images that differ, and texts.
func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		b := []byte("{}")
		if dataset.IsImage(name) {
			m := image.NewRGBA(image.Rect(0, 0, 40, 40))
			for x := range 40 {
				for y := range 40 {
					k := len(path)*7919 + int(path[len(path)-5])*101 + int(path[len(path)-6])*13
					m.Set(x, y, color.RGBA{byte((x / 8 * k) % 251), byte((y / 8 * k * 3) % 253), byte((x/8 + y/8) * k % 241), 255})
				}
			}
			var out bytes.Buffer
			if err := png.Encode(&out, m); err != nil {
				t.Fatal(err)
			}
			b = out.Bytes()
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// images are n names in each class.
func images(classes []string, n int) (names []string) {
	for _, c := range classes {
		for i := range n {
			names = append(names, fmt.Sprintf("%s/%02d.png", c, i))
		}
	}
	return names
}

var styles = []string{"gothic", "tudor"}

func TestLook(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		look  string
		kind  Kind
		n     int
		why   string
	}{
		"split":                 {append(images([]string{"train/gothic", "train/tudor"}, 2), images([]string{"validation/gothic", "test/tudor"}, 1)...), "", Split, 6, ""},
		"split of val":          {append(images([]string{"train/gothic", "train/tudor"}, 2), images([]string{"val/gothic"}, 1)...), "", Split, 5, ""},
		"train of a split":      {append(images([]string{"train/gothic", "train/tudor"}, 2), images([]string{"validation/gothic"}, 1)...), "train", Split, 5, ""},
		"class folders":         {append(images(styles, 3), "readme.txt", ".hidden/1.png"), "", Classes, 6, ""},
		"a class called train":  {images([]string{"bus", "train"}, 2), "", Classes, 4, ""},
		"folders in classes":    {append(images(styles, 2), "gothic/more/9.png"), "", Classes, 5, ""},
		"loose images":          {[]string{"1.png", "2.png"}, "", Other, 0, "images in it (2)"},
		"train without another": {images([]string{"train/gothic", "train/tudor"}, 1), "", Other, 0, "no validation/"},
		"deeper":                {images([]string{"styles/gothic", "styles/tudor"}, 1), "", Other, 2, "such as in "},
		"nothing":               {[]string{"notes/readme.txt"}, "", Other, 0, "no folders with images"},
	} {
		dir := t.TempDir()
		put(t, dir, c.files...)
		l, err := Look(filepath.Join(dir, c.look))
		if err != nil || l.Kind != c.kind || l.Images != c.n || !strings.Contains(l.Why, c.why) || (c.why == "") != (l.Why == "") {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
		if c.kind == Split && (l.Dir != dir || !slices.Equal(l.Classes, styles) || filepath.Base(l.Train) != "train") {
			t.Errorf("%s: %+v", name, l)
		}
	}
	if _, err := Look(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// A search finds what a person would choose, and neither charts nor results.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, c := range styles {
		put(t, dir, images([]string{"styles/" + c, "run/facades/train/" + c, "run/facades/validation/" + c}, 4)...)
		// Results: charts in folders.
		put(t, dir, "checkpoints/resnet18/image_batches/1.png", "run/tuning/trials/1.png", "run/tuning/trials2/1.png", "run/tuning/tuning_results.json", "out/a/b/"+c+"/1.png")
	}
	put(t, dir, "run/w1/node.json", "run/w1/x/1.png", "run/w1/y/1.png")
	var got []string
	for _, l := range Find(dir) {
		rel, _ := filepath.Rel(dir, l.Dir)
		got = append(got, fmt.Sprintf("%s %d %s", rel, l.Kind, l.Describe()))
	}
	if want := []string{"styles 2 2 classes, 8 images", "run/facades 1 2 classes, 16 images"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Class folders are split once, and again only when images were added; none of
// them moves, and the split is not offered beside its folder.
func TestReady(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "styles"), images(styles, 12)...)
	put(t, dir, "styles/gothic/broken.jpg")
	ready := func() *Done {
		t.Helper()
		l, err := Look(filepath.Join(dir, "styles"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Ready(t.Context(), l, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := ready(); d.Report == nil || d.From != filepath.Join(dir, "styles") || d.Kind != Split || d.Dir != filepath.Join(dir, "styles_split") || d.Test == "" {
		t.Fatalf("%+v", d)
	}
	if d := ready(); d.Report != nil || d.Kind != Split {
		t.Errorf("nothing has changed, and it was split again: %+v", d.Report)
	}
	put(t, filepath.Join(dir, "styles"), "gothic/77.png")
	if d := ready(); d.Report == nil || d.Report.New != 1 {
		t.Errorf("an image was added: %+v", d.Report)
	}
	os.Remove(filepath.Join(dir, "styles/gothic/77.png"))
	if d := ready(); d.Report != nil || d.Gone != 1 {
		t.Errorf("an image is gone: %+v", d)
	}
	if all := Find(dir); len(all) != 1 || all[0].Kind != Classes {
		t.Errorf("found %+v", all)
	}
	// What somebody else put there is not touched.
	put(t, filepath.Join(dir, "others"), images(styles, 3)...)
	put(t, dir, "others_split/mine.txt")
	l, _ := Look(filepath.Join(dir, "others"))
	if _, err := Ready(t.Context(), l, nil); err == nil || !strings.Contains(err.Error(), "is something else") {
		t.Errorf("a folder of that name: %v", err)
	}
	put(t, filepath.Join(dir, "one"), images([]string{"gothic"}, 3)...)
	l, _ = Look(filepath.Join(dir, "one"))
	if _, err := Ready(t.Context(), l, nil); err == nil || !strings.Contains(err.Error(), "needs two") {
		t.Errorf("one class: %v", err)
	}
}
