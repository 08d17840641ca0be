package group

// node is a node (level, i) of the fixed binary tree over a step's shards: the
// leaves [i*2^level, (i+1)*2^level) of those present.
type node struct{ level, i int }

// Merge is one addition of a program: in[To] += in[From].
type Merge struct{ To, From int }

// Share is the range [from, to) of shards that a rank of members computes.
func Share(shards, members, rank int) (from, to int) {
	return shards * rank / members, shards * (rank + 1) / members
}

// clip is the part of a share whose shards are present in a step.
func clip(from, to, present int) (int, int) { return min(from, present), min(to, present) }

// root is the level of the tree's root.
func root(present int) (level int) {
	for 1<<level < present {
		level++
	}
	return level
}

// wholes are the greatest nodes of the tree over [0, present) with all of their
// leaves in [from, to), in the order of their leaves. A node whose right half has
// no leaf is its left half, so the greater of the two is taken.
func wholes(from, to, present int) (list []node) {
	from, to = clip(from, to, present)
	for at := from; at < to; {
		best, end := node{0, at}, at+1
		for level := 1; level <= root(present) && at%(1<<level) == 0; level++ {
			if e := min(at+1<<level, present); e <= to {
				best, end = node{level, at >> level}, e
			}
		}
		list = append(list, best)
		at = end
	}
	return list
}

// Nodes is how many sums a member with the shards [from, to) has of each bucket
// in a step with so many shards present: those of its greatest whole nodes.
func Nodes(from, to, present int) int { return len(wholes(from, to, present)) }

// program completes the tree over [0, present) from the sums of list, all its
// nodes in order of their leaves; the result is in the first.
func program(list []node, present int) (merges []Merge) {
	at := make(map[node]int, len(list))
	for i, n := range list {
		at[n] = i
	}
	var build func(n node) int
	build = func(n node) int {
		if slot, ok := at[n]; ok {
			return slot
		}
		left := build(node{n.level - 1, 2 * n.i})
		if (2*n.i+1)<<(n.level-1) < present {
			merges = append(merges, Merge{To: left, From: build(node{n.level - 1, 2*n.i + 1})})
		}
		return left
	}
	build(node{root(present), 0})
	return merges
}

// pieceAlign is what pieces' ends are a multiple of, in floats: a cache line.
const pieceAlign = 16

// piece is the part [lo, hi) of a bucket of so many floats that a rank owns.
func piece(floats, members, rank int) (lo, hi int) {
	blocks := (floats + pieceAlign - 1) / pieceAlign
	return min(floats, blocks*rank/members*pieceAlign), min(floats, blocks*(rank+1)/members*pieceAlign)
}
