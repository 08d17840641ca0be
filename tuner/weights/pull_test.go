package weights_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/tuner/weights"
)

// content is a file's bytes; named gives them a name as torchvision would.
var content = bytes.Repeat([]byte("weights!"), 100_000)

func named(b []byte) weights.Published {
	return weights.Published{Name: "tiny", File: fmt.Sprintf("tiny-%x.pth", sha256.Sum256(b))[:len("tiny-")+8] + ".pth", Parameters: 1}
}

// server answers with handle and remembers the ranges asked for.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	ranges []string
}

func serve(t *testing.T, handle http.HandlerFunc) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		s.mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ranges)
}

// file serves b under its name below /models, with ranges.
func file(p weights.Published, b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/models/"+p.File {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func puller(t *testing.T, s *server) weights.Puller {
	return weights.Puller{Server: s.URL + "/models", Folder: filepath.Join(t.TempDir(), "cache"), Stall: time.Minute, Pause: time.Millisecond}
}

func left(t *testing.T, folder string) string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// check looks whether the file came whole and stands alone in the cache.
func check(t *testing.T, p weights.Puller, f weights.Published, got weights.Pulled, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(got.Path)
	if err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes stand in %s (%v)", len(b), got.Path, err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256(content)); got.SHA256 != want || got.Bytes != int64(len(content)) {
		t.Errorf("%+v", got)
	}
	if names := left(t, p.Folder); names != f.File {
		t.Errorf("in the cache: %s", names)
	}
}

func TestPull(t *testing.T) {
	f := named(content)
	s := serve(t, file(f, content))
	p := puller(t, s)
	var last, total int64
	p.Progress = func(d, n int64) { last, total = d, n }
	got, err := p.Pull(t.Context(), f)
	check(t, p, f, got, err)
	if got.Cached || last != int64(len(content)) || total != last {
		t.Errorf("%+v, progress ended at %d of %d", got, last, total)
	}
	got, err = p.Pull(t.Context(), f)
	check(t, p, f, got, err)
	if !got.Cached || len(s.asked()) != 1 {
		t.Errorf("%+v after requests %q", got, s.asked())
	}
	// A file that was damaged in the cache is fetched again.
	if err := os.WriteFile(got.Path, []byte("bad"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err = p.Pull(t.Context(), f)
	check(t, p, f, got, err)
	if got.Cached || len(s.asked()) != 2 {
		t.Errorf("%+v after requests %q", got, s.asked())
	}
}

func TestPullRefusesAWrongHash(t *testing.T) {
	f := named(content)
	other := bytes.Clone(content)
	other[len(other)/2] ^= 1
	p := puller(t, serve(t, file(f, other)))
	_, err := p.Pull(t.Context(), f)
	if !errors.Is(err, weights.ErrWrongHash) || !strings.Contains(err.Error(), fmt.Sprintf("%x", sha256.Sum256(other))) {
		t.Errorf("error %v", err)
	}
	if names := left(t, p.Folder); names != "" {
		t.Errorf("in the cache: %s", names)
	}
}

// TestPullGoesOn: a server that breaks off leaves a part; the next run asks only for the rest.
func TestPullGoesOn(t *testing.T) {
	f := named(content)
	cut := true
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if cut && r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:300_000])
			return
		}
		if cut {
			http.Error(w, "try later", http.StatusServiceUnavailable)
			return
		}
		file(f, content)(w, r)
	})
	p := puller(t, s)
	_, err := p.Pull(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "300000 bytes are kept") {
		t.Errorf("error %v", err)
	}
	if names := left(t, p.Folder); names != f.File+".part" {
		t.Errorf("in the cache: %s", names)
	}
	if n := len(s.asked()); n != 3 { // the one that broke off counts as a try
		t.Errorf("%d requests: %q", n, s.asked())
	}
	cut = false
	got, err := p.Pull(t.Context(), f)
	check(t, p, f, got, err)
	if asked := s.asked(); asked[len(asked)-1] != "bytes=300000-" {
		t.Errorf("asked for %q", asked)
	}
}

// TestPullTriesAgain: as long as something comes each time, one run goes on, however often the server breaks off.
func TestPullTriesAgain(t *testing.T) {
	f := named(content)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		first := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &first)
		last := min(first+100_000, len(content))
		if first > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(content)-1, len(content)))
			w.Header().Set("Content-Length", fmt.Sprint(len(content)-first))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		}
		w.Write(content[first:last])
	})
	p := puller(t, s)
	got, err := p.Pull(t.Context(), f)
	check(t, p, f, got, err)
	if n := len(s.asked()); n != 8 {
		t.Errorf("%d requests: %q", n, s.asked())
	}
}

// TestPullWithAPart: whatever the part holds and whatever the server makes of ranges, the file comes out right.
func TestPullWithAPart(t *testing.T) {
	f := named(content)
	ignoring := func(w http.ResponseWriter, r *http.Request) { w.Write(content) }
	lying := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Write(content)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(content)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(content[:10])
	}
	for name, c := range map[string]struct {
		part   []byte
		handle http.HandlerFunc
		asked  int
	}{
		"all of it":         {content, file(f, content), 1},
		"the beginning":     {content[:1000], file(f, content), 1},
		"of another file":   {[]byte("another"), file(f, content), 2},
		"longer":            {append(bytes.Clone(content), 'x'), file(f, content), 2},
		"no ranges":         {content[:1000], ignoring, 1},
		"other bytes given": {content[:1000], lying, 2},
	} {
		s := serve(t, c.handle)
		p := puller(t, s)
		if err := os.MkdirAll(p.Folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Folder, f.File+".part"), c.part, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := p.Pull(t.Context(), f)
		t.Log(name, s.asked())
		check(t, p, f, got, err)
		if len(s.asked()) != c.asked {
			t.Errorf("%s: requests %q", name, s.asked())
		}
	}
}

func TestPullRefusesTooMuch(t *testing.T) {
	f := named(content)
	for name, handle := range map[string]http.HandlerFunc{
		"announced": file(f, content),
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			for range 100 {
				w.Write(content[:8000])
				w.(http.Flusher).Flush()
			}
		},
	} {
		s := serve(t, handle)
		p := puller(t, s)
		p.Limit = 500_000
		_, err := p.Pull(t.Context(), f)
		if err == nil || !strings.Contains(err.Error(), "more than 500000") {
			t.Errorf("%s: error %v", name, err)
		}
		if b, err := os.ReadFile(filepath.Join(p.Folder, f.File+".part")); err != nil || len(b) > 0 || len(s.asked()) != 1 {
			t.Errorf("%s: %d bytes are kept after %d requests (%v)", name, len(b), len(s.asked()), err)
		}
	}
}

func TestPullSaysWhatIsWrong(t *testing.T) {
	f := named(content)
	hang := make(chan struct{})
	defer close(hang)
	stalling := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		if r.Header.Get("Range") == "" {
			w.Write(content[:10])
			w.(http.Flusher).Flush()
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	for name, c := range map[string]struct {
		handle http.HandlerFunc
		want   string
		asked  int
	}{
		"not there":      {http.NotFound, "404", 1},
		"not allowed":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "go away", http.StatusForbidden) }, `"go away"`, 1},
		"too busy":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "429", 3},
		"nothing comes":  {stalling, "nothing came for 500ms", 3},
		"no end of 3xx ": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "redirects", 30},
	} {
		s := serve(t, c.handle)
		p := puller(t, s)
		if name == "nothing comes" {
			p.Stall = 500 * time.Millisecond
		}
		p.Server = strings.Replace(s.URL, "http://", "http://me:secret@", 1) + "/models"
		_, err := p.Pull(t.Context(), f)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), f.File) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", name, err)
		}
		if errors.Is(err, weights.ErrNotFound) != (name == "not there") {
			t.Errorf("%s: error %v", name, err)
		}
		if n := len(s.asked()); n != c.asked {
			t.Errorf("%s: %d requests", name, n)
		}
	}
	gone := serve(t, http.NotFound)
	p := puller(t, gone)
	gone.Close()
	if _, err := p.Pull(t.Context(), f); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("no server: %v", err)
	}
	p.Server = "ftp://example"
	if _, err := p.Pull(t.Context(), f); err == nil || !strings.Contains(err.Error(), "http(s)") {
		t.Errorf("error %v", err)
	}
}

// TestPullAlone: while one process downloads, another is told; an interrupt keeps what came.
func TestPullAlone(t *testing.T) {
	f := named(content)
	came := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(content[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	p := puller(t, s)
	var once sync.Once
	p.Progress = func(int64, int64) { once.Do(func() { close(came) }) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := p.Pull(ctx, f); done <- err }()
	<-came
	if _, err := p.Pull(t.Context(), f); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(p.Folder, f.File+".part")); err != nil || !bytes.Equal(b, content[:1000]) {
		t.Errorf("%d bytes are kept (%v)", len(b), err)
	}
}

func TestCatalogue(t *testing.T) {
	name := regexp.MustCompile(`^(.*?)(?:_rwightman)?-[0-9a-f]{8}\.pth$`)
	seen := map[string]bool{}
	for _, p := range weights.Catalogue() {
		m := name.FindStringSubmatch(p.File)
		if m == nil || m[1] != p.Arch() || seen[p.File] || seen[p.Name] {
			t.Errorf("%+v", p)
		}
		seen[p.File], seen[p.Name] = true, true
		if size := 4 * p.Parameters; p.Limit() < size+size/20 || p.Limit() > 2*size+16<<20 {
			t.Errorf("%s: limit %d for %d parameters", p.Name, p.Limit(), p.Parameters)
		}
		if byFile, err := weights.Find(p.File); err != nil || byFile != p {
			t.Errorf("by its file's name: %+v, %v", byFile, err)
		}
	}
	if p, err := weights.Find("other-0123abcd.safetensors"); err != nil || p.File != "other-0123abcd.safetensors" {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "resnet", "../resnet18-f37072fd.pth", "a/b-f37072fd.pth", "x-f37072f.pth", "x-F37072FD.pth", ".x-f37072fd.pth", "x-f37072fd.zip"} {
		if p, err := weights.Find(bad); err == nil {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

func TestDefaultFolder(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/home/me/.cache")
	t.Setenv("ATELIER_CACHE", "")
	if dir, err := weights.DefaultFolder(); err != nil || dir != "/home/me/.cache/atelier/weights" {
		t.Errorf("%s, %v", dir, err)
	}
	t.Setenv("ATELIER_CACHE", "/big/cache")
	if dir, err := weights.DefaultFolder(); err != nil || dir != "/big/cache/weights" {
		t.Errorf("%s, %v", dir, err)
	}
}
