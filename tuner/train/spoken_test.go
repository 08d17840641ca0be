package train

import "testing"

func TestSpoken(t *testing.T) {
	for line, want := range map[string]string{
		`"image skipped" file=a.png`:       "image skipped (file a.png)",
		`"skipped a b.png: jpeg: \"odd\""`: `skipped a b.png: jpeg: "odd"`,
		`bare`:                             "bare",
		`"of two" checkpoint="/x y/m.pth" reason="no size given"`: "of two (checkpoint /x y/m.pth; reason no size given)",
		`words that are no attributes`:                            "words that are no attributes",
		``:                                                        "",
	} {
		if got := spoken(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
