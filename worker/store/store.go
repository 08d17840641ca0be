// Package store keeps checkpoints: where a run writes them, how another worker
// gets them, and which files may go.
//
// Files live below one root, in the worker's data folder or in a folder all
// workers share, as SWEEP/TRIAL/run-TOKEN/FILE (of a member of a group run-TOKEN-MEMBER/FILE), results of inference as
// SWEEP/TRIAL/results-TOKEN/FILE. Each run has a folder of its own, so that a run
// that lost its lease and goes on for a moment cannot write over the files of its
// successor. A model that a person pushes comes by PUT (receive.go), for the open run of a
// trial that a program trains, and with that run's token: who can reach the cluster's API
// can send a file, and nobody else. Whether a checkpoint counts is decided by
// the coordinators' index; the package refuses to guess that, and it never uses
// a file whose hash is not the indexed one.
package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/client"
	"atelier/common/trial"
)

// ErrGone is in the error of Fetch for a file that is no longer there, for
// nobody: the index need not name it.
var ErrGone = errors.New("the file is gone")

// Config of a Store.
type Config struct {
	Worker string      // its name
	Root   string      // folder of this worker's checkpoints, or the shared one
	Shared bool        // Root is the folder all workers share
	Cache  string      // fetched copies go below this folder
	TLS    *tls.Config // to other workers of a closed cluster, whose file servers speak TLS, as this one's; nil = open
	Logger *slog.Logger

	CopyMode fs.FileMode // of fetched copies; 0 = for this user alone
}

// Store is one worker's view of the checkpoints. Safe for concurrent use.
type Store struct {
	cfg     Config
	base    string // "http://host:port", or https, that this worker is reached at
	others  client.Files
	root    *os.Root
	maxSize int64

	collected sync.Map // path below the root of a bundle of results -> when it was fetched whole
}

// Open makes the folders and empties the cache: copies serve one run, and what
// lies there is of a former start. Address is host:port of this worker's file server.
func Open(cfg Config, address string) (*Store, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []string{cfg.Root, cfg.Cache} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("checkpoint folder: %w", err)
		}
	}
	if copies, err := os.ReadDir(cfg.Cache); err == nil {
		for _, f := range copies {
			os.Remove(filepath.Join(cfg.Cache, f.Name()))
		}
	}
	abs, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	// A run names its checkpoints by real paths; the root must be one too.
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("checkpoint folder: %w", err)
	}
	cfg.Root = abs
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("checkpoint folder: %w", err)
	}
	s := &Store{cfg: cfg, base: "http://" + address, root: root, maxSize: 64 << 30}
	if cfg.TLS != nil {
		s.base, s.others.HTTP = "https://"+address, client.FileClient(cfg.TLS)
	}
	return s, nil
}

// Close releases the root.
func (s *Store) Close() error { return s.root.Close() }

// trialDir is relative to the root.
func trialDir(sweep string, number int64) (string, error) {
	if !validSweep(sweep) || number < 1 {
		return "", fmt.Errorf("checkpoint folder for sweep %.80q, trial %d: not a sweep id or a trial number", sweep, number)
	}
	return filepath.Join(sweep, strconv.FormatInt(number, 10)), nil
}

// runDir is relative to the root. Its name shows whether the run writes
// checkpoints or results of inference: they stay for different times. Each member of
// a group has its own: any of them may come to report.
func runDir(l *trial.Lease) (string, error) {
	dir, err := trialDir(l.Sweep, l.Trial)
	if err != nil {
		return "", err
	}
	prefix := "run-"
	if l.Kind == trial.Inference {
		prefix = resultsPrefix
	}
	name := prefix + strconv.FormatUint(l.Token, 10)
	if l.Member > 0 {
		name += "-" + strconv.FormatInt(int64(l.Member), 10)
	}
	return filepath.Join(dir, name), nil
}

// validSweep reports whether a sweep's id may become a folder's name; it comes over the network.
func validSweep(id string) bool {
	if id == "" || len(id) > 64 || id[0] == '-' {
		return false
	}
	for _, r := range id {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') {
			return false
		}
	}
	return true
}

// RunDir makes the folder of one run and returns its absolute path.
func (s *Store) RunDir(l *trial.Lease) (string, error) {
	dir, err := runDir(l)
	if err != nil {
		return "", err
	}
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("folder for checkpoints: %w", err)
	}
	return filepath.Join(s.cfg.Root, dir), nil
}

// DropEmptyRun removes the folder of a run that wrote nothing.
func (s *Store) DropEmptyRun(l *trial.Lease) {
	dir, err := runDir(l)
	if err != nil {
		return
	}
	// Each fails for a folder that holds something, as it should.
	if t := filepath.Dir(dir); s.root.Remove(dir) == nil && s.root.Remove(t) == nil {
		s.root.Remove(l.Sweep)
	}
}

// Location is what the index is told of a file a run wrote below RunDir.
func (s *Store) Location(file string) (trial.Location, error) {
	rel, err := s.relative(file)
	if err != nil {
		return "", err
	}
	if s.cfg.Shared {
		return trial.SharedAt(rel), nil
	}
	return trial.ServedAt(s.base, rel), nil
}

// relative checks that file is a regular file below the root, links resolved.
func (s *Store) relative(file string) (string, error) {
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", file, err)
	}
	rel, err := filepath.Rel(s.cfg.Root, real)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("checkpoint %s is not below the folder of its run; a trainer must write into the job's dir", file)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", file, err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("checkpoint %s is not a file", file)
	}
	return filepath.ToSlash(rel), nil
}

// local finds the file of a location of this worker or of the shared folder;
// empty when it lies elsewhere. Another worker's former address may have become
// ours: the hash decides in the end.
func (s *Store) local(location trial.Location) string {
	of := location.Served
	if s.cfg.Shared {
		of = location.Shared
	}
	rel, ok := of()
	if !ok || !filepath.IsLocal(rel) {
		return ""
	}
	return rel
}

// Fetch returns the path of a file with the checkpoint's bytes: the one that
// lies here, or a copy got from the worker that holds it. Size and hash are
// checked in both cases.
func (s *Store) Fetch(ctx context.Context, c trial.Checkpoint) (string, error) {
	if _, err := sumOf(c).Bytes(); err != nil {
		return "", fmt.Errorf("checkpoint of epoch %d: %w", c.Epoch, err)
	}
	if c.Size < 0 || c.Size > s.maxSize {
		return "", fmt.Errorf("checkpoint of epoch %d: %d bytes is more than the limit of %d", c.Epoch, c.Size, s.maxSize)
	}
	if rel := s.local(c.Location); rel != "" {
		file := filepath.Join(s.cfg.Root, rel)
		f, err := s.root.Open(rel)
		if err == nil {
			err = sumOf(c).Check(f)
			f.Close()
			if err == nil {
				return file, nil
			}
		}
		if s.gone(c, rel, err) {
			return "", fmt.Errorf("checkpoint of epoch %d: %s: %w", c.Epoch, file, ErrGone)
		}
		if s.cfg.Shared || strings.HasPrefix(string(c.Location), s.base+"/") {
			return "", fmt.Errorf("checkpoint of epoch %d: %s: %w", c.Epoch, file, err)
		}
	}
	if !c.Location.Fetchable() {
		return "", fmt.Errorf("checkpoint of epoch %d is at %s, which this worker cannot reach; give it the same --shared folder as the others", c.Epoch, c.Location)
	}
	return s.download(ctx, c)
}

// gone reports whether an error to open a file here means that nobody has it: it
// is this worker's own, or lies in the shared folder. Of that the trial's folder
// must be there, lest one that is not mounted be taken for an empty one.
func (s *Store) gone(c trial.Checkpoint, rel string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if !s.cfg.Shared {
		return c.Worker != "" && c.Worker == s.cfg.Worker
	}
	_, missing := s.root.Stat(filepath.Dir(filepath.Dir(rel)))
	return missing == nil
}

// Gone reports whether a checkpoint that this worker is to have is not here any
// more.
func (s *Store) Gone(c trial.Checkpoint) bool {
	rel := s.local(c.Location)
	if rel == "" || c.Worker != s.cfg.Worker {
		return false
	}
	_, err := s.root.Stat(rel)
	return s.gone(c, rel, err)
}

// sumOf is what a checkpoint's file must be, by the cluster's index.
func sumOf(c trial.Checkpoint) client.Sum { return client.Sum{Size: c.Size, SHA256: c.SHA256} }

// download fetches a checkpoint of another worker into the cache, once: the name is its hash, and a
// copy there is checked before it is taken. ErrGone: its worker answers and has it no more.
func (s *Store) download(ctx context.Context, c trial.Checkpoint) (string, error) {
	final := filepath.Join(s.cfg.Cache, strings.ToLower(c.SHA256)+path.Ext(string(c.Location)))
	if f, err := os.Open(final); err == nil {
		err = sumOf(c).Check(f)
		f.Close()
		if err == nil {
			return final, nil
		}
		os.Remove(final)
	}
	err := s.others.Fetch(ctx, c.Location, sumOf(c), final, cmp.Or(s.cfg.CopyMode, 0o600))
	var missing *client.MissingError
	switch {
	case errors.As(err, &missing) && missing.Worker != "" && missing.Worker == c.Worker:
		// Another worker that got its address says nothing of the file.
		err = fmt.Errorf("%s: worker %s has it no more: %w", c.Location, missing.Worker, ErrGone)
	case missing != nil:
		err = missing // without its code
	}
	if err != nil {
		return "", fmt.Errorf("fetch checkpoint of epoch %d: %w", c.Epoch, err)
	}
	return final, nil
}

// DropCopy removes a fetched copy once the run that needed it is over. Files
// below the root are left alone.
func (s *Store) DropCopy(file string) {
	if filepath.Dir(file) == filepath.Clean(s.cfg.Cache) {
		os.Remove(file)
	}
}

// FreeBytes is what can still be written below the root.
func (s *Store) FreeBytes() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// folderAge: an empty folder may be that of a run elsewhere whose first epoch
// takes days.
const folderAge = 7 * 24 * time.Hour

// DeleteUnindexed deletes the files of a trial below this root that are not among the
// locations, are older than age, and returns how many went. Folders that have
// been empty for a week go too.
func (s *Store) DeleteUnindexed(sweep string, number int64, locations []trial.Location, age time.Duration) (int, error) {
	dir, err := trialDir(sweep, number)
	if err != nil {
		return 0, err
	}
	kept := map[string]bool{}
	for _, l := range locations {
		if rel := s.local(l); rel != "" {
			kept[filepath.Clean(rel)] = true
		}
	}
	now := time.Now()
	gone := 0
	var dirs []string
	err = fs.WalkDir(s.root.FS(), filepath.ToSlash(dir), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		info, err := d.Info()
		if err != nil || kept[filepath.FromSlash(p)] || now.Sub(info.ModTime()) < age {
			return nil
		}
		if err := s.root.Remove(filepath.FromSlash(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		gone++
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		if info, err := s.root.Stat(d); err == nil && now.Sub(info.ModTime()) >= folderAge {
			s.root.Remove(d) // fails for one that is not empty, as it should
		}
	}
	return gone, err
}

// Remove deletes one file by its location, if it lies below this root.
func (s *Store) Remove(location trial.Location) error {
	rel := s.local(location)
	if rel == "" {
		return nil
	}
	if err := s.root.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Trials lists the sweeps and trials that have a folder below this root.
func (s *Store) Trials() (map[string][]int64, error) {
	out := map[string][]int64{}
	sweeps, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, sw := range sweeps {
		if !sw.IsDir() || !validSweep(sw.Name()) {
			continue
		}
		trials, err := fs.ReadDir(s.root.FS(), sw.Name())
		if err != nil {
			return nil, err
		}
		for _, t := range trials {
			if n, err := strconv.ParseInt(t.Name(), 10, 64); err == nil && n > 0 && t.IsDir() {
				out[sw.Name()] = append(out[sw.Name()], n)
			}
		}
	}
	return out, nil
}
