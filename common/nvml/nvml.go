// Package nvml reads NVIDIA GPUs through the driver's management library,
// loaded when the program runs and without cgo: the same program works where
// there is none. It refuses to change anything on a GPU.
package nvml

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library holds the few functions of NVIDIA's management library that are used.
// Its C interface is stable; return values are nvmlReturn_t, 0 for success. The
// last four may be missing in an old driver.
type library struct {
	init        func() int32
	count       func(*uint32) int32
	byIndex     func(uint32, *uintptr) int32
	uuid        func(uintptr, *byte, uint32) int32
	name        func(uintptr, *byte, uint32) int32
	memory      func(uintptr, *memory) int32
	errorString func(int32) string

	utilisation func(uintptr, *utilisation) int32
	temperature func(uintptr, uint32, *uint32) int32
	power       func(uintptr, *uint32) int32
	powerLimit  func(uintptr, *uint32) int32
}

type memory struct{ total, _, used uint64 } // nvmlMemory_t
type utilisation struct{ gpu, _ uint32 }    // nvmlUtilization_t, per cent; the other is the memory's

// GPU is one device of this machine.
type GPU struct {
	Index       int // as the driver counts, not CUDA_VISIBLE_DEVICES
	UUID        string
	Name        string
	MemoryBytes int64

	lib    *library
	handle uintptr
}

// Usage is how a GPU does now; what the driver or the device does not tell is NaN.
type Usage struct {
	UsedBytes   int64
	Busy        float64 // per cent of the last moment in which a kernel ran
	Celsius     float64
	Watts       float64
	WattsAtMost float64
}

var (
	librariesMu sync.Mutex
	libraries   = map[string]*library{} // a library is loaded and initialised once
)

func load(file string) (_ *library, err error) {
	if file == "" {
		file = "libnvidia-ml.so.1"
	}
	librariesMu.Lock()
	defer librariesMu.Unlock()
	if lib := libraries[file]; lib != nil {
		return lib, nil
	}
	h, err := purego.Dlopen(file, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", file, err)
	}
	lib := &library{}
	for name, f := range map[string]any{
		"nvmlInit_v2":                   &lib.init,
		"nvmlDeviceGetCount_v2":         &lib.count,
		"nvmlDeviceGetHandleByIndex_v2": &lib.byIndex,
		"nvmlDeviceGetUUID":             &lib.uuid,
		"nvmlDeviceGetName":             &lib.name,
		"nvmlDeviceGetMemoryInfo":       &lib.memory,
		"nvmlErrorString":               &lib.errorString,
	} {
		sym, err := purego.Dlsym(h, name)
		if err != nil {
			purego.Dlclose(h)
			return nil, fmt.Errorf("%s lacks %s: the driver is too old", file, name)
		}
		purego.RegisterFunc(f, sym)
	}
	for name, f := range map[string]any{
		"nvmlDeviceGetUtilizationRates":   &lib.utilisation,
		"nvmlDeviceGetTemperature":        &lib.temperature,
		"nvmlDeviceGetPowerUsage":         &lib.power,
		"nvmlDeviceGetEnforcedPowerLimit": &lib.powerLimit,
	} {
		if sym, err := purego.Dlsym(h, name); err == nil {
			purego.RegisterFunc(f, sym)
		}
	}
	if rc := lib.init(); rc != 0 {
		return nil, lib.fail("start", rc)
	}
	libraries[file] = lib
	return lib, nil
}

func (l *library) fail(what string, rc int32) error {
	return fmt.Errorf("NVML: %s: %s (%d)", what, l.errorString(rc), rc)
}

// List returns the GPUs of this machine. file is the library; "" is
// libnvidia-ml.so.1. An error is what a machine without a driver gives.
func List(file string) ([]*GPU, error) {
	lib, err := load(file)
	if err != nil {
		return nil, err
	}
	var n uint32
	if rc := lib.count(&n); rc != 0 {
		return nil, lib.fail("count GPUs", rc)
	}
	var out []*GPU
	for i := range n {
		g := &GPU{lib: lib, Index: int(i)}
		if rc := lib.byIndex(i, &g.handle); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("open GPU %d", i), rc)
		}
		var text [96]byte
		if rc := lib.uuid(g.handle, &text[0], uint32(len(text))); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("id of GPU %d", i), rc)
		}
		g.UUID = cString(text[:])
		if rc := lib.name(g.handle, &text[0], uint32(len(text))); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("name of GPU %d", i), rc)
		}
		g.Name = cString(text[:])
		var m memory
		if rc := lib.memory(g.handle, &m); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("memory of GPU %d", i), rc)
		}
		g.MemoryBytes = int64(m.total)
		out = append(out, g)
	}
	return out, nil
}

// Used is the memory in use now, in bytes, by anybody.
func (g *GPU) Used() (int64, error) {
	var m memory
	if rc := g.lib.memory(g.handle, &m); rc != 0 {
		return 0, g.lib.fail(fmt.Sprintf("memory of GPU %d", g.Index), rc)
	}
	return int64(m.used), nil
}

// Usage reads what the GPU does now. The error is that of its memory, which
// every device tells.
func (g *GPU) Usage() (Usage, error) {
	nan := math.NaN()
	u := Usage{Busy: nan, Celsius: nan, Watts: nan, WattsAtMost: nan}
	var err error
	if u.UsedBytes, err = g.Used(); err != nil {
		return u, err
	}
	var rates utilisation
	if g.lib.utilisation != nil && g.lib.utilisation(g.handle, &rates) == 0 {
		u.Busy = float64(rates.gpu)
	}
	var n uint32
	if g.lib.temperature != nil && g.lib.temperature(g.handle, 0, &n) == 0 { // 0 = NVML_TEMPERATURE_GPU
		u.Celsius = float64(n)
	}
	if g.lib.power != nil && g.lib.power(g.handle, &n) == 0 {
		u.Watts = float64(n) / 1000
	}
	if g.lib.powerLimit != nil && g.lib.powerLimit(g.handle, &n) == 0 {
		u.WattsAtMost = float64(n) / 1000
	}
	return u, nil
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(unsafe.String(&b[0], len(b)), "\x00")
	return strings.Clone(s)
}
