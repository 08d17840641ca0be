package handover

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"atelier/common/trial"
	"atelier/worker/trainer/optim/schedule"
)

// Position is how far a run has come: with the tensors of the model, the
// optimiser and the average all that has to be known to continue.
type Position struct {
	Step       int64   // rounds that are committed: updates, rounds of validation, rounds at the end
	Epoch      int     // under way, from 1
	Update     int     // updates of it that are done
	Train      Sums    // of those
	LR         float64 // of the last of them
	Validation []Sums  // of its validation's batches that are measured, in order
	Rate       float64 // training images a second in this epoch
	Seconds    float64 // that it took
	Last       Progress
	Ended      *Ended // not nil: what is not yet safe is reported, then the run ends
}

// Progress is what a run knows of itself between epochs, apart from tensors.
type Progress struct {
	Epoch     int // last complete one
	Best      float64
	BestEpoch int // 0 = none yet
	BestLoss  float64
	Plateau   schedule.State
}

// plainProgress is Progress as JSON has it, but for a loss that may be infinite:
// before the first epoch.
type plainProgress struct {
	Epoch     int
	Best      float64
	BestEpoch int
	BestLoss  string
	Plateau   schedule.State
}

// MarshalJSON writes every float64 exactly.
func (p Progress) MarshalJSON() ([]byte, error) {
	return json.Marshal(plainProgress{p.Epoch, p.Best, p.BestEpoch, strconv.FormatFloat(p.BestLoss, 'g', -1, 64), p.Plateau})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Progress) UnmarshalJSON(b []byte) error {
	var plain plainProgress
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	loss, err := strconv.ParseFloat(plain.BestLoss, 64)
	*p = Progress{plain.Epoch, plain.Best, plain.BestEpoch, loss, plain.Plateau}
	return err
}

// Better reports whether value beats the best objective so far.
func (p *Progress) Better(value float64, maximize bool) bool {
	if math.IsNaN(value) {
		return false
	}
	return p.BestEpoch == 0 || (maximize && value > p.Best) || (!maximize && value < p.Best)
}

// Ended is the end of a run that went well, before its last epoch or behind it.
type Ended struct{ Reason, Message string }

func (e *Ended) Error() string { return e.Message }

// Report is an epoch's report, until it is safe.
type Report struct {
	Epoch   int
	Metrics trial.Metrics
	Seconds float64
}

// Kept is an epoch's state whose checkpoint is not yet safe; the file's bytes come
// behind the tensors.
type Kept struct {
	Progress Progress
	Metrics  trial.Metrics
	Bytes    int64
}

// Header is all of a state but tensors.
type Header struct {
	At       Position
	Counters []int64 // batches that normalisations have seen
	Steps    int64   // of the optimiser
	Averages int64   // updates of the averaged weights
	Scale    float64 // of losses; 0: they are not scaled
	Good     int64   // updates since that changed
	Reports  []Report
	Kept     []Kept
}

// Limits of what another member may send.
const (
	maxHeader = 16 << 20
	maxKept   = 3       // states on their way to being safe: the newest, the best, one between
	maxFile   = 1 << 36 // bytes of a checkpoint
)

func (h *Header) check() error {
	p := &h.At
	switch {
	case p.Step < 0 || p.Epoch < 1 || p.Epoch > math.MaxInt32 || p.Update < 0 || p.Last.Epoch < 0 || p.Last.BestEpoch < 0 || p.Last.BestEpoch > p.Last.Epoch:
		return fmt.Errorf("its position is step %d, epoch %d, update %d, after epoch %d (best %d)", p.Step, p.Epoch, p.Update, p.Last.Epoch, p.Last.BestEpoch)
	case h.Steps < 0 || h.Averages < 0 || h.Scale < 0 || h.Good < 0:
		return fmt.Errorf("it has %d steps of the optimiser, %d of the average, a loss scale of %g", h.Steps, h.Averages, h.Scale)
	case p.Ended != nil && p.Ended.Reason == "":
		return errors.New("it has ended for no reason")
	case len(h.Kept) > maxKept:
		return fmt.Errorf("it has %d states that are not safe, more than %d", len(h.Kept), maxKept)
	}
	for _, k := range h.Kept {
		if k.Bytes < 1 || k.Bytes > maxFile || k.Progress.Epoch < 1 {
			return fmt.Errorf("it has a checkpoint of epoch %d with %d bytes", k.Progress.Epoch, k.Bytes)
		}
	}
	return nil
}

// A stream is magic, length of the header and header (JSON), tensors and files, each
// of a length that both sides know, and a CRC-32C over all of it.
var magic = [8]byte{'a', 't', 's', 't', 'a', 't', 'e', '1'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Writer writes a state.
type Writer struct {
	w   io.Writer
	sum hash.Hash32
}

// NewWriter begins a state.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if len(text) > maxHeader {
		return nil, fmt.Errorf("state: a header of %d bytes, more than %d", len(text), maxHeader)
	}
	out := &Writer{w, crc32.New(castagnoli)}
	head := append(binary.LittleEndian.AppendUint32(magic[:len(magic):len(magic)], uint32(len(text))), text...)
	_, err = out.Write(head)
	return out, err
}

// Write writes what follows.
func (w *Writer) Write(b []byte) (int, error) {
	w.sum.Write(b)
	return w.w.Write(b)
}

// Close ends the state.
func (w *Writer) Close() error {
	_, err := w.w.Write(binary.LittleEndian.AppendUint32(nil, w.sum.Sum32()))
	return err
}

// Reader reads a state.
type Reader struct {
	r   io.Reader
	sum hash.Hash32
}

// NewReader reads the header of a state and checks it.
func NewReader(r io.Reader) (*Reader, Header, error) {
	var h Header
	in := &Reader{r, crc32.New(castagnoli)}
	var head [12]byte
	if err := in.Full(head[:]); err != nil {
		return nil, h, err
	}
	n := binary.LittleEndian.Uint32(head[8:])
	if !bytes.Equal(head[:8], magic[:]) || n > maxHeader {
		return nil, h, errors.New("state: it begins with something else")
	}
	var text bytes.Buffer // grows as bytes come, whatever length was claimed
	if _, err := io.CopyN(&text, r, int64(n)); err != nil {
		return nil, h, fmt.Errorf("state: header: %w", unexpected(err))
	}
	in.sum.Write(text.Bytes())
	if err := json.Unmarshal(text.Bytes(), &h); err != nil {
		return nil, h, fmt.Errorf("state: header: %w", err)
	}
	if err := h.check(); err != nil {
		return nil, h, fmt.Errorf("state: %w", err)
	}
	return in, h, nil
}

// Full fills b.
func (r *Reader) Full(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		return fmt.Errorf("state: %w", unexpected(err))
	}
	r.sum.Write(b)
	return nil
}

// File reads so many bytes into memory that grows as they come.
func (r *Reader) File(n int64) ([]byte, error) {
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r.r, n); err != nil {
		return nil, fmt.Errorf("state: %w", unexpected(err))
	}
	r.sum.Write(b.Bytes())
	return b.Bytes(), nil
}

// Close compares the checksum; a state that it is not of must not be used.
func (r *Reader) Close() error {
	var b [4]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return fmt.Errorf("state: %w", unexpected(err))
	}
	if got, want := r.sum.Sum32(), binary.LittleEndian.Uint32(b[:]); got != want {
		return fmt.Errorf("state: its checksum is %08x, not %08x", got, want)
	}
	return nil
}

// unexpected is the error of a stream that ends too soon.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
