package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
)

// spareBytes stay free on the disk when a file is taken.
const spareBytes = 1 << 30

// pushed is the path of a file that may be sent here: of a run's own folder.
var pushed = regexp.MustCompile(`^([a-z0-9][a-z0-9-]{0,63})/([1-9][0-9]{0,17})/run-([1-9][0-9]{0,18})/([A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(?:pth|pt|safetensors))$`)

// Receiver takes files by PUT for the run of a trial, as a person pushes a model. may
// reports why a run may not send one; nothing is read before it agreed. A file appears
// whole, with the bytes that the request announced, or not at all; one that is there is
// never replaced. What the index does not name afterwards goes with the leftovers.
func (s *Store) Receiver(may func(context.Context, trial.LeaseRef) error, limit int) http.Handler {
	places := make(chan struct{}, limit)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rel, _ := strings.CutPrefix(r.URL.Path, trial.FilesPath)
		part := pushed.FindStringSubmatch(rel)
		sum := client.Sum{Size: r.ContentLength, SHA256: r.Header.Get(client.SumHeader)}
		refuse := func(code int, format string, a ...any) { http.Error(w, fmt.Sprintf(format, a...), code) }
		if part == nil {
			refuse(http.StatusNotFound, "no file may be sent there")
			return
		}
		if _, err := sum.Bytes(); err != nil || sum.Size <= 0 || sum.Size > s.maxSize {
			refuse(http.StatusBadRequest, "the request needs the length of the file, at most %d bytes, and its SHA-256 in %s", s.maxSize, client.SumHeader)
			return
		}
		number, _ := strconv.ParseInt(part[2], 10, 64) // the pattern allows no others
		token, err := strconv.ParseUint(part[3], 10, 64)
		if err == nil {
			err = may(r.Context(), trial.LeaseRef{Sweep: part[1], Trial: number, Token: token})
		}
		if err != nil {
			refuse(http.StatusForbidden, "%v", err)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			refuse(http.StatusServiceUnavailable, "busy with other files: send it again")
			return
		}
		if free, err := s.FreeBytes(); err != nil || free-sum.Size < spareBytes {
			refuse(http.StatusInsufficientStorage, "%d bytes are free on the disk of the checkpoints: too few for a file of %d", free, sum.Size)
			return
		}
		if err := s.receive(filepath.FromSlash(rel), sum, &unhurried{r.Body, http.NewResponseController(w)}); err != nil {
			refuse(http.StatusUnprocessableEntity, "%v", err)
			return
		}
		at := trial.ServedAt(s.base, rel)
		if s.cfg.Shared {
			at = trial.SharedAt(rel)
		}
		w.Header().Set(client.WorkerHeader, s.cfg.Worker)
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, string(at)+"\n")
	})
}

// receive writes a file beside its place, and puts it there once its bytes are right.
func (s *Store) receive(rel string, sum client.Sum, body io.Reader) error {
	if f, err := s.root.Open(rel); err == nil {
		defer f.Close()
		if sum.Check(f) != nil {
			return errors.New("another file of that name is there")
		}
		return nil
	}
	dir, name := filepath.Split(rel)
	if err := s.root.MkdirAll(filepath.Clean(dir), 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".pushed-"+name)
	f, err := s.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("it is being sent already, or was cut off less than ten minutes ago")
	}
	if err != nil {
		return err
	}
	defer s.root.Remove(tmp) // fails once it has its name
	err = sum.Check(io.TeeReader(body, f))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return s.root.Rename(tmp, rel)
}

// unhurried gives each read a time limit of its own, as steady does for writes.
type unhurried struct {
	r io.Reader
	c *http.ResponseController
}

// Read implements io.Reader.
func (u *unhurried) Read(b []byte) (int, error) {
	u.c.SetReadDeadline(time.Now().Add(30 * time.Second)) // not every reader can: then there is no limit
	return u.r.Read(b)
}
