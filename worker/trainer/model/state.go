//go:build libtorch

package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// Stage is memory for tensors on their way into a file, kept from one
// checkpoint to the next.
type Stage struct {
	memory []byte
	used   int
}

// Reset makes the memory free again.
func (s *Stage) Reset() { s.used = 0 }

func (s *Stage) take(n int) []byte {
	if s.used+n > len(s.memory) {
		// What was handed out stays with its holders; the next round fits.
		s.memory, s.used = make([]byte, max(2*len(s.memory), n, 1<<20)), 0
	}
	b := s.memory[s.used : s.used+n : s.used+n]
	s.used += (n + 63) &^ 63
	return b
}

var dtypes = map[torchx.DType]checkpoint.DType{torchx.F32: checkpoint.F32, torchx.F64: checkpoint.F64, torchx.I64: checkpoint.I64,
	torchx.U8: checkpoint.U8, torchx.F16: checkpoint.F16, torchx.BF16Type: checkpoint.BF16}

// Tensor copies a tensor out of libtorch; the copy is good until Reset.
func (s *Stage) Tensor(name string, t torchx.Tensor) (checkpoint.Tensor, error) {
	i, err := torchx.Describe(t)
	if err != nil {
		return checkpoint.Tensor{}, fmt.Errorf("%s: %w", name, err)
	}
	d, ok := dtypes[i.DType]
	if !ok {
		return checkpoint.Tensor{}, fmt.Errorf("%s: element type %d cannot be stored", name, i.DType)
	}
	b := s.take(int(i.Len()) * i.DType.Size())
	if err := torchx.CopyOut(t, b); err != nil {
		return checkpoint.Tensor{}, fmt.Errorf("%s: %w", name, err)
	}
	return checkpoint.Tensor{Name: name, DType: d, Shape: i.Shape, Data: b}, nil
}

// Export copies the model's state out, in torchvision's order.
func (m *Model) Export(s *Stage) ([]checkpoint.Tensor, error) {
	out := make([]checkpoint.Tensor, 0, len(m.state))
	for _, e := range m.state {
		if e.Kind == nn.Counter {
			b := s.take(8)
			binary.LittleEndian.PutUint64(b, uint64(*e.Count))
			out = append(out, checkpoint.Tensor{Name: e.Name, DType: checkpoint.I64, Data: b})
			continue
		}
		t, err := s.Tensor(e.Name, e.Tensor)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// Load takes a whole state, whatever its order. Nothing is changed unless
// everything fits and every number is finite; the error names what is missing,
// unexpected or of another shape, or wraps a *checkpoint.NotFinite.
func (m *Model) Load(tensors []checkpoint.Tensor) error {
	given := make(map[string]*checkpoint.Tensor, len(tensors))
	for i := range tensors {
		given[tensors[i].Name] = &tensors[i]
	}
	var faults []error
	for _, e := range m.state {
		t := given[e.Name]
		delete(given, e.Name)
		if t == nil {
			// Files older than PyTorch 0.4.1 have no counters; nothing is computed from them.
			if e.Kind != nn.Counter {
				faults = append(faults, fmt.Errorf("%s is missing", e.Name))
			}
			continue
		}
		if err := fits(e, t); err != nil {
			faults = append(faults, err)
		}
	}
	for _, t := range tensors {
		if _, left := given[t.Name]; left {
			faults = append(faults, fmt.Errorf("%s is unexpected", t.Name))
		}
	}
	if len(faults) > 0 {
		if n := len(faults); n > 6 {
			faults = append(faults[:5], fmt.Errorf("and %d more", n-5))
		}
		return fmt.Errorf("state is not one of %s with %d classes: %w", m.Arch, m.Classes, errors.Join(faults...))
	}
	if err := checkpoint.Finite(tensors); err != nil {
		return fmt.Errorf("the weights are broken: %w", err)
	}
	for _, e := range m.state {
		i := slices.IndexFunc(tensors, func(t checkpoint.Tensor) bool { return t.Name == e.Name })
		if i < 0 {
			continue
		}
		if e.Kind == nn.Counter {
			n, err := tensors[i].Int64s()
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
			}
			*e.Count = n[0]
		} else if err := Fill(e.Tensor, &tensors[i]); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	return nil
}

func fits(e nn.Entry, t *checkpoint.Tensor) error {
	if e.Kind == nn.Counter {
		if t.DType != checkpoint.I64 || t.Numel() != 1 {
			return fmt.Errorf("%s is a %v tensor of shape %v; want one int64", e.Name, t.DType, t.Shape)
		}
		return nil
	}
	i, err := torchx.Describe(e.Tensor)
	if err != nil {
		return err
	}
	if !slices.Equal(i.Shape, t.Shape) {
		return fmt.Errorf("%s has shape %v; want %v", e.Name, t.Shape, i.Shape)
	}
	switch t.DType {
	case checkpoint.F32, checkpoint.F64, checkpoint.F16, checkpoint.BF16:
		return nil
	}
	return fmt.Errorf("%s has %v numbers; want floating point", e.Name, t.DType)
}

// Fill writes a stored tensor into a float32 tensor of the same shape, in
// place.
func Fill(dst torchx.Tensor, src *checkpoint.Tensor) error {
	if src.DType == checkpoint.F32 {
		return torchx.Fill(dst, src.Data)
	}
	v, err := src.Float32s()
	if err != nil {
		return err
	}
	return torchx.Fill(dst, checkpoint.NewF32(v, src.Shape...).Data)
}
