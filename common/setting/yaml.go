package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile  = 1 << 20 // bytes
	maxDepth = 8       // objects within one another
	maxList  = 1000    // items
)

// ReadFile takes the settings of a YAML file. name is for messages. The error
// is Faults: all that is wrong, each with its line.
func (c *Config) ReadFile(name string, text []byte) error {
	if len(text) > maxFile {
		return Faults{{Where: name, Message: fmt.Sprintf("it has %d bytes; a settings file has at most %d", len(text), maxFile), Origin: File}}
	}
	var root yaml.Node
	if err := decode(text, &root); err != nil {
		return Faults{{Where: name, Message: err.Error(), Origin: File}}
	}
	if root.Kind == 0 || root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil // nothing but comments
	}
	r := fileReader{c: c, name: name, seen: map[string]int{}}
	if root.Kind != yaml.MappingNode {
		r.fail(&root, "", "want keys with values, such as epochs: 30")
	} else {
		r.object(&root, "", 0)
	}
	return r.faults.OrNil()
}

// decode parses one document and unwraps it. The library may panic on hostile
// text; that is a fault of the file.
func decode(text []byte, root *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not YAML: %v", p)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return shorten(err)
	}
	var more yaml.Node
	if err := d.Decode(&more); err == nil {
		return errors.New("it has a second document (a line of ---): want one")
	} else if !errors.Is(err, io.EOF) {
		return shorten(err)
	}
	if len(doc.Content) == 1 {
		*root = *doc.Content[0]
	}
	return nil
}

var yamlPrefix = regexp.MustCompile(`^yaml: `)

// shorten takes the library's name off its errors.
func shorten(err error) error { return errors.New(yamlPrefix.ReplaceAllString(err.Error(), "")) }

// fileReader walks a file and collects its faults; a key with one keeps the value it had.
type fileReader struct {
	c      *Config
	name   string
	seen   map[string]int // key -> line
	faults Faults
}

func (r *fileReader) where(n *yaml.Node) string { return r.name + ":" + strconv.Itoa(n.Line) }

func (r *fileReader) fail(n *yaml.Node, key, format string, a ...any) {
	r.faults = append(r.faults, Fault{Where: r.where(n), Key: key, Message: fmt.Sprintf(format, a...), Origin: File})
}

// object reads a mapping whose keys are below prefix, without a dot behind.
func (r *fileReader) object(n *yaml.Node, prefix string, depth int) {
	if depth > maxDepth {
		r.fail(n, prefix, "is nested more than %d levels deep", maxDepth)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" {
			r.fail(k, prefix, "a key must be a word")
			continue
		}
		key := k.Value
		if prefix != "" {
			key = prefix + "." + key
		}
		if line, twice := r.seen[key]; twice {
			r.fail(k, key, "appears twice; first in line %d", line)
			continue
		}
		r.seen[key] = k.Line
		s := r.c.Table.Find(key)
		if s != nil && s.Block != "" {
			r.c.SetBlock(key, v, File, r.where(k))
			continue
		}
		if v.Kind == yaml.MappingNode {
			if s != nil {
				r.fail(v, key, "want a value, not keys of its own")
				continue
			}
			if alias := r.c.Table.Alias(key); alias != nil && alias.Block != "" {
				r.fail(k, key, "unknown key%s", r.c.Table.meant(key))
				continue
			}
			if len(v.Content) > 0 || r.c.Table.Group(key) {
				r.object(v, key, depth+1)
				continue
			}
		}
		if v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null" && r.c.Table.Group(key) {
			continue // an object whose keys are all commented out
		}
		for _, s := range r.c.Table.Short(key) {
			if line, twice := r.seen[s.Name]; twice {
				r.fail(k, s.Name, "appears twice; first in line %d", line)
			}
			r.seen[s.Name] = k.Line
		}
		data, err := scalarOrList(v)
		if v.Kind == yaml.ScalarNode && r.c.wantsText(key) && (v.ShortTag() == "!!int" || v.ShortTag() == "!!float") {
			data, err = v.Value, nil // a folder may well be called 2026 or 010
		}
		if err != nil {
			r.fail(v, key, "%s", err)
			continue
		}
		var f Fault
		if err := r.c.Set(key, data, File, r.where(k)); errors.As(err, &f) {
			r.faults = append(r.faults, f)
		}
	}
}

// scalarOrList reads a value. Aliases are refused: configuration files are edited by hand, and a
// value that changes two keys at once surprises.
func scalarOrList(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.SequenceNode:
		if len(n.Content) > maxList {
			return nil, fmt.Errorf("a list of %d; at most %d", len(n.Content), maxList)
		}
		out := []any{}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, errors.New("a list may contain numbers and words only")
			}
			v, err := scalar(c)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case yaml.ScalarNode:
		return scalar(n)
	case yaml.AliasNode:
		return nil, errors.New("anchors and aliases (& and *) are not taken here: write the value out")
	}
	return nil, errors.New("want a value")
}

// scalar is a value in the kind that YAML says; a number with leading zeros is refused.
func scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int":
		if leadingZeros.MatchString(n.Value) {
			return nil, zerosError(n.Value)
		}
		var i int64
		if n.Decode(&i) == nil {
			return i, nil
		}
		var u uint64
		if n.Decode(&u) == nil {
			return u, nil
		}
		return nil, fmt.Errorf("%s is beyond 64 bits", n.Value)
	case "!!float":
		if leadingZeros.MatchString(n.Value) {
			return nil, zerosError(n.Value)
		}
		var f float64
		if err := n.Decode(&f); err != nil {
			return nil, shorten(err)
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s is not a finite number", n.Value)
		}
		return f, nil
	}
	return n.Value, nil
}
