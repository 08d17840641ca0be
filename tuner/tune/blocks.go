package tune

import (
	"fmt"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// member is the value of a mapping's key; nil where there is none.
func member(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// put sets a mapping's key; null takes it out.
func put(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if value.ShortTag() == "!!null" {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
		n.Content[i+1] = value
		return
	}
	if value.ShortTag() != "!!null" {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
	}
}

// clone copies a tree, following aliases, so that it can be changed.
func clone(n *yaml.Node) *yaml.Node { return copied(n, 0) }

func copied(n *yaml.Node, depth int) *yaml.Node {
	if depth > 64 { // an alias of itself: the spec's parser refuses it
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	if n.Kind == yaml.AliasNode {
		return copied(n.Alias, depth+1)
	}
	c := *n
	c.Anchor, c.HeadComment, c.LineComment, c.FootComment, c.Content = "", "", "", "", nil
	for _, x := range n.Content {
		c.Content = append(c.Content, copied(x, depth+1))
	}
	return &c
}

func whole(n int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(n)}
}

// onGrid gives every axis of a space a number of values: floats without steps
// get n even ones; with reduce also whole numbers and lists are cut down to n.
// It tells what it did.
func onGrid(space *yaml.Node, n int, reduce bool) (notes []string) {
	for i := 0; i+1 < len(space.Content); i += 2 {
		name, p := space.Content[i].Value, space.Content[i+1]
		if p.Kind != yaml.MappingNode {
			continue
		}
		list := member(p, "choices")
		if list == nil {
			list = member(p, "values")
		}
		if list != nil {
			if have := len(list.Content); reduce && list.Kind == yaml.SequenceNode && have > n {
				kept := make([]*yaml.Node, 0, n)
				for k := range n {
					kept = append(kept, list.Content[evenly(k, n, have)])
				}
				list.Content = kept
				notes = append(notes, fmt.Sprintf("%s: %d of its %d values", name, n, have))
			}
			continue
		}
		kind := member(p, "type")
		fixed := member(p, "steps") != nil || member(p, "step") != nil
		if kind == nil || !reduce && (fixed || kind.Value != "float") {
			continue
		}
		if kind.Value == "int" && !wider(p, n) {
			continue
		}
		null := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		put(p, "step", null)
		put(p, "steps", whole(n))
		notes = append(notes, fmt.Sprintf("%s: %d values", name, n))
	}
	return notes
}

// evenly is the k-th of n places among have.
func evenly(k, n, have int) int {
	if n == 1 {
		return 0
	}
	return int(math.Round(float64(k) * float64(have-1) / float64(n-1)))
}

// wider reports whether an int axis has more than n values.
func wider(p *yaml.Node, n int) bool {
	var low, high float64
	if l, h := member(p, "low"), member(p, "high"); l == nil || h == nil || l.Decode(&low) != nil || h.Decode(&high) != nil {
		return true
	}
	return high-low+1 > float64(n)
}
