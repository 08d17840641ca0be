package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/files"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"

	"connectrpc.com/connect"
)

// SharedError is of a file in the workers' shared folder, where nobody said
// where that is on this machine.
type SharedError struct{ Path string } // below that folder

func (e *SharedError) Error() string {
	return fmt.Sprintf("it lies in the workers' shared folder (%s): say where that is here with --shared FOLDER", e.Path)
}

// Files reads what workers keep: checkpoints, results, logs.
type Files struct {
	Shared string // the workers' shared folder as this machine sees it; "" = none
}

// Pull writes a checkpoint to a file, which appears whole and with the size and
// SHA-256 of the index, or not at all.
func (f Files) Pull(ctx context.Context, c *atelierv1.Checkpoint, to string) error {
	want, err := hex.DecodeString(c.GetSha256())
	if err != nil || len(want) != sha256.Size {
		return fmt.Errorf("the index holds no usable SHA-256 (%q)", c.GetSha256())
	}
	from, err := f.Open(ctx, trial.Location(c.GetLocation()))
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := files.Create(to, 0o644)
	if err != nil {
		return err
	}
	defer tmp.Abort()
	h := sha256.New()
	// One byte more than promised tells a file that is too long.
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(from, c.GetSize()+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s after %d of %d bytes: %w", c.GetLocation(), n, c.GetSize(), err)
	case n > c.GetSize():
		return fmt.Errorf("%s has more than %d bytes, the index says %d: nothing was written", c.GetLocation(), c.GetSize(), c.GetSize())
	case n < c.GetSize():
		return fmt.Errorf("%s has %d bytes, the index says %d: nothing was written", c.GetLocation(), n, c.GetSize())
	}
	if sum := h.Sum(nil); string(sum) != string(want) {
		return fmt.Errorf("%s has SHA-256 %x, the index says %s: nothing was written", c.GetLocation(), sum, c.GetSha256())
	}
	return tmp.Commit()
}

// Open opens a file for reading. One that is not there is of code NotFound.
func (f Files) Open(ctx context.Context, at trial.Location) (io.ReadCloser, error) {
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(at), nil)
	if err != nil {
		return nil, err
	}
	resp, err := workers.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%s: no such file on that worker", at))
	}
	return nil, fmt.Errorf("%s: %s: %s", at, resp.Status, strings.TrimSpace(string(text)))
}

var workers = &http.Client{Transport: &http.Transport{Proxy: nil, ResponseHeaderTimeout: 15 * time.Second, DisableCompression: true}}
