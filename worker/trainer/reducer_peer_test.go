//go:build libtorch

package main_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	torch "github.com/wangkuiyi/gotorch"

	"atelier/common/kernels"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// reduced asks two processes of DistributedDataParallel over Gloo for the
// gradients of a state and a batch.
func reduced(t *testing.T, state, images []float32) []float32 {
	t.Helper()
	if err := exec.Command(python, "-c", "import importlib.util as u; assert u.find_spec('torch') and u.find_spec('torchvision')").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	dir := t.TempDir()
	for name, v := range map[string][]float32{"state.f32": state, "images.f32": images} {
		b := make([]byte, 0, 4*len(v))
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var ranks []*exec.Cmd
	for rank := range 2 {
		cmd := exec.Command(python, "testdata/reducer.py", dir, strconv.Itoa(rank))
		cmd.Stderr = os.Stderr
		cmd.Env = append(os.Environ(), "GLOO_SOCKET_IFNAME=lo")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(3*time.Minute, func() { cmd.Process.Kill() }) // one waits for the other for ever
		t.Cleanup(func() { late.Stop() })
		ranks = append(ranks, cmd)
	}
	for rank, cmd := range ranks {
		if err := cmd.Wait(); err != nil {
			ranks[1-rank].Process.Kill()
			t.Fatalf("rank %d: %v", rank, err)
		}
	}
	return floats(t, filepath.Join(dir, "gradients.f32"))
}

// The sums of two members are twice the mean that c10d's Reducer comes to, for
// resnet18 within 1e-6 of each tensor's norm.
func TestParityWithReducer(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(torchx.SetThreads(1))
	torchx.UseKernels(0) // the peer's operators: what differs is the sum alone
	defer torchx.UseKernels(kernels.Every)

	images := make([]float32, 8*3*64*64)
	draw := rand.New(rand.NewPCG(1, 2))
	for i := range images {
		images[i] = float32(draw.NormFloat64())
	}
	var state []float32
	var models []*model.Model
	var members []*torchx.Buckets
	for range 2 {
		must(torchx.Seed(3))
		m, err := model.New("resnet18", model.Options{Classes: 7})
		must(err)
		defer m.Free()
		var statistics []torchx.Tensor
		state = state[:0]
		for _, e := range m.State() {
			if e.Kind == nn.Counter {
				continue
			}
			if e.Kind == nn.Buffer {
				statistics = append(statistics, e.Tensor)
			}
			v, err := torchx.Floats(e.Tensor)
			must(err)
			state = append(state, v...)
		}
		b, err := torchx.NewBuckets(m.Weights(), statistics, 0)
		must(err)
		defer b.Free()
		models, members = append(models, m), append(members, b)
	}
	want := reduced(t, state, images)

	var parts [2][][]float32
	for rank, b := range members {
		must(b.Begin(rank, rank+1, 2))
		half := images[rank*len(images)/2 : (rank+1)*len(images)/2]
		x, err := torchx.FromFloats(half, 4, 3, 64, 64)
		must(err)
		p := nn.Pass{Training: true}
		y := models[rank].Forward(&p, x)
		loss := p.Keep(torch.Mean(p.Keep(torch.Mul(y, y))))
		must(b.Arm(rank, 0.5))
		must(torchx.Backward(loss))
		must(b.Done())
		p.Close()
		torchx.Free(x)
		for bucket := range b.Sizes() {
			c, _ := b.Contribution(bucket, 0)
			parts[rank] = append(parts[rank], c)
		}
	}
	for bucket := range members[0].Sizes() {
		in := [][]float32{parts[0][bucket], parts[1][bucket]}
		members[0].Sum(members[0].Result(bucket), in, []group.Merge{{To: 0, From: 1}})
	}
	must(members[0].Apply())

	at, worst := 0, 0.0
	for i, w := range models[0].Weights() {
		grad, ok, err := torchx.Grad(w)
		must(err)
		if !ok {
			t.Fatalf("parameter %d has no gradient", i)
		}
		v, err := torchx.Floats(grad)
		must(err)
		torchx.Free(grad)
		if at+len(v) > len(want) {
			t.Fatalf("the peer has %d gradients", len(want))
		}
		var apart, norm float64
		for k, g := range v {
			d := float64(g)/2 - float64(want[at+k])
			apart += d * d
			norm += float64(want[at+k]) * float64(want[at+k])
		}
		at += len(v)
		far := math.Sqrt(apart / norm)
		if !(far <= 1e-6) {
			t.Errorf("parameter %d of %d values: %.3g of its norm apart", i, len(v), far)
		}
		worst = max(worst, far)
	}
	if at != len(want) {
		t.Errorf("the peer has %d gradients, not %d", len(want), at)
	}
	t.Logf("at most %.3g of a tensor's norm apart", worst)
}
