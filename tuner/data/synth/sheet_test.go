package synth_test

import (
	"image"
	"image/draw"
	"image/png"
	"os"
	"testing"

	"atelier/tuner/data/synth"
)

// TestContactSheet writes a sheet of every style for people to look at, where SYNTH_SHEET names a file.
func TestContactSheet(t *testing.T) {
	path := os.Getenv("SYNTH_SHEET")
	if path == "" {
		t.Skip("set SYNTH_SHEET=file.png to get a sheet of all styles")
	}
	const size, columns = 128, 10
	styles := synth.Styles()
	sheet := image.NewRGBA(image.Rect(0, 0, columns*size, len(styles)*size))
	for row, name := range styles {
		for col := range columns {
			img, err := synth.Render(name, "train", col+1, synth.Options{Size: size, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			draw.Draw(sheet, image.Rect(col*size, row*size, (col+1)*size, (row+1)*size), img, image.Point{}, draw.Src)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, sheet); err != nil {
		t.Fatal(err)
	}
}
