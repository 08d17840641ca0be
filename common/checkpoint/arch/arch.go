// Package arch knows the architectures of the trainer by the names and shapes
// of their tensors, which are torchvision's, without libtorch: for whoever
// takes a file from anywhere and has to say whether it can be loaded. The table
// is written by a test of worker/trainer/model, which holds it to the models.
package arch

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Part is a tensor of a model.
type Part struct {
	Name  string
	Shape []int64 // in a table, 0 stands for the number of classes
}

// counter ends the names of batch normalisation's counters, from which nothing
// is computed: a state without them can be loaded.
const counter = ".num_batches_tracked"

//go:embed architectures.txt
var text string

// known is one architecture.
type known struct {
	name, head string // head is the path of the last linear layer
	parts      []Part
}

// table reads architectures.txt: "= name head", then a line for each layer, its
// path and what it has: the shape of a weight, "bias N", or "norm N" for all
// five tensors of a batch normalisation.
var table = sync.OnceValue(func() (all []known) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if f[0] == "=" {
			all = append(all, known{name: f[1], head: f[2]})
			continue
		}
		k := &all[len(all)-1]
		add := func(part string, shape ...int64) { k.parts = append(k.parts, Part{f[0] + "." + part, shape}) }
		switch f[1] {
		case "norm":
			n := number(f[2])
			add("weight", n)
			add("bias", n)
			add("running_mean", n)
			add("running_var", n)
			add("num_batches_tracked")
		case "bias":
			add("bias", number(f[2]))
		default:
			var shape []int64
			for _, d := range f[1:] {
				shape = append(shape, number(d))
			}
			add("weight", shape...)
		}
	}
	return all
})

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic("architectures.txt: " + err.Error())
	}
	return n
}

// Known lists the tensors of an architecture; nil where there is none of that
// name.
func Known(name string) []Part {
	for _, k := range table() {
		if k.name == name {
			return k.parts
		}
	}
	return nil
}

// IsRoot reports whether a name's first component is one with which names of a
// model here begin, such as layer1 or features.
func IsRoot(component string) bool { return roots()[component] }

var roots = sync.OnceValue(func() map[string]bool {
	first := map[string]bool{}
	for _, k := range table() {
		for _, p := range k.parts {
			root, _, _ := strings.Cut(p.Name, ".")
			first[root] = true
		}
	}
	return first
})

// Match is how a state and the architecture nearest to it agree.
type Match struct {
	Arch    string // "" = none is near: another kind of model
	Missing []string
	Extra   []string          // what the architecture has not
	Renamed map[string]string // names of a head that stands in a Sequential -> the architecture's
}

// Nearest compares a state with the architecture called name, or, where that is
// "" or none known here, with the one that has most of its names and shapes. A
// state of which less than half the tensors fit is of another kind of model.
func Nearest(name string, state []Part) Match {
	var best Match
	most := -1
	for _, k := range table() {
		if k.name != name && Known(name) != nil {
			continue
		}
		m, found := k.match(state)
		// Of two that fit alike, the one that lacks less: resnet18 has most names of resnet34.
		if found -= len(m.Missing) + len(m.Extra); most < 0 || found > most {
			most = found
			if best = m; 2*(len(state)-len(m.Extra)) < len(state) || 2*len(m.Missing) > len(k.parts) {
				best = Match{}
			}
		}
	}
	if most < 0 {
		return Match{}
	}
	return best
}

func (k *known) match(state []Part) (m Match, found int) {
	m.Arch = k.name
	given := make(map[string][]int64, len(state))
	for _, p := range state {
		given[p.Name] = p.Shape
	}
	taken := map[string]bool{}
	for _, p := range k.parts {
		shape, ok := given[p.Name]
		switch {
		case ok && fits(p.Shape, shape):
			found++
			taken[p.Name] = true
			continue
		case strings.HasSuffix(p.Name, counter):
			continue
		}
		if from := k.nested(p, state); from != "" && !ok {
			if m.Renamed == nil {
				m.Renamed = map[string]string{}
			}
			m.Renamed[from] = p.Name
			found++
			taken[from] = true
			continue
		}
		m.Missing = append(m.Missing, p.Name)
	}
	for _, p := range state {
		if !taken[p.Name] {
			m.Extra = append(m.Extra, p.Name)
		}
	}
	return m, found
}

// nested finds the head's tensor inside a Sequential, as where somebody put a
// dropout in front: fc.1.weight for fc.weight. It must be the only one that
// fits.
func (k *known) nested(p Part, state []Part) (from string) {
	part, ok := strings.CutPrefix(p.Name, k.head+".")
	if !ok {
		return ""
	}
	for _, s := range state {
		at, inside := strings.CutPrefix(s.Name, k.head+".")
		at, named := strings.CutSuffix(at, "."+part)
		if _, err := strconv.Atoi(at); !inside || !named || err != nil || len(s.Shape) != len(p.Shape) {
			continue
		}
		if from != "" || !fits(p.Shape, s.Shape) {
			return "" // several layers: another head
		}
		from = s.Name
	}
	return from
}

// fits reports whether a shape is the one wanted; a 0 in the wanted one stands for any number.
func fits(want, got []int64) bool {
	return slices.EqualFunc(want, got, func(a, b int64) bool { return a == b || a == 0 })
}

// Some lists the first few names.
func Some(names []string) string {
	if n := len(names); n > 4 {
		return strings.Join(names[:3], ", ") + fmt.Sprintf(" and %d more", n-3)
	}
	return strings.Join(names, ", ")
}
