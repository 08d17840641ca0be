package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"atelier/common/snapshot"
)

// bare is a stream as files were before they had a head: its length, then a record.
func bare(n int) []byte {
	b := append([]byte{byte(n), 1, 0x0a, byte(n - 2), 1}, bytes.Repeat([]byte("state "), n)...)
	return b
}

func file(t testing.TB, body []byte, taken int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := snapshot.NewWriter(&b, taken)
	if err != nil {
		t.Fatal(err)
	}
	for len(body) > 0 {
		n, err := w.Write(body[:min(len(body), 1000)])
		if err != nil {
			t.Fatal(err)
		}
		body = body[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWholeFiles(t *testing.T) {
	for _, n := range []int{0, 1, 39, 40, 41, 5000, 128 << 10, 300_000} {
		body := bytes.Repeat([]byte("a"), n)
		for name, r := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "by halves": iotest.HalfReader, "with its end": iotest.DataErrReader} {
			var got bytes.Buffer
			info, err := snapshot.Copy(&got, r(bytes.NewReader(file(t, body, 1234))))
			if err != nil || !info.Checked || info.TakenMS != 1234 || info.Bytes != int64(n) || !bytes.Equal(got.Bytes(), body) {
				t.Errorf("%d bytes, %s: %+v, %v", n, name, info, err)
			}
		}
	}
}

func TestFilesWithoutAHead(t *testing.T) {
	for _, b := range [][]byte{bare(90), bare(10), {}, []byte("short")} {
		var got bytes.Buffer
		info, err := snapshot.Copy(&got, bytes.NewReader(b))
		if err != nil || info.Checked || info.Bytes != int64(len(b)) || !bytes.Equal(got.Bytes(), b) {
			t.Errorf("%.20q: %+v, %v", b, info, err)
		}
	}
}

// TestAnyDamageShows flips every bit of a file and cuts it everywhere.
func TestAnyDamageShows(t *testing.T) {
	good := file(t, bare(90), 1_700_000_000_000)
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := snapshot.Copy(io.Discard, bytes.NewReader(bad)); !errors.Is(err, snapshot.ErrDamaged) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		// Cut so short that nothing is left to tell it by, it is for the reader of the
		// stream to refuse.
		if i >= 6 {
			if _, err := snapshot.Copy(io.Discard, bytes.NewReader(good[:i])); !errors.Is(err, snapshot.ErrDamaged) {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
	}
	for _, more := range []string{"x", string(good)} {
		if _, err := snapshot.Copy(io.Discard, bytes.NewReader(append(bytes.Clone(good), more...))); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("%d bytes behind it: %v", len(more), err)
		}
	}
}

func TestErrorsOfTheDiskAreNoDamage(t *testing.T) {
	broken := errors.New("input/output error")
	if _, err := snapshot.Copy(io.Discard, io.MultiReader(bytes.NewReader(file(t, bare(90), 1)[:60]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// FuzzCopy: a file that passes for checked is one that a Writer made; one byte
// changed in it never passes, nor as a file without a head.
func FuzzCopy(f *testing.F) {
	f.Add([]byte{}, 0, byte(1))
	f.Add(bare(90), 3, byte(0x20))
	f.Add(file(f, bare(90), 5), 100, byte(0xff))
	f.Fuzz(func(t *testing.T, data []byte, at int, flip byte) {
		var body bytes.Buffer
		if info, err := snapshot.Copy(&body, bytes.NewReader(data)); err == nil && info.Checked && !bytes.Equal(file(t, body.Bytes(), info.TakenMS), data) {
			t.Fatalf("%q passes for a file", data)
		}
		good := file(t, data, 77)
		body.Reset()
		if info, err := snapshot.Copy(&body, bytes.NewReader(good)); err != nil || !info.Checked || !bytes.Equal(body.Bytes(), data) {
			t.Fatalf("what was written is not read: %+v, %v", info, err)
		}
		if flip != 0 {
			good[uint(at)%uint(len(good))] ^= flip
			if _, err := snapshot.Copy(io.Discard, bytes.NewReader(good)); !errors.Is(err, snapshot.ErrDamaged) {
				t.Fatalf("byte %d xor %#x: %v", uint(at)%uint(len(good)), flip, err)
			}
		}
	})
}
