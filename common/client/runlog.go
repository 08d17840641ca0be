package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"atelier/common/trial"
)

const (
	// RunLogPath is where a coordinator keeps and gives the ends of runs' logs.
	RunLogPath = "/runlogs/"
	// RunLogTime is the header that says when, in Unix milliseconds.
	RunLogTime = "Atelier-Kept"

	runLogLimit = 3 * time.Second // for one coordinator
)

// KeptLog is the end of a run's log as a coordinator keeps it.
type KeptLog struct {
	Text []byte
	At   time.Time // when the worker sent it
}

// KeepRunLog sends the end of a run's log to all coordinators that are known, and
// succeeds where one of them takes it.
func (c *Client) KeepRunLog(ctx context.Context, sweep string, number int64, run int32, text []byte) error {
	var mu sync.Mutex
	var errs []error
	addrs := c.set.all()
	c.eachRunLog(ctx, addrs, http.MethodPut, sweep, number, run, text, func(_ *http.Response, err error) {
		if err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}
	})
	if len(errs) < len(addrs) {
		return nil
	}
	return errors.Join(errs...)
}

// KeptRunLog asks all coordinators for the end of a run's log and returns the one
// that was sent last; nil where none has one.
func (c *Client) KeptRunLog(ctx context.Context, sweep string, number int64, run int32) *KeptLog {
	addrs := c.set.all()
	for _, m := range c.Survey(ctx).Members() {
		if m.APIAddress != "" && !slices.Contains(addrs, m.APIAddress) {
			addrs = append(addrs, m.APIAddress)
		}
	}
	var mu sync.Mutex
	var best *KeptLog
	c.eachRunLog(ctx, addrs, http.MethodGet, sweep, number, run, nil, func(r *http.Response, err error) {
		if err != nil {
			return
		}
		ms, err := strconv.ParseInt(r.Header.Get(RunLogTime), 10, 64)
		text, err2 := io.ReadAll(io.LimitReader(r.Body, trial.KeptLog))
		if err != nil || err2 != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if at := time.UnixMilli(ms); best == nil || at.After(best.At) {
			best = &KeptLog{text, at}
		}
	})
	return best
}

// eachRunLog makes a request of each coordinator, side by side; take has each
// answer.
func (c *Client) eachRunLog(ctx context.Context, addrs []string, method, sweep string, number int64, run int32, text []byte, take func(*http.Response, error)) {
	ctx, cancel := context.WithTimeout(ctx, runLogLimit)
	defer cancel()
	var all sync.WaitGroup
	for _, a := range addrs {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s%s%s/%d/%d", c.base(a), RunLogPath, sweep, number, run), bytes.NewReader(text))
			if err != nil {
				take(nil, err)
				return
			}
			resp, err := c.http.Do(req)
			if err != nil {
				take(nil, err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode/100 != 2 {
				err = fmt.Errorf("%s: %s", a, resp.Status)
			}
			take(resp, err)
			io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10))
		})
	}
	all.Wait()
}
