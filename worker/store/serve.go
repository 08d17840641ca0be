package store

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// Handler serves the files below the root for GET and HEAD, ranges included.
// Only plain files inside the root are given out: no listing, no hidden or
// temporary file, no link that leads out. At most limit requests are answered at
// a time; the others are told to come back.
func (s *Store) Handler(limit int) http.Handler {
	files := s.noteCollected(ServeRoot(s.root, trial.FilesPath, limit))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(client.WorkerHeader, s.cfg.Worker)
		files.ServeHTTP(w, r)
	})
}

// ServeRoot serves the plain files of a folder under a URL prefix, as Handler does.
func ServeRoot(root *os.Root, prefix string, limit int) http.Handler {
	places := make(chan struct{}, limit)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		rel, ok := strings.CutPrefix(r.URL.Path, prefix)
		if !ok || !servable(rel) {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "busy with other downloads", http.StatusServiceUnavailable)
			return
		}
		// A pipe or device would hold the open: look first.
		if info, err := root.Lstat(filepath.FromSlash(rel)); err != nil || !info.Mode().IsRegular() {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		f, err := root.Open(filepath.FromSlash(rel)) // os.Root refuses to leave the folder, by links too
		if err != nil {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if strings.HasSuffix(rel, ".log") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		}
		http.ServeContent(&steady{w, http.NewResponseController(w)}, r, "", info.ModTime(), f)
	})
}

// steady gives each write a time limit of its own: a large file may take long,
// a reader that stands still may not hold a place.
type steady struct {
	http.ResponseWriter
	c *http.ResponseController
}

// Write implements http.ResponseWriter.
func (w *steady) Write(b []byte) (int, error) {
	w.c.SetWriteDeadline(time.Now().Add(30 * time.Second)) // not every writer can: then there is no limit
	return w.ResponseWriter.Write(b)
}

// servable reports whether a path may be asked for: below the root, and no part of it hidden, which
// are files under way.
func servable(rel string) bool {
	if rel == "" || strings.ContainsAny(rel, "\\\x00") || !filepath.IsLocal(rel) {
		return false
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" || part[0] == '.' {
			return false
		}
	}
	return true
}
