package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

const (
	// secretBytes is the length of a secret: 256 bits.
	secretBytes = 32
	// prefix begins the text of each credential, so that scanners of repositories find it.
	prefix = "atl_"
	// maxText bounds the text of a credential, in bytes.
	maxText = 256

	tokenPrefix, invitePrefix = "t-", "i-"
	// idLetters are the random letters and digits behind it.
	idLetters = 10
)

// Credential is an id and the secret that proves it. It prints without the secret; Text has it.
type Credential struct {
	ID     string
	secret [secretBytes]byte
}

// NewToken makes a token.
func NewToken() Credential { return made(tokenPrefix + randomID()) }

// NewInvite makes what an invitation is proved by.
func NewInvite() Credential { return made(invitePrefix + randomID()) }

// NewTrialSecret makes what a program proves with that it trains a trial. The trial, and with it
// the id, is known later: see ForTrial.
func NewTrialSecret() Credential { return made("") }

func made(id string) Credential {
	c := Credential{ID: id}
	rand.Read(c.secret[:])
	return c
}

func randomID() string { return strings.ToLower(rand.Text()[:idLetters]) }

// ForTrial is the credential with the id of its trial.
func (c Credential) ForTrial(sweep string, number int64) Credential {
	c.ID = sweep + "." + strconv.FormatInt(number, 10)
	return c
}

// Hash is what a cluster keeps of the secret: its SHA-256. A plain hash is enough for 256 random
// bits, which nobody can guess at any speed.
func (c Credential) Hash() [sha256.Size]byte { return sha256.Sum256(c.secret[:]) }

// Text is the credential with its secret: atl_ID_SECRET, the secret in base64url.
func (c Credential) Text() string {
	return prefix + c.ID + "_" + base64.RawURLEncoding.EncodeToString(c.secret[:])
}

// String and GoString keep the secret out of logs.
func (c Credential) String() string   { return prefix + c.ID + "_..." }
func (c Credential) GoString() string { return c.String() }

// MarshalText keeps the secret out of everything that is encoded by reflection, too.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Parse reads the text of a credential. Its errors do not repeat the text.
func Parse(text string) (Credential, error) {
	var c Credential
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > maxText {
		return c, fmt.Errorf("not a token: one begins with %s and has at most %d characters", prefix, maxText)
	}
	id, secret, ok := strings.Cut(rest, "_")
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if !ok || err != nil || len(b) != secretBytes || !validID(id) {
		return c, fmt.Errorf("not a whole token: %sID_SECRET, of which the secret has %d characters", prefix, base64.RawURLEncoding.EncodedLen(secretBytes))
	}
	c.ID = id
	copy(c.secret[:], b)
	return c, nil
}

// TrialOf is the trial that an id is of; false where it is that of a token or an invitation.
func TrialOf(id string) (sweep string, number int64, ok bool) {
	sweep, digits, ok := strings.Cut(id, ".")
	if !ok {
		return "", 0, false
	}
	number, err := strconv.ParseInt(digits, 10, 64)
	return sweep, number, err == nil && number > 0 && sweep != "" && strconv.FormatInt(number, 10) == digits
}

// ValidTokenID and ValidInviteID report whether an id is one that NewToken or NewInvite makes.
func ValidTokenID(id string) bool  { return validMade(id, tokenPrefix) }
func ValidInviteID(id string) bool { return validMade(id, invitePrefix) }

func validMade(id, prefix string) bool {
	rest, ok := strings.CutPrefix(id, prefix)
	return ok && len(rest) == idLetters && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// validID bounds what a credential may name.
func validID(id string) bool {
	return id != "" && len(id) <= 100 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}
