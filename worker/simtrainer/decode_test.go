package simtrainer

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzState(f *testing.F) {
	w := newWeights(1)
	b, _ := json.Marshal(state{Round: 20, Step: 17, Weights: w.bytes(), Ends: []epochEnd{{1, w.bytes()}, {2, w.bytes()}}})
	f.Add(b)
	f.Add([]byte(`{"step":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(bytes.NewReader(again)); err != nil {
			t.Fatalf("written but not read again: %v", err)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(encodeCheckpoint(3, 256, nil))
	f.Add(encodeCheckpoint(12, 256, newWeights(1)))
	f.Add([]byte(magic + "1\nstate "))
	f.Fuzz(func(t *testing.T, b []byte) {
		epoch, w, err := decodeCheckpoint(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, v, err := decodeCheckpoint(bytes.NewReader(encodeCheckpoint(epoch, 0, w)))
		if err != nil || again != epoch || (w == nil) != (v == nil) || w != nil && !bytes.Equal(w.bytes(), v.bytes()) {
			t.Fatalf("epoch %d, read again %d, %v", epoch, again, err)
		}
	})
}
