//go:build libtorch

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"atelier/common/inference"
	"atelier/worker/trainer/infer"
	"atelier/worker/trainer/serve"
	"atelier/worker/trainer/torchx"
)

// serveCommand answers for single images on a Unix socket; atelier serve
// starts it. It ends with its standard input, so it cannot outlive who started
// it.
func serveCommand(args []string, stdin io.Reader, logs io.Writer) error {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	socket := fs.String("socket", "", "Unix socket to listen on")
	threads := fs.Int("threads", 0, "CPU threads; 0 = all cores")
	deviceName := fs.String("device", "auto", "cpu, cuda:N or auto")
	semantics := fs.String("semantics", inference.Runbook, "of quality: runbook or literature")
	precisionName := fs.String("precision", "fp32", "fp32, bf16 or fp16")
	batch := fs.Int("batch", 0, "images answered at once, at most; 0 = 32")
	t := inference.Default().Thresholds
	fs.Float64Var(&t.MinDrop, "min-confidence-drop", t.MinDrop, "per cent")
	fs.Float64Var(&t.MaxDrop, "max-average-drop", t.MaxDrop, "per cent")
	fs.Float64Var(&t.MinConcentration, "min-concentration", t.MinConcentration, "share")
	fs.Float64Var(&t.MaxCoverage, "max-coverage", t.MaxCoverage, "share")
	fs.Float64Var(&t.MinCoverage, "min-coverage", t.MinCoverage, "share")
	if err := fs.Parse(args); err != nil {
		return usageError{err}
	}
	if *socket == "" {
		return usageError{errors.New("serve: --socket is missing; people start `atelier serve`")}
	}
	precision, ok := infer.Precisions[*precisionName]
	if !ok {
		return usageError{fmt.Errorf("serve: --precision %s: want fp32, bf16 or fp16", *precisionName)}
	}
	if *threads <= 0 {
		*threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(*threads); err != nil {
		return err
	}
	device, err := pickDevice(*deviceName)
	if err != nil {
		return usageError{err}
	}
	if err := os.Remove(*socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	l, err := net.Listen("unix", *socket)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		io.Copy(io.Discard, stdin)
		stop()
	}()
	return serve.Run(ctx, l, serve.Options{Device: device, Precision: precision, Threads: *threads, Thresholds: t, Semantics: *semantics, Batch: *batch, Log: slog.New(slog.NewTextHandler(logs, nil))})
}

// pickDevice is the device of a name; auto takes the first GPU that works.
func pickDevice(name string) (torchx.Device, error) {
	if name == "" || name == "cpu" {
		return torchx.NewDevice("cpu"), nil
	}
	at := name
	if at == "auto" || at == "cuda" {
		at = "cuda:0"
	}
	gpu := torchx.NewDevice(at)
	err := torchx.DeviceReady(gpu)
	switch {
	case err == nil:
		return gpu, nil
	case name == "auto":
		return torchx.NewDevice("cpu"), nil
	}
	return gpu, fmt.Errorf("device %s: %w", name, err)
}
