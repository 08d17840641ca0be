package nvml_test

import (
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"atelier/common/nvml"
)

func TestUsage(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the stand-in of NVML")
	}
	lib := filepath.Join(t.TempDir(), "libnvml-test.so")
	if b, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, "testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	gpus, err := nvml.List(lib)
	if err != nil || len(gpus) != 2 || gpus[1].UUID != "GPU-0000-1" || gpus[1].Name != "Test Accelerator" || gpus[1].MemoryBytes != 80<<30 {
		t.Fatalf("%+v, %v", gpus, err)
	}
	u, err := gpus[0].Usage()
	if err != nil || u.Busy != 87 || u.Celsius != 40 || u.Watts != 350 || u.WattsAtMost != 700 || u.UsedBytes != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	// A device that does not tell its limit.
	if u, err = gpus[1].Usage(); err != nil || u.Watts != 60.5 || u.Celsius != 41 || !math.IsNaN(u.WattsAtMost) {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestNoDriver(t *testing.T) {
	if _, err := nvml.List("/no/such/libnvidia-ml.so"); err == nil {
		t.Error("GPUs without a library")
	}
}
