package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atelier/deploy/bench/harness"
)

// work is one training, as atelier train is asked for it.
type work struct {
	data          string // train/ and validation/ in it
	model         string
	epochs, batch int
	set           []string // further settings, KEY=VALUE
}

// training is an atelier train in progress.
type training struct {
	cmd   *exec.Cmd
	out   string // its folder of results
	began time.Time
	words tailBuffer // what it printed for people
	ended chan struct{}
	err   error
}

// outcome is what came of a training.
type outcome struct {
	Hash    string    `json:"sha256"` // of best_model.pth
	Epochs  []int     `json:"epochs"` // as reported
	Rates   []float64 `json:"images_per_s"`
	Seconds float64   `json:"seconds"` // from the start of the command to its end
}

// start begins a training below dir; with addresses of a cluster it trains there.
// Members is "" (as the settings have it), a number, or MIN-MAX.
func (b *bench) start(ctx context.Context, bin, dir string, w work, members string, addresses []string, more ...string) (*training, error) {
	t := &training{out: filepath.Join(dir, "results"), ended: make(chan struct{})}
	args := []string{"train", "--data", w.data, "--out", t.out, "--no-mlflow", "--seed", "1", "--model", w.model,
		"--epochs", strconv.Itoa(w.epochs), "--batch-size", strconv.Itoa(w.batch), "--set", "optimizer=sgd", "--lr", "0.01"}
	if members != "" { // "" is of a build that knows none
		w.set = append([]string{"shard_threads=1"}, w.set...)
	}
	for _, pair := range slices.Concat(w.set, memberSettings(members)) {
		args = append(args, "--set", pair)
	}
	return t, t.run(b.command(ctx, bin, dir, addresses, append(args, more...)))
}

// memberSettings are the settings of "", "N" or "MIN-MAX" members.
func memberSettings(members string) []string {
	if members == "" {
		return nil
	}
	least, most, ok := strings.Cut(members, "-")
	if !ok {
		most = least
	}
	return []string{"members.min=" + least, "members.max=" + most}
}

// resume continues a training from its last checkpoint, with other members.
func (b *bench) resume(ctx context.Context, earlier *training, members string) (*training, error) {
	t := &training{out: earlier.out, ended: make(chan struct{})}
	args := []string{"train", "--resume", t.out}
	for _, pair := range memberSettings(members) {
		args = append(args, "--set", pair)
	}
	return t, t.run(b.command(ctx, b.Bin, filepath.Dir(t.out), nil, args))
}

// command is atelier of a build, outside any configuration.
func (b *bench) command(ctx context.Context, bin, dir string, addresses, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args...)
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ATELIER_") })
	cmd.Env = append(cmd.Env, "ATELIER_TRAINER_BIN="+filepath.Join(bin, "atelier-trainer"))
	if len(addresses) > 0 {
		cmd.Env = append(cmd.Env, "ATELIER_ADDR="+strings.Join(addresses, ","))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

func (t *training) run(cmd *exec.Cmd) error {
	t.cmd, t.began = cmd, time.Now()
	cmd.Stdout, cmd.Stderr = io.Discard, &t.words
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		t.err = cmd.Wait()
		close(t.ended)
	}()
	return nil
}

// wait returns what came of the training once it has ended.
func (t *training) wait() (o outcome, err error) {
	<-t.ended
	o.Seconds = time.Since(t.began).Seconds()
	if t.err != nil {
		return o, fmt.Errorf("%s: %w\n%s", strings.Join(t.cmd.Args, " "), t.err, t.words.last())
	}
	h, err := t.history()
	if err != nil {
		return o, err
	}
	o.Epochs, o.Rates = h.Epochs, h.Rates
	if h.Status != "finished" {
		return o, fmt.Errorf("%s: the training ended %q, want finished", t.out, h.Status)
	}
	o.Hash, err = hashOf(filepath.Join(t.out, "best_model.pth"))
	return o, err
}

// history is what a training has reported so far.
type history struct {
	Epochs []int     `json:"epochs"`
	Rates  []float64 `json:"images_per_s"`
	Status string    `json:"status"`
}

func (t *training) history() (h history, err error) {
	data, err := os.ReadFile(filepath.Join(t.out, "training_history.json"))
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("training_history.json: %w", err)
	}
	return h, nil
}

// until waits for a state of the training; an end before is an error.
func (t *training) until(what string, within time.Duration, is func() bool) error {
	for end := time.Now().Add(within); !is(); {
		select {
		case <-t.ended:
			return fmt.Errorf("the training ended before: %s (%v)\n%s", what, t.err, t.words.last())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %s: %s", within, what)
		}
	}
	return nil
}

// close ends what is left of it.
func (t *training) close() {
	select {
	case <-t.ended:
	default:
		_ = t.cmd.Process.Kill()
		<-t.ended
	}
}

// train runs a training to its end.
func (b *bench) train(ctx context.Context, bin, dir string, w work, members string, addresses []string) (outcome, error) {
	t, err := b.start(ctx, bin, dir, w, members, addresses)
	if err != nil {
		return outcome{}, err
	}
	defer t.close()
	return t.wait()
}

// whole is an error unless each epoch was reported once.
func (o outcome) whole(epochs int) error {
	for i, e := range o.Epochs {
		if e != i+1 {
			return fmt.Errorf("reports %v: want 1 to %d, each once", o.Epochs, epochs)
		}
	}
	if len(o.Epochs) != epochs {
		return fmt.Errorf("%d epochs were reported, want %d", len(o.Epochs), epochs)
	}
	return nil
}

// warm is the median rate after the first epoch, whose start is in its time.
func (o outcome) warm() float64 {
	if len(o.Rates) < 2 {
		return harness.Median(o.Rates)
	}
	return harness.Median(o.Rates[1:])
}

// scratch is a new folder of one training.
func (b *bench) scratch(name string) (string, error) { return os.MkdirTemp(b.Dir, name+"-") }

// draw makes a data set of three classes: so many images to train on, a class. It
// is kept: its path is in the checkpoints, whose hashes are compared.
func (b *bench) draw(ctx context.Context, train, validation, size int) (string, error) {
	data := filepath.Join(b.data, fmt.Sprintf("drawn-%d-%d-%d", train, validation, size))
	args := []string{"data", "synth", data, "--train", strconv.Itoa(train), "--validation", strconv.Itoa(validation), "--test", "0", "--size", strconv.Itoa(size),
		"--style", "gothic", "--style", "modernist", "--style", "tudor"}
	return data, b.call(ctx, args...)
}

// call runs a command of atelier to its end.
func (b *bench) call(ctx context.Context, args ...string) error {
	if out, err := b.command(ctx, b.Bin, b.Dir, nil, args).CombinedOutput(); err != nil {
		return fmt.Errorf("atelier %s: %w\n%s", strings.Join(args, " "), err, harness.Tail(out))
	}
	return nil
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// errSkipped is of a measurement that this machine cannot take; the text is for people.
type errSkipped string

func (e errSkipped) Error() string { return string(e) }

// skipped reports whether a measurement was not taken, after writing why.
func (b *bench) skipped(err error) bool {
	var why errSkipped
	if !errors.As(err, &why) {
		return false
	}
	b.Printf("Not measured: %s.\n\n", why)
	return true
}
