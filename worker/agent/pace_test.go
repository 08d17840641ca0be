package agent_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trial"
	"atelier/worker/agent"
)

// TestPace runs 16 slots of trials of one second and says how much of the time
// the slots worked. The cluster is in this process and grants at once.
func TestPace(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const slotCount, rounds = 16, 4
	reg := prometheus.NewRegistry()
	c := newCluster(t, 8*time.Second)
	startWorker(t, c, slotCount, func(cfg *agent.Config) { cfg.Registry = reg })
	c.add(slotCount*rounds, `{"epochs":10,"epoch_seconds":0.1,"checkpoint_every":0}`)
	began := time.Now()
	c.until("all finished", 30*time.Second, func() bool { return c.ended(trial.ExitFinished) == slotCount*rounds })
	took := time.Since(began)
	t.Logf("%d trials of 1 s on %d slots: %.2f s, ideal %d s; this process %s", slotCount*rounds, slotCount, took.Seconds(), rounds, resident())
	for _, name := range []string{"atelier_worker_warm_starts_total", "atelier_worker_cold_starts_total"} {
		t.Logf("%s %v", name, value(t, reg, name))
	}
	if value(t, reg, "atelier_worker_warm_starts_total") < slotCount*(rounds-1)*9/10 {
		t.Error("most runs had no trainer standing by")
	}
}

// value is that of a counter or gauge; of all labels together, 0 before the first.
func value(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func resident() string {
	b, _ := os.ReadFile("/proc/self/statm")
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return fmt.Sprintf("%d MiB resident", pages*os.Getpagesize()>>20)
}

// BenchmarkLeaseToFirstEvent measures from the grant to the trainer's first
// report at the coordinator, one trial after the other.
func BenchmarkLeaseToFirstEvent(b *testing.B) {
	reg := prometheus.NewRegistry()
	c := newCluster(b, 8*time.Second)
	var first time.Duration
	startWorker(b, c, 1, func(cfg *agent.Config) { cfg.Registry = reg })
	for i := range b.N {
		c.add(1, `{"epochs":1,"epoch_seconds":0,"checkpoint_every":0}`)
		began := time.Now()
		n := int64(i + 1)
		for {
			c.mu.Lock()
			ok, changed := len(c.trials[n].epochs) == 1, c.changed
			c.mu.Unlock()
			if ok {
				break
			}
			<-changed
		}
		first += time.Since(began)
		b.StopTimer()
		time.Sleep(30 * time.Millisecond) // the next trainer takes its place
		b.StartTimer()
	}
	b.ReportMetric(float64(first.Microseconds())/float64(b.N), "us/first-report")
	families, _ := reg.Gather()
	for _, f := range families {
		if f.GetName() == "atelier_worker_lease_to_first_event_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			b.ReportMetric(h.GetSampleSum()/float64(h.GetSampleCount())*1e6, "us/first-event")
		}
	}
}
