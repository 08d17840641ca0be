package checkpoint

import (
	"fmt"
	"slices"
)

// name is a Python name from the list below, as it lies on the machine's stack. What calling it means is
// written here, in Go; nothing of Python's is looked up.
type name struct {
	kind  nameKind
	dtype DType // of a storage class
	full  string
}

type nameKind uint8

const (
	orderedDict nameKind = iota + 1
	counterClass
	setClass
	bytesClass
	complexClass
	encodeFunc
	storageClass
	sizeClass
	deviceClass
	parameterClass
	rebuildTensor
	rebuildTensorV2
	rebuildParameter
)

// known are the names that may be called. Python 2's module names appear because protocol 2 writes them.
var known = map[string]nameKind{
	"collections.OrderedDict":         orderedDict,
	"collections.Counter":             counterClass,
	"__builtin__.set":                 setClass,
	"builtins.set":                    setClass,
	"__builtin__.bytes":               bytesClass,
	"builtins.bytes":                  bytesClass,
	"__builtin__.complex":             complexClass,
	"builtins.complex":                complexClass,
	"_codecs.encode":                  encodeFunc,
	"torch.Size":                      sizeClass,
	"torch.device":                    deviceClass,
	"torch.nn.parameter.Parameter":    parameterClass,
	"torch._utils._rebuild_tensor":    rebuildTensor,
	"torch._utils._rebuild_tensor_v2": rebuildTensorV2,
	"torch._utils._rebuild_parameter": rebuildParameter,
}

func lookupName(module, id string) (Value, error) {
	full := module + "." + id
	if kind, ok := known[full]; ok {
		return &name{kind: kind, full: full}, nil
	}
	if module == "torch" || module == "torch.cuda" {
		if t, ok := dtypeBy(func(_, storage string) bool { return storage == id }); ok {
			return &name{kind: storageClass, dtype: t, full: full}, nil
		}
	}
	if module == "torch" {
		if t, ok := dtypeBy(func(name, _ string) bool { return name == id }); ok {
			return t, nil
		}
	}
	return standIn(module, id)
}

// call is what REDUCE and NEWOBJ do for the names above.
func (m *machine) call(callee, arguments Value) (Value, error) {
	if f, ok := callee.(*foreign); ok {
		return f.made(arguments), nil
	}
	f, ok := callee.(*name)
	if !ok {
		return nil, fmt.Errorf("%w: a %s is called", ErrRefused, kindOf(callee))
	}
	tuple, ok := arguments.(*Tuple)
	if !ok {
		return nil, fmt.Errorf("%s is called with a %s", f.full, kindOf(arguments))
	}
	args := tuple.Items
	if len(args) > 0 {
		if err := m.charge(weight(args[0])); err != nil {
			return nil, err
		}
	}
	bad := func() (Value, error) {
		return nil, fmt.Errorf("%s is called with arguments it does not take (%d of them)", f.full, len(args))
	}
	switch f.kind {
	case orderedDict, counterClass:
		d := &Dict{Ordered: f.kind == orderedDict}
		if len(args) == 0 {
			return d, nil
		}
		if len(args) != 1 {
			return bad()
		}
		return fill(d, args[0])
	case setClass:
		if len(args) == 0 {
			return &Set{}, nil
		}
		if len(args) == 1 {
			if l, ok := args[0].(*List); ok {
				return &Set{Items: slices.Clone(l.Items)}, nil
			}
		}
	case bytesClass:
		if len(args) == 0 {
			return []byte{}, nil
		}
	case complexClass:
		if len(args) == 2 {
			re, ok1 := args[0].(float64)
			im, ok2 := args[1].(float64)
			if ok1 && ok2 {
				return complex(re, im), nil
			}
		}
	case encodeFunc:
		return encodeLatin1(args)
	case sizeClass:
		if len(args) == 1 {
			if v, ok := integers(args[0]); ok {
				return Size(v), nil
			}
		}
	case deviceClass:
		return device(args)
	case parameterClass, rebuildParameter:
		// A parameter is its tensor: requires_grad and hooks mean nothing outside Python.
		if len(args) >= 1 && len(args) <= 3 {
			if t, ok := args[0].(*Tensor); ok {
				return t, nil
			}
		}
	case rebuildTensor, rebuildTensorV2:
		return m.rebuild(f, args)
	}
	return bad()
}

// weight is what copying a value costs, in values.
func weight(v Value) int {
	switch v := v.(type) {
	case *Dict:
		return len(v.items)
	case *List:
		return len(v.Items)
	case *Tuple:
		return len(v.Items)
	case string:
		return len(v) / 16
	}
	return 1
}

// fill takes what OrderedDict and Counter take: a dict or a list of pairs.
func fill(d *Dict, from Value) (Value, error) {
	switch from := from.(type) {
	case *Dict:
		for _, it := range from.items {
			d.Set(it.Key, it.Value)
		}
		return d, nil
	case *List:
		for _, v := range from.Items {
			var pair []Value
			switch v := v.(type) {
			case *List:
				pair = v.Items
			case *Tuple:
				pair = v.Items
			}
			if len(pair) != 2 {
				return nil, fmt.Errorf("a dictionary made from a %s", kindOf(v))
			}
			if err := d.setPairs(pair); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return nil, fmt.Errorf("a dictionary made from a %s", kindOf(from))
}

func encodeLatin1(args []Value) (Value, error) {
	if len(args) == 2 {
		text, ok1 := args[0].(string)
		codec, ok2 := args[1].(string)
		if ok1 && ok2 && codec == "latin1" {
			b := make([]byte, 0, len(text))
			for _, r := range text {
				if r > 255 {
					return nil, fmt.Errorf("_codecs.encode: %q is not latin1", r)
				}
				b = append(b, byte(r))
			}
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: _codecs.encode is taken with latin1 only", ErrRefused)
}

func device(args []Value) (Value, error) {
	if len(args) == 1 || len(args) == 2 {
		if kind, ok := args[0].(string); ok && len(kind) <= 64 {
			if len(args) == 1 {
				return Device(kind), nil
			}
			if n, ok := args[1].(int64); ok {
				return Device(fmt.Sprintf("%s:%d", kind, n)), nil
			}
		}
	}
	return nil, fmt.Errorf("torch.device is called with arguments it does not take")
}

// rebuild makes a tensor of (storage, offset, size, stride[, requires_grad, hooks[, metadata]]).
func (m *machine) rebuild(f *name, args []Value) (Value, error) {
	if len(args) < 4 || len(args) > 7 {
		return nil, fmt.Errorf("%s is called with %d arguments", f.full, len(args))
	}
	s, ok := args[0].(*storage)
	offset, ok1 := args[1].(int64)
	shape, ok2 := integers(args[2])
	strides, ok3 := integers(args[3])
	if !ok || !ok1 || !ok2 || !ok3 || len(shape) != len(strides) || offset < 0 {
		return nil, fmt.Errorf("%s is called with arguments it does not take", f.full)
	}
	n, err := numel(shape)
	if err != nil {
		return nil, err
	}
	// The last element looked at must lie in the storage. Each step is bounded, so none overflows.
	last := offset
	for i, d := range shape {
		if strides[i] < 0 || strides[i] > maxNumel {
			return nil, fmt.Errorf("tensor strides %v are impossible", strides)
		}
		if n > 0 && d > 1 {
			if strides[i] > 0 && d-1 > maxNumel/strides[i] {
				return nil, fmt.Errorf("tensor of shape %v and strides %v is outside its storage", shape, strides)
			}
			last += (d - 1) * strides[i]
		}
		if last > maxNumel {
			return nil, fmt.Errorf("tensor of shape %v and strides %v is outside its storage", shape, strides)
		}
	}
	if n > 0 && last >= s.numel {
		return nil, fmt.Errorf("tensor of shape %v, strides %v and offset %d is outside its storage of %d elements", shape, strides, offset, s.numel)
	}
	t := &Tensor{DType: s.dtype, Shape: shape}
	m.tensors = append(m.tensors, &pendingTensor{tensor: t, storage: s, offset: offset, strides: strides})
	return t, nil
}

// persistent makes a storage of ("storage", class, key, location, elements[, view]).
func (m *machine) persistent(id Value) (Value, error) {
	tuple, ok := id.(*Tuple)
	if !ok || len(tuple.Items) < 1 {
		return nil, fmt.Errorf("%w: a reference outside the pickle by a %s", ErrRefused, kindOf(id))
	}
	args := tuple.Items
	if kind, _ := args[0].(string); kind != "storage" {
		if kind == "module" {
			return nil, fmt.Errorf("%w: the file contains a whole module with its source code: save its state_dict instead", ErrRefused)
		}
		return nil, fmt.Errorf("%w: a reference outside the pickle of kind %v", ErrRefused, args[0])
	}
	if len(args) != 5 && len(args) != 6 {
		return nil, fmt.Errorf("a storage reference of %d parts", len(args))
	}
	class, ok1 := args[1].(*name)
	key, ok2 := args[2].(string)
	_, ok3 := args[3].(string)
	count, ok4 := args[4].(int64)
	if !ok1 || class.kind != storageClass || !ok2 || !ok3 || !ok4 || count < 0 || count > maxNumel || len(key) > 256 {
		return nil, fmt.Errorf("a storage reference with parts it does not take")
	}
	base, ok := m.storages[key]
	if !ok {
		base = &storage{key: key, dtype: class.dtype, numel: count}
		m.storages[key] = base
	} else if base.dtype.Size() != class.dtype.Size() || base.numel != count {
		return nil, fmt.Errorf("storage %q is declared with %d elements of %v and with %d of %v", key, base.numel, base.dtype, count, class.dtype)
	}
	if len(args) == 5 || args[5] == nil {
		return base, nil
	}
	return base.view(args[5])
}

// view is a legacy file's part of a storage: (key, offset, elements).
func (s *storage) view(parts Value) (Value, error) {
	if t, ok := parts.(*Tuple); ok && len(t.Items) == 3 {
		offset, ok1 := t.Items[1].(int64)
		count, ok2 := t.Items[2].(int64)
		if ok1 && ok2 && offset >= 0 && count >= 0 && offset <= s.numel && count <= s.numel-offset {
			return &storage{key: s.key, dtype: s.dtype, numel: count, base: s, offset: offset}, nil
		}
	}
	return nil, fmt.Errorf("a view outside its storage %q", s.key)
}

// integers takes a tuple, list or Size of integers: a shape or strides.
func integers(v Value) ([]int64, bool) {
	var items []Value
	switch v := v.(type) {
	case Size:
		return v, true
	case *Tuple:
		items = v.Items
	case *List:
		items = v.Items
	default:
		return nil, false
	}
	if len(items) > maxDims {
		return nil, false
	}
	out := make([]int64, len(items))
	for i, it := range items {
		n, ok := it.(int64)
		if !ok {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

func kindOf(v Value) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case *name:
		return "name (" + v.full + ")"
	case *storage:
		return "storage"
	case *Dict:
		return "dictionary"
	case *List:
		return "list"
	case *Tuple:
		return "tuple"
	case *Set:
		return "set"
	case *Tensor:
		return "tensor"
	case *foreign:
		return "object (" + v.class + ")"
	}
	return fmt.Sprintf("%T", v)
}
