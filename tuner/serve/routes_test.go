package serve_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"atelier/common/webguard"
	"atelier/tuner/serve"
)

// declared are the routes of the web app and who may call them. A new one is written down here, too: whoever adds
// it has to think of who may call it.
var declared = map[string]webguard.Access{
	"GET /":                webguard.Signed,
	"GET /api/checkpoints": webguard.Signed,
	"POST /api/predict":    webguard.Signed,
	"GET /healthz":         webguard.Public,
	"GET /login":           webguard.Public,
	"GET /login/login.js":  webguard.Public,
	"GET /login/login.css": webguard.Public,
	"POST /login":          webguard.Public,
	"GET /session":         webguard.Signed,
	"POST /logout":         webguard.Signed,
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"}

// walked is the web app's guard, and how often the model was asked.
func walked(t *testing.T) (guard *webguard.Guard, asked *int) {
	t.Helper()
	hosts, err := webguard.NewHosts(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8501})
	if err != nil {
		t.Fatal(err)
	}
	asked = new(int)
	guard, err = serve.New(asker{func(context.Context, string, int, []byte) (int, []byte, error) {
		*asked++
		return 200, []byte("{}"), nil
	}}, nil, serve.DefaultLimits(), webguard.Config{Hosts: hosts, Token: token, Now: time.Now}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return guard, asked
}

// call sends a request; headers are "Name: value", among them Host.
func call(guard http.Handler, method, path string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "127.0.0.1:8501"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	guard.ServeHTTP(w, r)
	return w.Result()
}

// signIn is a browser's session, as the header that it sends.
func signIn(t *testing.T, guard http.Handler) string {
	t.Helper()
	_, code, _ := strings.Cut(webguard.Link("", token, time.Now()), "#")
	r := httptest.NewRequest("POST", "/login", strings.NewReader(`{"once":"`+code+`"}`))
	r.Host = "127.0.0.1:8501"
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	guard.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		return "Cookie: " + c.Name + "=" + c.Value
	}
	t.Fatalf("%d %s", w.Code, w.Body)
	return ""
}

// Every route, with every method, and every file of the page: nothing without a session or the token, nothing under
// another name, nothing for other sites.
func TestEveryRouteIsGuarded(t *testing.T) {
	guard, asked := walked(t)
	session := signIn(t, guard)
	paths := []string{"/app.js", "/app.css", "/index.html", "/nothing", "/api/nothing", "/login/nothing", "//login", "/login/../api/checkpoints"}
	seen := map[string]bool{}
	for _, route := range guard.Routes() {
		if declared[route.Pattern] != route.Access {
			t.Errorf("%s has access %d; declared is %d", route.Pattern, route.Access, declared[route.Pattern])
		}
		_, path, _ := strings.Cut(route.Pattern, " ")
		seen[route.Pattern] = true
		paths = append(paths, path)
	}
	if len(seen) != len(declared) {
		t.Errorf("%d routes are served, %d are declared", len(seen), len(declared))
	}
	open := map[string]bool{} // what strangers may ask
	for pattern, access := range declared {
		open[pattern] = access == webguard.Public
		if rest, ok := strings.CutPrefix(pattern, "GET "); ok {
			open["HEAD "+rest] = access == webguard.Public
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST"} {
		open[method+" //login"] = true // leads to /login
	}
	checked := 0
	for _, path := range paths {
		for _, method := range methods {
			checked++
			what := method + " " + path
			if got := call(guard, method, path).StatusCode; open[what] == (got == 401 || got == 403) {
				t.Errorf("%s by a stranger: %d", what, got)
			}
			for _, wrong := range []string{"Authorization: Bearer x", "Authorization: Basic " + tokenText, "Authorization: " + tokenText, "Cookie: atelier-8501=x", "Cookie: atelier-8501=" + tokenText, "Cookie: atelier=x"} {
				if got := call(guard, method, path, wrong).StatusCode; open[what] == (got == 401 || got == 403) {
					t.Errorf("%s with %s: %d", what, wrong, got)
				}
			}
			for _, who := range []string{session, "Authorization: Bearer " + tokenText} {
				for _, host := range []string{"evil.example", "evil.example:8501", "10.0.0.5:8501", "127.0.0.1.evil.example:8501"} {
					if got := call(guard, method, path, who, "Host: "+host).StatusCode; got != 421 {
						t.Errorf("%s asked as %s: %d", what, host, got)
					}
				}
				for _, site := range []string{"cross-site", "same-site"} {
					if got := call(guard, method, path, who, "Sec-Fetch-Site: "+site, "Sec-Fetch-Mode: cors", "Origin: http://evil.example").StatusCode; got != 403 {
						t.Errorf("%s by a page that is %s: %d", what, site, got)
					}
				}
				if got := call(guard, method, path, who, "Origin: http://evil.example").StatusCode; got != 403 {
					t.Errorf("%s by a page of an old browser: %d", what, got)
				}
			}
		}
	}
	if checked < 150 || *asked != 0 {
		t.Errorf("%d requests were tried; the model was asked %d times", checked, *asked)
	}
	if got := call(guard, "GET", "/session", session).StatusCode; got != http.StatusNoContent {
		t.Errorf("after all this the session is gone: %d", got)
	}
}

// What is asked for by GET or HEAD changes nothing: not the session, not a link, and the model is not asked.
func TestGetChangesNothing(t *testing.T) {
	guard, asked := walked(t)
	session := signIn(t, guard)
	_, code, _ := strings.Cut(webguard.Link("", token, time.Now()), "#")
	for _, route := range guard.Routes() {
		_, path, _ := strings.Cut(route.Pattern, " ")
		for _, method := range []string{"GET", "HEAD"} {
			for _, query := range []string{"", "?once=" + code, "?_method=POST", "?checkpoint=x&top_k=1"} {
				for _, who := range []string{session, "Authorization: Bearer " + tokenText, "X-Http-Method-Override: POST"} {
					if resp := call(guard, method, path+query, who); len(resp.Cookies()) > 0 || resp.StatusCode >= 500 {
						t.Errorf("%s %s: %d, cookies %v", method, path+query, resp.StatusCode, resp.Cookies())
					}
				}
			}
		}
	}
	if *asked != 0 {
		t.Errorf("the model was asked %d times", *asked)
	}
	if got := call(guard, "GET", "/session", session).StatusCode; got != http.StatusNoContent {
		t.Errorf("the session: %d", got)
	}
	r := httptest.NewRequest("POST", "/login", strings.NewReader(`{"once":"`+code+`"}`))
	r.Host = "127.0.0.1:8501"
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if guard.ServeHTTP(w, r); w.Code != http.StatusNoContent {
		t.Errorf("the link: %d %s", w.Code, w.Body)
	}
}
