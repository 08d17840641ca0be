package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// kind is what a frame is.
type kind uint8

const (
	kindHello    kind = iota + 1 // greeting
	kindPing                     // nothing
	kindReach                    // of a founder: whom it has greeted
	kindRefuse                   // why the sender ends
	kindPropose                  // agreement
	kindAdmit                    // to a newcomer: it is a member from now on
	kindSegment                  // memory of the sender's sums, with its descriptor
	kindPlaces                   // contributions of a bucket: where they lie in the segment
	kindPart                     // contribution of one node of a bucket, or a part of it
	kindPlace                    // piece of a result: where it lies in the segment
	kindResult                   // piece of a result, or a part of it
	kindTail                     // what a member adds to a step
	kindState                    // a part of the whole state
	kindStateEnd                 // it is complete
	kindMeeting                  // how the sums of a view go: the id of a meeting of devices, or nothing
	kinds
)

// Limits of a frame and of a bucket. Frames are short so that what is urgent
// (agreement, pings) is soon sent between them.
const (
	maxPayload = 1 << 20
	maxFloats  = 1 << 27 // of a piece of a bucket
	maxNodes   = 64      // of a member's contribution
	maxTail    = maxPayload - tailHead
)

// header begins each frame, little endian:
//
//	0  payload, bytes  uint32
//	4  kind            uint8, then a zero
//	6  bucket          uint16
//	8  view            uint32
//	12 node            uint32: of a part; nodes of places; number of a segment
//	16 step            int64
//	24 at              uint32: first float of this frame within the piece
//	28 floats          uint32: of the whole piece
type header struct {
	payload int
	kind    kind
	bucket  int
	view    int
	node    int
	step    int64
	at      int
	floats  int
}

const headerSize = 32

func (h header) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(h.payload))
	b = append(b, byte(h.kind), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.bucket))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.view))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.node))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.step))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.at))
	return binary.LittleEndian.AppendUint32(b, uint32(h.floats))
}

// decodeHeader refuses what no member sends: the link is of no use then.
func decodeHeader(b []byte) (h header, err error) {
	h = header{
		payload: int(binary.LittleEndian.Uint32(b)), kind: kind(b[4]), bucket: int(binary.LittleEndian.Uint16(b[6:])),
		view: int(binary.LittleEndian.Uint32(b[8:])), node: int(binary.LittleEndian.Uint32(b[12:])),
		step: int64(binary.LittleEndian.Uint64(b[16:])),
		at:   int(binary.LittleEndian.Uint32(b[24:])), floats: int(binary.LittleEndian.Uint32(b[28:])),
	}
	switch {
	case h.kind == 0 || h.kind >= kinds || b[5] != 0:
		return h, fmt.Errorf("frame of the unknown kind %d", h.kind)
	case h.payload > maxPayload:
		return h, fmt.Errorf("frame of %d bytes; at most %d", h.payload, maxPayload)
	case h.floats > maxFloats:
		return h, fmt.Errorf("piece of %d floats; at most %d", h.floats, maxFloats)
	case h.view > math.MaxInt32:
		return h, fmt.Errorf("view %d", h.view)
	}
	switch h.kind {
	case kindPing, kindStateEnd:
		if h.payload != 0 {
			return h, errors.New("a frame that carries nothing has a payload")
		}
	case kindPart, kindResult:
		if h.payload%4 != 0 || h.at+h.payload/4 > h.floats || h.node >= maxNodes {
			return h, fmt.Errorf("floats %d to %d of a piece of %d, node %d", h.at, h.at+h.payload/4, h.floats, h.node)
		}
	case kindPlaces:
		if h.node > maxNodes || h.payload != placesSize(h.node) {
			return h, fmt.Errorf("%d bytes of places for %d nodes", h.payload, h.node)
		}
	case kindPlace:
		if h.payload != placesSize(1) {
			return h, fmt.Errorf("%d bytes for a place", h.payload)
		}
	case kindSegment:
		if h.payload != 8 {
			return h, fmt.Errorf("%d bytes for the size of a segment", h.payload)
		}
	case kindMeeting:
		if h.payload > maxMeeting {
			return h, fmt.Errorf("%d bytes for the id of a meeting; at most %d", h.payload, maxMeeting)
		}
	case kindTail:
		if h.payload < tailHead {
			return h, fmt.Errorf("tail of %d bytes", h.payload)
		}
	}
	return h, nil
}

// places are the number of a segment and offsets in it, in bytes.
func placesSize(n int) int { return 8 + 8*n }

func appendPlaces(b []byte, segment int, offsets ...int64) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(segment))
	for _, o := range offsets {
		b = binary.LittleEndian.AppendUint64(b, uint64(o))
	}
	return b
}

func decodePlaces(b []byte) (segment int, offsets []int64) {
	segment = int(int32(binary.LittleEndian.Uint64(b)))
	for b = b[8:]; len(b) > 0; b = b[8:] {
		offsets = append(offsets, int64(binary.LittleEndian.Uint64(b)))
	}
	return segment, offsets
}

// tail is what each member adds to a step.
type tail struct {
	leaves bool
	ready  []int // newcomers that it has greeted, by id
	pace   sample
	data   []byte // the caller's
}

// tailHead is the least size of a tail: flags, the count of newcomers, two times.
const tailHead = 4 + 4 + 8 + 8

func (t tail) append(b []byte) []byte {
	flags := uint32(0)
	if t.leaves {
		flags = 1
	}
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.ready)))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(t.pace.compute))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(t.pace.wait))
	for _, id := range t.ready {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return append(b, t.data...)
}

func decodeTail(b []byte) (t tail, err error) {
	if len(b) < tailHead {
		return t, fmt.Errorf("tail of %d bytes", len(b))
	}
	flags, n := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:]))
	t.leaves = flags == 1
	t.pace = sample{math.Float64frombits(binary.LittleEndian.Uint64(b[8:])), math.Float64frombits(binary.LittleEndian.Uint64(b[16:]))}
	b = b[tailHead:]
	if flags > 1 || n > len(b)/4 {
		return t, fmt.Errorf("tail with flags %d and %d newcomers in %d bytes", flags, n, len(b))
	}
	for ; n > 0; n, b = n-1, b[4:] {
		t.ready = append(t.ready, int(binary.LittleEndian.Uint32(b)))
	}
	t.data = b
	return t, nil
}

// bytesOf are the bytes of floats, in the machine's order: little endian on all
// that libtorch is built for here.
func bytesOf(f []float32) []byte {
	if len(f) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&f[0])), 4*len(f))
}

// floatsOf is the reverse; b begins at a multiple of 4 bytes.
func floatsOf(b []byte) []float32 {
	if len(b) < 4 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), len(b)/4)
}
