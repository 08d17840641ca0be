package agent

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// groupStates shows the members of groups that are here and their links, as they are
// when it is asked.
type groupStates struct {
	a                                        *Agent
	members, links, made, unreachable, bytes *prometheus.Desc
}

func newGroupStates(a *Agent) *groupStates {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("atelier_worker_"+name, help, labels, nil)
	}
	return &groupStates{a: a,
		members:     desc("members", "Members of groups here, by state.", "state"),
		links:       desc("links", "Links that the members here were handed."),
		made:        desc("links_made_total", "Ends of links handed to trainers: local between members here, direct and agents to other workers.", "wire"),
		unreachable: desc("members_unreachable_total", "Members of other workers to which no link could be made within the term."),
		bytes:       desc("link_bytes_total", "Bytes relayed between members here and other workers (wire agents; of direct links the kernel alone knows).", "direction"),
	}
}

// Describe implements prometheus.Collector.
func (c *groupStates) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.members, c.links, c.made, c.unreachable, c.bytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *groupStates) Collect(ch chan<- prometheus.Metric) {
	n := map[string]int{}
	for _, h := range c.a.held.live() {
		if h.group != nil {
			n[h.state()]++
		}
	}
	for _, state := range memberStates {
		ch <- prometheus.MustNewConstMetric(c.members, prometheus.GaugeValue, float64(n[state]), state)
	}
	s := c.a.cfg.Wire.Stats()
	ch <- prometheus.MustNewConstMetric(c.links, prometheus.GaugeValue, float64(s.Live))
	for _, kind := range slices.Sorted(maps.Keys(s.Made)) {
		ch <- prometheus.MustNewConstMetric(c.made, prometheus.CounterValue, float64(s.Made[kind]), kind)
	}
	ch <- prometheus.MustNewConstMetric(c.unreachable, prometheus.CounterValue, float64(s.Unreachable))
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(s.Sent), "sent")
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(s.Received), "received")
}

// States of a member here.
const (
	memberPreparing = "preparing" // its checkpoint, its trainer or its links are not there yet
	memberWorking   = "working"
	memberLeaving   = "leaving" // asked to leave, or to pause for a drain
	memberEnded     = "ended"   // its end is on its way to the coordinators
)

var memberStates = []string{memberPreparing, memberWorking, memberLeaving, memberEnded}

// state of a member, for metrics.
func (h *holding) state() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return memberEnded
	case h.leaving || h.paused:
		return memberLeaving
	case h.working:
		return memberWorking
	}
	return memberPreparing
}
