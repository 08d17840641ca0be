package trial

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Metric is one named value, which may be NaN or infinite.
type Metric struct {
	Name  string
	Value float64
}

// Metrics keep the order in which they were reported; in JSON they are an object.
type Metrics []Metric

// Get returns the value of a metric.
func (m Metrics) Get(name string) (float64, bool) {
	for _, x := range m {
		if x.Name == name {
			return x.Value, true
		}
	}
	return 0, false
}

// MarshalJSON writes an object in the metrics' order.
func (m Metrics) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, x := range m {
		if i > 0 {
			b = append(b, ',')
		}
		k, err := json.Marshal(x.Name)
		if err != nil {
			return nil, err
		}
		v, err := Number(x.Value).MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, k...), ':'), v...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads an object and keeps its order; a repeated name is an error.
func (m *Metrics) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*m = nil
		return nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	names, err := keysInOrder(data)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if len(names) != len(raw) {
		return errors.New("metrics: a name appears twice")
	}
	out := make(Metrics, 0, len(names))
	for _, n := range names {
		v, err := parseValue(raw[n])
		if err != nil {
			return fmt.Errorf("metric %q: %w", n, err)
		}
		out = append(out, Metric{n, v})
	}
	*m = out
	return nil
}

func parseValue(raw json.RawMessage) (float64, error) {
	var v float64
	if err := json.Unmarshal(raw, &v); err == nil && string(raw) != "null" {
		return v, nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err == nil {
		switch s {
		case "NaN":
			return math.NaN(), nil
		case "Infinity", "inf":
			return math.Inf(1), nil
		case "-Infinity", "-inf":
			return math.Inf(-1), nil
		}
	}
	return 0, fmt.Errorf("%.40s is not a number, NaN, Infinity or -Infinity", raw)
}

// keysInOrder lists the keys of a JSON object of scalars.
func keysInOrder(data []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var keys []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		k, ok := t.(string)
		if !ok {
			return nil, errors.New("key is not a string")
		}
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Number is a float64 that JSON can carry: what is no number travels as the
// string "NaN", "Infinity" or "-Infinity".
type Number float64

// MarshalJSON writes what JSON has no number for as a string.
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	switch {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`), nil
	}
	return json.Marshal(f)
}
