package store_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"atelier/common/trial"
)

// Results of inference go once they were fetched, after a day, and where they
// are more than they may be; checkpoints stay, whatever their names.
func TestDropResults(t *testing.T) {
	s, root, srv := open(t, "")
	now := time.Now()
	const size = 3000
	results := func(token uint64, age time.Duration) string {
		l := lease("s-infer", 1, token)
		l.Kind = trial.Inference
		dir, err := s.RunDir(l)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "results.tar")
		if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Chtimes(file, time.Time{}, now.Add(-age))
		return file
	}
	young := results(1, time.Minute)
	waiting := results(2, time.Hour)
	fetched := results(3, 2*time.Hour)
	partly := results(4, 3*time.Hour)
	older := results(5, 4*time.Hour)
	yesterday := results(6, 25*time.Hour)
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
