package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/checkpoint/arch"
)

// Exported says what Export wrote.
type Exported struct {
	From, To Format
	Model    Model
	Tensors  int
	Values   int64 // of all tensors
	Info     Info
	// Told says what was done to the state on the way: see State.
	Told []string
	// Dropped are the keys of the input that the new file does not have, such as the optimiser's state.
	Dropped []string
}

// FormatOf is the form that a name's ending asks for.
func FormatOf(path string) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".pth", ".pt":
		return Zip, nil
	case ".safetensors":
		return Safetensors, nil
	}
	return "", fmt.Errorf("%s: want a name that ends in .pth, .pt or .safetensors", path)
}

// Export makes a model file (best_model.pth) out of a training checkpoint, or turns a model file of any form into
// the form that out's name asks for. The tensors keep their names, order, types, shapes and bytes; what a
// training needs to go on is left behind.
//
// A .pth file is a dictionary
//
//	model_state_dict  OrderedDict, as load_state_dict takes it
//	arch              str
//	class_to_idx      dict of str to int, and num_classes, int
//	image_size        int, pixels
//	normalisation     dict with mean and std, float64 tensors of one number a channel
//	epoch             int
//	best_val_loss     float64 tensor of no dimensions
//	config            str, a JSON object: the training's settings
//
// less what the input does not say; where it says nothing, or bare is asked for, it is the state itself. Python
// opens it with torch.load(f, weights_only=True), from PyTorch 1.13 on. A .safetensors file has the same in its
// metadata, as strings of JSON (mean and std without the dictionary around them).
//
// The tensors' bytes go from the mapped input to the output: a file of any size needs no memory of its size. The
// output is whole and synced under its name, or not there.
func Export(in, out string, bare bool) (Exported, error) {
	to, err := FormatOf(out)
	if err != nil {
		return Exported{}, err
	}
	if sameFile(in, out) {
		return Exported{}, errors.New("input and output are the same file")
	}
	from, err := OpenState(in)
	if err != nil {
		return Exported{}, err
	}
	defer from.Close()
	if len(from.Missing) > 0 {
		return Exported{}, fmt.Errorf("%s: it is a %s without %s: neither torchvision nor atelier would load it", in, from.Arch, arch.Some(from.Missing))
	}
	e := Exported{From: from.Format, To: to, Tensors: len(from.Tensors), Told: from.Told}
	for i := range from.Tensors {
		e.Values += from.Tensors[i].Numel()
	}
	m, used, err := from.describe()
	if err != nil {
		return Exported{}, fmt.Errorf("%s: %w", in, err)
	}
	if bare {
		m, used = Model{}, nil
	}
	e.Model, e.Dropped = m, from.others(used)
	switch {
	case to == Safetensors:
		e.Info, err = SaveSafetensors(out, from.Tensors, m.Metadata())
	case m.empty():
		e.Info, err = Save(out, FromStateDict(from.Tensors))
	default:
		e.Info, err = Save(out, m.dict(FromStateDict(from.Tensors)))
	}
	return e, err
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// others names what a file has beside the state and the keys used.
func (s *State) others(used []string) (out []string) {
	if s.Format == Safetensors {
		for key := range s.Metadata {
			if key != FormatKey && !slices.Contains(used, key) {
				out = append(out, key)
			}
		}
		slices.Sort(out)
		return out
	}
	root, _ := s.Root.(*Dict)
	state := ""
	for _, key := range stateKeys {
		if _, ok := Lookup[*Dict](root, key); ok {
			state = key
			break
		}
	}
	if state == "" {
		return nil // a bare state
	}
	for _, it := range root.Items() {
		if key := fmt.Sprint(it.Key); key != state && !slices.Contains(used, key) {
			out = append(out, key)
		}
	}
	return out
}
