package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/png"
	"strings"

	"atelier/common/dataset/jpeg"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// DefaultMaxPixels is where Pillow gives up with a decompression bomb error.
const DefaultMaxPixels = 178_956_970

// Format names what the first bytes of an image say it is, or "" when they say nothing known. The file's
// extension plays no part, as with Pillow.
func Format(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return "jpeg"
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return "png"
	case bytes.HasPrefix(b, []byte("GIF87a")), bytes.HasPrefix(b, []byte("GIF89a")):
		return "gif"
	case bytes.HasPrefix(b, []byte("BM")):
		return "bmp"
	case bytes.HasPrefix(b, []byte("II*\x00")), bytes.HasPrefix(b, []byte("MM\x00*")):
		return "tiff"
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return "webp"
	case isPNM(b):
		return "pnm"
	}
	return ""
}

// Decode decodes an image held in memory: JPEG, PNG, GIF (first frame), BMP, TIFF, WebP, PPM or PGM. The
// number of pixels is read from the header and checked against maxPixels (0: DefaultMaxPixels) before any
// memory is taken for them. It comes as its EXIF orientation wants it seen. A truncated or damaged image is an error.
func Decode(b []byte, maxPixels int) (img image.Image, format string, err error) {
	img, _, format, err = DecodeReduced(b, maxPixels, 0)
	return img, format, err
}

// DecodeReduced is Decode for somebody who looks at an image from afar: where that is faster, the image comes
// at a half, a quarter or an eighth of its size, its shorter side still least pixels or more. full is its real
// size. Whatever Decode refuses is refused here too; least = 0 wants all.
func DecodeReduced(b []byte, maxPixels, least int) (img image.Image, full image.Point, format string, err error) {
	if maxPixels <= 0 {
		maxPixels = DefaultMaxPixels
	}
	if format = Format(b); format == "" {
		return nil, full, "", unknown(b)
	}
	// The decoders are other people's code fed with other people's bytes: a panic there costs one image.
	defer func() {
		if p := recover(); p != nil {
			img, err = nil, fmt.Errorf("%s: the decoder failed: %v", format, p)
		}
	}()
	cfg, err := decodeConfig(format, b)
	if err != nil {
		return nil, full, format, decodeError(format, err)
	}
	if cfg.Width < 1 || cfg.Height < 1 {
		return nil, full, format, fmt.Errorf("%s: no pixels (%d x %d)", format, cfg.Width, cfg.Height)
	}
	if int64(cfg.Width)*int64(cfg.Height) > int64(maxPixels) {
		return nil, full, format, fmt.Errorf("%s: %d x %d pixels, more than the %d allowed", format, cfg.Width, cfg.Height, maxPixels)
	}
	if format == "jpeg" && least > 0 {
		img, full, err = jpeg.Reduced(b, least)
	} else if img, err = decodeBody(format, b, cfg); err == nil {
		full = img.Bounds().Size()
	}
	if err != nil {
		return nil, full, format, decodeError(format, err)
	}
	if img.Bounds().Empty() {
		return nil, full, format, fmt.Errorf("%s: no pixels", format)
	}
	if o := orientation(format, b); o != upright {
		lying := img
		img = turned(lying, format, o)
		Free(lying)
		if o >= transposedFrom {
			full.X, full.Y = full.Y, full.X
		}
	}
	return img, full, format, nil
}

// Turned reports whether Decode turns or mirrors an image because its EXIF orientation says so.
func Turned(b []byte) bool { return orientation(Format(b), b) != upright }

// Free gives a decoded image's memory to the next one. Nobody may look at it any more.
func Free(img image.Image) { jpeg.Free(img) }

// Header reads what an image says of itself: its sides in pixels, as it is seen, and its format, by the first bytes and not by a
// name. b may be the beginning of a file only; the error is Decode's.
func Header(b []byte) (width, height int, format string, err error) {
	if format = Format(b); format == "" {
		return 0, 0, "", unknown(b)
	}
	cfg, err := safeConfig(format, b)
	if err != nil {
		return 0, 0, format, decodeError(format, err)
	}
	if cfg.Width < 1 || cfg.Height < 1 {
		return 0, 0, format, fmt.Errorf("%s: no pixels (%d x %d)", format, cfg.Width, cfg.Height)
	}
	if orientation(format, b) >= transposedFrom {
		return cfg.Height, cfg.Width, format, nil
	}
	return cfg.Width, cfg.Height, format, nil
}

// NotImageError is of bytes that are no image of a known format, not even a
// broken one.
type NotImageError string

func (e NotImageError) Error() string { return string(e) }

// unknown says what is wrong with bytes that are no image.
func unknown(b []byte) error {
	switch {
	case len(b) == 0:
		return NotImageError("the file is empty")
	case looksLikeText(b):
		return NotImageError("not an image but text (a saved web page?)")
	}
	return NotImageError("not an image of a known format (JPEG, PNG, GIF, BMP, TIFF, WebP, PPM, PGM)")
}

// safeConfig is decodeConfig with a panic turned into an error.
func safeConfig(format string, b []byte) (cfg image.Config, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: the decoder failed: %v", format, p)
		}
	}()
	return decodeConfig(format, b)
}

func decodeConfig(format string, b []byte) (image.Config, error) {
	r := bytes.NewReader(b)
	switch format {
	case "jpeg":
		return jpeg.Config(b)
	case "png":
		return png.DecodeConfig(r)
	case "gif":
		return gif.DecodeConfig(r)
	case "bmp":
		return bmp.DecodeConfig(r)
	case "tiff":
		return tiff.DecodeConfig(r)
	case "webp":
		return webp.DecodeConfig(r)
	}
	h, err := parsePNMHeader(b)
	return image.Config{Width: h.width, Height: h.height}, err
}

func decodeBody(format string, b []byte, cfg image.Config) (image.Image, error) {
	r := bytes.NewReader(b)
	switch format {
	case "jpeg":
		return jpeg.Decode(b)
	case "png":
		return png.Decode(r)
	case "gif":
		return decodeGIF(r, cfg)
	case "bmp":
		return bmp.Decode(r)
	case "tiff":
		img, err := tiff.Decode(r)
		if err == nil {
			faxMeaning(img, b)
		}
		return img, err
	case "webp":
		return webp.Decode(r)
	}
	return decodePNM(b)
}

// decodeGIF lays the first frame on a canvas of the image's size: a frame may cover only a part of it.
func decodeGIF(r *bytes.Reader, cfg image.Config) (image.Image, error) {
	first, err := gif.Decode(r)
	if err != nil {
		return nil, err
	}
	canvas := image.Rect(0, 0, cfg.Width, cfg.Height)
	frame, ok := first.(*image.Paletted)
	if !ok || first.Bounds() == canvas {
		return first, nil
	}
	out := image.NewPaletted(canvas, frame.Palette)
	part := frame.Bounds().Intersect(canvas)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		copy(out.Pix[out.PixOffset(part.Min.X, y):][:part.Dx()], frame.Pix[frame.PixOffset(part.Min.X, y):])
	}
	return out, nil
}

// decodeError says "truncated" where the decoders speak of an unexpected end, and names the format once.
func decodeError(format string, err error) error {
	text := err.Error()
	cut := text == "EOF" || errors.Is(err, errPNMTruncated)
	for _, sign := range []string{"unexpected EOF", "not enough pixel data", "short Huffman data", "short segment"} {
		cut = cut || strings.Contains(text, sign)
	}
	if cut {
		return fmt.Errorf("%s: truncated: the file ends before the image does", format)
	}
	if strings.HasPrefix(text, format+": ") {
		return err
	}
	return fmt.Errorf("%s: %w", format, err)
}

func looksLikeText(b []byte) bool {
	head := b[:min(len(b), 256)]
	for _, c := range head {
		if c < 0x09 || c > 0x0d && c < 0x20 {
			return false
		}
	}
	return true
}
