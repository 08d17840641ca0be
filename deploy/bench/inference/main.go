// Command inference measures inference on this machine: production mode beside
// the same work written in PyTorch one image at a time, in turn; and the web
// app's endpoint under concurrent clients, answering in batches and one by one,
// in turn. It prints Markdown tables, and on standard error how far it is. Start
// it with `make bench-inference`. One round of 500 images takes about five
// minutes of a quiet machine of two cores: half a minute of preparation, half a
// minute of ours, two and a half of PyTorch, one and a half of the web app;
// -journal keeps each turn, so that a measurement can be cut off and go on.
package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"atelier/common/secret"
	"atelier/common/webguard"
	"atelier/deploy/bench/harness"

	"net/http"
)

//go:embed peer.py
var peer embed.FS

type options struct {
	*harness.Session
	images, size, threads int
	clients, requests     int
	precision             string
	ready                 bool // images are drawn and a model is trained
}

func main() {
	harness.Main("inference", os.Args[1:], func(s *harness.Session) {
		o := &options{Session: s}
		s.BinFlag()
		s.PythonFlag("torch, torchvision, Pillow")
		s.RoundsFlag(3, "times each side takes its turn")
		s.JournalFlags("")
		s.Flags.IntVar(&o.images, "images", 500, "images of production mode")
		s.Flags.IntVar(&o.size, "size", 224, "image size of the model")
		s.Flags.IntVar(&o.threads, "threads", 2, "CPU threads of both sides")
		s.Flags.IntVar(&o.clients, "clients", 32, "at once, of the web app")
		s.Flags.IntVar(&o.requests, "requests", 320, "in a round of the web app")
		s.Flags.StringVar(&o.precision, "precision", "fp32", "of our side; the peer works with fp32")
		s.Scripts = peer
		s.Measured = func() (files []string) {
			for _, name := range []string{"atelier", "atelier-trainer", "libcgotorch.so"} {
				files = append(files, filepath.Join(s.Bin, name))
			}
			return files
		}
		s.Parts = []harness.Part{
			{Name: "production", What: "a folder of images, ours and PyTorch one image at a time, in turn", Run: o.production, Table: o.productionTable},
			{Name: "serve", What: "the web app under load, in batches and one by one, in turn", Run: o.served, Table: o.servedTable},
		}
	})
}

// key names a turn of a side; rounds count from 0.
func (o *options) key(part string, side, round int) string {
	key := fmt.Sprintf("%s size=%d precision=%s threads=%d", part, o.size, o.precision, o.threads)
	if part == "production" {
		key += fmt.Sprintf(" images=%d", o.images)
	} else {
		key += fmt.Sprintf(" clients=%d requests=%d", o.clients, o.requests)
	}
	return fmt.Sprintf("%s side=%d round=%d", key, side, round+1)
}

// turns are those of a side that the journal holds.
func turns[T any](o *options, part string, side int) (all []T) {
	for round := range o.Rounds {
		var one T
		if o.Journal.Newest(o.key(part, side, round), &one) {
			all = append(all, one)
		}
	}
	return all
}

// prepare makes what is measured with, once and only where something is.
func (o *options) prepare(ctx context.Context) error {
	if o.ready {
		return nil
	}
	o.Say("drawing images, training a model of one epoch")
	per := (o.images + 5) / 6
	if _, err := o.atelier(ctx, "data", "synth", filepath.Join(o.Dir, "data"), "--train", "4", "--validation", "4", "--test", strconv.Itoa(per), "--size", strconv.Itoa(o.size+32)); err != nil {
		return err
	}
	_, err := o.atelier(ctx, "train", "--model", "resnet18", "--data", filepath.Join(o.Dir, "data"), "--epochs", "1", "--batch-size", "8", "--set", "image_size="+strconv.Itoa(o.size),
		"--no-mlflow", "--local", "--out", filepath.Join(o.Dir, "model"), "-q")
	o.ready = err == nil
	return err
}

func (o *options) checkpoint() string { return filepath.Join(o.Dir, "model", "best_model.pth") }

func (o *options) atelier(ctx context.Context, args ...string) (harness.Used, error) {
	_, u, err := harness.Use(exec.CommandContext(ctx, filepath.Join(o.Bin, "atelier"), args...))
	return u, err
}

// turn is a side's of production mode, from the start of the process to its end.
type turn struct {
	harness.Used
	Bare   float64 `json:"bare,omitempty"` // seconds of the peer after its imports
	Images int     `json:"pictures,omitempty"`
}

// production takes turns: everything is timed from the start of the process to
// its end, so imports and start-up count on both sides; the peer's own figure
// without its imports is told beside it.
func (o *options) production(ctx context.Context) error {
	images := filepath.Join(o.Dir, "data", "test")
	return harness.Turns(o.Rounds, 2, func(round, side int) error {
		_, err := harness.Measure(o.Session, o.key("production", side, round), func() (t turn, err error) {
			if err := o.prepare(ctx); err != nil {
				return t, err
			}
			if side == 0 {
				t.Used, err = o.atelier(ctx, "infer", "--local", "--no-mlflow", "--mode", "production", "--checkpoint", o.checkpoint(), "--image-dir", images, "--output-dir", filepath.Join(o.Dir, "ours"),
					"--limit", strconv.Itoa(o.images), "--set", "processing.threads="+strconv.Itoa(o.threads), "--set", "processing.precision="+o.precision, "-q")
				return t, err
			}
			var out []byte
			if out, t.Used, err = harness.Use(exec.CommandContext(ctx, o.Python, filepath.Join(o.Dir, "peer.py"), o.checkpoint(), images, filepath.Join(o.Dir, "theirs"),
				strconv.Itoa(o.threads), strconv.Itoa(o.images))); err != nil {
				return t, err
			}
			var said struct {
				Seconds float64
				Images  int
			}
			if err := json.Unmarshal(out, &said); err != nil {
				return t, fmt.Errorf("peer.py said %q: %w", out, err)
			}
			t.Bare, t.Images = said.Seconds, said.Images
			return t, nil
		})
		return err
	})
}

func (o *options) productionTable() string {
	ours, theirs := turns[turn](o, "production", 0), turns[turn](o, "production", 1)
	if len(ours) == 0 || len(theirs) == 0 {
		return ""
	}
	wall, work := func(t turn) float64 { return t.Wall }, func(t turn) float64 { return t.CPU }
	n := float64(theirs[0].Images)
	table := harness.NewTable(fmt.Sprintf("production mode, resnet18, %d px, %s, %.0f images, %d threads", o.size, o.precision, n, o.threads), "seconds", "images/s", "processor seconds")
	row := func(name string, seconds, processor float64) {
		table.Row("%s | %.1f | %.1f | %.1f", name, seconds, n/seconds, processor)
	}
	row("ours, start to end", harness.MedianOf(ours, wall), harness.MedianOf(ours, work))
	row("PyTorch, batch 1, start to end", harness.MedianOf(theirs, wall), harness.MedianOf(theirs, work))
	bare := harness.MedianOf(theirs, func(t turn) float64 { return t.Bare })
	table.Row("PyTorch, after its imports | %.1f | %.1f | ", bare, n/bare)
	table.Row("ratio, median of %d rounds | %.2f |  | %.2f", len(ours), harness.Ratio(harness.Of(theirs, wall), harness.Of(ours, wall)), harness.MedianOf(theirs, work)/harness.MedianOf(ours, work))
	return table.String() + "\n"
}

// server is `atelier serve` with a batch limit.
func (o *options) server(ctx context.Context, batch int) (addr string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.Bin, "atelier"), "serve", "--listen", "127.0.0.1:0", "--token-file", o.tokenFile(), "--checkpoint", o.checkpoint(), "--batch", strconv.Itoa(batch),
		"--threads", strconv.Itoa(o.threads), "--precision", o.precision, "--concurrency", strconv.Itoa(4*o.clients), "--request-timeout", "5m")
	r, w := io.Pipe()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	found := make(chan string, 1)
	go func() {
		var said []byte
		b := make([]byte, 1024)
		for {
			n, err := r.Read(b)
			said = append(said, b[:n]...)
			if m := regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`).FindSubmatch(said); m != nil {
				found <- string(m[1])
				io.Copy(io.Discard, r)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case addr = <-found:
	case <-time.After(2 * time.Minute):
		cmd.Process.Kill()
		return "", nil, errors.New("atelier serve does not come up")
	}
	return addr, func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		w.Close()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 130 {
			err = nil
		}
		return err
	}, nil
}

// tokenFile has the token of the servers, which the first one makes.
func (o *options) tokenFile() string { return filepath.Join(o.Dir, "serve.token") }

// burst is a server's turn under load.
type burst struct {
	Rate float64   `json:"rate"` // requests a second
	Took []float64 `json:"took"` // seconds of each request
}

// batches are the limits of the two servers: one answers in batches, the other
// takes images one by one.
var batches = []int{32, 1}

// served asks the two servers in turn. They come up with the first turn that
// the journal lacks.
func (o *options) served(ctx context.Context) error {
	var bodies [][]byte
	var addrs []string
	var stops []func() error
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	up := func() error {
		if addrs != nil {
			return nil
		}
		if err := o.prepare(ctx); err != nil {
			return err
		}
		paths, err := filepath.Glob(filepath.Join(o.Dir, "data", "test", "*", "*"))
		if err != nil || len(paths) == 0 {
			return fmt.Errorf("no images: %w", err)
		}
		for i := range min(32, len(paths)) {
			b, err := os.ReadFile(paths[i*len(paths)/min(32, len(paths))])
			if err != nil {
				return err
			}
			bodies = append(bodies, b)
		}
		for _, batch := range batches {
			addr, stop, err := o.server(ctx, batch)
			if err != nil {
				return err
			}
			stops = append(stops, stop)
			if _, err := o.load(ctx, addr, bodies, o.clients); err != nil { // the model is loaded
				return err
			}
			addrs = append(addrs, addr)
		}
		return nil
	}
	return harness.Turns(o.Rounds, len(batches), func(round, side int) error {
		_, err := harness.Measure(o.Session, o.key("serve", side, round), func() (burst, error) {
			if err := up(); err != nil {
				return burst{}, err
			}
			began := time.Now()
			took, err := o.load(ctx, addrs[side], bodies, o.requests)
			return burst{Rate: float64(o.requests) / time.Since(began).Seconds(), Took: took}, err
		})
		return err
	})
}

func (o *options) servedTable() string {
	table := harness.NewTable(fmt.Sprintf("web app, resnet18, %d px, %s, %d clients, %d threads", o.size, o.precision, o.clients, o.threads), "requests/s", "p50 ms", "p99 ms")
	var rates [][]float64
	for side, name := range []string{"batches of up to 32", "one by one"} {
		all := turns[burst](o, "serve", side)
		if len(all) == 0 {
			return ""
		}
		var took []float64
		for _, b := range all {
			took = append(took, b.Took...)
		}
		rates = append(rates, harness.Of(all, func(b burst) float64 { return b.Rate }))
		table.Row("%s | %.1f | %.0f | %.0f", name, harness.Median(rates[side]), 1000*harness.Quantile(took, 0.5), 1000*harness.Quantile(took, 0.99))
	}
	table.Row("ratio, median of %d rounds | %.2f |  | ", len(rates[0]), harness.Ratio(rates[0], rates[1]))
	return table.String() + "\n"
}

// load sends requests from all clients and returns how long each took.
func (o *options) load(ctx context.Context, addr string, bodies [][]byte, requests int) ([]float64, error) {
	jobs := make(chan int, requests)
	for i := range requests {
		jobs <- i
	}
	close(jobs)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.clients}}
	token, err := webguard.ReadToken(o.tokenFile())
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var took []float64
	var failed error
	var wg sync.WaitGroup
	for range o.clients {
		wg.Go(func() {
			for i := range jobs {
				began := time.Now()
				err := one(ctx, client, addr, token, bodies[i%len(bodies)])
				mu.Lock()
				took = append(took, time.Since(began).Seconds())
				if err != nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return took, failed
}

func one(ctx context.Context, client *http.Client, addr string, token secret.Text, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/api/predict?top_k=3", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", resp.StatusCode, b)
	}
	return err
}
