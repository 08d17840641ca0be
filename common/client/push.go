package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"atelier/common/terminal"
	"atelier/common/trial"
)

// SumHeader carries the SHA-256, in hex, of a file that is sent to a worker.
const SumHeader = "Atelier-Sha256"

// pushing, of an open cluster, has no limit for a whole file, one for an answer once it was sent.
var pushing = &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 2 * time.Minute, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// PushFile sends a file of these bytes to the worker at an address, host:port, which keeps
// it for the run of a trial whose lease the caller has. It returns where it lies then and
// the worker's name. The same file may be sent again.
func (c *Client) PushFile(ctx context.Context, address string, l trial.LeaseRef, name string, sum Sum, r io.Reader) (at trial.Location, worker string, err error) {
	u := &url.URL{Scheme: "http", Host: address, Path: fmt.Sprintf("%s%s/%d/run-%d/%s", trial.FilesPath, l.Sweep, l.Trial, l.Token, name)}
	where, send := u.String(), pushing
	if c.opts.tls != nil {
		where, send = c.through(u), c.http
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, where, io.LimitReader(r, sum.Size))
	if err != nil {
		return "", "", err
	}
	req.ContentLength = sum.Size
	req.Header.Set(SumHeader, sum.SHA256)
	resp, err := send.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	text := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", "", err
	case resp.StatusCode == http.StatusMethodNotAllowed:
		return "", "", fmt.Errorf("the worker at %s takes no files: its version is older", address)
	case resp.StatusCode != http.StatusCreated:
		return "", "", fmt.Errorf("the worker at %s refused the file: %s", address, terminal.Line(text))
	}
	return trial.Location(text), resp.Header.Get(WorkerHeader), nil
}
