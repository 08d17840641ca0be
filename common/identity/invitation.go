package identity

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
)

// invitationPrefix begins the text of an invitation, maxInvitation bounds it, in bytes.
const (
	invitationPrefix = "atelier-join."
	maxInvitation    = 4 << 10
	maxAddresses     = 16
)

// Invitation is all that a new machine needs to join a closed cluster: where it is, by what it is known, and a secret. Its
// Text is what a person pastes; it prints without the secret.
type Invitation struct {
	Addresses   []string // of the API of coordinators, HOST:PORT
	Fingerprint string   // of the authority, hex SHA-256 of its certificate
	Secret      string   // text that is used up, see access.Credential
}

// invitationText is the JSON inside.
type invitationText struct {
	A []string `json:"a"`
	F string   `json:"f"`
	S string   `json:"s"`
}

// Text is the invitation with its secret, in one word of a shell.
func (i Invitation) Text() string {
	b, err := json.Marshal(invitationText{i.Addresses, i.Fingerprint, i.Secret})
	if err != nil { // strings always encode
		panic(err)
	}
	return invitationPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// String keeps the secret out of logs.
func (i Invitation) String() string {
	return fmt.Sprintf("invitation to the cluster at %s", strings.Join(i.Addresses, ", "))
}

// GoString keeps the secret out of logs.
func (i Invitation) GoString() string { return i.String() }

// IsInvitation reports whether a text is meant to be an invitation and not an address.
func IsInvitation(text string) bool { return strings.HasPrefix(text, invitationPrefix) }

// ParseInvitation reads what Text has written. Its errors do not repeat the text.
func ParseInvitation(text string) (Invitation, error) {
	rest, ok := strings.CutPrefix(text, invitationPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(text) > maxInvitation {
		return Invitation{}, errors.New("this is not a whole invitation: copy all of what `atelier cluster invite` printed")
	}
	var t invitationText
	if err := json.Unmarshal(b, &t); err != nil {
		return Invitation{}, errors.New("this is not a whole invitation: copy all of what `atelier cluster invite` printed")
	}
	if fp, err := hex.DecodeString(t.F); err != nil || len(fp) != 32 || t.F != strings.ToLower(t.F) {
		return Invitation{}, errors.New("the invitation has no fingerprint of a cluster's authority")
	}
	if len(t.A) == 0 || len(t.A) > maxAddresses || t.S == "" {
		return Invitation{}, errors.New("the invitation has no addresses or no secret")
	}
	for _, a := range t.A {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || strings.ContainsAny(a, "/ \n\t?#@") {
			return Invitation{}, fmt.Errorf("the invitation has the address %.80q: want HOST:PORT", a)
		}
	}
	return Invitation{t.A, t.F, t.S}, nil
}
