package setting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/secret"
)

// Origin is the layer a value comes from. A higher one wins.
type Origin int

// The layers, the weakest first.
const (
	Default Origin = iota
	File
	Resumed // of the training that is taken up again
	Prompt
	Environment
	Flag
)

var origins = [...]string{"default", "file", "resumed run", "prompt", "environment", "flag"}

func (o Origin) String() string { return origins[o] }

// Value is what a key is set to.
type Value struct {
	Key    string
	Data   any // nil (unset), bool, int64, uint64, float64, string or []any of these
	Origin Origin
	Where  string // conf/training_config.yaml:12, --lr, ATELIER_TRAIN_LR

	Block *yaml.Node // of a key that has keys of its own; Data is nil

	hidden secret.Text // what Setting.Hide took out of Data
}

// Source tells where a value was said.
func (v Value) Source() string {
	if v.Where == "" {
		return v.Origin.String()
	}
	return v.Where
}

// Text is the value as a person would type it.
func (v Value) Text() string {
	switch x := v.Data.(type) {
	case nil:
		return "null"
	case string:
		return x
	}
	b, err := encode(v.Data)
	if err != nil {
		return fmt.Sprint(v.Data)
	}
	return string(b)
}

// Config is a table with what its keys are set to.
type Config struct {
	Table  Table
	at     map[string]int
	values []Value

	// Home is the folder that ~/ at the start of a value stands for; without
	// it such a value is refused.
	Home string
}

// New makes a Config of defaults.
func New(t Table) *Config {
	c := &Config{Table: t, at: make(map[string]int, len(t)), values: make([]Value, len(t))}
	for i, s := range t {
		c.at[s.Name] = i
		c.values[i] = Value{Key: s.Name, Data: s.Default}
		var doc yaml.Node
		if s.Block != "" && yaml.Unmarshal([]byte(s.Block), &doc) == nil {
			c.values[i].Block = Unplaced(doc.Content[0])
		}
	}
	return c
}

// Unplaced takes the lines off a tree of YAML that no file holds, so that no fault
// names one.
func Unplaced(n *yaml.Node) *yaml.Node {
	n.Line, n.Column = 0, 0
	for _, x := range n.Content {
		Unplaced(x)
	}
	return n
}

// SetBlock gives a key that has keys of its own what stands there.
func (c *Config) SetBlock(key string, n *yaml.Node, o Origin, where string) {
	if i, ok := c.at[key]; ok && o >= c.values[i].Origin {
		c.values[i] = Value{Key: key, Origin: o, Where: where, Block: n}
	}
}

// Get returns a key's value; an unknown key is unset.
func (c *Config) Get(key string) Value {
	i, ok := c.at[key]
	if !ok {
		return Value{Key: key}
	}
	return c.values[i]
}

// All lists every value in the keys' order.
func (c *Config) All() []Value { return slices.Clone(c.values) }

// String is a key's value if it is a text, else "".
func (c *Config) String(key string) string { s, _ := c.Get(key).Data.(string); return s }

// Secret is what was in a key's value and is not to be shown.
func (c *Config) Secret(key string) secret.Text { return c.Get(key).hidden }

// Bool is a key's value if it is true or false, else false.
func (c *Config) Bool(key string) bool { b, _ := c.Get(key).Data.(bool); return b }

// Float is a key's value if it is a number, else 0.
func (c *Config) Float(key string) float64 {
	switch n := c.Get(key).Data.(type) {
	case float64:
		return n
	case int64:
		return float64(n)
	case uint64:
		return float64(n)
	}
	return 0
}

// Set gives a key a value, unless a stronger layer has spoken. The error is a
// Fault.
func (c *Config) Set(key string, data any, o Origin, where string) error {
	i, ok := c.at[key]
	if short := c.Table.Short(key); !ok && len(short) > 0 {
		var f Fault
		for _, s := range short {
			if err := c.Set(s.Name, data, o, where); errors.As(err, &f) {
				f.Key = key
				return f
			}
		}
		return nil
	}
	if !ok {
		return Fault{Where: where, Key: key, Message: "unknown key" + c.Table.meant(key), Origin: o}
	}
	if c.Table[i].Block != "" {
		return Fault{Where: where, Key: key, Message: "want keys with values", Origin: o}
	}
	data, err := plain(data)
	if text, ok := data.(string); ok && err == nil {
		data, err = Expand(text, c.Home)
	}
	if err == nil {
		err = check(c.Table[i], data)
	}
	if err != nil {
		return Fault{Where: where, Key: key, Message: err.Error(), Origin: o}
	}
	var hidden secret.Text
	if text, ok := data.(string); ok && c.Table[i].Hide != nil {
		data, hidden = c.Table[i].Hide(text)
	}
	if o >= c.values[i].Origin {
		c.values[i] = Value{Key: key, Data: data, Origin: o, Where: where, hidden: hidden}
	}
	return nil
}

// check asks the row whether it takes a value; none at all is taken only where the row has no
// default, or says so.
func check(s Setting, data any) error {
	if data == nil {
		if s.Default != nil && !s.Null {
			return fmt.Errorf("it has no value; its default is %s: leave the key out for that", Value{Data: s.Default}.Text())
		}
		return nil
	}
	return s.Type.Check(data)
}

// ReadEnvironment takes PREFIX_KEY variables from a list of NAME=value.
func (c *Config) ReadEnvironment(prefix string, environ []string) error {
	variable := func(key string) string { return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }
	byName := map[string]string{}
	for _, s := range c.Table {
		byName[variable(s.Name)] = s.Name
		byName[variable(s.Said())] = s.Said()
	}
	var faults Faults
	for _, line := range environ {
		name, text, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		key, ok := byName[name]
		if !ok {
			faults = append(faults, Fault{Where: name, Message: fmt.Sprintf("not a setting; did you mean %s?", variable(c.Table.Near(strings.ToLower(name[len(prefix):])))), Origin: Environment})
			continue
		}
		var f Fault
		if err := c.SetText(key, text, Environment, name); errors.As(err, &f) {
			faults = append(faults, f)
		}
	}
	return faults.OrNil()
}

// JSON writes the values of some keys as one object, nested by their dots, in
// the keys' order. Unset ones are left out.
func (c *Config) JSON(want func(key string) bool) []byte {
	root := &object{}
	for _, v := range c.values {
		if v.Data == nil || !want(v.Key) {
			continue
		}
		at := root
		parts := strings.Split(v.Key, ".")
		for _, p := range parts[:len(parts)-1] {
			at = at.child(p)
		}
		at.fields = append(at.fields, field{parts[len(parts)-1], v.Data})
	}
	var b bytes.Buffer
	root.write(&b)
	return b.Bytes()
}

type field struct {
	name  string
	value any // *object or data
}

type object struct{ fields []field }

// child is the object of a name, made where there is none: keys stay in the table's order.
func (o *object) child(name string) *object {
	for _, f := range o.fields {
		if x, ok := f.value.(*object); ok && f.name == name {
			return x
		}
	}
	x := &object{}
	o.fields = append(o.fields, field{name, x})
	return x
}

// write writes the object without white space.
func (o *object) write(b *bytes.Buffer) {
	b.WriteByte('{')
	for i, f := range o.fields {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := encode(f.name)
		b.Write(name)
		b.WriteByte(':')
		if x, ok := f.value.(*object); ok {
			x.write(b)
			continue
		}
		value, err := encode(f.value)
		if err != nil { // Set let only what can be written in
			value = []byte("null")
		}
		b.Write(value)
	}
	b.WriteByte('}')
}

// encode leaves <, > and & as they are: the text is for programs.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// plain turns a value into one of the kinds a Value holds.
func plain(v any) (any, error) {
	switch x := v.(type) {
	case nil, bool, int64, uint64, string:
		return v, nil
	case json.Number:
		if p, ok := plainJSON(x); ok {
			return p, nil
		}
		return nil, fmt.Errorf("%s is out of range for a 64-bit number", x)
	case int:
		return int64(x), nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("%v is not a finite number", x)
		}
		return normal(x), nil
	case []any:
		out := make([]any, len(x))
		for i := range x {
			y, err := plain(x[i])
			if err != nil {
				return nil, err
			}
			out[i] = y
		}
		return out, nil
	}
	return nil, fmt.Errorf("a setting cannot be %T", v)
}
