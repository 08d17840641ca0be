package cli

import (
	"fmt"
	"strings"
	"testing"

	"atelier/common/inference"
)

// Many skipped images are ten lines and a word, and advice is given once.
func TestWarningsOfManyImages(t *testing.T) {
	var said strings.Builder
	e := &Env{Err: &said}
	cleared := 0
	w := &warner{e: e, clear: func() { cleared++ }}
	w.warn("the checkpoint does not say its image size (checkpoint m.pth)")
	for i := range 25 {
		w.skip(fmt.Sprintf("skipped %d.jpg: not an image but text", i))
	}
	w.warn("the disk is nearly full")
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

// What came of a run is said in words that fit it.
func TestOutcomesInWords(t *testing.T) {
	for want, c := range map[string]struct {
		mode string
		o    inference.Summary
	}{
		"no mistakes": {inference.ExplainWrong, inference.Summary{Files: []string{"a.jsonl"}}},
		"1 image in 1.5s, 2 charts\nwrote inference.log, gradcam_a.png, class_comparison_a.png\n": {inference.ExplainSingle,
			inference.Summary{Images: 1, Charts: 2, Seconds: 1.5, Files: []string{"inference.log"}, Drawn: []string{"gradcam_a.png", "class_comparison_a.png"}}},
		"9 images in 1.5s, 9 charts\nwrote inference.log, heatmaps/, suspicious/\n": {inference.Production,
			inference.Summary{Images: 9, Charts: 9, Seconds: 1.5, Files: []string{"inference.log"}, Drawn: []string{"heatmaps/1.png", "suspicious/2.png", "heatmaps/3.png", "heatmaps/4.png", "heatmaps/5.png"}}},
	} {
		var said strings.Builder
		(&Env{Err: &said}).inferred(&c.o, c.mode)
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q, want %q", said.String(), want)
		}
	}
}
