// Package webguard stands before the handlers of a web page: it answers only under
// the server's own names, refuses what pages of other sites cause, and asks for a
// session or a token. Its routes come from one table, in which each says who may
// call it; one that does not say so cannot be served.
package webguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"atelier/common/secret"
)

// Access says who may call a route. Its zero value is none of them: a route
// has to say it.
type Access int

const (
	_      Access = iota
	Public        // anybody who reaches the port
	Signed        // who has a session, or sends the token
)

// Route is a row of the table.
type Route struct {
	Pattern string // METHOD PATH, as http.ServeMux has them; what GET answers changes no state
	Access  Access
	Page    bool  // an HTML page, to which links of other sites may lead
	Body    int64 // largest body of a request, bytes; 0: it takes none
	Handler http.HandlerFunc
}

// Config is what a guard knows of its server.
type Config struct {
	Hosts Hosts
	Token secret.Text // of programs, see NewToken; login links are made with it, too
	Title string      // of the login page
	Again string      // how a person gets another login link, as a command
	Now   func() time.Time
}

// Policy is the Content-Security-Policy of every answer: scripts and styles are files of the server
// itself, nothing is written inline, no other site is asked, none frames the page, and no script
// makes HTML of text.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Guard is the handler of all routes of its table and of nothing else.
type Guard struct {
	config   Config
	routes   []Route
	byName   map[string]*Route
	mux      *http.ServeMux
	cross    *http.CrossOriginProtection
	token    [32]byte // SHA-256
	sessions *sessions
	links    *links
	login    loginPage
}

// New makes a guard of a table, to which it adds the routes of signing in and out. Errors: a route
// without an access, a method or a handler; a GET that takes a body; one that is there twice.
func New(c Config, table []Route) (*Guard, error) {
	if err := checkToken(c.Token.Reveal()); err != nil {
		return nil, err
	}
	login, err := newLoginPage(c.Title, c.Again)
	if err != nil {
		return nil, err
	}
	g := &Guard{config: c, byName: map[string]*Route{}, mux: http.NewServeMux(), cross: http.NewCrossOriginProtection(), token: digest(c.Token.Reveal()),
		sessions: newSessions(c.Now), links: newLinks(c.Token, c.Now), login: login}
	g.routes = append(slices.Clone(table), g.loginRoutes()...)
	for i := range g.routes {
		if err := g.add(&g.routes[i]); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// add registers a route that says all of itself.
func (g *Guard) add(r *Route) (err error) {
	method, _, ok := strings.Cut(r.Pattern, " ")
	switch {
	case !ok || method == "":
		return fmt.Errorf("route %q: want METHOD PATH", r.Pattern)
	case r.Access != Public && r.Access != Signed:
		return fmt.Errorf("route %q declares no access", r.Pattern)
	case r.Handler == nil:
		return fmt.Errorf("route %q has no handler", r.Pattern)
	case method == http.MethodGet && r.Body != 0:
		return fmt.Errorf("route %q: a GET takes no body", r.Pattern)
	case r.Page && method != http.MethodGet:
		return fmt.Errorf("route %q: a page is got by GET", r.Pattern)
	}
	defer func() {
		if p := recover(); p != nil { // how ServeMux refuses a pattern
			err = fmt.Errorf("route %q: %v", r.Pattern, p)
		}
	}()
	g.mux.HandleFunc(r.Pattern, func(w http.ResponseWriter, req *http.Request) {
		req.Body = http.MaxBytesReader(w, req.Body, r.Body)
		r.Handler(w, req)
	})
	g.byName[r.Pattern] = r
	return nil
}

// Routes are all that are served, those of signing in and out among them.
func (g *Guard) Routes() []Route { return slices.Clone(g.routes) }

// ServeHTTP asks in this order: is the server meant, did a page of another site cause this, may
// the caller, is there such a route, is the body small enough.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !g.config.Hosts.Allow(r.Host) {
		// Its own names stay its own: whoever let a foreign name lead here reads this.
		Refuse(w, http.StatusMisdirectedRequest, "this server does not answer as %q; if that name leads here on purpose, start it with --host NAME", r.Host)
		return
	}
	_, pattern := g.mux.Handler(r)
	route := g.byName[pattern]
	if err := g.sameOrigin(r, route != nil && route.Page); err != nil {
		Refuse(w, http.StatusForbidden, "requests from the page of another site are not answered: %s", err)
		return
	}
	if (route == nil || route.Access != Public) && !g.signed(r) {
		g.unsigned(w, r, route)
		return
	}
	if route != nil && r.ContentLength > route.Body {
		h.Set("Connection", "close") // what it still sends is not read
		Refuse(w, http.StatusRequestEntityTooLarge, "the body of the request has %d bytes; %s %s takes up to %d", r.ContentLength, r.Method, r.URL.Path, route.Body)
		return
	}
	g.mux.ServeHTTP(w, r)
}

// signed reports whether a request has what a route of Signed wants. A token that is not the right
// one is not made good by a session.
func (g *Guard) signed(r *http.Request) bool {
	if text := r.Header.Get("Authorization"); text != "" {
		scheme, token, _ := strings.Cut(text, " ")
		return strings.EqualFold(scheme, "Bearer") && equal(digest(strings.TrimSpace(token)), g.token)
	}
	id := cookie(r)
	return id != "" && g.sessions.valid(id)
}

// unsigned answers who is not signed in: a person with the login page, a program with words.
func (g *Guard) unsigned(w http.ResponseWriter, r *http.Request, route *Route) {
	if route != nil && route.Page && strings.Contains(r.Header.Get("Accept"), "text/html") {
		g.login.send(w, http.StatusUnauthorized)
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	Refuse(w, http.StatusUnauthorized, "not signed in: open a new link in the browser (`%s` prints one); programs send the header Authorization: Bearer TOKEN", g.config.Again)
}

// Refuse answers {"error": TEXT}.
func Refuse(w http.ResponseWriter, status int, format string, a ...any) {
	Send(w, status, map[string]string{"error": fmt.Sprintf(format, a...)})
}

// Send answers JSON.
func Send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}

// tooLarge reports whether reading ended because a body was longer than its route takes.
func tooLarge(err error) bool {
	var e *http.MaxBytesError
	return errors.As(err, &e)
}
