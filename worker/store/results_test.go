package store_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"atelier/common/bundle"
)

// Results of inference go once they were fetched, after a day, and where they
// are more than they may be; what is no bundle stays.
func TestDropResults(t *testing.T) {
	s, root, srv := open(t, "")
	now := time.Now()
	folder := filepath.Join(t.TempDir(), "results")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "report.txt"), make([]byte, 3000), 0o644); err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	make := func(token uint64, age time.Duration) string {
		dir, err := s.RunDir("s-infer", 1, token)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "results.tar")
		p, err := bundle.Pack(folder, file, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		size = p.Size
		os.Chtimes(file, time.Time{}, now.Add(-age))
		return file
	}
	young := make(1, time.Minute)
	waiting := make(2, time.Hour)
	fetched := make(3, 2*time.Hour)
	partly := make(4, 3*time.Hour)
	older := make(5, 4*time.Hour)
	yesterday := make(6, 25*time.Hour)
	_, model := put(t, s, 7, "results.tar", "a model of that name")
	os.Chtimes(model, time.Time{}, now.Add(-100*time.Hour))
	_, other := put(t, s, 8, "e100.pth", "a model")
	os.Chtimes(other, time.Time{}, now.Add(-100*time.Hour))

	get := func(file, part string) {
		t.Helper()
		rel, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest(http.MethodGet, srv.URL+"/checkpoints/"+filepath.ToSlash(rel), nil)
		if err != nil {
			t.Fatal(err)
		}
		if part != "" {
			r.Header.Set("Range", part)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	get(fetched, "")
	get(young, "")
	get(partly, "bytes=0-99")
	there := func(when string, want map[string]bool) {
		t.Helper()
		for file, stays := range want {
			if _, err := os.Stat(file); (err == nil) != stays {
				t.Errorf("%s: %s: there %v, want %v", when, file, err == nil, stays)
			}
		}
	}
	if n, err := s.DropResults(now, 100*size); err != nil || n != 1 {
		t.Errorf("%d went, %v; want yesterday's", n, err)
	}
	there("at once", map[string]bool{young: true, waiting: true, fetched: true, partly: true, older: true, yesterday: false, model: true, other: true})
	// The file server notes the fetch after its last byte has left.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n, err := s.DropResults(now.Add(12*time.Minute), 100*size)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("what was fetched stays: %d, %v", n, err)
		}
		if _, err := os.Stat(fetched); err != nil {
			break
		}
	}
	there("later", map[string]bool{waiting: true, fetched: false, partly: true, older: true, model: true, other: true})
	if n, err := s.DropResults(now, 2*size); err != nil || n > 2 {
		t.Errorf("%d went, %v", n, err)
	}
	there("over the budget", map[string]bool{waiting: true, older: false, model: true, other: true})
}
