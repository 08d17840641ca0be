//go:build libtorch

package main_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// onnxRuntime is a Node.js process with onnxruntime (testdata/onnxruntime).
type onnxRuntime struct {
	in      *json.Encoder
	answers *bufio.Scanner
}

type onnxAnswer struct {
	Error           string
	Inputs, Outputs []string
	Shape           []int64
	Logits          []float32
}

// startONNXRuntime installs the packages of the lock file, once for all runs of the tests, and starts the process.
func startONNXRuntime(t *testing.T) *onnxRuntime {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s, which onnxruntime's library comes by: apt-get install nodejs npm", program)
		}
	}
	here, err := filepath.Abs("testdata/onnxruntime")
	must(t, err)
	folder, err := filepath.Abs("../../build/onnxruntime")
	must(t, err)
	must(t, os.MkdirAll(folder, 0o755))
	fresh := true
	for _, name := range []string{"package.json", "package-lock.json"} {
		want, err := os.ReadFile(filepath.Join(here, name))
		must(t, err)
		if have, _ := os.ReadFile(filepath.Join(folder, name)); string(have) != string(want) {
			fresh = false
			must(t, os.WriteFile(filepath.Join(folder, name), want, 0o644))
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules/onnxruntime-node/package.json")); err != nil || !fresh {
		// The package's install script fetches GPU libraries from elsewhere; nothing here needs them.
		install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		install.Dir = folder
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm ci in %s: %v\n%s", folder, err, out)
		}
	}
	cmd := exec.Command("node", filepath.Join(here, "answer.cjs"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(folder, "node_modules"))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("onnxruntime's process:", err)
		}
	})
	r := &onnxRuntime{in: json.NewEncoder(stdin), answers: bufio.NewScanner(stdout)}
	r.answers.Buffer(nil, 1<<20)
	return r
}

func (r *onnxRuntime) ask(t *testing.T, file, input string, shape ...int64) onnxAnswer {
	t.Helper()
	must(t, r.in.Encode(map[string]any{"model": file, "input": input, "shape": shape}))
	if !r.answers.Scan() {
		t.Fatal("onnxruntime's process ended:", r.answers.Err())
	}
	var a onnxAnswer
	must(t, json.Unmarshal(r.answers.Bytes(), &a))
	if a.Error != "" {
		t.Fatal("onnxruntime:", a.Error)
	}
	return a
}

// Every architecture computes the same in onnxruntime as here, whatever the number of images and their size.
func TestONNXOfEveryArchitecture(t *testing.T) {
	ort := startONNXRuntime(t)
	const classes = 5
	for _, arch := range model.Names() {
		sides := []int64{64}
		if arch == "vanilla" || arch == "resnet18" || arch == "vgg11" {
			sides = append(sides, 224) // of vgg: the pooling's windows are equal there
		}
		t.Run(arch, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			must(t, torchx.SetThreads(1))
			must(t, torchx.Seed(3))
			m, err := model.New(arch, model.Options{Classes: classes, Dropout: -1})
			must(t, err)
			defer m.Free()
			r := rand.New(rand.NewPCG(1, 2))
			unsettle(t, m, r)
			for _, side := range sides {
				dir := t.TempDir()
				file := filepath.Join(dir, "model.onnx")
				f, err := os.Create(file)
				must(t, err)
				must(t, m.WriteONNX(f, int(side), checkpoint.Model{Arch: arch}))
				must(t, f.Close())
				for _, images := range []int64{1, 3} {
					x := make([]float32, images*3*side*side)
					for i := range x {
						x[i] = float32(r.NormFloat64())
					}
					input := filepath.Join(dir, "input")
					must(t, os.WriteFile(input, floatBytes(x), 0o644))
					want := evaluate(t, m, x, images, 3, side, side)
					got := ort.ask(t, file, input, images, 3, side, side)
					if !slices.Equal(got.Shape, []int64{images, classes}) || !slices.Equal(got.Inputs, []string{"images"}) || !slices.Equal(got.Outputs, []string{"logits"}) {
						t.Fatalf("onnxruntime answers %v to %v with shape %v", got.Outputs, got.Inputs, got.Shape)
					}
					largest, off := 0.0, 0.0
					for i := range want {
						largest = max(largest, math.Abs(float64(want[i])))
						off = max(off, math.Abs(float64(want[i]-got.Logits[i])))
					}
					if bound := 1e-5 * max(1, largest); !(off <= bound) {
						t.Errorf("%d images of %d px: logits differ by %.3g, more than %.3g\n%v\n%v", images, side, off, bound, want, got.Logits)
					}
				}
				must(t, os.Remove(file)) // half a gigabyte of some
			}
		})
	}
}

// unsettle gives normalisations statistics and factors that are not those of a new network, so that a mistake in them
// shows.
func unsettle(t *testing.T, m *model.Model, r *rand.Rand) {
	t.Helper()
	for _, e := range m.State() {
		if e.Kind == nn.Counter {
			continue
		}
		i, err := torchx.Describe(e.Tensor)
		must(t, err)
		if len(i.Shape) != 1 {
			continue
		}
		from, span := -0.1, 0.2
		switch { // small variances, or eps could be anything
		case strings.HasSuffix(e.Name, "running_var"):
			from, span = 0.02, 0.03
		case strings.HasSuffix(e.Name, ".weight"):
			from, span = 0.12, 0.16
		}
		v := make([]float32, i.Len())
		for k := range v {
			v[k] = float32(from + span*r.Float64())
		}
		must(t, torchx.Fill(e.Tensor, floatBytes(v)))
	}
}

func floatBytes(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func evaluate(t *testing.T, m *model.Model, x []float32, shape ...int64) (out []float32) {
	t.Helper()
	must(t, torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			p := &nn.Pass{}
			defer p.Close()
			in, err := torchx.FromFloats(x, shape...)
			if err != nil {
				return err
			}
			defer torchx.Free(in)
			out, err = torchx.Floats(m.Forward(p, in))
			return err
		})
	}))
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
