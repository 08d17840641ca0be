package weights_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/tuner/weights"
)

func state() []checkpoint.Tensor {
	w, n, b := checkpoint.NewF32([]float32{1, 2, 3, 4}, 2, 2), checkpoint.NewI64([]int64{3}), checkpoint.NewU8([]byte{1, 2, 3})
	w.Name, n.Name, b.Name = "fc.weight", "bn1.num_batches_tracked", "a.mask"
	n.Shape = nil
	return []checkpoint.Tensor{*n, *b, *w}
}

func listing(tensors []checkpoint.Tensor) string {
	var s strings.Builder
	for _, t := range tensors {
		fmt.Fprintf(&s, "%s %v %d %v %x\n", t.Name, t.DType, len(t.Shape), t.Shape, t.Data)
	}
	return s.String()
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

func save(t *testing.T, path string, root checkpoint.Value) {
	t.Helper()
	if _, err := checkpoint.Save(path, root); err != nil {
		t.Fatal(err)
	}
}

func TestConvertBareState(t *testing.T) {
	dir := t.TempDir()
	pth, st, back := filepath.Join(dir, "a.pth"), filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.PT")
	save(t, pth, checkpoint.FromStateDict(state()))
	got, err := weights.Convert(pth, st)
	if err != nil || got.From != checkpoint.Zip || got.To != checkpoint.Safetensors || got.Tensors != 3 || got.Values != 8 || len(got.Dropped) > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if a, b := listing(state()), listing(open(t, st).Tensors); a != b {
		t.Errorf("in:\n%sout:\n%s", a, b)
	}
	if m := open(t, st).Metadata; fmt.Sprint(m) != "map[format:pt]" {
		t.Errorf("metadata %v", m)
	}
	if _, err := weights.Convert(st, back); err != nil {
		t.Fatal(err)
	}
	a, err1 := os.ReadFile(pth)
	b, err2 := os.ReadFile(back)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("there and back: %d and %d bytes differ (%v, %v)", len(a), len(b), err1, err2)
	}
}

// TestConvertTrainingDictionary: what says which model it is goes along in both directions, in order.
func TestConvertTrainingDictionary(t *testing.T) {
	dir := t.TempDir()
	pth, st, back := filepath.Join(dir, "a.pth"), filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "b.pth")
	save(t, pth, checkpoint.NewDict().Set("epoch", int64(3)).Set("model_state_dict", checkpoint.FromStateDict(state())).
		Set("optimizer_state_dict", checkpoint.NewDict()).Set("arch", "resnet18").
		Set("class_to_idx", checkpoint.NewDict().Set("tudor", int64(0)).Set(`gothic "north"`, int64(1))))
	got, err := weights.Convert(pth, st)
	if err != nil || strings.Join(got.Dropped, " ") != "epoch optimizer_state_dict" {
		t.Fatalf("%+v, %v", got, err)
	}
	if m := open(t, st).Metadata; m["arch"] != "resnet18" || m["class_to_idx"] != `{"tudor":0,"gothic \"north\"":1}` {
		t.Errorf("metadata %v", m)
	}
	if got, err = weights.Convert(st, back); err != nil || len(got.Dropped) > 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	s := open(t, back)
	root := s.Root.(*checkpoint.Dict)
	classes, _ := checkpoint.Lookup[*checkpoint.Dict](root, "class_to_idx")
	arch, _ := checkpoint.Lookup[string](root, "arch")
	if arch != "resnet18" || fmt.Sprint(classes.Items()) != `[{tudor 0} {gothic "north" 1}]` || listing(s.Tensors) != listing(state()) {
		t.Errorf("arch %q, classes %v\n%s", arch, classes.Items(), listing(s.Tensors))
	}
}

func TestConvertRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	save(t, at("a.pth"), checkpoint.FromStateDict(state()))
	save(t, at("list.pth"), &checkpoint.List{})
	save(t, at("classes.pth"), checkpoint.NewDict().Set("model", checkpoint.FromStateDict(state())).
		Set("class_to_idx", checkpoint.NewDict().Set("a", "b")))
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
		{"classes.pth", "x.safetensors", "class_to_idx"},
		{"bad.safetensors", "x.pth", "class_to_idx"},
		{"a.pth", "none/x.pth", "no such file"},
	} {
		if _, err := weights.Convert(at(c.in), at(c.out)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: error %v should speak of %q", c.in, c.out, err, c.want)
		}
		if _, err := os.Stat(at("x.pth")); err == nil {
			t.Errorf("%s to %s: something was written", c.in, c.out)
		}
	}
}
