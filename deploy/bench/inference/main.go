// Command inference measures inference on this machine: production mode beside
// the same work written in PyTorch one image at a time, in turn; and the web
// app's endpoint under concurrent clients, answering in batches and one by one,
// in turn. It prints Markdown tables, and on standard error how far it is. Start
// it with `make bench-inference`. One round of 500 pictures takes about five
// minutes of a quiet machine of two cores: half a minute of preparation, half a
// minute of ours, two and a half of PyTorch, one and a half of the web app;
// -journal keeps each round, so that a measurement can be cut off and go on.
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
	"math"
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
	parts, precision              string
	journal                       *journal
	began                         time.Time
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
	flag.StringVar(&o.precision, "precision", "fp32", "of our side; the peer works with fp32")
	path := flag.String("journal", "", "keep each round in this `FILE` and go on from there; to be deleted when the programs have changed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if o.journal, err = openJournal(*path); err == nil {
		err = errors.Join(run(ctx, o), o.journal.close())
	}
	if err != nil {
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
	o.dir, o.began = dir, time.Now()
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "peer.py"), peer, 0o644); err != nil {
		return err
	}
	production := setup{Part: "production", Size: o.size, Precision: o.precision, Threads: o.threads, Images: o.images}
	serve := setup{Part: "serve", Size: o.size, Precision: o.precision, Threads: o.threads, Clients: o.clients, Requests: o.requests}
	left := 0
	for _, s := range []setup{production, serve} {
		if contains(o.parts, s.Part) {
			left += o.rounds - len(o.journal.of(s, o.rounds))
		}
	}
	if left > 0 {
		if err := o.prepare(ctx); err != nil {
			return err
		}
	}
	if contains(o.parts, "production") {
		if err := o.production(ctx, production); err != nil {
			return err
		}
		o.printProduction(o.journal.of(production, o.rounds))
	}
	if contains(o.parts, "serve") {
		if err := o.served(ctx, serve); err != nil {
			return err
		}
		o.printServed(o.journal.of(serve, o.rounds))
	}
	return nil
}

func (o options) prepare(ctx context.Context) error {
	o.say("drawing pictures, training a model of one epoch")
	per := (o.images + 5) / 6
	if err := o.atelier(ctx, "data", "synth", filepath.Join(o.dir, "data"), "--train", "4", "--validation", "4", "--test", strconv.Itoa(per), "--size", strconv.Itoa(o.size+32)); err != nil {
		return err
	}
	return o.atelier(ctx, "train", "--model", "resnet18", "--data", filepath.Join(o.dir, "data"), "--epochs", "1", "--batch-size", "8", "--set", "image_size="+strconv.Itoa(o.size),
		"--no-mlflow", "--local", "--out", filepath.Join(o.dir, "model"), "-q")
}

// missing are the numbers of the rounds that the journal lacks.
func (o options) missing(s setup) (numbers []int) {
	known := map[int]bool{}
	for _, r := range o.journal.of(s, o.rounds) {
		known[r.Number] = true
	}
	for n := 1; n <= o.rounds; n++ {
		if !known[n] {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func contains(list, what string) bool {
	return slices.Contains(regexp.MustCompile(`[, ]+`).Split(list, -1), what)
}

func (o options) checkpoint() string { return filepath.Join(o.dir, "model", "best_model.pth") }

// say tells how far it is, since the start.
func (o options) say(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(o.began).Seconds(), fmt.Sprintf(format, a...))
}

func (o options) atelier(ctx context.Context, args ...string) error {
	_, err := o.timed(ctx, args...)
	return err
}

// timed runs atelier and returns what it and its children worked, in seconds of
// all cores together.
func (o options) timed(ctx context.Context, args ...string) (work float64, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "atelier"), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("atelier %s: %w: %s", args[0], err, out)
	}
	return worked(cmd), nil
}

func worked(cmd *exec.Cmd) float64 {
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
}

// quantile of sorted values: the smallest that a share q of them does not exceed.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// production takes turns: everything is timed from the start of the process to
// its end, so imports and start-up count on both sides; the peer's own figure
// without its imports is told beside it.
func (o options) production(ctx context.Context, s setup) error {
	images := filepath.Join(o.dir, "data", "test")
	for _, number := range o.missing(s) {
		o.say("production, round %d: ours, %d pictures", number, o.images)
		began := time.Now()
		work, err := o.timed(ctx, "infer", "--local", "--no-mlflow", "--mode", "production", "--checkpoint", o.checkpoint(), "--image-dir", images, "--output-dir", filepath.Join(o.dir, "ours"),
			"--limit", strconv.Itoa(o.images), "--set", "processing.threads="+strconv.Itoa(o.threads), "--set", "processing.precision="+o.precision, "-q")
		if err != nil {
			return err
		}
		r := round{setup: s, Number: number, Ours: time.Since(began).Seconds(), OursWork: work}
		o.say("production, round %d: ours took %.1f s; PyTorch", number, r.Ours)
		began = time.Now()
		cmd := exec.CommandContext(ctx, o.python, filepath.Join(o.dir, "peer.py"), o.checkpoint(), images, filepath.Join(o.dir, "theirs"), strconv.Itoa(o.threads), strconv.Itoa(o.images))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("peer.py: %w", err)
		}
		r.Theirs, r.TheirsWork = time.Since(began).Seconds(), worked(cmd)
		var said struct {
			Seconds float64
			Images  int
		}
		if err := json.Unmarshal(out, &said); err != nil {
			return fmt.Errorf("peer.py said %q: %w", out, err)
		}
		r.Bare, r.Pictures = said.Seconds, said.Images
		o.say("production, round %d: ours %.1f s, PyTorch %.1f s (%.1f s after its imports), %.2fx", number, r.Ours, r.Theirs, r.Bare, r.Theirs/r.Ours)
		if err := o.journal.add(r); err != nil {
			return err
		}
	}
	return nil
}

func (o options) printProduction(rounds []round) {
	var ours, theirs, bare, ratios, oursWork, theirsWork []float64
	for _, r := range rounds {
		ours, theirs, bare, ratios = append(ours, r.Ours), append(theirs, r.Theirs), append(bare, r.Bare), append(ratios, r.Theirs/r.Ours)
		oursWork, theirsWork = append(oursWork, r.OursWork), append(theirsWork, r.TheirsWork)
	}
	n := float64(rounds[0].Pictures)
	fmt.Printf("| production mode, resnet18, %d px, %s, %.0f pictures, %d threads | seconds | images/s | processor seconds |\n|---|---|---|---|\n", o.size, o.precision, n, o.threads)
	fmt.Printf("| ours, start to end | %.1f | %.1f | %.1f |\n| PyTorch, batch 1, start to end | %.1f | %.1f | %.1f |\n| PyTorch, after its imports | %.1f | %.1f | |\n| ratio, median of %d rounds | %.2f | | %.2f |\n\n",
		median(ours), n/median(ours), median(oursWork), median(theirs), n/median(theirs), median(theirsWork), median(bare), n/median(bare), len(rounds), median(ratios), median(theirsWork)/median(oursWork))
}

// server is `atelier serve` with a batch limit.
func (o options) server(ctx context.Context, batch int) (addr string, stop func() error, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "atelier"), "serve", "--listen", "127.0.0.1:0", "--checkpoint", o.checkpoint(), "--batch", strconv.Itoa(batch),
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

// served asks two servers in turn: one that answers in batches, one that takes
// pictures one by one.
func (o options) served(ctx context.Context, s setup) error {
	missing := o.missing(s)
	if len(missing) == 0 {
		return nil
	}
	pictures, err := filepath.Glob(filepath.Join(o.dir, "data", "test", "*", "*"))
	if err != nil || len(pictures) == 0 {
		return fmt.Errorf("no pictures: %w", err)
	}
	var bodies [][]byte
	for i := range min(32, len(pictures)) {
		b, err := os.ReadFile(pictures[i*len(pictures)/min(32, len(pictures))])
		if err != nil {
			return err
		}
		bodies = append(bodies, b)
	}
	o.say("web app: starting a server that answers in batches, and one that does not")
	var addrs []string
	for _, batch := range []int{32, 1} {
		addr, stop, err := o.server(ctx, batch)
		if err != nil {
			return err
		}
		defer stop()
		if _, err := o.load(ctx, addr, bodies, o.clients); err != nil { // the model is loaded
			return err
		}
		addrs = append(addrs, addr)
	}
	o.say("web app: both servers are up and warm")
	for _, number := range missing {
		r := round{setup: s, Number: number}
		for _, addr := range addrs {
			began := time.Now()
			took, err := o.load(ctx, addr, bodies, o.requests)
			if err != nil {
				return err
			}
			slices.Sort(took)
			r.Sides = append(r.Sides, side{Rate: float64(o.requests) / time.Since(began).Seconds(), Took: took})
		}
		o.say("web app, round %d: in batches %.1f requests/s, p50 %.0f ms, p99 %.0f ms; one by one %.1f requests/s, p50 %.0f ms, p99 %.0f ms", number,
			r.Sides[0].Rate, 1000*quantile(r.Sides[0].Took, 0.5), 1000*quantile(r.Sides[0].Took, 0.99), r.Sides[1].Rate, 1000*quantile(r.Sides[1].Took, 0.5), 1000*quantile(r.Sides[1].Took, 0.99))
		if err := o.journal.add(r); err != nil {
			return err
		}
	}
	return nil
}

func (o options) printServed(rounds []round) {
	fmt.Printf("| web app, resnet18, %d px, %s, %d clients, %d threads | requests/s | p50 ms | p99 ms |\n|---|---|---|---|\n", o.size, o.precision, o.clients, o.threads)
	for i, name := range []string{"batches of up to 32", "one by one"} {
		var rates, took []float64
		for _, r := range rounds {
			rates, took = append(rates, r.Sides[i].Rate), append(took, r.Sides[i].Took...)
		}
		slices.Sort(took)
		fmt.Printf("| %s | %.1f | %.0f | %.0f |\n", name, median(rates), 1000*quantile(took, 0.5), 1000*quantile(took, 0.99))
	}
	var ratios []float64
	for _, r := range rounds {
		ratios = append(ratios, r.Sides[0].Rate/r.Sides[1].Rate)
	}
	fmt.Printf("| ratio, median of %d rounds | %.2f | | |\n\n", len(rounds), median(ratios))
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
