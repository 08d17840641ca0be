// Package snapshot is the file in which an operator keeps a cluster's state: the
// state's stream between a head and a tail that show any damage.
//
//	head  12 bytes  magic
//	       4 bytes  version of the file, 1
//	       8 bytes  when it was saved, Unix milliseconds
//	body            the stream, which the coordinators understand
//	tail   8 bytes  length of the body
//	      32 bytes  SHA-256 of head, body and length
//
// Numbers are big-endian. The tail stands at the end so that the file can be
// written and read in one go. Files from before it had one are the bare stream:
// they are read, and Info says that nothing was checked. A damaged file never
// passes for one of those. The package refuses to know what is in the body.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

const (
	version  = 1
	headSize = len(magic) + 4 + 8
	tailSize = 8 + sha256.Size
	// alike is how many bytes of the magic make a file one of this kind, maybe a
	// damaged one. A bare stream has none of its letters there.
	alike = len(magic) / 2
	block = 128 << 10
)

const magic = "\x89ATELIER\r\n\x1a\n"

// ErrDamaged is in the error for a file that is not as it was written.
var ErrDamaged = errors.New("the snapshot file is damaged")

// Info is what a file says of itself.
type Info struct {
	Checked bool  // it carries a checksum, which is right
	TakenMS int64 // when it was saved; 0 = unknown
	Bytes   int64 // of the body
}

// Writer writes a file. Close it: without its tail no file is whole.
type Writer struct {
	w     io.Writer
	sum   hash.Hash
	bytes uint64
}

// NewWriter writes the head of a file that was saved at a time.
func NewWriter(w io.Writer, takenMS int64) (*Writer, error) {
	head := []byte(magic)
	head = binary.BigEndian.AppendUint32(head, version)
	head = binary.BigEndian.AppendUint64(head, uint64(takenMS))
	f := &Writer{w: w, sum: sha256.New()}
	f.sum.Write(head)
	_, err := w.Write(head)
	return f, err
}

// Write writes a piece of the body.
func (f *Writer) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	f.sum.Write(b[:n])
	f.bytes += uint64(n)
	return n, err
}

// Close writes the tail. It does not close what is below.
func (f *Writer) Close() error {
	tail := binary.BigEndian.AppendUint64(nil, f.bytes)
	f.sum.Write(tail)
	_, err := f.w.Write(f.sum.Sum(tail))
	return err
}

// Copy reads a file to its end and writes its body to to. What was written is
// good for nothing unless the error is nil; where Info.Checked is false it must be
// looked at by who understands it.
func Copy(to io.Writer, from io.Reader) (Info, error) {
	head := make([]byte, headSize)
	n, err := io.ReadFull(from, head)
	head = head[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Info{}, err
	}
	same := 0
	for i := range min(n, len(magic)) {
		if head[i] == magic[i] {
			same++
		}
	}
	if same < alike { // from before there was a head
		copied, err := io.Copy(to, io.MultiReader(bytes.NewReader(head), from))
		return Info{Bytes: copied}, err
	}
	switch {
	case n < headSize:
		return Info{}, fmt.Errorf("%w: it was cut short after %d bytes", ErrDamaged, n)
	case same < len(magic):
		return Info{}, fmt.Errorf("%w: its first %d bytes are not those of a snapshot", ErrDamaged, len(magic))
	}
	info := Info{TakenMS: int64(binary.BigEndian.Uint64(head[len(magic)+4:]))}
	sum := sha256.New()
	sum.Write(head)
	// The last bytes read may be the tail: they wait here.
	buf := make([]byte, 0, block+tailSize)
	for {
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if body := len(buf) - tailSize; body > 0 {
			sum.Write(buf[:body])
			if _, err := to.Write(buf[:body]); err != nil {
				return info, err
			}
			info.Bytes += int64(body)
			buf = buf[:copy(buf, buf[body:])]
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return info, err
		}
	}
	if len(buf) < tailSize {
		return info, fmt.Errorf("%w: it was cut short after %d bytes", ErrDamaged, headSize+len(buf))
	}
	sum.Write(buf[:8])
	if !bytes.Equal(sum.Sum(nil), buf[8:]) {
		if said := binary.BigEndian.Uint64(buf); said != uint64(info.Bytes) {
			return info, fmt.Errorf("%w: it was cut short or changed (it has %d bytes of state; its end records %d)", ErrDamaged, info.Bytes, said)
		}
		return info, fmt.Errorf("%w: its SHA-256 is not the one written at its end", ErrDamaged)
	}
	// What follows is as it was written.
	if v := binary.BigEndian.Uint32(head[len(magic):]); v != version {
		return info, fmt.Errorf("a snapshot file of version %d: this program reads version %d", v, version)
	}
	if said := binary.BigEndian.Uint64(buf); said != uint64(info.Bytes) || info.TakenMS < 0 {
		return info, fmt.Errorf("%w: it has %d bytes of state; its end records %d; saved at %d ms", ErrDamaged, info.Bytes, said, info.TakenMS)
	}
	info.Checked = true
	return info, nil
}
