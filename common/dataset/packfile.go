package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
)

// The packed file, all numbers little-endian:
//
//	0      header, headerSize bytes
//	4096   pixels: count squares of size x size x 3 bytes (height, width, RGB), in the folder's order
//	       labels: count int64, at a multiple of 64
//	       names: classes, image paths, skipped images, as length-prefixed strings
//
// The header carries the places of all three, CRC-32C of pixels and labels (checked at every opening, at the
// speed of memory), SHA-256 of names and of the header itself, and the SHA-256 of everything together, which
// identifies the content. The header is written last: a file without one is not a pack.

const (
	packMagic   = "ATLRPACK"
	packVersion = 1
	headerSize  = 256
	pixelsStart = 4096
	channels    = 3

	maxSide    = 16384
	maxImages  = 1 << 40
	maxClasses = 1 << 24
	maxNames   = 1 << 32 // bytes of the names section
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the fixed part of a packed file.
type header struct {
	size     int   // side of a square, pixels
	count    int64 // images
	classes  int
	skipped  int
	labelsAt int64
	namesAt  int64
	namesLen int64
	pixelCRC uint32
	labelCRC uint32
	names    [32]byte // SHA-256 of the names section
	content  [32]byte // SHA-256 of size, count, pixels, labels and names
	key      [32]byte // what the pack was made from: see cacheKey
	turned   int      // images turned by their EXIF orientation
}

func (h *header) pixelsLen() int64 { return h.count * int64(h.size) * int64(h.size) * channels }
func (h *header) fileLen() int64   { return h.namesAt + h.namesLen }

func (h *header) encode() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, packMagic...)
	b = binary.LittleEndian.AppendUint32(b, packVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.count))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.classes))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.skipped))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.labelsAt))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.namesAt))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.namesLen))
	b = binary.LittleEndian.AppendUint32(b, h.pixelCRC)
	b = binary.LittleEndian.AppendUint32(b, h.labelCRC)
	b = append(b, h.names[:]...)
	b = append(b, h.content[:]...)
	b = append(b, h.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.turned)) // 0 in packs of programs that did not turn any
	b = b[:headerSize-sha256.Size]
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeHeader reads a header and checks that it is whole and that its places are in order and inside a file
// of fileLen bytes, so that whoever uses it may index without further thought.
func decodeHeader(b []byte, fileLen int64) (header, error) {
	if len(b) < headerSize || string(b[:len(packMagic)]) != packMagic {
		return header{}, errors.New("not a packed image set (no signature)")
	}
	b = b[:headerSize]
	r := b[len(packMagic):]
	u32 := func() uint32 { v := binary.LittleEndian.Uint32(r); r = r[4:]; return v }
	u64 := func() uint64 { v := binary.LittleEndian.Uint64(r); r = r[8:]; return v }
	if v := u32(); v != packVersion {
		return header{}, fmt.Errorf("packed image set of version %d, this program reads version %d: delete it, and it is made again", v, packVersion)
	}
	if sum := sha256.Sum256(b[:headerSize-sha256.Size]); string(sum[:]) != string(b[headerSize-sha256.Size:]) {
		return header{}, errors.New("damaged header")
	}
	var h header
	size, count, classes, skipped := u32(), u64(), u32(), u32()
	labelsAt, namesAt, namesLen := u64(), u64(), u64()
	h.pixelCRC, h.labelCRC = u32(), u32()
	r = r[copy(h.names[:], r):]
	r = r[copy(h.content[:], r):]
	r = r[copy(h.key[:], r):]
	turned := u64()
	if size < 1 || size > maxSide || count < 1 || count > maxImages || classes < 1 || classes > maxClasses || namesLen > maxNames || turned > count {
		return header{}, fmt.Errorf("impossible header: size %d, %d images, %d classes, %d bytes of names", size, count, classes, namesLen)
	}
	perImage := uint64(size) * uint64(size) * channels // at most 2^30 or so
	if count > math.MaxInt64/4/perImage {
		return header{}, fmt.Errorf("impossible header: %d images of size %d", count, size)
	}
	pixelsEnd := pixelsStart + count*perImage
	if labelsAt < pixelsEnd || labelsAt%64 != 0 || labelsAt-pixelsEnd >= 64 ||
		namesAt != labelsAt+8*count || int64(namesAt+namesLen) != fileLen {
		return header{}, fmt.Errorf("header and file length (%d bytes) disagree: the file is cut off or damaged", fileLen)
	}
	h.size, h.count, h.classes, h.skipped, h.turned = int(size), int64(count), int(classes), int(skipped), int(turned)
	h.labelsAt, h.namesAt, h.namesLen = int64(labelsAt), int64(namesAt), int64(namesLen)
	return h, nil
}

// names is the variable part: what the images and classes are called.
type names struct {
	classes []string
	paths   []string // of the images, relative to the folder
	skipped []Skip
}

func (n *names) encode() []byte {
	var b []byte
	put := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, s := range n.classes {
		put(s)
	}
	for _, s := range n.paths {
		put(s)
	}
	for _, s := range n.skipped {
		put(s.Path)
		put(s.Reason)
	}
	return b
}

func decodeNames(b []byte, h header) (names, error) {
	var bad bool
	get := func() string {
		n, used := binary.Uvarint(b)
		if used <= 0 || n > uint64(len(b)-used) {
			bad = true
			return ""
		}
		s := string(b[used : used+int(n)])
		b = b[used+int(n):]
		return s
	}
	// Each string takes at least one byte: a small section cannot ask for a long table.
	if int64(h.classes)+h.count+2*int64(h.skipped) > int64(len(b)) {
		return names{}, errors.New("damaged names: more entries than bytes")
	}
	var n names
	for i := 0; i < h.classes && !bad; i++ {
		n.classes = append(n.classes, get())
	}
	n.paths = make([]string, 0, h.count)
	for i := int64(0); i < h.count && !bad; i++ {
		n.paths = append(n.paths, get())
	}
	for i := 0; i < h.skipped && !bad; i++ {
		n.skipped = append(n.skipped, Skip{Path: get(), Reason: get()})
	}
	if bad || len(b) != 0 {
		return names{}, errors.New("damaged names")
	}
	return n, nil
}

// packWriter writes a packed file front to back; finish puts the header in front.
type packWriter struct {
	out     io.WriterAt
	size    int
	at      int64
	count   int64
	labels  []byte
	names   names
	crc     uint32
	content hash.Hash
	buf     []byte // pixels not yet written
}

const writeBuffer = 1 << 20

func newPackWriter(out io.WriterAt, size int, classes []string) *packWriter {
	w := &packWriter{out: out, size: size, at: pixelsStart, content: sha256.New()}
	w.names.classes = classes
	return w
}

func (w *packWriter) add(path string, class int, pixels []byte) error {
	w.count++
	w.names.paths = append(w.names.paths, path)
	w.labels = binary.LittleEndian.AppendUint64(w.labels, uint64(class))
	w.buf = append(w.buf, pixels...)
	if len(w.buf) >= writeBuffer {
		return w.flush()
	}
	return nil
}

func (w *packWriter) flush() error {
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	w.content.Write(w.buf)
	if _, err := w.out.WriteAt(w.buf, w.at); err != nil {
		return err
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// finish writes labels, names and header and returns the header.
func (w *packWriter) finish(skipped []Skip, turned int, key [32]byte) (header, error) {
	if err := w.flush(); err != nil {
		return header{}, err
	}
	w.names.skipped = skipped
	table := w.names.encode()
	h := header{
		size: w.size, count: w.count, classes: len(w.names.classes), skipped: len(skipped),
		labelsAt: (w.at + 63) / 64 * 64, namesLen: int64(len(table)),
		pixelCRC: w.crc, labelCRC: crc32.Checksum(w.labels, castagnoli),
		names: sha256.Sum256(table), key: key, turned: turned,
	}
	h.namesAt = h.labelsAt + int64(len(w.labels))
	w.content.Write(w.labels)
	w.content.Write(table)
	var shape []byte
	shape = binary.LittleEndian.AppendUint64(shape, uint64(h.size))
	shape = binary.LittleEndian.AppendUint64(shape, uint64(h.count))
	w.content.Write(shape)
	w.content.Sum(h.content[:0])
	if _, err := w.out.WriteAt(w.labels, h.labelsAt); err != nil {
		return header{}, err
	}
	if _, err := w.out.WriteAt(table, h.namesAt); err != nil {
		return header{}, err
	}
	_, err := w.out.WriteAt(h.encode(), 0)
	return h, err
}
