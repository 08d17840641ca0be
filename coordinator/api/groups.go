package api

import (
	"strconv"

	"atelier/common/trial"

	"github.com/prometheus/client_golang/prometheus"
)

// groups are the gauges about runs that several slots carry out together: their
// sizes and views from this node's state, their pace from what workers told the
// leader last.
type groups struct{ s *Server }

var (
	groupRuns    = prometheus.NewDesc("atelier_group_runs", "Runs that groups carry out, by their members now.", []string{"members"}, nil)
	groupMembers = prometheus.NewDesc("atelier_group_members", "Slots that carry out runs together.", nil, nil)
	groupViews   = prometheus.NewDesc("atelier_group_view", "Number of a group's newest view: how often its members changed.", []string{"sweep", "trial"}, nil)
	groupStep    = prometheus.NewDesc("atelier_group_step_seconds", "Time of a group's step, lately; on the leader.", []string{"sweep", "trial"}, nil)
	groupWaiting = prometheus.NewDesc("atelier_group_waiting_share", "Share of a step in which a member waits for others, mean over the members; on the leader.", []string{"sweep", "trial"}, nil)
	groupLag     = prometheus.NewDesc("atelier_group_slowest_lag_share", "How much longer than the mean the slowest member computes, a share; on the leader.", []string{"sweep", "trial", "worker", "slot"}, nil)
)

func (g groups) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{groupRuns, groupMembers, groupViews, groupStep, groupWaiting, groupLag} {
		to <- d
	}
}

func (g groups) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	paces := g.paces()
	sizes := map[int]float64{} // a registry orders what it is given
	total := 0
	for _, sw := range g.s.cfg.View().Sweeps() {
		if !sw.Members.Group() || sw.Counts.Running == 0 {
			continue
		}
		for _, n := range sw.Open() {
			group := sw.Trial(n).Group()
			if group == nil {
				continue
			}
			sizes[len(group.Members)]++
			total += len(group.Members)
			number := strconv.FormatInt(n, 10)
			if v := group.View(); v != nil {
				gauge(groupViews, float64(v.Number), sw.ID, number)
			}
			p := paces.Of(sw.ID, n, group)
			if p == nil {
				continue
			}
			gauge(groupStep, float64(p.Step), sw.ID, number)
			gauge(groupWaiting, float64(p.Waiting), sw.ID, number)
			if at := group.At(p.Slowest); at >= 0 {
				gauge(groupLag, float64(p.Lag), sw.ID, number, group.Members[at].Worker, group.Members[at].Slot)
			}
		}
	}
	gauge(groupMembers, float64(total))
	for members, runs := range sizes {
		gauge(groupRuns, runs, strconv.Itoa(members))
	}
}

// paces are what members told last; empty where this node does not lead.
func (g groups) paces() trial.Paces {
	workers, err := g.s.cfg.Assign.Workers()
	if err != nil {
		return nil
	}
	return trial.PacesOf(workers)
}
