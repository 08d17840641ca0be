// Command atelier is the person's hand on a cluster: it submits sweeps, watches
// them, and fetches what they found.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"atelier/common/stdio"
	"atelier/tuner/cli"
)

func main() {
	stdio.Guard()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second interrupt ends the program at once.
	context.AfterFunc(ctx, stop)
	code := cli.Process().Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
