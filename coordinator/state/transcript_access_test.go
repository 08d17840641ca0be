package state_test

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"atelier/common/access"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// role is a role by its word; one that is none is 99.
func role(word string) atelierv1.Role {
	for r := access.Nobody; r <= access.Trial; r++ {
		if r.String() == word {
			return atelierv1.Role(r)
		}
	}
	return 99
}

// hashed is the SHA-256 of a secret; "short" is none.
func hashed(secret string) []byte {
	if secret == "short" {
		return []byte(secret)
	}
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// showAccess lists tokens and invitations.
func showAccess(v *state.View) string {
	var b strings.Builder
	for _, t := range v.Tokens() {
		fmt.Fprintf(&b, "  %s %s %s %x created=%d expires=%d revoked=%d by=%q\n", t.ID, t.Name, t.Role, t.Hash[:2], t.CreatedMS, t.ExpiresMS, t.RevokedMS, t.By)
	}
	for _, i := range v.Invites() {
		fmt.Fprintf(&b, "  %s %s node=%q %x created=%d expires=%d revoked=%d uses=%d by=%q\n", i.ID, i.Role, i.Node, i.Hash[:2], i.CreatedMS, i.ExpiresMS, i.RevokedMS, i.Uses, i.By)
		for _, u := range i.Taken {
			fmt.Fprintf(&b, "    taken by %s %x at %d\n", u.Node, u.Key[:2], u.TimeMS)
		}
	}
	return b.String()
}

// showActs lists who did what.
func showActs(v *state.View) string {
	var b strings.Builder
	for _, a := range append(v.Acts(), v.Refusals()...) {
		fmt.Fprintf(&b, "  %d at %d: %s: %s %s", a.Index, a.TimeMS, a.By, a.What, a.About)
		if a.Refused != "" {
			fmt.Fprintf(&b, ", refused: %s", a.Refused)
		}
		if a.Count != 0 {
			fmt.Fprintf(&b, " (%d times)", a.Count)
		}
		b.WriteString("\n")
	}
	return b.String()
}
