package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"atelier/common/child"
	"atelier/common/openmp"
)

// Oracle is the trainer that answers, a child process that is started anew when
// it ends.
type Oracle struct {
	trainer string
	args    []string
	dir     string // of the socket; private
	log     *slog.Logger
	client  *http.Client
	stop    context.CancelFunc
	done    chan struct{}

	mu   sync.Mutex
	last string // last line it said on standard error
}

// startLimit bounds loading libtorch.
const startLimit = 2 * time.Minute

// StartOracle starts the trainer and returns when it answers. args are further
// flags of `atelier-trainer serve`.
func StartOracle(ctx context.Context, trainer string, log *slog.Logger, args ...string) (*Oracle, error) {
	dir, err := os.MkdirTemp("", "atelier-serve-") // 0700: nobody else may ask
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	o := &Oracle{trainer: trainer, args: append([]string{"serve", "--socket", socket}, args...), dir: dir, log: log, done: make(chan struct{})}
	o.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	running, stop := context.WithCancel(context.Background())
	o.stop = stop
	first := make(chan error, 1)
	go o.keep(running, first)
	deadline := time.After(startLimit)
	for {
		if o.answers(ctx) {
			return o, nil
		}
		select {
		case err := <-first:
			o.Close()
			return nil, err
		case <-ctx.Done():
			o.Close()
			return nil, ctx.Err()
		case <-deadline:
			o.Close()
			return nil, fmt.Errorf("%s did not answer within %s", trainer, startLimit)
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// keep runs the child until Close. The first one's end is told; a later one is
// followed by another, sooner or later by how long it lived.
func (o *Oracle) keep(ctx context.Context, first chan<- error) {
	defer close(o.done)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		began := time.Now()
		err := o.run(ctx)
		if ctx.Err() != nil {
			return
		}
		o.mu.Lock()
		said := o.last
		o.mu.Unlock()
		select {
		case first <- fmt.Errorf("%s ended: %w: %s", o.trainer, err, said):
		default:
		}
		o.log.Error("the trainer ended and is restarted", "error", err, "said", said)
		if time.Since(began) > time.Minute {
			pause = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// run is one life of the child: it returns why it ended. The pipe to its standard input ends it
// when this process dies, however that happens.
func (o *Oracle) run(ctx context.Context) error {
	cmd := exec.Command(o.trainer, o.args...)
	cmd.Env = openmp.Environ()
	stdin, err := cmd.StdinPipe() // its end is the child's
	if err != nil {
		return err
	}
	cmd.Stderr = (*words)(o)
	running, err := child.Start(cmd, child.Options{})
	if err != nil {
		return err
	}
	select {
	case <-running.Exited():
		return errors.New(running.State().String())
	case <-ctx.Done():
	}
	stdin.Close()
	select {
	case <-running.Exited():
	case <-time.After(10 * time.Second):
		running.Kill()
		<-running.Exited()
	}
	return ctx.Err()
}

// words keeps the child's last line for errors and passes warnings on.
type words Oracle

// Write implements io.Writer.
func (w *words) Write(b []byte) (int, error) {
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	w.mu.Lock()
	w.last = string(lines[len(lines)-1])
	w.mu.Unlock()
	for _, l := range lines {
		if bytes.Contains(l, []byte("level=WARN")) || bytes.Contains(l, []byte("level=ERROR")) {
			w.log.Warn("trainer", "said", string(l))
		}
	}
	return len(b), nil
}

// answers reports whether the child answers within 15 s, which a model that is being loaded may
// take.
func (o *Oracle) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://trainer/model", nil)
	if err != nil {
		return false
	}
	resp, err := o.client.Do(r)
	if err != nil {
		return false
	}
	resp.Body.Close() // it names no checkpoint, so it is refused; but it answers
	return true
}

// Ready reports whether the child answers.
func (o *Oracle) Ready() error {
	if !o.answers(context.Background()) {
		return errors.New("the trainer does not answer; it is being restarted")
	}
	return nil
}

// Predict asks about one image.
func (o *Oracle) Predict(ctx context.Context, checkpoint string, top int, upload []byte) (int, []byte, error) {
	query := url.Values{"checkpoint": {checkpoint}, "top": {strconv.Itoa(top)}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://trainer/predict?"+query.Encode(), bytes.NewReader(upload))
	if err != nil {
		return 0, nil, err
	}
	resp, err := o.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		return 0, nil, fmt.Errorf("the trainer stopped: %w; it is being restarted", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return resp.StatusCode, b, err
}

// Close ends the child.
func (o *Oracle) Close() {
	o.stop()
	<-o.done
	os.RemoveAll(o.dir)
}
