package landscape

import (
	"math"
	"math/rand/v2"
)

// network is a multilayer perceptron with one hidden layer: seven classes, 12
// inputs, 300 examples, trained by momentum descent for 8 epochs.
func network() Table {
	x, y := classes(300, 12, 7, rand.New(rand.NewPCG(1, 1)), 9)
	vx, vy := classes(800, 12, 7, rand.New(rand.NewPCG(2, 1)), 9)
	return Table{
		Name: "network",
		Axes: []Axis{
			{Name: "lr", Values: powers(10, -3.5, 0.5, 9)},
			{Name: "hidden", Values: []float64{4, 8, 16, 32}},
			{Name: "batch", Values: []float64{8, 24, 72}},
			{Name: "momentum", Values: []float64{0, 0.5, 0.8, 0.9, 0.97}},
			{Name: "decay", Values: powers(10, -5, -1, 5)},
			{Name: "activation", Values: positions(2), Words: []string{"relu", "tanh"}},
		},
		train: func(s []float64) float64 {
			p := newPerceptron(12, int(s[1]), 7, s[5] == 0, rand.New(rand.NewPCG(4, 4)))
			p.train(x, y, s[0], int(s[2]), s[3], s[4], 8)
			return p.loss(vx, vy)
		},
	}
}

type perceptron struct {
	inputs, hidden, kinds int
	relu                  bool
	w1, w2                []float64 // rows of inputs+1, of hidden+1: the last is the bias
	g1, g2, m1, m2        []float64
	h, slope, p, dh       []float64
	rng                   *rand.Rand
}

func newPerceptron(inputs, hidden, kinds int, relu bool, rng *rand.Rand) *perceptron {
	p := &perceptron{inputs: inputs, hidden: hidden, kinds: kinds, relu: relu, rng: rng}
	size1, size2 := hidden*(inputs+1), kinds*(hidden+1)
	p.w1, p.g1, p.m1 = make([]float64, size1), make([]float64, size1), make([]float64, size1)
	p.w2, p.g2, p.m2 = make([]float64, size2), make([]float64, size2), make([]float64, size2)
	p.h, p.slope, p.dh, p.p = make([]float64, hidden), make([]float64, hidden), make([]float64, hidden), make([]float64, kinds)
	for i := range p.w1 {
		p.w1[i] = rng.NormFloat64() / math.Sqrt(float64(inputs))
	}
	for i := range p.w2 {
		p.w2[i] = rng.NormFloat64() / math.Sqrt(float64(hidden))
	}
	return p
}

// forward fills h, slope and the probabilities.
func (p *perceptron) forward(x []float64) {
	for k := range p.h {
		w := p.w1[k*(p.inputs+1) : (k+1)*(p.inputs+1)]
		a := w[p.inputs]
		for j, v := range x {
			a += w[j] * v
		}
		switch {
		case !p.relu:
			p.h[k] = math.Tanh(a)
			p.slope[k] = 1 - p.h[k]*p.h[k]
		case a > 0:
			p.h[k], p.slope[k] = a, 1
		default:
			p.h[k], p.slope[k] = 0, 0
		}
	}
	largest := math.Inf(-1)
	for c := range p.p {
		w := p.w2[c*(p.hidden+1) : (c+1)*(p.hidden+1)]
		a := w[p.hidden]
		for k, v := range p.h {
			a += w[k] * v
		}
		p.p[c] = a
		largest = math.Max(largest, a)
	}
	sum := 0.0
	for c := range p.p {
		p.p[c] = math.Exp(p.p[c] - largest)
		sum += p.p[c]
	}
	for c := range p.p {
		p.p[c] /= sum
	}
}

func (p *perceptron) train(x [][]float64, y []int, lr float64, batch int, momentum, decay float64, epochs int) {
	for e := 0; e < epochs; e++ {
		order := p.rng.Perm(len(x))
		for at := 0; at < len(order); at += batch {
			some := order[at:min(at+batch, len(order))]
			clear(p.g1)
			clear(p.g2)
			for _, i := range some {
				p.gradient(x[i], y[i])
			}
			step(p.w1, p.g1, p.m1, lr, momentum, decay, float64(len(some)))
			step(p.w2, p.g2, p.m2, lr, momentum, decay, float64(len(some)))
		}
	}
}

func (p *perceptron) gradient(x []float64, y int) {
	p.forward(x)
	clear(p.dh)
	for c := range p.p {
		d := p.p[c]
		if c == y {
			d--
		}
		at := c * (p.hidden + 1)
		for k, v := range p.h {
			p.g2[at+k] += d * v
			p.dh[k] += d * p.w2[at+k]
		}
		p.g2[at+p.hidden] += d
	}
	for k, d := range p.dh {
		if d *= p.slope[k]; d == 0 {
			continue
		}
		at := k * (p.inputs + 1)
		for j, v := range x {
			p.g1[at+j] += d * v
		}
		p.g1[at+p.inputs] += d
	}
}

func step(w, g, m []float64, lr, momentum, decay, n float64) {
	for i := range w {
		m[i] = momentum*m[i] + g[i]/n + decay*w[i]
		w[i] -= lr * m[i]
	}
}

// loss is the mean cross-entropy, at most 5: a training that fell apart counts
// as that.
func (p *perceptron) loss(x [][]float64, y []int) float64 {
	sum := 0.0
	for i := range x {
		p.forward(x[i])
		l := -math.Log(math.Max(p.p[y[i]], 1e-9))
		if math.IsNaN(l) {
			return 5
		}
		sum += l
	}
	return math.Min(5, sum/float64(len(x)))
}
