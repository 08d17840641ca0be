package metadata_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"atelier/common/metadata"
)

func record(i int) metadata.Record {
	r := metadata.Record{Image: fmt.Sprintf("test/gothic/%06d.jpg", i), Predicted: []string{"Gothic", "tudor", "colonial"}[i%3], Confidence: float64(i%100) / 100,
		Top: []metadata.Share{{Class: "Gothic", Confidence: 0.5}}, Quality: &metadata.Quality{Full: 0.5, Only: 0.2, Drop: 60}}
	if i%10 == 0 {
		r.Suspicious, r.Flags = true, []string{"low_concentration"}
	}
	if i%4 == 0 {
		r.True = "Gothic"
	}
	return r
}

func file(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := metadata.NewWriter(&b)
	for i := range n {
		if err := w.Write(record(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestConditionsHoldTogether(t *testing.T) {
	b := file(t, 600)
	for _, q := range []metadata.Query{{}, {Suspicious: true}, {Below: 0.3}, {Class: "gothic"}, {Wrong: true}, {Suspicious: true, Below: 0.7, Class: "GOTHIC"}, {Suspicious: true, Wrong: true, Class: "tudor", Below: 0.5}} {
		var got, want []metadata.Record
		s, err := q.Each(bytes.NewReader(b), func(r metadata.Record) error { got = append(got, r); return nil })
		if err != nil || s.Lines != 600 || s.Bad != 0 || int(s.Matched) != len(got) {
			t.Fatal(s, err)
		}
		met := map[string]bool{}
		for _, c := range s.Classes {
			met[c] = true
		}
		for i := range 600 {
			r := record(i)
			if !met[r.Predicted] || len(met) != len(s.Classes) {
				t.Fatalf("classes met: %v, without %s or one twice", s.Classes, r.Predicted)
			}
			if (!q.Suspicious || i%10 == 0) && (q.Below == 0 || float64(i%100)/100 < q.Below) && (q.Class == "" || strings.EqualFold(r.Predicted, q.Class)) &&
				(!q.Wrong || i%4 == 0 && r.Predicted != "Gothic") {
				want = append(want, r)
			}
		}
		if !reflect.DeepEqual(got, want) || len(want) == 0 {
			t.Errorf("%+v: %d records, want %d", q, len(got), len(want))
		}
	}
}

// A killed run leaves half a line; editors leave blank ones; nothing of it loses the rest.
func TestBadLinesAreCountedAndNamed(t *testing.T) {
	good := string(file(t, 3))
	lines := strings.SplitAfter(good, "\n")
	in := lines[0] + "\n" + "not json\n" + lines[1] + strings.Repeat("x", 3<<20) + "\n[1,2]\n{}\n" + lines[2] + lines[0][:40]
	n := 0
	s, err := metadata.Query{}.Each(strings.NewReader(in), func(metadata.Record) error { n++; return nil })
	if err != nil || n != 3 || s.Lines != 3 || s.Bad != 5 || s.First == nil || !strings.Contains(s.First.Error(), "line 3") {
		t.Errorf("%d records, %+v, %v", n, s, err)
	}
	stop := errors.New("enough")
	if s, err := (metadata.Query{}).Each(strings.NewReader(good), func(metadata.Record) error { return stop }); err != stop || s.Matched != 1 {
		t.Error(s, err)
	}
	if _, err := (metadata.Query{}).Each(io.MultiReader(strings.NewReader(good), broken{}), func(metadata.Record) error { return nil }); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Error(err)
	}
	if err := metadata.NewWriter(io.Discard).Write(metadata.Record{Image: "x.jpg", Confidence: math.NaN()}); err == nil || !strings.Contains(err.Error(), "x.jpg") {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("disk") }

// endless repeats a file.
type endless struct {
	of       []byte
	at, left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.of[e.at:])
	e.at += n
	if e.at == len(e.of) {
		e.at = 0
		e.left--
	}
	return n, nil
}

// A million rows leave no more memory in use than ten thousand.
func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a million rows")
	}
	b := file(t, 10_000)
	used := func(times int) (peak uint64) {
		var n int64
		_, err := metadata.Query{Suspicious: true}.Each(&endless{of: b, left: times}, func(metadata.Record) error {
			if n++; n%20_000 == 1 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
			return nil
		})
		if err != nil || n != int64(times)*1000 {
			t.Fatal(n, err)
		}
		return peak
	}
	small, large := used(1), used(100)
	t.Logf("in use: %d KiB at 10,000 rows, %d KiB at 1,000,000", small>>10, large>>10)
	if large > small+1<<20 {
		t.Errorf("%d bytes in use at 10,000 rows, %d at 1,000,000", small, large)
	}
}

func FuzzEach(f *testing.F) {
	f.Add([]byte("{\"image_path\":\"a\",\"predicted_class\":\"b\"}\n\n{"))
	f.Add([]byte("null\n1\n\"x\""))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := int64(0)
		s, err := metadata.Query{}.Each(bytes.NewReader(b), func(metadata.Record) error { n++; return nil })
		if err != nil || s.Matched != n || s.Lines != n || (s.Bad > 0) != (s.First != nil) {
			t.Errorf("%+v, %d records, %v", s, n, err)
		}
	})
}
