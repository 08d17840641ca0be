package checkpoint_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"

	"github.com/nlpodyssey/gopickle/pytorch"
	"github.com/nlpodyssey/gopickle/types"
)

func save(t *testing.T, path string, root checkpoint.Value) {
	t.Helper()
	if _, err := checkpoint.Save(path, root); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string) *checkpoint.State {
	t.Helper()
	s, err := checkpoint.OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// untied is the state without the tensor that shares memory: safetensors knows no sharing.
func untied() []checkpoint.Tensor {
	return slices.DeleteFunc(state(), func(x checkpoint.Tensor) bool { return x.Name == "tied.weight" })
}

// trained is a checkpoint as the trainer writes it.
func trained() *checkpoint.Dict {
	list := func(x ...checkpoint.Value) *checkpoint.List { return &checkpoint.List{Items: x} }
	return checkpoint.NewDict().
		Set("epoch", 3).
		Set("arch", "resnet18").
		Set("model_state_dict", checkpoint.FromStateDict(untied())).
		Set("optimizer_state_dict", checkpoint.NewDict().Set("state", checkpoint.NewDict())).
		Set("best_val_loss", 0.1).
		Set("class_to_idx", checkpoint.NewDict().Set(`gothic "north"`, 1).Set("tudor", 0)).
		Set("config", checkpoint.NewDict().Set("lr", 1e-3).Set("image_size", 64).Set("augment", true).Set("weights", "a\nb").Set("rest", list(nil, 2.5, "x"))).
		Set("atelier", checkpoint.NewDict().Set("mean", list(0.485, 0.456, 0.406)).Set("std", list(0.229, 0.224, 0.225)).Set("rng", checkpoint.NewU8([]byte{1})))
}

func said() checkpoint.Model {
	loss := 0.1
	return checkpoint.Model{Arch: "resnet18", Classes: []string{"tudor", `gothic "north"`}, ImageSize: 64, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225},
		Epoch: 3, BestValLoss: &loss, Config: `{"lr":0.001,"image_size":64,"augment":true,"weights":"a\nb","rest":[null,2.5,"x"]}`}
}

// TestExport: what a training checkpoint says of its model is in the model file, digit for digit, whatever form
// it takes on the way.
func TestExport(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	save(t, at("epoch.pth"), trained())
	for _, c := range []struct{ in, out, dropped string }{
		{"epoch.pth", "best_model.pth", "optimizer_state_dict atelier"},
		{"best_model.pth", "m.safetensors", ""},
		{"m.safetensors", "again.pth", ""},
		{"epoch.pth", "direct.safetensors", "optimizer_state_dict atelier"},
	} {
		got, err := checkpoint.Export(at(c.in), at(c.out), false)
		if err != nil || strings.Join(got.Dropped, " ") != c.dropped || got.Tensors != len(untied()) || !reflect.DeepEqual(got.Model, said()) {
			t.Fatalf("%s to %s: %+v, %v", c.in, c.out, got, err)
		}
		s := open(t, at(c.out))
		if m, err := s.Model(); err != nil || !reflect.DeepEqual(m, said()) {
			t.Errorf("%s says %+v, %v", c.out, m, err)
		}
		if listing(s.Tensors) != listing(untied()) {
			t.Errorf("%s:\n%s", c.out, listing(s.Tensors))
		}
	}
	a, err1 := os.ReadFile(at("best_model.pth"))
	b, err2 := os.ReadFile(at("again.pth"))
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("there and back: %d and %d bytes differ (%v, %v)", len(a), len(b), err1, err2)
	}
	if !json.Valid([]byte(said().Config)) {
		t.Error("config is no JSON")
	}
	got, err := checkpoint.Export(at("epoch.pth"), at("bare.pth"), true)
	root, _ := open(t, at("bare.pth")).Root.(*checkpoint.Dict)
	if err != nil || !root.Ordered || root.Len() != len(untied()) || len(got.Dropped) != 7 {
		t.Errorf("bare: %+v, %v", got, err)
	}
}

// TestPyTorchReadsModelFile with the strictest reader there is, that of PyTorch 1.13, which knows no floats.
func TestPyTorchReadsModelFile(t *testing.T) {
	dir := t.TempDir()
	save(t, filepath.Join(dir, "epoch.pth"), trained())
	for _, bare := range []bool{false, true} {
		if _, err := checkpoint.Export(filepath.Join(dir, "epoch.pth"), filepath.Join(dir, fmt.Sprint(bare, ".pth")), bare); err != nil {
			t.Fatal(err)
		}
	}
	python(t, `
import sys, torch, json, collections
dir = sys.argv[1]
try:
    torch.load(dir + '/epoch.pth', weights_only=True)
    assert not torch.__version__.startswith('1.'), 'the reader takes the training checkpoint: nothing is shown here'
except Exception as e:
    assert 'Unsupported operand' in str(e), e
c = torch.load(dir + '/false.pth', weights_only=True)
assert list(c) == ['model_state_dict', 'arch', 'class_to_idx', 'num_classes', 'image_size', 'normalisation', 'epoch', 'best_val_loss', 'config'], list(c)
assert c['class_to_idx'] == {'tudor': 0, 'gothic "north"': 1} and c['num_classes'] == 2 and c['arch'] == 'resnet18' and c['epoch'] == 3 and c['image_size'] == 64
n = c['normalisation']
assert n['mean'].dtype is torch.float64 and n['mean'].tolist() == [0.485, 0.456, 0.406] and n['std'].tolist() == [0.229, 0.224, 0.225]
assert c['best_val_loss'].shape == () and c['best_val_loss'].item() == 0.1
assert json.loads(c['config']) == {'lr': 0.001, 'image_size': 64, 'augment': True, 'weights': 'a\nb', 'rest': [None, 2.5, 'x']}
bare = torch.load(dir + '/true.pth', weights_only=True)
assert type(bare) is collections.OrderedDict and type(c['model_state_dict']) is collections.OrderedDict
want = torch.load(dir + '/epoch.pth')['model_state_dict']
for got in (bare, c['model_state_dict']):
    assert list(got) == list(want) and all(got[k].dtype == want[k].dtype and repr(got[k]) == repr(want[k]) for k in want)
`, dir)
}

// TestIndependentReaderTakesModelFile: gopickle shares no code with this package.
func TestIndependentReaderTakesModelFile(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "epoch.pth"), filepath.Join(dir, "best_model.pth")
	weight := checkpoint.NewF32([]float32{1, 2, 3, 4}, 2, 2)
	save(t, in, trained().Set("model_state_dict", checkpoint.NewOrderedDict().Set("fc.weight", weight)))
	if _, err := checkpoint.Export(in, out, false); err != nil {
		t.Fatal(err)
	}
	v, err := pytorch.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	d := v.(*types.Dict)
	w := d.MustGet("model_state_dict").(*types.OrderedDict).MustGet("fc.weight").(*pytorch.Tensor)
	if got := w.Source.(*pytorch.FloatStorage).Data; !reflect.DeepEqual(got, []float32{1, 2, 3, 4}) {
		t.Errorf("fc.weight = %v", got)
	}
	loss := d.MustGet("best_val_loss").(*pytorch.Tensor)
	if got := loss.Source.(*pytorch.DoubleStorage).Data; len(loss.Size) != 0 || !reflect.DeepEqual(got, []float64{0.1}) {
		t.Errorf("best_val_loss = %v %v", loss.Size, got)
	}
	if n := d.MustGet("class_to_idx").(*types.Dict).MustGet("tudor"); n != 0 {
		t.Errorf("tudor is class %v", n)
	}
}

func TestExportBareState(t *testing.T) {
	dir := t.TempDir()
	pth, st, back := filepath.Join(dir, "a.pth"), filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.PT")
	save(t, pth, checkpoint.FromStateDict(untied()))
	got, err := checkpoint.Export(pth, st, false)
	if err != nil || got.From != checkpoint.Zip || got.To != checkpoint.Safetensors || len(got.Dropped) > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if m := open(t, st).Metadata; fmt.Sprint(m) != "map[format:pt]" {
		t.Errorf("metadata %v", m)
	}
	if _, err := checkpoint.Export(st, back, false); err != nil {
		t.Fatal(err)
	}
	a, err1 := os.ReadFile(pth)
	b, err2 := os.ReadFile(back)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("there and back: %d and %d bytes differ (%v, %v)", len(a), len(b), err1, err2)
	}
}

// A run that has no loss yet, or settings without a form in JSON, still has its model; what is left out is named.
func TestExportNamesWhatHasNoForm(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.pth"), filepath.Join(dir, "b.pth")
	save(t, in, trained().Set("best_val_loss", math.Inf(1)).Set("config", checkpoint.NewDict().Set("lr", math.NaN()).Set("image_size", 96)).Set("epoch", "three"))
	got, err := checkpoint.Export(in, out, false)
	if err != nil || strings.Join(got.Dropped, " ") != "epoch optimizer_state_dict best_val_loss config atelier" || got.Model.ImageSize != 96 || got.Model.Arch != "resnet18" {
		t.Errorf("%+v, %v", got, err)
	}
	if m, err := open(t, out).Model(); err != nil || m.BestValLoss != nil || m.Config != "" || m.Epoch != 0 || m.ImageSize != 96 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestExportRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	save(t, at("a.pth"), checkpoint.FromStateDict(untied()))
	save(t, at("list.pth"), &checkpoint.List{})
	classes := func(d *checkpoint.Dict) *checkpoint.Dict { return trained().Set("class_to_idx", d) }
	save(t, at("word.pth"), classes(checkpoint.NewDict().Set("a", "b")))
	save(t, at("gap.pth"), classes(checkpoint.NewDict().Set("a", 0).Set("b", 2)))
	save(t, at("twice.pth"), classes(checkpoint.NewDict().Set("a", 0).Set("b", 0)))
	save(t, at("count.pth"), trained().Set("num_classes", 5))
	save(t, at("std.pth"), trained().Set("normalisation", checkpoint.NewDict().Set("mean", checkpoint.NewF64([]float64{0.5}, 1)).Set("std", checkpoint.NewF64([]float64{0}, 1))))
	if _, err := checkpoint.SaveSafetensors(at("bad.safetensors"), state(), map[string]string{"class_to_idx": `{"a":1.5}`}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(at("a.pth"), at("link.safetensors")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ in, out, want string }{
		{"a.pth", "a.onnx", ".safetensors"},
		{"a.pth", "link.safetensors", "same file"},
		{"none.pth", "x.pth", "no such file"},
		{"list.pth", "x.safetensors", "state_dict"},
		{"word.pth", "x.safetensors", "class_to_idx"},
		{"gap.pth", "x.pth", "numbers from 0 to 1, each once"},
		{"twice.pth", "x.pth", "class_to_idx"},
		{"count.pth", "x.pth", "num_classes is 5, class_to_idx has 2"},
		{"std.pth", "x.pth", "std [0]"},
		{"bad.safetensors", "x.pth", "class_to_idx"},
		{"a.pth", "none/x.pth", "no such file"},
	} {
		if _, err := checkpoint.Export(at(c.in), at(c.out), false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: error %v should speak of %q", c.in, c.out, err, c.want)
		}
		if left, _ := filepath.Glob(at("*x.*")); len(left) > 0 {
			t.Errorf("%s to %s: %v was written", c.in, c.out, left)
		}
	}
}

// TestExportStreams: tensors' bytes pass through, they are not gathered.
func TestExportStreams(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.pth"), filepath.Join(dir, "b.pth")
	save(t, in, trained().Set("model_state_dict", checkpoint.NewOrderedDict().
		Set("w", &checkpoint.Tensor{DType: checkpoint.F32, Shape: []int64{16 << 20}, Data: make([]byte, 64<<20)})))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := checkpoint.Export(in, out, false); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes were allocated for a file of 64 MiB", used)
	}
}
