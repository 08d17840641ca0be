// Command atelier-coordinator is one node of Atelier's replicated memory: a raft
// member that keeps sweeps, trials and leases, gives work to workers while it
// leads, and serves the API.
//
// This package only wires rooms together. It refuses to listen beyond this
// machine without --insecure, and to start twice on one data folder.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"atelier/common/exit"
	"atelier/common/secret"
	"atelier/common/stdio"
	"atelier/coordinator/replica"
)

func main() {
	stdio.Guard()
	os.Exit(run(os.Args, stdio.Err()))
}

// run is the program; it returns the exit code.
func run(args []string, stderr io.Writer) int {
	if len(args) > 1 && args[1] == "recover" {
		return recoverCommand(args[1:], os.Stdin, stderr)
	}
	m := &Main{Stderr: stderr}
	if err := secret.Harden(); err != nil {
		fmt.Fprintf(stderr, "atelier-coordinator: passwords and keys could be read from a crash dump: %v\n", err)
	}
	if err := m.ParseFlags(args); err != nil {
		if errors.Is(err, errHelp) {
			return exit.OK
		}
		fmt.Fprintf(stderr, "atelier-coordinator: %v\n", err)
		return exit.Usage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	if err := m.Run(ctx); err != nil {
		fmt.Fprintf(stderr, "atelier-coordinator: %v\n", err)
		var removed *replica.RemovedError
		if errors.As(err, &removed) {
			return exit.Removed
		}
		return exit.Error
	}
	return exit.OK
}

// newLogger writes text lines from a level on.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}
