package state

// vector is a persistent sequence: a tree of 32-wide nodes, each stamped with
// the generation that made it. A node of the present generation is changed in
// place; a node of an older one may be part of a View and is copied first. A
// copy of the vector value is therefore a snapshot, once the generation moves.
type vector[T any] struct {
	root  *node[T]
	n     int
	shift uint // of the root: 0 for a leaf, 5 a level above
}

const (
	nodeBits  = 5
	nodeWidth = 1 << nodeBits
	nodeMask  = nodeWidth - 1
)

type node[T any] struct {
	gen   uint64
	kids  []*node[T] // inner node
	items []T        // leaf
}

func (nd *node[T]) owned(gen uint64) *node[T] {
	if nd.gen == gen {
		return nd
	}
	c := &node[T]{gen: gen}
	if nd.kids != nil {
		c.kids = append(make([]*node[T], 0, nodeWidth), nd.kids...)
	} else {
		c.items = append(make([]T, 0, nodeWidth), nd.items...)
	}
	return c
}

func (v *vector[T]) len() int { return v.n }

// at returns item i; 0 <= i < len.
func (v *vector[T]) at(i int) T {
	nd := v.root
	for s := v.shift; s > 0; s -= nodeBits {
		nd = nd.kids[i>>s&nodeMask]
	}
	return nd.items[i&nodeMask]
}

// slot returns the place of item i, owned by gen; 0 <= i < len.
func (v *vector[T]) slot(gen uint64, i int) *T {
	v.root = v.root.owned(gen)
	nd := v.root
	for s := v.shift; s > 0; s -= nodeBits {
		k := i >> s & nodeMask
		kid := nd.kids[k].owned(gen)
		nd.kids[k] = kid
		nd = kid
	}
	return &nd.items[i&nodeMask]
}

func (v *vector[T]) push(gen uint64, item T) {
	switch {
	case v.root == nil:
		v.root = &node[T]{gen: gen, items: make([]T, 0, nodeWidth)}
	case v.n == nodeWidth<<v.shift: // full: one level more
		v.root = &node[T]{gen: gen, kids: append(make([]*node[T], 0, nodeWidth), v.root)}
		v.shift += nodeBits
	}
	v.root = v.root.owned(gen)
	nd := v.root
	for s := v.shift; s > 0; s -= nodeBits {
		k := v.n >> s & nodeMask
		if k == len(nd.kids) {
			fresh := &node[T]{gen: gen}
			if s == nodeBits {
				fresh.items = make([]T, 0, nodeWidth)
			} else {
				fresh.kids = make([]*node[T], 0, nodeWidth)
			}
			nd.kids = append(nd.kids, fresh)
		} else {
			nd.kids[k] = nd.kids[k].owned(gen)
		}
		nd = nd.kids[k]
	}
	nd.items = append(nd.items, item)
	v.n++
}

// leaves calls fn with each run of items in order, and the position of its
// first, until fn returns false.
func (v *vector[T]) leaves(from int, fn func(first int, items []T) bool) {
	if v.root == nil || from >= v.n {
		return
	}
	for i := from &^ nodeMask; i < v.n; i += nodeWidth {
		nd := v.root
		for s := v.shift; s > 0; s -= nodeBits {
			nd = nd.kids[i>>s&nodeMask]
		}
		items, first := nd.items, i
		if first < from {
			items, first = items[from-first:], from
		}
		if !fn(first, items) {
			return
		}
	}
}
