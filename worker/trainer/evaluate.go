//go:build libtorch

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/train"
)

// evaluate prints, as JSON, how a stored model does on a folder of images.
func evaluate(args []string, out, logs io.Writer) error {
	fs := flag.NewFlagSet("evaluate", flag.ContinueOnError)
	var e train.Evaluation
	fs.StringVar(&e.Checkpoint, "checkpoint", "", "file of this trainer")
	fs.StringVar(&e.Folder, "data", "", "folder with one subfolder of images per class")
	fs.StringVar(&e.CacheDir, "cache", "", "folder of packed image sets; empty = the user's cache")
	fs.StringVar(&e.Device, "device", "auto", "cpu, cuda:N or auto")
	fs.IntVar(&e.Threads, "threads", 0, "CPU threads; 0 = all cores")
	fs.IntVar(&e.BatchSize, "batch-size", 64, "images at a time")
	fs.IntVar(&e.NumWorkers, "num-workers", 0, "images decoded at a time; 0 = one per core")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	if e.Checkpoint == "" || e.Folder == "" || fs.NArg() > 0 {
		return usageError{errors.New("evaluate: needs --checkpoint FILE and --data FOLDER, and takes no arguments")}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	result, err := train.Evaluate(ctx, e, slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// sheets draws what the training of a job would see into the job's SheetsDir.
func sheets(stdin io.Reader, logs io.Writer) error {
	job, err := trainerproto.NewReader(stdin).Job()
	if err != nil {
		return usageError{fmt.Errorf("sheets: a job line is wanted on standard input: %w", err)}
	}
	if job.SheetsDir == "" {
		return usageError{errors.New("sheets: the job names no sheets_dir")}
	}
	s, err := settings.Parse(job.Training, job.Params, job.BaseDir)
	if err != nil {
		return err
	}
	if s.Seed >= 0 {
		job.Seed = uint64(s.Seed)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return train.Sheets(ctx, s, job.Seed, job.CacheDir, job.SheetsDir, train.SheetImages, slog.New(slog.NewTextHandler(logs, nil)))
}
