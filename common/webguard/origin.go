package webguard

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// sameOrigin refuses what a page of another site causes, with every method: http.CrossOriginProtection
// lets all GETs pass, and streams (EventSource, WebSocket) are GETs. A link that leads to a page is let
// through: it changes nothing, and the session's cookie does not come with it (SameSite=Strict). Programs
// send neither Sec-Fetch-Site nor Origin; browsers leave out Sec-Fetch-Site where there is no TLS and the
// server is not on loopback, and in WebSockets.
func (g *Guard) sameOrigin(r *http.Request, page bool) error {
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	switch site {
	case "same-origin", "none": // none: typed, or from a bookmark
	case "":
		if origin != "" && !sameHost(origin, r.Host) {
			return fmt.Errorf("Origin is %q, not %s", origin, r.Host)
		}
		if origin == "" && cookie(r) != "" && upgrades(r) {
			return errors.New("a WebSocket of a browser has an Origin")
		}
	default: // cross-site, same-site: another port of this machine is as foreign as another machine
		safe := r.Method == http.MethodGet || r.Method == http.MethodHead
		if safe && page && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
			return nil
		}
		return fmt.Errorf("Sec-Fetch-Site is %s", site)
	}
	return g.cross.Check(r)
}

// sameHost reports whether an origin (http://HOST:PORT) is that of a Host. Its scheme may be another: where a
// proxy ends TLS, this server sees none.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

func upgrades(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}
