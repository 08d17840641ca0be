package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// Files and messages of others: nothing in them may bring the process down, and
// what is accepted must be what a writer would have written.

func FuzzMeta(f *testing.F) {
	good, _ := encodeMeta(metaRecord{Seq: 3, Stable: map[string][]byte{"CurrentTerm": {1}}, CheckedFrom: 7})
	f.Add(good)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := encodeMeta(*r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeMeta(again); err != nil || back.Seq != r.Seq || back.CheckedFrom != r.CheckedFrom {
			t.Fatalf("%+v came back as %+v: %v", r, back, err)
		}
	})
}

func FuzzTail(f *testing.F) {
	good := encodeTail(9, 2)
	f.Add(good[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		index, term, err := decodeTail(b)
		if again := encodeTail(index, term); err == nil && !bytes.Equal(again[:], b) {
			t.Fatalf("%x was taken for %x", b, again)
		}
	})
}

func FuzzCleanStop(f *testing.F) {
	f.Add([]byte("atelier clean stop 1\n00000000 0 log/tail\n5b1e4c3a\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if lines, err := readClean(b); err == nil {
			sameFiles(lines, nil)
		}
	})
}

func FuzzRoom(f *testing.F) {
	var h raft.RPCHeader
	markRoom(&h, Room{Node: "n1", Free: 1, Need: 2})
	f.Add(h.Addr)
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = readRoom(raft.RPCHeader{Addr: b}).String()
	})
}

func FuzzUnseal(f *testing.F) {
	for _, l := range []*raft.Log{{Index: 5, Term: 2, Data: []byte("data")}, {Index: 5, Term: 2, Data: []byte("data"), Extensions: dataSum([]byte("data"))}} {
		s, err := seal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.Data, s.Extensions, uint64(5), uint64(2))
	}
	f.Fuzz(func(t *testing.T, data, extensions []byte, index, term uint64) {
		l := raft.Log{Index: index, Term: term, Data: data, Extensions: extensions}
		if unseal(&l, 5, 1) != nil {
			return
		}
		again, err := seal(&l)
		if err != nil || !bytes.Equal(again.Extensions, extensions) {
			t.Fatalf("accepted %x, written %x: %v", extensions, again.Extensions, err)
		}
	})
}

// TestEveryFlipIsSeen changes each bit of a sealed entry, one at a time.
func TestEveryFlipIsSeen(t *testing.T) {
	for _, extensions := range [][]byte{nil, dataSum([]byte("some data"))} {
		sealed, err := seal(&raft.Log{Index: 70, Term: 3, Data: []byte("some data"), Extensions: extensions})
		if err != nil {
			t.Fatal(err)
		}
		whole := append(append([]byte{}, sealed.Data...), sealed.Extensions...)
		for bit := range len(whole) * 8 {
			b := bytes.Clone(whole)
			b[bit/8] ^= 1 << (bit % 8)
			l := raft.Log{Index: 70, Term: 3, Data: b[:len(sealed.Data)], Extensions: b[len(sealed.Data):]}
			if unseal(&l, 70, 1) == nil {
				t.Errorf("bit %d of %d is not seen", bit, len(whole)*8)
			}
		}
		for _, l := range []raft.Log{{Index: 71, Term: 3}, {Index: 70, Term: 2}, {Index: 70, Term: 3, Type: raft.LogNoop}} {
			l.Data, l.Extensions = sealed.Data, sealed.Extensions
			if unseal(&l, 70, 1) == nil {
				t.Errorf("entry %d of term %d, type %d was taken for entry 70", l.Index, l.Term, l.Type)
			}
		}
	}
}

func BenchmarkChecksums(b *testing.B) {
	data := bytes.Repeat([]byte("x"), 256<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() { // all that a leader does for one entry: propose, write, apply
		l := raft.Log{Index: 1, Term: 1, Data: data, Extensions: dataSum(data)}
		if _, err := seal(&l); err != nil || checkData(&l) != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCleanStop(b *testing.B) {
	dir := b.TempDir()
	for _, name := range []string{"log", "snapshots"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), bytes.Repeat([]byte("some bytes"), 10<<20), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(2 * 100 << 20)
	for b.Loop() { // a stop and a start
		if err := markClean(dir); err != nil {
			b.Fatal(err)
		}
		if clean, err := checkClean(dir); err != nil || !clean {
			b.Fatal(clean, err)
		}
	}
}
