package wire

import (
	"fmt"
	"net/http"
	"time"
)

// ServeHTTP answers other agents. A connection that becomes a link is taken from
// the server.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, format string, args ...any) {
		http.Error(w, fmt.Sprintf(format, args...), status)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(http.StatusMethodNotAllowed, "only GET")
		return
	}
	token, from, to, err := parsePath(r.URL.Path)
	if err != nil {
		refuse(http.StatusBadRequest, "%v", err)
		return
	}
	name, err := parseName(r.Header)
	if err != nil {
		refuse(http.StatusBadRequest, "%v", err)
		return
	}
	s, at := h.look(token, to)
	switch at {
	case absent:
		refuse(http.StatusNotFound, "worker %s has no member %d of lease %d", h.cfg.Worker, to, token)
		return
	case ended:
		refuse(http.StatusGone, "member %d of lease %d has ended on worker %s", to, token, h.cfg.Worker)
		return
	case preparing:
		refuse(http.StatusServiceUnavailable, "member %d of lease %d is being prepared on worker %s", to, token, h.cfg.Worker)
		return
	}
	if !wantsLink(r.Header) {
		w.Header().Set("Upgrade", protocol)
		refuse(http.StatusUpgradeRequired, "member %d of lease %d is ready on worker %s; a link needs the header Upgrade: %s", to, token, h.cfg.Worker, protocol)
		return
	}
	if _, here := h.look(token, from); here == ready || here == preparing {
		refuse(http.StatusConflict, "member %d of lease %d is on worker %s itself", from, token, h.cfg.Worker)
		return
	}
	if !s.claim(from) {
		refuse(http.StatusConflict, "member %d of lease %d had a link to member %d before", to, token, from)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/2
		s.unclaim(from)
		refuse(http.StatusHTTPVersionNotSupported, "a link needs HTTP/1.1")
		return
	}
	// Only now may the trainer speak: what it writes comes after the answer.
	if rw.Reader.Buffered() > 0 {
		err = fmt.Errorf("member %d wrote before it was answered", from)
	} else {
		conn.SetWriteDeadline(time.Now().Add(answerWithin))
		err = writeUpgraded(conn)
		conn.SetDeadline(time.Time{})
	}
	if err != nil {
		s.unclaim(from)
		conn.Close()
	} else {
		err = s.attach(from, name, conn)
	}
	if err != nil {
		h.log.Warn("no link to a member of another worker", "token", token, "member", s.self.Name, "other", name, "error", err)
	}
}
