package slots_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/worker/slots"
)

func TestCPUSlots(t *testing.T) {
	none := "/no/such/libnvidia-ml.so"
	for _, tc := range []struct {
		o              slots.Options
		count, threads int
		err            string
	}{
		{slots.Options{Want: "auto", Cores: 16, Memory: 64 << 30}, 8, 2, ""},
		{slots.Options{Want: "auto", Cores: 64, Memory: 256 << 30}, 16, 4, ""},
		{slots.Options{Want: "auto", Cores: 16, Memory: 5 << 30}, 2, 8, ""},
		{slots.Options{Cores: 2, Memory: 8 << 30}, 2, 1, ""},
		{slots.Options{Cores: 2, Memory: 1 << 30}, 1, 2, ""},
		{slots.Options{Want: "4", Cores: 2}, 4, 1, ""},
		{slots.Options{Want: "cpu:3", Cores: 12}, 3, 4, ""},
		{slots.Options{Want: "2", Cores: 12, ThreadsPerSlot: 3}, 2, 3, ""},
		{slots.Options{Want: "0"}, 0, 0, "give auto"},
		{slots.Options{Want: "tpu:1"}, 0, 0, "give auto"},
		{slots.Options{Want: "many"}, 0, 0, "give auto"},
		{slots.Options{Want: "gpu:1"}, 0, 0, "no GPU"},
	} {
		tc.o.Library = none
		got, err := slots.Find(tc.o)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v, want %q", tc.o, err, tc.err)
			}
			continue
		}
		if err != nil || len(got) != tc.count {
			t.Errorf("%+v: %d slots, %v; want %d", tc.o, len(got), err, tc.count)
			continue
		}
		for i, s := range got {
			if s.Name != fmt.Sprintf("cpu%d", i) || s.Threads != tc.threads || s.JobDevice() != "cpu" || s.Env()["OMP_NUM_THREADS"] != fmt.Sprint(tc.threads) {
				t.Errorf("%+v: slot %+v", tc.o, *s)
			}
			if !s.WaitMemory(context.Background(), 0, time.Millisecond) {
				t.Error("a CPU slot waits for GPU memory")
			}
		}
	}
}

// library compiles the stand-in for NVML.
func library(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the stand-in of NVML")
	}
	out := filepath.Join(t.TempDir(), "libnvml-test.so")
	if b, err := exec.Command(cc, "-shared", "-fPIC", "-o", out, "../../common/nvml/testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

func TestGPUSlots(t *testing.T) {
	lib := library(t)
	find := func(want, visible string, set bool) ([]*slots.Slot, error) {
		return slots.Find(slots.Options{Want: want, Library: lib, Cores: 16, Memory: 64 << 30, Visible: visible, VisibleSet: set})
	}
	names := func(s []*slots.Slot) string {
		var n []string
		for _, x := range s {
			n = append(n, x.Name)
		}
		return strings.Join(n, " ")
	}
	for _, tc := range []struct {
		want, visible string
		set           bool
		names, err    string
	}{
		{"auto", "", false, "gpu0 gpu1", ""},
		{"1", "", false, "gpu0", ""},
		{"gpu:2", "", false, "gpu0 gpu1", ""},
		{"3", "", false, "", "shows 2 GPUs"},
		{"cpu:3", "", false, "cpu0 cpu1 cpu2", ""},
		{"auto", "1", true, "gpu1", ""},
		{"auto", "GPU-0000-1,0", true, "gpu1 gpu0", ""},
		{"auto", "", true, "cpu0 cpu1 cpu2 cpu3 cpu4 cpu5 cpu6 cpu7", ""},
		{"auto", "7", true, "", "not one of the 2"},
		{"auto", "1,1", true, "", "twice"},
	} {
		got, err := find(tc.want, tc.visible, tc.set)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v", tc, err)
			}
			continue
		}
		if err != nil || names(got) != tc.names {
			t.Errorf("%+v: %q, %v", tc, names(got), err)
		}
	}
	all, err := find("auto", "", false)
	if err != nil {
		t.Fatal(err)
	}
	s := all[1]
	if s.UUID != "GPU-0000-1" || s.MemoryBytes != 80<<30 || s.Description != "Test Accelerator" || s.Threads != 8 || s.JobDevice() != "cuda:0" || s.Env()["CUDA_VISIBLE_DEVICES"] != "GPU-0000-1" || s.Device != "cuda:1" {
		t.Errorf("%+v %v", *s, s.Env())
	}
}

func TestMemoryThatIsNotGivenBack(t *testing.T) {
	lib := library(t)
	used := filepath.Join(t.TempDir(), "used")
	// The library reads its own C environment, which was copied at the start:
	// run this test again in a child that has the variable.
	if os.Getenv("FAKE_NVML_USED") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "FAKE_NVML_USED="+used)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return
	}
	used = os.Getenv("FAKE_NVML_USED")
	if err := os.MkdirAll(filepath.Dir(used), 0o755); err != nil {
		t.Fatal(err)
	}
	set := func(n int64) { os.WriteFile(used, []byte(fmt.Sprint(n)), 0o644) }
	set(1 << 30)
	all, err := slots.Find(slots.Options{Library: lib})
	if err != nil {
		t.Fatal(err)
	}
	before, err := all[0].UsedBytes()
	if err != nil || before != 1<<30 {
		t.Fatalf("%d, %v", before, err)
	}
	set(30 << 30)
	if all[0].WaitMemory(context.Background(), before, 100*time.Millisecond) {
		t.Error("a GPU with 30 GiB still taken counts as free")
	}
	go func() { time.Sleep(100 * time.Millisecond); set(1<<30 + 1000) }()
	if !all[0].WaitMemory(context.Background(), before, 5*time.Second) {
		t.Error("the memory came back and was not seen")
	}
}
