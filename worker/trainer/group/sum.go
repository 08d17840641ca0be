package group

// sumBlock is how many floats are summed at a time: several inputs of it fit the
// first-level cache.
const sumBlock = 1024

// Sum carries out a program on slices of one length: in[m.To] += in[m.From] in
// order, then out = in[0]. The inputs stay as they are.
func Sum(out []float32, in [][]float32, program []Merge) {
	switch {
	case len(program) == 0:
		copy(out, in[0])
		return
	case len(program) == 1 && len(in) == 2:
		add(out, in[program[0].To], in[program[0].From])
		return
	}
	scratch := make([]float32, len(in)*sumBlock)
	partial := make([][]float32, len(in))
	for lo := 0; lo < len(out); lo += sumBlock {
		hi := min(lo+sumBlock, len(out))
		for i := range in {
			partial[i] = in[i][lo:hi]
		}
		for _, m := range program {
			to := scratch[m.To*sumBlock:][:hi-lo]
			if m.To == 0 {
				to = out[lo:hi]
			}
			add(to, partial[m.To], partial[m.From])
			partial[m.To] = to
		}
	}
}

func add(out, a, b []float32) {
	a, b = a[:len(out)], b[:len(out)]
	for i := range out {
		out[i] = a[i] + b[i]
	}
}
