package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"

	"atelier/common/child"
	"atelier/common/files"
	"atelier/common/trainerproto"
	"atelier/deploy/bench/harness"
)

// record trains the surrogate's configurations with the real trainer, one
// after the other, and writes their curves. A file that has some of them is
// completed.
func record(h *harness.Session) {
	trainer := h.Flags.String("trainer", "bin/atelier-trainer", "the trainer program")
	data := h.Flags.String("data", "run/stop-facades", "an image folder with train and validation")
	out := h.Flags.String("out", "deploy/bench/stop/testdata/curves.json", "the file to write")
	trials := h.Flags.Int("trials", 28, "configurations")
	epochs := h.Flags.Int("epochs", 27, "epochs of each")
	h.Parts = []harness.Part{{Name: "record", Run: func(ctx context.Context) error { return complete(ctx, *trainer, *data, *out, *trials, *epochs) }}}
}

func complete(ctx context.Context, trainer, data, out string, trials, epochs int) error {
	var set recording
	if b, err := os.ReadFile(out); err == nil {
		if err := json.Unmarshal(b, &set); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
	}
	for n := len(set.Curves) + 1; n <= trials; n++ {
		at := place(n)
		c, err := trainOne(ctx, trainer, data, n, epochs, at)
		if err != nil {
			return fmt.Errorf("configuration %d: %w", n, err)
		}
		set.Curves = append(set.Curves, c)
		b, err := json.Marshal(set)
		if err != nil {
			return err
		}
		if err := files.Write(out, append(b, '\n'), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%2d of %d: %+v: %d epochs, val_acc %.3f\n", n, trials, at, len(c.Acc), c.Acc[len(c.Acc)-1])
	}
	return nil
}

// trainOne carries out one job. A run that diverges keeps the epochs it had.
func trainOne(ctx context.Context, trainer, data string, n, epochs int, at point) (curve, error) {
	dir, err := os.MkdirTemp("", "atelier-stop-")
	if err != nil {
		return curve{}, err
	}
	defer os.RemoveAll(dir)
	abs := func(p string) string { a, _ := filepath.Abs(p); return a }
	params, err := json.Marshal(at)
	if err != nil {
		return curve{}, err
	}
	training, err := json.Marshal(map[string]any{
		"epochs": epochs, "optimizer": "sgd", "image_size": 32, "augment": true,
		"data": map[string]string{"train": abs(filepath.Join(data, "train")), "validation": abs(filepath.Join(data, "validation"))},
	})
	if err != nil {
		return curve{}, err
	}
	running, err := child.StartTrainer(exec.Command(abs(trainer), "train"), child.Options{})
	if err != nil {
		return curve{}, err
	}
	defer func() { running.CloseInput(); <-running.Exited(); running.Close() }()
	defer context.AfterFunc(ctx, running.Kill)()
	job := trainerproto.Job{Protocol: trainerproto.Version, Sweep: "record", Trial: int64(n), Run: 1, Seed: uint64(n), Params: params, Training: training,
		Metric: "val_acc", Maximize: true, Device: "cpu", Threads: 1, Dir: dir, BaseDir: dir, CacheDir: abs(filepath.Join(data, "packed"))}
	if err := os.MkdirAll(job.CacheDir, 0o755); err != nil {
		return curve{}, err
	}
	if err := running.Send(job); err != nil {
		return curve{}, err
	}
	c := curve{Point: at}
	for {
		e, err := running.Event()
		if errors.Is(err, io.EOF) {
			return c, errors.New("the trainer ended without a message")
		}
		if err != nil {
			return c, err
		}
		switch e.Kind {
		case trainerproto.EventEpoch:
			acc, _ := e.Metrics.Get("val_acc")
			loss, _ := e.Metrics.Get("val_loss")
			c.Acc = append(c.Acc, math.Round(acc*1e5)/1e5)
			c.Loss = append(c.Loss, math.Round(loss*1e5)/1e5)
		case trainerproto.EventDone:
			return c, nil
		case trainerproto.EventFailed:
			if e.Class == trainerproto.FailedDiverged && len(c.Acc) > 0 {
				return c, nil
			}
			return c, fmt.Errorf("%s: %s", e.Class, e.Message)
		}
	}
}
