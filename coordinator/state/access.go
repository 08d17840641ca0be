package state

import (
	"cmp"
	"crypto/sha256"
	"slices"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
)

// Who may do what in a closed cluster: tokens of people and programs, invitations of machines.
// Ids, times and hashes are made before the log; secrets never come near it. A restore of a saved
// state leaves all of this as it is: it would else bring revoked tokens back, or lock everybody
// out.

// Token is a person's or a program's. What is over stays listed until the table is full.
type Token struct {
	ID, Name  string
	Role      access.Role // Viewer, Operator or Admin
	Hash      [sha256.Size]byte
	CreatedMS int64
	ExpiresMS int64  // 0 = never
	RevokedMS int64  // 0 = it is not
	By        string // who made it; "" = the cluster itself
}

// Why says why a token is not good at a time; "" = it is.
func (t *Token) Why(now int64) string { return over(now, t.ExpiresMS, t.RevokedMS) }

// over says why what was given is not good any more; "" = it is.
func over(now, expires, revoked int64) string {
	switch {
	case revoked != 0:
		return "was revoked"
	case expires != 0 && now >= expires:
		return "has expired"
	}
	return ""
}

// Invite lets machines join, as many as it has uses.
type Invite struct {
	ID        string
	Role      access.Role // Worker or Coordinator
	Node      string      // the only name it is good for; "" = any
	Hash      [sha256.Size]byte
	CreatedMS int64
	ExpiresMS int64
	RevokedMS int64 // 0 = it is not
	Uses      int32
	By        string
	Taken     []InviteUse // never changed in place
}

// InviteUse is a machine that joined by an invitation.
type InviteUse struct {
	Node   string
	Key    [sha256.Size]byte // of its public key
	TimeMS int64
}

// Why says why an invitation is good for nobody new at a time; "" = it is.
func (i *Invite) Why(now int64) string {
	if why := over(now, i.ExpiresMS, i.RevokedMS); why != "" {
		return why
	}
	if len(i.Taken) >= int(i.Uses) {
		return "has been used"
	}
	return ""
}

// Token returns a token by id.
func (v *View) Token(id string) (Token, bool) {
	if at, found := findToken(v.tokens, id); found {
		return v.tokens[at], true
	}
	return Token{}, false
}

// Tokens returns all tokens, by id.
func (v *View) Tokens() []Token { return slices.Clone(v.tokens) }

// Invite returns an invitation by id.
func (v *View) Invite(id string) (Invite, bool) {
	if at, found := findInvite(v.invites, id); found {
		return v.invites[at], true
	}
	return Invite{}, false
}

// Invites returns all invitations, by id.
func (v *View) Invites() []Invite { return slices.Clone(v.invites) }

func findToken(list []Token, id string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(t Token, id string) int { return cmp.Compare(t.ID, id) })
}

func findInvite(list []Invite, id string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(i Invite, id string) int { return cmp.Compare(i.ID, id) })
}

// createToken adds a token. Where the table is full, one goes that is good no more: the one that
// was made first.
func (m *Machine) createToken(now int64, by string, c *logv1.CreateToken, r *Result) {
	next, err := tokenOf(c)
	if err != nil {
		r.Err = err
		return
	}
	next.CreatedMS, next.By = now, m.intern(by)
	at, found := findToken(m.live.tokens, next.ID)
	if found {
		if known := &m.live.tokens[at]; known.Hash != next.Hash || known.Name != next.Name || known.Role != next.Role {
			r.Err = conflict("create token %s: there is another one of that id", next.ID)
		} else {
			r.Outcome = trial.OutcomeAlready
		}
		return
	}
	for i := range m.live.tokens {
		if t := &m.live.tokens[i]; t.Name == next.Name && t.Why(now) == "" {
			r.Err = conflict("create token %s: there is a token of that name, %s: choose another, or revoke that one first", next.Name, t.ID)
			return
		}
	}
	tokens := slices.Clone(m.live.tokens)
	if len(tokens) >= maxTokens {
		oldest := -1
		for i := range tokens {
			if tokens[i].Why(now) != "" && (oldest < 0 || tokens[i].CreatedMS < tokens[oldest].CreatedMS) {
				oldest = i
			}
		}
		if oldest < 0 {
			r.Err = conflict("create token %s: there are %d tokens, the most there may be: revoke one first", next.Name, maxTokens)
			return
		}
		tokens = slices.Delete(tokens, oldest, oldest+1)
		at, _ = findToken(tokens, next.ID)
	}
	m.live.tokens = slices.Insert(tokens, at, next)
	m.note(Change{Kind: AccessChanged, Worker: next.ID})
}

// NewToken is the command's part that makes a token, which expires at a time in Unix milliseconds; 0 = never.
func NewToken(c access.Credential, name string, role access.Role, expires int64) *logv1.CreateToken {
	hash := c.Hash()
	return &logv1.CreateToken{Id: c.ID, Name: name, Role: atelierv1.Role(role), Sha256: hash[:], ExpiresMs: expires}
}

// tokenOf checks a token. Whoever it is for, its name is one that lists can show.
func tokenOf(c *logv1.CreateToken) (Token, error) {
	t := Token{ID: c.GetId(), Name: c.GetName(), Role: access.Role(c.GetRole()), ExpiresMS: c.GetExpiresMs()}
	switch {
	case !access.ValidTokenID(t.ID):
		return t, invalid("create token: %.80q is not the id of a token", t.ID)
	case t.Name == "" || unfit(t.Name, maxTokenName, false) != "":
		return t, invalid("create token: a name of 1 to %d bytes without control characters, not %.80q", maxTokenName, t.Name)
	case !t.Role.Person():
		return t, invalid("create token %s: a token has the role viewer, operator or admin", t.Name)
	case len(c.GetSha256()) != sha256.Size:
		return t, invalid("create token %s: a SHA-256 of %d bytes", t.Name, len(c.GetSha256()))
	case t.ExpiresMS < 0:
		return t, invalid("create token %s: it expires at %d ms", t.Name, t.ExpiresMS)
	}
	t.Hash = [sha256.Size]byte(c.GetSha256())
	return t, nil
}

// lasting reports whether an admin can use the token for ever.
func (t *Token) lasting(now int64) bool {
	return t.Role == access.Admin && t.ExpiresMS == 0 && t.Why(now) == ""
}

// revokeToken ends a token at once. The last one of an admin that does not expire stays: nobody
// could make another.
func (m *Machine) revokeToken(now int64, c *logv1.RevokeToken, r *Result) {
	at, found := findToken(m.live.tokens, c.GetId())
	if !found {
		r.Err = notFound("revoke token: there is no token %.80q", c.GetId())
		return
	}
	token := m.live.tokens[at]
	if token.RevokedMS != 0 {
		r.Outcome = trial.OutcomeAlready
		return
	}
	if token.lasting(now) {
		last := !slices.ContainsFunc(m.live.tokens, func(t Token) bool { return t.ID != token.ID && t.lasting(now) })
		if last {
			r.Err = conflict("revoke token %s: it is the last one of an admin that does not expire: create another first", token.Name)
			return
		}
	}
	m.live.tokens = slices.Clone(m.live.tokens)
	m.live.tokens[at].RevokedMS = max(now, 1)
	m.note(Change{Kind: AccessChanged, Worker: token.ID})
}

// createInvite adds an invitation; one that is over goes where there are too many.
func (m *Machine) createInvite(now int64, by string, c *logv1.CreateInvite, r *Result) {
	next, err := inviteOf(c)
	if err != nil {
		r.Err = err
		return
	}
	next.CreatedMS, next.By = now, m.intern(by)
	at, found := findInvite(m.live.invites, next.ID)
	if found {
		if known := &m.live.invites[at]; known.Hash != next.Hash || known.Role != next.Role || known.Node != next.Node {
			r.Err = conflict("create invitation %s: there is another one of that id", next.ID)
		} else {
			r.Outcome = trial.OutcomeAlready
		}
		return
	}
	invites := slices.Clone(m.live.invites)
	if len(invites) >= maxInvites {
		oldest := -1
		for i := range invites {
			if invites[i].Why(now) != "" && (oldest < 0 || invites[i].CreatedMS < invites[oldest].CreatedMS) {
				oldest = i
			}
		}
		if oldest < 0 {
			r.Err = conflict("create invitation: there are %d, the most there may be: revoke one first", maxInvites)
			return
		}
		invites = slices.Delete(invites, oldest, oldest+1)
		at, _ = findInvite(invites, next.ID)
	}
	m.live.invites = slices.Insert(invites, at, next)
	m.note(Change{Kind: AccessChanged, Worker: next.ID})
}

// inviteOf checks an invitation.
func inviteOf(c *logv1.CreateInvite) (Invite, error) {
	i := Invite{ID: c.GetId(), Role: access.Role(c.GetRole()), Node: c.GetNode(), ExpiresMS: c.GetExpiresMs(), Uses: c.GetUses()}
	switch {
	case !access.ValidInviteID(i.ID):
		return i, invalid("create invitation: %.80q is not the id of one", i.ID)
	case !i.Role.Machine():
		return i, invalid("create invitation %s: one is for a worker or a coordinator", i.ID)
	case unfit(i.Node, maxName, false) != "":
		return i, invalid("create invitation %s: the node's name: %s", i.ID, unfit(i.Node, maxName, false))
	case len(c.GetSha256()) != sha256.Size:
		return i, invalid("create invitation %s: a SHA-256 of %d bytes", i.ID, len(c.GetSha256()))
	case i.ExpiresMS <= 0:
		return i, invalid("create invitation %s: it expires at %d ms", i.ID, i.ExpiresMS)
	case i.Uses < 1 || i.Uses > maxUses || i.Node != "" && i.Uses != 1:
		return i, invalid("create invitation %s: for %d machines: 1 to %d, and 1 where it names one", i.ID, i.Uses, maxUses)
	}
	i.Hash = [sha256.Size]byte(c.GetSha256())
	return i, nil
}

// consumeInvite lets one machine join. Of two that race for the last use the log chooses one. The
// same machine with the same key may ask again, so that a lost answer costs nothing; what was used
// or is over is refused by name.
func (m *Machine) consumeInvite(now int64, c *logv1.ConsumeInvite, r *Result) {
	at, found := findInvite(m.live.invites, c.GetId())
	switch {
	case !found:
		r.Err = notFound("join by invitation: there is no invitation %.80q", c.GetId())
		return
	case c.GetNode() == "" || unfit(c.GetNode(), maxName, false) != "" || len(c.GetKey()) != sha256.Size:
		r.Err = invalid("join by invitation %s: a name of 1 to %d bytes and the SHA-256 of a key", c.GetId(), maxName)
		return
	}
	invite := m.live.invites[at]
	use := InviteUse{Node: c.GetNode(), Key: [sha256.Size]byte(c.GetKey()), TimeMS: now}
	known := slices.ContainsFunc(invite.Taken, func(t InviteUse) bool { return t.Node == use.Node && t.Key == use.Key })
	why := invite.Why(now)
	switch {
	case known && over(now, invite.ExpiresMS, invite.RevokedMS) == "":
		r.Outcome = trial.OutcomeAlready
	case why == "has been used":
		r.Err = conflict("join by invitation %s: it has been used, by %s: each machine needs its own", invite.ID, invite.Taken[len(invite.Taken)-1].Node)
	case why != "":
		r.Err = conflict("join by invitation %s: it %s: ask for a new one", invite.ID, why)
	case invite.Node != "" && invite.Node != use.Node:
		r.Err = conflict("join by invitation %s: it is for %s, not for %s", invite.ID, invite.Node, use.Node)
	default:
		m.live.invites = slices.Clone(m.live.invites)
		m.live.invites[at].Taken = append(slices.Clone(invite.Taken), use)
		m.note(Change{Kind: AccessChanged, Worker: invite.ID})
	}
}

// revokeInvite ends an invitation; who joined by it stays.
func (m *Machine) revokeInvite(now int64, c *logv1.RevokeInvite, r *Result) {
	at, found := findInvite(m.live.invites, c.GetId())
	switch {
	case !found:
		r.Err = notFound("revoke invitation: there is no invitation %.80q", c.GetId())
	case m.live.invites[at].RevokedMS != 0:
		r.Outcome = trial.OutcomeAlready
	default:
		m.live.invites = slices.Clone(m.live.invites)
		m.live.invites[at].RevokedMS = max(now, 1)
		m.note(Change{Kind: AccessChanged, Worker: c.GetId()})
	}
}

// Proto returns the token as the API speaks of it.
func (t *Token) Proto() *atelierv1.Token {
	return &atelierv1.Token{Id: t.ID, Name: t.Name, Role: atelierv1.Role(t.Role), CreatedMs: t.CreatedMS, ExpiresMs: t.ExpiresMS, RevokedMs: t.RevokedMS, By: t.By}
}

// Proto returns the invitation as the API speaks of it.
func (i *Invite) Proto() *atelierv1.Invite {
	p := &atelierv1.Invite{Id: i.ID, Role: atelierv1.Role(i.Role), Node: i.Node, CreatedMs: i.CreatedMS, ExpiresMs: i.ExpiresMS, RevokedMs: i.RevokedMS, Uses: i.Uses, By: i.By}
	for _, t := range i.Taken {
		p.Taken = append(p.Taken, &atelierv1.InviteUse{Node: t.Node, TimeMs: t.TimeMS, Key: t.Key[:]})
	}
	return p
}
