package webguard

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"sync"
	"time"
)

// A session lasts a week, and there are at most 64: another one ends the oldest.
const (
	sessionLife  = 7 * 24 * time.Hour
	mostSessions = 64
)

// sessions are in memory alone: they end with the server. Keys are digests: how long a look-up takes tells
// nothing of an id.
type sessions struct {
	now func() time.Time
	mu  sync.Mutex
	end map[[32]byte]time.Time
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, end: map[[32]byte]time.Time{}}
}

// begin makes a session and returns its id, 256 random bits.
func (s *sessions) begin() string {
	id := random()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.end) >= mostSessions {
		var oldest [32]byte
		var at time.Time
		for k, end := range s.end {
			if at.IsZero() || end.Before(at) {
				oldest, at = k, end
			}
		}
		delete(s.end, oldest)
	}
	s.end[digest(id)] = s.now().Add(sessionLife)
	return id
}

func (s *sessions) valid(id string) bool {
	key := digest(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.end[key]
	if ok && !s.now().Before(end) {
		delete(s.end, key)
		ok = false
	}
	return ok
}

func (s *sessions) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.end, digest(id))
}

// cookieName has the port that the browser sees, for cookies know no ports: without it two servers of
// one machine would sign each other's visitors out. Over TLS the prefix makes browsers refuse one that was
// set without TLS or for other hosts.
func cookieName(r *http.Request) string {
	name := "atelier"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		name += "-" + port
	}
	if r.TLS != nil {
		name = "__Host-" + name
	}
	return name
}

// cookie is the session's id that a request carries; "" without one.
func cookie(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

// setCookie hands a session to a browser; an empty id takes it back.
func setCookie(w http.ResponseWriter, r *http.Request, id string) {
	c := &http.Cookie{Name: cookieName(r), Value: id, Path: "/", MaxAge: int(sessionLife / time.Second), HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode}
	if id == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// random is 256 bits as text.
func random() string {
	b := make([]byte, 32)
	rand.Read(b) // it never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func digest(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func equal(a, b [32]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }
