package dataset

import (
	"bytes"
	"encoding/binary"
	"image"
	"strings"
)

// A camera writes its pixels as the sensor has them and says beside them how they are to be turned: EXIF's
// orientation, 1 to 8. Viewers follow it, and so do all decoders here, as Pillow's ImageOps.exif_transpose does.

const (
	upright        = 1
	transposedFrom = 5 // from here on width and height change places
)

// TIFF's tags that say how the pixels are meant.
const (
	tagCompression = 259
	tagPhotometric = 262
	tagOrientation = 274
)

// orientation reads what an image says of how it is to be turned; 1 where it says nothing that can be read. b may
// be the beginning of a file.
func orientation(format string, b []byte) int {
	var o int
	switch format {
	case "jpeg":
		o = firstIFD(jpegExif(b))[tagOrientation]
	case "png":
		o = firstIFD(pngExif(b))[tagOrientation]
	case "webp":
		o = firstIFD(webpExif(b))[tagOrientation]
	case "tiff":
		o = firstIFD(b)[tagOrientation]
	}
	if o < upright || o > 8 {
		return upright
	}
	return o
}

// jpegExif is the first APP1 segment with EXIF, without its mark.
func jpegExif(b []byte) []byte {
	for at := 2; at+4 <= len(b) && b[at] == 0xff; {
		marker := b[at+1]
		switch {
		case marker == 0xff: // fill bytes
			at++
			continue
		case marker == 0x01 || marker >= 0xd0 && marker <= 0xd8: // no length
			at += 2
			continue
		case marker == 0xd9 || marker == 0xda: // the end, or pixels from here on
			return nil
		}
		length := int(binary.BigEndian.Uint16(b[at+2:]))
		if length < 2 || at+2+length > len(b) {
			return nil
		}
		if text, ok := bytes.CutPrefix(b[at+4:at+2+length], []byte("Exif\x00")); ok && marker == 0xe1 && len(text) > 0 {
			return text[1:]
		}
		at += 2 + length
	}
	return nil
}

func pngExif(b []byte) []byte {
	for at := 8; at+8 <= len(b); {
		length := int64(binary.BigEndian.Uint32(b[at:]))
		if length > int64(len(b)-at-8) {
			return nil
		}
		data := b[at+8 : at+8+int(length)]
		switch string(b[at+4 : at+8]) {
		case "eXIf":
			return withoutMark(data)
		case "IEND":
			return nil
		}
		at += min(8+int(length)+4, len(b)-at)
	}
	return nil
}

func webpExif(b []byte) []byte {
	for at := 12; at+8 <= len(b); {
		length := int64(binary.LittleEndian.Uint32(b[at+4:]))
		if length > int64(len(b)-at-8) {
			return nil
		}
		if string(b[at:at+4]) == "EXIF" {
			return withoutMark(b[at+8 : at+8+int(length)])
		}
		at += min(8+int(length+length&1), len(b)-at)
	}
	return nil
}

// withoutMark takes JPEG's mark off, which some programs write into other formats too.
func withoutMark(exif []byte) []byte { return bytes.TrimPrefix(exif, []byte("Exif\x00\x00")) }

// firstIFD reads the whole numbers of the first directory of a TIFF, which EXIF is too: of each tag with one value
// or more the first. Damage ends it early; what was read until then stays.
func firstIFD(b []byte) map[uint16]int {
	tags := map[uint16]int{}
	if len(b) < 8 {
		return tags
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case strings.HasPrefix(string(b[:4]), "MM\x00*"):
		order = binary.BigEndian
	case !strings.HasPrefix(string(b[:4]), "II*\x00"):
		return tags
	}
	at := int64(order.Uint32(b[4:]))
	if at > int64(len(b))-2 {
		return tags
	}
	count := int(order.Uint16(b[at:]))
	for entry := b[at+2:]; count > 0 && len(entry) >= 12; entry, count = entry[12:], count-1 {
		tag, kind, n := order.Uint16(entry), order.Uint16(entry[2:]), order.Uint32(entry[4:])
		if _, twice := tags[tag]; twice || n < 1 {
			continue
		}
		switch kind {
		case 1: // BYTE
			tags[tag] = int(entry[8])
		case 3: // SHORT
			if n <= 2 {
				tags[tag] = int(order.Uint16(entry[8:]))
			}
		case 4: // LONG
			if n == 1 {
				tags[tag] = int(order.Uint32(entry[8:]))
			}
		}
	}
	return tags
}

// turned is an image as its orientation wants it seen.
func turned(img image.Image, format string, orientation int) image.Image {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	outW, outH := w, h
	if orientation >= transposedFrom {
		outW, outH = h, w
	}
	out := &rgbImage{pix: make([]byte, 3*w*h), rect: image.Rect(0, 0, outW, outH)}
	// A step to the right and a step down in the image are so many pixels in out, which begins at origin.
	var origin, right, down int
	switch orientation {
	case 2: // mirrored
		origin, right, down = w-1, -1, w
	case 3: // upside down
		origin, right, down = w*h-1, -1, -w
	case 4: // upside down and mirrored
		origin, right, down = w*(h-1), 1, -w
	case 5: // transposed
		origin, right, down = 0, h, 1
	case 6: // to be turned clockwise
		origin, right, down = h-1, h, -1
	case 7: // transposed about the other diagonal
		origin, right, down = w*h-1, -h, -1
	case 8: // to be turned anticlockwise
		origin, right, down = h*(w-1), -h, 1
	default:
		origin, right, down = 0, 1, w
	}
	rows := rgbRows(img, format)
	// Several rows at a time: where they become columns, neighbours in memory are written together.
	const several = 16
	held := make([]byte, several*3*w)
	for y := 0; y < h; y += several {
		n := min(several, h-y)
		for i := range n {
			rows(y+i, held[3*w*i:])
		}
		for x := range w {
			to := 3 * (origin + x*right + y*down)
			for i := range n {
				from := 3 * (w*i + x)
				copy(out.pix[to:to+3], held[from:from+3])
				to += 3 * down
			}
		}
	}
	return out
}

// faxMeaning puts right what golang.org/x/image/tiff makes of the fax compressions (group 3 and 4). There a run of
// white is zeros and a run of black ones, as in libtiff, and the photometric interpretation says how zeros look;
// the package takes white for white whatever that says, so that with BlackIsZero images come out negative.
func faxMeaning(img image.Image, b []byte) {
	tags := firstIFD(b)
	compression, photometric := tags[tagCompression], tags[tagPhotometric]
	if compression != 3 && compression != 4 || photometric == 0 {
		return
	}
	switch m := img.(type) {
	case *image.Gray:
		for i := range m.Pix {
			m.Pix[i] ^= 0xff
		}
	case *image.Paletted:
		for i := range m.Pix {
			m.Pix[i] ^= 1
		}
	}
}
