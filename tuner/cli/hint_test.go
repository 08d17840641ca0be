package cli_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each failure of the runbook's section 7 that shows here is printed with what
// to do about it.
func TestHints(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SERPAPI_API_KEY", "")
	for i := range 2 {
		putImage(t, filepath.Join(dir, "good/a", fmt.Sprintf("%d.png", i)))
		putImage(t, filepath.Join(dir, "good/b", fmt.Sprintf("%d.png", i)))
	}
	write(t, filepath.Join(dir, "broken/a/x.jpg"), []byte("not an image"))
	write(t, filepath.Join(dir, "broken/b/y.png"), []byte("\x89PNG\r\n\x1a\nno more"))
	if err := os.MkdirAll(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	// A trainer that ends as those do that ran out of memory.
	write(t, filepath.Join(dir, "killed"), []byte("#!/bin/sh\nkill -KILL $$\n"))
	write(t, filepath.Join(dir, "cuda"), []byte("#!/bin/sh\necho 'CUDA out of memory. Tried to allocate 2.00 GiB' >&2\nexit 1\n"))
	write(t, filepath.Join(dir, "loader"), []byte("#!/bin/sh\necho 'libcgotorch.so: cannot open shared object file' >&2\nexit 127\n"))
	for _, name := range []string{"killed", "cuda", "loader"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "best_model.pth"), []byte("weights"))
	serp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("api_key") == "wrong" {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"Invalid API key"}`)
			return
		}
		fmt.Fprint(w, `{"total_searches_left":0,"account_rate_limit_per_hour":50,"this_hour_searches":3}`)
	}))
	defer serp.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	key := filepath.Join(dir, "key")
	wrong := filepath.Join(dir, "wrong")
	for file, text := range map[string]string{key: "right", wrong: "wrong"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	infer := []string{"infer", "--checkpoint", "best_model.pth", "--image-dir", "good", "--trainer-bin"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no folder":         {[]string{"data", "pack", "nosuch", "--cache", "c"}, "atelier data synth FOLDER"},
		"no class folders":  {[]string{"data", "info", "empty"}, "atelier data info FOLDER"},
		"broken pictures":   {[]string{"data", "pack", "broken", "--cache", "c"}, "atelier data cleanup FOLDER --dry-run"},
		"nothing to clean":  {[]string{"data", "cleanup", "empty"}, "atelier data info FOLDER"},
		"no key":            {[]string{"data", "scrape", "raw", "--class", "gothic"}, "serpapi.com/manage-api-key"},
		"wrong key":         {[]string{"data", "scrape", "raw", "--class", "gothic", "--key-file", wrong, "--endpoint", serp.URL}, "serpapi.com/manage-api-key"},
		"quota":             {[]string{"data", "scrape", "raw", "--class", "gothic", "--key-file", key, "--endpoint", serp.URL}, "continues where this one ended"},
		"no coordinator":    {[]string{"--addr", "127.0.0.1:1", "--retry-for", "10ms", "sweep", "list"}, "the address comes from --addr"},
		"port in use":       {[]string{"serve", "--listen", taken.Addr().String(), "--trainer-bin", filepath.Join(dir, "killed")}, "ss -ltnp"},
		"no checkpoint":     {[]string{"weights", "convert", "nosuch.pth", "x.safetensors"}, "ls checkpoints/*/best_model.pth"},
		"killed":            {append(infer, filepath.Join(dir, "killed")), "--set processing.batch_size=8"},
		"GPU memory":        {append(infer, filepath.Join(dir, "cuda")), "nvidia-smi"},
		"a library is away": {append(infer, filepath.Join(dir, "loader")), "make trainer"},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, dir, c.args...)
			if r.code == 0 || !strings.Contains(r.err, "\n  - ") || !strings.Contains(r.err, c.want) {
				t.Errorf("%q: exit %d, want %q in\n%s", c.args, r.code, c.want, r.err)
			}
			if strings.Contains(r.err+r.out, "right") || strings.Contains(r.err+r.out, "api_key") {
				t.Errorf("the key shows: %s", r.err)
			}
		})
	}
	// A command line that makes no sense is explained by itself.
	if r := run(t, dir, "data", "pack"); strings.Contains(r.err, "\n  - ") {
		t.Errorf("%+v", r)
	}
}
