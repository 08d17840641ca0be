package webguard_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/secret"
	"atelier/common/webguard"
)

var token = secret.New("a-token-of-a-test-with-enough-characters")

// site is a guard with two routes: a page that is for those signed in, and something to change.
type site struct {
	*webguard.Guard
	now     time.Time
	changed int
}

func start(t testing.TB, listen string, names ...string) *site {
	t.Helper()
	at, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := webguard.NewHosts(at, names...)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{now: time.Unix(1_800_000_000, 0)}
	s.Guard, err = webguard.New(webguard.Config{Hosts: hosts, Token: token, Title: "Test", Again: "test <again>", Now: func() time.Time { return s.now }}, []webguard.Route{
		{Pattern: "GET /", Access: webguard.Signed, Page: true, Handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "inside") }},
		{Pattern: "GET /events", Access: webguard.Signed, Handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "data: 1\n\n") }},
		{Pattern: "POST /things/{name}", Access: webguard.Signed, Body: 10, Handler: func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				webguard.Refuse(w, http.StatusRequestEntityTooLarge, "too long")
				return
			}
			s.changed++
			fmt.Fprint(w, r.PathValue("name"), len(b))
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request; headers are "Name: value", among them Host.
func (s *site) ask(method, path, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:8501"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// code is that of a new link.
func (s *site) code() string {
	_, code, _ := strings.Cut(webguard.Link("http://127.0.0.1:8501", token, s.now), "/login#")
	return code
}

func (s *site) signIn(code string, headers ...string) (status int, cookie, words string) {
	resp := s.ask("POST", "/login", `{"once":"`+code+`"}`, append([]string{"Content-Type: application/json"}, headers...)...)
	b, _ := io.ReadAll(resp.Body)
	for _, c := range resp.Cookies() {
		cookie = "Cookie: " + c.Name + "=" + c.Value
	}
	return resp.StatusCode, cookie, string(b)
}

var bearer = "Authorization: Bearer " + token.Reveal()

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		listen string
		names  []string
		yes    string
		no     string
	}{
		{"127.0.0.1:8501", nil, "127.0.0.1:8501 127.0.0.1 localhost localhost:9000 LOCALHOST. [::1]:8501 [::1] 127.0.0.2:1 [::ffff:127.0.0.1]:8501",
			"evil.example evil.example:8501 127.0.0.1.evil.example localhost.evil.example 10.0.0.5 0.0.0.0:8501 [::] 2130706433 0x7f.1 127.1 gpu-box a.localhost user@localhost localhost:x:y"},
		{"127.0.0.1:8501", []string{"GPU-box.example."}, "gpu-box.example:443 Gpu-Box.Example. 127.0.0.1", "example x.gpu-box.example gpu-box.example.evil"},
		{"10.0.0.5:8501", nil, "10.0.0.5 10.0.0.5:8501", "localhost 127.0.0.1:8501 10.0.0.6 gpu-box"},
		{"0.0.0.0:8501", []string{"gpu-box"}, "192.0.2.7:8501 localhost [2001:db8::1]:8501 gpu-box:8501", "evil.example"},
		{"[::]:8501", nil, "192.0.2.7:8501 [fe80::1%25eth0]:8501", "evil.example"},
	} {
		s := start(t, c.listen, c.names...)
		for _, host := range append(strings.Fields(c.yes), strings.Fields(c.no)...) {
			want := http.StatusMisdirectedRequest
			if strings.Contains(" "+c.yes+" ", " "+host+" ") {
				want = http.StatusOK
			}
			if resp := s.ask("GET", "/", "", bearer, "Host: "+host); resp.StatusCode != want {
				t.Errorf("%s %v, asked as %s: %d, want %d", c.listen, c.names, host, resp.StatusCode, want)
			}
		}
		if resp := s.ask("GET", "/login", "", "Host: "); resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s without a Host: %d", c.listen, resp.StatusCode)
		}
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for _, name := range []string{"", ".", "http://x", "x:80", "*.example", "a,b", "[::1]"} {
		if _, err := webguard.NewHosts(at, name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	// The name is refused with what to do, and without the names that would do.
	resp := start(t, "127.0.0.1:8501", "secret.example").ask("GET", "/", "", "Host: evil.example")
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), "--host NAME") || strings.Contains(string(b), "secret") {
		t.Errorf("%s", b)
	}
}

// A request that the page of another site causes is refused with every method, also when it has the cookie, which
// another port of this machine can make a browser send.
func TestOtherSites(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	_, cookie, _ := s.signIn(s.code())
	link := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	for _, c := range []struct {
		name, method, path string
		headers            []string
		want               int
	}{
		{"own page's script", "GET", "/events", []string{"Sec-Fetch-Site: same-origin"}, 200},
		{"own page's post", "POST", "/things/a", []string{"Sec-Fetch-Site: same-origin", "Origin: http://127.0.0.1:8501"}, 200},
		{"address typed", "GET", "/", []string{"Sec-Fetch-Site: none"}, 200},
		{"program", "POST", "/things/a", nil, 200},
		{"browser without Sec-Fetch-Site", "POST", "/things/a", []string{"Origin: http://127.0.0.1:8501"}, 200},
		{"TLS ended by a proxy", "POST", "/things/a", []string{"Origin: https://127.0.0.1:8501"}, 200},
		{"link of another site", "GET", "/", append(link, "Sec-Fetch-Site: cross-site"), 200},
		{"link of another port", "GET", "/", append(link, "Sec-Fetch-Site: same-site"), 200},
		{"link to what is no page", "GET", "/events", append(link, "Sec-Fetch-Site: cross-site"), 403},
		{"frame", "GET", "/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"form", "POST", "/things/a", append(link, "Sec-Fetch-Site: cross-site", "Origin: http://evil.example"), 403},
		{"form of another port", "POST", "/things/a", append(link, "Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:9999"), 403},
		{"script", "GET", "/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"}, 403},
		{"stream", "GET", "/events", []string{"Sec-Fetch-Site: cross-site", "Accept: text/event-stream"}, 403},
		{"stream of another port", "GET", "/events", []string{"Sec-Fetch-Site: same-site", "Accept: text/event-stream"}, 403},
		{"stream of an old browser", "GET", "/events", []string{"Origin: http://evil.example", "Accept: text/event-stream"}, 403},
		{"sandboxed frame", "GET", "/events", []string{"Origin: null"}, 403},
		{"sandboxed frame's post", "POST", "/things/a", []string{"Origin: null"}, 403},
		{"WebSocket", "GET", "/events", []string{"Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		{"WebSocket without an Origin", "GET", "/events", []string{"Connection: Upgrade", "Upgrade: WebSocket"}, 403},
		{"own WebSocket", "GET", "/events", []string{"Origin: http://127.0.0.1:8501", "Connection: Upgrade", "Upgrade: websocket"}, 200},
		{"own name at the front", "POST", "/things/a", []string{"Origin: http://127.0.0.1:8501.evil.example"}, 403},
		{"no address", "POST", "/things/a", []string{"Origin: 127.0.0.1:8501"}, 403},
		{"unknown word", "GET", "/events", []string{"Sec-Fetch-Site: whatever"}, 403},
		{"preflight", "OPTIONS", "/things/a", []string{"Sec-Fetch-Site: cross-site", "Origin: http://evil.example", "Access-Control-Request-Method: POST"}, 403},
	} {
		before := s.changed
		resp := s.ask(c.method, c.path, "", append(c.headers, cookie)...)
		if resp.StatusCode != c.want || (c.want != 200) && s.changed != before || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d, want %d; changed %d times", c.name, resp.StatusCode, c.want, s.changed-before)
		}
	}
}

func TestSignIn(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	resp := s.ask("GET", "/", "", "Accept: text/html,*/*;q=0.8")
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 401 || !strings.Contains(string(b), "/login/login.js") || !strings.Contains(string(b), "test &lt;again&gt;") || strings.Contains(string(b), "inside") {
		t.Errorf("a person: %d %s", resp.StatusCode, b)
	}
	resp = s.ask("GET", "/", "")
	if b, _ = io.ReadAll(resp.Body); resp.StatusCode != 401 || !strings.Contains(string(b), "Bearer TOKEN") || resp.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("a program: %d %s", resp.StatusCode, b)
	}

	// The link's address, got by whoever previews it, uses nothing up.
	code := s.code()
	for range 2 {
		if resp := s.ask("GET", "/login?once="+code, ""); resp.StatusCode != 200 || len(resp.Cookies()) != 0 {
			t.Errorf("the link got: %d, cookies %v", resp.StatusCode, resp.Cookies())
		}
	}
	status, cookie, words := s.signIn(code)
	if status != 204 || cookie == "" {
		t.Fatalf("%d %s", status, words)
	}
	if status, again, words := s.signIn(code); status != 403 || again != "" || !strings.Contains(words, "has been used") {
		t.Errorf("the link a second time: %d %q %s", status, again, words)
	}
	if resp := s.ask("GET", "/session", "", cookie); resp.StatusCode != 204 {
		t.Errorf("with the cookie: %d", resp.StatusCode)
	}
	if resp := s.ask("GET", "/", "", cookie, "Authorization: Bearer wrong"); resp.StatusCode != 401 {
		t.Errorf("with the cookie and a wrong token: %d", resp.StatusCode)
	}
	if resp := s.ask("GET", "/", "", cookie, "Host: 127.0.0.1:8502"); resp.StatusCode != 401 {
		t.Errorf("the cookie of another port: %d", resp.StatusCode)
	}
	if resp := s.ask("GET", "/logout", "", cookie); resp.StatusCode != 200 || len(resp.Cookies()) != 0 { // the page: GET / has all paths
		t.Errorf("GET /logout: %d %v", resp.StatusCode, resp.Cookies())
	}
	if resp := s.ask("POST", "/logout", "", cookie); resp.StatusCode != 204 || len(resp.Cookies()) != 1 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("POST /logout: %d %v", resp.StatusCode, resp.Cookies())
	}
	if resp := s.ask("GET", "/session", "", cookie); resp.StatusCode != 401 {
		t.Errorf("after signing out: %d", resp.StatusCode)
	}
}

func TestCookies(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	for _, url := range []string{"http://127.0.0.1:8501/login", "https://127.0.0.1:8501/login"} {
		r := httptest.NewRequest("POST", url, strings.NewReader(`{"once":"`+s.code()+`"}`)) // with TLS where it is https
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		secure := strings.HasPrefix(url, "https")
		name := "atelier-8501"
		if secure {
			name = "__Host-" + name
		}
		all := w.Result().Cookies()
		if len(all) != 1 {
			t.Fatalf("%s: %d %v", url, w.Code, all)
		}
		if c := all[0]; c.Name != name || !c.HttpOnly || c.Secure != secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || len(c.Value) != 43 {
			t.Errorf("%s: %+v", url, c)
		}
	}
}

func TestLinksAndSessionsEnd(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	began := s.now
	_, earlier, _ := strings.Cut(webguard.Link("", token, began.Add(-time.Second)), "#")
	_, foreign, _ := strings.Cut(webguard.Link("", secret.New(token.Reveal()+"x"), began), "#")
	good := s.code()
	for name, c := range map[string]struct{ code, want string }{
		"made before the server began": {earlier, "older than"},
		"of another server":            {foreign, "not from this server"},
		"a letter changed":             {"A" + good[1:], "not from this server"},
		"cut":                          {good[:42], "not from this server"},
		"none":                         {"", "not from this server"},
		"of a text":                    {strings.Repeat("é", 20), "not from this server"},
	} {
		if name == "a letter changed" && good[0] == 'A' {
			c.code = "B" + good[1:]
		}
		if status, cookie, words := s.signIn(c.code); status != 403 || cookie != "" || !strings.Contains(words, c.want) {
			t.Errorf("a link %s: %d %q %s", name, status, cookie, words)
		}
	}
	s.now = began.Add(webguard.LinkLife)
	if status, _, words := s.signIn(good); status != 403 || !strings.Contains(words, "older than 15 minutes") {
		t.Errorf("a link after 15 minutes: %d %s", status, words)
	}
	var cookies []string
	for range 65 {
		s.now = s.now.Add(time.Millisecond)
		status, cookie, words := s.signIn(s.code())
		if status != 204 {
			t.Fatalf("%d %s", status, words)
		}
		cookies = append(cookies, cookie)
	}
	in := func(i int) bool { return s.ask("GET", "/session", "", cookies[i]).StatusCode == 204 }
	if in(0) || !in(1) || !in(64) {
		t.Errorf("of 65 sessions the first is open: %t, the second %t, the last %t; want 64, the newest", in(0), in(1), in(64))
	}
	s.now = s.now.Add(7*24*time.Hour - time.Millisecond)
	if !in(64) {
		t.Error("a session ended before its week was over")
	}
	if s.now = s.now.Add(time.Millisecond); in(64) {
		t.Error("a session outlived its week")
	}
	if resp := s.ask("GET", "/session", "", bearer); resp.StatusCode != 204 {
		t.Errorf("the token: %d", resp.StatusCode)
	}
}

// What is sent to be signed in is small, JSON, and one object.
func TestSignInBodies(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	for name, c := range map[string]struct {
		kind, body string
		want       int
	}{
		"a form":         {"application/x-www-form-urlencoded", "once=" + s.code(), 415},
		"a text":         {"text/plain", `{"once":"` + s.code() + `"}`, 415},
		"another key":    {"application/json", `{"twice":"x"}`, 400},
		"two objects":    {"application/json", `{"once":"x"}{}`, 400},
		"not an object":  {"application/json", `NaN`, 400},
		"a number":       {"application/json", `{"once":1}`, 400},
		"deep":           {"application/json", strings.Repeat("[", 4000), 400},
		"long":           {"application/json", `{"once":"` + strings.Repeat("x", 5000) + `"}`, 413},
		"invalid UTF-8":  {"application/json", "{\"once\":\"\xff\"}", 403},
		"nothing":        {"application/json", "", 400},
		"an empty code":  {"application/json", `{"once":""}`, 403},
		"null":           {"application/json", `null`, 403},
		"a wrong header": {"application/json; =", "{}", 415},
	} {
		if resp := s.ask("POST", "/login", c.body, "Content-Type: "+c.kind); resp.StatusCode != c.want || len(resp.Cookies()) > 0 {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, b, c.want)
		}
	}
}

func TestBodiesAndPaths(t *testing.T) {
	s := start(t, "127.0.0.1:8501")
	if resp := s.ask("POST", "/things/a", "0123456789", bearer); resp.StatusCode != 200 {
		t.Errorf("ten bytes: %d", resp.StatusCode)
	} else if b, _ := io.ReadAll(resp.Body); string(b) != "a10" {
		t.Errorf("it was handled as %s", b)
	}
	if resp := s.ask("POST", "/things/a", "0123456789-", bearer); resp.StatusCode != 413 {
		t.Errorf("eleven bytes: %d", resp.StatusCode)
	}
	r := httptest.NewRequest("POST", "/things/a", strings.NewReader("0123456789-"))
	r.Host, r.ContentLength = "127.0.0.1:8501", -1 // in chunks
	r.Header.Set("Authorization", "bearer "+token.Reveal())
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 413 || s.changed != 1 {
		t.Errorf("eleven bytes in chunks: %d, handled %d times", w.Code, s.changed)
	}
	if resp := s.ask("GET", "/events", "a body", bearer); resp.StatusCode != 413 {
		t.Errorf("a GET with a body: %d", resp.StatusCode)
	}
	if resp := s.ask("DELETE", "/things/a", "", bearer); resp.StatusCode != 405 {
		t.Errorf("another method: %d", resp.StatusCode)
	}
	// What is not there, and what ServeMux would lead elsewhere, is not shown to strangers either.
	for _, path := range []string{"/nothing", "/things/", "//things/a", "/x/../events", "/things/a/b"} {
		for _, method := range []string{"GET", "POST", "DELETE"} {
			if resp := s.ask(method, path, ""); resp.StatusCode != 401 {
				t.Errorf("%s %s without a session: %d", method, path, resp.StatusCode)
			}
		}
	}
}

func TestTableIsRefused(t *testing.T) {
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	hosts, err := webguard.NewHosts(at)
	if err != nil {
		t.Fatal(err)
	}
	h := func(http.ResponseWriter, *http.Request) {}
	for name, table := range map[string][]webguard.Route{
		"no access":      {{Pattern: "GET /x", Handler: h}},
		"no such access": {{Pattern: "GET /x", Access: 7, Handler: h}},
		"no method":      {{Pattern: "/x", Access: webguard.Public, Handler: h}},
		"no path":        {{Pattern: "GET x", Access: webguard.Public, Handler: h}},
		"no handler":     {{Pattern: "GET /x", Access: webguard.Public}},
		"GET with body":  {{Pattern: "GET /x", Access: webguard.Public, Body: 1, Handler: h}},
		"page by POST":   {{Pattern: "POST /x", Access: webguard.Public, Page: true, Handler: h}},
		"twice":          {{Pattern: "GET /x", Access: webguard.Signed, Handler: h}, {Pattern: "GET /x", Access: webguard.Public, Handler: h}},
		"own login":      {{Pattern: "POST /login", Access: webguard.Public, Handler: h}},
	} {
		if _, err := webguard.New(webguard.Config{Hosts: hosts, Token: token, Now: time.Now}, table); err == nil || !strings.Contains(err.Error(), "route") {
			t.Errorf("a table with a route of %s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 31), strings.Repeat("x", 40) + " y", strings.Repeat("ä", 40)} {
		if _, err := webguard.New(webguard.Config{Hosts: hosts, Token: secret.New(bad), Now: time.Now}, nil); err == nil {
			t.Errorf("the token %q is taken", bad)
		}
	}
}

func TestTokenFiles(t *testing.T) {
	dir := t.TempDir()
	made := filepath.Join(dir, "made")
	one := webguard.NewToken()
	if err := webguard.WriteToken(made, one); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(made)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
	if got, err := webguard.ReadToken(made); err != nil || got.Reveal() != one.Reveal() || len(one.Reveal()) != 43 || one.Reveal() == webguard.NewToken().Reveal() {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := webguard.ReadToken(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	long := strings.Repeat("k", 40)
	for text, want := range map[string]string{
		long: "", "\n" + long + "\n": "", "authorization:bearer " + long: "", "Authorization: Bearer  " + long + "\r\n": "",
		"": "at least 32", "short": "at least 32", "Authorization: Basic " + long: "want a token", long + " " + long: "one word", long + "\x00": "one word", strings.Repeat("k", 70<<10): "64 KiB",
	} {
		file := filepath.Join(dir, "given")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := webguard.ReadToken(file)
		if want == "" && (err != nil || !strings.Contains(text, got.Reveal())) || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), long)) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o622} {
		os.Chmod(open, mode)
		if _, err := webguard.ReadToken(open); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := webguard.ReadToken(dir); err == nil {
		t.Error("a folder is taken")
	}
}

// A server bounds headers, connections and time, and checks OPTIONS * as all else.
func TestServer(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	limits := webguard.DefaultLimits(5 * time.Second)
	limits.Connections, limits.HeaderBytes, limits.Header = 2, 8<<10, 300*time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := limits.Server(s.Guard)
	go server.Serve(limits.Listener(l))
	t.Cleanup(func() { server.Close() })
	dial := func(send string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		io.WriteString(c, send)
		return c
	}
	status := func(c net.Conn) int {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return 0
		}
		return resp.StatusCode
	}
	for name, c := range map[string]struct {
		send string
		want int
	}{
		"OPTIONS *":              {"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421},
		"no Host":                {"GET /login HTTP/1.0\r\n\r\n", 421},
		"a long header":          {"GET /login HTTP/1.1\r\nHost: localhost\r\nCookie: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", 431},
		"a long address":         {"GET /login?" + strings.Repeat("x", 16<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431},
		"a header without end":   {"GET /login HTTP/1.1\r\nHost: localhost\r\n", 0},
		"length and chunks":      {"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400},
		"a CONNECT to elsewhere": {"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n", 421},
	} {
		conn := dial(c.send)
		if got := status(conn); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		conn.Close()
	}
	const get = "GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n"
	first, second := dial(get), dial(get)
	if a, b := status(first), status(second); a != 200 || b != 200 {
		t.Fatalf("%d, %d", a, b)
	}
	third := dial(get)
	third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, _ := third.Read(make([]byte, 1)); n > 0 {
		t.Error("a third connection is answered while there are two")
	}
	first.Close()
	if got := status(third); got != 200 {
		t.Errorf("after one was closed: %d", got)
	}
}
