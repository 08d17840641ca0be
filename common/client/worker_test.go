package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/trial"
)

// workerService keeps what it was asked and answers with everything set.
type workerService struct {
	atelierv1connect.UnimplementedWorkerServiceHandler
	asked  proto.Message
	answer proto.Message
}

func (s *workerService) Heartbeat(_ context.Context, r *connect.Request[atelierv1.HeartbeatRequest]) (*connect.Response[atelierv1.HeartbeatResponse], error) {
	s.asked = r.Msg
	return connect.NewResponse(s.answer.(*atelierv1.HeartbeatResponse)), nil
}

func (s *workerService) Acquire(_ context.Context, r *connect.Request[atelierv1.AcquireRequest]) (*connect.Response[atelierv1.AcquireResponse], error) {
	s.asked = r.Msg
	return connect.NewResponse(s.answer.(*atelierv1.AcquireResponse)), nil
}

func (s *workerService) Relay(_ context.Context, r *connect.Request[atelierv1.RelayRequest]) (*connect.Response[atelierv1.RelayResponse], error) {
	s.asked = r.Msg
	return connect.NewResponse(s.answer.(*atelierv1.RelayResponse)), nil
}

// unset names the fields of a message that are not set.
func unset(m proto.Message) (names []string) {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if !m.ProtoReflect().Has(fields.Get(i)) {
			names = append(names, string(fields.Get(i).Name()))
		}
	}
	return names
}

// zero names the fields of a struct that are zero.
func zero(v any) (names []string) {
	s := reflect.ValueOf(v)
	for i := range s.NumField() {
		if s.Field(i).IsZero() {
			names = append(names, s.Type().Field(i).Name)
		}
	}
	return names
}

// Nothing that a worker says is left out on the way; what is within records package
// wire's tests hold.
func TestWorkersCalls(t *testing.T) {
	s := &workerService{}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewWorkerServiceHandler(s))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	c := client.New([]string{srv.URL})
	defer c.Close()
	ref := trial.LeaseRef{Sweep: "s-a", Trial: 2, Token: 3}

	s.answer = &atelierv1.HeartbeatResponse{TtlMs: 1500, Lost: []*atelierv1.LeaseRef{{SweepId: "s-a", Trial: 2, Token: 3}}}
	answer, err := c.Heartbeat(t.Context(), trial.Heartbeat{Worker: trial.Worker{Name: "w"}, Leases: []trial.LeaseRef{ref}})
	if err != nil || answer.TTL != 1500*time.Millisecond || !slices.Equal(answer.Lost, []trial.LeaseRef{ref}) {
		t.Errorf("answer %+v, %v", answer, err)
	}
	if m := s.asked.(*atelierv1.HeartbeatRequest); m.GetWorker().GetName() != "w" || len(m.GetLeases()) != 1 {
		t.Errorf("asked %v", m)
	}

	s.answer = &atelierv1.AcquireResponse{Lease: &atelierv1.Lease{SweepId: "s-a", Trial: 2, Token: 3}}
	ask := client.AcquireRequest{RequestID: "r", Worker: "w", Incarnation: "i", Slot: "cpu0", Trainers: []string{"sim"}, GroupTrainers: []string{"sim"}, Labels: map[string]string{"a": "b"}, Folder: "f", Wait: time.Second}
	lease, err := c.Acquire(t.Context(), ask)
	if err != nil || lease == nil || lease.LeaseRef != ref {
		t.Errorf("lease %+v, %v", lease, err)
	}
	if m, q := unset(s.asked), zero(ask); len(m)+len(q) > 0 {
		t.Errorf("acquire: not asked %q, not tried %q", m, q)
	}
	s.answer = &atelierv1.AcquireResponse{}
	if lease, err := c.Acquire(t.Context(), ask); lease != nil || err != nil {
		t.Errorf("where there is none: %+v, %v", lease, err)
	}

	events := []trial.Event{{LeaseRef: ref, Ended: &trial.Ended{Exit: trial.ExitLost}}}
	s.answer = &atelierv1.RelayResponse{Results: []*atelierv1.EventResult{{Outcome: 3}}}
	results, err := c.Relay(t.Context(), "w", "i", events)
	if err != nil || len(results) != 1 || results[0].Outcome != trial.OutcomeFenced {
		t.Errorf("results %+v, %v", results, err)
	}
	if m := unset(s.asked); len(m) > 0 {
		t.Errorf("relay: not asked %q", m)
	}
	s.answer = &atelierv1.RelayResponse{}
	if _, err := c.Relay(t.Context(), "w", "i", events); err == nil {
		t.Error("an event without an answer is taken for answered")
	}
}
