package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image/color"
	"io"
	"math"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"atelier/common/typeface"
)

// A figure is drawn once for each format, by the same code on another canvas.
type canvas interface {
	vg.CanvasSizer
	io.WriterTo
}

// raster is a PNG under way.
type raster struct{ *vgimg.Canvas }

func newRaster(width, height vg.Length, dpi int) canvas {
	return raster{vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(paper))}
}

// FillString sets each letter at its own width, as they were measured.
func (r raster) FillString(f font.Face, at vg.Point, s string) {
	for _, letter := range s {
		r.Canvas.FillString(f, at, string(letter))
		at.X += f.Width(string(letter))
	}
}

func (r raster) WriteTo(w io.Writer) (int64, error) {
	return vgimg.PngCanvas{Canvas: r.Canvas}.WriteTo(w)
}

// vector is an SVG under way. Text is text, and takes the width that was
// measured for it where another typeface stands in.
type vector struct {
	*vgsvg.Canvas
	name   string
	widths []vg.Length // of the texts, in their order
}

func newVector(width, height vg.Length, name string) canvas {
	v := &vector{Canvas: vgsvg.New(width, height), name: name}
	c := draw.New(v)
	fill(c, paper, 0, 0, width, height)
	return v
}

func (v *vector) FillString(f font.Face, at vg.Point, s string) {
	v.widths = append(v.widths, letterpress{}.width(f, s))
	v.Canvas.FillString(f, at, s)
}

func (v *vector) WriteTo(w io.Writer) (int64, error) {
	var b, name bytes.Buffer
	if _, err := v.Canvas.WriteTo(&b); err != nil {
		return 0, err
	}
	if err := xml.EscapeText(&name, []byte(v.name)); err != nil {
		return 0, err
	}
	doc := b.Bytes()
	doc = bytes.ReplaceAll(doc, []byte("font-family:Liberation Sans;"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"))
	doc = bytes.ReplaceAll(doc, []byte("data:image/jpg;"), []byte("data:image/png;"))
	doc = bytes.Replace(doc, []byte("\n<svg "), []byte("\n<svg role=\"img\" style=\"font-kerning:none\" "), 1)
	var out bytes.Buffer
	if at := bytes.Index(doc, []byte("<svg ")); at >= 0 {
		at += bytes.IndexByte(doc[at:], '>') + 1
		out.Write(doc[:at])
		fmt.Fprintf(&out, "\n<title>%s</title>", name.Bytes())
		doc = doc[at:]
	}
	// Texts are escaped: what looks like an element is one.
	element := []byte("<text ")
	for i, part := range bytes.Split(doc, element) {
		if i > 0 {
			out.Write(element)
			fmt.Fprintf(&out, "textLength=\"%.2f\" lengthAdjust=\"spacingAndGlyphs\" ", float64(v.widths[i-1]))
		}
		out.Write(part)
	}
	return out.WriteTo(w)
}

// letterpress measures and sets text without kerning: see typeface.
type letterpress struct{ text.Plain }

func (l letterpress) width(f font.Face, s string) (w vg.Length) {
	for _, letter := range s {
		w += f.Width(string(letter))
	}
	return w
}

func (l letterpress) Box(s string, f font.Font) (width, height, depth vg.Length) {
	face := l.Fonts.Lookup(f, f.Size)
	e := face.Extents()
	return l.width(face, s), e.Ascent, e.Descent
}

// Draw is that of text.Plain, with the widths of Box.
func (l letterpress) Draw(c vg.Canvas, s string, style text.Style, at vg.Point) {
	if s == "" {
		return
	}
	face := l.Fonts.Lookup(style.Font, style.Font.Size)
	c.SetColor(style.Color)
	if style.Rotation != 0 {
		c.Push()
		defer c.Pop()
		c.Rotate(style.Rotation)
	}
	sin64, cos64 := math.Sincos(style.Rotation)
	sin, cos := vg.Length(sin64), vg.Length(cos64)
	at.X, at.Y = at.Y*sin+at.X*cos, at.Y*cos-at.X*sin
	e := face.Extents()
	at.Y += vg.Length(style.YAlign)*(e.Ascent+e.Descent) + e.Descent
	at.X += vg.Length(style.XAlign) * l.width(face, s)
	c.FillString(face, at, s)
}

// fonts are those of typeface, for the canvases.
var fonts = func() *font.Cache {
	regular := font.Font{Typeface: "Liberation", Variant: "Sans"}
	bold := regular
	bold.Weight = stdfont.WeightBold
	return font.NewCache(font.Collection{{Font: regular, Face: typeface.Font(false)}, {Font: bold, Face: typeface.Font(true)}})
}()

var (
	paper = color.NRGBA{R: 253, G: 253, B: 251, A: 255} // opaque, so that dark viewers show dark ink on it
	ink   = color.NRGBA{R: 34, G: 34, B: 34, A: 255}
	quiet = color.NRGBA{R: 105, G: 105, B: 110, A: 255} // what may be read later
	frame = color.NRGBA{R: 150, G: 150, B: 155, A: 255} // axes
	faint = color.NRGBA{R: 228, G: 228, B: 228, A: 255} // grids
	shade = color.NRGBA{R: 176, G: 181, B: 190, A: 255} // one line of many
	veil  = color.NRGBA{R: 253, G: 253, B: 251, A: 215} // under letters that lie on lines
)

func letters(size vg.Length, bold bool) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = stdfont.WeightBold
	}
	return text.Style{Color: ink, Font: f, Handler: letterpress{text.Plain{Fonts: fonts}}, XAlign: text.XLeft, YAlign: text.YCenter}
}

// fit cuts a text that is wider than the room, and shows that it did.
func fit(s string, style text.Style, room vg.Length) string {
	return typeface.Cut(s, func(s string) bool { return style.Width(s) <= room })
}

// widest is the width of the widest of some labels.
func widest(labels []string, style text.Style) (w vg.Length) {
	for _, l := range labels {
		w = max(w, style.Width(l))
	}
	return w
}
