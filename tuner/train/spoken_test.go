package train

import (
	"strings"
	"testing"

	"atelier/common/trainerproto"
)

func TestSpoken(t *testing.T) {
	for line, want := range map[string]string{
		`"image skipped" file=a.png`:                          "image skipped (file a.png)",
		`"skipped a b.png: jpeg: \"odd\"" skipped_image=true`: `skipped a b.png: jpeg: "odd"`,
		`bare`: "bare",
		`"of two" checkpoint="/x y/m.pth" reason="no size given"`: "of two (checkpoint /x y/m.pth; reason no size given)",
		`words that are no attributes`:                            "words that are no attributes",
		``:                                                        "",
	} {
		got, ofImage := spoken(line)
		if got != want || ofImage != strings.Contains(line, trainerproto.LogSkipped) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
