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
	"time"

	"atelier/common/dataset"
	"atelier/common/files"
	"atelier/common/typeface"

	"golang.org/x/image/draw"
)

// The sheet's measures in pixels.
const (
	margin  = 20
	heading = 62
	label   = 236 // the column of names
	cell    = 128 // of an image, where there is room
	least   = 32  // of an image, however many are asked for: no more are shown than fit then
	written = 96  // height of what is written beside a row
	gap     = 8
	between = 32 // two columns of classes
	maxRows = 60
	maxFile = 256 << 20
	maxSide = 2400 // of the sheet: what a viewer shows at its own size
)

var (
	ink   = color.RGBA{0x22, 0x22, 0x22, 0xff}
	faint = color.RGBA{0x66, 0x66, 0x66, 0xff}
	bed   = color.RGBA{0xee, 0xee, 0xee, 0xff}
	bar   = color.RGBA{0x00, 0x72, 0xb2, 0xff}
)

// layout is where the classes of a sheet are: in columns of so many rows, with
// images of a size that fits the sheet.
type layout struct {
	columns, rows int // of classes
	images        int // of each class, at most
	cell, row     int // side of an image, height of a row
	width, height int // of the sheet
}

// arrange sets classes in one column as long as they fit below one another, in
// two or more then. The images of a class are as large as a row of them fits.
func arrange(classes, images, more int) layout {
	l := layout{cell: cell, row: cell + gap}
	room := maxSide - 2*margin - heading - more
	if l.columns = 1; classes*l.row > room {
		l.row = written + gap
		l.columns = (classes*l.row + room - 1) / room
	}
	l.rows = (classes + l.columns - 1) / l.columns
	wide := (maxSide - 2*margin - (l.columns-1)*between) / l.columns
	images = min(images, (wide-label)/(least+gap))
	l.images, l.cell = images, min(cell, (wide-label)/images-gap)
	if l.columns > 1 { // the rows may be higher than what is written in them
		l.cell = min(l.cell, room/max(l.rows, 1)-gap)
		l.row = max(l.cell, written) + gap
	}
	l.width = 2*margin + l.columns*(label+images*(l.cell+gap)-gap) + (l.columns-1)*between
	l.height = 2*margin + heading + l.rows*l.row + more
	return l
}

// at is the top left corner of a class's row.
func (l layout) at(class int) (x, y int) {
	wide := (l.width - 2*margin - (l.columns-1)*between) / l.columns
	return margin + class/max(l.rows, 1)*(wide+between), margin + heading + class%max(l.rows, 1)*l.row
}

// Sheet draws a contact sheet: a row for each class with its name, its figures
// and some of its images, taken evenly over the class and whole, not cropped.
// Many classes are set in two or more columns. After 60 classes
// it says how many are left out. Images that do not decode are shown as such.
// when, unless it is zero, is the day in the heading.
func (n *Info) Sheet(ctx context.Context, images int, when time.Time) (image.Image, error) {
	if images < 1 || images > 100 {
		return nil, fmt.Errorf("contact sheet with %d images per class: give 1 to 100", images)
	}
	rows := min(len(n.Classes), maxRows)
	more := 0
	if rows < len(n.Classes) {
		more = 30
	}
	most := 1
	for _, c := range n.Classes {
		most = max(most, c.Images)
	}
	l := arrange(rows, min(images, most), more)
	out := image.NewRGBA(image.Rect(0, 0, l.width, l.height))
	draw.Draw(out, out.Bounds(), image.White, image.Point{}, draw.Src)
	w := newWriter(out)
	room := l.width - 2*margin
	w.text(w.large, ink, margin, margin+20, room, filepath.Base(filepath.Clean(n.Path)))
	head := n.headline()
	if !when.IsZero() {
		head += "  ·  " + when.Format("2006-01-02")
	}
	w.text(w.plain, faint, margin, margin+42, room, head)
	type place struct {
		class, load int
		at          image.Rectangle
	}
	var places []place
	for i := range rows {
		c := &n.Classes[i]
		x, y := l.at(i)
		w.class(c, n, x, y, most, l.row >= cell)
		shown := min(l.images, len(c.files))
		for k := range shown {
			x := x + label + k*(l.cell+gap)
			places = append(places, place{i, k * len(c.files) / shown, image.Rect(x, y, x+l.cell, y+l.cell)})
		}
		if shown == 0 {
			w.text(w.plain, faint, x+label, y+l.row/2, l.width-x-label-margin, "no images")
		}
	}
	if left := len(n.Classes) - rows; left > 0 {
		w.text(w.plain, faint, margin, l.height-margin, room, fmt.Sprintf("and %d more classes", left))
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

// class writes what stands before a row; all says that there is room for its
// last line.
func (w *writer) class(c *Class, n *Info, x, y, most int, all bool) {
	const room = label - 16
	name := w.bold
	if name.Width(c.Class) > room { // of names that begin alike the end is what counts
		name = w.tight
	}
	w.text(name, ink, x, y+20, room, c.Class)
	w.text(w.plain, ink, x, y+43, room, fmt.Sprintf("%d images, %.1f %%", c.Images, 100*c.Share))
	draw.Draw(w.out, image.Rect(x, y+52, x+max(1, room*c.Images/most), y+58), &image.Uniform{C: bar}, image.Point{}, draw.Src)
	line := y + 77
	if len(n.Parts) > 0 {
		var counts []string
		for _, p := range n.Parts {
			counts = append(counts, fmt.Sprintf("%s %d", p.Part, c.Parts[p.Part]))
		}
		w.text(w.small, faint, x, line, room, strings.Join(counts, " · "))
		line += 19
	}
	if n.Kind != Pack && c.Images > 0 && (all || len(n.Parts) == 0) {
		w.text(w.small, faint, x, line, room, fmt.Sprintf("median %d x %d pixels", c.Width.Median, c.Height.Median))
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
	w, h, cell := img.Bounds().Dx(), img.Bounds().Dy(), at.Dx()
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
	edge := at.Dx() / 5
	for i := edge; i < at.Dx()-edge; i++ {
		for t := range 4 {
			out.SetRGBA(at.Min.X+i, at.Min.Y+i+t-2, red)
			out.SetRGBA(at.Min.X+i, at.Max.Y-1-i+t-2, red)
		}
	}
}

// writer sets text on a sheet.
type writer struct {
	out                              *image.RGBA
	large, bold, tight, plain, small typeface.Face
}

func newWriter(out *image.RGBA) *writer {
	return &writer{out, typeface.New(22, true), typeface.New(17, true), typeface.New(13, true), typeface.New(15, false), typeface.New(13, false)}
}

// text writes a line; what does not fit into room pixels ends in three dots.
func (w *writer) text(face typeface.Face, c color.Color, x, y, room int, s string) {
	face.Draw(w.out, c, x, y, max(room, 1), s)
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
