package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// whole is the tree's sum computed the plain way.
func whole(leaves []string, level, i int) string {
	lo := i << level
	if level == 0 {
		return leaves[lo]
	}
	left := whole(leaves, level-1, 2*i)
	if lo+1<<(level-1) >= len(leaves) {
		return left
	}
	return "(" + left + "+" + whole(leaves, level-1, 2*i+1) + ")"
}

func leavesOf(n node, present int) (lo, hi int) {
	return n.i << n.level, min((n.i+1)<<n.level, present)
}

// For all shards, members and shards present the ranks' nodes cover the leaves
// once, no node could be greater, and the program makes the sum that one member
// makes.
func TestTreeIsTheSameForAllMembers(t *testing.T) {
	for shards := 1; shards <= 20; shards++ {
		for present := 1; present <= shards; present++ {
			leaves := make([]string, present)
			for i := range leaves {
				leaves[i] = fmt.Sprint(i)
			}
			top := root(present)
			want := whole(leaves, top, 0)
			for members := 1; members <= shards; members++ {
				var all []node
				for rank := range members {
					from, to := Share(shards, members, rank)
					list := wholes(from, to, present)
					if len(list) != Nodes(from, to, present) {
						t.Fatal("Nodes counts others than wholes lists")
					}
					for _, n := range list {
						lo, hi := leavesOf(n, present)
						if a, b := clip(from, to, present); lo < a || hi > b {
							t.Fatalf("%d shards, %d present, rank %d of %d: node %v is of others' leaves", shards, present, rank, members, n)
						}
						parent := node{n.level + 1, n.i / 2}
						plo, phi := leavesOf(parent, present)
						if a, b := clip(from, to, present); n.level < top && plo >= a && phi <= b {
							t.Fatalf("%d shards, %d present, rank %d of %d: %v although all of %v is there", shards, present, rank, members, n, parent)
						}
					}
					all = append(all, list...)
				}
				next := 0
				sums := make([]string, len(all))
				for i, n := range all {
					lo, hi := leavesOf(n, present)
					if lo != next {
						t.Fatalf("%d shards, %d present, %d members: leaf %d is missing or double", shards, present, members, next)
					}
					next = hi
					sums[i] = whole(leaves, n.level, n.i)
				}
				if next != present {
					t.Fatalf("leaves up to %d of %d", next, present)
				}
				for _, m := range program(all, present) {
					sums[m.To] = "(" + sums[m.To] + "+" + sums[m.From] + ")"
				}
				if sums[0] != want {
					t.Fatalf("%d shards, %d present, %d members: %s, want %s", shards, present, members, sums[0], want)
				}
			}
		}
	}
}

func TestSharesAndPiecesCover(t *testing.T) {
	for members := 1; members <= 9; members++ {
		for _, floats := range []int{0, 1, 15, 16, 17, 100, 1000, 12345} {
			next := 0
			for rank := range members {
				lo, hi := piece(floats, members, rank)
				if lo != next || hi < lo || lo%pieceAlign != 0 && lo != floats {
					t.Errorf("%d floats, rank %d of %d: [%d, %d)", floats, rank, members, lo, hi)
				}
				next = hi
			}
			if next != floats {
				t.Errorf("%d floats over %d members end at %d", floats, members, next)
			}
		}
		for shards := members; shards < 20; shards++ {
			next := 0
			for rank := range members {
				from, to := Share(shards, members, rank)
				if from != next || to <= from {
					t.Errorf("%d shards, rank %d of %d: [%d, %d)", shards, rank, members, from, to)
				}
				next = to
			}
		}
	}
}

// Sum gives the same bits as additions one after the other, and leaves its
// inputs alone.
func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 1023, 1024, 5000} {
		for present := 1; present <= 9; present++ {
			var list []node
			for i := range present {
				list = append(list, node{0, i})
			}
			in, work := make([][]float32, present), make([][]float32, present)
			for i := range in {
				in[i] = make([]float32, n)
				for k := range in[i] {
					in[i][k] = rng.Float32() - 0.5
				}
				work[i] = slices.Clone(in[i])
			}
			before := fmt.Sprint(in)
			p := program(list, present)
			out := make([]float32, n)
			Sum(out, in, p)
			if fmt.Sprint(in) != before {
				t.Fatal("Sum changed an input")
			}
			for _, m := range p {
				for k := range work[m.To] {
					work[m.To][k] += work[m.From][k]
				}
			}
			if !slices.Equal(out, work[0]) {
				t.Fatalf("%d inputs of %d floats: other sums", present, n)
			}
		}
	}
}
