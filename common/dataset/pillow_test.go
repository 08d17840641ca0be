package dataset_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/dataset"
)

// pillow runs a script with the system's Python and Pillow, or skips where there is none.
func pillow(t *testing.T, script string, args ...string) {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if err := exec.Command(interpreter, "-c", "import PIL.Image").Run(); err != nil {
		t.Skipf("%s has no Pillow (Debian: apt-get install python3-pil): %v", interpreter, err)
	}
	if out, err := exec.Command(interpreter, append([]string{"-c", script}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("python: %v\n%s", err, out)
	}
}

// TestAgainstPillow writes images of every kind with Pillow, and what Pillow makes of them: RGB, and a square
// by torchvision's Resize and CenterCrop. Lossless formats must agree to the bit, JPEG and WebP nearly.
func TestAgainstPillow(t *testing.T) {
	dir := t.TempDir()
	pillow(t, `
import sys, random
from PIL import Image, ImageFilter, ImageOps
d = sys.argv[1] + '/'
random.seed(3)
def noise(mode, w, h):
    n = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (w, h), bytes(random.randrange(256) for _ in range(w * h * n)))
def square(im, size, to, resample):
    w, h = im.size
    if w <= h: nw, nh = to, int(to * h / w)
    else: nw, nh = int(to * w / h), to
    im = im.resize((nw, nh), resample)
    top, left = int(round((nh - size) / 2.)), int(round((nw - size) / 2.))
    return im.crop((left, top, left + size, top + size))
def put(name, im, **kw):
    im.save(d + name, **kw)
    rgb = ImageOps.exif_transpose(Image.open(d + name)).convert('RGB')
    open(d + name + '.full', 'wb').write(b'%d %d\n' % rgb.size + rgb.tobytes())
    for tag, r in (('bilinear', Image.BILINEAR), ('bicubic', Image.BICUBIC)):
        open(d + name + '.' + tag, 'wb').write(square(rgb, 21, 27, r).tobytes())
put('rgb.png', noise('RGB', 61, 83)); put('wide.png', noise('RGB', 200, 33)); put('small.png', noise('RGB', 9, 11))
put('grey.png', noise('L', 50, 40)); put('rgba.png', noise('RGBA', 40, 50)); put('la.png', noise('LA', 44, 41))
p = noise('RGB', 45, 51).quantize(200); put('palette.png', p); put('transparent.png', p, transparency=3)
put('bits.png', noise('L', 40, 40).convert('1')); put('few.png', noise('RGB', 40, 40).quantize(13), bits=4)
put('rgb.bmp', noise('RGB', 61, 43)); put('grey.bmp', noise('L', 40, 41)); put('palette.bmp', p)
put('rgb.tiff', noise('RGB', 61, 43)); put('lzw.tiff', noise('RGB', 61, 43), compression='tiff_lzw'); put('grey.tif', noise('L', 33, 44))
put('rgb.ppm', noise('RGB', 37, 39)); put('grey.pgm', noise('L', 38, 39)); put('first.gif', p)
put('keyed.png', noise('RGB', 40, 40), transparency=(1, 2, 3))
put('lossless.webp', noise('RGB', 40, 47), lossless=True)
smooth = noise('RGB', 12, 10).resize((180, 150), Image.BICUBIC)
put('444.jpg', smooth, quality=95, subsampling=0); put('420.jpg', smooth, quality=95); put('progressive.jpg', smooth, quality=90, progressive=True)
put('grey.jpg', smooth.convert('L'), quality=95); put('cmyk.jpg', smooth.convert('CMYK'), quality=95)
put('lossy.webp', smooth, quality=95); put('alpha.webp', smooth.convert('RGBA'), quality=95)
open(d + 'plain.ppm', 'w').write('P3 # comment\n2 1\n# another\n15\n 0 5 15\t3 15 0\n')
e = Image.Exif(); e[0x0112] = 6
put('rotated.jpg', smooth, exif=e, quality=95, subsampling=0)
`, dir)
	full, err := filepath.Glob(filepath.Join(dir, "*.full"))
	if err != nil || len(full) < 28 {
		t.Fatalf("%d pictures, %v", len(full), err)
	}
	for _, path := range full {
		name := strings.TrimSuffix(filepath.Base(path), ".full")
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		img, format, err := dataset.Decode(b, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		limit := 0.0 // mean difference
		switch {
		case name == "420.jpg" || name == "progressive.jpg" || name == "cmyk.jpg":
			limit = 2.5 // chroma is repeated, not interpolated
		case strings.HasSuffix(name, ".jpg"):
			limit = 1
		case name == "lossy.webp" || name == "alpha.webp":
			limit = 2.5
		}
		want, _ := os.ReadFile(path)
		_, want, _ = bytes.Cut(want, []byte("\n"))
		w, h := img.Bounds().Dx(), img.Bounds().Dy()
		if 3*w*h != len(want) {
			t.Errorf("%s: %d x %d pixels, %d bytes wanted", name, w, h, len(want))
			continue
		}
		if w == h {
			got := make([]byte, len(want))
			dataset.Square(got, img, format, w, w, dataset.Stretch, dataset.Bilinear)
			compare(t, name, got, want, limit)
		}
		for _, filter := range []dataset.Filter{dataset.Bilinear, dataset.Bicubic} {
			want, err := os.ReadFile(filepath.Join(dir, name+"."+filter.String()))
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 21*21*3)
			dataset.Square(got, img, format, 21, 27, dataset.CenterCrop, filter)
			compare(t, name+" "+filter.String(), got, want, limit)
		}
	}
}

func compare(t *testing.T, name string, got, want []byte, limit float64) {
	t.Helper()
	sum, worst := 0, 0
	for i := range want {
		d := int(got[i]) - int(want[i])
		d = max(d, -d)
		sum += d
		worst = max(worst, d)
	}
	mean := float64(sum) / float64(len(want))
	if mean > limit {
		t.Errorf("%s: mean difference %.3f, greatest %d; allowed %.1f", name, mean, worst, limit)
	}
}
