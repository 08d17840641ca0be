//go:build libtorch

package main_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

// device is where the tests of this file work: ATELIER_TEST_DEVICE, by default
// the first GPU. Named cpu, the same tests are tried on a machine without one.
func device(t *testing.T) torchx.Device {
	t.Helper()
	name := os.Getenv("ATELIER_TEST_DEVICE")
	if name == "" {
		name = "cuda:0"
	}
	d := torchx.NewDevice(name)
	if err := torchx.DeviceReady(d); err != nil {
		t.Skipf("no GPU here: %v", err)
	}
	return d
}

// TestGPULogits: every architecture answers on the device as on the CPU, in both
// layouts: within 2 % of the largest logit in float32 (cuDNN convolves with
// TF32's 10 bits), within 10 % under autocast.
func TestGPULogits(t *testing.T) {
	d := device(t)
	for _, arch := range slices.Sorted(maps.Keys(architectures)) {
		t.Run(arch, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := torchx.Seed(5); err != nil {
				t.Fatal(err)
			}
			m, err := model.New(arch, model.Options{Classes: parityClasses, Dropout: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Free()
			want := answers(t, m, torchx.CPU, true, torchx.FP32)
			largest := 0.0
			for _, v := range want {
				largest = max(largest, math.Abs(float64(v)))
			}
			for _, c := range []struct {
				precision torchx.Precision
				name      string
				within    float64
			}{{torchx.FP32, "fp32", 0.02}, {torchx.BF16, "bf16", 0.1}} {
				for _, last := range []bool{true, false} {
					got := answers(t, m, d, last, c.precision)
					worst := 0.0
					for i := range want {
						worst = max(worst, math.Abs(float64(got[i]-want[i])))
					}
					if worst > c.within*largest || math.IsNaN(worst) {
						t.Errorf("%s, channels_last %t: logits differ by %.3g of %.3g", c.name, last, worst, largest)
					}
				}
			}
		})
	}
}

// answers are a model's logits on parityImages images, moved to d for it.
func answers(t *testing.T, m *model.Model, d torchx.Device, channelsLast bool, precision torchx.Precision) (values []float32) {
	t.Helper()
	if err := m.Move(d, channelsLast); err != nil {
		t.Fatal(err)
	}
	pixels := make([]byte, parityImages*paritySide*paritySide*3)
	for i := range pixels {
		pixels[i] = byte(i * 2654435761 >> 13)
	}
	k := float32(1. / 64)
	x, err := torchx.Images(pixels, parityImages, paritySide, paritySide, []float32{k, k, k}, []float32{-2, -2, -2}, d, channelsLast)
	if err != nil {
		t.Fatal(err)
	}
	defer torchx.Free(x)
	err = torchx.Catch(func() error {
		return torchx.NoGrad(func() error {
			return torchx.Autocast(d, precision, func() error {
				p := &nn.Pass{}
				defer p.Close()
				var err error
				values, err = wide(m.Forward(p, x))
				return err
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// wide are the elements of a float32 or bfloat16 tensor.
func wide(t torchx.Tensor) ([]float32, error) {
	i, err := torchx.Describe(t)
	if err != nil || i.DType == torchx.F32 {
		v, floatsErr := torchx.Floats(t)
		return v, errors.Join(err, floatsErr)
	}
	raw, err := torchx.Bytes(t)
	if err != nil || int64(len(raw)) != 2*i.Len() {
		return nil, fmt.Errorf("%d bytes of %d elements: %w", len(raw), i.Len(), err)
	}
	v := make([]float32, i.Len())
	for k := range v {
		v[k] = math.Float32frombits(uint32(raw[2*k])<<16 | uint32(raw[2*k+1])<<24)
	}
	return v, nil
}

// TestGPUTraining: a training learns on the device in every precision, with
// everything that works on whole batches there switched on.
func TestGPUTraining(t *testing.T) {
	d := device(t)
	base := imageFolder(t, 40, 12)
	for _, precision := range []string{"fp32", "bf16", "fp16"} {
		if precision == "fp16" && !d.CUDA() {
			continue // refused there
		}
		for _, arch := range []string{"vanilla", "resnet18"} {
			t.Run(precision+" "+arch, func(t *testing.T) {
				job := newJob(t, base, map[string]any{"model": arch, "epochs": 6, "optimizer": "adamw", "lr": 0.003, "precision": precision, "ema_decay": 0.5,
					"augmentation": map[string]any{"rotation": 10, "cutmix": map[string]any{"enabled": true}}})
				job.Device = d.String()
				epochs := of(finish(t, job), trainerproto.EventEpoch)
				if len(epochs) != 6 {
					t.Fatalf("%d epochs reported, want 6", len(epochs))
				}
				if acc, _ := epochs[5].Metrics.Get("val_acc"); acc < 0.6 {
					t.Errorf("validation accuracy %.2f after 6 epochs on classes that differ in colour", acc)
				}
			})
		}
	}
}

// TestGPUResume: a training killed in mid-epoch on the device goes on from its
// checkpoint and ends as one left alone, within what atomic additions on a GPU
// leave open. It reports whether the bits are the same.
func TestGPUResume(t *testing.T) {
	d := device(t)
	base := imageFolder(t, 30, 6)
	training := map[string]any{"model": "resnet18", "optimizer": "adam", "lr": 0.001, "batch_size": 8, "epochs": 4}
	whole := newJob(t, base, training)
	whole.Device = d.String()
	alone := finish(t, whole)

	cut := newJob(t, base, training)
	cut.Device = d.String()
	p := start(t)
	p.send(cut)
	events := p.until(func(e trainerproto.Event) bool { return e.Kind == trainerproto.EventCheckpoint && e.Epoch == 2 })
	time.Sleep(30 * time.Millisecond) // into epoch 3
	p.cmd.Process.Signal(syscall.SIGKILL)
	p.cmd.Wait()
	at := events[len(events)-1]
	cut.Run, cut.Resume, cut.ResumeEpoch = 2, at.Path, at.Epoch
	again := finish(t, cut)

	want, got := of(alone, trainerproto.EventEpoch), of(again, trainerproto.EventEpoch)
	if len(got) != 2 || got[0].Epoch != 3 {
		t.Fatalf("resumed run reported %d epochs from %d; want 3 and 4", len(got), got[0].Epoch)
	}
	same := true
	for i, e := range got {
		for _, name := range []string{"train_loss", "val_loss"} {
			w, _ := want[i+2].Metrics.Get(name)
			g, _ := e.Metrics.Get(name)
			same = same && w == g
			if math.Abs(w-g) > 0.05*math.Abs(w)+0.01 {
				t.Errorf("epoch %d: %s is %v, uninterrupted %v", e.Epoch, name, g, w)
			}
		}
	}
	t.Logf("losses of both epochs to the same bits: %t", same)
}

// TestGPUOutOfMemory: a batch that no GPU holds ends the run in its class, with
// words, and the next run in a new process works.
func TestGPUOutOfMemory(t *testing.T) {
	d := device(t)
	if !d.CUDA() {
		t.Skip("memory of a GPU")
	}
	base := imageFolder(t, 400, 6)
	job := newJob(t, base, map[string]any{"model": "vgg16", "batch_size": 1200, "image_size": 1024, "epochs": 1})
	job.Device = d.String()
	p := start(t)
	p.send(job)
	events := p.until(never)
	if last := events[len(events)-1]; last.Kind != trainerproto.EventFailed || fmt.Sprint(last.Class) != "out_of_memory" {
		t.Fatalf("ended with %+v; standard error:\n%s", last, p.stderr)
	}
	p.code()
	job = newJob(t, base, map[string]any{"epochs": 1})
	job.Device = d.String()
	finish(t, job)
}
