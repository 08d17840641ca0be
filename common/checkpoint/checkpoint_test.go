package checkpoint_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"atelier/common/checkpoint"

	"github.com/nlpodyssey/gopickle/pytorch"
	"github.com/nlpodyssey/gopickle/types"
)

func big65() *big.Int { return new(big.Int).Lsh(big.NewInt(1), 65) }

// training is a training dictionary with one of everything.
func training() *checkpoint.Dict {
	weight := checkpoint.NewF32([]float32{1, -2, 3.5, 4, 5, float32(math.Inf(1))}, 2, 3)
	state := checkpoint.NewOrderedDict().
		Set("conv1.weight", weight).
		Set("bn1.num_batches_tracked", checkpoint.NewI64([]int64{7})).
		Set("tied.weight", weight)
	state.Attrs = checkpoint.NewDict().Set("_metadata", checkpoint.NewOrderedDict().
		Set("", checkpoint.NewDict().Set("version", int64(1))))
	optimizer := checkpoint.NewDict().
		Set("state", checkpoint.NewDict().
			Set(int64(0), checkpoint.NewDict().Set("step", int64(70000)).Set("momentum_buffer", nil))).
		Set("param_groups", &checkpoint.List{Items: []checkpoint.Value{
			checkpoint.NewDict().Set("lr", 0.1).Set("betas", &checkpoint.Tuple{Items: []checkpoint.Value{0.9, 0.999}}).
				Set("params", &checkpoint.List{Items: []checkpoint.Value{int64(0), int64(1), int64(2)}}),
		}})
	return checkpoint.NewDict().
		Set("epoch", int64(3)).
		Set("model_state_dict", state).
		Set("optimizer_state_dict", optimizer).
		Set("best_val_loss", 0.25).
		Set("class_to_idx", checkpoint.NewDict().Set("colonial", int64(0)).Set("gothic", int64(1))).
		Set("arch", "resnet18").
		Set("config", checkpoint.NewDict().Set("name", "Häuser").Set("negative", int64(-5)).Set("large", int64(-1)<<40).
			Set("huge", big65()).Set("empty", &checkpoint.Tuple{}).Set("flag", true).Set("off", false).
			Set("nan", math.Inf(-1)).Set("dtype", checkpoint.BF16).Set("size", checkpoint.Size{2, 3}).
			Set("device", checkpoint.Device("cpu")).Set("z", complex(1, -2)).
			Set("set", &checkpoint.Set{Items: []checkpoint.Value{"a"}}).
			Set("quad", &checkpoint.Tuple{Items: []checkpoint.Value{int64(1), int64(2), int64(3), int64(4)}})).
		Set("atelier", checkpoint.NewDict().Set("rng", []byte{0, 1, 0x80, 0xff}).Set("nothing", []byte{}).
			Set("order", checkpoint.NewU8([]byte("order"))).
			Set("scalar", checkpoint.NewF32([]float32{2})).
			Set("none", checkpoint.NewF32(nil, 0, 3)).
			Set("half", &checkpoint.Tensor{DType: checkpoint.F16, Shape: []int64{3}, Data: []byte{0, 0x3c, 0, 0xc0, 1, 0}}).
			Set("brain", &checkpoint.Tensor{DType: checkpoint.BF16, Shape: []int64{1}, Data: []byte{0x80, 0x3f}}).
			Set("mask", &checkpoint.Tensor{DType: checkpoint.Bool, Shape: []int64{2}, Data: []byte{1, 0}}))
}

func write(t testing.TB, v checkpoint.Value) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := checkpoint.Write(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t testing.TB, b []byte) checkpoint.Value {
	t.Helper()
	v, err := checkpoint.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// text writes a value out in full, so that two can be compared whatever their inner form.
func text(v checkpoint.Value) string {
	var b strings.Builder
	var put func(v checkpoint.Value)
	list := func(open, end string, items []checkpoint.Value) {
		b.WriteString(open)
		for _, it := range items {
			put(it)
			b.WriteString(",")
		}
		b.WriteString(end)
	}
	put = func(v checkpoint.Value) {
		switch v := v.(type) {
		case *checkpoint.List:
			list("[", "]", v.Items)
		case *checkpoint.Tuple:
			list("(", ")", v.Items)
		case *checkpoint.Set:
			list("set{", "}", v.Items)
		case *checkpoint.Dict:
			fmt.Fprintf(&b, "dict(%v){", v.Ordered)
			for _, it := range v.Items() {
				put(it.Key)
				b.WriteString(":")
				put(it.Value)
				b.WriteString(",\n")
			}
			b.WriteString("}")
			if v.Attrs.Len() > 0 {
				b.WriteString("attrs")
				put(v.Attrs)
			}
		case *checkpoint.Tensor:
			fmt.Fprintf(&b, "tensor %v %v %x", v.DType, v.Shape, v.Data)
		case *big.Int:
			fmt.Fprintf(&b, "big %v", v)
		default:
			fmt.Fprintf(&b, "%T %#v", v, v)
		}
	}
	put(v)
	return b.String()
}

func TestRoundTrip(t *testing.T) {
	in := training()
	got := read(t, write(t, in))
	if a, b := text(in), text(got); a != b {
		t.Fatalf("wrote\n%s\nread\n%s", a, b)
	}
	state, _ := checkpoint.Lookup[*checkpoint.Dict](got.(*checkpoint.Dict), "model_state_dict")
	a, _ := checkpoint.Lookup[*checkpoint.Tensor](state, "conv1.weight")
	b, _ := checkpoint.Lookup[*checkpoint.Tensor](state, "tied.weight")
	if &a.Data[0] != &b.Data[0] {
		t.Error("tied tensors were stored twice")
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	if !bytes.Equal(write(t, training()), write(t, training())) {
		t.Error("the same value was written as different bytes")
	}
}

func TestPayloadsAreAlignedAndStored(t *testing.T) {
	b := write(t, training())
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range z.File {
		at, err := f.DataOffset()
		if err != nil {
			t.Fatal(err)
		}
		if at%64 != 0 || f.Method != zip.Store {
			t.Errorf("%s: offset %d, method %d", f.Name, at, f.Method)
		}
		if strings.HasPrefix(f.Name, "archive/data/") {
			seen++
		}
	}
	if seen != 8 { // nine tensors, two of them one storage
		t.Errorf("%d storages", seen)
	}
}

func TestSaveAndOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "best_model.pth")
	info, err := checkpoint.Save(path, training())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != info.Bytes || len(info.SHA256) != 64 {
		t.Fatalf("%+v, %v", info, err)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if text(m.Root) != text(training()) {
		t.Error("mapped value differs")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// A value that cannot be stored leaves the old file and no other.
	if _, err := checkpoint.Save(path, checkpoint.NewDict().Set("bad", struct{}{})); err == nil || !strings.Contains(err.Error(), "bad") {
		t.Errorf("error %v should name the key", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := checkpoint.Open(path); err != nil {
		t.Error(err)
	}
}

func TestSaveOnFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkpoint.Write(f, training()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	loop := &checkpoint.List{}
	loop.Items = append(loop.Items, loop)
	for name, v := range map[string]checkpoint.Value{
		"unknown kind": []int{1},
		"cycle":        loop,
		"short tensor": &checkpoint.Tensor{DType: checkpoint.F32, Shape: []int64{3}, Data: make([]byte, 11)},
		"no dtype":     &checkpoint.Tensor{Shape: []int64{0}},
		"negative":     &checkpoint.Tensor{DType: checkpoint.U8, Shape: []int64{-1, -1}, Data: []byte{1}},
		"not text":     "\xff",
	} {
		if err := checkpoint.Write(&bytes.Buffer{}, v); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func TestStateDict(t *testing.T) {
	tensors, err := checkpoint.StateDict(training())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range tensors {
		names = append(names, x.Name)
	}
	if want := []string{"conv1.weight", "bn1.num_batches_tracked", "tied.weight"}; !reflect.DeepEqual(names, want) {
		t.Errorf("names %v", names)
	}
	one := checkpoint.NewF32([]float32{1}, 1)
	for _, c := range []struct {
		root checkpoint.Value
		want string // first name, or a part of the error
	}{
		{checkpoint.NewOrderedDict().Set("fc.bias", one), "fc.bias"},
		{checkpoint.NewOrderedDict().Set("module.fc.bias", one).Set("module.x", one), "fc.bias"},
		{checkpoint.NewOrderedDict().Set("module.fc.bias", one).Set("x", one), "fc.bias"},
		{checkpoint.NewOrderedDict().Set("module.fc.bias", one).Set("fc.bias", one), "one name without what wraps"},
		{checkpoint.NewDict().Set("model", checkpoint.NewDict().Set("_orig_mod.module.w", one)), "w"},
		{checkpoint.NewDict().Set("state_dict", checkpoint.NewDict().Set("w", one)), "w"},
		{checkpoint.NewDict().Set("state_dict", checkpoint.NewDict().Set("w", "text")), `"w" is a string`},
		{checkpoint.NewDict(), "empty"},
		{checkpoint.NewDict().Set("epoch", 1), "no model_state_dict"},
		{"text", "contains a string"},
	} {
		got, err := checkpoint.StateDict(c.root)
		switch {
		case err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("want %q, got error %v", c.want, err)
		case err == nil && got[0].Name != c.want:
			t.Errorf("want %q, got %q", c.want, got[0].Name)
		}
	}
	back := checkpoint.FromStateDict(tensors)
	if !back.Ordered || back.Len() != 3 {
		t.Errorf("%v", back)
	}
}

func TestNumbers(t *testing.T) {
	h := &checkpoint.Tensor{DType: checkpoint.F16, Shape: []int64{6}, Data: []byte{
		0, 0x3c, 0, 0xc0, 1, 0, 0, 0x7c, 0xff, 0x7b, 0, 0x80}}
	got, err := h.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{1, -2, 1.0 / (1 << 24), float32(math.Inf(1)), 65504, float32(math.Copysign(0, -1))}
	if !reflect.DeepEqual(got, want) || !math.Signbit(float64(got[5])) {
		t.Errorf("half: %v", got)
	}
	i := &checkpoint.Tensor{DType: checkpoint.I16, Shape: []int64{2}, Data: []byte{0xff, 0xff, 2, 0}}
	if n, err := i.Int64s(); err != nil || n[0] != -1 || n[1] != 2 {
		t.Errorf("%v %v", n, err)
	}
	if _, err := h.Int64s(); err == nil {
		t.Error("half floats were taken for integers")
	}
}

// TestIndependentReader has gopickle, which shares no code with this package, read what was written.
func TestIndependentReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.pth")
	in := checkpoint.NewOrderedDict().
		Set("w", checkpoint.NewF32([]float32{1, 2, 3, 4}, 2, 2)).
		Set("n", checkpoint.NewI64([]int64{9}))
	if _, err := checkpoint.Save(path, in); err != nil {
		t.Fatal(err)
	}
	v, err := pytorch.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	d := v.(*types.OrderedDict)
	w := d.MustGet("w").(*pytorch.Tensor)
	if got := w.Source.(*pytorch.FloatStorage).Data; !reflect.DeepEqual(got, []float32{1, 2, 3, 4}) || !reflect.DeepEqual(w.Size, []int{2, 2}) {
		t.Errorf("w = %v %v", w.Size, got)
	}
	n := d.MustGet("n").(*pytorch.Tensor)
	if got := n.Source.(*pytorch.LongStorage).Data; !reflect.DeepEqual(got, []int64{9}) || len(n.Size) != 0 {
		t.Errorf("n = %v %v", n.Size, got)
	}
}

func BenchmarkWrite(b *testing.B) {
	v := checkpoint.FromStateDict([]checkpoint.Tensor{{Name: "w", DType: checkpoint.F32, Shape: []int64{16 << 20}, Data: make([]byte, 64<<20)}})
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if err := checkpoint.Write(discard{}, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	file := write(b, checkpoint.FromStateDict([]checkpoint.Tensor{{Name: "w", DType: checkpoint.F32, Shape: []int64{16 << 20}, Data: make([]byte, 64<<20)}}))
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		read(b, file)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
