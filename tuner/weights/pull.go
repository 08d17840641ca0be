package weights

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/files"
)

var (
	// ErrWrongHash is wrapped when a file is whole but not the one that its name promises.
	ErrWrongHash = errors.New("wrong hash")
	// ErrNotFound is wrapped when the server does not have the file.
	ErrNotFound = errors.New("not on the server")
)

// Unreachable is an error of a server that gave no answer.
type Unreachable struct{ error }

// Unwrap is what the connection failed by.
func (u Unreachable) Unwrap() error { return u.error }

// Puller downloads published files into a folder.
type Puller struct {
	// Server is the URL of the folder that has the files; empty is torchvision's.
	Server string
	// Folder is the cache. It is made where it is missing.
	Folder string
	// Client sends the requests; nil is one with time-outs for connecting and for the answer's head.
	Client *http.Client
	// Stall is how long nothing may arrive before the connection is given up; 0 is 30 s.
	Stall time.Duration
	// Pause is how long to wait before the second try, twice that before the third; 0 is 1 s.
	Pause time.Duration
	// Limit in bytes, where it is to be less than the file's own.
	Limit int64
	// Progress is told how many bytes there are, of how many (0 = unknown). May be nil.
	Progress func(done, total int64)
}

// tries is how often in a row a download may stop without a byte gained.
const tries = 3

// DefaultFolder is the cache: $ATELIER_CACHE/weights, else the user's cache folder's atelier/weights.
func DefaultFolder() (string, error) {
	if dir := os.Getenv("ATELIER_CACHE"); dir != "" {
		return filepath.Join(dir, "weights"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w (set ATELIER_CACHE)", err)
	}
	return filepath.Join(dir, "atelier", "weights"), nil
}

// ParseServer checks the URL of a server.
func ParseServer(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want the http(s) address of a folder, such as %s", text, Server)
	}
	return u, nil
}

// Pulled is a file in the cache whose hash is right.
type Pulled struct {
	Path   string
	Bytes  int64
	SHA256 string // in hex
	Cached bool   // nothing was downloaded
}

// Pull returns the file from the cache, or downloads it there. What an interrupted download has got stays in the
// folder as FILE.part and is resumed the next time. A file that is whole and has another hash is removed.
func (p Puller) Pull(ctx context.Context, f Published) (Pulled, error) {
	got, err := p.pull(ctx, f)
	if err != nil {
		return Pulled{}, fmt.Errorf("pull %s: %w", f.File, err)
	}
	return got, nil
}

// pull takes the file of the cache if its hash is right, else downloads into FILE.part, goes on
// where an earlier download broke off, and puts it under its name only when its hash is what the
// name promises. The part is locked: two processes never write one.
func (p Puller) pull(ctx context.Context, f Published) (Pulled, error) {
	digits, err := f.digits()
	if err != nil {
		return Pulled{}, err
	}
	d := &download{Puller: p, limit: f.Limit()}
	if p.Limit > 0 {
		d.limit = min(d.limit, p.Limit)
	}
	if d.Server == "" {
		d.Server = Server
	}
	if d.url, err = ParseServer(d.Server); err != nil {
		return Pulled{}, err
	}
	d.url = d.url.JoinPath(f.File)
	if d.Client == nil {
		d.Client = patient
	}
	if d.Stall == 0 {
		d.Stall = 30 * time.Second
	}
	if d.Pause == 0 {
		d.Pause = time.Second
	}
	if err := os.MkdirAll(p.Folder, 0o755); err != nil {
		return Pulled{}, err
	}
	final := filepath.Join(p.Folder, f.File)
	if sum, n, err := hashOf(final); err == nil && strings.HasPrefix(sum, digits) {
		return Pulled{final, n, sum, true}, nil
	}

	part, err := os.OpenFile(final+".part", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return Pulled{}, err
	}
	defer part.Close()
	// The lock goes with the process, however it ends.
	if err := files.TryLock(part); err != nil {
		return Pulled{}, fmt.Errorf("another process is downloading it into %s: wait for it", p.Folder)
	}
	if same, err := files.Named(part); err != nil {
		return Pulled{}, err
	} else if !same {
		return Pulled{}, errors.New("another process finished it just now: pull again")
	}
	d.part = part
	kept, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return Pulled{}, err
	}
	sum, n, err := d.whole(ctx)
	if err == nil && !strings.HasPrefix(sum, digits) && kept > 0 {
		// What was kept may have been of another file: once more, from the beginning.
		if err = part.Truncate(0); err == nil {
			sum, n, err = d.whole(ctx)
		}
	}
	if err != nil {
		return Pulled{}, err
	}
	if !strings.HasPrefix(sum, digits) {
		os.Remove(part.Name())
		return Pulled{}, fmt.Errorf("%w: what %s sent (%d bytes) has SHA-256 %s, the name promises %s...: nothing was kept", ErrWrongHash, d.url.Redacted(), n, sum, digits)
	}
	if err := part.Sync(); err != nil {
		return Pulled{}, err
	}
	if err := files.Rename(part.Name(), final); err != nil {
		return Pulled{}, err
	}
	return Pulled{final, n, sum, false}, nil
}

// hashOf is a file's SHA-256 in hex, and its size in bytes.
func hashOf(path string) (sum string, n int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

var patient = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
	TLSHandshakeTimeout:   15 * time.Second,
	ResponseHeaderTimeout: 30 * time.Second,
	DisableCompression:    true, // a range counts bytes as they lie on the server
	ForceAttemptHTTP2:     true,
}}
