package dataset

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"os"
	"path/filepath"
	"testing"
)

// FuzzPNM: no bytes make the reader panic or take memory the file does not pay for.
func FuzzPNM(f *testing.F) {
	for _, s := range []string{
		"P6 2 1 255\n\x01\x02\x03\x04\x05\x06", "P5\n# c\n1 2\n65535\nabcd", "P3 1 1 15\n1 2 3", "P2 2 2 9 1 2 3 4",
		"P5 999999999 999999999 255\n", "P6 1 1 0\n", "P2 1 1 1 2",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parsePNMHeader(b)
		if err != nil {
			return
		}
		img, err := decodePNM(b)
		if err != nil {
			return
		}
		if img.Bounds() != image.Rect(0, 0, h.width, h.height) || h.width*h.height > len(b) {
			t.Fatalf("%v from %d bytes", img.Bounds(), len(b))
		}
		out := make([]byte, 4*4*3)
		Square(out, img, "pnm", 4, 5, CenterCrop, Bilinear)
	})
}

// FuzzHeader: whatever decodeHeader takes has places inside the file.
func FuzzHeader(f *testing.F) {
	h := header{size: 2, count: 3, classes: 1, labelsAt: 4160, namesAt: 4184, namesLen: 9}
	f.Add(h.encode(), int64(4193))
	h.count = 1 << 39
	f.Add(h.encode(), int64(4193))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if len(b) >= headerSize { // let the fuzzer past the checksum
			b = bytes.Clone(b[:headerSize])
			sum := sha256.Sum256(b[:headerSize-sha256.Size])
			copy(b[headerSize-sha256.Size:], sum[:])
		}
		h, err := decodeHeader(b, size)
		if err != nil {
			return
		}
		if pixelsStart+h.pixelsLen() > h.labelsAt || h.labelsAt+8*h.count != h.namesAt || h.fileLen() != size || h.pixelsLen() <= 0 {
			t.Fatalf("accepted %+v for %d bytes", h, size)
		}
		if !bytes.Equal(h.encode(), b[:headerSize]) {
			// Bytes between the fields and the checksum are not looked at.
			if got, err := decodeHeader(h.encode(), size); err != nil || got != h {
				t.Fatalf("%+v became %+v, %v", h, got, err)
			}
		}
	})
}

// FuzzNames: the table of names cannot ask for more than its bytes.
func FuzzNames(f *testing.F) {
	n := names{classes: []string{"a"}, paths: []string{"a/1.jpg", "a/2.jpg"}, skipped: []Skip{{"a/3.jpg", "cut"}}}
	f.Add(n.encode(), 1, int64(2), 1)
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 1, int64(1), 0)
	f.Fuzz(func(t *testing.T, b []byte, classes int, count int64, skipped int) {
		if classes < 1 || classes > maxClasses || count < 1 || count > maxImages || skipped < 0 || skipped > 1<<32-1 {
			return
		}
		n, err := decodeNames(b, header{classes: classes, count: count, skipped: skipped})
		if err != nil {
			return
		}
		if len(n.classes) != classes || int64(len(n.paths)) != count || len(n.skipped) != skipped {
			t.Fatalf("%d %d %d of %d %d %d", len(n.classes), len(n.paths), len(n.skipped), classes, count, skipped)
		}
	})
}

// FuzzDecode: no bytes make Decode panic; the pixel limit holds.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("P6 2 1 255\n\x01\x02\x03\x04\x05\x06"))
	f.Add([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"))
	f.Fuzz(func(t *testing.T, b []byte) {
		img, _, err := Decode(b, 1<<16)
		if err == nil && img.Bounds().Dx()*img.Bounds().Dy() > 1<<16 {
			t.Fatalf("%v", img.Bounds())
		}
	})
}

// BenchmarkPack packs photographs of camera-like and web-like size.
func BenchmarkPack(b *testing.B) {
	for _, c := range []struct{ w, h, n, size int }{{96, 96, 400, 64}, {640, 480, 60, 224}, {2000, 1500, 6, 224}} {
		b.Run(fmt.Sprintf("%dx%d-to-%d", c.w, c.h, c.size), func(b *testing.B) {
			dir := b.TempDir()
			pic := benchImage(c.w, c.h)
			for i := range c.n {
				p := filepath.Join(dir, "a", fmt.Sprintf("%d.jpg", i))
				os.MkdirAll(filepath.Dir(p), 0o755)
				if err := os.WriteFile(p, pic, 0o644); err != nil {
					b.Fatal(err)
				}
			}
			f, err := List(dir)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, _, err := Pack(f, PackOptions{Size: c.size, CacheDir: b.TempDir()}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.n*b.N)/b.Elapsed().Seconds(), "images/s")
		})
	}
}

func BenchmarkOpenPack(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.pack")
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := newPackWriter(out, 64, []string{"a"})
	pixels := make([]byte, 64*64*3)
	for i := range 10000 {
		if err := w.add(fmt.Sprint(i), 0, pixels); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.finish(nil, 0, [32]byte{}); err != nil {
		b.Fatal(err)
	}
	out.Close()
	b.SetBytes(10000 * 64 * 64 * 3)
	for b.Loop() {
		s, err := OpenPack(path)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
