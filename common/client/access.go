package client

import (
	"context"
	"time"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// WhoAmI says who this client is to the cluster.
func (c *Client) WhoAmI(ctx context.Context) (access.Who, error) {
	r, err := c.raw.Access.WhoAmI(ctx, connect.NewRequest(&atelierv1.WhoAmIRequest{}))
	if err != nil {
		return access.Who{}, err
	}
	return access.Who{Closed: r.Msg.Closed, Name: r.Msg.Name, Role: access.Role(r.Msg.Role).String(), Refused: r.Msg.Refused, ExpiresMS: r.Msg.ExpiresMs}, nil
}

// CreateToken makes the cluster know a token, of whose secret it gets the hash. A ttl of 0 is for ever.
func (c *Client) CreateToken(ctx context.Context, t access.Credential, name string, role access.Role, ttl time.Duration) (access.Token, error) {
	hash := t.Hash()
	r, err := c.raw.Access.CreateToken(ctx, connect.NewRequest(&atelierv1.CreateTokenRequest{Id: t.ID, Name: name, Role: atelierv1.Role(role), Sha256: hash[:], TtlMs: ttl.Milliseconds()}))
	if err != nil {
		return access.Token{}, err
	}
	return token(r.Msg.Token), nil
}

// ListTokens lists the tokens of the cluster, those that are over too.
func (c *Client) ListTokens(ctx context.Context) ([]access.Token, error) {
	r, err := c.raw.Access.ListTokens(ctx, connect.NewRequest(&atelierv1.ListTokensRequest{}))
	if err != nil {
		return nil, err
	}
	list := make([]access.Token, len(r.Msg.Tokens))
	for i, t := range r.Msg.Tokens {
		list[i] = token(t)
	}
	return list, nil
}

// RevokeToken ends a token, by its id or its name.
func (c *Client) RevokeToken(ctx context.Context, id string) (access.Token, error) {
	r, err := c.raw.Access.RevokeToken(ctx, connect.NewRequest(&atelierv1.RevokeTokenRequest{Id: id}))
	if err != nil {
		return access.Token{}, err
	}
	return token(r.Msg.Token), nil
}

func token(t *atelierv1.Token) access.Token {
	return access.Token{ID: t.GetId(), Name: t.GetName(), Role: access.Role(t.GetRole()).String(), CreatedMS: t.GetCreatedMs(), ExpiresMS: t.GetExpiresMs(), RevokedMS: t.GetRevokedMs(), By: t.GetBy()}
}

// Invited is a new invitation, and what a machine has to know to use it.
type Invited struct {
	Invite access.Invite
	Addrs  []string // HOST:PORT of the coordinators' API
	CA     []byte   // SHA-256 of the certificate of the cluster's authority
}

// Invitation is what one is to be good for.
type Invitation struct {
	Role access.Role   // Worker or Coordinator
	Node string        // the only name; "" = any
	TTL  time.Duration // 0 = an hour
	Uses int32         // 0 = 1
}

// CreateInvite makes the cluster know an invitation, of whose secret it gets the hash.
func (c *Client) CreateInvite(ctx context.Context, t access.Credential, i Invitation) (Invited, error) {
	hash := t.Hash()
	r, err := c.raw.Access.CreateInvite(ctx, connect.NewRequest(&atelierv1.CreateInviteRequest{Id: t.ID, Role: atelierv1.Role(i.Role), Node: i.Node, Sha256: hash[:], TtlMs: i.TTL.Milliseconds(), Uses: i.Uses}))
	if err != nil {
		return Invited{}, err
	}
	return Invited{invite(r.Msg.Invite), r.Msg.ApiAddresses, r.Msg.CaSha256}, nil
}

// ListInvites lists the invitations, the newest first.
func (c *Client) ListInvites(ctx context.Context) ([]access.Invite, error) {
	r, err := c.raw.Access.ListInvites(ctx, connect.NewRequest(&atelierv1.ListInvitesRequest{}))
	if err != nil {
		return nil, err
	}
	list := make([]access.Invite, len(r.Msg.Invites))
	for i, v := range r.Msg.Invites {
		list[i] = invite(v)
	}
	return list, nil
}

// RevokeInvite ends an invitation.
func (c *Client) RevokeInvite(ctx context.Context, id string) (access.Invite, error) {
	r, err := c.raw.Access.RevokeInvite(ctx, connect.NewRequest(&atelierv1.RevokeInviteRequest{Id: id}))
	if err != nil {
		return access.Invite{}, err
	}
	return invite(r.Msg.Invite), nil
}

func invite(i *atelierv1.Invite) access.Invite {
	out := access.Invite{ID: i.GetId(), Role: access.Role(i.GetRole()).String(), Node: i.GetNode(), CreatedMS: i.GetCreatedMs(), ExpiresMS: i.GetExpiresMs(), RevokedMS: i.GetRevokedMs(), Uses: i.GetUses(), By: i.GetBy(), Taken: []access.InviteUse{}}
	for _, t := range i.GetTaken() {
		out.Taken = append(out.Taken, access.InviteUse{Node: t.GetNode(), TimeMS: t.GetTimeMs()})
	}
	return out
}

// Audit lists who changed what, oldest first: the newest limit of those behind a raft index, of one caller
// or of all; more reports whether there are older ones, also such as are not kept any more.
func (c *Client) Audit(ctx context.Context, after uint64, limit int32, by string) (acts []access.Act, more bool, err error) {
	r, err := c.raw.Access.ListAudit(ctx, connect.NewRequest(&atelierv1.ListAuditRequest{After: after, Limit: limit, By: by}))
	if err != nil {
		return nil, false, err
	}
	acts = make([]access.Act, len(r.Msg.Entries))
	for i, e := range r.Msg.Entries {
		acts[i] = access.Act{Index: e.Index, TimeMS: e.TimeMs, By: e.By, What: e.What, About: e.About, Refused: e.Refused, Count: max(e.Count, 1)}
	}
	return acts, r.Msg.Dropped, nil
}
