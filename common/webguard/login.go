package webguard

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime"
	"net/http"
	"strconv"
)

//go:embed page
var page embed.FS

// loginPage is the page on which a script hands the link's code over. It asks for nothing.
type loginPage struct{ html []byte }

func newLoginPage(title, again string) (loginPage, error) {
	t, err := template.ParseFS(page, "page/login.html")
	if err != nil {
		return loginPage{}, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct{ Title, Again string }{title, again})
	return loginPage{b.Bytes()}, err
}

func (p loginPage) send(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(p.html)))
	w.WriteHeader(status)
	w.Write(p.html)
}

// loginRoutes are the rows that every table gets.
func (g *Guard) loginRoutes() []Route {
	file := func(name, kind string) http.HandlerFunc {
		b, err := page.ReadFile("page/" + name)
		if err != nil {
			panic(err) // it is in the program
		}
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			w.Write(b)
		}
	}
	return []Route{
		{Pattern: "GET /login", Access: Public, Page: true, Handler: func(w http.ResponseWriter, r *http.Request) { g.login.send(w, http.StatusOK) }},
		{Pattern: "GET /login/login.js", Access: Public, Handler: file("login.js", "text/javascript")},
		{Pattern: "GET /login/login.css", Access: Public, Handler: file("login.css", "text/css")},
		{Pattern: "POST /login", Access: Public, Body: 4 << 10, Handler: g.signIn},
		{Pattern: "GET /session", Access: Signed, Handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }},
		{Pattern: "POST /logout", Access: Signed, Handler: g.signOut},
	}
}

// signIn exchanges a link's code, {"once": CODE}, for a session. That it wants JSON keeps forms away.
func (g *Guard) signIn(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		Refuse(w, http.StatusUnsupportedMediaType, "want application/json")
		return
	}
	var said struct {
		Once string `json:"once"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&said)
	if err == nil {
		if _, err = d.Token(); err == nil {
			err = errors.New("there is more behind it")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	switch {
	case tooLarge(err):
		Refuse(w, http.StatusRequestEntityTooLarge, "the body of the request is too long")
	case err != nil:
		Refuse(w, http.StatusBadRequest, `want {"once": CODE}: %s`, err)
	default:
		if err := g.links.redeem(said.Once); err != nil {
			Refuse(w, http.StatusForbidden, "%s", err)
			return
		}
		if id := cookie(r); id != "" {
			g.sessions.drop(id)
		}
		setCookie(w, r, g.sessions.begin())
		w.WriteHeader(http.StatusNoContent)
	}
}

// signOut ends the caller's session; a program has none.
func (g *Guard) signOut(w http.ResponseWriter, r *http.Request) {
	if id := cookie(r); id != "" {
		g.sessions.drop(id)
	}
	setCookie(w, r, "")
	w.WriteHeader(http.StatusNoContent)
}
