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

	"atelier/common/bundle"
	"atelier/common/inference"
	"atelier/common/trial"
)

// Results of inference lie among the checkpoints, as the bundle that the command
// fetches. Nobody goes on from them, so they stay for a while only.
const (
	resultsCollected = 10 * time.Minute // after they were fetched whole; time to fetch once more
	resultsAge       = 24 * time.Hour
	ResultsBytes     = 1 << 30 // all together; the newest stay
)

// DropResults deletes bundles of results that were fetched, that are a day old,
// or that make all of them more than most bytes, the oldest first. None goes
// within ten minutes of being written, and no file that is no bundle.
func (s *Store) DropResults(now time.Time, most int64) (gone int, err error) {
	type file struct {
		rel     string
		size    int64
		written time.Time
	}
	var found []file
	err = fs.WalkDir(s.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (d.Name() != inference.BundleFile || !d.Type().IsRegular()) {
			return nil
		}
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && s.isBundle(p) {
			found = append(found, file{p, info.Size(), info.ModTime()})
		}
		return nil
	})
	if err != nil {
		return 0, err
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

func (s *Store) isBundle(rel string) bool {
	f, err := s.root.Open(filepath.FromSlash(rel))
	if err != nil {
		return false
	}
	defer f.Close()
	return bundle.Is(f)
}

// noteCollected remembers bundles of results that were given out whole.
func (s *Store) noteCollected(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rel, _ := strings.CutPrefix(r.URL.Path, trial.FilesPath)
		if path.Base(rel) != inference.BundleFile || r.Method != http.MethodGet {
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

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

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
