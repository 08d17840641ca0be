package checkpoint

import (
	"fmt"
	"slices"
	"strings"
)

// A training dictionary may hold objects beside its state: numbers of NumPy, paths, an argparse Namespace, the
// settings of some library. They are not needed and not made: a stand-in that knows the class's name takes their
// place on the machine's stack, and what holds one is left out of the dictionary and named. Nothing is called.

// foreign stands for an object of a class that is not on the list, or for the class.
type foreign struct{ class string }

// acting are modules that no checkpoint needs and whose names let a pickle do things when Python opens it. A file
// that names them is refused as a whole, though nothing would happen here.
var acting = []string{"os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "importlib", "imp", "runpy", "shutil", "socket", "ctypes", "code",
	"codeop", "pty", "commands", "webbrowser", "pickle", "_pickle", "dill", "cloudpickle", "marshal", "operator", "_operator", "functools", "_functools", "types", "asyncio",
	"multiprocessing", "threading", "signal", "pip", "timeit", "pdb", "bdb", "doctest", "profile", "cProfile", "urllib", "http", "requests", "tempfile", "io", "_io", "gc",
	"inspect", "ast", "torch.hub", "torch.serialization", "torch.jit", "torch.load", "torch.save", "torch.ops", "torch.utils", "numpy.testing", "numpy.f2py", "numpy.distutils"}

// plain are the builtins that are only kinds of data.
var plain = []string{"dict", "list", "tuple", "int", "float", "str", "unicode", "long", "bool", "bytearray", "frozenset", "object", "slice", "range", "xrange", "type", "NoneType"}

// standIn is what a name that is not on the list becomes.
func standIn(module, id string) (Value, error) {
	full := module + "." + id
	builtin := module == "builtins" || module == "__builtin__"
	if builtin && slices.Contains(plain, id) {
		return &foreign{full}, nil
	}
	for _, u := range acting {
		if full == u || strings.HasPrefix(full, u+".") {
			return nil, fmt.Errorf("%w: the file names %q, which is not on the list of what a checkpoint may contain and could run a program when Python opens it: do not load it there, and ask where it comes from", ErrRefused, full)
		}
	}
	return &foreign{full}, nil
}

// made is what calling a stand-in gives: an object of the class, or of that which a rebuilding function is given.
func (f *foreign) made(args Value) Value {
	if tuple, ok := args.(*Tuple); ok && len(tuple.Items) > 0 && (strings.HasPrefix(f.class, "copyreg.") || strings.HasPrefix(f.class, "copy_reg.")) {
		if of, ok := tuple.Items[0].(*foreign); ok {
			return of
		}
	}
	return f
}

// withoutForeign takes the entries that hold objects out of a dictionary and names them. Where the state itself
// does, or all there is, the file is refused by the object's name.
func withoutForeign(root Value) (leftOut []string, err error) {
	in := search{seen: map[Value]*foreign{}}
	first := in.foreign(root)
	if first == nil {
		return nil, nil
	}
	refused := fmt.Errorf("%w: the file names %q, which is not on the list of what a checkpoint may contain (tensors, numbers, strings, lists, dictionaries): save a state_dict", ErrRefused, first.class)
	d, ok := root.(*Dict)
	if !ok {
		return nil, refused
	}
	if d.Attrs != nil && in.foreign(d.Attrs) != nil {
		d.Attrs = nil
	}
	var kept []Item
	for _, it := range d.items {
		f := in.foreign(it.Value)
		if k := in.foreign(it.Key); k != nil {
			f = k
		}
		if f == nil {
			kept = append(kept, it)
			continue
		}
		if key, ok := it.Key.(string); ok && slices.Contains(stateKeys, key) {
			if _, state := it.Value.(*Dict); state || len(d.items) == 1 {
				return nil, fmt.Errorf("%w (found in the state, under %s)", refused, key)
			}
		}
		name := f.class
		if key, ok := it.Key.(string); ok {
			name = fmt.Sprintf("%s (%s)", key, f.class)
		}
		leftOut = append(leftOut, name)
	}
	if len(kept) == 0 {
		return nil, refused
	}
	d.items, d.index = nil, nil
	for _, it := range kept {
		d.Set(it.Key, it.Value)
	}
	return leftOut, nil
}

// search looks for stand-ins; values that many hold are looked at once. The tree has been checked: it has no cycle.
type search struct{ seen map[Value]*foreign }

func (s search) foreign(v Value) (found *foreign) {
	var children []Value
	switch v := v.(type) {
	case *foreign:
		return v
	case *List:
		children = v.Items
	case *Tuple:
		children = v.Items
	case *Set:
		children = v.Items
	case *Dict:
		if v == nil {
			return nil
		}
		for _, it := range v.items {
			children = append(children, it.Key, it.Value)
		}
		if v.Attrs != nil {
			children = append(children, v.Attrs)
		}
	default:
		return nil
	}
	if f, ok := s.seen[v]; ok {
		return f
	}
	for _, c := range children {
		if found = s.foreign(c); found != nil {
			break
		}
	}
	s.seen[v] = found
	return found
}
