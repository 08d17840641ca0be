package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// The keys of a model file. A training dictionary has those up to config, and keeps the rest elsewhere.
const (
	stateKey    = "model_state_dict"
	archKey     = "arch"
	classesKey  = "class_to_idx"
	epochKey    = "epoch"
	lossKey     = "best_val_loss"
	configKey   = "config"
	countKey    = "num_classes"
	sizeKey     = "image_size"
	normKey     = "normalisation"
	meanKey     = "mean"
	stdKey      = "std"
	ownKey      = "atelier" // what only our trainer needs
	FormatKey   = "format"  // of a safetensors file: "pt"
	maxMetadata = 1 << 20   // bytes of a word of metadata that is parsed
)

// Model is what a file says of a model beside its tensors: all that is needed to build it, to feed it images and
// to name its answers. What a file does not say is zero.
type Model struct {
	Arch string
	// Classes are the names of the model's outputs, in their order.
	Classes []string
	// ImageSize is the side of the square images, in pixels.
	ImageSize int
	// Mean and Std are subtracted from, and divide, the colours (red, green, blue, in 0..1).
	Mean, Std []float64
	// Epoch is the one after which the tensors stood so, counted from 1.
	Epoch int
	// BestValLoss is the lowest validation loss up to then; nil where there is none.
	BestValLoss *float64
	// Config are the settings of the training, as a JSON object.
	Config string
}

func (m Model) empty() bool {
	return m.Arch == "" && m.Classes == nil && m.ImageSize == 0 && m.Mean == nil && m.Epoch == 0 && m.BestValLoss == nil && m.Config == ""
}

// Model reads what an open file says of its model: a model file of Export, a training dictionary, or the metadata
// of a safetensors file. A bare state says nothing. An error means that class_to_idx or the normalisation is
// there and cannot be right.
func (f *Mapped) Model() (Model, error) {
	m, _, err := f.describe()
	return m, err
}

// Lacks names what a file does not say of its model, by the keys that would: what is needed to ask it (architecture
// and classes), and with all also what it takes to feed it images as its training did.
func (f *Mapped) Lacks(all bool) (keys []string) {
	m, _ := f.Model()
	for _, k := range []struct {
		key          string
		there, asked bool
	}{{"architecture (arch)", m.Arch != "", true}, {"classes (" + classesKey + ")", len(m.Classes) > 0, true},
		{sizeKey, m.ImageSize > 0, all}, {normKey + " (" + meanKey + ", " + stdKey + ")", len(m.Mean) == 3, all}} {
		if k.asked && !k.there {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// describe also names the keys that went into the Model.
func (f *Mapped) describe() (m Model, used []string, err error) {
	if f.Format == Safetensors {
		m, used, err = fromMetadata(f.Metadata)
	} else if root, ok := f.Root.(*Dict); ok {
		m, used, err = fromDict(root)
	}
	bad := func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
	if err == nil && (len(m.Mean) != len(m.Std) || slices.ContainsFunc(m.Mean, bad) || slices.ContainsFunc(m.Std, func(x float64) bool { return bad(x) || x <= 0 })) {
		err = fmt.Errorf("%s: mean %v and std %v: want as many, and each std above 0", normKey, m.Mean, m.Std)
	}
	return m, used, err
}

func fromDict(root *Dict) (m Model, used []string, err error) {
	take := func(key string, ok bool) bool {
		if ok {
			used = append(used, key)
		}
		return ok
	}
	m.Arch, _ = Lookup[string](root, archKey)
	take(archKey, m.Arch != "")
	if classes, ok := Lookup[*Dict](root, classesKey); take(classesKey, ok) {
		if m.Classes, err = inOrder(classes); err != nil {
			return m, nil, err
		}
	}
	if n, ok := Lookup[int64](root, countKey); ok && m.Classes != nil && n != int64(len(m.Classes)) {
		return m, nil, fmt.Errorf("%s is %d, %s has %d", countKey, n, classesKey, len(m.Classes))
	} else {
		take(countKey, ok)
	}
	if n, ok := Lookup[int64](root, epochKey); take(epochKey, ok && n > 0) {
		m.Epoch = int(n)
	}
	if v, _ := root.Get(lossKey); v != nil {
		if x, ok := finite(v); take(lossKey, ok) {
			m.BestValLoss = &x
		}
	}
	size, sized := Lookup[int64](root, sizeKey)
	take(sizeKey, sized)
	switch config, _ := root.Get(configKey); c := config.(type) {
	case string:
		if take(configKey, isObject(c)) {
			m.Config = c
		}
	case *Dict:
		if b, err := appendValue(nil, c, 0); take(configKey, err == nil) {
			m.Config = string(b)
		}
		if !sized {
			size, _ = Lookup[int64](c, sizeKey)
		}
	}
	if size > 0 && size <= math.MaxInt32 {
		m.ImageSize = int(size)
	}
	norm, ok := Lookup[*Dict](root, normKey)
	if !take(normKey, ok) {
		norm, _ = Lookup[*Dict](root, ownKey)
	}
	m.Mean, m.Std = numbers(norm, meanKey), numbers(norm, stdKey)
	return m, used, nil
}

func isObject(text string) bool { return strings.HasPrefix(text, "{") && json.Valid([]byte(text)) }

// inOrder turns class_to_idx round.
func inOrder(classes *Dict) ([]string, error) {
	names := make([]string, classes.Len())
	told := make([]bool, len(names))
	for _, it := range classes.Items() {
		name, named := it.Key.(string)
		at, numbered := it.Value.(int64)
		if !named || !numbered || at < 0 || at >= int64(len(names)) || told[at] {
			return nil, fmt.Errorf("%s: %v: %v: want %d names with the numbers from 0 to %d, each once", classesKey, it.Key, it.Value, len(names), len(names)-1)
		}
		names[at], told[at] = name, true
	}
	return names, nil
}

// finite reads a number, or a tensor of one.
func finite(v Value) (float64, bool) {
	x := math.NaN()
	switch v := v.(type) {
	case float64:
		x = v
	case int64:
		x = float64(v)
	case *Tensor:
		if all := elements(v); len(all) == 1 {
			x = all[0]
		}
	}
	return x, !math.IsNaN(x) && !math.IsInf(x, 0)
}

// numbers reads a list or tensor of finite numbers; nil where there is none.
func numbers(d *Dict, key string) (out []float64) {
	switch v, _ := d.Get(key); v := v.(type) {
	case *List:
		for _, it := range v.Items {
			x, ok := finite(it)
			if !ok {
				return nil
			}
			out = append(out, x)
		}
	case *Tensor:
		out = elements(v)
	}
	return out
}

// elements of a small tensor of floating point.
func elements(t *Tensor) []float64 {
	if t.check() != nil || t.Numel() > 1<<10 {
		return nil
	}
	out := make([]float64, 0, t.Numel())
	if t.DType == F64 {
		for i := range t.Numel() {
			out = append(out, float64At(t.Data, i))
		}
		return out
	}
	single, err := t.Float32s()
	if err != nil {
		return nil
	}
	for _, x := range single {
		out = append(out, float64(x))
	}
	return out
}

// dict is the model file's dictionary around a state. It holds nothing that the reader of weights_only=True
// refuses, the first one's of PyTorch 1.13 included: that knows no floating-point numbers, so they are tensors.
func (m Model) dict(state *Dict) *Dict {
	d := NewDict().Set(stateKey, state)
	if m.Arch != "" {
		d.Set(archKey, m.Arch)
	}
	if m.Classes != nil {
		classes := NewDict()
		for i, name := range m.Classes {
			classes.Set(name, i)
		}
		d.Set(classesKey, classes).Set(countKey, len(m.Classes))
	}
	if m.ImageSize > 0 {
		d.Set(sizeKey, m.ImageSize)
	}
	if m.Mean != nil {
		n := int64(len(m.Mean))
		d.Set(normKey, NewDict().Set(meanKey, NewF64(m.Mean, n)).Set(stdKey, NewF64(m.Std, n)))
	}
	if m.Epoch > 0 {
		d.Set(epochKey, m.Epoch)
	}
	if m.BestValLoss != nil {
		d.Set(lossKey, NewF64([]float64{*m.BestValLoss}))
	}
	if m.Config != "" {
		d.Set(configKey, m.Config)
	}
	return d
}

// Metadata is the same as the words of a safetensors file: JSON where a value is more than a word.
func (m Model) Metadata() map[string]string {
	words := map[string]string{FormatKey: "pt"}
	put := func(key string, v any, there bool) {
		if there {
			b, _ := json.Marshal(v) // whole and finite numbers cannot fail
			words[key] = string(b)
		}
	}
	if m.Arch != "" {
		words[archKey] = m.Arch
	}
	if m.Config != "" {
		words[configKey] = m.Config
	}
	put(countKey, len(m.Classes), m.Classes != nil)
	put(sizeKey, m.ImageSize, m.ImageSize > 0)
	put(meanKey, m.Mean, m.Mean != nil)
	put(stdKey, m.Std, m.Mean != nil)
	put(epochKey, m.Epoch, m.Epoch > 0)
	put(lossKey, m.BestValLoss, m.BestValLoss != nil)
	if m.Classes != nil {
		b := []byte{'{'}
		for i, name := range m.Classes {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(append(appendJSON(b, name), ':'), int64(i), 10)
		}
		words[classesKey] = string(append(b, '}'))
	}
	return words
}

func fromMetadata(words map[string]string) (m Model, used []string, err error) {
	take := func(key string, v any) bool {
		text, ok := words[key]
		if !ok || len(text) > maxMetadata || json.Unmarshal([]byte(text), v) != nil {
			return false
		}
		used = append(used, key)
		return true
	}
	if m.Arch = words[archKey]; m.Arch != "" {
		used = append(used, archKey)
	}
	if text, ok := words[classesKey]; ok {
		if m.Classes, err = readClasses(text); err != nil {
			return m, nil, err
		}
		used = append(used, classesKey)
	}
	var n int
	if take(countKey, &n) && m.Classes != nil && n != len(m.Classes) {
		return m, nil, fmt.Errorf("%s is %d, %s has %d", countKey, n, classesKey, len(m.Classes))
	}
	if !take(sizeKey, &m.ImageSize) || m.ImageSize < 0 {
		m.ImageSize = 0
	}
	if !take(epochKey, &m.Epoch) || m.Epoch < 0 {
		m.Epoch = 0
	}
	if !take(meanKey, &m.Mean) || !take(stdKey, &m.Std) {
		m.Mean, m.Std = nil, nil
	}
	take(lossKey, &m.BestValLoss)
	if c := words[configKey]; isObject(c) {
		m.Config, used = c, append(used, configKey)
	}
	return m, used, nil
}

// readClasses reads class_to_idx token by token: a name that stands twice is no good one.
func readClasses(text string) ([]string, error) {
	fail := fmt.Errorf("metadata %s is not a JSON object of names with whole numbers", classesKey)
	d := json.NewDecoder(strings.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fail
	}
	classes := NewDict()
	for d.More() {
		name, err := d.Token()
		var index int64
		if err != nil || d.Decode(&index) != nil {
			return nil, fail
		}
		classes.Set(name, index)
	}
	if _, err := d.Token(); err != nil {
		return nil, fail
	}
	return inOrder(classes)
}

// appendValue writes what has a form in JSON: no tensors, no bytes, no number that is not finite.
func appendValue(b []byte, v Value, depth int) ([]byte, error) {
	if depth > maxDepth || len(b) > maxPickle {
		return nil, errors.New("too much for JSON")
	}
	list := func(items []Value) (_ []byte, err error) {
		b = append(b, '[')
		for i, it := range items {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, it, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case *big.Int:
		return v.Append(b, 10), nil
	case float64:
		if _, ok := finite(v); !ok {
			return nil, fmt.Errorf("%v has no form in JSON", v)
		}
		return strconv.AppendFloat(b, v, 'g', -1, 64), nil
	case string:
		return appendJSON(b, v), nil
	case *List:
		return list(v.Items)
	case *Tuple:
		return list(v.Items)
	case *Dict:
		b = append(b, '{')
		for i, it := range v.Items() {
			key, ok := it.Key.(string)
			if !ok {
				return nil, fmt.Errorf("key %v has no form in JSON", it.Key)
			}
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendValue(append(appendJSON(b, key), ':'), it.Value, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("a %s has no form in JSON", kindOf(v))
}
