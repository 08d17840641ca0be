// Package metadata is what inference keeps of each image: one JSON object a
// line (inference_metadata.jsonl), without the charts. Writing appends;
// reading streams, so that a file of any length is asked in constant memory.
//
//	f, err := os.Open("results/inference_metadata.jsonl")
//	stats, err := metadata.Query{Suspicious: true, Class: "Gothic"}.Each(f, func(r metadata.Record) error { ... })
package metadata

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Share is one class and the model's confidence in it, in [0, 1].
type Share struct {
	Class      string  `json:"class"`
	Confidence float64 `json:"confidence"`
}

// Quality is what the quality passes found. The three probabilities are those
// of the predicted class: on the image, on the image times the heat map, on
// the image times one minus it. Drop and Increase are per cent.
type Quality struct {
	Full          float64 `json:"confidence_full"`
	Only          float64 `json:"confidence_only"`
	Hidden        float64 `json:"confidence_hidden"`
	Drop          float64 `json:"confidence_drop"`
	Increase      float64 `json:"confidence_increase"`
	Concentration float64 `json:"concentration"` // Gini coefficient of the map: 0 even, towards 1 a point
	Coverage      float64 `json:"coverage"`      // share of pixels at half the map's height or more
}

// Record is one line.
type Record struct {
	Image      string   `json:"image_path"`
	True       string   `json:"true_class,omitempty"` // empty when unknown
	Predicted  string   `json:"predicted_class"`
	Confidence float64  `json:"confidence"`
	Top        []Share  `json:"top_k,omitempty"`
	Quality    *Quality `json:"quality_metrics,omitempty"`
	Suspicious bool     `json:"suspicious"`
	Flags      []string `json:"flags,omitempty"`        // why it is suspicious
	Heatmap    string   `json:"heatmap_path,omitempty"` // of the chart, below the output folder; empty when none was kept
	Map        *MapSize `json:"map_cells,omitempty"`    // of its Grad-CAM map; nil where none was made. A coarse one flags nothing
	Checkpoint string   `json:"checkpoint,omitempty"`
	Time       string   `json:"timestamp,omitempty"` // RFC 3339
}

// Writer appends records. Not safe for concurrent use.
type Writer struct {
	b   *bufio.Writer
	enc *json.Encoder
}

// NewWriter writes to w; call Flush at the end.
func NewWriter(w io.Writer) *Writer {
	b := bufio.NewWriter(w)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return &Writer{b, enc}
}

// Write adds a line. A figure that JSON cannot carry is an error that names the image.
func (w *Writer) Write(r Record) error {
	if err := w.enc.Encode(r); err != nil {
		return fmt.Errorf("metadata of %s: %w", r.Image, err)
	}
	return nil
}

// Flush hands what is buffered to the file.
func (w *Writer) Flush() error { return w.b.Flush() }

// Query chooses records; its conditions hold together, an empty one holds always.
type Query struct {
	Suspicious bool
	Below      float64 // confidence less than this; 0 = any
	Class      string  // predicted class, in any case
	Wrong      bool    // the true class is known and another
}

// Match reports whether a record is chosen.
func (q Query) Match(r Record) bool {
	return (!q.Suspicious || r.Suspicious) && (q.Below == 0 || r.Confidence < q.Below) &&
		(q.Class == "" || strings.EqualFold(q.Class, r.Predicted)) && (!q.Wrong || r.True != "" && r.True != r.Predicted)
}

// Stats says what a reading met.
type Stats struct {
	Lines   int64 // that hold a record
	Matched int64
	Bad     int64 // that do not, by far most often the last one of a run that was killed
	First   error // of the bad ones, with its line number

	// Classes are those that were predicted, chosen or not, in the order they were
	// met; MaxClasses at most.
	Classes []string
}

// MaxClasses is how many classes Stats names.
const MaxClasses = 200

const maxLine = 1 << 20

// Each calls f with every record chosen, in the file's order. Lines that are
// no records are counted and passed over. f's error ends the reading and comes
// back.
func (q Query) Each(in io.Reader, f func(Record) error) (Stats, error) {
	var s Stats
	r := bufio.NewReaderSize(in, 1<<16)
	var number int64
	bad := func(err error) {
		s.Bad++
		if s.First == nil {
			s.First = fmt.Errorf("line %d: %w", number, err)
		}
	}
	var buffer []byte
	for {
		number++
		line, long, err := readLine(r, buffer[:0])
		buffer = line
		if err != nil && !errors.Is(err, io.EOF) {
			return s, fmt.Errorf("read metadata, line %d: %w", number, err)
		}
		switch text := bytes.TrimSpace(line); {
		case long:
			bad(fmt.Errorf("longer than %d bytes", maxLine))
		case len(text) > 0:
			var record Record
			if e := json.Unmarshal(text, &record); e != nil {
				bad(e)
			} else if record.Image == "" && record.Predicted == "" {
				bad(errors.New("neither image_path nor predicted_class"))
			} else {
				s.Lines++
				if len(s.Classes) < MaxClasses && !slices.Contains(s.Classes, record.Predicted) {
					s.Classes = append(s.Classes, record.Predicted)
				}
				if q.Match(record) {
					s.Matched++
					if e := f(record); e != nil {
						return s, e
					}
				}
			}
		}
		if err != nil {
			return s, nil
		}
	}
}

// readLine reads up to a line's end into buffer; of a line that is too long it
// keeps nothing and says so.
func readLine(r *bufio.Reader, buffer []byte) (line []byte, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if !long {
			buffer = append(buffer, part...)
		}
		if len(buffer) > maxLine {
			buffer, long = buffer[:0], true
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return buffer, long, err
		}
	}
}
