package slots

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// nvml holds the few functions of NVIDIA's management library that are used.
// Its C interface is stable; return values are nvmlReturn_t, 0 for success.
type nvml struct {
	init        func() int32
	count       func(*uint32) int32
	byIndex     func(uint32, *uintptr) int32
	uuid        func(uintptr, *byte, uint32) int32
	name        func(uintptr, *byte, uint32) int32
	memory      func(uintptr, *nvmlMemory) int32
	errorString func(int32) string
}

// nvmlMemory is nvmlMemory_t.
type nvmlMemory struct{ total, free, used uint64 }

type gpu struct {
	lib    *nvml
	index  int
	handle uintptr
	uuid   string
	name   string
	memory int64
}

var (
	librariesMu sync.Mutex
	libraries   = map[string]*nvml{} // a library is loaded and initialised once
)

func loadNVML(file string) (_ *nvml, err error) {
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
	lib := &nvml{}
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
	if rc := lib.init(); rc != 0 {
		return nil, lib.fail("start", rc)
	}
	libraries[file] = lib
	return lib, nil
}

func (l *nvml) fail(what string, rc int32) error {
	return fmt.Errorf("NVML: %s: %s (%d)", what, l.errorString(rc), rc)
}

func listGPUs(library string) ([]*gpu, error) {
	lib, err := loadNVML(library)
	if err != nil {
		return nil, err
	}
	var n uint32
	if rc := lib.count(&n); rc != 0 {
		return nil, lib.fail("count GPUs", rc)
	}
	var out []*gpu
	for i := range n {
		g := &gpu{lib: lib, index: int(i)}
		if rc := lib.byIndex(i, &g.handle); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("open GPU %d", i), rc)
		}
		var text [96]byte
		if rc := lib.uuid(g.handle, &text[0], uint32(len(text))); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("id of GPU %d", i), rc)
		}
		g.uuid = cString(text[:])
		if rc := lib.name(g.handle, &text[0], uint32(len(text))); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("name of GPU %d", i), rc)
		}
		g.name = cString(text[:])
		var m nvmlMemory
		if rc := lib.memory(g.handle, &m); rc != 0 {
			return nil, lib.fail(fmt.Sprintf("memory of GPU %d", i), rc)
		}
		g.memory = int64(m.total)
		out = append(out, g)
	}
	return out, nil
}

func (g *gpu) used() (int64, error) {
	var m nvmlMemory
	if rc := g.lib.memory(g.handle, &m); rc != 0 {
		return 0, g.lib.fail(fmt.Sprintf("memory of GPU %d", g.index), rc)
	}
	return int64(m.used), nil
}

func cString(b []byte) string {
	s, _, _ := strings.Cut(unsafe.String(&b[0], len(b)), "\x00")
	return strings.Clone(s)
}
