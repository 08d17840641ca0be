package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"atelier/common/terminal"
)

// field is one leaf of a record: a number, a word, a list.
type field struct {
	key string // from the record's top, with dots between: params.lr
	raw json.RawMessage
}

// text is the field as a cell has it, without a trace of JSON: what is not there
// is empty, lists are their elements with a blank between, objects in them are
// key=value with "; " between one and the next, without what is empty.
func (f field) text() string {
	switch f.raw[0] {
	case 'n':
		return ""
	case '{': // one without keys
		return ""
	case '"':
		var s string
		json.Unmarshal(f.raw, &s)
		return s
	case '[':
		var items []json.RawMessage
		json.Unmarshal(f.raw, &items)
		between := " "
		var out []string
		for _, item := range items {
			if item = bytes.TrimSpace(item); item[0] == '{' {
				between = "; "
				leaves, _ := flatten("", item)
				var words []string
				for _, l := range leaves {
					if v := l.text(); v != "" {
						words = append(words, l.key+"="+v)
					}
				}
				out = append(out, strings.Join(words, " "))
				continue
			}
			out = append(out, field{raw: item}.text())
		}
		return strings.Join(out, between)
	}
	return string(f.raw)
}

// flatten lists an object's leaves with dotted names, in its order. A list is one leaf, for its length differs from
// record to record, and so is an object without keys: the column is there all the same.
func flatten(prefix string, raw json.RawMessage) ([]field, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] != '{' {
		if len(raw) == 0 {
			raw = json.RawMessage("null")
		}
		return []field{{prefix, raw}}, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var out []field
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		name := key.(string)
		if prefix != "" {
			name = prefix + "." + name
		}
		inner, err := flatten(name, v)
		if err != nil {
			return nil, err
		}
		out = append(out, inner...)
	}
	if len(out) == 0 {
		out = append(out, field{prefix, json.RawMessage("{}")})
	}
	return out, nil
}

// flattenAll lists the leaves of each record of a document, which is a list of
// records or one, and all keys that there are.
func flattenAll(doc []byte) (rows [][]field, keys []string, err error) {
	var raws []json.RawMessage
	if doc[0] == '[' {
		if err := json.Unmarshal(doc, &raws); err != nil {
			return nil, nil, err
		}
	} else {
		raws = append(raws, doc)
	}
	for _, raw := range raws {
		row, err := flatten("", raw)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, row)
		// A key not seen yet goes behind the key before it in its own record.
		at := 0
		for _, f := range row {
			if i := slices.Index(keys, f.key); i >= 0 {
				at = i + 1
				continue
			}
			keys = slices.Insert(keys, at, f.key)
			at++
		}
	}
	return rows, keys, nil
}

// writeCSV makes one column a key, nested ones with a dot between ("params.lr"),
// and a header always.
func writeCSV(w io.Writer, keys []string, rows [][]field) error {
	// What is null in one record and has parts in another needs no column.
	columns := slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		return slices.ContainsFunc(keys, func(o string) bool { return strings.HasPrefix(o, k+".") })
	})
	cw := csv.NewWriter(w)
	head := slices.Clone(columns)
	for i := range head {
		head[i] = terminal.Line(head[i])
	}
	if err := cw.Write(head); err != nil {
		return err
	}
	for _, row := range rows {
		line := make([]string, len(columns))
		for _, f := range row {
			if i := slices.Index(columns, f.key); i >= 0 {
				line[i] = terminal.Text(f.text()) // no program reads control characters from CSV, and a terminal obeys them
			}
		}
		if err := cw.Write(line); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}
