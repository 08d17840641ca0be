// Command inference measures inference on this machine: production mode beside
// the same work written in PyTorch one image at a time, in turn; and the web
// app's endpoint under concurrent clients, answering in batches and one by one,
// in turn. It prints Markdown tables. Start it with `make bench-inference`.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

//go:embed peer.py
var peer []byte

type options struct {
	dir, bin, python              string
	images, rounds, size, threads int
	clients, requests             int
	parts                         string
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder of the programs")
	flag.StringVar(&o.python, "python", "/usr/bin/python3", "with torch, torchvision, Pillow")
	flag.IntVar(&o.images, "images", 500, "pictures of production mode")
	flag.IntVar(&o.rounds, "rounds", 3, "times each side takes its turn")
	flag.IntVar(&o.size, "size", 224, "image size of the model")
	flag.IntVar(&o.threads, "threads", 2, "CPU threads of both sides")
	flag.IntVar(&o.clients, "clients", 32, "at once, of the web app")
	flag.IntVar(&o.requests, "requests", 320, "in a round of the web app")
	flag.StringVar(&o.parts, "parts", "production,serve", "what to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench inference:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "atelier-bench-inference-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "peer.py"), peer, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "drawing pictures, training a model of one epoch")
	per := (o.images + 5) / 6
	if err := o.atelier(ctx, "data", "synth", filepath.Join(dir, "data"), "--train", "4", "--validation", "4", "--test", strconv.Itoa(per), "--size", strconv.Itoa(o.size+32)); err != nil {
		return err
	}
	if err := o.atelier(ctx, "train", "--model", "resnet18", "--data", filepath.Join(dir, "data"), "--epochs", "1", "--batch-size", "8", "--set", "image_size="+strconv.Itoa(o.size),
		"--no-mlflow", "--out", filepath.Join(dir, "model"), "-q"); err != nil {
		return err
	}
	if contains(o.parts, "production") {
		if err := o.production(ctx); err != nil {
			return err
		}
	}
	if contains(o.parts, "serve") {
		return o.served(ctx)
	}
	return nil
}

func contains(list, what string) bool {
	return slices.Contains(regexp.MustCompile(`[, ]+`).Split(list, -1), what)
}

func (o options) checkpoint() string { return filepath.Join(o.dir, "model", "best_model.pth") }

func (o options) atelier(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "atelier"), args...)
	cmd.Stderr = os.Stderr
	if out, err := cmd.Output(); err != nil {
		return fmt.Errorf("atelier %s: %w: %s", args[0], err, out)
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// production takes turns: everything is timed from the start of the process to
// its end, so imports and start-up count on both sides; the peer's own figure
// without its imports is told beside it.
func (o options) production(ctx context.Context) error {
	images := filepath.Join(o.dir, "data", "test")
	var ours, theirs, bare, ratios []float64
	n := 0
	for round := range o.rounds {
		began := time.Now()
		if err := o.atelier(ctx, "infer", "--mode", "production", "--checkpoint", o.checkpoint(), "--image-dir", images, "--output-dir", filepath.Join(o.dir, "ours"),
			"--set", "processing.threads="+strconv.Itoa(o.threads), "-q"); err != nil {
			return err
		}
		a := time.Since(began).Seconds()
		began = time.Now()
		cmd := exec.CommandContext(ctx, o.python, filepath.Join(o.dir, "peer.py"), o.checkpoint(), images, filepath.Join(o.dir, "theirs"), strconv.Itoa(o.threads))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("peer.py: %w", err)
		}
		b := time.Since(began).Seconds()
		var said struct {
			Seconds float64
			Images  int
		}
		if err := json.Unmarshal(out, &said); err != nil {
			return fmt.Errorf("peer.py said %q: %w", out, err)
		}
		n = said.Images
		ours, theirs, bare, ratios = append(ours, a), append(theirs, b), append(bare, said.Seconds), append(ratios, b/a)
		fmt.Fprintf(os.Stderr, "round %d: ours %.1f s, PyTorch %.1f s (%.1f s after its imports), %.2fx\n", round+1, a, b, said.Seconds, b/a)
	}
	fmt.Printf("| production mode, resnet18, %d px, %d pictures, %d threads | seconds | images/s |\n|---|---|---|\n| ours, start to end | %.1f | %.1f |\n| PyTorch, batch 1, start to end | %.1f | %.1f |\n| PyTorch, after its imports | %.1f | %.1f |\n| ratio, median of %d rounds | %.2f | |\n\n",
		o.size, n, o.threads, median(ours), float64(n)/median(ours), median(theirs), float64(n)/median(theirs), median(bare), float64(n)/median(bare), o.rounds, median(ratios))
	return nil
}

// server is `atelier serve` with a batch limit.
func (o options) server(ctx context.Context, batch int) (addr string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "atelier"), "serve", "--listen", "127.0.0.1:0", "--checkpoint", o.checkpoint(), "--batch", strconv.Itoa(batch),
		"--threads", strconv.Itoa(o.threads), "--concurrency", strconv.Itoa(4*o.clients), "--request-timeout", "5m")
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

// served asks two servers in turn: one that answers in batches, one that takes
// pictures one by one.
func (o options) served(ctx context.Context) error {
	pictures, err := filepath.Glob(filepath.Join(o.dir, "data", "test", "*", "*"))
	if err != nil || len(pictures) == 0 {
		return fmt.Errorf("no pictures: %w", err)
	}
	var bodies [][]byte
	for _, p := range pictures[:min(32, len(pictures))] {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		bodies = append(bodies, b)
	}
	sides := []struct {
		name  string
		batch int
		addr  string
		rates []float64
		took  []float64
	}{{name: "batches of up to 32", batch: 32}, {name: "one by one", batch: 1}}
	for i := range sides {
		addr, stop, err := o.server(ctx, sides[i].batch)
		if err != nil {
			return err
		}
		defer stop()
		sides[i].addr = addr
		if _, err := o.load(ctx, addr, bodies, o.clients); err != nil { // the model is loaded
			return err
		}
	}
	var ratios []float64
	for round := range o.rounds {
		for i := range sides {
			began := time.Now()
			took, err := o.load(ctx, sides[i].addr, bodies, o.requests)
			if err != nil {
				return err
			}
			sides[i].rates = append(sides[i].rates, float64(o.requests)/time.Since(began).Seconds())
			sides[i].took = append(sides[i].took, took...)
		}
		ratios = append(ratios, sides[0].rates[round]/sides[1].rates[round])
	}
	fmt.Printf("| web app, resnet18, %d px, %d clients, %d threads | requests/s | p50 ms | p99 ms |\n|---|---|---|---|\n", o.size, o.clients, o.threads)
	for _, s := range sides {
		slices.Sort(s.took)
		fmt.Printf("| %s | %.1f | %.0f | %.0f |\n", s.name, median(s.rates), 1000*s.took[len(s.took)/2], 1000*s.took[len(s.took)*99/100])
	}
	fmt.Printf("| ratio, median of %d rounds | %.2f | | |\n\n", o.rounds, median(ratios))
	return nil
}

// load sends requests from all clients and returns how long each took.
func (o options) load(ctx context.Context, addr string, bodies [][]byte, requests int) ([]float64, error) {
	jobs := make(chan int, requests)
	for i := range requests {
		jobs <- i
	}
	close(jobs)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.clients}}
	var mu sync.Mutex
	var took []float64
	var failed error
	var wg sync.WaitGroup
	for range o.clients {
		wg.Go(func() {
			for i := range jobs {
				began := time.Now()
				err := one(ctx, client, addr, bodies[i%len(bodies)])
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

func one(ctx context.Context, client *http.Client, addr string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/api/predict?top_k=3", bytes.NewReader(body))
	if err != nil {
		return err
	}
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
