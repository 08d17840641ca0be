package setting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Member is one key of a JSON object with what stands there.
type Member struct {
	Key string
	Raw json.RawMessage
}

// Members reads a JSON object in the order it is written, the same key as often
// as it stands there.
func Members(doc []byte) ([]Member, error) {
	dec := json.NewDecoder(bytes.NewReader(doc))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("want a JSON object, got %.60s", doc)
	}
	var out []Member
	for dec.More() {
		t, err := dec.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return out, fmt.Errorf("not JSON: %w", err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return out, fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, Member{key, raw})
	}
	if _, err := dec.Token(); err != nil {
		return out, fmt.Errorf("not JSON: %w", err)
	}
	if dec.More() {
		return out, fmt.Errorf("want one JSON object, got %.60s", doc)
	}
	return out, nil
}

// Object writes members as one JSON object.
func Object(members []Member) []byte {
	b := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			b = append(b, ',')
		}
		name, _ := encode(m.Key)
		b = append(append(append(b, name...), ':'), m.Raw...)
	}
	return append(b, '}')
}

// Plain is a JSON value as settings hold it; an object stays as it is.
func Plain(raw json.RawMessage) any {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return raw
	}
	if p, ok := plainJSON(v); ok {
		return p
	}
	return raw
}

// plainJSON keeps whole numbers whole; false: a number that no float64 holds.
func plainJSON(v any) (any, bool) {
	switch x := v.(type) {
	case nil, bool, string:
		return v, true
	case json.Number:
		if n, err := strconv.ParseInt(x.String(), 10, 64); err == nil {
			return n, true
		}
		if n, err := strconv.ParseUint(x.String(), 10, 64); err == nil {
			return n, true
		}
		f, err := x.Float64()
		return normal(f), err == nil && !math.IsInf(f, 0)
	case []any:
		out := make([]any, len(x))
		for i := range x {
			p, ok := plainJSON(x[i])
			if !ok {
				return nil, false
			}
			out[i] = p
		}
		return out, true
	}
	return nil, false
}

// Given is a key with the value that a document gives it.
type Given struct {
	Key  string
	Data any // plain
}

// ReadJSON reads a JSON object of the table's keys; objects may be written as
// dotted keys, and no key may stand twice. null is a value where Null says so.
// All faults are told, each with where; what is right is returned besides.
func (t Table) ReadJSON(where string, doc []byte) ([]Given, Faults) {
	r := jsonReader{t: t, where: where, seen: map[string]bool{}}
	r.object("", doc)
	return r.given, r.faults
}

// jsonReader collects what a document says, and all that is wrong with it.
type jsonReader struct {
	t      Table
	where  string
	seen   map[string]bool
	given  []Given
	faults Faults
}

func (r *jsonReader) fail(key, format string, a ...any) {
	r.faults = append(r.faults, Fault{Where: r.where, Key: key, Message: fmt.Sprintf(format, a...)})
}

// object reads the members of one object; prefix is where it stands, with a dot behind. A key that
// comes twice is a fault: which of the two was meant?
func (r *jsonReader) object(prefix string, doc []byte) {
	members, err := Members(doc)
	for _, m := range members {
		key := prefix + m.Key
		if short := r.t.Short(key); len(short) > 0 && !bytes.HasPrefix(bytes.TrimSpace(m.Raw), []byte("{")) {
			for _, s := range short {
				r.value(s.Name, m.Raw)
			}
			continue
		}
		if r.t.Group(key) {
			if r.seen[key+"."] {
				r.fail("", "%s appears twice", key)
				continue
			}
			r.seen[key+"."] = true
			r.object(key+".", m.Raw)
			continue
		}
		r.value(key, m.Raw)
	}
	if err != nil {
		r.fail(strings.TrimSuffix(prefix, "."), "%s", err)
	}
}

// value takes what stands at a key that is no object.
func (r *jsonReader) value(key string, raw json.RawMessage) {
	if r.seen[key] {
		r.fail("", "%s appears twice", key)
		return
	}
	r.seen[key] = true
	s := r.t.Find(key)
	if s == nil {
		r.fail("", "unknown key %q%s", key, r.t.meant(key))
		return
	}
	v := Plain(raw)
	if v == nil && s.Null {
		r.given = append(r.given, Given{key, nil})
		return
	}
	if err := s.Type.Check(v); err != nil {
		r.fail(key, "%s", err)
		return
	}
	r.given = append(r.given, Given{key, v})
}

// Fill puts values into the fields of a struct whose json tags are the keys,
// embedded structs' too. dst is a pointer to it. Values have passed the checks
// of their rows; one that fits its row but not its field is a slip of whoever
// wrote the table, and panics.
func Fill(dst any, values []Given) {
	fields := fieldsOf(reflect.TypeOf(dst).Elem())
	for _, g := range values {
		index, ok := fields[g.Key]
		if !ok {
			panic("no field for the setting " + g.Key)
		}
		assign(reflect.ValueOf(dst).Elem().FieldByIndex(index), g.Data, g.Key)
	}
}

// Field is what the field of a key holds in a struct that Fill fills.
func Field(src any, key string) any {
	return reflect.ValueOf(src).Elem().FieldByIndex(fieldsOf(reflect.TypeOf(src).Elem())[key]).Interface()
}

// fieldsOf finds the fields of a struct by their json keys.
func fieldsOf(t reflect.Type) map[string][]int {
	out := map[string][]int{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			out[name] = f.Index
		}
	}
	return out
}

// assign puts a value into a field of its kind; pointers are made, nil clears.
func assign(to reflect.Value, v any, key string) {
	switch x := v.(type) {
	case nil:
		to.SetZero()
		return
	case []any:
		if to.Kind() == reflect.Slice {
			to.Set(reflect.MakeSlice(to.Type(), len(x), len(x)))
		}
		for i := range x {
			assign(to.Index(i), x[i], key)
		}
		return
	}
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		to = to.Elem()
	}
	if x, ok := float(v); ok && to.CanFloat() {
		to.SetFloat(x)
		return
	}
	from := reflect.ValueOf(v)
	if from.Kind() == reflect.String != (to.Kind() == reflect.String) || !from.CanConvert(to.Type()) {
		panic(fmt.Sprintf("setting %s: %T does not fit the field, which is %s", key, v, to.Type()))
	}
	to.Set(from.Convert(to.Type()))
}

// Defaults are the values of all keys that have one.
func (t Table) Defaults() []Given {
	var out []Given
	for _, s := range t {
		if s.Default != nil {
			out = append(out, Given{s.Name, s.Default})
		}
	}
	return out
}
