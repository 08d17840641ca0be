package scrape

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/secret"
)

const key = "s3cret/key+of=somebody"

// web is SerpAPI and the hosts of images in one server; tests script it.
type web struct {
	*httptest.Server
	mu       sync.Mutex
	pages    map[string][]string // query -> answers of its pages, in order asked for by ijn
	status   map[string][]int    // query -> statuses of its first answers, with errors in said
	said     map[string]string
	left     int64
	searches int
	images   map[string]http.HandlerFunc
	asked    map[string]int
	most     int // requests for images at once
	now      int
}

func start(t *testing.T) *web {
	t.Helper()
	w := &web{pages: map[string][]string{}, status: map[string][]int{}, said: map[string]string{}, left: 100, images: map[string]http.HandlerFunc{}, asked: map[string]int{}}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	q := r.URL.Query()
	switch r.URL.Path {
	case "/account.json", "/search.json":
		defer w.mu.Unlock()
		if q.Get("api_key") != key {
			out.WriteHeader(401)
			fmt.Fprint(out, `{"error":"Invalid API key `+q.Get("api_key")+`"}`)
			return
		}
		if r.URL.Path == "/account.json" {
			fmt.Fprintf(out, `{"total_searches_left":%d,"account_rate_limit_per_hour":50,"this_hour_searches":3}`, w.left)
			return
		}
		if q.Get("engine") != "google_images" {
			out.WriteHeader(400)
			fmt.Fprint(out, `{"error":"Unsupported engine"}`)
			return
		}
		w.searches++
		text := q.Get("q")
		if s := w.status[text]; len(s) > 0 {
			w.status[text] = s[1:]
			out.WriteHeader(s[0])
			fmt.Fprintf(out, `{"error":%q}`, w.said[text])
			return
		}
		n, _ := strconv.Atoi(q.Get("ijn"))
		if n >= len(w.pages[text]) {
			fmt.Fprint(out, `{"error":"Google hasn't returned any results for this query."}`)
			return
		}
		fmt.Fprint(out, strings.ReplaceAll(w.pages[text][n], "HOST", w.URL))
		return
	}
	w.asked[r.URL.Path]++
	f := w.images[r.URL.Path]
	w.mu.Unlock()
	if f == nil {
		out.WriteHeader(404)
		return
	}
	f(out, r)
}

func drawn(seed, size int) []byte {
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	for i := range size {
		img.Set(i, i, color.RGBA{R: uint8(seed), G: uint8(seed >> 8), B: 200, A: 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func gives(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

// counted gives b a little later and counts how many such requests are there
// at once. One is gone before its answer is: the client cannot have asked for
// the next one yet.
func (w *web) counted(b []byte) http.HandlerFunc {
	count := func(by int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now += by
		w.most = max(w.most, w.now)
	}
	return func(out http.ResponseWriter, _ *http.Request) {
		count(1)
		time.Sleep(20 * time.Millisecond) // for those to come that should not
		count(-1)
		out.Write(b)
	}
}

func listed(paths ...string) string {
	var rows []string
	for i, p := range paths {
		if !strings.Contains(p, ":") {
			p = "HOST" + p
		}
		rows = append(rows, fmt.Sprintf(`{"position":%d,"original":%q,"title":"house %d","source":"Houses","link":"https://houses.example/%d"}`, i+1, p, i, i))
	}
	return `{"images_results":[` + strings.Join(rows, ",") + `],"serpapi_pagination":{"current":1}}`
}

func (w *web) options(t *testing.T, log *bytes.Buffer, queries ...Query) Options {
	return Options{Out: filepath.Join(t.TempDir(), "raw"), Queries: queries, PerClass: 5, Key: secret.New(key), Endpoint: w.URL, Parallel: 6, MinSide: 50, MaxBytes: 100_000, MaxPixels: 1_000_000, Timeout: 3 * time.Second,
		Log: slog.New(slog.NewTextHandler(log, nil)), allowLoopback: true, sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
}

func manifestOf(t *testing.T, dir string) map[string]Line {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, Manifest))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Line{}
	for line := range strings.Lines(string(b)) {
		var l Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		at := l.URL[strings.LastIndex(l.URL, "/")+1:]
		if _, twice := out[at]; twice {
			t.Errorf("%s appears twice", l.URL)
		}
		out[at] = l
	}
	return out
}

// noKey looks for the key in everything that was written or said.
func noKey(t *testing.T, dir string, said ...string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(path)
			said = append(said, string(b))
		}
		return nil
	})
	for _, s := range said {
		for _, k := range []string{key, "s3cret"} {
			if strings.Contains(s, k) {
				t.Errorf("the key is in: %.300s", s)
			}
		}
	}
}

func TestEveryCaseOfTheWeb(t *testing.T) {
	w := start(t)
	for i := range 4 {
		w.images[fmt.Sprintf("/good%d.png", i)] = w.counted(drawn(i, 80))
	}
	w.images["/same.png"] = w.counted(drawn(0, 80))
	w.images["/html.jpg"] = w.counted([]byte("<!DOCTYPE html><html>login</html>"))
	w.images["/small.png"] = w.counted(drawn(9, 20))
	w.images["/cut.png"] = func(out http.ResponseWriter, _ *http.Request) {
		b := drawn(8, 80)
		out.Header().Set("Content-Length", strconv.Itoa(len(b)))
		out.Write(b[:len(b)/2])
	}
	w.images["/half.png"] = w.counted(drawn(8, 80)[:60])
	w.images["/slow.png"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	w.images["/endless.png"] = func(out http.ResponseWriter, r *http.Request) {
		out.Write(drawn(7, 80))
		for b := make([]byte, 8192); ; {
			if _, err := out.Write(b); err != nil {
				return
			}
		}
	}
	w.images["/bomb.png"] = w.counted([]byte("GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;"))
	w.images["/inside.png"] = func(out http.ResponseWriter, r *http.Request) {
		http.Redirect(out, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
	}
	w.images["/file.png"] = func(out http.ResponseWriter, r *http.Request) {
		http.Redirect(out, r, "file:///etc/passwd", http.StatusFound)
	}
	busy := 0
	w.images["/busy.png"] = func(out http.ResponseWriter, r *http.Request) {
		if busy++; busy < 3 {
			out.Header().Set("Retry-After", "1")
			out.WriteHeader(429)
			return
		}
		out.Write(drawn(4, 80))
	}
	w.images["/robots.txt"] = gives([]byte("User-agent: *\nDisallow: /private/\n"))
	w.images["/private/x.png"] = gives(drawn(6, 80))
	w.pages["gothic house"] = []string{
		listed("/good0.png", "/same.png", "/html.jpg", "/small.png", "/cut.png", "/half.png", "/slow.png", "/endless.png", "/bomb.png", "/inside.png", "/file.png", "/private/x.png", "/gone.png", "x-raw-image:///abc", "http://10.0.0.7/y.png"),
		`{"images_results":[{"position":1},{"thumbnail":"HOST/t.png"},{"original":"HOST/good1.png"}]}`,
		listed("/good2.png", "/busy.png"),
		listed("/good3.png"),
	}
	var log bytes.Buffer
	o := w.options(t, &log, Query{"gothic", "gothic house"})
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Classes[0]; c.Saved != 5 || c.New != 5 || c.Searches != 4 || c.Refused != 14 {
		t.Errorf("%+v", c)
	}
	m := manifestOf(t, o.Out)
	for at, want := range map[string]string{"same.png": "the same bytes", "html.jpg": "text/html", "small.png": "20 x 20", "cut.png": "broke off", "half.png": "", "slow.png": "", "endless.png": "more than 100000", "bomb.png": "65535",
		"": "private", "file.png": "scheme file", "x.png": "robots.txt", "y.png": "private", "gone.png": "404", "abc": "no address"} {
		l, ok := m[at]
		if at == "" {
			l, ok = m["inside.png"]
		}
		// good0 and same race: either is the other's copy.
		if at == "same.png" && l.Status == "saved" {
			l = m["good0.png"]
		}
		if !ok || l.Status != "refused" || !strings.Contains(l.Reason, want) || l.Reason == "" {
			t.Errorf("%s: %+v, want %q", at, l, want)
		}
	}
	if l := m["good1.png"]; l.Status != "saved" || l.Width != 80 || l.SHA256 == "" || l.Class != "gothic" {
		t.Errorf("%+v", l)
	}
	if l := m["busy.png"]; l.Status != "saved" {
		t.Errorf("%+v", l)
	}
	files, _ := filepath.Glob(filepath.Join(o.Out, "gothic", "*"))
	if len(files) != 5 {
		t.Errorf("files %v", files)
	}
	if w.asked["/private/x.png"] != 0 || w.asked["/robots.txt"] != 1 {
		t.Errorf("robots.txt was asked %d times, what it forbids %d times", w.asked["/robots.txt"], w.asked["/private/x.png"])
	}
	if w.most > perHost {
		t.Errorf("%d requests at once to one host", w.most)
	}
	// Nothing is asked for again.
	before := w.searches
	if r, err = Run(t.Context(), o); err != nil || r.Classes[0].New != 0 || w.searches != before {
		t.Errorf("again: %+v %v, %d searches", r.Classes, err, w.searches-before)
	}
	noKey(t, o.Out, log.String())
}

func TestAnswersOfSerpAPI(t *testing.T) {
	for name, c := range map[string]struct {
		script   func(*web, *Options)
		err      error
		text     string
		saved    int
		searches int
	}{
		"refused key":  {func(_ *web, o *Options) { o.Key = secret.New("s3cret wrong") }, ErrKey, "", 0, 0},
		"nothing left": {func(w *web, _ *Options) { w.left = 0 }, ErrNoQuota, "", 0, 0},
		"left runs out": {func(w *web, _ *Options) {
			w.status["q"] = []int{429}
			w.said["q"] = "Your account has run out of searches."
		}, ErrNoQuota, "", 0, 1},
		"hourly limit": {func(w *web, _ *Options) {
			w.status["q"] = []int{429, 429}
			w.said["q"] = "You have exceeded your hourly limit."
		}, nil, "", 2, 4},
		"a flake": {func(w *web, _ *Options) {
			w.status["q"] = []int{200, 200}
			w.said["q"] = "Google hasn't returned any results for this query."
		}, nil, "", 2, 4},
		"nothing found":     {func(w *web, _ *Options) { w.pages["q"] = nil }, nil, "", 0, 3},
		"broken":            {func(w *web, _ *Options) { w.status["q"] = []int{500, 500, 500}; w.said["q"] = "boom" }, nil, "boom", 0, 3},
		"an unreachable":    {func(_ *web, o *Options) { o.Endpoint = "http://127.0.0.1:1" }, nil, "quota", 0, 0},
		"page without end":  {func(w *web, _ *Options) { w.pages["q"] = append(w.pages["q"], `{"images_results":[]}`) }, nil, "", 2, 2},
		"what is no answer": {func(w *web, _ *Options) { w.pages["q"] = []string{"<html>"} }, nil, "not JSON", 0, 3},
	} {
		w := start(t)
		w.images["/a.png"], w.images["/b.png"] = gives(drawn(1, 60)), gives(drawn(2, 60))
		w.pages["q"] = []string{listed("/a.png", "/b.png")}
		var log bytes.Buffer
		o := w.options(t, &log, Query{"c", "q"})
		c.script(w, &o)
		r, err := Run(t.Context(), o)
		switch {
		case c.err != nil && !errors.Is(err, c.err), c.text != "" && (err == nil || !strings.Contains(err.Error(), c.text)), c.err == nil && c.text == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.err == nil && c.text == "" && r.Classes[0].Saved != c.saved:
			t.Errorf("%s: %+v", name, r.Classes[0])
		}
		if w.searches > c.searches {
			t.Errorf("%s: %d searches, want at most %d", name, w.searches, c.searches)
		}
		noKey(t, o.Out, log.String(), fmt.Sprint(err))
	}
}

// A scrape that is cut short goes on: nothing is lost, nothing twice.
func TestInterruptedAndResumed(t *testing.T) {
	w := start(t)
	var paths []string
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	n := 0
	for i := range 30 {
		p := fmt.Sprintf("/p%d.png", i)
		paths = append(paths, p)
		b := drawn(i+300, 64)
		w.images[p] = func(out http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if n++; n == 9 {
				cancel()
			}
			mu.Unlock()
			out.Write(b)
		}
	}
	w.pages["q"] = []string{listed(paths[:15]...), listed(paths[15:]...)}
	var log bytes.Buffer
	o := w.options(t, &log, Query{"c", "q"})
	o.PerClass = 25
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	half, _ := filepath.Glob(filepath.Join(o.Out, "c", "*.png"))
	if len(half) >= 25 {
		t.Fatalf("%d pictures when it was cut short", len(half))
	}
	f, _ := os.OpenFile(filepath.Join(o.Out, Manifest), os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"class":"c","url":"http://half/`) // as a kill leaves it
	f.Close()
	plan, err := Plan(t.Context(), o)
	if err != nil || plan.Classes[0].Saved != len(half) || plan.Classes[0].New != 25-len(half) || plan.Quota.Left != 100 {
		t.Errorf("plan %+v %v", plan, err)
	}
	r, err := Run(t.Context(), o)
	all, _ := filepath.Glob(filepath.Join(o.Out, "c", "*.png"))
	if err != nil || len(all) != 25 || r.Classes[0].New != 25-len(half) {
		t.Errorf("%d pictures after %d, %+v, %v", len(all), len(half), r.Classes, err)
	}
	noKey(t, o.Out, log.String())
}

func TestPrivateAddressesAreNotAsked(t *testing.T) {
	refuse := guard(false)
	for _, a := range []string{"127.0.0.1:80", "10.1.2.3:443", "192.168.0.9:80", "172.16.3.4:80", "169.254.169.254:80", "0.0.0.0:80", "100.64.1.1:80", "[::1]:80", "[fe80::1]:80", "[fc00::1]:80", "[::ffff:10.0.0.1]:80", "224.0.0.1:80", "198.18.0.1:80", "255.255.255.255:80", "[64:ff9b::a00:1]:80"} {
		if refuse("tcp", a, nil) == nil {
			t.Errorf("%s would be asked", a)
		}
	}
	for _, a := range []string{"93.184.216.34:443", "[2606:2800:220:1::1]:443"} {
		if err := refuse("tcp", a, nil); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestKeyComesFromPrivatePlaces(t *testing.T) {
	none := func(string) secret.Text { return secret.Text{} }
	file := filepath.Join(t.TempDir(), "key")
	os.WriteFile(file, []byte(" "+key+"\n"), 0o600)
	if k, err := ReadKey(file, none); k.Reveal() != key || err != nil {
		t.Error(k, err)
	}
	os.Chmod(file, 0o644)
	if _, err := ReadKey(file, none); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), key) {
		t.Error(err)
	}
	if k, err := ReadKey("", func(n string) secret.Text { return secret.New(map[string]string{"SERPAPI_KEY": "x"}[n]) }); k.Reveal() != "x" || err != nil {
		t.Error(k, err)
	}
	if _, err := ReadKey("", none); err == nil || !strings.Contains(err.Error(), "SERPAPI_API_KEY") {
		t.Error(err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"class":"c","url":"u","status":"saved","file":"../../x"}` + "\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &manifest{seen: map[string]bool{}, sums: map[string]string{}, saved: map[string]int{}}
		m.read(t.TempDir(), b)
		for class, n := range m.saved {
			if n > 0 {
				t.Errorf("%d pictures of %q in an empty folder", n, class)
			}
		}
	})
}
