package state

import (
	"crypto/sha256"
	"errors"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
)

// accessRecords is what a snapshot has of tokens, invitations and acts; loadAccess is its inverse.
func (v *View) accessRecords(h *logv1.Header) {
	for i := range v.tokens {
		t := &v.tokens[i]
		h.Tokens = append(h.Tokens, &logv1.TokenRecord{CreatedMs: t.CreatedMS, RevokedMs: t.RevokedMS, By: t.By,
			Token: &logv1.CreateToken{Id: t.ID, Name: t.Name, Role: atelierv1.Role(t.Role), Sha256: t.Hash[:], ExpiresMs: t.ExpiresMS}})
	}
	for i := range v.invites {
		n := &v.invites[i]
		r := &logv1.InviteRecord{CreatedMs: n.CreatedMS, RevokedMs: n.RevokedMS, By: n.By,
			Invite: &logv1.CreateInvite{Id: n.ID, Role: atelierv1.Role(n.Role), Node: n.Node, Sha256: n.Hash[:], ExpiresMs: n.ExpiresMS, Uses: n.Uses}}
		for _, use := range n.Taken {
			r.Taken = append(r.Taken, &logv1.ConsumeInvite{Node: use.Node, Key: use.Key[:]})
			r.TakenMs = append(r.TakenMs, use.TimeMS)
		}
		h.Invites = append(h.Invites, r)
	}
	for i := range v.acts {
		h.Audit = append(h.Audit, v.acts[i].Proto())
	}
	for i := range v.refusals {
		h.Refused = append(h.Refused, v.refusals[i].Proto())
	}
}

// loadAccess takes what Apply would have taken.
func (m *Machine) loadAccess(h *logv1.Header) error {
	if len(h.GetTokens()) > maxTokens || len(h.GetInvites()) > maxInvites || len(h.GetAudit()) > maxActs || len(h.GetRefused()) > maxDenials {
		return invalid("header: %d tokens, %d invitations, %d acts", len(h.GetTokens()), len(h.GetInvites()), len(h.GetAudit()))
	}
	for i, r := range h.GetTokens() {
		t, err := tokenOf(r.GetToken())
		if err != nil {
			return err
		}
		t.CreatedMS, t.RevokedMS, t.By = r.GetCreatedMs(), r.GetRevokedMs(), m.intern(r.GetBy())
		if i > 0 && t.ID <= m.live.tokens[i-1].ID || unfitBy(t.By) {
			return errors.New("header: tokens are not in order")
		}
		m.live.tokens = append(m.live.tokens, t)
	}
	for i, r := range h.GetInvites() {
		n, err := inviteOf(r.GetInvite())
		if err != nil {
			return err
		}
		n.CreatedMS, n.RevokedMS, n.By = r.GetCreatedMs(), r.GetRevokedMs(), m.intern(r.GetBy())
		if i > 0 && n.ID <= m.live.invites[i-1].ID || len(r.GetTaken()) > int(n.Uses) || len(r.GetTaken()) != len(r.GetTakenMs()) || unfitBy(n.By) {
			return errors.New("header: invitations are not in order")
		}
		for at, use := range r.GetTaken() {
			if use.GetNode() == "" || unfit(use.GetNode(), maxName, false) != "" || len(use.GetKey()) != sha256.Size {
				return invalid("header: invitation %s: use %d", n.ID, at+1)
			}
			n.Taken = append(n.Taken, InviteUse{use.GetNode(), [sha256.Size]byte(use.GetKey()), r.GetTakenMs()[at]})
		}
		m.live.invites = append(m.live.invites, n)
	}
	var err error
	if m.live.acts, err = m.loadActs(h, h.GetAudit()); err != nil {
		return err
	}
	m.live.refusals, err = m.loadActs(h, h.GetRefused())
	return err
}

// loadActs is the inverse of Act.Proto, for a list of them.
func (m *Machine) loadActs(h *logv1.Header, list []*atelierv1.AuditEntry) (acts []Act, err error) {
	for i, p := range list {
		a := Act{Index: p.GetIndex(), TimeMS: p.GetTimeMs(), By: m.intern(p.GetBy()), What: m.intern(p.GetWhat()), About: p.GetAbout(), Refused: p.GetRefused(), Count: p.GetCount()}
		if why := a.fault(); why != "" || i > 0 && a.Index < acts[i-1].Index || a.Index > h.GetIndex() {
			return nil, invalid("header: act %d of entry %d: %s", i+1, a.Index, why)
		}
		acts = append(acts, a)
	}
	return acts, nil
}
