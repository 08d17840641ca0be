package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"atelier/common/terminal"

	ucli "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// outputFlag is -o; every verb that prints records has it, with the same four words.
func outputFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, json, yaml or csv"}
}

// table is the form for people; json, yaml and csv come from the records.
type table struct {
	head []string
	rows [][]string
}

// print writes records (a struct, or a slice of structs) in the format asked
// for. shape makes the table; it is called only when a table is wanted. All of it is made before any of it is written:
// an error leaves no half a document for the program behind the pipe.
func (e *Env) print(c *ucli.Context, records any, shape func() table) error {
	var b bytes.Buffer
	format := c.String("output")
	switch format {
	case "table":
		writeTable(&b, shape())
	case "json", "yaml", "csv":
		doc, err := encodeJSON(records)
		if err != nil {
			return err
		}
		switch format {
		case "json":
			b.Write(doc)
		case "yaml":
			if err := writeYAML(&b, doc); err != nil {
				return err
			}
		case "csv":
			if v := reflect.ValueOf(records); v.Kind() == reflect.Slice && v.Len() == 0 {
				// A table without rows still has its columns.
				if doc, err = encodeJSON(reflect.Zero(v.Type().Elem()).Interface()); err != nil {
					return err
				}
				var all bytes.Buffer
				if err := writeCSV(&all, doc); err != nil {
					return err
				}
				head, _, _ := strings.Cut(all.String(), "\n")
				b.WriteString(head + "\n")
			} else if err := writeCSV(&b, doc); err != nil {
				return err
			}
		}
	default:
		return usage("-o %s: want table, json, yaml or csv", format)
	}
	_, err := e.Out.Write(b.Bytes())
	return err
}

// checkFormat refuses an unknown format before anything is asked of a cluster.
func checkFormat(c *ucli.Context) error {
	if f := c.String("output"); !slices.Contains([]string{"table", "json", "yaml", "csv"}, f) {
		return usage("-o %s: want table, json, yaml or csv", f)
	}
	return nil
}

// encodeJSON is the one place where records become text; YAML and CSV are made of its output, so
// that the formats cannot disagree.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return escaped(b.Bytes()), nil
}

// escaped writes out what encoding/json leaves as it is and a terminal may obey:
// DEL, the controls of U+0080 to U+009F, changes of direction. They stand in
// strings only, where JSON has \u for them.
func escaped(doc []byte) []byte {
	acts := func(r rune) bool { return r >= 0x7f && r <= 0x9f || terminal.Turns(r) }
	if bytes.IndexFunc(doc, acts) < 0 {
		return doc
	}
	var b bytes.Buffer
	for _, r := range string(doc) {
		if acts(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

// writeTable sets columns two spaces apart; columns of numbers are set right.
func writeTable(w io.Writer, t table) {
	t = table{slices.Clone(t.head), slices.Clone(t.rows)}
	for i := range t.head {
		t.head[i] = terminal.Line(t.head[i])
	}
	for i := range t.rows {
		t.rows[i] = slices.Clone(t.rows[i])
		for j := range t.rows[i] {
			t.rows[i][j] = terminal.Line(t.rows[i][j])
		}
	}
	// A column is set right when all of it are numbers, or nothing.
	width := make([]int, len(t.head))
	right := make([]bool, len(t.head))
	for i, h := range t.head {
		width[i] = utf8.RuneCountInString(h)
		right[i] = len(t.rows) > 0
		for _, r := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
			right[i] = right[i] && (r[i] == "" || r[i] == "-" || r[i] == "NaN" || strings.IndexByte("+-.0123456789", r[i][0]) >= 0 && !strings.ContainsAny(r[i], ":/ "))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, s := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(s))
			if right[i] {
				s = pad + s
			} else {
				s += pad
			}
			b.WriteString(s)
			if i < len(cells)-1 {
				b.WriteString("  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if len(t.head) > 0 && strings.Join(t.head, "") != "" {
		line(t.head)
	}
	for _, r := range t.rows {
		line(r)
	}
}

// writeYAML turns a JSON document into YAML with the same order of keys.
func writeYAML(w io.Writer, doc []byte) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	node, err := yamlNode(d)
	if err != nil {
		return err
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return err
	}
	return enc.Close()
}

// yamlNode reads one JSON value token by token, which keeps the order of keys and the digits of
// numbers.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if v == '[' {
			n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		}
		for d.More() {
			child, err := yamlNode(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		// In block style nothing at all would stand there.
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err := d.Token()
		return n, err
	case string:
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v}
		// A spec or a log stays readable.
		if strings.Contains(v, "\n") {
			n.Style = yaml.LiteralStyle
		}
		return n, nil
	case json.Number:
		// The digits pass as they are: 64 bits do not go through a float64.
		tag := "!!int"
		if strings.ContainsAny(v.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(v)}, nil
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
}

// field is a cell of CSV before its column is known.
type field struct{ key, value string }

// writeCSV makes one column a key, nested ones with a dot between ("params.lr"),
// and a header always. Lists inside a record stay JSON.
func writeCSV(w io.Writer, doc []byte) error {
	var raws []json.RawMessage
	if doc[0] == '[' {
		if err := json.Unmarshal(doc, &raws); err != nil {
			return err
		}
	} else {
		raws = append(raws, doc)
	}
	var columns []string
	var rows [][]field
	for _, raw := range raws {
		row, err := flatten("", raw)
		if err != nil {
			return err
		}
		rows = append(rows, row)
		// A key not seen yet goes behind the key before it in its own record.
		at := 0
		for _, f := range row {
			if i := slices.Index(columns, f.key); i >= 0 {
				at = i + 1
				continue
			}
			columns = slices.Insert(columns, at, f.key)
			at++
		}
	}
	// What is null in one record and has parts in another needs no column.
	columns = slices.DeleteFunc(columns, func(k string) bool {
		return slices.ContainsFunc(columns, func(o string) bool { return strings.HasPrefix(o, k+".") })
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
				line[i] = terminal.Text(f.value) // no program reads control characters from CSV, and a terminal obeys them
			}
		}
		if err := cw.Write(line); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

// flatten lists an object's leaves with dotted names, in its order; a list stays one cell of JSON,
// for its length differs from row to row.
func flatten(prefix string, raw json.RawMessage) ([]field, error) {
	raw = bytes.TrimSpace(raw)
	switch raw[0] {
	case '{':
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
		return out, nil
	case '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		return []field{{prefix, s}}, nil
	case 'n':
		return []field{{prefix, ""}}, nil
	case '[':
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return nil, err
		}
		return []field{{prefix, b.String()}}, nil
	}
	return []field{{prefix, string(raw)}}, nil
}
