package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/trial"
	"atelier/worker/store"
)

func open(t *testing.T, shared string) (*store.Store, string, *httptest.Server) {
	t.Helper()
	root := shared
	if root == "" {
		root = filepath.Join(t.TempDir(), "checkpoints")
	}
	srv := httptest.NewUnstartedServer(nil)
	s, err := store.Open(store.Config{Root: root, Shared: shared != "", Cache: filepath.Join(t.TempDir(), "fetched")}, srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = s.Handler(4)
	srv.Start()
	t.Cleanup(func() { srv.Close(); s.Close() })
	return s, root, srv
}

func lease(sweep string, number int64, token uint64) *trial.Lease {
	return &trial.Lease{LeaseRef: trial.LeaseRef{Sweep: sweep, Trial: number, Token: token}}
}

func put(t *testing.T, s *store.Store, token uint64, name, text string) (trial.Checkpoint, string) {
	t.Helper()
	dir, err := s.RunDir(lease("s-abc", 3, token))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	loc, err := s.Location(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	return trial.Checkpoint{Sweep: "s-abc", Trial: 3, Epoch: 2, Size: int64(len(text)), SHA256: hex.EncodeToString(sum[:]), Location: loc}, file
}

func TestFetchFromAnotherWorker(t *testing.T) {
	a, _, _ := open(t, "")
	b, _, _ := open(t, "")
	c, file := put(t, a, 17, "epoch 2.pth", strings.Repeat("weights ", 1000))
	if !strings.HasPrefix(string(c.Location), "http://127.0.0.1:") || !strings.HasSuffix(string(c.Location), "/checkpoints/s-abc/3/run-17/epoch%202.pth") {
		t.Errorf("location %s", c.Location)
	}
	if got, err := a.Fetch(context.Background(), c); err != nil || got != file {
		t.Errorf("own file: %s, %v", got, err)
	}
	got, err := b.Fetch(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(file)
	if have, _ := os.ReadFile(got); !bytes.Equal(have, want) || filepath.Ext(got) != ".pth" {
		t.Errorf("%s holds other bytes", got)
	}
	os.Remove(file)
	if again, err := b.Fetch(context.Background(), c); err != nil || again != got {
		t.Errorf("a copy that is here: %s, %v", again, err)
	}
	// A copy that rotted is not used.
	os.WriteFile(got, []byte("rot"), 0o644)
	if _, err := b.Fetch(context.Background(), c); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("rotten copy, no source: %v", err)
	}
	if _, err := a.Fetch(context.Background(), c); err == nil {
		t.Error("a missing file of its own was fetched")
	}
}

func TestWrongBytesAreRefused(t *testing.T) {
	text := strings.Repeat("x", 5000)
	sum := sha256.Sum256([]byte(text))
	answers := map[string]func(w http.ResponseWriter){
		"corrupted": func(w http.ResponseWriter) { io.WriteString(w, "y"+text[1:]) },
		"short":     func(w http.ResponseWriter) { io.WriteString(w, text[:4000]) },
		"cut off":   func(w http.ResponseWriter) { w.Header().Set("Content-Length", "5000"); io.WriteString(w, text[:100]) },
		"long":      func(w http.ResponseWriter) { io.WriteString(w, text+"z") },
		"redirect":  func(w http.ResponseWriter) { w.Header().Set("Location", "http://127.0.0.1:1/"); w.WriteHeader(302) },
		"missing":   func(w http.ResponseWriter) { w.WriteHeader(404) },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w) }))
			defer srv.Close()
			cache := t.TempDir()
			s, err := store.Open(store.Config{Root: t.TempDir(), Cache: cache}, "127.0.0.1:1")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := trial.Checkpoint{Epoch: 1, Size: 5000, SHA256: hex.EncodeToString(sum[:]), Location: trial.Location(srv.URL + "/checkpoints/s-abc/3/f")}
			if f, err := s.Fetch(context.Background(), c); err == nil {
				t.Errorf("took %s", f)
			}
			if left, _ := os.ReadDir(cache); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestSharedFolder(t *testing.T) {
	shared := t.TempDir()
	a, _, _ := open(t, shared)
	b, _, _ := open(t, shared)
	c, file := put(t, a, 5, "e.pth", "abc")
	if c.Location != "shared:s-abc/3/run-5/e.pth" {
		t.Errorf("location %s", c.Location)
	}
	if got, err := b.Fetch(context.Background(), c); err != nil || got != file {
		t.Errorf("%s, %v", got, err)
	}
	os.WriteFile(file, []byte("abd"), 0o644)
	if _, err := b.Fetch(context.Background(), c); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("changed file: %v", err)
	}
	alone, _, _ := open(t, "")
	if _, err := alone.Fetch(context.Background(), c); err == nil || !strings.Contains(err.Error(), "--shared") {
		t.Errorf("worker without the folder: %v", err)
	}
	bad := trial.Checkpoint{Size: 3, SHA256: c.SHA256, Location: "shared:../../etc/passwd"}
	if _, err := b.Fetch(context.Background(), bad); err == nil {
		t.Error("a location outside the folder was read")
	}
}

func TestServesNothingElse(t *testing.T) {
	s, root, srv := open(t, "")
	put(t, s, 1, "good.pth", "good")
	dir := filepath.Join(root, "s-abc", "3", "run-1")
	secret := filepath.Join(filepath.Dir(root), "secret")
	os.WriteFile(secret, []byte("secret"), 0o644)
	os.Symlink(secret, filepath.Join(dir, "link"))
	os.Symlink(filepath.Dir(root), filepath.Join(dir, "up"))
	os.WriteFile(filepath.Join(dir, ".tmp-1"), []byte("half"), 0o644)
	syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644)
	get := func(path string) (int, string) {
		req, _ := http.NewRequest("GET", srv.URL, nil)
		req.URL.Opaque = "//" + srv.Listener.Addr().String() + path // not cleaned on the way
		client := http.Client{Timeout: 2 * time.Second}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := get("/checkpoints/s-abc/3/run-1/good.pth"); code != 200 || body != "good" {
		t.Errorf("a good path: %d %q", code, body)
	}
	for _, p := range []string{"/checkpoints/", "/checkpoints/s-abc/3", "/checkpoints/s-abc/3/run-1/", "/checkpoints/../secret", "/checkpoints/%2e%2e/secret", "/checkpoints/s-abc/..%2f..%2fsecret",
		"/checkpoints/s-abc/3/run-1/link", "/checkpoints/s-abc/3/run-1/up/secret", "/checkpoints/s-abc/3/run-1/.tmp-1", "/checkpoints/s-abc/3/run-1/pipe", "/checkpoints//etc/passwd", "/checkpoints/s-abc/3/run-1/good.pth%00", "/secret"} {
		if code, body := get(p); code == 200 || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %q", p, code, body)
		}
	}
	if resp, err := http.Post(srv.URL+"/checkpoints/s-abc/3/run-1/good.pth", "", nil); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v %v", resp, err)
	}
}

func TestFilesOutsideTheRunAreNoCheckpoints(t *testing.T) {
	s, _, _ := open(t, "")
	dir, _ := s.RunDir(lease("s-abc", 3, 9))
	outside := filepath.Join(t.TempDir(), "f")
	os.WriteFile(outside, nil, 0o644)
	os.Symlink(outside, filepath.Join(dir, "link"))
	for _, f := range []string{outside, filepath.Join(dir, "link"), filepath.Join(dir, "none"), dir} {
		if loc, err := s.Location(f); err == nil {
			t.Errorf("%s is offered as %s", f, loc)
		}
	}
	for _, id := range []string{"", "../x", "A", "a/b", "-a", strings.Repeat("a", 65)} {
		if d, err := s.RunDir(lease(id, 1, 1)); err == nil {
			t.Errorf("sweep %q has folder %s", id, d)
		}
	}
}

func TestUnindexedFilesGo(t *testing.T) {
	s, _, _ := open(t, "")
	best, bestFile := put(t, s, 1, "1.pth", "one")
	_, oldFile := put(t, s, 1, "2.pth", "two")
	newest, newestFile := put(t, s, 2, "3.pth", "three")
	_, deadRun := put(t, s, 3, "4.pth", "four")
	if n, err := s.DeleteUnindexed("s-abc", 3, []trial.Location{best.Location, newest.Location}, time.Hour); err != nil || n != 0 {
		t.Errorf("young files went: %d, %v", n, err)
	}
	if n, err := s.DeleteUnindexed("s-abc", 3, []trial.Location{best.Location, newest.Location, "http://elsewhere:1/checkpoints/s-abc/3/run-9/x"}, 0); err != nil || n != 2 {
		t.Errorf("%d went, %v; want 2", n, err)
	}
	for f, want := range map[string]bool{bestFile: true, newestFile: true, oldFile: false, deadRun: false} {
		if _, err := os.Stat(f); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", f, err == nil, want)
		}
	}
	trials, err := s.Trials()
	if err != nil || !slices.Equal(trials["s-abc"], []int64{3}) {
		t.Errorf("%v, %v", trials, err)
	}
	if _, err := s.DeleteUnindexed("s-none", 1, nil, 0); err != nil {
		t.Errorf("a trial without a folder: %v", err)
	}
}

func FuzzLocation(f *testing.F) {
	root := f.TempDir()
	s, err := store.Open(store.Config{Root: filepath.Join(root, "in"), Shared: true, Cache: filepath.Join(root, "cache")}, "127.0.0.1:1")
	if err != nil {
		f.Fatal(err)
	}
	secret := []byte("secret")
	os.WriteFile(filepath.Join(root, "secret"), secret, 0o644)
	sum := sha256.Sum256(secret)
	f.Add("shared:../secret")
	f.Add("shared:s-abc/3/../../../secret")
	f.Add("file:///etc/passwd")
	f.Fuzz(func(t *testing.T, location string) {
		if strings.HasPrefix(location, "http") {
			return
		}
		if got, err := s.Fetch(context.Background(), trial.Checkpoint{Size: 6, SHA256: hex.EncodeToString(sum[:]), Location: trial.Location(location)}); err == nil {
			t.Errorf("%q gave %s", location, got)
		}
	})
}
