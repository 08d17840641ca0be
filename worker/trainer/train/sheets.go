//go:build libtorch

package train

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"

	"atelier/common/filename"
	"atelier/common/settings"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/torchx"
)

// SheetImages is how many images of a class a sample sheet shows.
const SheetImages = 16

// Sheets writes dir/<class>.png, so many images of each class as a run with
// these settings and seed sees them while training. cache is the folder of
// packed sets.
func Sheets(ctx context.Context, s settings.Settings, seed uint64, cache, dir string, each int, log *slog.Logger) error {
	d, err := openData(ctx, s, cache, log, func(string) {})
	if err != nil {
		return Classify(err)
	}
	defer d.close()
	d.seed, d.device = seed, torchx.CPU
	return Classify(d.sheets(dir, s, each))
}

// sheets writes dir/<class>.png (a very long class cut): augmented training images of each class, each
// times as many, just as the first epochs see them. What CutMix put into an
// image is outlined, and the caption has its class and its share of the area.
func (d *data) sheets(dir string, s settings.Settings, each int) error {
	from := filepath.Base(filepath.Dir(filepath.Clean(s.Train))) + "/" + filepath.Base(s.Train)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tiles := make([][]augment.Tile, len(d.classes))
	full := func() bool {
		return !slices.ContainsFunc(tiles, func(t []augment.Tile) bool { return len(t) < each })
	}
	for epoch := 1; epoch <= each && !full(); epoch++ {
		if err := d.collect(tiles, each, epoch, s.BatchSize, full); err != nil {
			return fmt.Errorf("sample sheets: %w", err)
		}
	}
	for c, name := range d.classes {
		if len(tiles[c]) == 0 {
			continue // a class that balanced draws happened to miss
		}
		if err := augment.WriteSheet(filepath.Join(dir, filename.Cut(name, filename.Max-20)+".png"),
			augment.Heading{Class: name, Data: from, Of: d.recipe}, d.train.Size(), tiles[c]); err != nil {
			return err
		}
	}
	return nil
}

// collect adds an epoch's images to the tiles of their classes.
func (d *data) collect(tiles [][]augment.Tile, each, epoch, batchSize int, full func() bool) error {
	f := d.epoch(epoch, batchSize)
	defer f.close()
	for f.step < f.len() && !full() {
		p := f.pieces[f.step]
		b, err := f.next()
		if err != nil {
			return err
		}
		values, err := torchx.Floats(b.x)
		b.free()
		if err != nil {
			return err
		}
		images := f.order[p.from:p.to]
		n := len(images)
		for i, at := range images {
			c := d.train.Label(at)
			if len(tiles[c]) >= each {
				continue
			}
			tile := augment.Tile{Pixels: d.pixels(values[i*len(values)/n : (i+1)*len(values)/n]), Mixed: b.box}
			if b.box.Area() > 0 {
				other := d.classes[d.train.Label(images[(i+n-1)%n])]
				tile.Caption = fmt.Sprintf("%.0f %% of\n%s", 100*(1-b.lambda), other)
			}
			tiles[c] = append(tiles[c], tile)
		}
	}
	return nil
}

// pixels turns one normalised image [3, size, size] back into bytes.
func (d *data) pixels(planes []float32) []byte {
	count := len(planes) / 3
	out := make([]byte, len(planes))
	for c := range 3 {
		for p := range count {
			v := (planes[c*count+p] - d.shift[c]) / d.scale[c]
			out[3*p+c] = byte(math.Round(float64(min(max(v, 0), 255))))
		}
	}
	return out
}
