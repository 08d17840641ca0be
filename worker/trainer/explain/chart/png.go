package chart

import (
	"encoding/binary"
	"hash/adler32"
	"hash/crc32"
	"image"
	"io"
	"slices"
	"sync"
)

// The charts' own PNG (RFC 2083) of eight bits a channel without alpha. Where
// image/png tries five filters a row and searches for matches, here a row is
// told by what differs from the row above, and the only matches are runs of one
// pixel: white paper, bars and smooth colours shrink as well, in a fifth of the
// time. One block of Huffman codes made for the chart (RFC 1951) holds all.

// maxRun is the longest run of one match: 258 bytes.
const maxRun = 86

// page is the memory that one encoding needs.
type page struct {
	tokens []uint16 // up to 255 a byte; 255+n a run of n pixels like the one before
	out    []byte
	bits   uint64
	held   uint
}

var pages = sync.Pool{New: func() any { return new(page) }}

// encode writes an opaque chart.
func encode(w io.Writer, img *image.RGBA) error {
	p := pages.Get().(*page)
	defer pages.Put(p)
	p.tokens, p.out, p.bits, p.held = p.tokens[:0], p.out[:0], 0, 0
	b := img.Bounds()
	p.out = append(p.out, "\x89PNG\r\n\x1a\n"...)
	p.chunk("IHDR", func() {
		p.out = binary.BigEndian.AppendUint32(p.out, uint32(b.Dx()))
		p.out = binary.BigEndian.AppendUint32(p.out, uint32(b.Dy()))
		p.out = append(p.out, 8, 2, 0, 0, 0) // bits, RGB, deflate, filters, not interlaced
	})
	p.chunk("IDAT", func() {
		p.out = append(p.out, 0x78, 0x01)
		sum := p.tokenise(img)
		p.deflate()
		p.out = binary.BigEndian.AppendUint32(p.out, sum)
	})
	p.chunk("IEND", func() {})
	_, err := w.Write(p.out)
	return err
}

func (p *page) chunk(name string, fill func()) {
	from := len(p.out)
	p.out = append(append(p.out, 0, 0, 0, 0), name...)
	fill()
	binary.BigEndian.PutUint32(p.out[from:], uint32(len(p.out)-from-8))
	p.out = binary.BigEndian.AppendUint32(p.out, crc32.ChecksumIEEE(p.out[from+4:]))
}

// tokenise filters the rows and finds runs; it returns the rows' checksum.
func (p *page) tokenise(img *image.RGBA) uint32 {
	b := img.Bounds()
	width := b.Dx()
	sum := adler32.New()
	row, blank := make([]byte, 1+3*width), make([]byte, 4*width)
	above := blank
	row[0] = 2 // up: the first row's row above is zero
	for y := b.Min.Y; y < b.Max.Y; y++ {
		at := img.PixOffset(b.Min.X, y)
		this := img.Pix[at : at+4*width : at+4*width]
		for x := range width {
			t, a, r := this[4*x:4*x+3:4*x+3], above[4*x:4*x+3:4*x+3], row[3*x+1:3*x+4:3*x+4]
			r[0], r[1], r[2] = t[0]-a[0], t[1]-a[1], t[2]-a[2]
		}
		above = this
		sum.Write(row)
		p.runs(row)
	}
	return sum.Sum32()
}

// runs appends a filtered row's tokens.
func (p *page) runs(row []byte) {
	tokens := append(p.tokens, uint16(row[0]))
	run := uint16(0)
	last := uint32(1 << 24) // no pixel
	for x := 1; x+2 < len(row); x += 3 {
		pixel := uint32(row[x]) | uint32(row[x+1])<<8 | uint32(row[x+2])<<16
		if pixel == last {
			if run++; run == maxRun {
				tokens, run = append(tokens, 255+run), 0
			}
			continue
		}
		if run > 0 {
			tokens, run = append(tokens, 255+run), 0
		}
		tokens = append(tokens, uint16(row[x]), uint16(row[x+1]), uint16(row[x+2]))
		last = pixel
	}
	if run > 0 {
		tokens = append(tokens, 255+run)
	}
	p.tokens = tokens
}

// put appends bits, the lowest first.
func (p *page) put(v uint64, n uint) {
	p.bits |= v << p.held
	for p.held += n; p.held >= 8; p.held -= 8 {
		p.out = append(p.out, byte(p.bits))
		p.bits >>= 8
	}
}

// length is the deflate symbol of a match of n bytes, and its further bits.
func length(n int) (symbol int, extra uint64, bits uint) {
	switch {
	case n == 258:
		return 285, 0, 0
	case n < 11:
		return 254 + n, 0, 0
	}
	m := n - 3
	for bits = 1; m >= 8<<bits; bits++ {
	}
	return 257 + 4*int(bits) + m>>bits, uint64(m & (1<<bits - 1)), bits
}

// deflate writes the tokens as one final block with codes of its own.
func (p *page) deflate() {
	const end, symbols = 256, 286
	var seen [256 + maxRun]int
	for _, t := range p.tokens {
		seen[t]++
	}
	count := make([]int, symbols)
	copy(count, seen[:256])
	count[end] = 1
	for run := 1; run <= maxRun; run++ {
		s, _, _ := length(3 * run)
		count[s] += seen[255+run]
	}
	lengths := codeLengths(count, 15)
	codes := canonical(lengths)
	// The only distance is a pixel's three bytes: its symbol is 2, its code one bit.
	lengths = append(lengths, 0, 0, 1)
	p.put(1, 1) // the last block
	p.put(2, 2) // with codes of its own
	p.put(symbols-257, 5)
	p.put(2, 5) // three distance symbols
	told := make([]int, 19)
	for _, l := range lengths {
		told[l]++
	}
	short := codeLengths(told, 7)
	p.put(19-4, 4)
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		p.put(uint64(short[s]), 3)
	}
	shortCodes := canonical(short)
	for _, l := range lengths {
		p.put(uint64(shortCodes[l]), uint(short[l]))
	}
	// A token's bits in one piece: code, further bits of the length, the distance's zero.
	var bits [256 + maxRun]uint64
	var many [256 + maxRun]uint
	for i := range 256 {
		bits[i], many[i] = uint64(codes[i]), uint(lengths[i])
	}
	for run := 1; run <= maxRun; run++ {
		s, extra, n := length(3 * run)
		bits[255+run], many[255+run] = uint64(codes[s])|extra<<lengths[s], uint(lengths[s])+n+1
	}
	for _, t := range p.tokens {
		p.bits |= bits[t] << p.held
		if p.held += many[t]; p.held >= 32 {
			p.out = binary.LittleEndian.AppendUint32(p.out, uint32(p.bits))
			p.bits >>= 32
			p.held -= 32
		}
	}
	p.put(uint64(codes[end]), uint(lengths[end]))
	p.put(0, 7) // to the next byte
	p.bits, p.held = 0, 0
}

// codeLengths are those of a Huffman code for symbols seen so often, none longer
// than most; 0 = not seen. Where the tree is too deep, counts are halved, which
// brings them closer to one another, and it is made anew. A single symbol gets a
// second beside it: decoders want whole codes.
func codeLengths(count []int, most int) []int {
	count = slices.Clone(count)
	used := 0
	for _, n := range count {
		if n > 0 {
			used++
		}
	}
	for i := 0; used < 2; i++ {
		if count[i] == 0 {
			count[i] = 1
			used++
		}
	}
	type node struct{ count, symbol, left, right int }
	for {
		nodes := make([]node, 0, 2*used)
		for s, n := range count {
			if n > 0 {
				nodes = append(nodes, node{n, s, -1, -1})
			}
		}
		slices.SortStableFunc(nodes, func(a, b node) int { return a.count - b.count })
		// Leaves and joined nodes both come in order: the two least are at the fronts.
		leaf, joined := 0, used
		least := func() int {
			if leaf < used && (joined >= len(nodes) || nodes[leaf].count <= nodes[joined].count) {
				leaf++
				return leaf - 1
			}
			joined++
			return joined - 1
		}
		for range used - 1 {
			a := least()
			b := least()
			nodes = append(nodes, node{nodes[a].count + nodes[b].count, -1, a, b})
		}
		lengths, deepest := make([]int, len(count)), 0
		depth := make([]int, len(nodes))
		for i := len(nodes) - 1; i >= 0; i-- {
			if n := nodes[i]; n.symbol >= 0 {
				lengths[n.symbol] = depth[i]
				deepest = max(deepest, depth[i])
			} else {
				depth[n.left], depth[n.right] = depth[i]+1, depth[i]+1
			}
		}
		if deepest <= most {
			return lengths
		}
		for s, n := range count {
			count[s] = (n + 1) / 2
		}
	}
}

// canonical are the codes of the lengths as deflate counts them, their bits
// turned round: it sends a code's first bit first.
func canonical(lengths []int) []uint32 {
	var many, next [16]uint32
	for _, l := range lengths {
		many[l]++
	}
	many[0] = 0
	for l := 1; l < 16; l++ {
		next[l] = (next[l-1] + many[l-1]) << 1
	}
	codes := make([]uint32, len(lengths))
	for s, l := range lengths {
		if l == 0 {
			continue
		}
		code := next[l]
		next[l]++
		for range l {
			codes[s] = codes[s]<<1 | code&1
			code >>= 1
		}
	}
	return codes
}
