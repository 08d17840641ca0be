package cli

import (
	"fmt"
	"strings"
	"testing"
)

// Many skipped images are ten lines and a word, and advice is given once.
func TestWarningsOfManyImages(t *testing.T) {
	var said strings.Builder
	e := &Env{Err: &said}
	cleared := 0
	warn := e.warner(func() { cleared++ })
	warn("the checkpoint does not say its image size (checkpoint m.pth)")
	for i := range 25 {
		warn(fmt.Sprintf("skipped %d.jpg: not a picture, but text", i))
	}
	warn("the disk is nearly full")
	text := said.String()
	if n := strings.Count(text, "warning: skipped"); n != mostSkipped || cleared != mostSkipped+3 {
		t.Errorf("%d skipped images named, %d lines:\n%s", n, cleared, text)
	}
	for _, once := range []string{"more images are skipped", "atelier data cleanup FOLDER", "does not say its image size", "nearly full"} {
		if n := strings.Count(text, once); n != 1 {
			t.Errorf("%q is said %d times:\n%s", once, n, text)
		}
	}
}
