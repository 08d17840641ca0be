//go:build libtorch

package train

import (
	"fmt"
	"io"
	"math"

	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// state is the whole of a run, which a member hands over to one that joins, or to
// one that is a step behind.
type state struct{ r *run }

// tensors are what the state has of them, in order: the model's, the optimiser's.
// The average's are the model's once more, while it is shown.
func (s state) tensors() (model, optimizer []torchx.Tensor) {
	for _, e := range s.r.model.State() {
		if e.Kind != nn.Counter {
			model = append(model, e.Tensor)
		}
	}
	for _, slot := range s.r.opt.State() {
		optimizer = append(optimizer, slot.Tensors...)
	}
	return model, optimizer
}

// each calls f with every tensor of the state, in order.
func (s state) each(f func(t torchx.Tensor) error) error {
	own, optimizer := s.tensors()
	all := func(list []torchx.Tensor) error {
		for _, t := range list {
			if err := f(t); err != nil {
				return err
			}
		}
		return nil
	}
	if err := all(own); err != nil {
		return err
	}
	if a := s.r.average; a != nil {
		if err := a.Show(func() error { return all(own) }); err != nil {
			return err
		}
	}
	return all(optimizer)
}

// counters are the counts of batches that normalisations have seen.
func (s state) counters() (list []*int64) {
	for _, e := range s.r.model.State() {
		if e.Kind == nn.Counter {
			list = append(list, e.Count)
		}
	}
	return list
}

// Write writes the state after the last committed step.
func (s state) Write(w io.Writer) error {
	r := s.r
	h := handover.Header{At: r.at, Steps: r.opt.Steps, Reports: r.out.reports}
	for _, c := range s.counters() {
		h.Counters = append(h.Counters, *c)
	}
	if r.average != nil {
		h.Averages = r.average.Updates
	}
	if r.scaler != nil {
		h.Scale, h.Good = r.scaler.Scale, r.scaler.Good
	}
	for _, k := range r.out.states {
		var n counter
		if err := k.write(&n); err != nil {
			return err
		}
		h.Kept = append(h.Kept, handover.Kept{Progress: k.progress, Metrics: k.metrics, Bytes: int64(n)})
	}
	out, err := handover.NewWriter(w, h)
	if err != nil {
		return err
	}
	var stage model.Stage
	if err := s.each(func(t torchx.Tensor) error {
		stage.Reset()
		copied, err := stage.Tensor("state", t)
		if err != nil {
			return err
		}
		_, err = out.Write(copied.Data)
		return err
	}); err != nil {
		return err
	}
	for _, k := range r.out.states {
		if err := k.write(out); err != nil {
			return err
		}
	}
	return out.Close()
}

// counter counts what is written.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// Read takes a state in the place of the run's own. After an error it has none,
// until it has read another.
func (s state) Read(from io.Reader) error {
	r := s.r
	if err := r.shards.drop(); err != nil { // a step that was begun does not count
		return err
	}
	in, h, err := handover.NewReader(from)
	if err != nil {
		return err
	}
	counters := s.counters()
	if len(h.Counters) != len(counters) {
		return fmt.Errorf("state: it has %d counters of batches, the model %d", len(h.Counters), len(counters))
	}
	var buffer []byte
	if err := s.each(func(t torchx.Tensor) error {
		i, err := torchx.Describe(t)
		if err != nil {
			return err
		}
		n := int(i.Len()) * i.DType.Size()
		if n > cap(buffer) {
			buffer = make([]byte, n)
		}
		if err := in.Full(buffer[:n]); err != nil {
			return err
		}
		return torchx.Fill(t, buffer[:n])
	}); err != nil {
		return err
	}
	var states []*kept
	for _, k := range h.Kept {
		file, err := in.File(k.Bytes)
		if err != nil {
			return err
		}
		states = append(states, &kept{progress: k.Progress, metrics: k.Metrics, file: file})
	}
	if err := in.Close(); err != nil {
		return err
	}
	for i, c := range counters {
		*c = h.Counters[i]
	}
	r.opt.Steps = h.Steps
	if r.average != nil {
		r.average.Updates = h.Averages
	}
	if r.scaler != nil {
		r.scaler.Scale, r.scaler.Good = h.Scale, h.Good
	}
	r.at = h.At
	r.out.reports, r.out.told = h.Reports, 0
	r.forget(math.MaxInt)
	r.out.states = states
	r.work.close() // of another position
	r.work = nil
	return nil
}
