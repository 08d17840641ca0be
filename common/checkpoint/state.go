package checkpoint

import (
	"errors"
	"fmt"
	"strings"
)

// stateKeys are where the training dictionaries in the wild keep a model's state.
var stateKeys = []string{"model_state_dict", "state_dict", "model"}

// wrappers are what DataParallel and torch.compile put in front of every name.
var wrappers = []string{"module.", "_orig_mod."}

// StateDict finds a model's state in a checkpoint and returns its tensors in order, with their names: the value
// itself when it is a dictionary of tensors, else the dictionary under model_state_dict, state_dict or model.
// A prefix "module." or "_orig_mod." that all names share is taken off.
func StateDict(root Value) ([]Tensor, error) {
	d, ok := root.(*Dict)
	if !ok {
		return nil, fmt.Errorf("checkpoint holds a %s: it should be a state_dict or a dictionary with one", kindOf(root))
	}
	for _, key := range stateKeys {
		if inner, ok := Lookup[*Dict](d, key); ok {
			tensors, err := tensorsOf(inner)
			if err != nil {
				return nil, fmt.Errorf("checkpoint, %s: %w", key, err)
			}
			return tensors, nil
		}
	}
	tensors, err := tensorsOf(d)
	if err != nil {
		return nil, fmt.Errorf("checkpoint has no %s and is no state_dict itself: %w", strings.Join(stateKeys, ", "), err)
	}
	return tensors, nil
}

func tensorsOf(d *Dict) ([]Tensor, error) {
	tensors := make([]Tensor, 0, d.Len())
	for _, it := range d.Items() {
		name, ok := it.Key.(string)
		if !ok {
			return nil, fmt.Errorf("key %v is no name", it.Key)
		}
		t, ok := it.Value.(*Tensor)
		if !ok {
			return nil, fmt.Errorf("%q is a %s, not a tensor", name, kindOf(it.Value))
		}
		named := *t
		named.Name = name
		tensors = append(tensors, named)
	}
	if len(tensors) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	for again := true; again; {
		again = false
		for _, prefix := range wrappers {
			again = cutPrefix(tensors, prefix) || again
		}
	}
	return tensors, nil
}

func cutPrefix(tensors []Tensor, prefix string) bool {
	for i := range tensors {
		if !strings.HasPrefix(tensors[i].Name, prefix) {
			return false
		}
	}
	for i := range tensors {
		tensors[i].Name = tensors[i].Name[len(prefix):]
	}
	return true
}

// FromStateDict makes the OrderedDict that load_state_dict takes.
func FromStateDict(tensors []Tensor) *Dict {
	d := NewOrderedDict()
	for i := range tensors {
		d.Set(tensors[i].Name, &tensors[i])
	}
	return d
}

// State is a model's state in an open file of any form.
type State struct {
	// Mapped is the file; its Root has what else a training dictionary holds.
	*Mapped
	// Tensors are the state, as StateDict finds it. They must not be touched after Close.
	Tensors []Tensor
}

// OpenState maps a .pth or safetensors file, whichever it is by its content, and finds the model's state in it.
func OpenState(path string) (*State, error) {
	m, err := Open(path)
	if err != nil {
		return nil, err
	}
	tensors, err := StateDict(m.Root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open checkpoint %s: %w", path, err), m.Close())
	}
	return &State{m, tensors}, nil
}
