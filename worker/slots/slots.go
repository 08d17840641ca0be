// Package slots says what a machine can run at once: one slot for each GPU, or
// on a machine without one a slot for each share of the CPU cores.
//
// It finds GPUs through NVIDIA's management library, loaded when the program
// runs and without cgo, so the same program works where there is none. It
// refuses to allocate: a slot takes one run at a time, and the agent sees to it.
package slots

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atelier/common/nvml"
	"atelier/common/setting"
)

// Slot is a place for one run at a time.
type Slot struct {
	Name        string // "gpu0", "cpu1"
	Kind        string // "gpu" or "cpu"
	Device      string // what a person sees: "cuda:1", "cpu"
	Description string
	Threads     int   // CPU threads a run may use, at least 1
	MemoryBytes int64 // of the GPU; 0 for CPU slots
	UUID        string

	gpu *nvml.GPU
}

// JobDevice is the device named in a job. A trainer sees only its own GPU,
// which is therefore always the first.
func (s *Slot) JobDevice() string {
	if s.Kind == "gpu" {
		return "cuda:0"
	}
	return "cpu"
}

// Env is what the slot adds to a trainer's environment.
func (s *Slot) Env() map[string]string {
	n := strconv.Itoa(s.Threads)
	env := map[string]string{"OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n, "CUDA_VISIBLE_DEVICES": "",
		// Threads that spin at barriers take the cores from the other slots.
		"OMP_WAIT_POLICY": "passive"}
	if s.Kind == "gpu" {
		env["CUDA_VISIBLE_DEVICES"] = s.UUID
		env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
	}
	return env
}

// Options say how many slots are wanted.
type Options struct {
	// Want is "auto" (a slot for each GPU, else a share of the cores each, see
	// shares), "N" (so many of what auto would take), "gpu:N" or "cpu:N".
	Want           string
	ThreadsPerSlot int    // 0: cores shared evenly
	Cores          int    // 0: those this process may use
	Memory         int64  // of the machine, bytes; 0: as the system tells
	Visible        string // CUDA_VISIBLE_DEVICES of the agent; "" with VisibleSet hides all GPUs
	VisibleSet     bool
	Library        string // of NVML; "" = libnvidia-ml.so.1
	Logger         *slog.Logger
}

// FromEnvironment fills Visible from this process's environment.
func (o Options) FromEnvironment() Options {
	o.Visible, o.VisibleSet = os.LookupEnv("CUDA_VISIBLE_DEVICES")
	return o
}

// Find lists the slots of this machine.
func Find(o Options) ([]*Slot, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Cores == 0 {
		o.Cores = runtime.NumCPU()
	}
	if o.Memory == 0 {
		o.Memory = machineMemory()
	}
	kind, count, err := parseWant(o.Want)
	if err != nil {
		return nil, err
	}
	var gpus []*nvml.GPU
	if kind != "cpu" {
		gpus, err = nvml.List(o.Library)
		if err != nil {
			if kind == "gpu" {
				return nil, fmt.Errorf("slots %q: no GPU can be listed: %w", o.Want, err)
			}
			o.Logger.Debug("no GPUs", "reason", err)
		}
		if gpus, err = visible(gpus, o.Visible, o.VisibleSet); err != nil {
			return nil, err
		}
	}
	if kind == "gpu" || (kind == "" && len(gpus) > 0) {
		if count > len(gpus) || len(gpus) == 0 {
			return nil, fmt.Errorf("slots %q: this machine shows %d GPUs; give a number up to that, or cpu:%d", o.Want, len(gpus), max(count, 1))
		}
		if count > 0 {
			gpus = gpus[:count]
		}
		out := make([]*Slot, len(gpus))
		for i, g := range gpus {
			out[i] = &Slot{Name: fmt.Sprintf("gpu%d", g.Index), Kind: "gpu", Device: fmt.Sprintf("cuda:%d", g.Index), Description: g.Name,
				Threads: threads(o, len(gpus)), MemoryBytes: g.MemoryBytes, UUID: g.UUID, gpu: g}
		}
		return out, nil
	}
	if count == 0 {
		count = shares(o.Cores, o.Memory)
	}
	out := make([]*Slot, count)
	for i := range out {
		n := threads(o, count)
		out[i] = &Slot{Name: fmt.Sprintf("cpu%d", i), Kind: "cpu", Device: "cpu", Description: fmt.Sprintf("%d of %d cores", n, o.Cores), Threads: n}
	}
	return out, nil
}

// slotMemory is what a slot of auto must find, bytes: a training of resnet50 at
// 64 px takes 0.8 GiB, of resnet18 at 224 px 1.5 GiB.
const slotMemory = 2 << 30

// shares is how many slots the cores are split into: one a core up to eight,
// beyond that one for every four, as far as memory goes. Several trainings on
// a thread each finish more images a second than one on all cores: threads
// wait for one another (worker/trainer/BENCHMARKS.md). Unknown memory does not
// count.
func shares(cores int, memory int64) int {
	n := max(min(cores, 8), cores/4)
	if memory > 0 {
		n = min(n, int(memory/slotMemory))
	}
	return max(1, n)
}

// machineMemory is what this machine has, bytes; 0 if it does not tell.
func machineMemory() int64 {
	var s syscall.Sysinfo_t
	if syscall.Sysinfo(&s) != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}

// threads of a slot: as told, else the cores shared out, at least one.
func threads(o Options, slots int) int {
	if o.ThreadsPerSlot > 0 {
		return o.ThreadsPerSlot
	}
	return max(1, o.Cores/slots)
}

const maxSlots = 1024

// parseWant reads auto, N, gpu:N or cpu:N; count 0 is auto.
func parseWant(want string) (kind string, count int, err error) {
	if want == "" || want == "auto" {
		return "", 0, nil
	}
	number := want
	if k, n, ok := strings.Cut(want, ":"); ok && (k == "gpu" || k == "cpu") {
		kind, number = k, n
	}
	n, err := setting.Whole(number)
	if count = int(n); err != nil || n < 1 || n > maxSlots {
		return "", 0, fmt.Errorf("slots %q: give auto, a number from 1 to %d, gpu:N or cpu:N", want, maxSlots)
	}
	return kind, count, nil
}

// visible keeps the GPUs that CUDA_VISIBLE_DEVICES of the agent names, in its order.
func visible(gpus []*nvml.GPU, list string, set bool) ([]*nvml.GPU, error) {
	if !set || len(gpus) == 0 {
		return gpus, nil
	}
	var out []*nvml.GPU
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" || item == "-1" {
			break // as CUDA does: nothing after it counts
		}
		i := slices.IndexFunc(gpus, func(g *nvml.GPU) bool {
			return strconv.Itoa(g.Index) == item || (strings.HasPrefix(item, "GPU-") && strings.HasPrefix(g.UUID, item))
		})
		if i < 0 {
			return nil, fmt.Errorf("CUDA_VISIBLE_DEVICES names %q, which is not one of the %d GPUs of this machine", item, len(gpus))
		}
		if slices.Contains(out, gpus[i]) {
			return nil, fmt.Errorf("CUDA_VISIBLE_DEVICES names %q twice", item)
		}
		out = append(out, gpus[i])
	}
	return out, nil
}

// UsedBytes is the GPU memory in use now, by anybody; 0 for CPU slots.
func (s *Slot) UsedBytes() (int64, error) {
	if s.gpu == nil {
		return 0, nil
	}
	return s.gpu.Used()
}

// memorySlack is what a driver may keep beyond what it held before a run.
const memorySlack = 256 << 20

// WaitMemory waits until a GPU holds hardly more memory than before, as it
// should soon after its run's process is gone, but not for longer than limit.
// False means that the slot must not be used: the memory has an owner that
// cannot be seen.
func (s *Slot) WaitMemory(ctx context.Context, before int64, limit time.Duration) bool {
	if s.gpu == nil {
		return true
	}
	deadline := time.Now().Add(limit)
	for {
		used, err := s.gpu.Used()
		if err == nil && used <= before+memorySlack {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(250*time.Millisecond, limit/4+time.Millisecond)):
		}
	}
}
