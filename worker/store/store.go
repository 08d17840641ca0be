// Package store keeps checkpoints: where a run writes them, how another worker
// gets them, and which files may go.
//
// Files live below one root, in the worker's data folder or in a folder all
// workers share, as SWEEP/TRIAL/run-TOKEN/FILE. Each run has a folder of its
// own, so that a run that lost its lease and goes on for a moment cannot write
// over the files of its successor. Whether a checkpoint counts is decided by
// the coordinators' index; the package refuses to guess that, and it never uses
// a file whose hash is not the indexed one.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"atelier/common/files"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// workerHeader says whose file server answers: only from the worker that the
// index names does "no such file" mean that the file is gone. Its address may have
// become another's.
const workerHeader = "Atelier-Worker"

// ErrGone is in the error of Fetch for a file that is no longer there, for
// nobody: the index need not name it.
var ErrGone = errors.New("the file is gone")

// Config of a Store.
type Config struct {
	Worker string // its name
	Root   string // folder of this worker's checkpoints, or the shared one
	Shared bool   // Root is the folder all workers share
	Cache  string // fetched copies go below this folder
	Logger *slog.Logger
}

// Store is one worker's view of the checkpoints. Safe for concurrent use.
type Store struct {
	cfg     Config
	base    string // "http://host:port" this worker is reached at
	root    *os.Root
	http    *http.Client
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
	return &Store{cfg: cfg, base: "http://" + address, root: root, maxSize: 64 << 30,
		http: &http.Client{
			Transport:     &http.Transport{ResponseHeaderTimeout: 10 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}, nil
}

// Close releases the root.
func (s *Store) Close() error { return s.root.Close() }

// trialDir is relative to the root.
func trialDir(sweep string, trial int64) (string, error) {
	if !validSweep(sweep) || trial < 1 {
		return "", fmt.Errorf("checkpoint folder for sweep %.80q, trial %d: not a sweep id or a trial number", sweep, trial)
	}
	return filepath.Join(sweep, strconv.FormatInt(trial, 10)), nil
}

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
func (s *Store) RunDir(sweep string, trial int64, token uint64) (string, error) {
	t, err := trialDir(sweep, trial)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(t, fmt.Sprintf("run-%d", token))
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("folder for checkpoints: %w", err)
	}
	return filepath.Join(s.cfg.Root, dir), nil
}

// DropEmptyRun removes the folder of a run that wrote no checkpoint.
func (s *Store) DropEmptyRun(sweep string, trial int64, token uint64) {
	t, err := trialDir(sweep, trial)
	if err != nil {
		return
	}
	// Each fails for a folder that holds something, as it should.
	if s.root.Remove(filepath.Join(t, fmt.Sprintf("run-%d", token))) == nil && s.root.Remove(t) == nil {
		s.root.Remove(sweep)
	}
}

// Location is what the index is told of a file a run wrote below RunDir.
func (s *Store) Location(file string) (string, error) {
	rel, err := s.relative(file)
	if err != nil {
		return "", err
	}
	if s.cfg.Shared {
		return string(trial.SharedAt(rel)), nil
	}
	return string(trial.ServedAt(s.base, rel)), nil
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
func (s *Store) local(location string) string {
	of := trial.Location(location).Served
	if s.cfg.Shared {
		of = trial.Location(location).Shared
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
func (s *Store) Fetch(ctx context.Context, c *atelierv1.Checkpoint) (string, error) {
	want, err := hex.DecodeString(c.Sha256)
	if err != nil || len(want) != sha256.Size {
		return "", fmt.Errorf("checkpoint of epoch %d: the index holds no SHA-256 for it", c.Epoch)
	}
	if c.Size < 0 || c.Size > s.maxSize {
		return "", fmt.Errorf("checkpoint of epoch %d: %d bytes is more than the limit of %d", c.Epoch, c.Size, s.maxSize)
	}
	if rel := s.local(c.Location); rel != "" {
		file := filepath.Join(s.cfg.Root, rel)
		f, err := s.root.Open(rel)
		if err == nil {
			err = verify(f, c)
			f.Close()
			if err == nil {
				return file, nil
			}
		}
		if s.gone(c, rel, err) {
			return "", fmt.Errorf("checkpoint of epoch %d: %s: %w", c.Epoch, file, ErrGone)
		}
		if s.cfg.Shared || strings.HasPrefix(c.Location, s.base+"/") {
			return "", fmt.Errorf("checkpoint of epoch %d: %s: %w", c.Epoch, file, err)
		}
	}
	if !trial.Location(c.Location).Fetchable() {
		return "", fmt.Errorf("checkpoint of epoch %d is at %s, which this worker cannot reach; give it the same --shared folder as the others", c.Epoch, c.Location)
	}
	return s.download(ctx, c)
}

// gone reports whether an error to open a file here means that nobody has it: it
// is this worker's own, or lies in the shared folder. Of that the trial's folder
// must be there, lest one that is not mounted be taken for an empty one.
func (s *Store) gone(c *atelierv1.Checkpoint, rel string, err error) bool {
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
func (s *Store) Gone(c *atelierv1.Checkpoint) bool {
	rel := s.local(c.Location)
	if rel == "" || c.Worker != s.cfg.Worker {
		return false
	}
	_, err := s.root.Stat(rel)
	return s.gone(c, rel, err)
}

func verify(r io.Reader, c *atelierv1.Checkpoint) error {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return err
	}
	if n != c.Size {
		return fmt.Errorf("it has %d bytes, the index says %d", n, c.Size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, c.Sha256) {
		return fmt.Errorf("its SHA-256 is %s, the index says %s", got, c.Sha256)
	}
	return nil
}

// stall ends a download that gets no byte for this long.
const stall = 20 * time.Second

func (s *Store) download(ctx context.Context, c *atelierv1.Checkpoint) (_ string, err error) {
	final := filepath.Join(s.cfg.Cache, strings.ToLower(c.Sha256)+path.Ext(c.Location))
	if f, err := os.Open(final); err == nil {
		err = verify(f, c)
		f.Close()
		if err == nil {
			return final, nil
		}
		os.Remove(final)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("fetch checkpoint of epoch %d from %s: %w", c.Epoch, c.Location, err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Location, nil)
	if err != nil {
		return "", err
	}
	watchdog := time.AfterFunc(stall, cancel)
	defer watchdog.Stop()
	resp, err := s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if name := resp.Header.Get(workerHeader); resp.StatusCode == http.StatusNotFound && name != "" && name == c.Worker {
		return "", fmt.Errorf("worker %s has it no more: %w", name, ErrGone)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answer %s", resp.Status)
	}
	tmp, err := files.Create(final, 0o600)
	if err != nil {
		return "", err
	}
	defer tmp.Abort()
	// One byte more than the index allows shows a file that is too long.
	body := io.LimitReader(&watched{resp.Body, watchdog}, c.Size+1)
	if err := verify(io.TeeReader(body, tmp), c); err != nil {
		return "", err
	}
	return final, tmp.Commit()
}

type watched struct {
	r io.Reader
	t *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.t.Reset(stall)
	}
	return n, err
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

// Keep deletes the files of a trial below this root that are not among the
// locations, are older than age, and returns how many went. Folders that have
// been empty for a week go too.
func (s *Store) Keep(sweep string, trial int64, locations []string, age time.Duration) (int, error) {
	dir, err := trialDir(sweep, trial)
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
func (s *Store) Remove(location string) error {
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
