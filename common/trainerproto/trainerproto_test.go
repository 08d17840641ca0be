package trainerproto_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"atelier/common/trainerproto"
)

func TestEventsRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	w := trainerproto.NewWriter(&buf)
	sent := []trainerproto.Event{
		{Kind: "hello", Protocol: 1, Name: "sim"},
		{Kind: "epoch", Epoch: 2, Metrics: trainerproto.Metrics{{Name: "val_loss", Value: math.NaN()}, {Name: "acc", Value: 0.1}, {Name: "up", Value: math.Inf(1)}, {Name: "down", Value: math.Inf(-1)}}},
		{Kind: "done", Reason: "finished"},
	}
	for _, e := range sent {
		if err := w.Send(e); err != nil {
			t.Fatal(err)
		}
	}
	r := trainerproto.NewReader(&buf)
	for _, want := range sent {
		got, err := r.Event()
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != want.Kind || len(got.Metrics) != len(want.Metrics) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		for i, m := range want.Metrics {
			g := got.Metrics[i]
			if g.Name != m.Name || (g.Value != m.Value && !(math.IsNaN(g.Value) && math.IsNaN(m.Value))) {
				t.Errorf("metric %d: got %+v, want %+v", i, g, m)
			}
		}
	}
	if _, err := r.Event(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last event: %v, want EOF", err)
	}
}

func TestBadEvents(t *testing.T) {
	for name, line := range map[string]string{
		"unknown kind":    `{"event":"boom"}`,
		"epoch zero":      `{"event":"epoch","epoch":0}`,
		"no path":         `{"event":"checkpoint","epoch":1}`,
		"metric text":     `{"event":"epoch","epoch":1,"metrics":{"a":"high"}}`,
		"metric null":     `{"event":"epoch","epoch":1,"metrics":{"a":null}}`,
		"repeated metric": `{"event":"epoch","epoch":1,"metrics":{"a":1,"a":2}}`,
		"not json":        `epoch 1`,
		"too long":        strings.Repeat("x", trainerproto.MaxLine+1),
	} {
		if e, err := trainerproto.NewReader(strings.NewReader(line + "\n")).Event(); err == nil {
			t.Errorf("%s: read %+v without an error", name, e)
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add([]byte(`{"event":"epoch","epoch":1,"metrics":{"a":1,"b":"NaN"}}`))
	f.Add([]byte(`{"event":"checkpoint","epoch":1,"path":"/x","size":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := trainerproto.NewReader(bytes.NewReader(data))
		for {
			e, err := r.Event()
			if err != nil {
				return
			}
			var out bytes.Buffer
			if err := trainerproto.NewWriter(&out).Send(e); err != nil {
				t.Fatalf("read but cannot be written: %v", err)
			}
			if _, err := trainerproto.NewReader(&out).Event(); err != nil {
				t.Fatalf("written but cannot be read again: %v", err)
			}
		}
	})
}
