// Command atelier-worker is a machine's agent: it takes leases from the
// coordinators for its slots and trains, one trainer process a run.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"atelier/common/exit"
	"atelier/common/secret"
	"atelier/common/stdio"
	"atelier/common/trainerproto"
	"atelier/worker/confine"
	"atelier/worker/simtrainer"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == confine.Verb { // by this program's agent alone
		os.Exit(confine.Main(os.Args[2:]))
	}
	stdio.Guard()
	// Not through the flag parser: a simulated trainer should start in a few milliseconds.
	if len(os.Args) == 2 && os.Args[1] == "simtrainer" {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		os.Exit(simtrainer.Main(os.Stdin, os.NewFile(trainerproto.EventsFD, "events"), stdio.Err(), signals))
	}
	// What the agent holds is kept from core dumps, and what is secret in its environment from trainers.
	if err := secret.Harden(); err != nil {
		fmt.Fprintln(stdio.Err(), "atelier-worker: keys could be read from a crash dump:", err)
	}
	secret.HideEnvironment()
	// What whoever started the agent left open is no trainer's business.
	if err := confine.CloseOnExec(3); err != nil {
		fmt.Fprintln(stdio.Err(), "atelier-worker: inherited descriptors:", err)
	}
	m := NewMain()
	help, err := m.ParseFlags(os.Args)
	if err != nil {
		fmt.Fprintln(stdio.Err(), "atelier-worker:", err)
		os.Exit(exit.Usage)
	}
	if help {
		return
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-signals
		m.Drain()
		<-signals
		cancel()
	}()
	err = m.Run(ctx)
	if e := m.Close(); err == nil {
		err = e
	}
	cancel()
	if err != nil {
		fmt.Fprintln(stdio.Err(), "atelier-worker:", err)
		os.Exit(exit.Error)
	}
}
