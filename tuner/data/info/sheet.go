package info

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"atelier/common/dataset"
	"atelier/common/files"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// The sheet's measures in pixels.
const (
	margin  = 20
	heading = 62
	label   = 236 // the column of names
	cell    = 128
	gap     = 8
	maxRows = 60
	maxFile = 256 << 20
)

var (
	ink   = color.RGBA{0x22, 0x22, 0x22, 0xff}
	faint = color.RGBA{0x66, 0x66, 0x66, 0xff}
	bed   = color.RGBA{0xee, 0xee, 0xee, 0xff}
	bar   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
)

// Sheet draws a contact sheet: a row a class with its name, its figures and
// columns of its images, taken evenly over the class and whole, not cropped.
// After 60 classes it says how many are left out. Images that do not decode
// are shown as such.
func (n *Info) Sheet(ctx context.Context, columns int) (image.Image, error) {
	if columns < 1 || columns > 100 {
		return nil, fmt.Errorf("contact sheet of %d images per class: give 1 to 100", columns)
	}
	rows := min(len(n.Classes), maxRows)
	height := margin + heading + rows*(cell+gap) + margin
	if rows < len(n.Classes) {
		height += 30
	}
	out := image.NewRGBA(image.Rect(0, 0, margin+label+columns*(cell+gap)-gap+margin, height))
	draw.Draw(out, out.Bounds(), image.White, image.Point{}, draw.Src)
	w, err := newWriter(out)
	if err != nil {
		return nil, err
	}
	room := out.Bounds().Dx() - 2*margin
	w.text(w.large, ink, margin, margin+20, room, filepath.Base(filepath.Clean(n.Path)))
	w.text(w.plain, faint, margin, margin+42, room, n.headline())
	most := 1
	for _, c := range n.Classes {
		most = max(most, c.Images)
	}
	type place struct {
		class, load int
		at          image.Rectangle
	}
	var places []place
	for i := range rows {
		c := &n.Classes[i]
		y := margin + heading + i*(cell+gap)
		w.class(c, n, y, most)
		shown := min(columns, len(c.files))
		for k := range shown {
			x := margin + label + k*(cell+gap)
			places = append(places, place{i, k * len(c.files) / shown, image.Rect(x, y, x+cell, y+cell)})
		}
		if shown == 0 {
			w.text(w.plain, faint, margin+label, y+cell/2, room-label, "no charts")
		}
	}
	if left := len(n.Classes) - rows; left > 0 {
		w.text(w.plain, faint, margin, height-margin, room, fmt.Sprintf("and %d more classes", left))
	}
	// Every image has its own cells of the sheet: they are drawn side by side.
	jobs := make(chan place)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for p := range jobs {
				draw.Draw(out, p.at, &image.Uniform{C: bed}, image.Point{}, draw.Src)
				img, err := n.load(n.Classes[p.class].files[p.load])
				if err != nil {
					cross(out, p.at)
					continue
				}
				fit(out, p.at, img)
			}
		})
	}
feed:
	for _, p := range places {
		select {
		case jobs <- p:
		case <-ctx.Done():
			break feed
		}
	}
	close(jobs)
	wg.Wait()
	return out, ctx.Err()
}

// headline is the figures of all.
func (n *Info) headline() string {
	parts := []string{fmt.Sprintf("%d images, %d classes", n.Images, len(n.Classes))}
	for _, p := range n.Parts {
		parts = append(parts, fmt.Sprintf("%s %d", p.Part, p.Images))
	}
	if n.Images > 0 {
		parts = append(parts, fmt.Sprintf("median %d x %d pixels", n.Width.Median, n.Height.Median))
	}
	return strings.Join(parts, "  ·  ")
}

// class writes what stands before a row.
func (w *writer) class(c *Class, n *Info, y, most int) {
	const room = label - 16
	w.text(w.bold, ink, margin, y+24, room, c.Class)
	w.text(w.plain, ink, margin, y+48, room, fmt.Sprintf("%d images, %.1f %%", c.Images, 100*c.Share))
	draw.Draw(w.out, image.Rect(margin, y+56, margin+max(1, room*c.Images/most), y+62), &image.Uniform{C: bar}, image.Point{}, draw.Src)
	line := y + 82
	if len(n.Parts) > 0 {
		var counts []string
		for _, p := range n.Parts {
			counts = append(counts, fmt.Sprintf("%s %d", p.Part, c.Parts[p.Part]))
		}
		w.text(w.small, faint, margin, line, room, strings.Join(counts, " · "))
		line += 20
	}
	if n.Kind != Pack && c.Images > 0 {
		w.text(w.small, faint, margin, line, room, fmt.Sprintf("median %d x %d pixels", c.Width.Median, c.Height.Median))
	}
}

// load reads and decodes one image, of a pack or of a file.
func (n *Info) load(f file) (image.Image, error) {
	if n.set != nil {
		side := n.set.Size()
		m := image.NewRGBA(image.Rect(0, 0, side, side))
		for i, p := 0, n.set.Pixels(f.at); 3*i < len(p); i++ {
			m.Pix[4*i], m.Pix[4*i+1], m.Pix[4*i+2], m.Pix[4*i+3] = p[3*i], p[3*i+1], p[3*i+2], 0xff
		}
		return m, nil
	}
	in, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxFile))
	if err != nil {
		return nil, err
	}
	img, _, err := dataset.Decode(b, 0)
	return img, err
}

// fit draws an image whole into the middle of a cell; small ones are enlarged.
func fit(out *image.RGBA, at image.Rectangle, img image.Image) {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	to := image.Pt(cell, max(1, h*cell/w))
	if h > w {
		to = image.Pt(max(1, w*cell/h), cell)
	}
	corner := at.Min.Add(image.Pt((cell-to.X)/2, (cell-to.Y)/2))
	draw.BiLinear.Scale(out, image.Rectangle{Min: corner, Max: corner.Add(to)}, img, img.Bounds(), draw.Over, nil)
}

// cross marks an image that does not decode.
func cross(out *image.RGBA, at image.Rectangle) {
	red := color.RGBA{0xd5, 0x5e, 0x00, 0xff}
	for i := 24; i < cell-24; i++ {
		for t := range 4 {
			out.SetRGBA(at.Min.X+i, at.Min.Y+i+t-2, red)
			out.SetRGBA(at.Min.X+i, at.Max.Y-1-i+t-2, red)
		}
	}
}

// writer sets text on a sheet.
type writer struct {
	out                       *image.RGBA
	large, bold, plain, small font.Face
}

func newWriter(out *image.RGBA) (*writer, error) {
	w := &writer{out: out}
	for _, f := range []struct {
		face *font.Face
		ttf  []byte
		size float64
	}{{&w.large, gobold.TTF, 22}, {&w.bold, gobold.TTF, 18}, {&w.plain, goregular.TTF, 15}, {&w.small, goregular.TTF, 13}} {
		parsed, err := opentype.Parse(f.ttf)
		if err != nil {
			return nil, err
		}
		if *f.face, err = opentype.NewFace(parsed, &opentype.FaceOptions{Size: f.size, DPI: 72, Hinting: font.HintingFull}); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// text writes a line; what does not fit into room pixels ends in three dots.
func (w *writer) text(face font.Face, c color.Color, x, y, room int, s string) {
	if font.MeasureString(face, s).Ceil() > room {
		runes := []rune(s)
		for len(runes) > 1 && font.MeasureString(face, string(runes)+"…").Ceil() > room {
			runes = runes[:len(runes)-1]
		}
		s = string(runes) + "…"
	}
	d := font.Drawer{Dst: w.out, Src: &image.Uniform{C: c}, Face: face, Dot: fixed.P(x, y)}
	d.DrawString(s)
}

// Save writes a sheet as PNG: whole or not at all.
func Save(path string, img image.Image) error {
	tmp, err := files.Create(path, 0o644)
	if err != nil {
		return err
	}
	defer tmp.Abort()
	if err := png.Encode(tmp, img); err != nil {
		return err
	}
	return tmp.CommitUnsynced()
}
