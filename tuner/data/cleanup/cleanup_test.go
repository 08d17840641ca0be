package cleanup_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ximage "golang.org/x/image/draw"

	"atelier/tuner/data/cleanup"
	"atelier/tuner/data/planted"
	"atelier/tuner/data/synth"
)

// imageFolders are folders of distinct images: drawn houses, and the real ones
// where they lie beside the project.
func imageFolders(t *testing.T) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "drawn")
	zero := 0.5
	if _, err := synth.Draw(t.Context(), dir, synth.Options{Train: 30, Size: 128, Seed: 3, Difficulty: &zero}); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"drawn": filepath.Join(dir, "train")}
	for _, real := range []string{"../../../../shared/data/building-styles"} {
		if _, err := os.Stat(real); err == nil {
			all["real"] = real
		}
	}
	return all
}

func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "images")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every image is planted again in six ways, one an image in turn; copies and
// new encodings must all be found, and no image be called another's duplicate.
func TestPlantedDuplicates(t *testing.T) {
	for set, from := range imageFolders(t) {
		dir := filepath.Join(t.TempDir(), "images")
		plants, err := planted.Into(from, dir, func(i int) planted.Kind { return planted.Again[i%len(planted.Again)] })
		if err != nil {
			t.Fatal(err)
		}
		r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2, MinSide: 16, Near: true})
		if err != nil {
			t.Fatal(err)
		}
		found, total, wrong := map[planted.Kind]int{}, map[planted.Kind]int{}, 0
		for _, p := range plants {
			total[p.Kind]++
		}
		for _, f := range r.Go {
			p, ok := plants[f.Path]
			of := f.Of
			if !ok { // the larger one stays, whichever it is
				p, of = plants[f.Of], f.Path
			}
			if f.Reason != cleanup.Duplicate || p.Of != of {
				t.Logf("%s: %s called %s (%.4f) of %s", set, f.Path, f.Kind, f.Score, f.Of)
				wrong++
				continue
			}
			found[p.Kind]++
		}
		t.Logf("%s: found %v of %v, %d wrong, %d conflicts", set, found, total, wrong, len(r.Conflicts))
		for _, kind := range planted.Again {
			least := total[kind]
			if kind == planted.Mirrored || kind == planted.Cropped {
				least = (total[kind]*8 + 9) / 10
			}
			if found[kind] < least || total[kind] == 0 {
				t.Errorf("%s: %d of %d found: %s", set, found[kind], total[kind], kind)
			}
		}
		if wrong > 0 || len(r.Conflicts) > 0 {
			t.Errorf("%s: %d pictures are called duplicates of another, %d conflicts: %v", set, wrong, len(r.Conflicts), r.Conflicts)
		}
	}
}

func encoded(t *testing.T, img image.Image, quality int) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	if quality == 0 {
		err = png.Encode(&b, img)
	} else {
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: quality})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func scaled(img image.Image, by float64) image.Image {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, int(float64(b.Dx())*by), int(float64(b.Dy())*by)))
	ximage.CatmullRom.Scale(out, out.Bounds(), img, b, draw.Src, nil)
	return out
}

func TestWhatIsNotAnImage(t *testing.T) {
	dir := copyTree(t, imageFolders(t)["drawn"])
	classes, _ := os.ReadDir(dir)
	class := classes[0].Name()
	files, _ := os.ReadDir(filepath.Join(dir, class))
	first := filepath.Join(dir, class, files[0].Name())
	good, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	img, _, _ := image.Decode(bytes.NewReader(good))
	for name, b := range map[string][]byte{"truncated.jpg": encoded(t, img, 90)[:900], "zero.jpg": nil, "text.png": []byte("a shopping list\n"), "tiny.png": encoded(t, scaled(img, 0.1), 0),
		"page.jpg": []byte("<!DOCTYPE html><html><body>not found</body></html>"), "really.png": encoded(t, scaled(img, 0.97), 90)} {
		write(t, filepath.Join(dir, class, name), b)
	}
	// The same image in two classes.
	write(t, filepath.Join(dir, classes[1].Name(), "other_label.jpg"), good)
	r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, f := range r.Go {
		reasons[strings.TrimPrefix(f.Path, class+"/")] = f.Reason
	}
	for name, want := range map[string]string{"truncated.jpg": cleanup.Broken, "zero.jpg": cleanup.NotAnImage, "text.png": cleanup.NotAnImage, "tiny.png": cleanup.Small, "page.jpg": cleanup.NotAnImage, "really.png": cleanup.Duplicate} {
		if reasons[name] != want {
			t.Errorf("%s: %q, want %q", name, reasons[name], want)
		}
	}
	if len(r.Conflicts) != 2 || len(r.Conflicts[0].Paths) != 2 { // with the image and with its new encoding
		t.Errorf("conflicts %v", r.Conflicts)
	}
	if len(r.WrongName) != 1 || !strings.HasSuffix(r.WrongName[0].Path, "really.png") {
		t.Errorf("wrong names %v", r.WrongName)
	}

	// Moved, not lost: the same number of files, each with its line.
	before := count(t, dir)
	quarantine := filepath.Join(t.TempDir(), "quarantine")
	if _, err := r.Move(t.Context(), filepath.Join(dir, "quarantine"), time.Now()); err == nil {
		t.Error("a quarantine inside the folder was taken")
	}
	moved, err := r.Move(t.Context(), quarantine, time.Unix(0, 0))
	if err != nil || moved != len(r.Go) {
		t.Fatal(moved, err)
	}
	if after := count(t, dir); after != before-moved || count(t, quarantine) != moved+1 {
		t.Errorf("%d files were %d and %d moved; the quarantine holds %d", after, before, moved, count(t, quarantine))
	}
	f, err := os.Open(filepath.Join(quarantine, cleanup.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		var m cleanup.Moved
		if err := json.Unmarshal(s.Bytes(), &m); err != nil || m.Reason == "" || m.Detail == "" {
			t.Errorf("%s: %v", s.Text(), err)
		}
		if _, err := os.Stat(filepath.Join(quarantine, filepath.FromSlash(m.To))); err != nil {
			t.Error(err)
		}
	}
	if lines != moved {
		t.Errorf("%d lines of %d moves", lines, moved)
	}
	// A second look finds the folder clean; a second quarantine of a file of the same name keeps both.
	again, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2})
	if err != nil || len(again.Go) != 0 {
		t.Errorf("a second look: %v %v", again, err)
	}
	write(t, filepath.Join(dir, class, "zero.jpg"), nil)
	if again, err = cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2}); err != nil || len(again.Go) != 1 {
		t.Fatal(again, err)
	}
	if n, err := again.Move(t.Context(), quarantine, time.Now()); n != 1 || err != nil || count(t, quarantine) != moved+2 {
		t.Errorf("moved %d, %v; the quarantine holds %d", n, err, count(t, quarantine))
	}
}

func count(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFoldersThatAreNone(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := cleanup.Look(t.Context(), d, cleanup.Options{}); err == nil || !strings.Contains(err.Error(), d) {
			t.Error(fmt.Sprint(err))
		}
	}
}
