package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"atelier/common/nearest"
)

// records are what a verb prints, as fields: the same in all formats, chosen by
// --columns and ordered by --sort.
type records struct {
	list bool // they are several, perhaps none
	doc  []byte
	rows [][]field
	keys []string // all there are, in order
}

// readRecords takes a struct or a list of structs apart.
func readRecords(v any) (*records, error) {
	doc, err := encodeJSON(v)
	if err != nil {
		return nil, err
	}
	r := &records{list: doc[0] == '[', doc: doc}
	if r.rows, r.keys, err = flattenAll(doc); err != nil {
		return nil, err
	}
	if value := reflect.ValueOf(v); value.Kind() == reflect.Slice && value.Len() == 0 {
		// A table without rows still has its columns.
		if doc, err = encodeJSON(reflect.Zero(value.Type().Elem()).Interface()); err != nil {
			return nil, err
		}
		_, r.keys, err = flattenAll(doc)
	}
	return r, err
}

// choose keeps the columns of a list such as id,best.value, in its order. A key
// that has parts, such as params, means all of them.
func (r *records) choose(columns string) error {
	var chosen []string
	for word := range strings.SplitSeq(columns, ",") {
		word = strings.TrimSpace(word)
		found, err := r.named(word)
		if err != nil {
			return usage("--columns %s: %s", columns, err)
		}
		for _, k := range found {
			if !slices.Contains(chosen, k) {
				chosen = append(chosen, k)
			}
		}
	}
	r.keys = chosen
	for i, row := range r.rows {
		out := make([]field, len(chosen))
		for j, k := range chosen {
			out[j] = field{k, json.RawMessage("null")}
			if at := slices.IndexFunc(row, func(f field) bool { return f.key == k }); at >= 0 {
				out[j] = row[at]
			}
		}
		r.rows[i] = out
	}
	return nil
}

// named are the keys that a word means: itself, or its parts. One below a key
// that is empty now, such as best.value where nothing has a value yet, is a key.
func (r *records) named(word string) ([]string, error) {
	var parts []string
	for _, k := range r.keys {
		if strings.HasPrefix(k, word+".") {
			parts = append(parts, k)
		}
	}
	if len(parts) > 0 {
		return parts, nil
	}
	if slices.Contains(r.keys, word) {
		return []string{word}, nil
	}
	for above := word; strings.Contains(above, "."); {
		above = above[:strings.LastIndexByte(above, '.')]
		if slices.Contains(r.keys, above) || slices.ContainsFunc(r.keys, func(k string) bool { return strings.HasPrefix(k, above+".") }) {
			return []string{word}, nil
		}
	}
	if near, ok := nearest.Close(word, r.keys); ok {
		return nil, fmt.Errorf("unknown column %q; did you mean %q?", word, near)
	}
	return nil, fmt.Errorf("unknown column %q; there are %s", word, strings.Join(r.keys, ", "))
}

// order says in which order the rows are by a key such as best.value or
// created_ms:desc. What has no value comes last either way.
func (r *records) order(by string) ([]int, error) {
	key, way, _ := strings.Cut(by, ":")
	if way != "" && way != "desc" && way != "asc" {
		return nil, usage("--sort %s: want KEY, KEY:asc or KEY:desc", by)
	}
	found, err := r.named(key)
	if err == nil && len(found) > 1 {
		err = fmt.Errorf("%s has several parts; sort by one: %s", key, strings.Join(found, ", "))
	}
	if err != nil {
		return nil, usage("--sort %s: %s", by, err)
	}
	type cell struct {
		text   string
		number float64
		is     bool // a number
	}
	cells := make([]cell, len(r.rows))
	numbers := true
	for i, row := range r.rows {
		if at := slices.IndexFunc(row, func(f field) bool { return f.key == found[0] }); at >= 0 {
			c := cell{text: row[at].text()}
			v, err := strconv.ParseFloat(c.text, 64)
			c.number, c.is = v, err == nil
			numbers = numbers && (c.is || c.text == "")
			cells[i] = c
		}
	}
	places := make([]int, len(cells))
	for i := range places {
		places[i] = i
	}
	empty := func(c cell) bool { return c.text == "" || numbers && math.IsNaN(c.number) }
	slices.SortStableFunc(places, func(a, b int) int {
		x, y := cells[a], cells[b]
		if empty(x) || empty(y) {
			return cmp.Compare(map[bool]int{true: 1}[empty(x)], map[bool]int{true: 1}[empty(y)])
		}
		c := cmp.Compare(x.text, y.text)
		if numbers {
			c = cmp.Compare(x.number, y.number)
		}
		if way == "desc" {
			c = -c
		}
		return c
	})
	return places, nil
}

// table has a column for each key.
func (r *records) table() table {
	t := table{}
	for _, k := range r.keys {
		t.head = append(t.head, strings.ToUpper(k))
	}
	t.flex = t.head
	for _, row := range r.rows {
		var cells []string
		for _, k := range r.keys {
			cell := ""
			if at := slices.IndexFunc(row, func(f field) bool { return f.key == k }); at >= 0 {
				cell = row[at].short()
			}
			cells = append(cells, dash(cell))
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

// short is the field as a table for people has it.
func (f field) short() string {
	v := f.text()
	if x, err := strconv.ParseFloat(v, 64); err == nil && f.raw[0] != '"' && strings.ContainsAny(v, ".eE") {
		return short(x)
	}
	return v
}

// json is the document of the columns chosen: an object or a list of objects with
// one level of keys.
func (r *records) json() ([]byte, error) {
	var b bytes.Buffer
	if r.list {
		b.WriteByte('[')
	}
	for i, row := range r.rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('{')
		for j, f := range row {
			if j > 0 {
				b.WriteByte(',')
			}
			name, err := json.Marshal(f.key)
			if err != nil {
				return nil, err
			}
			b.Write(name)
			b.WriteByte(':')
			b.Write(f.raw)
		}
		b.WriteByte('}')
	}
	if r.list {
		b.WriteByte(']')
	}
	return encodeJSON(json.RawMessage(b.Bytes()))
}
