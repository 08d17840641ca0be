package space

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxEncoded bounds what Decode reads, in bytes.
const maxEncoded = 1 << 20

// Encode returns the canonical JSON object of p: parameters in the order of
// the space, inactive ones left out, floats in their shortest form. Equal
// points have equal encodings.
func (s *Space) Encode(p Point) string {
	p = s.Canonical(p)
	b := make([]byte, 0, 24*len(p)+2)
	b = append(b, '{')
	for i, v := range p {
		if v.IsAbsent() {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = appendString(b, s.Params[i].Name)
		b = append(b, ':')
		b = v.append(b)
	}
	return string(append(b, '}'))
}

// Decode reads a JSON object of parameters, in any order, into a point of the
// space. Unknown, repeated, missing and inactive parameters are errors, and so
// are values that the space does not hold.
func (s *Space) Decode(text string) (Point, error) {
	if len(text) > maxEncoded {
		return nil, fmt.Errorf("decode point: %d bytes, the limit is %d", len(text), maxEncoded)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("decode point: not valid UTF-8")
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("decode point: not a JSON object")
	}
	p := make(Point, len(s.Params))
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("decode point: %w", err)
		}
		name, _ := t.(string)
		i, ok := s.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("decode point: %q is not a parameter of the space", name)
		}
		if !p[i].IsAbsent() {
			return nil, fmt.Errorf("decode point: %q appears twice", name)
		}
		if t, err = dec.Token(); err != nil {
			return nil, fmt.Errorf("decode point: %q: %w", name, err)
		}
		if p[i], err = s.Params[i].decode(t); err != nil {
			return nil, fmt.Errorf("decode point: %q: %w", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("decode point: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("decode point: something follows the JSON object")
	}
	if err := s.Check(p); err != nil {
		return nil, fmt.Errorf("decode point: %w", err)
	}
	return p, nil
}

// Missing lists the active parameters that a JSON object gives no value, by what it
// gives the others; nothing where it is no object. It is for messages: Decode
// stops at the first fault.
func (s *Space) Missing(text string) (names []string) {
	var given map[string]json.RawMessage // looked up only
	if json.Unmarshal([]byte(text), &given) != nil {
		return nil
	}
	p := make(Point, len(s.Params))
	for i := range s.Params {
		dec := json.NewDecoder(bytes.NewReader(given[s.Params[i].Name]))
		dec.UseNumber()
		if t, err := dec.Token(); err == nil {
			p[i], _ = s.Params[i].decode(t)
		}
	}
	for i := range s.Params {
		if _, ok := given[s.Params[i].Name]; !ok && s.Active(p, i) {
			names = append(names, s.Params[i].Name)
		}
	}
	return names
}

// decode reads a value in the parameter's kind: 3.0 is an int where ints are wanted, and a float
// next to an allowed one is that one, since JSON of other programs rounds.
func (a *Parameter) decode(t json.Token) (Value, error) {
	var v Value
	switch t := t.(type) {
	case json.Number:
		switch a.Kind {
		case KindFloat:
			f, err := strconv.ParseFloat(t.String(), 64)
			if err != nil {
				return v, fmt.Errorf("%s is no float64", t)
			}
			v = Float(f)
			if near, ok := a.snap(f); ok {
				v = near
			}
		case KindInt:
			i, err := strconv.ParseInt(t.String(), 10, 64)
			if err != nil {
				f, ferr := strconv.ParseFloat(t.String(), 64)
				if ferr != nil || f != math.Trunc(f) || math.Abs(f) > maxExact {
					return v, fmt.Errorf("%s is not a whole number", t)
				}
				i = int64(f)
			}
			v = Int(i)
		default:
			f, err := strconv.ParseFloat(t.String(), 64)
			if err != nil {
				return v, fmt.Errorf("%s is no float64", t)
			}
			for _, c := range a.Choices {
				if c.String() == t.String() {
					return c, nil
				}
			}
			for _, c := range a.Choices {
				if n, ok := c.Number(); ok && n == f {
					return c, nil
				}
			}
			v = Float(f)
		}
	case string:
		v = String(t)
	case bool:
		v = Bool(t)
	case nil:
		return v, errors.New("null is not a value; leave inactive parameters out")
	default:
		return v, errors.New("want a number, a string or a bool")
	}
	return v, a.check(v)
}

// Key returns a compact string that is equal for equal points, for use as a
// map key; unlike Encode it is not meant to be read.
func (s *Space) Key(p Point) string {
	p = s.Canonical(p)
	b := make([]byte, 0, 9*len(p))
	for _, v := range p {
		b = append(b, byte(v.kind))
		switch v.kind {
		case absent:
		case stringValue:
			b = strconv.AppendInt(b, int64(len(v.str)), 10)
			b = append(b, ':')
			b = append(b, v.str...)
		default:
			for shift := 0; shift < 64; shift += 8 {
				b = append(b, byte(v.bits>>shift))
			}
		}
	}
	return string(b)
}
