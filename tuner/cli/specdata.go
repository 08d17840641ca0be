package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/dataset"
	"atelier/tuner/sweep"

	"go.yaml.in/yaml/v3"
)

// checkData looks at the image folders that a spec names under training.data,
// before a trainer does: a missing folder or a class without images is an
// error with the line that names it. What is no image folder (a packed file)
// only has to exist.
func checkData(name string, text []byte, base string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) == 0 {
		return err
	}
	data := child(child(doc.Content[0], "training"), "data")
	if data == nil || data.Kind != yaml.MappingNode {
		return nil
	}
	var faults sweep.Errors
	var first []string
	firstKey := ""
	for i := 0; i+1 < len(data.Content); i += 2 {
		key, v := data.Content[i].Value, follow(data.Content[i+1])
		if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" || strings.Contains(v.Value, "://") {
			continue
		}
		path := v.Value
		if path == "~" || strings.HasPrefix(path, "~/") {
			faults = append(faults, sweep.Error{File: name, Line: v.Line, Key: "training.data." + key, Message: path + ": write the whole path: ~ means nothing in a spec, because each worker has its own home folder"})
			continue
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		fail := func(message string) {
			faults = append(faults, sweep.Error{File: name, Line: v.Line, Key: "training.data." + key, Message: message})
		}
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			fail("folder " + path + " does not exist; make it (atelier data synth) or name another")
			continue
		case err != nil:
			fail(err.Error())
			continue
		case !st.IsDir():
			continue
		}
		list := dataset.List
		// A class may be too small to have images to validate on.
		if key != "train" {
			list = dataset.ListHeldOut
		}
		f, err := list(path)
		if err != nil {
			fail(err.Error())
			continue
		}
		if first == nil {
			first, firstKey = f.Classes, key
		} else if err := dataset.SameClasses(firstKey, first, key, f.Classes); err != nil {
			fail(err.Error())
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// child is the value of a key; nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

// follow resolves an alias: the spec was parsed already, so there is one step at most.
func follow(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
