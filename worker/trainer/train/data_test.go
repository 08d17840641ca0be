//go:build libtorch

package train

import (
	"image"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/settings"
)

// Packing is told by who packs: a member that finds the images packed, by another one
// meanwhile or by an earlier training, says nothing.
func TestPackingIsToldByWhoPacks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"train/a/1", "train/a/2", "train/b/1", "validation/a/1", "validation/b/1"} {
		path := filepath.Join(dir, name+".png")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 32, 32))); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	s, err := settings.Parse([]byte(`{"image_size":32,"data":{"train":"train","validation":"validation"}}`), nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"packing data.train: 1 of 3 images", ""} {
		var told []string
		d, err := openData(t.Context(), s, filepath.Join(dir, "cache"), slog.New(slog.DiscardHandler), func(text string) { told = append(told, text) })
		if err != nil {
			t.Fatal(err)
		}
		d.close()
		if first := strings.Join(told[:min(len(told), 1)], ""); first != want {
			t.Errorf("told %q, want %q first", told, want)
		}
	}
}
