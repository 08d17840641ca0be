package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/worker/store"
)

// receiving is a store that takes files for the run of token 7 alone.
func receiving(t testing.TB) (root string, web *httptest.Server) {
	t.Helper()
	root = t.TempDir()
	st, err := store.Open(store.Config{Worker: "w1", Root: root, Cache: t.TempDir()}, "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	web = httptest.NewServer(st.Receiver(func(_ context.Context, l trial.LeaseRef) error {
		if l != (trial.LeaseRef{Sweep: "s-a", Trial: 1, Token: 7}) {
			return errors.New("no open run of that token")
		}
		return nil
	}, 2))
	t.Cleanup(web.Close)
	return root, web
}

func send(t testing.TB, url, body, sum string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Skip(err)
	}
	req.Header.Set(client.SumHeader, sum)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func sumText(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// files are those below a folder.
func filesBelow(root string) (all []string) {
	filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			all = append(all, rel)
		}
		return nil
	})
	return all
}

func TestReceivedFiles(t *testing.T) {
	root, web := receiving(t)
	at := web.URL + "/checkpoints/s-a/1/run-7/"
	for name, x := range map[string]struct {
		url, body, sum string
		code           int
	}{
		"another run":     {web.URL + "/checkpoints/s-a/1/run-8/m.pth", "x", sumText("x"), 403},
		"another trial":   {web.URL + "/checkpoints/s-a/2/run-7/m.pth", "x", sumText("x"), 403},
		"out of the root": {web.URL + "/checkpoints/s-a/1/run-7/..%2f..%2f..%2f..%2fm.pth", "x", sumText("x"), 404},
		"hidden":          {at + ".m.pth", "x", sumText("x"), 404},
		"not a model":     {at + "m.sh", "x", sumText("x"), 404},
		"no sum":          {at + "m.pth", "x", "", 400},
		"nothing":         {at + "m.pth", "", sumText(""), 400},
		"other bytes":     {at + "m.pth", "x", sumText("y"), 422},
	} {
		if code, text := send(t, x.url, x.body, x.sum); code != x.code {
			t.Errorf("%s: %d %s, want %d", name, code, text, x.code)
		}
	}
	if left := filesBelow(root); len(left) != 0 {
		t.Fatalf("refused, and there is %q", left)
	}
	l := trial.LeaseRef{Sweep: "s-a", Trial: 1, Token: 7}
	sum := client.Sum{Size: 7, SHA256: sumText("weights")}
	for range 2 { // the answer may have been lost
		where, worker, err := client.New(nil).PushFile(t.Context(), strings.TrimPrefix(web.URL, "http://"), l, "m.pth", sum, strings.NewReader("weights"))
		if err != nil || worker != "w1" || where != "http://127.0.0.1:9/checkpoints/s-a/1/run-7/m.pth" {
			t.Fatalf("%s of %s, %v", where, worker, err)
		}
	}
	if code, text := send(t, at+"m.pth", "another", sumText("another")); code != 422 || !strings.Contains(text, "another file of that name") {
		t.Errorf("a second file: %d %s", code, text)
	}
	if b, err := os.ReadFile(filepath.Join(root, "s-a/1/run-7/m.pth")); string(b) != "weights" || len(filesBelow(root)) != 1 {
		t.Errorf("kept is %q, %v, beside %q", b, err, filesBelow(root))
	}
}

// FuzzReceiver: whatever is asked, nothing is written but for the run that may.
func FuzzReceiver(f *testing.F) {
	for _, p := range []string{"s-a/1/run-7/m.pth", "s-a/1/run-7/../../x.pth", "s-a/01/run-7/m.pth", "/s-a/1/run-7/m.pth", "s-a/1/run-7/a/b.pth", "s-a/1/run-7/m.pth\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		root, web := receiving(t)
		req, err := http.NewRequest(http.MethodPut, web.URL+"/", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = "/checkpoints/" + path
		req.Header.Set(client.SumHeader, sumText("x"))
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
		for _, file := range filesBelow(root) {
			if filepath.Dir(file) != "s-a/1/run-7" {
				t.Errorf("%q wrote %s", path, file)
			}
		}
	})
}
