package weights

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// download is one file on its way into part.
type download struct {
	Puller
	url   *url.URL
	part  *os.File
	limit int64
}

// permanent is an error that another try would only repeat.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// whole asks for what is missing until nothing is, and returns the whole file's hash. It gives up after some
// tries in a row that brought nothing.
func (d *download) whole(ctx context.Context) (sum string, n int64, err error) {
	for failed := 0; ; {
		before, err := d.part.Seek(0, io.SeekEnd)
		if err != nil {
			return "", 0, err
		}
		err = d.more(ctx, before)
		if err == nil {
			break
		}
		after, seekErr := d.part.Seek(0, io.SeekEnd)
		if seekErr != nil {
			return "", 0, seekErr
		}
		failed++
		if after > before {
			failed = 1
		}
		var p permanent
		if ctx.Err() != nil || errors.As(err, &p) || failed == tries {
			if after > 0 {
				err = fmt.Errorf("%w; %d bytes are kept: the same command continues from there", err, after)
			}
			return "", 0, err
		}
		select {
		case <-time.After(d.Pause << (failed - 1)):
		case <-ctx.Done():
		}
	}
	return hashOf(d.part.Name())
}

// more sends one request for the bytes from have on and appends what comes. nil means that the file is whole.
func (d *download) more(parent context.Context, have int64) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stall := time.AfterFunc(d.Stall, func() { cancel(fmt.Errorf("nothing came for %s", d.Stall)) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url.String(), nil)
	if err != nil {
		return permanent{err}
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := d.Client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which may hold a password
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return Unreachable{fmt.Errorf("%s: %w", d.url.Redacted(), err)}
	}
	defer resp.Body.Close()

	total := int64(0) // of the whole file; 0 = unknown
	switch resp.StatusCode {
	case http.StatusOK: // from the beginning, whatever was asked
		if have, total = 0, max(resp.ContentLength, 0); d.part.Truncate(0) != nil {
			return permanent{fmt.Errorf("cannot empty %s", d.part.Name())}
		}
	case http.StatusPartialContent:
		first, all, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil || first != have {
			d.part.Truncate(0)
			return fmt.Errorf("%s answered with other bytes than those asked for (Content-Range %q)", d.url.Redacted(), resp.Header.Get("Content-Range"))
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		if _, all, err := contentRange(resp.Header.Get("Content-Range")); err == nil && all == have {
			return nil // all of it was there
		}
		d.part.Truncate(0)
		return fmt.Errorf("%s: %s", d.url.Redacted(), resp.Status)
	case http.StatusNotFound, http.StatusGone:
		return permanent{fmt.Errorf("%w: %s: %s", ErrNotFound, d.url.Redacted(), resp.Status)}
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		err := fmt.Errorf("%s: %s: %.200q", d.url.Redacted(), resp.Status, strings.TrimSpace(string(text)))
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
			return err
		}
		return permanent{err}
	}
	if total > d.limit {
		return d.tooLarge(total)
	}
	if _, err := d.part.Seek(have, io.SeekStart); err != nil {
		return permanent{err}
	}
	at := have
	buf := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			stall.Reset(d.Stall)
			if at+int64(n) > d.limit {
				return d.tooLarge(at + int64(n))
			}
			if _, err := d.part.Write(buf[:n]); err != nil {
				return permanent{err}
			}
			at += int64(n)
			if d.Progress != nil {
				d.Progress(at, total)
			}
		}
		switch {
		case err == io.EOF && total > 0 && at != total:
			return fmt.Errorf("%s broke off after %d of %d bytes", d.url.Redacted(), at, total)
		case err == io.EOF:
			return nil
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("%s broke off after %d bytes: %w", d.url.Redacted(), at, err)
		}
	}
}

// tooLarge gives the file up, with what there is of it.
func (d *download) tooLarge(n int64) error {
	d.part.Truncate(0)
	return permanent{fmt.Errorf("%s has %d bytes or more, the file asked for cannot have more than %d: is it the right server?", d.url.Redacted(), n, d.limit)}
}

// contentRange reads "bytes FIRST-LAST/TOTAL" and "bytes */TOTAL" (first is then -1). A total of "*" is 0.
func contentRange(text string) (first, total int64, err error) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	span, all, cut := strings.Cut(rest, "/")
	if !ok || !cut {
		return 0, 0, fmt.Errorf("Content-Range %q", text)
	}
	if all != "*" {
		if total, err = strconv.ParseInt(all, 10, 64); err != nil || total < 0 {
			return 0, 0, fmt.Errorf("Content-Range %q", text)
		}
	}
	if span == "*" {
		return -1, total, nil
	}
	from, _, _ := strings.Cut(span, "-")
	if first, err = strconv.ParseInt(from, 10, 64); err != nil || first < 0 {
		return 0, 0, fmt.Errorf("Content-Range %q", text)
	}
	return first, total, nil
}
