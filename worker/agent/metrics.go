package agent

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	runs              *prometheus.CounterVec
	members           *prometheus.CounterVec
	hung              prometheus.Counter
	views             prometheus.Counter
	firstEvent        prometheus.Histogram
	warmStarts        prometheus.Counter
	coldStarts        prometheus.Counter
	heartbeatFailures prometheus.Counter
	leasesRunOut      prometheus.Counter
	dropped           prometheus.Counter
}

func newMetrics(a *Agent, reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "atelier_worker_" + name, Help: help})
	}
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "atelier_worker_runs_total", Help: "Runs ended, by exit class."}, []string{"exit"}),
		members: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "atelier_worker_member_ends_total",
			Help: "Members of groups that ended while the others continued, by exit class."}, []string{"exit"}),
		hung:  counter("members_hung_total", "Members ended because they gave no sign of life."),
		views: counter("group_views_total", "Changes of who trains together, each once however many members are here."),
		firstEvent: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "atelier_worker_lease_to_first_event_seconds",
			Help: "From the arrival of a lease to the trainer's first event.", Buckets: []float64{.001, .002, .005, .01, .05, .1, .5, 1, 5, 30, 120, 600}}),
		warmStarts:        counter("warm_starts_total", "Runs started in a trainer that was warm."),
		coldStarts:        counter("cold_starts_total", "Runs that had to wait for their trainer to start."),
		heartbeatFailures: counter("heartbeat_failures_total", "Heartbeats that no coordinator answered in time."),
		leasesRunOut:      counter("leases_run_out_total", "Leases that could not be renewed in time."),
		dropped:           counter("events_dropped_total", "Events of runs that had lost their lease."),
	}
	if reg == nil {
		return m
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "atelier_worker_" + name, Help: help}, f)
	}
	total := func(name, help string, of *int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "atelier_worker_" + name, Help: help}, func() float64 {
			a.relay.mu.Lock()
			defer a.relay.mu.Unlock()
			return float64(*of)
		})
	}
	reg.MustRegister(m.runs, m.members, m.hung, m.views, newGroupStates(a), m.firstEvent, m.warmStarts, m.coldStarts, m.heartbeatFailures, m.leasesRunOut, m.dropped,
		gauge("queue_events", "Events waiting for a coordinator.", func() float64 { n, _ := a.relay.waiting(); return float64(n) }),
		gauge("queue_bytes", "Their size.", func() float64 { _, n := a.relay.waiting(); return float64(n) }),
		gauge("leases", "Leases held.", func() float64 { return float64(len(a.held.live())) }),
		total("reports_total", "Reports recorded by the coordinators.", &a.relay.reports),
		total("checkpoints_total", "Checkpoints recorded by the coordinators.", &a.relay.checkpoints),
		total("checkpoint_bytes_total", "Their size.", &a.relay.checkpointBytes),
		&slotStates{a: a, d: prometheus.NewDesc("atelier_worker_slots", "Slots, by state.", []string{"state"}, nil)},
		&outcomes{a: a, d: prometheus.NewDesc("atelier_worker_events_total", "Events answered, by outcome.", []string{"outcome"}, nil)})
	return m
}

// slotStates counts slots by state when it is asked, so that no change of a slot has to
// tell it.
type slotStates struct {
	a *Agent
	d *prometheus.Desc
}

func (c *slotStates) Describe(ch chan<- *prometheus.Desc) { ch <- c.d }

func (c *slotStates) Collect(ch chan<- prometheus.Metric) {
	n := map[string]int{}
	for _, s := range c.a.slots {
		n[s.describe().State]++
	}
	for _, state := range []string{"idle", "busy", "quarantined"} {
		ch <- prometheus.MustNewConstMetric(c.d, prometheus.GaugeValue, float64(n[state]), state)
	}
}

// outcomes shows the relay's own counts.
type outcomes struct {
	a *Agent
	d *prometheus.Desc
}

func (c *outcomes) Describe(ch chan<- *prometheus.Desc) { ch <- c.d }

func (c *outcomes) Collect(ch chan<- prometheus.Metric) {
	c.a.relay.mu.Lock()
	defer c.a.relay.mu.Unlock()
	for o, n := range c.a.relay.counts {
		ch <- prometheus.MustNewConstMetric(c.d, prometheus.CounterValue, float64(n), o.String())
	}
}
