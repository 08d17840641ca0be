package augment

// Batch copies images (size x size, interleaved RGB, all in pixels) of the
// given indices into dst, cropped and mirrored as the recipe and the stream of
// (seed, epoch, batch) have it. dst has len(indices)*size*size*3 bytes.
func (r Recipe) Batch(dst, pixels []byte, size int, indices []int, seed uint64, epoch, batch int) {
	p := r.Draw(size, len(indices), seed, epoch, batch)
	p.Gather(dst, pixels, size, indices)
}

// Copy copies images as they are: for batches whose crops the device makes.
func Copy(dst, pixels []byte, size int, indices []int) {
	bytes := size * size * 3
	for i, at := range indices {
		copy(dst[i*bytes:(i+1)*bytes], pixels[at*bytes:])
	}
}

// Gather copies images of the given indices, cropped and mirrored as planned.
func (p *Plan) Gather(dst, pixels []byte, size int, indices []int) {
	bytes := size * size * 3
	var s stretcher
	for i, at := range indices {
		c := &p.Images[i]
		out, in := dst[i*bytes:(i+1)*bytes], pixels[at*bytes:(at+1)*bytes]
		switch {
		case c.Width != size || c.Height != size:
			s.stretch(out, in, size, c)
		case c.Left == 0 && c.Top == 0:
			copy(out, in)
		default:
			place(out, in, size, -c.Left, -c.Top)
		}
		if c.Flip {
			mirror(out, size)
		}
	}
}

// place copies src moved by (dx, dy), black where nothing comes to lie.
func place(dst, src []byte, size, dx, dy int) {
	row := size * 3
	left, right := max(0, dx), min(size, size+dx) // columns of dst that are covered
	for y := range size {
		out := dst[y*row : (y+1)*row]
		from := y - dy
		if from < 0 || from >= size {
			clear(out)
			continue
		}
		in := src[from*row : (from+1)*row]
		clear(out[:left*3])
		copy(out[left*3:right*3], in[(left-dx)*3:])
		clear(out[right*3:])
	}
}

func mirror(image []byte, size int) {
	for row := size * 3; len(image) > 0; image = image[row:] {
		for a, b := 0, row-3; a < b; a, b = a+3, b-3 {
			image[a], image[b] = image[b], image[a]
			image[a+1], image[b+1] = image[b+1], image[a+1]
			image[a+2], image[b+2] = image[b+2], image[a+2]
		}
	}
}

// stretcher enlarges parts of images bilinearly (as torch's interpolate with
// align_corners false, of the part by itself), rounding to bytes as
// torchvision does. Sums fit 32 bits: 255 * 256 * 2^15 < 2^32. Nothing is ever made smaller, so that there is nothing to
// smooth away first.
type stretcher struct {
	columns, rows []tap
	wide          []uint16 // the part's rows at full width, in 256ths
}

// tap is where a pixel comes from: (one-part)*at + part*(next).
type tap struct {
	at, next int
	part     uint32 // in one'ths
}

const (
	one      = 1 << 15
	rowShift = 7 // a byte times one, shifted so, is in 256ths
)

// taps divides n pixels into size ones.
func taps(t []tap, size, n int) []tap {
	t = t[:0]
	scale := float64(n) / float64(size)
	for i := range size {
		x := max((float64(i)+0.5)*scale-0.5, 0)
		at := min(int(x), n-1)
		t = append(t, tap{at: at, next: min(at+1, n-1), part: uint32((x-float64(at))*one + 0.5)})
	}
	return t
}

func (s *stretcher) stretch(dst, src []byte, size int, c *Change) {
	s.columns = taps(s.columns, size, c.Width)
	s.rows = taps(s.rows, size, c.Height)
	row := size * 3
	if cap(s.wide) < c.Height*row {
		s.wide = make([]uint16, size*row)
	}
	wide := s.wide[:c.Height*row]
	for y := range c.Height {
		in := src[((c.Top+y)*size+c.Left)*3:][:c.Width*3]
		out := wide[y*row : (y+1)*row]
		for x, t := range s.columns {
			a, b, o := in[t.at*3:t.at*3+3], in[t.next*3:t.next*3+3], out[x*3:x*3+3]
			p, q := t.part, one-t.part
			o[0] = uint16((uint32(a[0])*q + uint32(b[0])*p + 1<<(rowShift-1)) >> rowShift)
			o[1] = uint16((uint32(a[1])*q + uint32(b[1])*p + 1<<(rowShift-1)) >> rowShift)
			o[2] = uint16((uint32(a[2])*q + uint32(b[2])*p + 1<<(rowShift-1)) >> rowShift)
		}
	}
	const shift = 15 + 8
	for y, t := range s.rows {
		a, b, o := wide[t.at*row:][:row], wide[t.next*row:][:row], dst[y*row:][:row]
		p, q := t.part, one-t.part
		for x := range o {
			o[x] = byte((uint32(a[x])*q + uint32(b[x])*p + 1<<(shift-1)) >> shift)
		}
	}
}
