package dataset_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/dataset"

	"golang.org/x/sys/unix"
)

// drawn is a w x h image that differs by seed and is not flat.
func drawn(w, h int, seed uint64) *image.NRGBA {
	r := rand.New(rand.NewPCG(seed, 1))
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	a, b, c := r.IntN(256), r.IntN(7)+1, r.IntN(5)+1
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{byte(a + b*x), byte(a + c*y), byte(x*y + a), 255})
		}
	}
	return m
}

func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func asJPEG(m image.Image) []byte {
	var b bytes.Buffer
	jpeg.Encode(&b, m, &jpeg.Options{Quality: 95})
	return b.Bytes()
}

func asPNG(m image.Image) []byte {
	var b bytes.Buffer
	png.Encode(&b, m)
	return b.Bytes()
}

// folder makes a folder of two classes with n images each.
func folder(t testing.TB, n int) string {
	dir := t.TempDir()
	for i := range n {
		put(t, filepath.Join(dir, "colonial", fmt.Sprintf("%03d.jpg", i)), asJPEG(drawn(40+i, 30, uint64(i))))
		put(t, filepath.Join(dir, "gothic", fmt.Sprintf("%03d.png", i)), asPNG(drawn(30, 50+i, uint64(1000+i))))
	}
	return dir
}

func list(t testing.TB, dir string) *dataset.Folder {
	t.Helper()
	f, err := dataset.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestListFollowsImageFolder(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{
		"b/2.JPG", "b/10.jpeg", "b/a/z.webp", "b/a-x/q.tiff", "b/notes.txt", "b/pic.heic", "b/Z.Png", "b/._2.JPG", "b/.ipynb_checkpoints/2-checkpoint.jpg",
		"B/1.ppm", "B/2.jfif", "ä/1.bmp", ".hidden/x.pgm", "__MACOSX/b/2.jpg", "loose.jpg",
	} {
		put(t, filepath.Join(dir, p), nil)
	}
	if err := os.Symlink(filepath.Join(dir, "b"), filepath.Join(dir, "b", "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "B"), filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	f := list(t, dir)
	if want := []string{"B", "b", "linked", "ä"}; !reflect.DeepEqual(f.Classes, want) {
		t.Errorf("classes %q, want %q", f.Classes, want)
	}
	var got []string
	for _, file := range f.Files {
		got = append(got, fmt.Sprintf("%d %s", file.Class, file.Path))
	}
	want := []string{"0 B/1.ppm", "0 B/2.jfif", "1 b/10.jpeg", "1 b/2.JPG", "1 b/Z.Png", "1 b/a/z.webp", "1 b/a-x/q.tiff", "2 linked/1.ppm", "2 linked/2.jfif", "3 ä/1.bmp"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := f.Counts(); !reflect.DeepEqual(n, []int{2, 5, 2, 1}) {
		t.Errorf("counts %v", n)
	}
	if got, want := f.LeftOut.String(), "3 hidden or system folders (.hidden, __MACOSX, b/.ipynb_checkpoints), 1 hidden file, 2 files without an image extension (1 .heic, 1 .txt), 1 image beside the class folders"; got != want {
		t.Errorf("left out: %s", got)
	}
}

// A pipe with the name of an image would block for good whoever opens it: it is
// counted and left out, as is a link to one.
func TestListLeavesOutSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "gothic", "a.jpg"), asJPEG(drawn(40, 40, 1)))
	if err := unix.Mkfifo(filepath.Join(dir, "gothic", "pipe.jpg"), 0o644); err != nil {
		t.Skip("no pipes here")
	}
	if err := os.Symlink("pipe.jpg", filepath.Join(dir, "gothic", "link.jpg")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.jpg", filepath.Join(dir, "gothic", "b.jpg")); err != nil {
		t.Fatal(err)
	}
	f := list(t, dir)
	if got := f.LeftOut.String(); len(f.Files) != 2 || got != "2 special files (pipes, sockets or devices)" {
		t.Errorf("%v; left out: %s", f.Files, got)
	}
}

// What is held out may lack a class; what is learned from may not.
func TestListHeldOut(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "gothic", "a.jpg"), asJPEG(drawn(40, 40, 1)))
	if err := os.MkdirAll(filepath.Join(dir, "rare"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := dataset.List(dir); err == nil || !strings.Contains(err.Error(), `class "rare"`) {
		t.Error(err)
	}
	f, err := dataset.ListHeldOut(dir)
	if err != nil || len(f.Classes) != 2 || len(f.Notes()) != 1 || !strings.Contains(f.Notes()[0], "no images of rare") {
		t.Fatalf("%v, %v", f, err)
	}
	path, _, err := dataset.Pack(f, dataset.PackOptions{Size: 32, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	set, err := dataset.OpenPack(path)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if len(set.Classes()) != 2 || set.Len() != 1 {
		t.Errorf("%q, %d pictures", set.Classes(), set.Len())
	}
	put(t, filepath.Join(dir, "rare", "a.heic"), nil)
	os.Remove(filepath.Join(dir, "gothic", "a.jpg"))
	if _, err := dataset.ListHeldOut(dir); err == nil || !strings.Contains(err.Error(), "1 .heic") {
		t.Error(err)
	}
	one := t.TempDir()
	put(t, filepath.Join(one, "gothic", "a.jpg"), nil)
	if notes := list(t, one).Notes(); len(notes) != 1 || !strings.Contains(notes[0], "has one class (gothic)") {
		t.Errorf("%q", notes)
	}
}

func TestListErrors(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), nil)
	put(t, filepath.Join(dir, "loose", "a.jpg"), nil)
	os.MkdirAll(filepath.Join(dir, "empty", "gothic"), 0o755)
	put(t, filepath.Join(dir, "empty", "tudor", "readme.txt"), nil)
	put(t, filepath.Join(dir, "empty", "colonial", "a.jpg"), nil)
	for path, want := range map[string]string{
		"missing": "does not exist", "file": "not a folder", "loose/x": "does not exist",
		"loose": "1 images are directly in it", "empty": `classes "gothic", "tudor"`, "empty/gothic": "no class folders",
	} {
		_, err := dataset.List(filepath.Join(dir, path))
		if err == nil || !strings.Contains(err.Error(), want) {
			if path == "loose" && err != nil {
				// its only entry is an image
				t.Errorf("%s: %v", path, err)
				continue
			}
			t.Errorf("%s: error %v should say %q", path, err, want)
		}
		if path == "missing" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is not fs.ErrNotExist", err)
		}
	}
}

func TestPackAndOpen(t *testing.T) {
	dir, cache := folder(t, 7), t.TempDir()
	f := list(t, dir)
	var calls []int
	o := dataset.PackOptions{Size: 24, CacheDir: cache, Workers: 3, Progress: func(done, total int) {
		if total != 14 {
			t.Errorf("total %d", total)
		}
		calls = append(calls, done)
	}}
	path, r, err := dataset.Pack(f, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Images != 14 || r.Cached || len(r.Skipped) != 0 || len(calls) != 14 || calls[13] != 14 {
		t.Errorf("report %+v, progress %v", r, calls)
	}
	s, err := dataset.OpenPack(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Len() != 14 || s.Size() != 24 || !reflect.DeepEqual(s.Classes(), f.Classes) || len(s.PixelsRaw()) != 14*24*24*3 {
		t.Errorf("%d pictures of %d, classes %v, %d bytes", s.Len(), s.Size(), s.Classes(), len(s.PixelsRaw()))
	}
	for i, file := range f.Files {
		b, err := os.ReadFile(filepath.Join(dir, file.Path))
		if err != nil {
			t.Fatal(err)
		}
		img, format, err := dataset.Decode(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 24*24*3)
		dataset.Square(want, img, format, 24, 24, dataset.CenterCrop, dataset.Bilinear)
		if s.Name(i) != file.Path || s.Label(i) != file.Class || !bytes.Equal(s.Pixels(i), want) {
			t.Errorf("picture %d (%s, label %d) is not %s", i, s.Name(i), s.Label(i), file.Path)
		}
		if l := int64(binary.LittleEndian.Uint64(s.LabelsRaw()[8*i:])); l != int64(file.Class) || s.Labels()[i] != l {
			t.Errorf("raw label %d", l)
		}
	}
	if !reflect.DeepEqual(s.Counts(), []int{7, 7}) || len(s.Digest()) != 64 {
		t.Errorf("counts %v, digest %s", s.Counts(), s.Digest())
	}

	// Again: from the cache. Other options, a changed file: another pack.
	path2, r2, err := dataset.Pack(f, o)
	if err != nil || path2 != path || !r2.Cached || r2.Images != 14 {
		t.Errorf("second time: %s %+v %v", path2, r2, err)
	}
	o.Filter = dataset.Bicubic
	if path3, r3, err := dataset.Pack(f, o); err != nil || path3 == path || r3.Cached {
		t.Errorf("other filter: %s %+v %v", path3, r3, err)
	}
	o.Filter = dataset.Bilinear
	put(t, filepath.Join(dir, f.Files[0].Path), asJPEG(drawn(50, 50, 77)))
	path4, r4, err := dataset.Pack(f, o)
	if err != nil || path4 == path || r4.Cached {
		t.Errorf("changed file: %s %+v %v", path4, r4, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*.tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDamagedImagesAreNamedAndSkipped(t *testing.T) {
	dir := folder(t, 4)
	whole := asJPEG(drawn(64, 64, 5))
	put(t, filepath.Join(dir, "gothic", "cut.jpg"), whole[:len(whole)/2])
	put(t, filepath.Join(dir, "gothic", "empty.png"), nil)
	put(t, filepath.Join(dir, "gothic", "page.jpg"), []byte("<html><body>404</body></html>"))
	put(t, filepath.Join(dir, "gothic", "bomb.pgm"), []byte("P5 100000 100000 255\n"))
	os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "gothic", "dangling.jpg"))
	o := dataset.PackOptions{Size: 16, CacheDir: t.TempDir()}
	put(t, filepath.Join(dir, "gothic", "pipe.jpg"), whole)
	f := list(t, dir)
	// It became a pipe after it was listed.
	os.Remove(filepath.Join(dir, "gothic", "pipe.jpg"))
	if err := unix.Mkfifo(filepath.Join(dir, "gothic", "pipe.jpg"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, cached := range []bool{false, true} {
		_, r, err := dataset.Pack(f, o)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, s := range r.Skipped {
			got[filepath.Base(s.Path)] = s.Reason
		}
		for name, want := range map[string]string{
			"cut.jpg": "truncated", "empty.png": "empty", "page.jpg": "web page", "bomb.pgm": "100000 x 100000 pixels",
			"pipe.jpg": "not a regular file", "dangling.jpg": "no such file",
		} {
			if !strings.Contains(got[name], want) {
				t.Errorf("cached %v: %s skipped for %q, want %q", cached, name, got[name], want)
			}
		}
		if r.Images != 8 || len(r.Skipped) != 6 || r.Cached != cached {
			t.Errorf("%+v", r)
		}
	}
	// Nothing left of a class: an error that names it.
	matches, _ := filepath.Glob(filepath.Join(dir, "gothic", "0*.png"))
	for _, m := range matches {
		os.Remove(m)
	}
	cache := t.TempDir()
	_, _, err := dataset.Pack(list(t, dir), dataset.PackOptions{Size: 16, CacheDir: cache})
	if err == nil || !strings.Contains(err.Error(), `class "gothic"`) || !strings.Contains(err.Error(), "bomb.pgm") {
		t.Errorf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*.pack*")); len(left) != 1 { // the lock file
		t.Errorf("left behind: %v", left)
	}
}

func TestPackErrors(t *testing.T) {
	f := list(t, folder(t, 2))
	for name, o := range map[string]dataset.PackOptions{
		"size 0": {CacheDir: t.TempDir()}, "crop beyond": {Size: 64, ResizeTo: 32, CacheDir: t.TempDir()},
		"mode": {Size: 8, Mode: 9, CacheDir: t.TempDir()}, "cache is a file": {Size: 8, CacheDir: filepath.Join(f.Dir, f.Files[0].Path)},
	} {
		if _, _, err := dataset.Pack(f, o); err == nil {
			t.Errorf("%s: packed", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	cache := t.TempDir()
	if _, _, err := dataset.PackContext(ctx, f, dataset.PackOptions{Size: 8, CacheDir: cache}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*.tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenPackRefusesDamage(t *testing.T) {
	path, _, err := dataset.Pack(list(t, folder(t, 3)), dataset.PackOptions{Size: 8, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.pack")
	at := map[string]int{"header": 20, "pixels": 4096 + 100, "labels": 4096 + 6*8*8*3 + 1, "names": len(good) - 2}
	for name, i := range at {
		b := bytes.Clone(good)
		b[i] ^= 4
		put(t, bad, b)
		if _, err := dataset.OpenPack(bad); err == nil || !strings.Contains(err.Error(), "damaged "+name) {
			t.Errorf("a flipped bit in %s: error %v", name, err)
		}
	}
	for _, n := range []int{0, 7, 255, 256, 4096, len(good) - 1} {
		put(t, bad, good[:n])
		if _, err := dataset.OpenPack(bad); err == nil {
			t.Errorf("the first %d bytes were opened", n)
		}
	}
	// A damaged pack in the cache is made anew.
	b := bytes.Clone(good)
	b[5000] ^= 1
	put(t, path, b)
	if _, err := dataset.OpenPack(path); err == nil {
		t.Error("opened")
	}
}

// TestMain lets this test program stand in for another process that packs.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DATASET_TEST_PACK"); dir != "" {
		f, err := dataset.List(dir)
		if err == nil {
			var path string
			var r dataset.Report
			path, r, err = dataset.Pack(f, dataset.PackOptions{Size: 48, CacheDir: os.Getenv("DATASET_TEST_CACHE"), Workers: 1})
			fmt.Println(path, r.Cached, r.Images)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func packProcess(dir, cache string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DATASET_TEST_PACK="+dir, "DATASET_TEST_CACHE="+cache)
	return cmd
}

// TestProcessesPackOnce: of several processes that want one pack at a time one makes it and the others take it.
func TestProcessesPackOnce(t *testing.T) {
	dir, cache := folder(t, 40), t.TempDir()
	var wg sync.WaitGroup
	out := make([]string, 4)
	for i := range out {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b, err := packProcess(dir, cache).Output()
			out[i] = string(b)
			if err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	made := 0
	for _, line := range out {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "80" || f[0] != strings.Fields(out[0])[0] {
			t.Fatalf("output %q", line)
		}
		if f[1] == "false" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("the pack was made %d times", made)
	}
}

// TestKilledProcessLeavesNothing: a process killed while it packs holds no lock, and no half pack is taken.
func TestKilledProcessLeavesNothing(t *testing.T) {
	dir, cache := folder(t, 150), t.TempDir()
	cmd := packProcess(dir, cache)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(time.Millisecond) {
		if left, _ := filepath.Glob(filepath.Join(cache, "*.tmp")); len(left) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never began")
		}
	}
	cmd.Process.Signal(unix.SIGKILL)
	cmd.Wait()
	path, r, err := dataset.Pack(list(t, dir), dataset.PackOptions{Size: 48, CacheDir: cache})
	if err != nil || r.Images != 300 {
		t.Fatalf("%+v %v", r, err)
	}
	s, err := dataset.OpenPack(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if left, _ := filepath.Glob(filepath.Join(cache, "*.tmp")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDigestIsOfContent(t *testing.T) {
	dir := folder(t, 3)
	digest := func(workers int) string {
		path, _, err := dataset.Pack(list(t, dir), dataset.PackOptions{Size: 8, CacheDir: t.TempDir(), Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		s, err := dataset.OpenPack(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Digest()
	}
	a, b := digest(1), digest(5)
	if a != b {
		t.Error("the number of workers changes the content")
	}
	put(t, filepath.Join(dir, "gothic", "000.png"), asPNG(drawn(30, 50, 4242)))
	if c := digest(1); c == a {
		t.Error("another picture, the same digest")
	}
}

func TestSameClasses(t *testing.T) {
	ab, ba := []string{"a", "b"}, []string{"b", "a"}
	for _, c := range []struct {
		a, b []string
		want string
	}{
		{ab, ab, ""}, {ab, ba, "order"}, {ab, []string{"a"}, `train has "b", checkpoint has not`},
		{[]string{"a"}, []string{"a", "c"}, `checkpoint has "c", train has not`}, {[]string{"a"}, []string{"a", "a"}, "number"},
	} {
		err := dataset.SameClasses("train", c.a, "checkpoint", c.b)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, %v: %v", c.a, c.b, err)
		}
	}
}

// TestGIFFrame: a first frame smaller than the image lands where it belongs.
func TestGIFFrame(t *testing.T) {
	p := color.Palette{color.NRGBA{0, 0, 0, 255}, color.NRGBA{200, 10, 20, 255}}
	frame := image.NewPaletted(image.Rect(2, 1, 4, 3), p)
	for i := range frame.Pix {
		frame.Pix[i] = 1
	}
	second := image.NewPaletted(image.Rect(0, 0, 5, 5), p)
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, &gif.GIF{Image: []*image.Paletted{frame, second}, Delay: []int{1, 1}, Config: image.Config{ColorModel: p, Width: 5, Height: 5}}); err != nil {
		t.Fatal(err)
	}
	img, format, err := dataset.Decode(b.Bytes(), 0)
	if err != nil || format != "gif" || img.Bounds() != image.Rect(0, 0, 5, 5) {
		t.Fatalf("%v %v %v", img.Bounds(), format, err)
	}
	got := make([]byte, 75)
	dataset.Square(got, img, format, 5, 5, dataset.Stretch, dataset.Bilinear)
	for y := range 5 {
		for x := range 5 {
			inside := x >= 2 && x < 4 && y >= 1 && y < 3
			if (got[3*(5*y+x)] == 200) != inside {
				t.Errorf("pixel %d,%d is %v", x, y, got[3*(5*y+x):][:3])
			}
		}
	}
}
