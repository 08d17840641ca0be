package handover_test

import (
	"bytes"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"atelier/common/trial"
	"atelier/worker/trainer/train/handover"
)

var tail = handover.Tail{Verdict: handover.Pause, Done: true, Reported: 3, Kept: 2, Rate: 812.5, Seconds: 1.25,
	Sums: []handover.Sums{{1.5, 3, 8}, {math.Inf(1), 0, 8}}}

func TestTailsAreRead(t *testing.T) {
	got, err := handover.DecodeTail(tail.Append(nil), 2)
	if err != nil || !reflect.DeepEqual(got, tail) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"cut off":         tail.Append(nil)[:70],
		"of another step": handover.Tail{}.Append(nil),
		"verdict":         append([]byte{9}, tail.Append(nil)[1:]...),
		"rate":            handover.Tail{Rate: math.NaN(), Sums: tail.Sums}.Append(nil),
		"epoch":           handover.Tail{Kept: -1, Sums: tail.Sums}.Append(nil),
	} {
		if got, err := handover.DecodeTail(b, 2); err == nil {
			t.Errorf("%s: taken as %+v", name, got)
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add(tail.Append(nil), 2)
	f.Add(handover.Tail{}.Append(nil), 0)
	f.Fuzz(func(t *testing.T, b []byte, sums int) {
		if sums < 0 || sums > 1<<10 {
			return
		}
		got, err := handover.DecodeTail(b, sums)
		if err == nil && !bytes.Equal(got.Append(nil), b) {
			t.Errorf("%+v is written as something else than it was read from", got)
		}
	})
}

var header = handover.Header{
	At: handover.Position{Step: 41, Epoch: 3, Update: 7, Train: handover.Sums{math.Pi, 2, 3}, LR: 0.1, Validation: []handover.Sums{{1. / 3, 1, 2}},
		Last: handover.Progress{Epoch: 2, Best: 0.7, BestEpoch: 1, BestLoss: math.Sqrt(0.1)}},
	Counters: []int64{7, 8}, Steps: 34, Averages: 34, Scale: 65536, Good: 3,
	Reports: []handover.Report{{Epoch: 2, Metrics: trial.Metrics{{Name: "val_loss", Value: 0.7}}, Seconds: 2}},
	Kept:    []handover.Kept{{Progress: handover.Progress{Epoch: 2, BestLoss: math.Inf(1)}, Metrics: trial.Metrics{}, Bytes: 5}},
}

func written(t testing.TB, h handover.Header, tensors []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := handover.NewWriter(&b, h)
	if err == nil {
		_, err = w.Write(tensors)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads a state of four bytes of tensors, and the files that its header tells of.
func read(r io.Reader) (h handover.Header, tensors []byte, err error) {
	in, h, err := handover.NewReader(r)
	if err != nil {
		return h, nil, err
	}
	tensors = make([]byte, 4)
	if err := in.Full(tensors); err != nil {
		return h, nil, err
	}
	for _, k := range h.Kept {
		file, err := in.File(k.Bytes)
		if err != nil {
			return h, nil, err
		}
		tensors = append(tensors, file...)
	}
	return h, tensors, in.Close()
}

// A state is read as it was written, to the last bit of its numbers, however it
// arrives; one that is cut off or changed anywhere is refused.
func TestStateIsReadAsWritten(t *testing.T) {
	b := written(t, header, []byte("abcdefghi"))
	h, tensors, err := read(iotest.OneByteReader(bytes.NewReader(b)))
	if err != nil || string(tensors) != "abcdefghi" || !reflect.DeepEqual(h, header) {
		t.Fatalf("%q %+v, %v", tensors, h, err)
	}
	for n := range b {
		if _, _, err := read(bytes.NewReader(b[:n])); err == nil {
			t.Errorf("%d of %d bytes were taken", n, len(b))
		}
		changed := bytes.Clone(b)
		changed[n] ^= 4
		if _, _, err := read(bytes.NewReader(changed)); err == nil {
			t.Errorf("byte %d was changed", n)
		}
	}
	for want, spoil := range map[string]func(h *handover.Header){
		"position":  func(h *handover.Header) { h.At.Epoch = 0 },
		"best 9":    func(h *handover.Header) { h.At.Last.BestEpoch = 9 },
		"optimiser": func(h *handover.Header) { h.Steps = -1 },
		"0 bytes":   func(h *handover.Header) { h.Kept = []handover.Kept{{Progress: handover.Progress{Epoch: 1}}} },
		"no reason": func(h *handover.Header) { h.At.Ended = &handover.Ended{} },
		"more than": func(h *handover.Header) { h.Kept = make([]handover.Kept, 9) },
	} {
		h := header
		spoil(&h)
		if _, _, err := read(bytes.NewReader(written(t, h, nil))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(written(f, header, []byte("abcdefghi")))
	f.Add(written(f, handover.Header{At: handover.Position{Epoch: 1}}, []byte("abcd")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, tensors, err := read(bytes.NewReader(b))
		if err == nil && (h.At.Epoch < 1 || len(tensors) < 4) {
			t.Errorf("%+v with %d bytes was taken", h, len(tensors))
		}
	})
}
