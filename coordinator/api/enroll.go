package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// enrollEvery and enrollBurst bound how often a leader looks at an invitation: everybody may show it one.
const (
	enrollEvery = 100 * time.Millisecond
	enrollBurst = 50
)

// newEnrolling is the limit of a node.
func newEnrolling() *rate.Limiter { return rate.NewLimiter(rate.Every(enrollEvery), enrollBurst) }

// Enroll makes a machine a member by an invitation, which it uses up. A coordinator is handed the authority's key, too,
// with which it signs for others.
func (s cluster) Enroll(ctx context.Context, req *connect.Request[atelierv1.EnrollRequest]) (*connect.Response[atelierv1.EnrollResponse], error) {
	m := req.Msg
	if s.cfg.Identity == nil {
		return nil, failure(errOpen)
	}
	if !s.enrolling.Allow() {
		return nil, client.Refusal{NothingDone: true}.Error(connect.CodeUnavailable, errors.New("too many machines join at once: this one may ask again in a second"))
	}
	name := identity.Name{Cluster: s.cfg.Identity.Name().Cluster, Role: identity.Worker, Node: m.Node}
	role := access.Role(m.Role)
	if role == access.Coordinator {
		name.Role = identity.Coordinator
	}
	if err := name.Check(); err != nil || !role.Machine() {
		return nil, invalid("a machine joins as worker or coordinator, under a name: got %s %.80q", role, m.Node)
	}
	key, err := identity.RequestKey(m.Request)
	if err != nil {
		return nil, invalid("%v", err)
	}
	if err := s.Consume(ctx, m.Invitation, role, m.Node, key); err != nil {
		return nil, err
	}
	s.cfg.Logger.Info("a machine joined by an invitation", "member", name)
	return s.certify(m.Request, name)
}

// Renew gives a member its next certificate, under the name in its present one.
func (s cluster) Renew(ctx context.Context, req *connect.Request[atelierv1.RenewRequest]) (*connect.Response[atelierv1.EnrollResponse], error) {
	if s.cfg.Identity == nil {
		return nil, failure(errOpen)
	}
	c := callerOf(ctx)
	name := identity.Name{Cluster: s.cfg.Identity.Name().Cluster, Role: identity.Worker, Node: c.Name}
	if c.Role == access.Coordinator {
		name.Role = identity.Coordinator
		if view, err := s.read(ctx); err != nil {
			return nil, err
		} else if _, ok := view.Member(c.Name); !ok {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is not a member of this cluster: to take it back, empty its --data folder and let it join with an invite", name))
		}
	}
	return s.certify(req.Msg.Request, name)
}

// certify signs, and tells the new member what every member knows.
func (s cluster) certify(request []byte, name identity.Name) (*connect.Response[atelierv1.EnrollResponse], error) {
	id := s.cfg.Identity
	cert, err := id.Authority().Sign(request, name, s.cfg.Now(), identity.NodeLife)
	if err != nil {
		return nil, invalid("%v", err)
	}
	resp := &atelierv1.EnrollResponse{Certificate: cert, Trusted: id.Trusted().PEM(), GossipKeys: id.Gossip()}
	if name.Role == identity.Coordinator {
		resp.AuthorityKey = id.Authority().KeyPEM()
	}
	for _, b := range s.cfg.View().Members() {
		if b.APIAddress != "" {
			resp.ApiAddresses = append(resp.ApiAddresses, b.APIAddress)
		}
		if b.GossipAddress != "" {
			resp.GossipAddresses = append(resp.GossipAddresses, b.GossipAddress)
		}
	}
	return connect.NewResponse(resp), nil
}
