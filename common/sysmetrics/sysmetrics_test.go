package sysmetrics_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/mlflow"
	"atelier/common/sysmetrics"
)

func names(v []sysmetrics.Value) map[string]float64 {
	out := map[string]float64{}
	for _, x := range v {
		out[x.Name] = x.Value
	}
	return out
}

// The real machine: what every Linux has is there and makes sense.
func TestReadThisMachine(t *testing.T) {
	var said []string
	m := sysmetrics.NewMeter(sysmetrics.Options{NVML: "/no/such/library", Notify: func(s string) { said = append(said, s) }})
	x := 0.0
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		x = math.Sqrt(x + 1)
	}
	s := m.Read()
	if s.Cores < 1 || s.MemoryUsed <= 0 || s.MemoryTotal < s.MemoryUsed || s.DiskUsed <= 0 || s.CPU < 0 || s.CPU > 100 || len(s.GPUs) != 0 {
		t.Errorf("%+v; told %v", s, said)
	}
	// A core worked for all that time.
	if !math.IsNaN(s.CPU) && s.CPU == 0 {
		t.Error("a busy core was not seen")
	}
	v := names(s.Series())
	for _, k := range []string{"system/system_memory_usage_megabytes", "system/disk_usage_percentage", "system/disk_available_megabytes"} {
		if v[k] <= 0 {
			t.Errorf("%s is %v; told %v", k, v[k], said)
		}
	}
	for k := range v {
		if err := mlflow.CheckKey("metric", k); err != nil {
			t.Error(err)
		}
	}
}

func TestNames(t *testing.T) {
	nan := math.NaN()
	s := sysmetrics.Sample{Cores: 8, CPU: 50, MemoryUsed: 4e9, MemoryTotal: 16e9, SwapUsed: 1e9, SwapTotal: 2e9, DiskUsed: 30e9, DiskFree: 70e9, DiskRead: 5e6, DiskWritten: 6e6, DiskReads: 7, DiskWrites: 8,
		NetReceived: 9e6, NetSent: 1e6, NetPacketsReceived: 3, NetPacketsSent: 4,
		GPUs: []sysmetrics.GPU{{Index: 0, UsedBytes: 20e9, TotalBytes: 80e9, Busy: 90, Celsius: 60, Watts: 350, WattsAtMost: 700}, {Index: 3, UsedBytes: 1e9, TotalBytes: 80e9, Busy: nan, Celsius: nan, Watts: 60, WattsAtMost: nan}}}
	var got strings.Builder
	for _, v := range s.Series() {
		fmt.Fprintf(&got, "%s %v\n", v.Name, v.Value)
	}
	want := `system/cpu_utilization_percentage 50
system/system_memory_usage_megabytes 4000
system/system_memory_usage_percentage 25
system/swap_usage_megabytes 1000
system/swap_usage_percentage 50
system/disk_usage_percentage 30
system/disk_usage_megabytes 30000
system/disk_available_megabytes 70000
system/disk_read_megabytes 5
system/disk_write_megabytes 6
system/network_receive_megabytes 9
system/network_transmit_megabytes 1
system/gpu_0_memory_usage_percentage 25
system/gpu_0_memory_usage_megabytes 20000
system/gpu_0_utilization_percentage 90
system/gpu_0_power_usage_watts 350
system/gpu_0_power_usage_percentage 50
system/gpu_0_temperature_celsius 60
system/gpu_3_memory_usage_percentage 1.3
system/gpu_3_memory_usage_megabytes 1000
system/gpu_3_power_usage_watts 60
`
	if got.String() != want {
		t.Errorf("series:\n%s", got.String())
	}
	second := s
	second.CPU, second.MemoryUsed, second.DiskRead, second.DiskReads, second.NetSent = 70, 8e9, 15e6, 17, 3e6
	second.GPUs = []sysmetrics.GPU{{Index: 0, UsedBytes: 40e9, TotalBytes: 80e9, Busy: 70, Celsius: 70, Watts: 450, WattsAtMost: 700}}
	var sum sysmetrics.Summary
	if sum.Values() != nil {
		t.Error("a summary of nothing")
	}
	sum.Add(s)
	sum.Add(second)
	v := names(sum.Values())
	for k, want := range map[string]float64{"system/avg_cpu_percent": 60, "system/max_cpu_percent": 70, "system/avg_memory_used_gb": 6, "system/max_memory_used_gb": 8, "system/avg_gpu_0_utilization_percent": 80,
		"system/max_gpu_0_temperature_celsius": 70, "system/disk_read_mb": 10, "system/disk_read_count": 10, "system/disk_write_mb": 0, "system/network_sent_mb": 2, "system/cpu_count": 8, "system/avg_gpu_3_power_watts": 60,
		"system/avg_swap_used_gb": 1, "system/max_memory_percent": 50} {
		if got, ok := v[k]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", k, got, ok, want)
		}
	}
	if _, ok := v["system/avg_gpu_3_utilization_percent"]; ok {
		t.Error("a number that nobody told")
	}
}

// Nothing readable: nothing said, nothing broken.
func TestNothingReadable(t *testing.T) {
	s := sysmetrics.Sample{CPU: math.NaN(), MemoryUsed: -1, SwapUsed: -1, DiskUsed: -1, DiskRead: -1, NetReceived: -1}
	if v := s.Series(); len(v) != 0 {
		t.Errorf("%v", v)
	}
	var said []string
	m := sysmetrics.NewMeter(sysmetrics.Options{Disk: "/no/such/folder", NVML: "/none", Notify: func(s string) { said = append(said, s) }})
	m.Read()
	m.Read()
	n := 0
	for _, s := range said {
		if strings.Contains(s, "disk space") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("told: %q", said)
	}
}

func TestGPUsAreRead(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler for the stand-in of NVML")
	}
	lib := filepath.Join(t.TempDir(), "libnvml-test.so")
	if b, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib, "../nvml/testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	v := names(sysmetrics.NewMeter(sysmetrics.Options{NVML: lib}).Read().Series())
	if v["system/gpu_0_utilization_percentage"] != 87 || v["system/gpu_1_temperature_celsius"] != 41 || v["system/gpu_0_power_usage_percentage"] != 50 {
		t.Errorf("%v", v)
	}
}

func TestStart(t *testing.T) {
	var mu sync.Mutex
	n := 0
	enough := make(chan struct{})
	stop := sysmetrics.Start(context.Background(), 5*time.Millisecond, sysmetrics.Options{NVML: "/none"}, func(sysmetrics.Sample) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 3 {
			close(enough)
		}
	})
	select {
	case <-enough:
	case <-time.After(time.Minute):
		t.Fatal("no samples")
	}
	stop()
	mu.Lock()
	was := n
	mu.Unlock()
	stop()
	time.Sleep(30 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if n != was {
		t.Error("a sample after the end")
	}
}

func BenchmarkRead(b *testing.B) {
	if _, err := os.Stat("/proc/stat"); err != nil {
		b.Skip("no /proc")
	}
	m := sysmetrics.NewMeter(sysmetrics.Options{NVML: "/none"})
	for b.Loop() {
		m.Read().Series()
	}
}
