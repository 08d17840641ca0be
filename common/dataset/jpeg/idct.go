package jpeg

// pixels turns the block of coefficients into each x each pixels at dst and
// leaves zeros. last is the place of the last coefficient in the zigzag.
func (d *decoder) pixels(dst []byte, stride, each, last int) {
	b := &d.block
	switch {
	case each == 1:
		dst[0] = level((b[0] + 4) >> 3)
		if last > 0 {
			clear(b[1:])
		}
	case last == 0:
		// One frequency, one colour.
		v := level((b[0]<<17 + 1<<19) >> 20) // wraps round where the transform does
		for y := range each {
			row := dst[y*stride:][:each]
			for x := range row {
				row[x] = v
			}
		}
	case each == 2:
		two(b, dst, stride)
		clear(b[:])
	case each == 4:
		four(b, dst[:3*stride+4], stride)
	default:
		whole(b, dst[:7*stride+8], stride)
	}
	b[0] = 0
}

// level moves a value from around 0 to around 128 and keeps it in a byte.
func level(v int32) byte { return byte(min(max(v, -128), 127) + 128) }

// two gives the means of the four quarters of a block. Over a half, the cosines
// of even frequencies add up to nothing, those of the odd ones to these shares.
func two(b *[64]int32, dst []byte, stride int) {
	const g1, g3, g5, g7 = 3711, -1303, 871, -738 // sqrt 2 * mean of cos((2n+1) k pi/16) over n < 4, times 4096
	odd := func(s1, s3, s5, s7 int32) int32 { return (g1*s1 + g3*s3 + g5*s5 + g7*s7) >> 12 }
	h := odd(b[8], b[24], b[40], b[56])
	v := odd(b[1], b[3], b[5], b[7])
	x := odd(odd(b[9], b[25], b[41], b[57]), odd(b[11], b[27], b[43], b[59]), odd(b[13], b[29], b[45], b[61]), odd(b[15], b[31], b[47], b[63]))
	a := b[0] + 4
	dst[0], dst[1] = level((a+h+v+x)>>3), level((a-h+v-x)>>3)
	dst[stride], dst[stride+1] = level((a+h-v-x)>>3), level((a-h-v+x)>>3)
}

// fourGo gives the means of squares of 2 x 2. A mean of two neighbours turns the
// cosine of frequency k into one of a transform of half the length, and that of
// 8-k into the same one with the other sign; so a transform of four follows.
func fourGo(b *[64]int32, dst []byte, stride int) {
	const f1, f2, f3, f5, f6, f7 = 4017, 3784, 3406, 2276, 1567, 799 // cos(k pi/16) * 4096
	const c1, c2, c3 = 3784, 2896, 1567                              // cos(k pi/8) * 4096
	four := func(s0, s1, s2, s3, s5, s6, s7 int32) (a, b, c, d int32) {
		s1, s2, s3 = (s1*f1-s7*f7)>>12, (s2*f2-s6*f6)>>12, (s3*f3-s5*f5)>>12
		even, odd := (s0+s2)*c2, (s0-s2)*c2
		p, q := s1*c1+s3*c3, s1*c3-s3*c1
		return even + p, odd + q, odd - q, even - p
	}
	var t [32]int32 // row by row, times 16
	for i := range 8 {
		w, x, y, z := four(b[i], b[8+i], b[16+i], b[24+i], b[40+i], b[48+i], b[56+i])
		t[4*i], t[4*i+1], t[4*i+2], t[4*i+3] = w>>8, x>>8, y>>8, z>>8
	}
	for i := range 4 {
		w, x, y, z := four(t[i], t[4+i], t[8+i], t[12+i], t[20+i], t[24+i], t[28+i])
		const round, bits = 1 << 17, 18 // 16 * 4096, and 4 of the two transforms
		dst[i], dst[stride+i] = level((w+round)>>bits), level((x+round)>>bits)
		dst[2*stride+i], dst[3*stride+i] = level((y+round)>>bits), level((z+round)>>bits)
	}
}

// Factors of the transform: Loeffler, Ligtenberg and Moschytz, "Practical Fast
// 1-D DCT Algorithms with 11 Multiplications", ICASSP 1989. They, the order of
// steps and every shift are image/jpeg's, so that the bytes are.
const (
	// (cos 6pi/16)/sqrt 2 and (sin 6pi/16)/sqrt 2, with 18 and 12 bits.
	cos6, sin6       = 70936, 171254
	cos6low, sin6low = 1108, 2676
	// cos and sin of 3pi/16 and pi/16, with 12 bits.
	cos3, sin3 = 3406, 2276
	cos1, sin1 = 4017, 799
	// 1/sqrt 2 with 8 and 14 bits.
	half8, half14 = 181, 11585
)

// turn rotates and scales.
func turn(x, y, c, s int32) (int32, int32) { return x*c + y*s, y*c - x*s }

// wholeGo is the inverse transform of all 64.
func wholeGo(b *[64]int32, dst []byte, stride int) {
	var t [64]int32
	for i := range 8 {
		x0, x7, x2, x5, x1, x6, x3, x4 := b[i], b[8+i], b[16+i], b[24+i], b[32+i], b[40+i], b[48+i], b[56+i]
		if x7|x2|x5|x1|x6|x3|x4 == 0 {
			if x0 != 0 {
				x0 <<= 17
				row := t[8*i : 8*i+8 : 8*i+8]
				for k := range row {
					row[k] = x0
				}
			}
			continue
		}
		x0 <<= 17
		x1 <<= 17
		x0, x1 = x0+x1, x0-x1
		x2, x3 = turn(x2, x3, cos6, -sin6)
		x1, x2 = x1+x2, x1-x2
		x0, x3 = x0+x3, x0-x3
		x4 <<= 7
		x7 <<= 7
		x7, x4 = x7+x4, x7-x4
		x6 *= half8
		x5 *= half8
		x7, x5 = x7+x5, x7-x5
		x4, x6 = x4+x6, x4-x6
		x4, x7 = turn(x4>>2, x7>>2, cos3, -sin3)
		x5, x6 = turn(x5>>2, x6>>2, cos1, -sin1)
		row := t[8*i : 8*i+8 : 8*i+8]
		row[0], row[7] = x0+x7, x0-x7
		row[1], row[6] = x1+x6, x1-x6
		row[2], row[5] = x2+x5, x2-x5
		row[3], row[4] = x3+x4, x3-x4
	}
	for i := range 8 {
		x0, x7, x2, x5, x1, x6, x3, x4 := t[i], t[8+i], t[16+i], t[24+i], t[32+i], t[40+i], t[48+i], t[56+i]
		x0 += 1 << 19
		x0, x1 = (x0+x1)>>2, (x0-x1)>>2
		x2, x3 = turn(x2>>13, x3>>13, cos6low, -sin6low)
		x1, x2 = x1+x2, x1-x2
		x0, x3 = x0+x3, x0-x3
		x7, x4 = x7+x4, x7-x4
		x5 = (x5 >> 13) * half14
		x6 = (x6 >> 13) * half14
		x7, x5 = x7+x5, x7-x5
		x4, x6 = x4+x6, x4-x6
		x4, x7 = turn(x4>>14, x7>>14, cos3, -sin3)
		x5, x6 = turn(x5>>14, x6>>14, cos1, -sin1)
		dst[i], dst[7*stride+i] = level((x0+x7)>>18), level((x0-x7)>>18)
		dst[stride+i], dst[6*stride+i] = level((x1+x6)>>18), level((x1-x6)>>18)
		dst[2*stride+i], dst[5*stride+i] = level((x2+x5)>>18), level((x2-x5)>>18)
		dst[3*stride+i], dst[4*stride+i] = level((x3+x4)>>18), level((x3-x4)>>18)
	}
}
