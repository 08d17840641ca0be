package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"atelier/common/checkpoint"
)

// state has a tensor of every type, a scalar, an empty one, two that share memory, and names that need care.
func state() []checkpoint.Tensor {
	var all []checkpoint.Tensor
	add := func(name string, t *checkpoint.Tensor) {
		t.Name = name
		all = append(all, *t)
	}
	weight := checkpoint.NewF32([]float32{1, -2, float32(math.Inf(1)), float32(math.NaN()), 5, 6}, 2, 3)
	add("bn1.num_batches_tracked", checkpoint.NewI64([]int64{7}))
	add("conv1.weight", weight)
	add("tied.weight", weight)
	add("none", checkpoint.NewF32(nil, 0, 3))
	add(`a "quoted" <&> name\`, checkpoint.NewU8([]byte("bytes")))
	add("Häuser", &checkpoint.Tensor{DType: checkpoint.F16, Shape: []int64{3}, Data: []byte{0, 0x3c, 0, 0xc0, 1, 0}})
	add("brain", &checkpoint.Tensor{DType: checkpoint.BF16, Shape: []int64{1, 1}, Data: []byte{0x80, 0x3f}})
	add("mask", &checkpoint.Tensor{DType: checkpoint.Bool, Shape: []int64{2}, Data: []byte{1, 0}})
	add("double", &checkpoint.Tensor{DType: checkpoint.F64, Shape: []int64{1}, Data: []byte("8 bytes.")})
	add("i8", &checkpoint.Tensor{DType: checkpoint.I8, Shape: []int64{1}, Data: []byte{0xff}})
	add("i16", &checkpoint.Tensor{DType: checkpoint.I16, Shape: []int64{1}, Data: []byte{0xfe, 0xff}})
	add("i32", &checkpoint.Tensor{DType: checkpoint.I32, Shape: []int64{1}, Data: []byte{1, 2, 3, 4}})
	return all
}

// listing says all that a reader may rely on.
func listing(tensors []checkpoint.Tensor) string {
	var b strings.Builder
	for _, t := range tensors {
		fmt.Fprintf(&b, "%s %v %v %x\n", t.Name, t.DType, append([]int64{}, t.Shape...), t.Data)
	}
	return b.String()
}

func safe(t testing.TB, tensors []checkpoint.Tensor, metadata map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := checkpoint.WriteSafetensors(&b, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// raw joins a header and bytes as they are.
func raw(header, data string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+data...)
}

func TestSafetensorsBytes(t *testing.T) {
	u8, f32 := checkpoint.NewU8([]byte("u")), checkpoint.NewF32([]float32{1}, 1)
	u8.Name, f32.Name = "u", "f"
	got := safe(t, []checkpoint.Tensor{*u8, *f32}, map[string]string{"z": "1", "format": "pt", "a": "<2>"})
	header := `{"__metadata__":{"a":"<2>","format":"pt","z":"1"},"u":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},` +
		`"f":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	if want := raw(header, "\x00\x00\x80\x3fu"); !bytes.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := safe(t, nil, nil), raw("{}      ", ""); !bytes.Equal(got, want) {
		t.Errorf("no tensors: %q", got)
	}
}

func TestSafetensorsRoundTrip(t *testing.T) {
	in, metadata := state(), map[string]string{"arch": "resnet18", "": "empty key"}
	b := safe(t, in, metadata)
	out, words, err := checkpoint.ReadSafetensors(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := listing(in), listing(out); a != b {
		t.Errorf("in:\n%sout:\n%s", a, b)
	}
	if !reflect.DeepEqual(words, metadata) {
		t.Errorf("metadata %v", words)
	}
	header := int(binary.LittleEndian.Uint64(b))
	for _, x := range out { // each tensor stands at a multiple of its element's size
		if at := bytes.Index(b[8+header:], x.Data); len(x.Data) > 0 && x.DType.Size() == 8 && at%8 != 0 {
			t.Errorf("%s at %d", x.Name, at)
		}
	}
	if header%8 != 0 {
		t.Errorf("header of %d bytes", header)
	}
}

// TestAnyFormIsOpened: names lie about the form, the content does not.
func TestAnyFormIsOpened(t *testing.T) {
	dir := t.TempDir()
	want := listing(state())
	root := checkpoint.FromStateDict(state())
	put := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrapped := state()
	for i := range wrapped {
		wrapped[i].Name = "module." + wrapped[i].Name
	}
	for name, c := range map[string]struct {
		b      []byte
		format checkpoint.Format
	}{
		"zip.safetensors":   {write(t, root), checkpoint.Zip},
		"dictionary.pth":    {write(t, checkpoint.NewDict().Set("epoch", int64(1)).Set("model_state_dict", root)), checkpoint.Zip},
		"safetensors.pth":   {safe(t, state(), nil), checkpoint.Safetensors},
		"with words":        {safe(t, state(), map[string]string{"a": "b"}), checkpoint.Safetensors},
		"wrapped.something": {safe(t, wrapped, nil), checkpoint.Safetensors},
	} {
		s, err := checkpoint.OpenState(put("x-"+name, c.b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Format != c.format || listing(s.Tensors) != want {
			t.Errorf("%s: format %s, tensors\n%s", name, s.Format, listing(s.Tensors))
		}
		if name == "with words" && s.Metadata["a"] != "b" {
			t.Errorf("%s: metadata %v", name, s.Metadata)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	old := put("old", legacy(4, "0123456789abcdef"))
	if m, err := checkpoint.Open(old); err != nil || m.Format != checkpoint.Legacy {
		t.Errorf("legacy: %v", err)
	}
	if _, err := checkpoint.OpenState(old); err == nil || !strings.Contains(err.Error(), old) {
		t.Errorf("a bare tensor is no state: %v", err)
	}
	if _, err := checkpoint.OpenState(put("page", []byte("<html>not found</html>"))); err == nil || !strings.Contains(err.Error(), "a web page") {
		t.Errorf("a web page: %v", err)
	}
}

// TestHeaderThatBeginsLikeAPickle: a header of 640 bytes has the length 80 02 00..., a pickle's first bytes; one
// of 0x04034b50 bytes would begin as a zip archive does.
func TestHeaderThatBeginsLikeAPickle(t *testing.T) {
	b := raw("{"+strings.Repeat(" ", 638)+"}", "")
	if b[0] != 0x80 || b[1] != 2 {
		t.Fatalf("begins % x", b[:4])
	}
	if d, ok := read(t, b).(*checkpoint.Dict); !ok || d.Len() != 0 {
		t.Errorf("read as %v", d)
	}
}

// TestThereAndBack: .pth to safetensors to .pth keeps names, order, types, shapes and bytes.
func TestThereAndBack(t *testing.T) {
	dir := t.TempDir()
	pth, st, back := filepath.Join(dir, "a.pth"), filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.pth")
	if _, err := checkpoint.Save(pth, checkpoint.FromStateDict(state())); err != nil {
		t.Fatal(err)
	}
	open := func(path string) *checkpoint.State {
		s, err := checkpoint.OpenState(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	info, err := checkpoint.SaveSafetensors(st, open(pth).Tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(st); err != nil || int64(len(b)) != info.Bytes || len(info.SHA256) != 64 {
		t.Errorf("%+v for %d bytes (%v)", info, len(b), err)
	}
	if _, err := checkpoint.Save(back, checkpoint.FromStateDict(open(st).Tensors)); err != nil {
		t.Fatal(err)
	}
	if a, b := listing(state()), listing(open(back).Tensors); a != b {
		t.Errorf("in:\n%sout:\n%s", a, b)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%d files are left: %v", len(left), err)
	}
}

func TestSafetensorsNotWritten(t *testing.T) {
	one := func(name string) checkpoint.Tensor {
		x := checkpoint.NewF32([]float32{1}, 1)
		x.Name = name
		return *x
	}
	short := one("a")
	short.Data = short.Data[:3]
	unknown := one("a")
	unknown.DType = 77
	for want, c := range map[string]struct {
		tensors  []checkpoint.Tensor
		metadata map[string]string
	}{
		"appears twice":         {tensors: []checkpoint.Tensor{one("a"), one("b"), one("a")}},
		`called "__metadata__"`: {tensors: []checkpoint.Tensor{one("__metadata__")}},
		"not UTF-8":             {tensors: []checkpoint.Tensor{one("a\xff")}},
		"metadata \"k\"":        {metadata: map[string]string{"k": "\xff"}},
		"needs 4 bytes, has 3":  {tensors: []checkpoint.Tensor{short}},
		"unknown type":          {tensors: []checkpoint.Tensor{unknown}},
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.SaveSafetensors(path, c.tensors, c.metadata); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v should speak of %q", err, want)
		}
		if b, err := os.ReadFile(path); string(b) != "old" {
			t.Errorf("%s: the old file became %q (%v)", want, b, err)
		}
	}
	if err := checkpoint.WriteSafetensors(full(12), state(), nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a full disk: %v", err)
	}
}

// full takes n bytes and no more.
type full int

func (n full) Write(b []byte) (int, error) {
	if len(b) > int(n) {
		return int(n), io.ErrShortWrite
	}
	return len(b), nil
}

func TestHostileSafetensors(t *testing.T) {
	tensor := func(name, dtype, shape, offsets string) string {
		return fmt.Sprintf(`"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s]}`, name, dtype, shape, offsets)
	}
	a := tensor("a", "F32", "2", "0,8")
	for _, c := range []struct {
		name    string
		b       []byte
		want    string
		refused bool
	}{
		{"cut off in the length", []byte("\x02\x00\x00"), "cut off", false},
		{"header over the cap", append(binary.LittleEndian.AppendUint64(nil, 100_000_001), '{'), "at most 100000000", true},
		{"header of 2^64-1", append(bytes.Repeat([]byte{0xff}, 8), '{'), "at most 100000000", true},
		{"header longer than the file", raw("{}", "")[:9], "cut off", false},
		{"no brace", raw("[]", ""), "does not begin with a brace", false},
		{"empty header", raw("", ""), "does not begin with a brace", false},
		{"space before", raw(" {}", ""), "does not begin with a brace", false},
		{"not UTF-8", raw("{\"\xff\":1}", ""), "not UTF-8", false},
		{"two objects", raw("{}{}", ""), "continues after its end", false},
		{"cut JSON", raw("{"+a, "12345678"), "not valid JSON", false},
		{"bad JSON", raw("{"+a+",}", "12345678"), "not valid JSON", false},
		{"list of tensors", raw(`{"a":[]}`, ""), "is expected", false},
		{"nested", raw(`{"a":{"dtype":{"b":1},"shape":[],"data_offsets":[0,0]}}`, ""), "where a string is expected", false},
		{"nested shape", raw(`{"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}}`, ""), "where a number is expected", false},
		{"metadata of numbers", raw(`{"__metadata__":{"a":1}}`, ""), "where a string is expected", false},
		{"metadata key twice", raw(`{"__metadata__":{"a":"1","a":"2"}}`, ""), "appears twice", false},
		{"metadata twice", raw(`{"__metadata__":{},"__metadata__":{}}`, ""), "appears twice", false},
		{"name twice", raw("{"+a+","+a+"}", "12345678"), `"a" appears twice`, false},
		{"name twice, written otherwise", raw("{"+a+`,"\u0061":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}`, "12345678"), "appears twice", false},
		{"dtype twice", raw(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, "12345678"), "dtype appears twice", false},
		{"no dtype", raw(`{"a":{"shape":[2],"data_offsets":[0,8]}}`, "12345678"), "dtype is missing", false},
		{"no shape", raw(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, "12345678"), "shape is missing", false},
		{"no offsets", raw(`{"a":{"dtype":"F32","shape":[2]}}`, "12345678"), "data_offsets is missing", false},
		{"unknown key", raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`, "12345678"), `unknown key "x"`, true},
		{"unknown type", raw("{"+tensor("a", "F8_E4M3", "8", "0,8")+"}", "12345678"), `"F8_E4M3"`, true},
		{"three offsets", raw("{"+tensor("a", "F32", "2", "0,8,9")+"}", "12345678"), "more than 2", false},
		{"one offset", raw("{"+tensor("a", "F32", "2", "8")+"}", "12345678"), "1 numbers", false},
		{"negative size", raw("{"+tensor("a", "F32", "-2", "0,8")+"}", "12345678"), "-2 is not a size", false},
		{"fraction", raw("{"+tensor("a", "F32", "2.0", "0,8")+"}", "12345678"), "2.0 is not a size", false},
		{"exponent", raw("{"+tensor("a", "F32", "2e0", "0,8")+"}", "12345678"), "2e0 is not a size", false},
		{"size beyond 2^63", raw("{"+tensor("a", "F32", "9223372036854775808", "0,8")+"}", "12345678"), "not a size", false},
		{"size that overflows", raw("{"+tensor("a", "F32", "4294967296,4294967296", "0,0")+"}", ""), "too large", false},
		{"size that wraps to 8 bytes", raw("{"+tensor("a", "F32", "4611686018427387906", "0,8")+"}", "12345678"), "impossible", false},
		{"65 dimensions", raw("{"+tensor("a", "U8", strings.Repeat("1,", 64)+"1", "0,1")+"}", "1"), "more than 64", false},
		{"other size", raw("{"+tensor("a", "F32", "3", "0,8")+"}", "12345678"), "need 12 bytes", false},
		{"end before begin", raw("{"+tensor("a", "F32", "2", "8,0")+"}", "12345678"), "outside", false},
		{"end outside", raw("{"+tensor("a", "F32", "2", "0,8")+"}", "1234567"), "outside", false},
		{"end far outside", raw("{"+tensor("a", "U8", "1", "9223372036854775806,9223372036854775807")+"}", "1"), "outside", false},
		{"overlap", raw("{"+a+","+tensor("b", "F32", "2", "4,12")+"}", "123456789012"), "overlap", false},
		{"the same bytes", raw("{"+a+","+tensor("b", "F32", "2", "0,8")+"}", "12345678"), "overlap", false},
		{"empty one inside", raw("{"+a+","+tensor("b", "F32", "0", "4,4")+"}", "12345678"), "overlap", false},
		{"gap", raw("{"+a+","+tensor("b", "U8", "1", "9,10")+"}", "1234567890"), "belong to no tensor", false},
		{"gap at the beginning", raw("{"+tensor("a", "U8", "1", "1,2")+"}", "12"), "bytes 0 to 1 before", false},
		{"bytes at the end", raw("{"+a+"}", "123456789"), "last 1 bytes", false},
	} {
		for _, read := range []func() error{
			func() error {
				_, _, err := checkpoint.ReadSafetensors(bytes.NewReader(c.b), int64(len(c.b)))
				return err
			},
			func() error { _, err := checkpoint.Read(bytes.NewReader(c.b), int64(len(c.b))); return err },
		} {
			err := read()
			if err != nil && strings.Contains(err.Error(), "neither a zip") {
				continue // Read did not take it for this form
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, checkpoint.ErrRefused) != c.refused {
				t.Errorf("%s: error %v should speak of %q", c.name, err, c.want)
			}
		}
	}
	good := raw("{"+a+","+tensor("e", "I64", "3,0", "8,8")+","+tensor("b", "U8", "", "8,9")+"}\n\t ", "123456789")
	if got, _, err := checkpoint.ReadSafetensors(bytes.NewReader(good), int64(len(good))); err != nil || len(got) != 3 || string(got[2].Data) != "9" {
		t.Errorf("the sound one: %v, %v", got, err)
	}
	whole := safe(t, state(), nil)
	for n := range whole {
		if _, _, err := checkpoint.ReadSafetensors(bytes.NewReader(whole[:n]), int64(n)); err == nil {
			t.Fatalf("the first %d of %d bytes were read as a whole file", n, len(whole))
		}
	}
}

// FuzzSafetensors: no bytes make the reader panic or take memory out of proportion; what it reads, it writes and
// reads again the same, and no byte of the data is in two tensors.
func FuzzSafetensors(f *testing.F) {
	f.Add(safe(f, state(), map[string]string{"a": "b"}))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"I64","shape":[0],"data_offsets":[8,8]}}`, "12345678"))
	f.Add(raw(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, ""))
	f.Add(raw(`{"__metadata__":{"class_to_idx":"{\"a\":0}","mean":"[0.5]","std":"[0]","best_val_loss":"1e400","config":"{"}}`, ""))
	f.Add(raw(`{"__metadata__":{"\ud800":"\u0000"},"":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]}}`, "x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tensors, metadata, err := checkpoint.ReadSafetensors(bytes.NewReader(b), int64(len(b)))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+200*uint64(len(b)) {
			t.Fatalf("%d bytes were taken for a file of %d", used, len(b))
		}
		if err != nil {
			return
		}
		(&checkpoint.Mapped{Metadata: metadata, Format: checkpoint.Safetensors}).Model()
		total := 0
		for _, x := range tensors {
			total += len(x.Data)
		}
		if header := int(binary.LittleEndian.Uint64(b)); total != len(b)-8-header {
			t.Fatalf("%d bytes of tensors in %d bytes of data", total, len(b)-8-header)
		}
		again := safe(t, tensors, metadata)
		out, words, err := checkpoint.ReadSafetensors(bytes.NewReader(again), int64(len(again)))
		if err != nil || listing(out) != listing(tensors) || fmt.Sprint(words) != fmt.Sprint(metadata) && len(metadata) > 0 {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
