//go:build libtorch

package torchx_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"atelier/common/kernels"
	"atelier/worker/trainer/augment"
	"atelier/worker/trainer/torchx"
)

// torchvision asks testdata/augment.py, whose head says what there is to ask.
func torchvision(t *testing.T, asked map[string]any, answer any) {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import torch, torchvision").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	question, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "../testdata/augment.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(question), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("testdata/augment.py: %v", err)
	}
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatal(err)
	}
}

func toFloats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

func toBytes(v []float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// patchwork makes n images: flat patches of grey, pure colours, black, white,
// gradients and noise.
func patchwork(n, size int) []byte {
	draw := rand.New(rand.NewPCG(9, 9))
	var b []byte
	for i := range n {
		for y := range size {
			for x := range size {
				g := byte(x * 255 / (size - 1))
				switch (x/5 + y/5 + i) % 6 {
				case 0:
					b = append(b, g, g, g)
				case 1:
					b = append(b, 255, byte(y), 0)
				case 2:
					b = append(b, byte(draw.UintN(256)), byte(draw.UintN(256)), byte(draw.UintN(256)))
				case 3:
					b = append(b, g, byte(255-y), 30)
				case 4:
					b = append(b, byte(x%2)*255, byte(y%2)*255, byte(x%2)*255)
				default:
					b = append(b, 0, byte(i), 255-g)
				}
			}
		}
	}
	return b
}

var (
	unit  = []float32{1. / 255, 1. / 255, 1. / 255} // a byte to 0..1
	zero  = []float32{0, 0, 0}
	plain = [4]int32{0, 1, 2, 3}
)

// send brings images through a block and gives them back interleaved.
func send(t *testing.T, pixels []byte, n, size int, scale, shift []float32, ch torchx.Changes, set func(*torchx.Block)) []float32 {
	t.Helper()
	b, err := torchx.NewBlock(n, size, torchx.CPU)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	copy(b.Pixels, pixels)
	for i := range n {
		b.Labels[i], b.Others[i] = int64(i), int64(100+i)
	}
	if set != nil {
		set(b)
	}
	x, y, y2, err := b.Send(scale, shift, ch)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(x, y, y2)
	b.Free() // nothing that came out may hang on it
	for i, l := range []torchx.Tensor{y, y2} {
		got, err := torchx.Bytes(l)
		if err != nil {
			t.Fatal(err)
		}
		for k := range n {
			if v := binary.LittleEndian.Uint64(got[8*k:]); v != uint64(100*i+k) {
				t.Fatalf("label %d of row %d is %d", k, i, v)
			}
		}
	}
	if yes, err := torchx.IsChannelsLast(x); err != nil || yes != ch.ChannelsLast {
		t.Errorf("layout channels_last is %v, %v", yes, err)
	}
	if info, err := torchx.Describe(x); err != nil || !slices.Equal(info.Shape, []int64{int64(n), 3, int64(size), int64(size)}) || info.DType != torchx.F32 {
		t.Fatalf("%+v, %v", info, err)
	}
	planes := values(t, x)
	out, count := make([]float32, len(planes)), size*size
	for i := range n {
		for c := range 3 {
			for p := range count {
				out[(i*count+p)*3+c] = planes[(i*3+c)*count+p]
			}
		}
	}
	return out
}

// apart is the largest difference, in levels of 0..255, of values in 0..1.
func apart(a, b []float32) float64 {
	worst := math.Inf(1)
	if len(a) == len(b) {
		worst = 0
		for i := range a {
			worst = max(worst, 255*math.Abs(float64(a[i])-float64(b[i])))
		}
	}
	return worst
}

// withOperators takes the kernel of images away for a test: the CPU then runs
// the operators that a GPU would.
func withOperators(t *testing.T, yes bool) {
	t.Helper()
	choice := "all"
	if yes {
		choice = "-augment"
	}
	useKernels(t, choice)
}

// useKernels chooses for a test.
func useKernels(t *testing.T, choice string) {
	t.Helper()
	on, err := kernels.Parse(choice)
	if err != nil {
		t.Fatal(err)
	}
	torchx.UseKernels(on)
	t.Cleanup(func() { torchx.UseKernels(kernels.Every) })
}

func TestBlockIsNormalised(t *testing.T) {
	lock(t)
	const n, size = 3, 17
	scale, shift := []float32{0.01, 0.02, 0.5}, []float32{-1, 0.25, 3}
	pixels := patchwork(n, size)
	var want []float32
	for i, p := range pixels {
		want = append(want, float32(p)*scale[i%3]+shift[i%3])
	}
	for _, ch := range []torchx.Changes{{}, {ChannelsLast: true}} {
		if got := send(t, pixels, n, size, scale, shift, ch, nil); !slices.Equal(got, want) {
			t.Errorf("%+v: values differ by %g levels", ch, apart(got, want))
		}
	}
	// Colours and warps that change nothing: the same but for rounding.
	for _, operators := range []bool{false, true} {
		withOperators(t, operators)
		ch := torchx.Changes{Warp: true, Colour: true, Order: plain}
		got := send(t, pixels, n, size, scale, shift, ch, func(b *torchx.Block) {
			for i := range n {
				b.SetWarp(i, 0, 0, size, size, false, 0)
				b.SetColour(i, 1, 1, 1, 0)
			}
		})
		if !near(got, want, 1e-3) {
			t.Errorf("operators %v: changes of nothing change values by %g levels", operators, apart(got, want))
		}
	}
	if _, err := torchx.NewBlock(0, size, torchx.CPU); err == nil {
		t.Error("a block of no images")
	}
}

func TestColoursAgainstTorchvision(t *testing.T) {
	lock(t)
	const n, size = 8, 32
	pixels := patchwork(n, size)
	factors := [][4]float64{{1, 1, 1, 0}, {1.4, 1, 1, 0}, {1, 0.3, 1, 0}, {1, 1, 1.9, 0}, {1, 1, 1, 0.31}, {0.2, 1.7, 0, -0.5}, {1.3, 0.8, 1.2, -0.07}, {0, 2, 2, 0.5}}
	orders := [][4]int32{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}}
	var answer struct{ Colour [][]byte }
	torchvision(t, map[string]any{"colour": map[string]any{"size": size, "pixels": pixels, "orders": orders, "factors": factors}}, &answer)
	for i, order := range orders {
		want := toFloats(answer.Colour[i])
		for _, operators := range []bool{false, true} {
			t.Run(fmt.Sprintf("order %v, operators %v", order, operators), func(t *testing.T) {
				withOperators(t, operators)
				got := send(t, pixels, n, size, unit, zero, torchx.Changes{Colour: true, Order: order}, func(b *torchx.Block) {
					for i, f := range factors {
						b.SetColour(i, f[0], f[1], f[2], f[3])
					}
				})
				worst := apart(got, want)
				t.Logf("differs by at most %.2g levels", worst)
				if !(worst <= 1e-2) {
					t.Errorf("differs by up to %g levels", worst)
				}
			})
		}
	}
}

func TestWarpAgainstTorchvision(t *testing.T) {
	lock(t)
	const size = 40
	// Parts and mirroring, then turns of the whole image: the two together are one sampling here, two there.
	boxes := [][6]float64{{0, 0, size, size, 0, 0}, {0, 0, size, size, 1, 0}, {3, 8, 21, 17, 0, 0}, {20, 1, 20, 39, 1, 0}, {39, 39, 1, 1, 0, 0},
		{0, 0, size, size, 0, 30}, {0, 0, size, size, 1, -17.5}, {0, 0, size, size, 0, 90}, {0, 0, size, size, 0, 180}, {0, 0, size, size, 1, 133}}
	n := len(boxes)
	pixels := patchwork(n, size)
	var answer struct{ Warp []byte }
	torchvision(t, map[string]any{"warp": map[string]any{"size": size, "pixels": pixels,
		"boxes": slices.Collect(func(yield func([]any) bool) {
			for _, b := range boxes {
				yield([]any{int(b[0]), int(b[1]), int(b[2]), int(b[3]), int(b[4]), b[5]})
			}
		})}}, &answer)
	want := toFloats(answer.Warp)
	for _, operators := range []bool{false, true} {
		withOperators(t, operators)
		got := send(t, pixels, n, size, unit, zero, torchx.Changes{Warp: true}, func(b *torchx.Block) {
			for i, c := range boxes {
				b.SetWarp(i, int(c[0]), int(c[1]), int(c[2]), int(c[3]), c[4] == 1, c[5])
			}
		})
		if len(got) != len(want) {
			t.Fatalf("%d values, torchvision's %d", len(got), len(want))
		}
		for i, b := range boxes {
			from, to := i*size*size*3, (i+1)*size*size*3
			if worst := apart(got[from:to], want[from:to]); !(worst <= 0.05) { // coordinates are float32, neighbours up to 255 apart
				t.Errorf("operators %v, %v: differs by up to %g levels", operators, b, worst)
			} else {
				t.Logf("operators %v, %v: differs by at most %.2g levels", operators, b, worst)
			}
		}
	}
}

// A padded crop through the device is the one the bytes get.
func TestWarpedPadding(t *testing.T) {
	lock(t)
	const n, size = 12, 24
	pixels := patchwork(n, size)
	indices := make([]int, n)
	for i := range indices {
		indices[i] = i
	}
	plan := augment.Standard(size).Draw(size, n, 1, 1, 1)
	bytes := make([]byte, len(pixels))
	plan.Gather(bytes, pixels, size, indices)
	var want []float32
	for _, b := range bytes {
		want = append(want, float32(b)/255)
	}
	for _, operators := range []bool{false, true} {
		withOperators(t, operators)
		got := send(t, pixels, n, size, unit, zero, torchx.Changes{Warp: true}, func(b *torchx.Block) {
			for i, c := range plan.Images {
				b.SetWarp(i, c.Left, c.Top, c.Width, c.Height, c.Flip, 0)
			}
		})
		if worst := apart(got, want); !(worst <= 0.01) {
			t.Errorf("operators %v: differs by up to %g levels", operators, worst)
		}
	}
}

// Everything at once: the loops of the CPU and the operators of a GPU agree.
func TestLoopsAndOperatorsAgree(t *testing.T) {
	lock(t)
	const n, size = 16, 32
	recipe := augment.Recipe{Resized: true, ScaleMin: 0.1, Flip: true, Rotation: 90, Jitter: augment.Jitter{Brightness: 1, Contrast: 1, Saturation: 1, Hue: 0.5}}
	for batch := range 4 {
		plan := recipe.Draw(size, n, 2, 1, batch)
		var both [2][]float32
		for i := range both {
			withOperators(t, i == 1)
			ch := torchx.Changes{Warp: true, Colour: true, ChannelsLast: batch%2 == 0}
			for k, c := range plan.Order {
				ch.Order[k] = int32(c)
			}
			both[i] = send(t, patchwork(n, size), n, size, []float32{0.02, 0.01, 0.03}, []float32{-1, -2, 3}, ch, func(b *torchx.Block) {
				for i, c := range plan.Images {
					b.SetWarp(i, c.Left, c.Top, c.Width, c.Height, c.Flip, c.Angle)
					b.SetColour(i, c.Brightness, c.Contrast, c.Saturation, c.Hue)
				}
			})
		}
		far := 0 // hue and a factor of colour may magnify what float32 coordinates leave open
		for i := range both[0] {
			if math.Abs(float64(both[0][i]-both[1][i])) > 0.02*0.1 {
				far++
			}
		}
		if len(both[0]) != len(both[1]) || far > len(both[0])/1000 {
			t.Errorf("batch %d: %d of %d values are more than 0.1 levels apart", batch, far, len(both[0]))
		}
	}
}

// CutMix as a whole, boxes, images and loss, against transforms.v2's formula
// with the same draws.
func TestCutMixAgainstFormula(t *testing.T) {
	lock(t)
	const n, size, classes = 5, 16, 4
	draw := rand.New(rand.NewPCG(3, 3))
	noise := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(draw.NormFloat64())
		}
		return v
	}
	images, logits := noise(n*3*size*size), noise(n*classes)
	labels := []int64{3, 0, 1, 1, 2}
	draws := [][3]float64{{0.4, 8, 7}, {0.1, 0, 15}, {0.99999, 4, 4}, {0, 8, 8}, {0.8, 15, 2}} // lambda and centre
	var answer struct {
		Mixed []struct {
			Images []byte
			Loss   float64
		}
	}
	torchvision(t, map[string]any{"mixed": map[string]any{"classes": classes, "size": size, "images": toBytes(images),
		"labels": labels, "logits": toBytes(logits), "draws": draws}}, &answer)
	for i, d := range draws {
		want := answer.Mixed[i]
		box, lambda := augment.CutMix(size, size, d[0], int(d[1]), int(d[2]))
		x := tensor(t, images, n, 3, size, size)
		if err := torchx.Move(x, torchx.CPU, true); err != nil {
			t.Fatal(err)
		}
		if err := torchx.CutMix(x, box.X1, box.Y1, box.X2, box.Y2); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(values(t, x), toFloats(want.Images)) {
			t.Errorf("draws %v: other images (box %+v)", d, box)
		}
		loss := func(labels []int64) float64 {
			z := tensor(t, logits, n, classes)
			y, err := torchx.Labels(labels, torchx.CPU)
			if err != nil {
				t.Fatal(err)
			}
			defer torchx.Free(y)
			l, err := torchx.CrossEntropy(z, y, torchx.Tensor{}, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer torchx.Free(l)
			v, err := torchx.Item(l)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		rolled := append([]int64{labels[n-1]}, labels[:n-1]...)
		if got := lambda*loss(labels) + (1-lambda)*loss(rolled); math.Abs(got-want.Loss) > 1e-5 {
			t.Errorf("draws %v: loss %g, soft cross entropy %g", d, got, want.Loss)
		}
	}
}
