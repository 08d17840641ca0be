package dataset_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/dataset"
)

// exif is an EXIF block that says an orientation and nothing else.
func exif(orientation byte) []byte {
	return append([]byte("MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"), orientation, 0, 0, 0, 0, 0, 0)
}

// withExif puts one into a JPEG.
func withExif(file []byte, orientation byte) []byte {
	segment := append([]byte("Exif\x00\x00"), exif(orientation)...)
	head := []byte{0xff, 0xe1, 0, byte(len(segment) + 2)}
	return bytes.Join([][]byte{file[:2], head, segment, file[2:]}, nil)
}

// TestOrientationAgainstPillow: every decoder turns an image as
// ImageOps.exif_transpose does, in every form that carries an orientation.
func TestOrientationAgainstPillow(t *testing.T) {
	dir := t.TempDir()
	pillow(t, `
import sys, random
from PIL import Image, ImageOps
d = sys.argv[1] + '/'
random.seed(5)
def noise(mode, w, h):
    n = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (w, h), bytes(random.randrange(256) for _ in range(w * h * n)))
pictures = {'jpg': noise('RGB', 6, 5).resize((61, 45), Image.BICUBIC), 'grey.jpg': noise('L', 6, 5).resize((40, 19), Image.BICUBIC),
    'png': noise('RGB', 37, 22), 'webp': noise('RGB', 33, 20), 'tif': noise('RGB', 35, 18), 'palette.png': noise('RGB', 30, 41).quantize(90)}
for o in range(1, 9):
    for name, im in pictures.items():
        e = Image.Exif(); e[0x0112] = o
        kw = {'quality': 95, 'subsampling': 0} if name.endswith('jpg') else {'lossless': True} if name == 'webp' else {}
        if name == 'tif': kw = {'tiffinfo': {274: o}}
        else: kw['exif'] = e
        im.save(d + '%d.%s' % (o, name), **kw)
        got = Image.open(d + '%d.%s' % (o, name))
        if name != 'tif' or got.size == im.size and got.tobytes() == im.tobytes(): got = ImageOps.exif_transpose(got)  # newer Pillows turn TIFFs by themselves
        rgb = got.convert('RGB')
        open(d + '%d.%s.want' % (o, name), 'wb').write(b'%d %d\n' % rgb.size + rgb.tobytes())
`, dir)
	wants, _ := filepath.Glob(filepath.Join(dir, "*.want"))
	if len(wants) != 48 {
		t.Fatalf("%d pictures", len(wants))
	}
	for _, path := range wants {
		name := strings.TrimSuffix(filepath.Base(path), ".want")
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, _ := os.ReadFile(path)
		size, pixels, _ := bytes.Cut(want, []byte("\n"))
		img, _, err := dataset.Decode(b, 0)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := fmt.Sprint(img.Bounds().Dx(), img.Bounds().Dy()); got != string(size) {
			t.Errorf("%s: decoded as %s, Pillow sees %s", name, got, size)
			continue
		}
		if w, h, _, err := dataset.Header(b); err != nil || fmt.Sprint(w, h) != string(size) {
			t.Errorf("%s: the header says %d x %d (%v), Pillow sees %s", name, w, h, err, size)
		}
		if dataset.Turned(b) != (name[0] != '1') {
			t.Errorf("%s: turned: %v", name, dataset.Turned(b))
		}
		limit := 0.0
		if strings.HasSuffix(name, "jpg") {
			limit = 1
		}
		var got []byte
		for y := range img.Bounds().Dy() {
			for x := range img.Bounds().Dx() {
				r, g, b, _ := img.At(x, y).RGBA()
				got = append(got, byte(r>>8), byte(g>>8), byte(b>>8))
			}
		}
		compare(t, name, got, pixels, limit)
		near, full, _, err := dataset.DecodeReduced(b, 0, 8)
		if err != nil || fmt.Sprint(full.X, full.Y) != string(size) || (near.Bounds().Dx() > near.Bounds().Dy()) != (full.X > full.Y) {
			t.Errorf("%s: seen from afar it is %v of %v (%v), Pillow sees %s", name, near.Bounds(), full, err, size)
		}
	}
}

// TestPackTurns: the pack holds the image as it is seen, and says how many
// were turned, from the cache too.
func TestPackTurns(t *testing.T) {
	dir := t.TempDir()
	img := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			img.Set(x, y, color.RGBA{uint8(4 * x), uint8(4 * y), 0, 255})
		}
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a/1.jpg": file.Bytes(), "a/2.jpg": withExif(file.Bytes(), 6), "b/3.jpg": file.Bytes()} {
		path := filepath.Join(dir, "data", name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := dataset.List(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		path, report, err := dataset.Pack(folder, dataset.PackOptions{Size: 64, CacheDir: filepath.Join(dir, "cache")})
		if err != nil || report.Turned != 1 {
			t.Fatalf("%+v %v", report, err)
		}
		set, err := dataset.OpenPack(path)
		if err != nil {
			t.Fatal(err)
		}
		lying, seen := set.Pixels(0), set.Pixels(1)
		// Turned clockwise: what was at the bottom left is at the top left.
		if at := 3 * (63 * 64); seen[0] != lying[at] || seen[1] != lying[at+1] || seen[1] < 200 {
			t.Errorf("the top left is %v, want %v", seen[:3], lying[at:at+3])
		}
		set.Close()
	}
}

// TestFaxMeaning: one bilevel image in every compression and both meanings
// of 0 decodes to the same pixels.
func TestFaxMeaning(t *testing.T) {
	dir := t.TempDir()
	pillow(t, `
import sys
from PIL import Image
d = sys.argv[1] + '/'
src = Image.new('1', (80, 60))
src.putdata([255 if (x + 2 * y) % 37 < 15 else 0 for y in range(60) for x in range(80)])
src.save(d + 'want.png')
for comp in ('group4', 'group3', 'raw', 'tiff_lzw', 'packbits'):
    for zero in (0, 1): src.save(d + '%s_%d.tif' % (comp, zero), compression=comp, tiffinfo={262: zero})
`, dir)
	b, err := os.ReadFile(filepath.Join(dir, "want.png"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.tif"))
	if len(files) != 10 {
		t.Fatalf("%d files", len(files))
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := dataset.Decode(b, 0)
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
			continue
		}
		differ := 0
		for y := range 60 {
			for x := range 80 {
				a, _, _, _ := got.At(x, y).RGBA()
				b, _, _, _ := want.At(x, y).RGBA()
				if a != b {
					differ++
				}
			}
		}
		if differ > 0 {
			t.Errorf("%s: %d of 4800 pixels differ", filepath.Base(path), differ)
		}
	}
}

// FuzzOrientation: whatever stands where EXIF may stand, reading it ends and
// an image comes out with its sides or its sides changed.
func FuzzOrientation(f *testing.F) {
	var file bytes.Buffer
	if err := jpeg.Encode(&file, image.NewGray(image.Rect(0, 0, 5, 3)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	for o := byte(0); o < 10; o++ {
		f.Add(withExif(file.Bytes(), o))
	}
	f.Add([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x1aeXIf" + string(exif(3))))
	f.Add([]byte("RIFF\x00\x00\x00\x00WEBPEXIF\x1a\x00\x00\x00" + string(exif(3))))
	f.Add(exif(5))
	f.Fuzz(func(t *testing.T, b []byte) {
		dataset.Turned(b)
		w, h, format, err := dataset.Header(b)
		img, _, err2 := dataset.Decode(b, 1<<16)
		if err == nil && err2 == nil && format != "gif" && img.Bounds().Size() != (image.Point{X: w, Y: h}) {
			t.Errorf("a header of %d x %d, a picture of %v", w, h, img.Bounds())
		}
	})
}
