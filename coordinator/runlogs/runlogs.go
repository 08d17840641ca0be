// Package runlogs keeps the ends of runs' logs on a coordinator's disk, so that
// they outlive the workers that wrote them. They are not part of the replicated
// state: a worker sends each to every coordinator that answers, and any one that
// has it is enough. It refuses what exceeds its bounds by forgetting the oldest,
// and never fails a run.
package runlogs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"atelier/common/files"
	"atelier/common/trial"
)

// Limits bound what is kept on one coordinator.
type Limits struct {
	Sweep int64 // bytes of one sweep
	Runs  int   // of one sweep
	Total int64 // bytes
}

// DefaultLimits are those of a coordinator.
func DefaultLimits() Limits { return Limits{Sweep: 16 << 20, Runs: 4096, Total: 256 << 20} }

// Store is the folder: DIR/SWEEP/TRIAL-RUN.log. It is safe for use by many
// goroutines.
type Store struct {
	dir    string
	limits Limits

	mu     sync.Mutex
	sweeps map[string]*sweep
	total  int64
}

type sweep struct {
	runs  map[string]kept
	bytes int64
	last  time.Time // of the newest
}

type kept struct {
	size int64
	at   time.Time
}

// ErrNone is returned for a run of which nothing is kept.
var ErrNone = errors.New("nothing of this run's log is kept here")

var (
	sweepName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	logName   = regexp.MustCompile(`^[0-9]{1,19}-[0-9]{1,10}\.log$`)
)

// Open takes a folder, which may hold logs of an earlier start. It is made once
// there is something to keep.
func Open(dir string, limits Limits) (*Store, error) {
	s := &Store{dir: dir, limits: limits, sweeps: map[string]*sweep{}}
	folders, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("logs of runs: %w", err)
	}
	for _, f := range folders {
		entries, err := os.ReadDir(filepath.Join(dir, f.Name()))
		if err != nil || !sweepName.MatchString(f.Name()) {
			continue
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && logName.MatchString(e.Name()) {
				s.add(f.Name(), e.Name(), kept{info.Size(), info.ModTime()})
			}
		}
	}
	return s, nil
}

// add enters a file that is there; the caller holds mu, or is alone.
func (s *Store) add(id, name string, k kept) {
	w := s.sweeps[id]
	if w == nil {
		w = &sweep{runs: map[string]kept{}}
		s.sweeps[id] = w
	}
	s.total += k.size - w.runs[name].size
	w.bytes += k.size - w.runs[name].size
	w.runs[name] = k
	if k.at.After(w.last) {
		w.last = k.at
	}
}

// Put keeps the end of a run's log in place of an earlier one of the same run.
func (s *Store) Put(id string, number int64, run int32, text []byte) error {
	if !sweepName.MatchString(id) || number < 1 || run < 1 || len(text) > trial.KeptLog {
		return fmt.Errorf("not a run's log: sweep %q, trial %d, run %d, %d bytes", id, number, run, len(text))
	}
	name := fmt.Sprintf("%d-%d.log", number, run)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(filepath.Join(s.dir, id), 0o755); err != nil {
		return err
	}
	if err := files.WriteUnsynced(filepath.Join(s.dir, id, name), text, 0o644); err != nil {
		return err
	}
	s.add(id, name, kept{int64(len(text)), time.Now()})
	for w := s.sweeps[id]; (w.bytes > s.limits.Sweep || len(w.runs) > s.limits.Runs) && len(w.runs) > 1; {
		s.forget(id, w.oldest(name))
	}
	for s.total > s.limits.Total && len(s.sweeps) > 1 {
		s.drop(s.oldest(id))
	}
	return nil
}

// oldest is the run that was kept first, but for one.
func (w *sweep) oldest(but string) (name string) {
	for n, k := range w.runs {
		if n != but && (name == "" || k.at.Before(w.runs[name].at) || k.at.Equal(w.runs[name].at) && n < name) {
			name = n
		}
	}
	return name
}

// oldest is the sweep that has been quiet for longest, but for one.
func (s *Store) oldest(but string) (id string) {
	for i, w := range s.sweeps {
		if i != but && (id == "" || w.last.Before(s.sweeps[id].last) || w.last.Equal(s.sweeps[id].last) && i < id) {
			id = i
		}
	}
	return id
}

// forget removes a run's log; the caller holds mu.
func (s *Store) forget(id, name string) {
	w := s.sweeps[id]
	os.Remove(filepath.Join(s.dir, id, name))
	s.total -= w.runs[name].size
	w.bytes -= w.runs[name].size
	delete(w.runs, name)
}

// drop removes a sweep's logs; the caller holds mu.
func (s *Store) drop(id string) {
	if w := s.sweeps[id]; w != nil {
		s.total -= w.bytes
		delete(s.sweeps, id)
		os.RemoveAll(filepath.Join(s.dir, id))
	}
}

// DropIf removes the logs of the sweeps that gone names.
func (s *Store) DropIf(gone func(sweep string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.sweeps {
		if gone(id) {
			s.drop(id)
		}
	}
}

// Get returns the end of a run's log and when it was kept; ErrNone where there
// is none.
func (s *Store) Get(id string, number int64, run int32) ([]byte, time.Time, error) {
	name := fmt.Sprintf("%d-%d.log", number, run)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.sweeps[id]
	if w == nil {
		return nil, time.Time{}, ErrNone
	}
	k, ok := w.runs[name]
	if !ok {
		return nil, time.Time{}, ErrNone
	}
	text, err := os.ReadFile(filepath.Join(s.dir, id, name))
	return text, k.at, err
}
