// Command atelier is the person's hand on a cluster: it submits sweeps, watches
// them, and fetches what they found.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"atelier/common/secret"
	"atelier/common/stdio"
	"atelier/tuner/cli"
)

func main() {
	stdio.Guard()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second interrupt ends the program at once.
	context.AfterFunc(ctx, stop)
	env := cli.Process()
	// What it reads of this is kept from core dumps, and from the trainers and clusters that it starts.
	if err := secret.Harden(); err != nil {
		fmt.Fprintln(stdio.Err(), "atelier: passwords and keys could be read from a crash dump:", err)
	}
	secret.HideEnvironment()
	code := env.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
