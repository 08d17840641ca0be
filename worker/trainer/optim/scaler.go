//go:build libtorch

package optim

import "atelier/worker/trainer/torchx"

// Scaler lifts losses so that gradients in float16 do not vanish, with the
// rules and constants of torch.cuda.amp.GradScaler: halve the scale and skip
// the update when a gradient is not finite, double it after growAfter good
// updates.
type Scaler struct {
	Scale float64 // factor of losses
	Good  int64   // updates since the scale changed
}

const (
	firstScale = 65536
	growAfter  = 2000
)

// NewScaler starts as PyTorch's does.
func NewScaler() *Scaler { return &Scaler{Scale: firstScale} }

// Unscale takes the scale off the optimiser's gradients and reports whether to
// step; if not, the gradients are dropped. It waits for a GPU.
func (s *Scaler) Unscale(o *Optimizer) (step bool, err error) {
	finite, err := torchx.UnscaleGrads(o.params, 1/s.Scale)
	if err != nil {
		return false, err
	}
	if !finite {
		s.Scale, s.Good = s.Scale/2, 0
		return false, o.Drop()
	}
	if s.Good++; s.Good == growAfter {
		s.Scale, s.Good = s.Scale*2, 0
	}
	return true, nil
}

// Lost reports whether no scale helps any more: the gradients are not finite at
// all.
func (s *Scaler) Lost() bool { return s.Scale < 1e-4 }
