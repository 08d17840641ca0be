//go:build libtorch

package explain_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/explain"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

const classes, images, size = 4, 3, 64

func TestMain(m *testing.M) {
	if err := torchx.Init(); err != nil {
		panic(err)
	}
	torchx.SetThreads(1)
	os.Exit(m.Run())
}

// newModel draws weights and takes one training batch, so that running
// statistics are not trivial.
func newModel(t *testing.T, arch string, channelsLast bool) *model.Model {
	t.Helper()
	if err := torchx.Seed(5); err != nil {
		t.Fatal(err)
	}
	m, err := model.New(arch, model.Options{Classes: classes, Dropout: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	x := input(t, noise(7, 8), 8, false)
	err = torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{Training: true}
			defer p.Close()
			m.Forward(p, x)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Move(torchx.CPU, channelsLast); err != nil {
		t.Fatal(err)
	}
	return m
}

func noise(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n*3*size*size)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func input(t *testing.T, v []float32, n int, channelsLast bool) torchx.Tensor {
	t.Helper()
	x, err := torchx.FromFloats(v, int64(n), 3, size, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { torchx.Free(x) })
	if err := torchx.Move(x, torchx.CPU, channelsLast); err != nil {
		t.Fatal(err)
	}
	return x
}

func apart(a []float32, b []float64) (worst float64) {
	for i := range a {
		worst = math.Max(worst, math.Abs(float64(a[i])-b[i]))
	}
	return worst
}

// Maps, predictions and quality passes of a batch are those PyTorch finds with
// hooks, image by image and class by class, for each family.
func TestAgreesWithHooks(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch, torchvision").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wanted := [][]int{{2, 0, 1}, {3}, {0, 1}}
	for _, arch := range []string{"vanilla", "resnet18", "resnet50", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "vgg11"} {
		dir := t.TempDir()
		m := newModel(t, arch, true)
		state, err := m.Export(&model.Stage{})
		if err != nil {
			t.Fatal(err)
		}
		dict := &checkpoint.Dict{}
		for i := range state {
			dict.Set(state[i].Name, &state[i])
		}
		f, err := os.Create(filepath.Join(dir, "weights.pth"))
		if err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.Write(f, dict); err != nil {
			t.Fatal(err)
		}
		f.Close()
		values := noise(3, images)
		var raw []byte
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		b, _ := json.Marshal(wanted)
		for name, content := range map[string][]byte{"input.f32": raw, "classes.json": b} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(python, "testdata/peer.py", arch, "4", dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(arch, err)
		}
		var want struct {
			Probs        [][]float64
			Maps         [][][]float64
			Only, Hidden []float64
		}
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}

		e, err := explain.New(m, torchx.FP32)
		if err != nil {
			t.Fatal(err)
		}
		x := input(t, values, images, true)
		looks, err := e.Explain(x, func(i int, _ []float64) []int { return wanted[i] })
		if err != nil {
			t.Fatal(arch, err)
		}
		var maps []cam.Map
		var first []int
		var probs [][]float64
		worst := 0.0
		for i, l := range looks {
			if len(l.Maps) != len(wanted[i]) {
				t.Fatalf("%s: %d maps of image %d", arch, len(l.Maps), i)
			}
			for k := range l.Probs {
				if d := math.Abs(l.Probs[k] - want.Probs[i][k]); d > 1e-4 {
					t.Errorf("%s: image %d, class %d: %v, PyTorch %v", arch, i, k, l.Probs[k], want.Probs[i][k])
				}
			}
			for k := range l.Maps {
				scaled := l.Maps[k].Scaled().Resized(size, size)
				if k == 0 {
					maps, first, probs = append(maps, scaled), append(first, wanted[i][0]), append(probs, l.Probs)
				}
				worst = math.Max(worst, apart(scaled.Values, want.Maps[i][k]))
			}
		}
		t.Logf("%s: maps apart by at most %.2g", arch, worst)
		if worst > 1e-3 {
			t.Errorf("%s: maps differ by %g", arch, worst)
		}
		quality, err := e.Qualities(x, maps, first, probs)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range quality {
			if math.Abs(q.Only-want.Only[i]) > 1e-3 || math.Abs(q.Hidden-want.Hidden[i]) > 1e-3 || q.Full != probs[i][q.Class] {
				t.Errorf("%s, image %d: %+v, PyTorch %v %v", arch, i, q, want.Only[i], want.Hidden[i])
			}
		}
		again, err := e.Predict(x)
		if err != nil {
			t.Fatal(err)
		}
		for i := range again {
			for k := range again[i] {
				if math.Abs(again[i][k]-probs[i][k]) > 1e-6 {
					t.Errorf("%s: predicting says %v, explaining %v", arch, again[i], probs[i])
				}
			}
		}
	}
}

// Behind global average pooling and one linear layer Grad-CAM at the last
// convolution is the class activation map itself: sum_k W[c,k] A_k / (H W)
// (Zhou et al., arXiv 1512.04150).
func TestIsTheClassActivationMap(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, arch := range []string{"resnet18", "mobilenet_v2", "efficientnet_b0"} {
		m := newModel(t, arch, false)
		e, err := explain.New(m, torchx.FP32)
		if err != nil {
			t.Fatal(err)
		}
		head, err := nn.Find(m.Root, m.Head)
		if err != nil {
			t.Fatal(err)
		}
		weight, err := torchx.Floats(head.(*nn.Linear).Weight)
		if err != nil {
			t.Fatal(err)
		}
		target, err := nn.Find(m.Root, m.CAM)
		if err != nil {
			t.Fatal(err)
		}
		x := input(t, noise(3, images), images, false)
		looks, err := e.Explain(x, func(int, []float64) []int { return []int{1, 3} })
		if err != nil {
			t.Fatal(err)
		}
		var activation []float32
		var shape []int64
		err = torchx.Catch(func() error {
			return torchx.NoGrad(func() error {
				p := &nn.Pass{}
				defer p.Close()
				p.Watch(target)
				m.Forward(p, x)
				a, _ := p.Watched(target)
				info, err := torchx.Describe(a)
				if err != nil {
					return err
				}
				shape = info.Shape
				activation, err = torchx.Floats(a)
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		k, area := int(shape[1]), int(shape[2]*shape[3])
		for i, l := range looks {
			for j, class := range []int{1, 3} {
				for at, v := range l.Maps[j].Values {
					sum := 0.0
					for c := range k {
						sum += float64(weight[class*k+c]) * float64(activation[(i*k+c)*area+at])
					}
					if want := math.Max(sum, 0) / float64(area); math.Abs(float64(v)-want) > 1e-5 {
						t.Fatalf("%s, image %d, class %d, place %d: %v, want %v", arch, i, class, at, v, want)
					}
				}
			}
		}
	}
}

// bfloat16 gives the same image with fewer digits: predictions, maps and
// quality near those of float32, for a network with each kind of layer.
func TestLowPrecision(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, arch := range []string{"resnet18", "mobilenet_v2", "vanilla"} {
		m := newModel(t, arch, true)
		x := input(t, noise(5, images), images, true)
		var looks [2][]explain.Look
		var quality [2][]explain.Quality
		for i, precision := range []torchx.Precision{torchx.FP32, torchx.BF16} {
			e, err := explain.New(m, precision)
			if err != nil {
				t.Fatal(err)
			}
			if looks[i], err = e.Explain(x, func(int, []float64) []int { return []int{2} }); err != nil {
				t.Fatalf("%s: %v", arch, err)
			}
			var maps []cam.Map
			var chosen []int
			var probs [][]float64
			for k, l := range looks[i] {
				maps, chosen = append(maps, looks[0][k].Maps[0].Scaled().Resized(size, size)), append(chosen, 2)
				probs = append(probs, l.Probs)
			}
			if quality[i], err = e.Qualities(x, maps, chosen, probs); err != nil {
				t.Fatalf("%s: %v", arch, err)
			}
		}
		for k := range looks[0] {
			for c, p := range looks[0][k].Probs {
				if d := math.Abs(looks[1][k].Probs[c] - p); d > 0.03 {
					t.Errorf("%s, image %d, class %d: %v in bf16, %v in fp32", arch, k, c, looks[1][k].Probs[c], p)
				}
			}
			var top, off float32
			for at, v := range looks[0][k].Maps[0].Values {
				top, off = max(top, v), max(off, float32(math.Abs(float64(v-looks[1][k].Maps[0].Values[at]))))
			}
			if off > 0.1*top+1e-4 {
				t.Errorf("%s, image %d: maps differ by %v of %v", arch, k, off, top)
			}
			a, b := quality[0][k], quality[1][k]
			if math.Abs(a.Only-b.Only) > 0.03 || math.Abs(a.Hidden-b.Hidden) > 0.03 {
				t.Errorf("%s, image %d: %+v in bf16, %+v in fp32", arch, k, b, a)
			}
		}
	}
}

// Every architecture has a layer that can be looked at.
func TestEveryArchitecture(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, arch := range model.Names() {
		m, err := model.New(arch, model.Options{Classes: classes, Dropout: -1})
		if err != nil {
			t.Fatal(err)
		}
		e, err := explain.New(m, torchx.FP32)
		if err != nil {
			t.Fatal(err)
		}
		looks, err := e.Explain(input(t, noise(3, 1), 1, false), func(int, []float64) []int { return []int{0} })
		if err != nil || len(looks) != 1 || len(looks[0].Maps) != 1 || len(looks[0].Maps[0].Values) == 0 {
			t.Errorf("%s: %v %v", arch, looks, err)
		}
		if _, err := e.Explain(input(t, noise(3, 1), 1, false), func(int, []float64) []int { return []int{classes} }); err == nil {
			t.Errorf("%s: an unknown class was explained", arch)
		}
		m.Free()
	}
}
