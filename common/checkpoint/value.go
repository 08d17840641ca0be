// Package checkpoint reads and writes PyTorch checkpoints (.pth files) without Python and without libtorch.
//
// Write makes the zip form that torch.load opens, also with weights_only=True. Read takes the zip form and the
// older stream form. Both speak of a closed tree of values: None, booleans, numbers, strings, bytes, lists,
// tuples, sets, dictionaries in order, dtypes, devices, sizes and tensors.
//
// The package refuses everything else, by name: a pickle is a program, and this reader executes none. It holds
// the list of names that torch.load(weights_only=True) allows, and limits on depth, count and size, so that a
// file from anywhere may be opened.
package checkpoint

import (
	"errors"
	"fmt"
	"math/big"
)

// Value is one of
//
//	nil             None
//	bool
//	int64, int      an integer (read: always int64; *big.Int where it does not fit)
//	*big.Int
//	float64
//	complex128
//	string
//	[]byte          bytes
//	*List, *Tuple, *Set, *Dict
//	*Tensor
//	DType           a dtype such as torch.float32
//	Size            torch.Size
//	Device          torch.device, such as "cpu" or "cuda:0"
type Value any

var _ Value = (*big.Int)(nil)

// ErrRefused is wrapped by errors of Read that speak of a file which is well formed but holds what this reader
// does not take, for example a name outside the list.
var ErrRefused = errors.New("refused")

// List is a Python list.
type List struct{ Items []Value }

// Tuple is a Python tuple.
type Tuple struct{ Items []Value }

// Set is a Python set, in the order of the file.
type Set struct{ Items []Value }

// Size is a torch.Size.
type Size []int64

// Device is a torch.device by its name.
type Device string

// Item is one entry of a Dict.
type Item struct{ Key, Value Value }

// Dict is a dictionary that keeps the order in which keys were first set. Keys are nil, bool, int64, float64,
// string, DType, Device or *Tuple (which is compared by identity).
type Dict struct {
	// Ordered says that it is a collections.OrderedDict, as a model's state is.
	Ordered bool
	// Attrs are attributes set on an OrderedDict; PyTorch keeps "_metadata" there. May be nil.
	Attrs *Dict

	items []Item
	index map[Value]int // made when the dictionary grows; small ones are searched
}

// NewDict returns an empty dict.
func NewDict() *Dict { return &Dict{} }

// NewOrderedDict returns an empty collections.OrderedDict.
func NewOrderedDict() *Dict { return &Dict{Ordered: true} }

const indexFrom = 12

// Set sets a key and returns d, so that calls can be chained. It panics on a key that cannot be one: that is a
// mistake in the program; keys from files are checked before.
func (d *Dict) Set(key, value Value) *Dict {
	if n, ok := key.(int); ok {
		key = int64(n)
	}
	if !keyable(key) {
		panic(fmt.Sprintf("checkpoint: %T cannot be a key", key))
	}
	if i, ok := d.find(key); ok {
		d.items[i].Value = value
		return d
	}
	d.items = append(d.items, Item{key, value})
	switch {
	case d.index != nil:
		d.index[key] = len(d.items) - 1
	case len(d.items) >= indexFrom:
		d.index = make(map[Value]int, 2*indexFrom)
		for i, it := range d.items {
			d.index[it.Key] = i
		}
	}
	return d
}

func (d *Dict) find(key Value) (int, bool) {
	if d.index != nil {
		i, ok := d.index[key]
		return i, ok
	}
	for i, it := range d.items {
		if it.Key == key {
			return i, true
		}
	}
	return 0, false
}

// Get returns the value of a key.
func (d *Dict) Get(key Value) (Value, bool) {
	if d == nil || !keyable(key) {
		return nil, false
	}
	if i, ok := d.find(key); ok {
		return d.items[i].Value, true
	}
	return nil, false
}

// Len is the number of entries.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.items)
}

// Items are the entries in order. Read only.
func (d *Dict) Items() []Item {
	if d == nil {
		return nil
	}
	return d.items
}

func keyable(key Value) bool {
	switch key.(type) {
	case nil, bool, int64, float64, string, DType, Device, *Tuple:
		return true
	}
	return false
}

// Lookup returns the value of key when it is there and of type T.
func Lookup[T any](d *Dict, key string) (T, bool) {
	v, ok := d.Get(key)
	if !ok {
		var zero T
		return zero, false
	}
	t, ok := v.(T)
	return t, ok
}
