package typeface_test

import (
	"image"
	"image/color"
	"testing"

	"atelier/common/typeface"
)

// Letters keep their own widths: two digits one are twice as wide as one, and
// the dot after a y is not below it.
func TestLettersDoNotTouch(t *testing.T) {
	for _, bold := range []bool{false, true} {
		f := typeface.New(13, bold)
		for pair, single := range map[string][2]string{"11": {"1", "1"}, "y.": {"y", "."}, "AV": {"A", "V"}} {
			if got, want := f.Width(pair), f.Width(single[0])+f.Width(single[1]); got < want-1 {
				t.Errorf("%q is %d pixels wide, its letters %d", pair, got, want)
			}
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, 60, 20))
	f := typeface.New(13, false)
	f.Draw(img, color.White, 4, 14, 0, "11")
	columns := 0 // runs of columns with ink: one for each digit
	dark := true
	for x := range 60 {
		ink := false
		for y := range 20 {
			ink = ink || img.RGBAAt(x, y).A > 60
		}
		if ink && dark {
			columns++
		}
		dark = !ink
	}
	if columns != 2 {
		t.Errorf("11 is drawn in %d pieces", columns)
	}
}

func TestFit(t *testing.T) {
	f := typeface.New(12, false)
	long := "american_foursquare_architecture"
	for _, room := range []int{200, 100, 40, 8} {
		if got := f.Fit(long, room); f.Width(got) > room && len([]rune(got)) > 2 {
			t.Errorf("%q is %d pixels wide, the room %d", got, f.Width(got), room)
		}
	}
	if got := f.Fit("short", 0); got != "short" {
		t.Errorf("without a limit: %q", got)
	}
}
