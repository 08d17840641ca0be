package checkpoint_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"atelier/common/checkpoint"
)

// pth packs a pickle and storages as torch.save would.
func pth(pickle string, storages map[string]string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, payload string) {
		w, _ := z.CreateHeader(&zip.FileHeader{Name: "a/" + name, Method: zip.Store})
		io.WriteString(w, payload)
	}
	add("data.pkl", pickle)
	for k, v := range storages {
		add("data/"+k, v)
	}
	add("version", "3\n")
	z.Close()
	return b.Bytes()
}

// tensor is the pickle of one float tensor over storage "0" of four elements.
func tensorPickle(count, offset, shape, strides string) string {
	return "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" + count + "tQ" +
		offset + shape + strides + "\x89)tR."
}

func long(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func TestHostilePickles(t *testing.T) {
	ok := "K\x04"
	cases := []struct {
		name, pickle, want string
		refused            bool
	}{
		{"os.system", "\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", `"os.system"`, true},
		{"eval", "\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", `"__builtin__.eval"`, true},
		{"getattr", "\x80\x02cbuiltins\ngetattr\n.", `"builtins.getattr"`, true},
		{"attribute of a module", "\x80\x02ctorch\nload\n.", `"torch.load"`, true},
		{"INST", "(S'id'\nios\nsystem\n.", "opcode 0x53", true},
		{"STACK_GLOBAL", "\x80\x04\x8c\x02os\x8c\x06system\x93.", `"os.system"`, true},
		{"NEWOBJ_EX", "\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.", `"os.system"`, true},
		{"keyword arguments", "\x80\x04ctorch\nSize\n)}\x8c\x01aNs\x92.", "keyword arguments", true},
		{"a frame beyond the end", "\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", "a frame of", false},
		{"huge bytes", "\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffN.", "are announced", false},
		{"a number as a name", "\x80\x04K\x01K\x02\x93.", "a name made of", true},
		{"nothing but an object", "\x80\x02cargparse\nNamespace\n)\x81.", `"argparse.Namespace"`, true},
		{"a dictionary of objects", "\x80\x02}U\x01acargparse\nNamespace\n)\x81s.", `"argparse.Namespace"`, true},
		{"an object under state_dict", "\x80\x02}(U\x0astate_dict}U\x01acargparse\nNamespace\n)\x81sU\x01bNu.", "in the state, under state_dict", true},
		{"calling a string", "\x80\x02X\x01\x00\x00\x00a)R.", "is called", true},
		{"a name as the value", "\x80\x02ctorch\nSize\n.", "bare name (torch.Size)", true},
		{"state of a list", "\x80\x02]}b.", "state of a list", true},
		{"endless name", "\x80\x02c" + strings.Repeat("a", 4096), "512 bytes", true},
		{"huge string", "\x80\x02X\xff\xff\xff\xffabc.", "4294967295 bytes are announced", false},
		{"huge integer", "\x80\x02\x8a\xff\x01.", "255 bytes are announced", false},
		{"stack underflow", "\x80\x02R.", "short of values", false},
		{"no mark", "\x80\x02t.", "no mark", false},
		{"below the mark", "\x80\x02K\x01(\x85.", "short of values", false},
		{"memo unset", "\x80\x02h\x05.", "memo 5", false},
		{"two values left", "\x80\x02NN.", "2 values on the stack", false},
		{"no end", "\x80\x02N", "cut off", false},
		{"odd pairs", "\x80\x02}(K\x01u.", "without a value", false},
		{"list as key", "\x80\x02}]K\x01s.", "a list as a key", false},
		{"a list in itself", "\x80\x02]q\x00h\x00a.", "contain themselves", true},
		{"deep nesting", "\x80\x02" + strings.Repeat("]", 100000) + strings.Repeat("a", 99999) + ".", "nested deeper", true},
		{"too many values", "\x80\x02" + strings.Repeat("N", 5<<20) + ".", "more than 4194304 values", true},
		{"too many marks", "\x80\x02" + strings.Repeat("(", 5<<20) + ".", "marks", true},
		{"whole module", "\x80\x02(U\x06modulectorch\nSize\nU\x01xU\x01ytQ.", "whole module", true},
		{"foreign reference", "\x80\x02K\x07Q.", "reference outside", true},
		{"offset outside", tensorPickle(ok, "K\x03", "K\x02\x85", "K\x01\x85"), "outside its storage", false},
		{"stride outside", tensorPickle(ok, "K\x00", "K\x02\x85", "K\x04\x85"), "outside its storage", false},
		{"negative offset", tensorPickle(ok, long(-1), "K\x01\x85", "K\x01\x85"), "arguments", false},
		{"negative stride", tensorPickle(ok, "K\x03", "K\x02\x85", long(-1)+"\x85"), "strides", false},
		{"negative size", tensorPickle(ok, "K\x00", long(-1)+"\x85", "K\x01\x85"), "impossible", false},
		{"overflowing product", tensorPickle(ok, "K\x00", long(1<<40)+long(1<<40)+"\x86", "K\x00K\x00\x86"), "too large", false},
		{"overflowing stride", tensorPickle(ok, "K\x00", long(1<<40)+"\x85", long(1<<40)+"\x85"), "outside", false},
		{"expanded beyond reason", tensorPickle(ok, "K\x00", long(1<<40)+"\x85", "K\x00\x85"), "far more memory", true},
		{"storage larger than said", tensorPickle("K\x03", "K\x00", "K\x03\x85", "K\x01\x85"), "has 16 bytes", false},
		{"huge count", tensorPickle(long(1<<47), "K\x00", "K\x01\x85", "K\x01\x85"), "has 16 bytes", false},
		{"count overflow", tensorPickle(long(1<<62), "K\x00", "K\x01\x85", "K\x01\x85"), "parts", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := pth(c.pickle, map[string]string{"0": "0123456789abcdef"})
			_, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				t.Fatal("it was read")
			}
			if !strings.Contains(err.Error(), c.want) || errors.Is(err, checkpoint.ErrRefused) != c.refused {
				t.Errorf("error %v (refused: %v) should speak of %q", err, errors.Is(err, checkpoint.ErrRefused), c.want)
			}
		})
	}
	b := pth(tensorPickle(ok, "K\x01", "K\x03\x85", "K\x01\x85"), map[string]string{"0": "0123456789abcdef"})
	v, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil || string(v.(*checkpoint.Tensor).Data) != "456789abcdef" {
		t.Errorf("the sound one: %v, %v", v, err)
	}
}

// TestBillionLaughs: a few hundred bytes that describe 10^50 values are refused in no time and memory.
func TestBillionLaughs(t *testing.T) {
	s := "\x80\x02(]q\x00"
	for i := 1; i <= 50; i++ {
		// list i holds list i-1 ten times
		s += "]q" + string([]byte{byte(i)}) + "(" + strings.Repeat("h"+string([]byte{byte(i - 1)}), 10) + "e"
	}
	s += "t."
	b := pth(s, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, checkpoint.ErrRefused) || !strings.Contains(err.Error(), "counted each time") {
		t.Errorf("error %v", err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes were allocated on the way", used)
	}
}

// TestRepeatedCopies: building a set from one remembered list again and again costs what it makes.
func TestRepeatedCopies(t *testing.T) {
	list := "](" + strings.Repeat("N", 100000) + "e\x85q\x02"
	s := "\x80\x02(c__builtin__\nset\nq\x01" + list + strings.Repeat("h\x01h\x02R", 1000) + "t."
	b := pth(s, nil)
	_, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
	if !errors.Is(err, checkpoint.ErrRefused) || !strings.Contains(err.Error(), "more than 4194304 values") {
		t.Errorf("error %v", err)
	}
}

func TestDamagedArchives(t *testing.T) {
	good := write(t, training())
	flip := func(at int) []byte { b := bytes.Clone(good); b[at] ^= 1; return b }
	payload := bytes.Index(good, []byte("order")) // of the uint8 tensor, or its key in the pickle: both are summed
	var deflated bytes.Buffer
	z := zip.NewWriter(&deflated)
	w, _ := z.Create("a/data.pkl")
	io.WriteString(w, "\x80\x02N.")
	z.Close()
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":         {nil, "it is empty"},
		"text":          {[]byte("not found"), "neither a zip"},
		"web page":      {[]byte("\n <!DOCTYPE html><html>not found</html>"), "a web page"},
		"gzip":          {[]byte("\x1f\x8b\x08\x00abcdefghi"), "gunzip"},
		"tar":           {append(make([]byte, 257), "ustar\x0000"...), "a tar archive"},
		"lfs":           {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"), "Git LFS pointer"},
		"index":         {[]byte(`{"metadata": {"total_size": 3}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}`), "several files"},
		"json":          {[]byte(`{"architectures": ["ResNet"]}`), "JSON"},
		"onnx":          {[]byte("\x08\x07\x12\x07pytorch\x1a\x051.13."), "ONNX"},
		"hdf5":          {[]byte("\x89HDF\r\n\x1a\n\x00\x00"), "HDF5"},
		"cut off":       {good[:len(good)*2/3], "cut off"},
		"flipped bit":   {flip(payload), "damaged"},
		"compressed":    {deflated.Bytes(), "compressed"},
		"no storage":    {pth(tensorPickle("K\x04", "K\x00", "K\x01\x85", "K\x01\x85"), nil), "missing"},
		"other archive": {func() []byte { var b bytes.Buffer; z := zip.NewWriter(&b); z.Create("x"); z.Close(); return b.Bytes() }(), "no data.pkl"},
		"other pickle":  {[]byte("\x80\x02N."), "no magic number"},
	} {
		if _, err := checkpoint.Read(bytes.NewReader(c.b), int64(len(c.b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v should speak of %q", name, err, c.want)
		}
	}
	for n := range len(good) {
		if n%7 != 0 { // every seventh length is enough and fast
			continue
		}
		if _, err := checkpoint.Read(bytes.NewReader(good[:n]), int64(n)); err == nil {
			t.Fatalf("the first %d of %d bytes were read as a whole checkpoint", n, len(good))
		}
	}
}

// legacy is a stream-form file with one tensor, by hand.
func legacy(count int64, data string) []byte {
	s := "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}(U\rlittle_endian\x88u." +
		strings.Replace(tensorPickle("K\x04", "K\x00", "K\x04\x85", "K\x01\x85"), "K\x04tQ", "K\x04NtQ", 1) +
		"\x80\x02]U\x010a."
	return append(binary.LittleEndian.AppendUint64([]byte(s), uint64(count)), data...)
}

func TestLegacyDamage(t *testing.T) {
	if v := read(t, legacy(4, "0123456789abcdef")); string(v.(*checkpoint.Tensor).Data) != "0123456789abcdef" {
		t.Errorf("%v", text(v))
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"cut off":    {legacy(4, "0123456789abcde"), "cut off"},
		"other size": {legacy(5, "0123456789abcdef0000"), "announced"},
		"huge size":  {legacy(1<<62, ""), "announced"},
	} {
		if _, err := checkpoint.Read(bytes.NewReader(c.b), int64(len(c.b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v should speak of %q", name, err, c.want)
		}
	}
}

// FuzzRead: no bytes make the reader panic, hang or take memory out of proportion; what it reads, it can write
// and read again.
func FuzzRead(f *testing.F) {
	f.Add(write(f, training()))
	f.Add(legacy(4, "0123456789abcdef"))
	f.Add(pth(tensorPickle("K\x04", "K\x01", "K\x03\x85", "K\x01\x85"), map[string]string{"0": "0123456789abcdef"}))
	f.Fuzz(func(t *testing.T, b []byte) { tryRead(t, b) })
}

// FuzzOtherForms: whatever a file is, words for it are found without a fault.
func FuzzOtherForms(f *testing.F) {
	for _, s := range []string{"", "\x1f\x8b", "{\"weight_map\"", "\x08\x07\x12", "<html", "\x80\x02", "PK\x03\x04", "version https://git-lfs.github.com/spec/"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := checkpoint.Read(bytes.NewReader(b), int64(len(b))); err == nil && v == nil && len(b) < 8 {
			t.Errorf("%q was read", b)
		}
	})
}

// FuzzPickle puts the bytes where the checksums of the archive do not guard them.
func FuzzPickle(f *testing.F) {
	f.Add("\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00bG?\xf0\x00\x00\x00\x00\x00\x00u.")
	f.Add(tensorPickle("K\x04", "K\x01", "K\x03\x85", "K\x01\x85"))
	f.Add(tensorPickle("K\x04", "K\x00", "K\x02K\x02\x86", "K\x01K\x02\x86"))
	f.Add("\x80\x04\x95\x04\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94\x8c\x05numpy\x8c\x05dtype\x93\x94)}\x92}bs\x8c\x01b]s\x8f(K\x01\x90(K\x02\x91\x86.")
	f.Add("\x80\x02}(U\x01acargparse\nNamespace\n)\x81}U\x02lrNsbU\x01bcpathlib\nPosixPath\nU\x01x\x85RcFoo\nBar\nNU\x05state}U\x01wNsu.")
	f.Add("\x80\x02ccollections\nOrderedDict\n)R(U\x01a]q\x00(K\x01h\x00e\x89u}U\x09_metadataNsb.")
	f.Fuzz(func(t *testing.T, pickle string) {
		tryRead(t, pth(pickle, map[string]string{"0": "0123456789abcdef"}))
	})
}

func tryRead(t *testing.T, b []byte) {
	v, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	checkpoint.StateDict(v)
	(&checkpoint.Mapped{Root: v, Format: checkpoint.Zip}).Model()
	var out bytes.Buffer
	if err := checkpoint.Write(&out, v); err != nil {
		t.Fatalf("it was read, but cannot be written: %v", err)
	}
	again, err := checkpoint.Read(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatalf("it cannot be read again: %v", err)
	}
	if a, b := text(v), text(again); a != b {
		t.Fatalf("read\n%s\nthen\n%s", a, b)
	}
}
