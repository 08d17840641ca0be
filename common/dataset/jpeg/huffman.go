package jpeg

import (
	"bytes"
	"encoding/binary"
)

const (
	look = 10 // bits looked at first
	end  = 64 // a run that stands for the end of a block
)

// table is a Huffman table (T.81 annex C).
type table struct {
	defined bool
	spec    []byte // as it stood in a file: the next file has mostly the same
	// quick has, for the next bits, value << 16 | run << 8 | bits of code and
	// value together, where they are no more than look; else 0.
	quick [1 << look]int32
	// short has length << 8 | symbol for codes of up to look bits; else 0.
	short [1 << look]uint16
	// beyond[n] is the first code that is longer than n bits, at the top of 16 bits.
	beyond [17]uint32
	// shift[n] is what makes a code of n bits the place of its symbol.
	shift   [17]int32
	symbols [256]byte
}

// define takes 16 counts and the symbols. False: no code can be so.
func (t *table) define(spec []byte) bool {
	t.defined = bytes.Equal(spec, t.spec)
	if t.defined {
		return true
	}
	t.spec = t.spec[:0]
	clear(t.quick[:])
	clear(t.short[:])
	clear(t.symbols[:])
	copy(t.symbols[:], spec[16:])
	code, at := 0, 0
	for n := 1; n <= 16; n++ {
		t.shift[n] = int32(at - code)
		for range spec[n-1] {
			if code >= 1<<n {
				return false
			}
			if n <= look {
				t.fillShort(code, n, t.symbols[at])
			}
			code++
			at++
		}
		t.beyond[n] = uint32(code) << (16 - n)
		code <<= 1
	}
	t.fillQuick()
	t.spec, t.defined = append(t.spec, spec...), true
	return true
}

func (t *table) fillShort(code, n int, symbol byte) {
	for i := range 1 << (look - n) {
		t.short[code<<(look-n)|i] = uint16(n)<<8 | uint16(symbol)
	}
}

func (t *table) fillQuick() {
	for i, s := range t.short {
		length, run, size := uint(s>>8), int32(s>>4&15), uint(s&15)
		switch {
		case length == 0:
		case s&0xff == 0:
			t.quick[i] = end<<8 | int32(length)
		case size > 0 && length+size <= look:
			v := extend(uint64(i)<<(64-look)<<length, size)
			t.quick[i] = v<<16 | run<<8 | int32(length+size)
		}
	}
}

// symbol finds the code at the top of acc; a length of 0 is that there is none.
func (t *table) symbol(acc uint64) (symbol, length uint) {
	if s := t.short[acc>>(64-look)]; s != 0 {
		return uint(s & 0xff), uint(s >> 8)
	}
	top := uint32(acc >> 48)
	for n := look + 1; n <= 16; n++ {
		if top < t.beyond[n] {
			return uint(t.symbols[uint8(int32(top>>(16-n))+t.shift[n])]), uint(n)
		}
	}
	return 0, 0
}

// bits reads a scan's data, where a byte 0xff is followed by 0x00 and every
// other pair is a marker. At a marker and at the end zeros follow; whether any
// were used is seen when the marker is asked for.
type bits struct {
	data    []byte
	at      int
	acc     uint64 // the next n bits at the top; what is below is the data's too, or zero
	n       int
	virtual int // zeros that follow the data, among the n and used
}

// fill has at least 32 bits.
func (b *bits) fill(acc uint64, n int) (uint64, int) {
	if b.at+8 <= len(b.data) {
		v := binary.BigEndian.Uint64(b.data[b.at:])
		// Is any of the 8 bytes 0xff, that is, a zero in the complement?
		if (^v-0x0101010101010101)&v&0x8080808080808080 == 0 {
			acc |= v >> uint(n)
			take := (63 - n) >> 3
			b.at += take
			return acc, n + 8*take
		}
	}
	for n <= 48 {
		var v byte
		switch {
		case b.at >= len(b.data):
			b.virtual += 8
		case b.data[b.at] != 0xff:
			v = b.data[b.at]
			b.at++
		case b.at+1 < len(b.data) && b.data[b.at+1] == 0:
			v = 0xff
			b.at += 2
		default:
			b.virtual += 8
		}
		// What lies below the n bits was read ahead and comes again: it must not be there twice.
		acc = acc&^(1<<uint(64-n)-1) | uint64(v)<<uint(56-n)
		n += 8
	}
	return acc, n
}

// marker takes the marker that follows now, after what is left of a byte.
func (b *bits) marker(want byte) bool {
	if left := b.n - b.virtual; left < 0 || left >= 8 {
		return false
	}
	if b.at+1 >= len(b.data) || b.data[b.at] != 0xff || b.data[b.at+1] != want {
		return false
	}
	b.at += 2
	b.acc, b.n, b.virtual = 0, 0, 0
	return true
}
