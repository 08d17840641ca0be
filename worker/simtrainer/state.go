package simtrainer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// What several shards add to a training: a few weights that are moved by the sums
// of the shards' gradients, along the same tree and links as those of a real one.
// Learning curves do not depend on them.
const (
	nWeights   = 16
	epochSteps = 8 // of an epoch, so that members come and go in the middle of one
)

type weights [nWeights]float32

func newWeights(seed uint64) *weights {
	w := new(weights)
	for i := range w {
		w[i] = float32(unit(seed, "weight", fmt.Sprint(i)))
	}
	return w
}

// gradient of a shard in a step. The terms differ in size, so that sums in another
// order are other sums.
func (w *weights) gradient(step int64, shard int, out []float32) {
	for i, v := range w {
		out[i] = v*float32(shard+1)*0.01 + float32(math.Sin(float64(step)*1.3+float64(shard)*2.1+float64(i)*0.37))
	}
}

func (w *weights) move(sum []float32) {
	for i := range w {
		w[i] -= 0.01 * sum[i]
	}
}

func (w *weights) bytes() (b []byte) {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func (w *weights) set(b []byte) error {
	if len(b) != 4*nWeights {
		return fmt.Errorf("weights of %d bytes, not %d", len(b), 4*nWeights)
	}
	for i := range w {
		w[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return nil
}

func (w *weights) hash() string {
	sum := sha256.Sum256(w.bytes())
	return hex.EncodeToString(sum[:])
}

// sums are those of a member's greatest whole nodes of the tree over so many
// shards, in the order of their leaves; all of them is one.
func (w *weights) sums(step int64, from, to, shards int) (list [][]float32) {
	var sum func(level, i int) []float32
	sum = func(level, i int) []float32 {
		if level == 0 {
			out := make([]float32, nWeights)
			w.gradient(step, i, out)
			return out
		}
		left := sum(level-1, 2*i)
		if (2*i+1)<<(level-1) < shards {
			for k, v := range sum(level-1, 2*i+1) {
				left[k] += v
			}
		}
		return left
	}
	var find func(level, i int)
	find = func(level, i int) {
		lo, hi := i<<level, min((i+1)<<level, shards)
		switch {
		case lo >= to || hi <= from:
		case lo >= from && hi <= to:
			list = append(list, sum(level, i))
		default:
			find(level-1, 2*i)
			find(level-1, 2*i+1)
		}
	}
	find(bits.Len(uint(shards-1)), 0)
	return list
}

// epochEnd is the state at the end of an epoch, of which a report or a checkpoint
// may have to be written again.
type epochEnd struct {
	Epoch   int    `json:"epoch"`
	Weights []byte `json:"weights"`
}

// state is what members of a group hand over.
type state struct {
	Round   int64      `json:"round"` // of the group: steps, and what follows the last one
	Step    int64      `json:"step"`
	Weights []byte     `json:"weights"`
	Ends    []epochEnd `json:"ends,omitempty"`
	Closing string     `json:"closing,omitempty"` // the reason of the done event that is to come
}

func (s *state) check() error {
	var w weights
	if s.Round < s.Step || s.Step < 0 {
		return fmt.Errorf("state of step %d, round %d", s.Step, s.Round)
	}
	last := 0
	for _, e := range s.Ends {
		if e.Epoch <= last || int64(e.Epoch) > s.Step/epochSteps {
			return fmt.Errorf("state of step %d with an end of epoch %d", s.Step, e.Epoch)
		}
		if err := w.set(e.Weights); err != nil {
			return err
		}
		last = e.Epoch
	}
	return w.set(s.Weights)
}

// mostState bounds a state that is taken, in bytes.
const mostState = 64 << 20

func decodeState(r io.Reader) (*state, error) {
	b, err := io.ReadAll(io.LimitReader(r, mostState+1))
	if err != nil {
		return nil, err
	}
	if len(b) > mostState {
		return nil, errors.New("a state of more than 64 MiB")
	}
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return s, s.check()
}
