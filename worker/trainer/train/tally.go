//go:build libtorch

package train

import (
	"encoding/binary"
	"math"

	"atelier/worker/trainer/torchx"
	"atelier/worker/trainer/train/handover"
)

// tally sums loss and correct answers on the device, so that counting a batch
// waits for nothing.
type tally struct{ counts torchx.Tensor }

// sums are a tally read.
type sums = handover.Sums

// scoreOf is means over the images.
func scoreOf(s sums) score { return score{loss: s[0] / s[2], accuracy: s[1] / s[2]} }

// score is what sums come to.
type score struct{ loss, accuracy float64 }

// newTally counts from zero: sum of losses, right answers, images.
func (r *run) newTally() (*tally, error) {
	zero, err := torchx.FromBytes(make([]byte, 3*8), torchx.F64, []int64{3})
	if err != nil {
		return nil, err
	}
	if err := torchx.Move(zero, r.device, false); err != nil {
		torchx.Free(zero)
		return nil, err
	}
	return &tally{zero}, nil
}

// peek reads what was counted so far.
func (t *tally) peek() (s sums, err error) {
	b, err := torchx.Bytes(t.counts)
	if err != nil {
		return s, err
	}
	for i := range s {
		s[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return s, nil
}

// take is peek, and counts from zero again.
func (t *tally) take() (sums, error) {
	s, err := t.peek()
	if err != nil {
		return s, err
	}
	return s, torchx.Fill(t.counts, make([]byte, 8*len(s)))
}

// free gives the counters back.
func (t *tally) free() {
	if t != nil {
		torchx.Free(t.counts)
	}
}
