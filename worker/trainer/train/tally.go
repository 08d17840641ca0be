//go:build libtorch

package train

import (
	"encoding/binary"
	"math"

	"atelier/worker/trainer/torchx"
)

// tally sums loss and correct answers on the device, so that counting a batch
// waits for nothing.
type tally struct{ counts torchx.Tensor }

// score is a tally read: means over the images.
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

// read ends the tally.
func (t *tally) read() (score, error) {
	defer t.free()
	return t.peek()
}

// peek tells the means so far.
func (t *tally) peek() (score, error) {
	b, err := torchx.Bytes(t.counts)
	if err != nil {
		return score{}, err
	}
	at := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])) }
	return score{loss: at(0) / at(2), accuracy: at(1) / at(2)}, nil
}

// free gives the counters back.
func (t *tally) free() { torchx.Free(t.counts) }
