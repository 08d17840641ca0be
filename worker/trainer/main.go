//go:build libtorch

// Command atelier-trainer trains image classifiers with libtorch: one process
// a run, started by a worker's agent.
//
//	atelier-trainer train                 a job line on standard input, events on descriptor 3
//	atelier-trainer bench [flags]         images a second of full training steps
//	atelier-trainer evaluate [flags]      loss and accuracy of a stored model on a folder of images
//	atelier-trainer sheets                a job line on standard input, an image a class of augmented images in its folder
//	atelier-trainer logits [flags]        logits of a stored model for raw input
//	atelier-trainer onnx [flags]          a stored model as an ONNX file
//	atelier-trainer kernels               the table of our own kernels, and which are on
//	atelier-trainer version
//
// It opens no network connection and refuses to train without descriptor 3.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"

	"atelier/common/stdio"
	"atelier/worker/trainer/torchx"
)

// usageError ends the process with code 2.
type usageError struct{ error }

const usage = `usage: atelier-trainer train|infer|serve|evaluate|sheets|bench|logits|onnx|kernels|version [flags]

train takes one job line on standard input and writes events to file descriptor 3;
a worker or atelier train starts it. infer does the same for atelier infer. sheets takes a job line too and draws what
the job's training would see. evaluate, bench, logits and onnx list their flags with -h. kernels lists which of our own
kernels are on: ATELIER_KERNELS=none or a list (-dense,-norm) turns them off, and libtorch's operators run.
ATELIER_GROUP_TRANSFER=nccl or auto lets the members of a group move sums between GPUs with NCCL (2.26.2 or later;
ATELIER_NCCL names its file); host, the default, takes the host's memory`

func main() {
	stdio.Guard()
	// Thread count, gradient mode and OpenMP's pool belong to this thread.
	runtime.LockOSThread()
	err := settleWaiting()
	if err == nil {
		err = run(os.Args[1:])
	}
	var wrong usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, &wrong):
		fmt.Fprintln(stdio.Err(), "atelier-trainer:", err)
		os.Exit(2)
	case errors.Is(err, errTerminated):
		fmt.Fprintln(stdio.Err(), "atelier-trainer:", err)
		os.Exit(exitTerminated)
	default:
		if !errors.Is(err, errReported) {
			fmt.Fprintln(stdio.Err(), "atelier-trainer:", err)
		}
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return usageError{errors.New(usage)}
	}
	if err := torchx.Init(); err != nil {
		return err
	}
	if err := chooseKernels(""); err != nil {
		return usageError{err}
	}
	switch args[0] {
	case "train":
		return trainCommand(os.Stdin, stdio.Err())
	case "infer":
		return inferCommand(os.Stdin, stdio.Err())
	case "serve":
		return serveCommand(args[1:], os.Stdin, stdio.Err())
	case "evaluate":
		return evaluate(args[1:], stdio.Output(), stdio.Err())
	case "sheets":
		return sheets(os.Stdin, stdio.Err())
	case "logits":
		return logits(args[1:], stdio.Output())
	case "onnx":
		return exportONNX(args[1:], stdio.Output())
	case "bench":
		return bench(args[1:], stdio.Output())
	case "kernels":
		return listKernels(stdio.Output())
	case "version":
		fmt.Println("atelier-trainer, libtorch", torchx.Version())
		return nil
	}
	return usageError{fmt.Errorf("unknown command %q\n%s", args[0], usage)}
}
