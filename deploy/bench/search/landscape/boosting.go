package landscape

import (
	"math"
	"math/rand/v2"
	"sort"
)

// boosting is gradient boosting of regression trees on Friedman's function,
// 200 examples.
func boosting() Table {
	x, y := friedman(200, rand.New(rand.NewPCG(1, 2)))
	vx, vy := friedman(500, rand.New(rand.NewPCG(2, 2)))
	return Table{
		Name: "boosting",
		Axes: []Axis{
			{Name: "lr", Values: powers(10, -2, 0, 9)},
			{Name: "rounds", Values: []float64{10, 20, 40, 80, 160}},
			{Name: "depth", Values: []float64{1, 2, 3, 4, 5}},
			{Name: "subsample", Values: []float64{0.4, 0.7, 1}},
			{Name: "leaf", Values: []float64{1, 4, 16}},
			{Name: "penalty", Values: []float64{0, 2, 20}},
		},
		train: func(s []float64) float64 {
			return boost(x, y, vx, vy, s[0], int(s[1]), int(s[2]), s[3], int(s[4]), s[5])
		},
	}
}

type node struct {
	feature     int
	threshold   float64
	left, right *node
	value       float64
}

func (t *node) at(x []float64) float64 {
	for t.left != nil {
		if x[t.feature] < t.threshold {
			t = t.left
		} else {
			t = t.right
		}
	}
	return t.value
}

// boost returns the root mean square error on vx, vy.
func boost(x [][]float64, y []float64, vx [][]float64, vy []float64, lr float64, rounds, depth int, subsample float64, leaf int, penalty float64) float64 {
	rng := rand.New(rand.NewPCG(11, 5))
	residual := append([]float64(nil), y...)
	guess := make([]float64, len(vx))
	sorted := make([][]int, len(x[0])) // examples by each feature
	for f := range sorted {
		for i := range x {
			sorted[f] = append(sorted[f], i)
		}
		sort.SliceStable(sorted[f], func(a, b int) bool { return x[sorted[f][a]][f] < x[sorted[f][b]][f] })
	}
	in := make([]int, len(x)) // which node an example is at; -1 = left out
	for r := 0; r < rounds; r++ {
		for i := range in {
			in[i] = 0
			if subsample < 1 && rng.Float64() >= subsample {
				in[i] = -1
			}
		}
		count := 1
		t := grow(x, residual, sorted, in, 0, &count, depth, leaf, penalty)
		for i := range x {
			residual[i] -= lr * t.at(x[i])
		}
		for i := range vx {
			guess[i] += lr * t.at(vx[i])
		}
	}
	sum := 0.0
	for i := range vx {
		sum += (vy[i] - guess[i]) * (vy[i] - guess[i])
	}
	return math.Sqrt(sum / float64(len(vx)))
}

// grow splits the examples at node id where that reduces the squared error most.
func grow(x [][]float64, y []float64, sorted [][]int, in []int, id int, count *int, depth, leaf int, penalty float64) *node {
	n, sum := 0.0, 0.0
	for i := range in {
		if in[i] == id {
			n++
			sum += y[i]
		}
	}
	t := &node{value: sum / math.Max(n+penalty, 1)}
	if depth == 0 || n < 2*float64(leaf) {
		return t
	}
	best := sum * sum / (n + penalty)
	found := false
	for f, order := range sorted {
		k, left, last := 0.0, 0.0, 0.0
		for _, i := range order {
			if in[i] != id {
				continue
			}
			if k >= float64(leaf) && n-k >= float64(leaf) && x[i][f] > last {
				if s := left*left/(k+penalty) + (sum-left)*(sum-left)/(n-k+penalty); s > best+1e-9 {
					best, found = s, true
					t.feature, t.threshold = f, (x[i][f]+last)/2
				}
			}
			k++
			left += y[i]
			last = x[i][f]
		}
	}
	if !found {
		return t
	}
	a, b := *count, *count+1
	*count += 2
	for i := range in {
		if in[i] == id {
			if x[i][t.feature] < t.threshold {
				in[i] = a
			} else {
				in[i] = b
			}
		}
	}
	t.left = grow(x, y, sorted, in, a, count, depth-1, leaf, penalty)
	t.right = grow(x, y, sorted, in, b, count, depth-1, leaf, penalty)
	return t
}
