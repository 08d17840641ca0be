package checkpoint

import (
	"errors"
	"fmt"
	"strings"
)

// stateKeys are where the training dictionaries in the wild keep a model's state.
var stateKeys = []string{"model_state_dict", "state_dict", "model", "net", "weights"}

// StateDict finds a model's state in a checkpoint and returns its tensors in order, with their names: the value
// itself when it is a dictionary of tensors, else the dictionary under model_state_dict, state_dict, model, net or
// weights. What training put around the model's names is taken off: see ownNames.
func StateDict(root Value) ([]Tensor, error) {
	tensors, _, err := stateOf(root)
	return tensors, err
}

// stateOf also tells what was done to the names.
func stateOf(root Value) (tensors []Tensor, told []string, err error) {
	d, ok := root.(*Dict)
	if !ok {
		return nil, nil, fmt.Errorf("checkpoint contains a %s: it should be a state_dict or a dictionary with one", kindOf(root))
	}
	for _, key := range stateKeys {
		if inner, ok := Lookup[*Dict](d, key); ok {
			if tensors, told, err = tensorsOf(inner); err != nil {
				return nil, nil, fmt.Errorf("checkpoint, %s: %w", key, err)
			}
			return tensors, told, nil
		}
	}
	if tensors, told, err = tensorsOf(d); err != nil {
		return nil, nil, fmt.Errorf("checkpoint has no %s and is no state_dict itself: %w", strings.Join(stateKeys, ", "), err)
	}
	return tensors, told, nil
}

func tensorsOf(d *Dict) (tensors []Tensor, told []string, err error) {
	for _, it := range d.Items() {
		name, ok := it.Key.(string)
		if !ok {
			return nil, nil, fmt.Errorf("key %v is not a name", it.Key)
		}
		t, ok := it.Value.(*Tensor)
		if !ok {
			return nil, nil, fmt.Errorf("%q is a %s, not a tensor", name, kindOf(it.Value))
		}
		named := *t
		named.Name = name
		tensors = append(tensors, named)
	}
	if len(tensors) == 0 {
		return nil, nil, fmt.Errorf("it is empty")
	}
	return ownNames(tensors)
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
	// Tensors are the state, as StateDict finds it, and where they are an architecture's that is known here, without
	// what it has not and with its head's names. They must not be touched after Close.
	Tensors []Tensor
	// Told says what was done to the state on the way, and what of the file was left out, for people.
	Told []string
	// Arch is the architecture that the tensors are nearest to; "" where they are of another kind of model.
	Arch string
	// Missing are the tensors that the architecture has and the file has not.
	Missing []string
}

// OpenState maps a .pth or safetensors file, whichever it is by its content, and finds the model's state in it.
func OpenState(path string) (*State, error) {
	m, err := Open(path)
	if err != nil {
		return nil, err
	}
	tensors, told, err := stateOf(m.Root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open checkpoint %s: %w", path, err), m.Close())
	}
	s := &State{Mapped: m, Tensors: tensors, Told: told}
	if len(m.LeftOut) > 0 {
		s.Told = append(s.Told, "left out, because it contains objects that are not read: "+strings.Join(m.LeftOut, ", "))
	}
	about, _ := m.Model() // what it says of its classes need not be right for its names to be
	s.fit(about.Arch)
	return s, nil
}
