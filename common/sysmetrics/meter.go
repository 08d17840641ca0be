// Package sysmetrics reads what a machine does - CPU, memory, swap, disk,
// network, GPUs - and gives it the names that MLflow and the runbook use. It
// refuses to decide what is done with it.
package sysmetrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"

	"atelier/common/nvml"
)

// Every is how often a machine is read.
const Every = 5 * time.Second

// Sample is the machine at one moment. NaN and negative counts are numbers
// that could not be read.
type Sample struct {
	Time  time.Time
	Cores int
	CPU   float64 // per cent of all cores since the sample before

	MemoryUsed, MemoryTotal int64 // bytes
	SwapUsed, SwapTotal     int64 // bytes; a total of 0 is a machine without swap
	DiskUsed, DiskFree      int64 // bytes of the file system of Options.Disk

	// Since the machine's counters began: bytes and operations of all whole
	// disks, bytes and packets of all interfaces but loopback.
	DiskRead, DiskWritten, DiskReads, DiskWrites             int64
	NetReceived, NetSent, NetPacketsReceived, NetPacketsSent int64

	GPUs []GPU
}

// GPU is one of them; NaN is what it does not tell.
type GPU struct {
	Index                 int
	Name                  string
	UsedBytes, TotalBytes int64
	Busy                  float64 // per cent
	Celsius               float64
	Watts, WattsAtMost    float64
}

// Options of a Meter. Zero values take the defaults named.
type Options struct {
	Disk   string       // path whose file system counts; "/"
	NVML   string       // library; that of the driver
	Notify func(string) // told once of each thing that cannot be read; nil: nobody
}

// Meter reads samples, from one goroutine at a time.
type Meter struct {
	o    Options
	gpus []*nvml.GPU
	busy cpu.TimesStat // of the sample before
	told map[string]bool
}

// NewMeter looks for GPUs and takes the first reading that rates start from.
func NewMeter(o Options) *Meter {
	if o.Disk == "" {
		o.Disk = "/"
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	m := &Meter{o: o, told: map[string]bool{}}
	m.gpus, _ = nvml.List(o.NVML) // no driver: no GPUs
	if t, err := cpu.Times(false); err == nil && len(t) > 0 {
		m.busy = t[0]
	}
	return m
}

func (m *Meter) failed(what string, err error) bool {
	if err == nil {
		return false
	}
	if !m.told[what] {
		m.told[what] = true
		m.o.Notify(fmt.Sprintf("system metrics: %s cannot be read: %v", what, err))
	}
	return true
}

// Read takes a sample.
func (m *Meter) Read() Sample {
	s := Sample{Time: time.Now(), Cores: runtime.NumCPU(), CPU: math.NaN(), MemoryUsed: -1, SwapUsed: -1, DiskUsed: -1, DiskRead: -1, NetReceived: -1}
	if t, err := cpu.Times(false); err == nil && len(t) == 0 {
		m.failed("CPU", errors.New("no counters"))
	} else if !m.failed("CPU", err) {
		s.CPU = load(m.busy, t[0])
		m.busy = t[0]
	}
	if v, err := mem.VirtualMemory(); !m.failed("memory", err) {
		s.MemoryTotal, s.MemoryUsed = int64(v.Total), int64(v.Total)-int64(v.Available)
	}
	if v, err := mem.SwapMemory(); !m.failed("swap", err) {
		s.SwapTotal, s.SwapUsed = int64(v.Total), int64(v.Used)
	}
	if u, err := disk.Usage(m.o.Disk); !m.failed("disk space", err) {
		s.DiskUsed, s.DiskFree = int64(u.Used), int64(u.Free)
	}
	if c, err := disk.IOCounters(); !m.failed("disk traffic", err) {
		s.DiskRead = 0
		for name, d := range c {
			if whole(name, c) {
				s.DiskRead, s.DiskWritten = s.DiskRead+int64(d.ReadBytes), s.DiskWritten+int64(d.WriteBytes)
				s.DiskReads, s.DiskWrites = s.DiskReads+int64(d.ReadCount), s.DiskWrites+int64(d.WriteCount)
			}
		}
	}
	if c, err := net.IOCounters(true); !m.failed("network traffic", err) {
		s.NetReceived = 0
		for _, n := range c {
			if n.Name != "lo" {
				s.NetReceived, s.NetSent = s.NetReceived+int64(n.BytesRecv), s.NetSent+int64(n.BytesSent)
				s.NetPacketsReceived, s.NetPacketsSent = s.NetPacketsReceived+int64(n.PacketsRecv), s.NetPacketsSent+int64(n.PacketsSent)
			}
		}
	}
	for _, g := range m.gpus {
		u, err := g.Usage()
		if !m.failed(fmt.Sprintf("GPU %d", g.Index), err) {
			s.GPUs = append(s.GPUs, GPU{Index: g.Index, Name: g.Name, UsedBytes: u.UsedBytes, TotalBytes: g.MemoryBytes, Busy: u.Busy, Celsius: u.Celsius, Watts: u.Watts, WattsAtMost: u.WattsAtMost})
		}
	}
	return s
}

// load is the part of the time between two readings in which cores worked.
func load(before, after cpu.TimesStat) float64 {
	sum := func(t cpu.TimesStat) (all, idle float64) {
		idle = t.Idle + t.Iowait
		return t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal + idle, idle
	}
	a0, i0 := sum(before)
	a1, i1 := sum(after)
	if a1 <= a0 {
		return math.NaN() // no tick between the two
	}
	return min(100, max(0, 100*(1-(i1-i0)/(a1-a0))))
}

// whole reports whether name is a disk, not a part of one that is counted with it, nor a loop or a
// device made of others.
func whole(name string, all map[string]disk.IOCountersStat) bool {
	for _, p := range []string{"loop", "ram", "dm-", "md", "zram", "sr"} {
		if strings.HasPrefix(name, p) {
			return false
		}
	}
	trunk := strings.TrimRight(name, "0123456789")
	if trunk == name {
		return true
	}
	_, part := all[strings.TrimSuffix(trunk, "p")]
	_, plain := all[trunk]
	return !part && !plain
}

// Start reads a sample at once and then one every so often, in a goroutine of
// its own, until ctx ends or stop is called. stop waits for the last sink.
func Start(ctx context.Context, every time.Duration, o Options, sink func(Sample)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		m := NewMeter(o)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			sink(m.Read())
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sync.OnceFunc(func() { cancel(); <-done })
}
