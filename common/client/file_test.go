package client_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// A checkpoint comes whole and verified, or leaves what was there alone.
func TestPull(t *testing.T) {
	const body = "weights"
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "m.pth"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/checkpoints/m.pth":
			fmt.Fprint(w, body)
		case "/checkpoints/busy.pth":
			http.Error(w, "come again", http.StatusServiceUnavailable)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	other := fmt.Sprintf("%x", sha256.Sum256([]byte("others!")))
	for name, c := range map[string]struct {
		location string
		size     int64
		sum      string
		shared   string
		code     int
		text     string
	}{
		"of a worker":         {location: s.URL + "/checkpoints/m.pth"},
		"of the folder":       {location: "shared:m.pth", shared: shared},
		"no folder named":     {location: "shared:m.pth", code: client.ExitUsage, text: "--shared FOLDER"},
		"not in the folder":   {location: "shared:n.pth", shared: shared, code: client.ExitNotFound, text: "n.pth does not exist"},
		"out of the folder":   {location: "shared:../m.pth", shared: filepath.Join(shared), code: client.ExitError, text: "escapes"},
		"not at the worker":   {location: s.URL + "/checkpoints/n.pth", code: client.ExitNotFound, text: "no such file on that worker"},
		"the worker is busy":  {location: s.URL + "/checkpoints/busy.pth", code: client.ExitError, text: "come again"},
		"longer than said":    {location: "shared:m.pth", shared: shared, size: 6, code: client.ExitError, text: "more than 6 bytes"},
		"shorter than said":   {location: "shared:m.pth", shared: shared, size: 8, code: client.ExitError, text: "has 7 bytes; the index has 8"},
		"another hash":        {location: "shared:m.pth", shared: shared, sum: other, code: client.ExitError, text: "SHA-256"},
		"no hash":             {location: "shared:m.pth", shared: shared, sum: "ab", code: client.ExitError, text: "no usable SHA-256"},
		"a location of none":  {location: "file:///etc/passwd", code: client.ExitError, text: "cannot fetch"},
		"nothing is said yet": {location: "", code: client.ExitError, text: "cannot fetch"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &trial.Checkpoint{Location: trial.Location(c.location), Size: c.size, SHA256: c.sum}
			if k.Size == 0 {
				k.Size = int64(len(body))
			}
			if k.SHA256 == "" {
				k.SHA256 = sum
			}
			to := filepath.Join(t.TempDir(), "to.pth")
			if err := os.WriteFile(to, []byte("before"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := client.Files{Shared: c.shared}.Pull(t.Context(), k, to)
			if got := client.ExitCode(err); got != c.code || err != nil && !strings.Contains(client.Message(err), c.text) {
				t.Errorf("exit %d, %v", got, err)
			}
			want := "before"
			if c.code == 0 {
				want = body
			}
			if got, err := os.ReadFile(to); string(got) != want {
				t.Errorf("%q %v", got, err)
			}
			if left, _ := os.ReadDir(filepath.Dir(to)); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A worker that stops in the middle of a file ends the wait for it, and that is
// no interrupt of ours.
func TestPullFromAStalledWorker(t *testing.T) {
	defer client.SetStall(50 * time.Millisecond)()
	gone := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "wei")
		w.(http.Flusher).Flush()
		<-gone
	}))
	defer s.Close()
	defer close(gone)
	k := &trial.Checkpoint{Location: trial.Location(s.URL + "/checkpoints/m.pth"), Size: 7, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("weights")))}
	to := filepath.Join(t.TempDir(), "to.pth")
	err := client.Files{}.Pull(t.Context(), k, to)
	if client.ExitCode(err) != client.ExitError || !strings.Contains(err.Error(), "after 3 of 7 bytes: the worker stopped sending") {
		t.Error(err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("half a file was left")
	}
}
