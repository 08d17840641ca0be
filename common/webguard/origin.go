package webguard

import (
	"errors"
	"net/http"
	"strings"
)

// sameOrigin refuses what a page of another site causes, with every method: http.CrossOriginProtection lets all GETs
// pass, and streams (EventSource, WebSocket) are GETs, so it is asked as if each were a POST. It knows other sites by
// Sec-Fetch-Site, where another port of this machine (same-site) is as foreign as another machine, else by Origin. A
// link that leads to a page is let through: it changes nothing, and the session's cookie does not come with it from
// another site (SameSite=Strict). Programs send neither header; browsers leave out Sec-Fetch-Site where there is no TLS
// and the server is not on loopback, and in WebSockets.
func (g *Guard) sameOrigin(r *http.Request, page bool) error {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	if read && page && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return nil
	}
	if r.Header.Get("Origin") == "" && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && cookie(r) != "" {
		return errors.New("a WebSocket of a browser has an Origin")
	}
	changing := r.WithContext(r.Context())
	changing.Method = http.MethodPost
	return g.cross.Check(changing)
}
