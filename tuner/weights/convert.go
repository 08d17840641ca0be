package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/checkpoint"
)

// Converted says what was written.
type Converted struct {
	From, To checkpoint.Format
	Tensors  int
	Values   int64 // of all tensors
	Info     checkpoint.Info
	// Dropped are the keys of a training dictionary that the new file does not have, such as the optimiser's state.
	Dropped []string
}

// FormatOf is the form that a name's ending asks for.
func FormatOf(path string) (checkpoint.Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".pth", ".pt":
		return checkpoint.Zip, nil
	case ".safetensors":
		return checkpoint.Safetensors, nil
	}
	return "", fmt.Errorf("%s: want a name that ends in .pth, .pt or .safetensors", path)
}

// The words that say what a model is, beside its tensors. safetensors has strings only, so class_to_idx is JSON
// there.
const (
	archKey    = "arch"
	classesKey = "class_to_idx"
	stateKey   = "model_state_dict"
)

// Convert writes the model's state of the file in, whatever form that has, to the file out in the form of its
// name. The tensors keep their names, order, types, shapes and bytes; arch and class_to_idx go along, all else of
// a training dictionary is dropped. A .pth file is a bare state_dict unless there is an arch or class_to_idx.
func Convert(in, out string) (Converted, error) {
	to, err := FormatOf(out)
	if err != nil {
		return Converted{}, err
	}
	if same(in, out) {
		return Converted{}, errors.New("input and output are the same file")
	}
	from, err := checkpoint.OpenState(in)
	if err != nil {
		return Converted{}, err
	}
	defer from.Close()
	c := Converted{From: from.Format, To: to, Tensors: len(from.Tensors)}
	for i := range from.Tensors {
		c.Values += from.Tensors[i].Numel()
	}
	arch, classes, err := identity(from)
	if err != nil {
		return Converted{}, fmt.Errorf("%s: %w", in, err)
	}
	c.Dropped = dropped(from)
	if to == checkpoint.Safetensors {
		metadata := map[string]string{"format": "pt"}
		if arch != "" {
			metadata[archKey] = arch
		}
		if classes != nil {
			if metadata[classesKey], err = classesJSON(classes); err != nil {
				return Converted{}, err
			}
		}
		c.Info, err = checkpoint.SaveSafetensors(out, from.Tensors, metadata)
		return c, err
	}
	root := checkpoint.FromStateDict(from.Tensors)
	if arch != "" || classes != nil {
		root = checkpoint.NewDict().Set(stateKey, root)
		if arch != "" {
			root.Set(archKey, arch)
		}
		if classes != nil {
			root.Set(classesKey, classes)
		}
	}
	c.Info, err = checkpoint.Save(out, root)
	return c, err
}

func same(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// identity reads arch and class_to_idx from where the form has them.
func identity(s *checkpoint.State) (arch string, classes *checkpoint.Dict, err error) {
	if s.Format != checkpoint.Safetensors {
		root, _ := s.Root.(*checkpoint.Dict)
		arch, _ = checkpoint.Lookup[string](root, archKey)
		classes, _ = checkpoint.Lookup[*checkpoint.Dict](root, classesKey)
		return arch, classes, nil
	}
	text, ok := s.Metadata[classesKey]
	if !ok {
		return s.Metadata[archKey], nil, nil
	}
	d := json.NewDecoder(strings.NewReader(text))
	fail := func() (string, *checkpoint.Dict, error) {
		return "", nil, fmt.Errorf("metadata %s is no JSON object of whole numbers", classesKey)
	}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fail()
	}
	classes = checkpoint.NewDict()
	for d.More() { // token by token: the order counts
		name, err := d.Token()
		if err != nil {
			return fail()
		}
		var index int64
		if err := d.Decode(&index); err != nil {
			return fail()
		}
		classes.Set(name, index)
	}
	if _, err := d.Token(); err != nil {
		return fail()
	}
	return s.Metadata[archKey], classes, nil
}

func classesJSON(classes *checkpoint.Dict) (string, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, it := range classes.Items() {
		name, named := it.Key.(string)
		index, numbered := it.Value.(int64)
		if !named || !numbered {
			return "", fmt.Errorf("%s: %v: %v is not a name with a number", classesKey, it.Key, it.Value)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		text, err := json.Marshal(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s:%d", text, index)
	}
	b.WriteByte('}')
	return b.String(), nil
}

// dropped names what a training dictionary has beside the state, the architecture and the classes.
func dropped(s *checkpoint.State) []string {
	if s.Format == checkpoint.Safetensors {
		var out []string
		for key := range s.Metadata {
			if key != "format" && key != archKey && key != classesKey {
				out = append(out, key)
			}
		}
		slices.Sort(out)
		return out
	}
	root, _ := s.Root.(*checkpoint.Dict)
	state := ""
	for _, key := range checkpoint.StateKeys() {
		if _, ok := checkpoint.Lookup[*checkpoint.Dict](root, key); ok {
			state = key
			break
		}
	}
	if state == "" {
		return nil // a bare state
	}
	var out []string
	for _, it := range root.Items() {
		if it.Key != state && it.Key != archKey && it.Key != classesKey {
			out = append(out, fmt.Sprint(it.Key))
		}
	}
	return out
}
