package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"atelier/common/terminal"

	ucli "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// outputFlag is -o of a verb that prints records. What is after the colon is also
// what checkFormat allows and completion proposes.
func outputFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, wide, json, yaml or csv"}
}

// wordsOf are the words that a flag takes, by its usage: `FORMAT`: table, json or csv.
// A word may have a remark in brackets; what follows a semicolon is no part of the list,
// and a text that is no list has no words.
func wordsOf(usage string) []string {
	_, list, ok := strings.Cut(usage, "`: ")
	if !ok {
		return nil
	}
	list, _, _ = strings.Cut(list, ";")
	list = regexp.MustCompile(`\([^)]*\)`).ReplaceAllString(list, "")
	var words []string
	for w := range strings.SplitSeq(strings.ReplaceAll(list, " or ", ","), ",") {
		if w = strings.TrimSpace(w); strings.Contains(w, " ") {
			return nil
		} else if w != "" {
			words = append(words, w)
		}
	}
	return words
}

// print writes records (a struct, or a slice of structs) in the format asked
// for. shape makes the table; it is called only when a table is wanted. All of it is made before any of it is written:
// an error leaves no half a document for the program behind the pipe.
func (e *Env) print(c *ucli.Context, v any, shape func() table) error {
	var b bytes.Buffer
	format, columns := c.String("output"), c.String("columns")
	if tabular(c) && columns == "" {
		e.writeTable(&b, shape(), format == "wide")
		_, err := e.Out.Write(b.Bytes())
		return err
	}
	r, err := readRecords(v)
	if err != nil {
		return err
	}
	doc := r.doc
	if columns != "" {
		if err := r.choose(columns); err != nil {
			return err
		}
		if doc, err = r.json(); err != nil {
			return err
		}
	}
	switch format {
	case "table", "wide":
		e.writeTable(&b, r.table(), format == "wide")
	case "json":
		b.Write(doc)
	case "yaml":
		err = writeYAML(&b, doc)
	case "csv":
		err = writeCSV(&b, r.keys, r.rows)
	default:
		return checkFormat(c)
	}
	if err != nil {
		return err
	}
	_, err = e.Out.Write(b.Bytes())
	return err
}

// tabular reports whether people are to read the output.
func tabular(c *ucli.Context) bool {
	return c.String("output") == "table" || c.String("output") == "wide"
}

// checkFormat refuses an unknown format before anything is asked of a cluster.
func checkFormat(c *ucli.Context) error {
	f, ok := flagNamed(c.Command.Flags, "output").(ucli.DocGenerationFlag)
	if !ok {
		return nil
	}
	words := wordsOf(f.GetUsage())
	if slices.Contains(words, c.String("output")) {
		return nil
	}
	last := len(words) - 1
	return usage("-o %s: want %s or %s", c.String("output"), strings.Join(words[:last], ", "), words[last])
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
