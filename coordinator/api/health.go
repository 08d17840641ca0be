package api

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health answers for this node: 200 while it knows a leader, else 503. A full disk is told and is no 503: a
// supervisor that restarts the node, or a balancer that avoids it, would only make it worse.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	id, _ := s.cfg.Cluster.Leader()
	if id == "" {
		http.Error(w, "no leader: "+absence(s.cfg.ID, s.cfg.Cluster.Stats()), http.StatusServiceUnavailable)
		return
	}
	if room := s.cfg.Cluster.Stats().Room; room.Full() { // it serves reads all the same
		fmt.Fprintf(w, "ok, leader %s, but no new entries: %s\n", id, room)
		return
	}
	fmt.Fprintf(w, "ok, leader %s\n", id)
}

// metrics are gauges read when they are asked for, from what the node keeps anyway: nothing is
// counted on the way of a request.
func (s *Server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	gauge := func(name, help string, of func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "atelier", Name: name, Help: help}, of))
	}
	gauge("leader", "1 on the node that leads and has its duties running.", func() float64 {
		if s.cfg.Lead.Ready() {
			return 1
		}
		return 0
	})
	gauge("raft_term", "Present term of raft.", func() float64 { return float64(s.cfg.Cluster.Stats().Term) })
	gauge("raft_commit_index", "Newest committed log index known here.", func() float64 { return float64(s.cfg.Cluster.Stats().CommitIndex) })
	gauge("applied_index", "Log index of the last command in this node's state.", func() float64 { return float64(s.cfg.View().Index()) })
	gauge("commands_total", "Commands proposed through this node.", func() float64 { return float64(s.cfg.Cluster.Stats().Commands) })
	gauge("log_entries_total", "Log entries those commands went into.", func() float64 { return float64(s.cfg.Cluster.Stats().Entries) })
	gauge("slowest_log_write_seconds", "Longest write to the log's disk since the start.", func() float64 {
		return s.cfg.Cluster.Stats().SlowestWrite.Seconds()
	})
	gauge("disk_free_bytes", "Free space on the disk of the data folder.", func() float64 { return float64(s.cfg.Cluster.Stats().Room.Free) })
	gauge("disk_needed_bytes", "Free space below which this node takes no new entries.", func() float64 { return float64(s.cfg.Cluster.Stats().Room.Need) })
	gauge("trials", "Trials of all sweeps.", func() float64 { return float64(s.cfg.View().Trials()) })
	gauge("running_trials", "Trials with a lease.", func() float64 {
		var n int64
		for _, sw := range s.cfg.View().Sweeps() {
			n += sw.Counts.Running
		}
		return float64(n)
	})
	r.MustRegister(groups{s})
	if s.cfg.Projection != nil {
		gauge("redis_index", "Watermark of the board in Redis, while this node leads.", func() float64 {
			return float64(s.cfg.Projection.Status().Index)
		})
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}
