package main

import (
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/sysmetrics"
	"atelier/common/trial"
)

// machine keeps the newest reading of this machine, for heartbeats and /metrics.
type machine struct {
	last atomic.Pointer[sysmetrics.Sample]
}

// newMachine also serves the readings as metrics; without them the worker works all the same.
func newMachine(log *slog.Logger, reg prometheus.Registerer) *machine {
	m := &machine{}
	if err := reg.Register(m); err != nil {
		log.Error("system metrics are not served", "error", err)
	}
	return m
}

// set takes the newest reading.
func (m *machine) set(s sysmetrics.Sample) { m.last.Store(&s) }

// usage is the newest reading as a heartbeat carries it; nil before the first.
func (m *machine) usage() *trial.Usage {
	s := m.last.Load()
	if s == nil {
		return nil
	}
	u := &trial.Usage{TimeMS: s.Time.UnixMilli(), CPUPercent: trial.Number(s.CPU), Cores: int32(s.Cores), MemoryUsed: s.MemoryUsed, MemoryTotal: s.MemoryTotal, SwapUsed: s.SwapUsed, SwapTotal: s.SwapTotal,
		DiskUsed: s.DiskUsed, DiskFree: s.DiskFree, DiskRead: s.DiskRead, DiskWritten: s.DiskWritten, NetReceived: s.NetReceived, NetSent: s.NetSent}
	for _, g := range s.GPUs {
		u.GPUs = append(u.GPUs, trial.GPUUsage{Index: int32(g.Index), Name: g.Name, BusyPercent: trial.Number(g.Busy), MemoryUsed: g.UsedBytes, MemoryTotal: g.TotalBytes,
			Celsius: trial.Number(g.Celsius), Watts: trial.Number(g.Watts), WattsAtMost: trial.Number(g.WattsAtMost)})
	}
	return u
}

// Describe makes it an unchecked collector: which numbers a machine has shows
// only when it is read.
func (m *machine) Describe(chan<- *prometheus.Desc) {}

// Collect gives the numbers under MLflow's names: atelier_machine_cpu_utilization_percentage,
// those of GPUs with a label.
func (m *machine) Collect(ch chan<- prometheus.Metric) {
	s := m.last.Load()
	if s == nil {
		return
	}
	for _, v := range s.Series() {
		name, labels, values := strings.TrimPrefix(v.Name, "system/"), []string(nil), []string(nil)
		if rest, ok := strings.CutPrefix(name, "gpu_"); ok {
			index, what, _ := strings.Cut(rest, "_")
			if _, err := strconv.Atoi(index); err == nil {
				name, labels, values = "gpu_"+what, []string{"gpu"}, []string{index}
			}
		}
		kind := prometheus.GaugeValue
		if strings.HasPrefix(name, "network_") || name == "disk_read_megabytes" || name == "disk_write_megabytes" {
			kind, name = prometheus.CounterValue, name+"_total"
		}
		if !math.IsNaN(v.Value) {
			ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("atelier_machine_"+name, "Of the machine, read every 5 s.", labels, nil), kind, v.Value, values...)
		}
	}
}
