//go:build libtorch

package infer

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"testing"

	"atelier/common/dataset"
)

// A photograph that lies on its side in the file is asked about, and shown, as
// people see it: inference and training see the same.
func TestPreparedAsSeen(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 64, 32)) // bright at the left
	for y := range 32 {
		for x := range 64 {
			img.Set(x, y, color.Gray{uint8(255 - 4*x)})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	exif := "\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
	file := append(append(append([]byte{}, b.Bytes()[:2]...), exif...), b.Bytes()[2:]...)
	pixels, shown, err := prepare(file, 32, true)
	if err != nil || !dataset.Turned(file) {
		t.Fatal(err)
	}
	if top, bottom := pixels[3*16], pixels[3*(31*32+16)]; int(top) < int(bottom)+60 {
		t.Errorf("the model sees %d at the top and %d at the bottom; turned clockwise, the left is at the top", top, bottom)
	}
	if top, bottom := shown.Pix[4*100], shown.Pix[len(shown.Pix)-4*100]; int(top) < int(bottom)+60 {
		t.Errorf("shown are %d at the top and %d at the bottom", top, bottom)
	}
}
