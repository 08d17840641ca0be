package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/files"

	"go.yaml.in/yaml/v3"
)

// A change of the contexts edits the tree of the file's YAML: comments, the order of keys
// and what other versions keep there stay. What the edit cannot express, such as an address
// that others refer to by an anchor, is refused and leaves the file as it was.

// lockContexts bounds how long a change waits for another one.
const lockContexts = 10 * time.Second

// changeContexts reads the file, changes it and writes it, while no other process does.
func (e *Env) changeContexts(ctx context.Context, change func(*contexts) error) error {
	file := e.contextsFile()
	if file == "" {
		return errors.New("contexts: no folder for them: set HOME or XDG_CONFIG_HOME")
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockContexts)
	defer cancel()
	lock, err := files.WaitLock(ctx, dir) // the folder: a lock file would stay beside the person's own
	if err != nil {
		return fmt.Errorf("contexts: lock %s: %w", dir, err)
	}
	defer lock.Close()
	all, err := e.readContexts()
	if err != nil {
		return err
	}
	if err := change(all); err != nil {
		return err
	}
	text, err := all.encode(file)
	if err != nil {
		return err
	}
	// Where it is a link, what it points to is replaced.
	if to, err := filepath.EvalSymlinks(file); err == nil {
		file = to
	}
	return files.Write(file, text, 0o600)
}

// encode is the file's text: the one that was read, with what has changed since.
func (c *contexts) encode(file string) ([]byte, error) {
	text, err := c.edited(file)
	if err != nil {
		return nil, err
	}
	want, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	var got []byte
	if again, err := decodeContexts(file, text); err == nil {
		got, _ = yaml.Marshal(again)
	}
	if !bytes.Equal(want, got) {
		return nil, fmt.Errorf("%s: its anchors, aliases or encoding do not let the change be made here: edit the file; nothing was changed", file)
	}
	return text, nil
}

// edited is encode without a look at what came of it.
func (c *contexts) edited(file string) ([]byte, error) {
	d := yaml.NewDecoder(bytes.NewReader(c.text))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF): // comments at most
		text := c.text
		if len(bytes.TrimSpace(text)) == 0 {
			text = []byte("# Clusters by name: atelier context --help\n")
		}
		return encodeYAML(append(bytes.TrimRight(text, "\n"), '\n'), c)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := d.Decode(&second); err == nil {
		return nil, fmt.Errorf("%s:%d: a second YAML document begins here; only one is read: remove it; nothing was changed", file, second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: after the first YAML document: %w; nothing was changed", file, err)
	}
	if err := c.edit(doc.Content[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return encodeYAML(nil, &doc)
}

// edit makes the root of a document what c is. What is as it should be is not touched.
func (c *contexts) edit(root *yaml.Node) error {
	if root.Kind != yaml.MappingNode {
		*root = yaml.Node{Kind: yaml.MappingNode, HeadComment: root.HeadComment, FootComment: root.FootComment}
	}
	var was contexts
	if err := root.Decode(&was); err != nil {
		return err
	}
	switch {
	case c.Current == was.Current:
	case c.Current == "":
		removeKey(root, "current")
	default:
		setKey(root, "current", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: c.Current})
	}
	if len(c.Contexts) == 0 && len(was.Contexts) == 0 {
		return nil
	}
	list := valueOf(root, "contexts")
	if list == nil || list.Kind == yaml.ScalarNode {
		list = &yaml.Node{Kind: yaml.MappingNode}
		setKey(root, "contexts", list)
	}
	if list.Kind == yaml.MappingNode && len(list.Content) == 0 {
		list.Style = 0
	}
	for _, name := range slices.Sorted(maps.Keys(was.Contexts)) {
		if _, stays := c.Contexts[name]; !stays {
			removeKey(list, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		now := c.Contexts[name]
		before, known := was.Contexts[name]
		if known && before.Addr == now.Addr && before.CA == now.CA && before.Token == now.Token {
			continue
		}
		if entry := valueOf(list, name); entry != nil && entry.Kind == yaml.MappingNode {
			for _, key := range []struct{ name, before, now string }{{"addr", before.Addr, now.Addr}, {"ca", before.CA, now.CA}, {"token", before.Token, now.Token}} {
				if key.before != key.now {
					setKey(entry, key.name, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key.now, Style: style(key.now)})
				}
			}
			continue
		}
		var entry yaml.Node
		if err := entry.Encode(now); err != nil {
			return err
		}
		setKey(list, name, &entry)
	}
	return nil
}

// encodeYAML appends a value as the file has it.
func encodeYAML(before []byte, v any) ([]byte, error) {
	b := bytes.NewBuffer(before)
	enc := yaml.NewEncoder(b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	err := enc.Close()
	return b.Bytes(), err
}

// style writes what has several lines as such.
func style(text string) yaml.Style {
	if strings.Contains(text, "\n") {
		return yaml.LiteralStyle
	}
	return 0
}

// keyAt is where a mapping has a key; -1 for nowhere.
func keyAt(m *yaml.Node, key string) int {
	for i := 0; m.Kind == yaml.MappingNode && i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return i
		}
	}
	return -1
}

func valueOf(m *yaml.Node, key string) *yaml.Node {
	if i := keyAt(m, key); i >= 0 {
		return m.Content[i+1]
	}
	return nil
}

func removeKey(m *yaml.Node, key string) {
	if i := keyAt(m, key); i >= 0 {
		m.Content = slices.Delete(m.Content, i, i+2)
	}
}

// setKey sets or adds a key; comments and the anchor of the value before stay.
func setKey(m *yaml.Node, key string, v *yaml.Node) {
	i := keyAt(m, key)
	if i < 0 {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, v)
		return
	}
	was := m.Content[i+1]
	v.HeadComment, v.LineComment, v.FootComment, v.Anchor = was.HeadComment, was.LineComment, was.FootComment, was.Anchor
	m.Content[i+1] = v
}
