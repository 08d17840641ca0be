// Package planted puts faults into a copy of an image folder, so that it is
// known what a cleanup has to find: the same image again in seven ways, and
// files that are no images. It serves tests and measurements.
package planted

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/dataset"

	ximage "golang.org/x/image/draw"
)

// Kind of fault.
type Kind string

// The same image again.
const (
	Copy     Kind = "byte copy"
	JPEG     Kind = "JPEG of quality 60"
	PNG      Kind = "PNG"
	Half     Kind = "half the size"
	Larger   Kind = "1.6 times the size"
	Mirrored Kind = "mirrored"
	Cropped  Kind = "cropped by 5 %"
)

// What is no image, or too small a one.
const (
	Truncated Kind = "truncated"
	Empty     Kind = "zero bytes"
	Text      Kind = "text as .png"
	Page      Kind = "HTML as .jpg"
	Tiny      Kind = "12 pixels"
)

// Again are the kinds of the same image again, Faults the others.
var (
	Again  = []Kind{Copy, JPEG, PNG, Half, Larger, Mirrored, Cropped}
	Faults = []Kind{Truncated, Empty, Text, Page, Tiny}
)

// Plant is one planted file.
type Plant struct {
	Kind Kind
	Of   string // the image it was made from, relative, with slashes
}

// Into copies the tree from to dir (which must not be there yet) and puts a
// planted file beside each image; kind says for the i-th image, in the
// order of names, what it shall be, "" being nothing. The plants are by their
// path, relative, with slashes.
func Into(from, dir string, kind func(i int) Kind) (map[string]Plant, error) {
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return nil, err
	}
	plants := map[string]Plant{}
	i := 0
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		img, _, err := dataset.Decode(b, 0)
		if err != nil {
			return nil // a manifest, or a fault that was there before
		}
		k := kind(i)
		i++
		if k == "" {
			return nil
		}
		ext, b, err := made(k, b, img, filepath.Ext(path))
		if err != nil {
			return fmt.Errorf("%s of %s: %w", k, path, err)
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(rel, filepath.Ext(rel)) + "_again" + ext
		plants[filepath.ToSlash(name)] = Plant{k, filepath.ToSlash(rel)}
		return os.WriteFile(filepath.Join(dir, name), b, 0o644)
	})
	return plants, err
}

// made is the file of a kind and its ending.
func made(k Kind, b []byte, img image.Image, ext string) (string, []byte, error) {
	box := img.Bounds()
	w, h := box.Dx(), box.Dy()
	switch k {
	case Copy:
		return ext, b, nil
	case JPEG:
		b, err := encoded(img, 60)
		return ".jpg", b, err
	case PNG:
		b, err := encoded(img, 0)
		return ".png", b, err
	case Half:
		b, err := encoded(scaled(img, w/2, h/2), 85)
		return ".jpg", b, err
	case Larger:
		b, err := encoded(scaled(img, w*8/5, h*8/5), 85)
		return ".jpg", b, err
	case Mirrored:
		b, err := encoded(mirrored(img), 85)
		return ".jpg", b, err
	case Cropped:
		b, err := encoded(part(img, image.Rect(box.Min.X+w*5/100, box.Min.Y, box.Max.X, box.Max.Y-h*5/100)), 85)
		return ".jpg", b, err
	case Truncated:
		b, err := encoded(img, 90)
		return ".jpg", b[:len(b)*3/5], err
	case Empty:
		return ".jpg", nil, nil
	case Text:
		return ".png", []byte("slates, 40\nnails, 2 boxes\n"), nil
	case Page:
		return ".jpg", []byte("<!DOCTYPE html><html><body>404 not found</body></html>"), nil
	case Tiny:
		b, err := encoded(scaled(img, 12, 12), 0)
		return ".png", b, err
	}
	return "", nil, fmt.Errorf("no such kind")
}

// encoded is a JPEG of a quality, or a PNG for 0.
func encoded(img image.Image, quality int) ([]byte, error) {
	var b bytes.Buffer
	var err error
	if quality == 0 {
		err = png.Encode(&b, img)
	} else {
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: quality})
	}
	return b.Bytes(), err
}

func part(img image.Image, r image.Rectangle) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, r.Dx(), r.Dy()))
	draw.Draw(out, out.Bounds(), img, r.Min, draw.Src)
	return out
}

func scaled(img image.Image, w, h int) image.Image {
	out := image.NewRGBA(image.Rect(0, 0, max(w, 1), max(h, 1)))
	ximage.CatmullRom.Scale(out, out.Bounds(), img, img.Bounds(), draw.Src, nil)
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
