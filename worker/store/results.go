package store

import (
	"errors"
	"io/fs"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/trial"
)

// Results of inference lie beside the checkpoints, as the bundle that the command
// fetches. Nobody goes on from them, so they stay for a while only.
const (
	resultsPrefix    = "results-"       // of a run's folder; the lease's token follows
	resultsCollected = 10 * time.Minute // after they were fetched whole; time to fetch once more
	resultsAge       = 24 * time.Hour
	ResultsBytes     = 1 << 30 // all together; the newest stay
)

// DropResults deletes results of inference that were fetched, that are a day old,
// or that make all of them more than most bytes, the oldest first. None goes
// within ten minutes of being written.
func (s *Store) DropResults(now time.Time, most int64) (gone int, err error) {
	type file struct {
		rel     string
		size    int64
		written time.Time
	}
	names, err := fs.Glob(s.root.FS(), "*/*/"+resultsPrefix+"*/*")
	if err != nil {
		return 0, err
	}
	var found []file
	for _, rel := range names {
		if info, err := s.root.Lstat(filepath.FromSlash(rel)); err == nil && info.Mode().IsRegular() {
			found = append(found, file{rel, info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b file) int { return b.written.Compare(a.written) })
	var kept int64
	for _, f := range found {
		kept += f.size
		collected, fetched := s.collected.Load(f.rel)
		switch age := now.Sub(f.written); {
		case age < resultsCollected:
			continue
		case age < resultsAge && kept <= most && !(fetched && now.Sub(collected.(time.Time)) >= resultsCollected):
			continue
		}
		if err := s.root.Remove(filepath.FromSlash(f.rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, err
		}
		s.collected.Delete(f.rel)
		kept -= f.size
		gone++
	}
	return gone, nil
}

// noteCollected remembers results that were given out whole.
func (s *Store) noteCollected(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rel, _ := strings.CutPrefix(r.URL.Path, trial.FilesPath)
		if !strings.HasPrefix(path.Base(path.Dir(rel)), resultsPrefix) || r.Method != http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		c := &counted{ResponseWriter: w}
		h.ServeHTTP(c, r)
		if info, err := s.root.Stat(filepath.FromSlash(rel)); err == nil && c.status == http.StatusOK && c.bytes == info.Size() {
			s.collected.Store(rel, time.Now())
		}
	})
}

// counted counts what was written of an answer.
type counted struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter. Without a WriteHeader before it the status is 200, as
// net/http has it.
func (c *counted) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// Unwrap lets time limits reach the connection.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }
