package group

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Slices is a Memory of slices, for a trainer whose gradients are floats of its
// own. A step: Begin, then for each bucket its contributions written and Done.
type Slices struct {
	sizes  []int
	nodes  int
	file   *os.File
	mapped []byte
	own    []float32   // all buckets, one after the other
	parts  [][]float32 // a node each, all buckets
	result []float32
	start  []int
	ready  chan int
}

// NewSlices has so many floats in each bucket, and room for the contributions of
// so many nodes (Nodes) of each. With shared the members on this machine read it
// in place.
func NewSlices(sizes []int, nodes int, shared bool) (*Slices, error) {
	s := &Slices{sizes: sizes, nodes: nodes, ready: make(chan int, len(sizes))}
	total := 0
	for _, n := range sizes {
		s.start = append(s.start, total)
		total += (n + pieceAlign - 1) / pieceAlign * pieceAlign
	}
	s.result = make([]float32, total)
	var floats []float32
	if shared && total > 0 {
		f, b, err := NewSegment("atelier-sums", 4*total*(nodes+1))
		if err != nil {
			return nil, err
		}
		s.file, s.mapped, floats = f, b, floatsOf(b)
	} else {
		floats = make([]float32, total*(nodes+1))
	}
	s.own = floats[:total]
	for k := range nodes {
		s.parts = append(s.parts, floats[total*(k+1):][:total])
	}
	return s, nil
}

// Begin forgets what the step before left to be taken.
func (s *Slices) Begin() {
	for {
		select {
		case <-s.ready:
			continue
		default:
			return
		}
	}
}

// Done makes a bucket's contributions known, once a step.
func (s *Slices) Done(bucket int) { s.ready <- bucket }

// Free gives the memory back; no group may use it any more.
func (s *Slices) Free() {
	if s.file != nil {
		s.file.Close()
		unix.Munmap(s.mapped)
		s.file, s.mapped, s.own, s.parts = nil, nil, nil, nil
	}
}

func (s *Slices) Sizes() []int { return s.sizes }

func (s *Slices) Segment() (*os.File, int64) { return s.file, int64(len(s.mapped)) }

func (s *Slices) Contribution(bucket, node int) ([]float32, int64) {
	if node >= s.nodes {
		panic(fmt.Sprintf("group: node %d of a memory for %d", node, s.nodes))
	}
	at := s.start[bucket]
	return s.parts[node][at:][:s.sizes[bucket]], int64(4 * ((node+1)*len(s.result) + at))
}

func (s *Slices) Own(bucket int) ([]float32, int64) {
	return s.own[s.start[bucket]:][:s.sizes[bucket]], int64(4 * s.start[bucket])
}

func (s *Slices) Result(bucket int) []float32 {
	return s.result[s.start[bucket]:][:s.sizes[bucket]]
}

func (s *Slices) Ready(stop <-chan struct{}) (int, bool) {
	select {
	case b := <-s.ready:
		return b, true
	case <-stop:
		return 0, false
	}
}

func (s *Slices) Sum(out []float32, in [][]float32, program []Merge) { Sum(out, in, program) }
