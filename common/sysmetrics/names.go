package sysmetrics

import (
	"fmt"
	"math"
)

const (
	mega = 1e6
	giga = 1e9
)

// Value is a named number.
type Value struct {
	Name  string
	Value float64
}

type values []Value

func (v *values) add(name string, x float64) {
	if !math.IsNaN(x) && !math.IsInf(x, 0) {
		*v = append(*v, Value{name, x})
	}
}

// count adds a counter that may be unknown.
func (v *values) count(name string, n int64, scale float64) {
	if n >= 0 {
		v.add(name, float64(n)/scale)
	}
}

func part(used, total int64) float64 {
	if used < 0 || total <= 0 {
		return math.NaN()
	}
	return math.Round(1000*float64(used)/float64(total)) / 10
}

// Series names a sample's numbers as MLflow's own monitor does, and the further
// ones in its manner; always in the same order.
func (s Sample) Series() []Value {
	var v values
	v.add("system/cpu_utilization_percentage", s.CPU)
	v.count("system/system_memory_usage_megabytes", s.MemoryUsed, mega)
	v.add("system/system_memory_usage_percentage", part(s.MemoryUsed, s.MemoryTotal))
	if s.SwapTotal > 0 {
		v.count("system/swap_usage_megabytes", s.SwapUsed, mega)
		v.add("system/swap_usage_percentage", part(s.SwapUsed, s.SwapTotal))
	}
	if s.DiskUsed >= 0 {
		v.add("system/disk_usage_percentage", part(s.DiskUsed, s.DiskUsed+s.DiskFree))
		v.count("system/disk_usage_megabytes", s.DiskUsed, mega)
		v.count("system/disk_available_megabytes", s.DiskFree, mega)
	}
	if s.DiskRead >= 0 {
		v.count("system/disk_read_megabytes", s.DiskRead, mega)
		v.count("system/disk_write_megabytes", s.DiskWritten, mega)
	}
	if s.NetReceived >= 0 {
		v.count("system/network_receive_megabytes", s.NetReceived, mega)
		v.count("system/network_transmit_megabytes", s.NetSent, mega)
	}
	for _, g := range s.GPUs {
		p := fmt.Sprintf("system/gpu_%d_", g.Index)
		v.add(p+"memory_usage_percentage", part(g.UsedBytes, g.TotalBytes))
		v.count(p+"memory_usage_megabytes", g.UsedBytes, mega)
		v.add(p+"utilization_percentage", g.Busy)
		v.add(p+"power_usage_watts", g.Watts)
		v.add(p+"power_usage_percentage", 100*g.Watts/g.WattsAtMost)
		v.add(p+"temperature_celsius", g.Celsius)
	}
	return v
}

// track is one number over time.
type track struct {
	sum, top float64
	n        int
}

func (t *track) add(x float64) {
	if math.IsNaN(x) {
		return
	}
	if t.n == 0 || x > t.top {
		t.top = x
	}
	t.sum += x
	t.n++
}

// Summary gathers the samples of a run. The zero value is empty.
type Summary struct {
	first, last                   Sample
	n                             int
	cpu, memory, memoryPart, swap track
	gpuOrder                      []int
	gpus                          map[int]*gpuTracks
}

type gpuTracks struct{ busy, used, part, celsius, watts track }

// Add takes a sample.
func (s *Summary) Add(x Sample) {
	if s.n == 0 {
		s.first, s.gpus = x, map[int]*gpuTracks{}
	}
	s.last = x
	s.n++
	s.cpu.add(x.CPU)
	if x.MemoryUsed >= 0 {
		s.memory.add(float64(x.MemoryUsed) / giga)
		s.memoryPart.add(part(x.MemoryUsed, x.MemoryTotal))
	}
	if x.SwapTotal > 0 && x.SwapUsed >= 0 {
		s.swap.add(float64(x.SwapUsed) / giga)
	}
	for _, g := range x.GPUs {
		t := s.gpus[g.Index]
		if t == nil {
			t = &gpuTracks{}
			s.gpus[g.Index] = t
			s.gpuOrder = append(s.gpuOrder, g.Index)
		}
		t.busy.add(g.Busy)
		t.used.add(float64(g.UsedBytes) / giga)
		t.part.add(part(g.UsedBytes, g.TotalBytes))
		t.celsius.add(g.Celsius)
		t.watts.add(g.Watts)
	}
}

// Len is how many samples it holds.
func (s *Summary) Len() int { return s.n }

// Values are the runbook's summaries (4.5): averages and maxima, and what went
// over disk and network during the run; always in the same order.
func (s *Summary) Values() []Value {
	var v values
	if s.n == 0 {
		return nil
	}
	both := func(name string, t track) {
		if t.n > 0 {
			v.add("system/avg_"+name, t.sum/float64(t.n))
			v.add("system/max_"+name, t.top)
		}
	}
	v.add("system/cpu_count", float64(s.last.Cores))
	both("cpu_percent", s.cpu)
	both("memory_used_gb", s.memory)
	both("memory_percent", s.memoryPart)
	v.count("system/memory_total_gb", s.last.MemoryTotal, giga)
	both("swap_used_gb", s.swap)
	since := func(name string, from, to int64, scale float64) {
		if from >= 0 && to >= from {
			v.add("system/"+name, float64(to-from)/scale)
		}
	}
	a, b := s.first, s.last
	if a.DiskRead >= 0 && b.DiskRead >= 0 {
		since("disk_read_mb", a.DiskRead, b.DiskRead, mega)
		since("disk_write_mb", a.DiskWritten, b.DiskWritten, mega)
		since("disk_read_count", a.DiskReads, b.DiskReads, 1)
		since("disk_write_count", a.DiskWrites, b.DiskWrites, 1)
	}
	if a.NetReceived >= 0 && b.NetReceived >= 0 {
		since("network_received_mb", a.NetReceived, b.NetReceived, mega)
		since("network_sent_mb", a.NetSent, b.NetSent, mega)
		since("network_packets_received", a.NetPacketsReceived, b.NetPacketsReceived, 1)
		since("network_packets_sent", a.NetPacketsSent, b.NetPacketsSent, 1)
	}
	for _, i := range s.gpuOrder {
		g := s.gpus[i]
		both(fmt.Sprintf("gpu_%d_utilization_percent", i), g.busy)
		both(fmt.Sprintf("gpu_%d_memory_used_gb", i), g.used)
		both(fmt.Sprintf("gpu_%d_memory_percent", i), g.part)
		both(fmt.Sprintf("gpu_%d_temperature_celsius", i), g.celsius)
		both(fmt.Sprintf("gpu_%d_power_watts", i), g.watts)
	}
	return v
}
