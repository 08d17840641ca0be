// Package setting holds the settings of a command in layers (defaults, a YAML
// file, answers to prompts, the environment, flags) and knows for each value
// where it was said.
//
// It refuses keys it does not know, naming the nearest one, values that their
// key's check refuses, and YAML that is more than plain settings. It knows no
// key by itself.
package setting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
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

// Key is one setting.
type Key struct {
	Name    string // dotted inside objects: augmentation.cutmix.alpha
	Default any    // nil = unset unless given
	// Optional keys may be set to null although they have a default.
	Optional bool
	// Check, when set, says what is wrong with a value, given as JSON.
	Check func(value []byte) error
}

// Value is what a key is set to.
type Value struct {
	Key    string
	Data   any // nil (unset), bool, int64, uint64, float64, string or []any of these
	Origin Origin
	Where  string // conf/training_config.yaml:12, --lr, ATELIER_TRAIN_LR
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

// Fault is one thing wrong with a layer.
type Fault struct {
	Where   string
	Key     string
	Message string
	Origin  Origin
}

func (f Fault) Error() string {
	key := f.Key
	if said := strings.ReplaceAll(strings.TrimPrefix(f.Where, "--"), "-", "_"); f.Origin == Environment || f.Origin == Flag && (said == key || f.Where == "--set "+key) {
		key = "" // the flag or the variable says it
	}
	var parts []string
	for _, p := range []string{f.Where, key, f.Message} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// Faults is all that is wrong with a layer.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) orNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Config is a set of keys with their values.
type Config struct {
	keys    []Key
	at      map[string]int
	values  []Value
	nearest func(unknown string, known []string) string

	// Home is the folder that ~/ at the start of a value stands for; without
	// it such a value is refused.
	Home string
}

// New makes a Config of defaults. nearest picks the known key that an unknown
// one most likely stands for.
func New(keys []Key, nearest func(unknown string, known []string) string) *Config {
	c := &Config{keys: slices.Clone(keys), at: make(map[string]int, len(keys)), values: make([]Value, len(keys)), nearest: nearest}
	for i, k := range c.keys {
		c.at[k.Name] = i
		c.values[i] = Value{Key: k.Name, Data: k.Default}
	}
	return c
}

// Names lists the keys in their order.
func (c *Config) Names() []string {
	names := make([]string, len(c.keys))
	for i, k := range c.keys {
		names[i] = k.Name
	}
	return names
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
	if !ok {
		message := "unknown key"
		if near := c.nearest(key, c.Names()); near != "" {
			message += fmt.Sprintf("; did you mean %q?", near)
		}
		return Fault{Where: where, Key: key, Message: message, Origin: o}
	}
	data, err := plain(data)
	if text, ok := data.(string); ok && err == nil {
		data, err = Expand(text, c.Home)
	}
	if err == nil {
		err = c.check(c.keys[i], data)
	}
	if err != nil {
		return Fault{Where: where, Key: key, Message: err.Error(), Origin: o}
	}
	if o >= c.values[i].Origin {
		c.values[i] = Value{Key: key, Data: data, Origin: o, Where: where}
	}
	return nil
}

func (c *Config) check(k Key, data any) error {
	if data == nil {
		if k.Default != nil && !k.Optional {
			return fmt.Errorf("it has no value; its default is %s: leave the key out for that", Value{Data: k.Default}.Text())
		}
		return nil
	}
	b, err := encode(data)
	if err != nil || k.Check == nil {
		return err
	}
	return k.Check(b)
}

// ReadEnvironment takes PREFIX_KEY variables from a list of NAME=value.
func (c *Config) ReadEnvironment(prefix string, environ []string) error {
	variable := func(key string) string { return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }
	byName := map[string]string{}
	for _, k := range c.keys {
		byName[variable(k.Name)] = k.Name
	}
	var faults Faults
	for _, line := range environ {
		name, text, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		key, ok := byName[name]
		if !ok {
			faults = append(faults, Fault{Where: name, Message: fmt.Sprintf("no setting; did you mean %s?", variable(c.nearest(strings.ToLower(name[len(prefix):]), c.Names()))), Origin: Environment})
			continue
		}
		var f Fault
		if err := c.SetText(key, text, Environment, name); errors.As(err, &f) {
			faults = append(faults, f)
		}
	}
	return faults.orNil()
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
	case int:
		return int64(x), nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("%v is no finite number", x)
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
