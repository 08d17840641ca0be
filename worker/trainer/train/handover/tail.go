// Package handover is what the members of a group pass to each other of a
// training: a tail with each step, and the whole state to one that joins in its
// midst. It knows no libtorch and no links; what comes from another process is
// checked here.
package handover

import (
	"encoding/binary"
	"fmt"
	"math"

	"atelier/common/trainerproto"
)

// Sums are what is counted of some images: losses, right answers, images.
type Sums [3]float64

// Add counts others in.
func (s *Sums) Add(other Sums) {
	for i := range s {
		s[i] += other[i]
	}
}

// Tail is what a member adds to a step, or to a round without one.
type Tail struct {
	Verdict  Verdict
	Done     bool    // of the member that reports, after the last step: all is safe, the run may end
	Reported int     // last epoch whose report is safe, as its agent knows
	Kept     int     // last epoch whose checkpoint is safe
	Rate     float64 // training images a second of its epoch so far
	Seconds  float64 // since the epoch began
	Sums     []Sums  // of its pieces, or of its validation batches, in order
}

// Verdict is what a member's agent has asked of the run.
type Verdict uint8

// Verdicts, from the weakest.
const (
	Continue Verdict = iota
	Pause
	Stop
)

// VerdictOf is the verdict of a control line; what does not concern all members
// is none.
func VerdictOf(word string) Verdict {
	switch word {
	case "stop":
		return Stop
	case "pause":
		return Pause
	}
	return Continue
}

func (v Verdict) String() string { return [...]string{"continue", "pause", "stop"}[v] }

// Reason is that of a done event.
func (v Verdict) Reason() string {
	return [...]string{"", trainerproto.DonePaused, trainerproto.DoneStopped}[v]
}

const tailHead = 2 + 2*4 + 2*8

// Append writes the tail.
func (t Tail) Append(b []byte) []byte {
	done := byte(0)
	if t.Done {
		done = 1
	}
	b = append(b, byte(t.Verdict), done)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Reported))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Kept))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(t.Rate))
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(t.Seconds))
	for _, s := range t.Sums {
		for _, v := range s {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	return b
}

// DecodeTail reads a tail that has so many sums.
func DecodeTail(b []byte, sums int) (t Tail, err error) {
	if len(b) != tailHead+24*sums {
		return t, fmt.Errorf("a tail of %d bytes in place of %d with %d sums", len(b), tailHead+24*sums, sums)
	}
	if b[0] > byte(Stop) || b[1] > 1 {
		return t, fmt.Errorf("a tail with the verdict %d and the flag %d", b[0], b[1])
	}
	t.Verdict, t.Done = Verdict(b[0]), b[1] == 1
	number := func(at int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b[at:])) }
	t.Reported, t.Kept = int(binary.LittleEndian.Uint32(b[2:])), int(binary.LittleEndian.Uint32(b[6:]))
	if t.Reported > math.MaxInt32 || t.Kept > math.MaxInt32 {
		return t, fmt.Errorf("a tail with epochs %d and %d", t.Reported, t.Kept)
	}
	if t.Rate, t.Seconds = number(10), number(18); !plausible(t.Rate) || !plausible(t.Seconds) {
		return t, fmt.Errorf("a tail with %g images a second in %g s", t.Rate, t.Seconds)
	}
	for i := range sums {
		var s Sums
		for k := range s {
			s[k] = number(tailHead + 24*i + 8*k) // a loss need not be finite: then the run diverged
		}
		t.Sums = append(t.Sums, s)
	}
	return t, nil
}

// plausible is a measurement.
func plausible(x float64) bool { return x >= 0 && x < 1e18 }
