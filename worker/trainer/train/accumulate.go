//go:build libtorch

package train

import (
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// shards adds a step's shards up. A nil one, of a training with one shard, does
// nothing: gradients and statistics are where they always were.
type shards struct {
	memory   *torchx.Buckets // where gradients and running statistics are added up; nothing is touched before apply
	counters []*int64        // batches that normalisations have seen
	batches  []int64         // their committed values, of a step that was begun
	begun    bool
}

// prepareShards makes what several shards need.
func (r *run) prepareShards() error {
	if r.settings.Shards == 1 {
		return nil
	}
	r.shards = &shards{}
	var statistics []torchx.Tensor
	for _, e := range r.model.State() {
		switch {
		case r.settings.FreezeFeatures: // they stay as they are
		case e.Kind == nn.Buffer:
			statistics = append(statistics, e.Tensor)
		case e.Kind == nn.Counter:
			r.shards.counters = append(r.shards.counters, e.Count)
		}
	}
	var err error
	r.shards.memory, err = torchx.NewBuckets(r.model.Weights(), statistics, 0)
	return err
}

// begin is a step in which the shards from up to to, of those present, are added
// here.
func (s *shards) begin(from, to, present int) error {
	if s == nil {
		return nil
	}
	s.batches = s.batches[:0]
	for _, c := range s.counters {
		s.batches = append(s.batches, *c)
	}
	s.begun = true
	return s.memory.Begin(from, to, present)
}

// arm is called before a shard's last piece: backward hands its gradients over.
// Running statistics become the mean over the shards present.
func (s *shards) arm(shard, present int) error {
	if s == nil {
		return nil
	}
	return s.memory.Arm(shard, 1/float64(present))
}

// added ends a shard.
func (s *shards) added() error {
	if s == nil {
		return nil
	}
	s.uncount()
	return s.memory.Done()
}

// uncount takes back what the forward passes of a step have counted.
func (s *shards) uncount() {
	for i, c := range s.counters {
		*c = s.batches[i]
	}
}

// apply commits a step over the batches from up to to: its gradients are the
// parameters', its statistics the model's.
func (s *shards) apply(from, to int) error {
	if s == nil {
		return nil
	}
	for i, c := range s.counters {
		*c = s.batches[i] + int64(to-from)
	}
	s.begun = false
	return s.memory.Apply()
}

// drop leaves a step out that was begun: everything is as it was before.
func (s *shards) drop() error {
	if s == nil || !s.begun {
		return nil
	}
	s.begun = false
	s.uncount()
	return s.memory.Drop()
}

func (s *shards) free() {
	if s != nil {
		s.memory.Free()
	}
}
