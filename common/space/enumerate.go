package space

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sort"
)

// maxBranches bounds the combinations of condition parents that hang together.
const maxBranches = 1 << 16

var (
	errEntangled = fmt.Errorf("conditions link parameters with more than %d combinations of choices; split them or use fewer choices", maxBranches)
	errInfinite  = errors.New("the space has a float without step, steps or values, so its points cannot be counted")
)

// Enumeration numbers the distinct points of a finite space from 0, without
// holding them: inactive parameters never make a second copy of a point.
type Enumeration struct {
	space *Space
	size  uint64
	parts []part
}

// part is a set of parameters linked by conditions; parts are independent.
type part struct {
	params   []int // positions in the space, ascending
	branches []branch
	size     uint64
}

// branch fixes the values of a part's condition parents (those that others
// depend on); the remaining active parameters run freely.
type branch struct {
	fixed []fixed
	free  []int
	first uint64 // number of points in earlier branches
	count uint64
}

type fixed struct {
	param int
	value Value // absent where the parent is itself inactive
}

// Size returns the number of distinct points. A count beyond a uint64 is given
// as math.MaxUint64.
func (s *Space) Size() (n uint64, finite bool) {
	e, err := s.Enumerate()
	if err != nil {
		return 0, false
	}
	return e.size, true
}

// Enumerate prepares the numbering of a finite space's points. The space must
// be valid and not change afterwards.
func (s *Space) Enumerate() (*Enumeration, error) {
	e := &Enumeration{space: s, size: 1}
	infinite := false
	for _, params := range s.linked() {
		p, finite, err := s.part(params)
		if err != nil {
			return nil, err
		}
		if !finite {
			infinite = true
			continue
		}
		e.parts = append(e.parts, p)
		e.size = mul(e.size, p.size)
	}
	if infinite {
		return nil, errInfinite
	}
	return e, nil
}

// linked groups parameters that conditions connect, in order of their first.
func (s *Space) linked() [][]int {
	group := make([]int, len(s.Params))
	for i := range group {
		group[i] = i
		for _, c := range s.Params[i].When {
			parent, ok := s.Lookup(c.Parent)
			if !ok || parent >= i {
				continue
			}
			from, to := max(group[i], group[parent]), min(group[i], group[parent])
			for j := 0; j <= i; j++ {
				if group[j] == from {
					group[j] = to
				}
			}
		}
	}
	var out [][]int
	at := make([]int, len(s.Params))
	for i, g := range group {
		if g == i {
			at[i] = len(out)
			out = append(out, nil)
		}
		out[at[g]] = append(out[at[g]], i)
	}
	return out
}

// part lists every choice of the parents among some parameters, and counts the points of each.
// False: an axis has no end.
func (s *Space) part(params []int) (part, bool, error) {
	isParent := make(map[int]bool) // looked up only, never ranged over
	for _, i := range params {
		for _, c := range s.Params[i].When {
			if parent, ok := s.Lookup(c.Parent); ok {
				isParent[parent] = true
			}
		}
	}
	out := part{params: params}
	finite := true
	point := make(Point, len(s.Params))
	var walk func(at int, chosen []fixed) error
	walk = func(at int, chosen []fixed) error {
		for at < len(params) && !isParent[params[at]] {
			at++
		}
		if at == len(params) {
			if len(out.branches) >= maxBranches {
				return errEntangled
			}
			b := branch{fixed: append([]fixed(nil), chosen...), first: out.size, count: 1}
			for _, i := range params {
				if isParent[i] || !s.Active(point, i) {
					continue
				}
				n, ok := s.Params[i].Cells()
				if !ok {
					finite = false
				}
				b.free = append(b.free, i)
				b.count = mul(b.count, n)
			}
			out.branches = append(out.branches, b)
			out.size = add(out.size, b.count)
			return nil
		}
		i := params[at]
		if !s.Active(point, i) {
			point[i] = Value{}
			return walk(at+1, append(chosen, fixed{i, Value{}}))
		}
		for _, c := range s.Params[i].Choices {
			point[i] = c
			if err := walk(at+1, append(chosen, fixed{i, c})); err != nil {
				return err
			}
		}
		point[i] = Value{}
		return nil
	}
	err := walk(0, nil)
	return out, finite, err
}

// Size returns the number of points, capped at math.MaxUint64.
func (e *Enumeration) Size() uint64 { return e.size }

// At returns point k; k is below Size. The last parameters change fastest.
func (e *Enumeration) At(k uint64) Point {
	p := make(Point, len(e.space.Params))
	for i := len(e.parts) - 1; i >= 0; i-- {
		part := &e.parts[i]
		r := k % part.size
		k /= part.size
		b := &part.branches[sort.Search(len(part.branches), func(j int) bool { return part.branches[j].first > r })-1]
		for _, f := range b.fixed {
			p[f.param] = f.value
		}
		r -= b.first
		for j := len(b.free) - 1; j >= 0; j-- {
			a := &e.space.Params[b.free[j]]
			n, _ := a.Cells()
			p[b.free[j]] = a.At(r % n)
			r /= n
		}
	}
	return p
}

// Rank is the inverse of At; false for points that are not of the space.
func (e *Enumeration) Rank(p Point) (uint64, bool) {
	if len(p) != len(e.space.Params) {
		return 0, false
	}
	var k uint64
	for i := range e.parts {
		r, ok := e.parts[i].rank(e.space, p)
		if !ok {
			return 0, false
		}
		k = k*e.parts[i].size + r
	}
	return k, true
}

// rank is the inverse of what At does for this part.
func (t *part) rank(s *Space, p Point) (uint64, bool) {
	// Branches stand in the order in which parents choose; compare by index.
	order := func(b *branch) int {
		for _, f := range b.fixed {
			want, wantOK := s.Params[f.param].Index(p[f.param])
			have, haveOK := s.Params[f.param].Index(f.value)
			switch {
			case wantOK != haveOK: // active in one, inactive in the other: p is not canonical
				if wantOK {
					return -1
				}
				return 1
			case wantOK && have < want:
				return -1
			case wantOK && have > want:
				return 1
			}
		}
		return 0
	}
	j := sort.Search(len(t.branches), func(j int) bool { return order(&t.branches[j]) >= 0 })
	if j == len(t.branches) || order(&t.branches[j]) != 0 {
		return 0, false
	}
	b := &t.branches[j]
	var r uint64
	free := 0
	for _, i := range t.params {
		if free < len(b.free) && b.free[free] == i {
			a := &s.Params[i]
			index, ok := a.Index(p[i])
			if !ok {
				return 0, false
			}
			n, _ := a.Cells()
			r = r*n + index
			free++
		} else if !p[i].IsAbsent() && !b.fixes(i) {
			return 0, false
		}
	}
	return b.first + r, true
}

// fixes reports whether the branch settles a parameter.
func (b *branch) fixes(param int) bool {
	for _, f := range b.fixed {
		if f.param == param {
			return true
		}
	}
	return false
}

// mul and add stay at the largest number instead of wrapping: a count that is too large must not
// look small.
func mul(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high > 0 {
		return math.MaxUint64
	}
	return low
}

func add(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return math.MaxUint64
}
