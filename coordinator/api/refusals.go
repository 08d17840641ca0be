package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/sparselog"
)

const (
	// reportEvery is how often what was refused is written into the log; the same refusal counts up
	// meanwhile.
	reportEvery = 5 * time.Second
	// maxRefused bounds how many different ones are kept between two reports, and maxReported how
	// many one report carries: whoever tries many doors fills neither memory nor log.
	maxRefused  = 256
	maxReported = 16
)

// refusal is one kind of refused request.
type refusal struct{ by, what, why string }

// refusals counts what this node refused since it last reported.
type refusals struct {
	log *sparselog.Log

	mu    sync.Mutex
	count map[refusal]int64
	order []refusal // as they came first
}

func newRefusals(to *slog.Logger) *refusals {
	return &refusals{log: sparselog.New(to, time.Minute, nil), count: map[refusal]int64{}}
}

func (r *refusals) add(one refusal, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count[one] == 0 {
		if len(r.order) >= maxRefused {
			return
		}
		r.order = append(r.order, one)
	}
	r.count[one] += n
}

// take returns the first few as entries of the list, and forgets them.
func (r *refusals) take() (list []*atelierv1.AuditEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.order), maxReported)
	for _, one := range r.order[:n] {
		list = append(list, &atelierv1.AuditEntry{By: one.by, What: one.what, Refused: one.why, Count: r.count[one]})
		delete(r.count, one)
	}
	r.order = append(r.order[:0], r.order[n:]...)
	return list
}

// Refused notes that this node refused something: who asked for what, and why it was refused. It is
// logged at once, and listed (`atelier cluster audit`) within seconds of there being a leader.
func (s *Server) Refused(by, what, why string) {
	s.refused.log.Warn(by+"\x00"+what+"\x00"+why, "refused", "caller", by, "what", what, "why", why)
	s.refused.add(refusal{by, what, why}, 1)
}

// reportRefusals writes them into the log now and then, by the leader.
func (s *Server) reportRefusals() {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		list := s.refused.take()
		if len(list) == 0 {
			continue
		}
		if err := s.report(list); err != nil {
			for _, e := range list {
				s.refused.add(refusal{e.By, e.What, e.Refused}, e.Count)
			}
		}
	}
}

// report brings them to the leader, which is this node or another.
func (s *Server) report(list []*atelierv1.AuditEntry) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	ask := &atelierv1.ReportRefusalsRequest{Refused: list}
	if s.cfg.Lead.Ready() {
		return s.recordRefusals(ctx, s.cfg.ID, ask)
	}
	id, _ := s.cfg.Cluster.Leader()
	addr := s.apiOf(id)
	if id == "" || id == s.cfg.ID || addr == "" {
		return s.nobody(nothingDone)
	}
	peer := atelierv1connect.NewAccessServiceClient(&http.Client{Transport: s.peers}, s.urlOf(addr))
	_, err := peer.ReportRefusals(ctx, connect.NewRequest(ask))
	return err
}

// recordRefusals writes what a node refused into the log.
func (s *Server) recordRefusals(ctx context.Context, node string, m *atelierv1.ReportRefusalsRequest) error {
	for _, e := range m.Refused[:min(len(m.Refused), maxReported)] {
		c := &logv1.Command{By: e.By, Op: &logv1.Command_RecordAct{RecordAct: &logv1.RecordAct{What: e.What, About: "at " + node, Refused: e.Refused, Count: e.Count}}}
		if _, err := s.write(ctx, c); err != nil && connect.CodeOf(err) != connect.CodeInvalidArgument {
			return err
		}
	}
	return nil
}
