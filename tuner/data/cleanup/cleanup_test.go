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
	"atelier/tuner/data/synth"
)

// pictures are folders of distinct pictures: drawn houses, and the real ones
// where they lie beside the project.
func pictures(t *testing.T) map[string]string {
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

func part(img image.Image, r image.Rectangle) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	draw.Draw(out, out.Bounds(), img, r.Min, draw.Src)
	return out
}

func scaled(img image.Image, by float64) image.Image {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, int(float64(b.Dx())*by), int(float64(b.Dy())*by)))
	ximage.CatmullRom.Scale(out, out.Bounds(), img, b, draw.Src, nil)
	return out
}

func mirrored(img image.Image) image.Image {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	for y := range b.Dy() {
		for x := range b.Dx() {
			out.Set(b.Dx()-1-x, y, img.At(b.Min.X+x, b.Min.Y+y))
		}
	}
	return out
}

// Every picture is planted again in six ways, one a picture in turn; copies and
// new encodings must all be found, and no picture be called another's duplicate.
func TestPlantedDuplicates(t *testing.T) {
	for set, from := range pictures(t) {
		dir := copyTree(t, from)
		planted := map[string]string{} // path -> how
		of := map[string]string{}
		i := 0
		err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			img, _, err := image.Decode(bytes.NewReader(b))
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(from, path)
			box := img.Bounds()
			w, h := box.Dx(), box.Dy()
			var how, ext string
			switch i % 7 {
			case 0:
				how, ext = "copy", filepath.Ext(path)
			case 1:
				how, ext, b = "jpeg 60", ".jpg", encoded(t, img, 60)
			case 2:
				how, ext, b = "png", ".png", encoded(t, img, 0)
			case 3:
				how, ext, b = "half size", ".jpg", encoded(t, scaled(img, 0.5), 85)
			case 4:
				how, ext, b = "larger", ".jpg", encoded(t, scaled(img, 1.6), 85)
			case 5:
				how, ext, b = "mirrored", ".jpg", encoded(t, mirrored(img), 85)
			case 6:
				how, ext, b = "cropped", ".jpg", encoded(t, part(img, image.Rect(box.Min.X+w*5/100, box.Min.Y, box.Max.X, box.Max.Y-h*5/100)), 85)
			}
			name := strings.TrimSuffix(filepath.ToSlash(rel), filepath.Ext(rel)) + "_again" + ext
			write(t, filepath.Join(dir, filepath.FromSlash(name)), b)
			planted[name], of[name] = how, filepath.ToSlash(rel)
			i++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2, MinSide: 16, Near: true})
		if err != nil {
			t.Fatal(err)
		}
		found, total, wrong := map[string]int{}, map[string]int{}, 0
		for _, how := range planted {
			total[how]++
		}
		for _, f := range r.Go {
			a, b := f.Path, f.Of
			if planted[a] == "" { // the larger one stays, whichever it is
				a, b = b, a
			}
			if f.Reason != cleanup.Duplicate || of[a] != b {
				t.Logf("%s: %s called %s (%.4f) of %s", set, f.Path, f.Kind, f.Score, f.Of)
				wrong++
				continue
			}
			found[planted[a]]++
		}
		t.Logf("%s: found %v of %v, %d wrong, %d conflicts", set, found, total, wrong, len(r.Conflicts))
		for _, how := range []string{"copy", "jpeg 60", "png", "half size", "larger"} {
			if found[how] != total[how] || total[how] == 0 {
				t.Errorf("%s: %d of %d found: %s", set, found[how], total[how], how)
			}
		}
		for _, how := range []string{"mirrored", "cropped"} {
			if found[how]*10 < total[how]*8 {
				t.Errorf("%s: %d of %d found: %s", set, found[how], total[how], how)
			}
		}
		if wrong > 0 || len(r.Conflicts) > 0 {
			t.Errorf("%s: %d pictures are called duplicates of another, %d conflicts: %v", set, wrong, len(r.Conflicts), r.Conflicts)
		}
	}
}

func TestWhatIsNoPicture(t *testing.T) {
	dir := copyTree(t, pictures(t)["drawn"])
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
	// The same picture in two classes.
	write(t, filepath.Join(dir, classes[1].Name(), "other_label.jpg"), good)
	r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, f := range r.Go {
		reasons[strings.TrimPrefix(f.Path, class+"/")] = f.Reason
	}
	for name, want := range map[string]string{"truncated.jpg": cleanup.Broken, "zero.jpg": cleanup.NoPicture, "text.png": cleanup.NoPicture, "tiny.png": cleanup.Small, "page.jpg": cleanup.NoPicture, "really.png": cleanup.Duplicate} {
		if reasons[name] != want {
			t.Errorf("%s: %q, want %q", name, reasons[name], want)
		}
	}
	if len(r.Conflicts) != 2 || len(r.Conflicts[0].Paths) != 2 { // with the picture and with its new encoding
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
