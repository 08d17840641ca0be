package webguard

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"atelier/common/secret"
)

// LinkLife is how long after its making a login link may be used.
const LinkLife = 15 * time.Minute

// Why a link's code is refused.
var (
	errForeign = errors.New("this link is not from this server")
	errOld     = errors.New("this link is older than 15 minutes, or than the server")
	errUsed    = errors.New("this link has been used, and each signs in one browser")
)

// A code is 8 bytes of time (Unix milliseconds, big endian), 8 random bytes, and the first 16 bytes of their
// HMAC-SHA-256 under the token, in base64: whoever has the token can make one without asking the server, and
// the server keeps only those that were used.
const codeBytes = 32

// Link is a login link to a server at base (http://HOST:PORT). The code is behind #: no browser sends that part,
// so neither logs nor proxies see it, and programs that follow links to preview them get the login page without it.
func Link(base string, token secret.Text, now time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
	nonce := make([]byte, 8)
	rand.Read(nonce) // it never fails
	b = append(b, nonce...)
	return base + "/login#" + base64.RawURLEncoding.EncodeToString(append(b, seal(token, b)...))
}

func seal(token secret.Text, b []byte) []byte {
	h := hmac.New(sha256.New, []byte(token.Reveal()))
	h.Write([]byte("atelier login link 1\n"))
	h.Write(b)
	return h.Sum(nil)[:16]
}

// links redeems codes, each once.
type links struct {
	token secret.Text
	now   func() time.Time
	began int64 // Unix milliseconds: what was used before a restart is not known any more
	mu    sync.Mutex
	used  map[[codeBytes]byte]time.Time // when it would have ended
}

func newLinks(token secret.Text, now func() time.Time) *links {
	return &links{token: token, now: now, began: now().UnixMilli(), used: map[[codeBytes]byte]time.Time{}}
}

// redeem takes a code, which is good once.
func (l *links) redeem(text string) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != codeBytes || !hmac.Equal(b[16:], seal(l.token, b[:16])) {
		return errForeign
	}
	now := l.now()
	made := int64(binary.BigEndian.Uint64(b))
	end := time.UnixMilli(made).Add(LinkLife)
	if made < l.began || !now.Before(end) {
		return errOld
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for code, end := range l.used {
		if !now.Before(end) {
			delete(l.used, code)
		}
	}
	if _, ok := l.used[[codeBytes]byte(b)]; ok {
		return errUsed
	}
	l.used[[codeBytes]byte(b)] = end
	return nil
}
