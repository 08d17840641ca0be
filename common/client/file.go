package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"atelier/common/files"
	"atelier/common/identity"
	"atelier/common/trial"

	"connectrpc.com/connect"
)

// SharedError is of a file in the workers' shared folder, where nobody said
// where that is on this machine.
type SharedError struct{ Path string } // below that folder

func (e *SharedError) Error() string {
	return fmt.Sprintf("it lies in the workers' shared folder (%s): give its path on this machine with --shared FOLDER", e.Path)
}

// Files reads what workers keep: checkpoints, results, logs.
type Files struct {
	Shared string       // the workers' shared folder as this machine sees it; "" = none
	HTTP   *http.Client // how workers are asked, see FileClient; nil = without TLS

	via *Client // through whose coordinators workers are asked, in a closed cluster; nil = workers themselves
}

// WorkerFilesPath is what coordinators of a closed cluster serve the files of workers below: behind it come the worker's
// HOST:PORT and the path there.
const WorkerFilesPath = "/worker-files/"

// Files reads what the workers of this client's cluster keep: of a closed one through its coordinators, for workers
// answer members alone. shared is the workers' shared folder as this machine sees it; "" = none.
func (c *Client) Files(shared string) Files {
	f := Files{Shared: shared}
	if c != nil && c.opts.tls != nil { // nil: no cluster is asked
		f.via, f.HTTP = c, c.http
	}
	return f
}

// WorkerURL is where the file server of a worker at an address, host:port, has a path.
func (c *Client) WorkerURL(address, path string) trial.Location {
	scheme := "http"
	if c.opts.tls != nil {
		scheme = "https"
	}
	return trial.Location((&url.URL{Scheme: scheme, Host: address, Path: path}).String())
}

// through is the URL by which a coordinator is asked for a worker's file.
func (c *Client) through(u *url.URL) string {
	return c.base(c.set.first()) + WorkerFilesPath + u.Host + u.EscapedPath()
}

// Sum is what a file's bytes have to be.
type Sum struct {
	Size   int64
	SHA256 string // hex
}

// Bytes is the SHA-256.
func (s Sum) Bytes() ([]byte, error) {
	sum, err := hex.DecodeString(s.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return nil, fmt.Errorf("the index has no usable SHA-256 (%q)", s.SHA256)
	}
	return sum, nil
}

// Check reads r to its end, or to one byte beyond the size.
func (s Sum) Check(r io.Reader) error {
	want, err := s.Bytes()
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(r, s.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("after %d of %d bytes: %w", n, s.Size, err)
	case n > s.Size:
		return fmt.Errorf("it has more than %d bytes; the index has %d", s.Size, s.Size)
	case n < s.Size:
		return fmt.Errorf("it has %d bytes; the index has %d", n, s.Size)
	case !bytes.Equal(h.Sum(nil), want):
		return fmt.Errorf("its SHA-256 is %x; the index has %s", h.Sum(nil), s.SHA256)
	}
	return nil
}

// Pull writes a checkpoint to a file, as Fetch does.
func (f Files) Pull(ctx context.Context, c *trial.Checkpoint, to string) error {
	return f.Fetch(ctx, c.Location, Sum{c.Size, c.SHA256}, to, 0o644)
}

// Fetch copies a file from where it lies. The copy appears whole and with these
// bytes, or not at all.
func (f Files) Fetch(ctx context.Context, at trial.Location, sum Sum, to string, perm fs.FileMode) error {
	from, err := f.Open(ctx, at)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := files.Create(to, perm)
	if err != nil {
		return err
	}
	defer tmp.Abort()
	if err := sum.Check(io.TeeReader(from, tmp)); err != nil {
		return fmt.Errorf("%s: %w; nothing was written", at, err)
	}
	return tmp.Commit()
}

// WorkerHeader says whose file server answers. A worker's address may have become
// another's.
const WorkerHeader = "Atelier-Worker"

// MissingError is of a file that a worker does not have.
type MissingError struct {
	At     trial.Location
	Worker string // that says so; "" = not known
}

func (e *MissingError) Error() string { return string(e.At) + ": no such file on that worker" }

// Open opens a file for reading. One that is not there is of code NotFound.
func (f Files) Open(ctx context.Context, at trial.Location) (io.ReadCloser, error) {
	return f.OpenFrom(ctx, at, 0)
}

// RangeError is of a file that has nothing at the offset asked for.
type RangeError struct{ Size int64 }

func (e *RangeError) Error() string { return fmt.Sprintf("it has %d bytes", e.Size) }

// OpenFrom is Open from an offset on, for a file that a worker serves. A
// RangeError says that it has nothing there.
func (f Files) OpenFrom(ctx context.Context, at trial.Location, from int64) (io.ReadCloser, error) {
	rel, shared := at.Shared()
	switch {
	case shared && f.Shared == "":
		return nil, &SharedError{filepath.ToSlash(rel)}
	case shared:
		root, err := os.OpenRoot(f.Shared)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		file, err := root.Open(rel) // refuses to leave the folder
		if errors.Is(err, os.ErrNotExist) {
			return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%s does not exist", filepath.Join(f.Shared, rel)))
		}
		return file, err
	case !at.Fetchable():
		return nil, fmt.Errorf("cannot fetch from location %q", string(at))
	}
	w := &watched{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(stall, func() { w.cancel(errStalled) })
	ask, where := workers, string(at)
	if f.HTTP != nil {
		ask = f.HTTP
	}
	if u, err := url.Parse(where); err == nil && f.via != nil {
		where = f.via.through(u)
	}
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, where, nil)
	if err != nil {
		w.cancel(nil)
		return nil, err
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := ask.Do(req)
	w.timer.Stop()
	if err != nil {
		w.cancel(nil)
		err = identity.Explain(err)
		if err = w.why(err); err == errStalled {
			err = fmt.Errorf("%s: %w", at, err)
		}
		return nil, err
	}
	w.body = resp.Body
	if resp.StatusCode == http.StatusOK && from == 0 || resp.StatusCode == http.StatusPartialContent {
		return w, nil
	}
	defer w.Close()
	if _, size, ok := strings.Cut(resp.Header.Get("Content-Range"), "*/"); ok && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		n, _ := strconv.ParseInt(size, 10, 64)
		return nil, &RangeError{n}
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, connect.NewError(connect.CodeNotFound, &MissingError{at, resp.Header.Get(WorkerHeader)})
	}
	text, _ := io.ReadAll(io.LimitReader(w, 300))
	return nil, fmt.Errorf("%s: %s: %s", at, resp.Status, strings.TrimSpace(string(text)))
}

// FileClient asks the file servers of workers over TLS; nil is without.
func FileClient(secure *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: secure, TLSHandshakeTimeout: 5 * time.Second, DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext, ResponseHeaderTimeout: 15 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var workers = FileClient(nil)

// stall is how long a worker may send nothing while its answer is waited for; a
// variable for tests.
var stall = 20 * time.Second

var errStalled = errors.New("the worker stopped sending")

// watched is an answer that ends where the worker stalls; a reader may take its
// time.
type watched struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	body   io.ReadCloser
}

// Read implements io.Reader. The time counts while it waits for the worker, not between reads.
func (w *watched) Read(b []byte) (int, error) {
	w.timer.Reset(stall)
	n, err := w.body.Read(b)
	w.timer.Stop()
	if err != nil {
		err = w.why(err)
	}
	return n, err
}

// why is the stall where that is the cause: the reader hears of a context that was cancelled.
func (w *watched) why(err error) error {
	if context.Cause(w.ctx) == errStalled {
		return errStalled
	}
	return err
}

// Close implements io.Closer.
func (w *watched) Close() error {
	w.cancel(nil)
	return w.body.Close()
}
