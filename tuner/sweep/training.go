package sweep

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"

	"atelier/common/space"
)

// training turns the training settings into canonical JSON: keys in the order
// of the file, no white space, numbers in their shortest form. Nothing is checked but that JSON can hold it: the sweep
// names its trainer, which may be a program in another language with keys of its own.
func (r *reader) training(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return "{}"
	}
	if !r.mapping(n, "training", "{model: resnet18, epochs: 12}") {
		return "{}"
	}
	var b bytes.Buffer
	r.json(&b, n, "training", 0)
	if b.Len() > MaxSize {
		r.fail(n, "training", "unfolds to %d bytes; the limit is %d", b.Len(), MaxSize)
	}
	return b.String()
}

// json writes a node, aliases unfolded. It stops writing once it is beyond the limit, so that a
// small file with nested anchors costs no memory.
func (r *reader) json(b *bytes.Buffer, n *yaml.Node, key string, depth int) {
	if depth > maxDepth {
		r.fail(n, key, "is nested more than %d levels deep", maxDepth)
		return
	}
	if b.Len() > 2*MaxSize {
		return // reported by training
	}
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i, e := range r.entries(n, key) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quoted(e.name))
			b.WriteByte(':')
			r.json(b, e.value, join(key, e.name), depth+1)
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			item := key + "[" + strconv.Itoa(i) + "]"
			if c = r.follow(c, item); c == nil {
				return
			}
			r.json(b, c, item, depth+1)
		}
		b.WriteByte(']')
	default:
		r.scalar(b, n, key)
	}
}

// scalar writes a value as YAML understood it, and refuses what JSON would not give back the same.
func (r *reader) scalar(b *bytes.Buffer, n *yaml.Node, key string) {
	switch n.ShortTag() {
	case "!!null":
		b.WriteString("null")
	case "!!bool":
		b.WriteString(strconv.FormatBool(r.truth(n, key)))
	// Seeds and hashes may need all 64 bits of an unsigned number; a float of that size would lose
	// digits unseen.
	case "!!int":
		var i int64
		var u uint64
		switch {
		case n.Decode(&i) == nil:
			b.WriteString(strconv.FormatInt(i, 10))
		case n.Decode(&u) == nil:
			b.WriteString(strconv.FormatUint(u, 10))
		default:
			r.fail(n, key, "%s is beyond 64 bits; put quotes around it to pass it as text", n.Value)
		}
	case "!!float":
		f, ok := r.number(n, key)
		if ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			r.fail(n, key, "is %s, which JSON cannot represent; give a finite number", n.Value)
			return
		}
		b.WriteString(space.Float(f).String())
	default:
		b.WriteString(quoted(n.Value))
	}
}

// quoted is a JSON string with <, > and & as they are: the text is read by programs, not by
// browsers.
func quoted(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return strconv.Quote(s)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
