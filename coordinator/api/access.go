package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// accesses is the AccessService.
type accesses struct{ *Server }

const (
	// maxTTL bounds how long a token counts that does not count for ever.
	maxTTL = 10 * 365 * 24 * time.Hour
	// inviteTTL is how long an invitation counts that does not say it; maxInviteTTL the most.
	inviteTTL    = time.Hour
	maxInviteTTL = 30 * 24 * time.Hour
	// auditRows is how many acts are listed unasked.
	auditRows = 100
)

// errOpen refuses what makes no sense where nobody is known.
var errOpen = fmt.Errorf("%w: this cluster is open and has no tokens: begin a closed one with atelier-coordinator --bootstrap --tls", state.ErrConflict)

// WhoAmI says who the caller is to this node, and what is wrong with its credential.
func (s accesses) WhoAmI(ctx context.Context, _ *connect.Request[atelierv1.WhoAmIRequest]) (*connect.Response[atelierv1.WhoAmIResponse], error) {
	from := senderOf(ctx)
	resp := &atelierv1.WhoAmIResponse{Closed: s.cfg.TLS != nil, Role: atelierv1.Role(from.Role)}
	if from.Known() {
		resp.Name = from.Name
		if t, ok := s.cfg.View().Token(from.ID); ok {
			resp.ExpiresMs = t.ExpiresMS
		}
	}
	if from.fault != nil {
		resp.Refused = from.fault.Error()
	}
	return connect.NewResponse(resp), nil
}

// CreateToken takes a token whose id and secret the caller has made; of the secret it has the hash.
func (s accesses) CreateToken(ctx context.Context, req *connect.Request[atelierv1.CreateTokenRequest]) (*connect.Response[atelierv1.CreateTokenResponse], error) {
	m := req.Msg
	if s.cfg.TLS == nil {
		return nil, failure(errOpen)
	}
	expires, err := s.expiry(m.TtlMs, 0, maxTTL)
	if err != nil {
		return nil, err
	}
	_, err = s.write(ctx, &logv1.Command{Op: &logv1.Command_CreateToken{CreateToken: &logv1.CreateToken{Id: m.Id, Name: m.Name, Role: m.Role, Sha256: m.Sha256, ExpiresMs: expires}}})
	if err != nil {
		return nil, err
	}
	t, _ := s.cfg.View().Token(m.Id)
	return connect.NewResponse(&atelierv1.CreateTokenResponse{Token: t.Proto()}), nil
}

// expiry is when what counts for so long is over, in Unix milliseconds; 0 = never.
func (s accesses) expiry(ttl int64, unsaid, most time.Duration) (int64, error) {
	if ttl < 0 || ttl > most.Milliseconds() {
		return 0, invalid("a lifetime of %v: at most %v", time.Duration(ttl)*time.Millisecond, most)
	}
	if ttl = cmp.Or(ttl, unsaid.Milliseconds()); ttl == 0 {
		return 0, nil
	}
	return s.now() + ttl, nil
}

// ListTokens lists all that are known, those that are over too, by name.
func (s accesses) ListTokens(ctx context.Context, _ *connect.Request[atelierv1.ListTokensRequest]) (*connect.Response[atelierv1.ListTokensResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.ListTokensResponse{}
	list := view.Tokens()
	slices.SortStableFunc(list, func(a, b state.Token) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.CreatedMS, b.CreatedMS))
	})
	for i := range list {
		resp.Tokens = append(resp.Tokens, list[i].Proto())
	}
	return connect.NewResponse(resp), nil
}

// RevokeToken ends a token at once, on this node when it answers, on the others as soon as they have
// the log. It takes an id, or the name of a token that is good.
func (s accesses) RevokeToken(ctx context.Context, req *connect.Request[atelierv1.RevokeTokenRequest]) (*connect.Response[atelierv1.RevokeTokenResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	id := req.Msg.Id
	if _, ok := view.Token(id); !ok {
		for _, t := range view.Tokens() {
			if t.Name == id && t.Why(s.now()) == "" {
				id = t.ID
			}
		}
	}
	if _, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_RevokeToken{RevokeToken: &logv1.RevokeToken{Id: id}}}); err != nil {
		return nil, err
	}
	t, _ := s.cfg.View().Token(id)
	return connect.NewResponse(&atelierv1.RevokeTokenResponse{Token: t.Proto()}), nil
}

// CreateInvite takes an invitation whose id and secret the caller has made, and answers where a
// machine that has it finds the cluster, and by what it knows it.
func (s accesses) CreateInvite(ctx context.Context, req *connect.Request[atelierv1.CreateInviteRequest]) (*connect.Response[atelierv1.CreateInviteResponse], error) {
	m := req.Msg
	if s.cfg.TLS == nil {
		return nil, failure(errOpen)
	}
	expires, err := s.expiry(m.TtlMs, inviteTTL, maxInviteTTL)
	if err != nil {
		return nil, err
	}
	_, err = s.write(ctx, &logv1.Command{Op: &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{
		Id: m.Id, Role: m.Role, Node: m.Node, Sha256: m.Sha256, ExpiresMs: expires, Uses: cmp.Or(m.Uses, 1)}}})
	if err != nil {
		return nil, err
	}
	view := s.cfg.View()
	i, _ := view.Invite(m.Id)
	resp := &atelierv1.CreateInviteResponse{Invite: i.Proto()}
	if s.cfg.Identity != nil {
		sum := sha256.Sum256(s.cfg.Identity.Trusted()[0].Raw)
		resp.CaSha256 = sum[:]
	}
	for _, b := range view.Members() {
		if b.APIAddress != "" {
			resp.ApiAddresses = append(resp.ApiAddresses, b.APIAddress)
		}
	}
	return connect.NewResponse(resp), nil
}

// ListInvites lists all that are known, the newest first.
func (s accesses) ListInvites(ctx context.Context, _ *connect.Request[atelierv1.ListInvitesRequest]) (*connect.Response[atelierv1.ListInvitesResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	resp := &atelierv1.ListInvitesResponse{}
	list := view.Invites()
	slices.SortStableFunc(list, func(a, b state.Invite) int { return cmp.Compare(b.CreatedMS, a.CreatedMS) })
	for i := range list {
		resp.Invites = append(resp.Invites, list[i].Proto())
	}
	return connect.NewResponse(resp), nil
}

// RevokeInvite ends an invitation; who joined by it stays a member.
func (s accesses) RevokeInvite(ctx context.Context, req *connect.Request[atelierv1.RevokeInviteRequest]) (*connect.Response[atelierv1.RevokeInviteResponse], error) {
	if _, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_RevokeInvite{RevokeInvite: &logv1.RevokeInvite{Id: req.Msg.Id}}}); err != nil {
		return nil, err
	}
	i, _ := s.cfg.View().Invite(req.Msg.Id)
	return connect.NewResponse(&atelierv1.RevokeInviteResponse{Invite: i.Proto()}), nil
}

// ListAudit lists who changed what, and what was refused to whom, in the order of the log.
func (s accesses) ListAudit(ctx context.Context, req *connect.Request[atelierv1.ListAuditRequest]) (*connect.Response[atelierv1.ListAuditResponse], error) {
	m := req.Msg
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if m.Limit < 0 {
		return nil, invalid("limit %d: give 0 for %d rows, or how many", m.Limit, auditRows)
	}
	var list []*atelierv1.AuditEntry
	for _, some := range [][]state.Act{view.Acts(), view.Refusals()} {
		for i := range some {
			if some[i].Index > m.After && (m.By == "" || some[i].By == m.By) {
				list = append(list, some[i].Proto())
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *atelierv1.AuditEntry) int { return cmp.Compare(a.Index, b.Index) })
	resp := &atelierv1.ListAuditResponse{}
	if n := int(cmp.Or(m.Limit, auditRows)); len(list) > n {
		list, resp.Dropped = list[len(list)-n:], true
	}
	resp.Entries = list
	return connect.NewResponse(resp), nil
}

// noteAct lists an act of a person that is no command of its own. In an open cluster nobody is known.
func (s *Server) noteAct(ctx context.Context, what, about string) error {
	if by(ctx) == "" {
		return nil
	}
	_, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_RecordAct{RecordAct: &logv1.RecordAct{What: what, About: about}}})
	return err
}

// ReportRefusals takes what another coordinator refused.
func (s accesses) ReportRefusals(ctx context.Context, req *connect.Request[atelierv1.ReportRefusalsRequest]) (*connect.Response[atelierv1.ReportRefusalsResponse], error) {
	if err := s.recordRefusals(ctx, callerOf(ctx).Name, req.Msg); err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.ReportRefusalsResponse{}), nil
}

// errInvite is for whoever shows a text that opens nothing: it tells nothing of which invitations
// there are.
var errInvite = errors.New("the invitation is not one of this cluster: ask for a new one (atelier cluster invite)")

// Consume spends one use of the invitation whose text a machine shows that wants to join in a role,
// under a name and with a key (its SHA-256). Of machines that race for the last use one wins; the
// same machine may ask again. What is refused is named and listed.
func (s *Server) Consume(ctx context.Context, text string, role access.Role, node string, key [32]byte) error {
	refuse := func(about string, err error) error {
		s.Refused(fmt.Sprintf("%s %.64q", role, node), "join by invitation "+about, connectMessage(err))
		return err
	}
	c, err := access.Parse(text)
	if err != nil {
		return refuse("", errInvite)
	}
	view, err := s.read(ctx)
	if err != nil {
		return err
	}
	i, found := view.Invite(c.ID)
	if !found || c.Hash() != i.Hash {
		return refuse("", errInvite)
	}
	if i.Role != role {
		return refuse(i.ID, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("invitation %s is for a %s, not for a %s", i.ID, i.Role, role)))
	}
	_, err = s.write(ctx, &logv1.Command{By: fmt.Sprintf("%s %s", role, node), Op: &logv1.Command_ConsumeInvite{ConsumeInvite: &logv1.ConsumeInvite{Id: i.ID, Node: node, Key: key[:]}}})
	if code := connect.CodeOf(err); err != nil && (code == connect.CodeFailedPrecondition || code == connect.CodeInvalidArgument) {
		return refuse(i.ID, err)
	}
	return err
}
