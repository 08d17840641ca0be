// Command bench measures a cluster of real processes on this machine: how close
// a sweep comes to the ideal time, how many reports a second become durable,
// how long writing stops when a leader dies, and what a large history costs.
// It prints a line of JSON a figure. The bare raft library is measured in the
// same run, because the disk decides and machines drift.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// part is one measurement.
type part struct {
	name string
	what string
	run  func(ctx context.Context, b *bench) error
}

var parts = []part{
	{"trials", "10,000 trials of 1 s on 16 simulated slots; ideal 625 s, Ray Tune published 715 s", trialsPart},
	{"reports", "96 runs, 10 reports/s each, for 100 s; Ray Tune published 169 s", reportsPart},
	{"relay", "durable reports/s over the API beside the bare raft library", relayPart},
	{"failover", "leader killed to next acknowledged report", failoverPart},
	{"boards", "a leaderboard from Redis on a follower, beside another build (--base)", boardsPart},
	{"history", "100,000 trials with 1,000,000 reports: memory, restart, leaderboard", historyPart},
}

type bench struct {
	dir   string // below which each part makes its cluster
	bin   string
	base  string // another build's programs, "" = none
	quick bool   // smaller sizes, to see that all works
	out   *json.Encoder
	log   *os.File
}

// figure prints one result.
func (b *bench) figure(part string, values map[string]any) {
	values["part"] = part
	values["at"] = time.Now().UTC().Format(time.RFC3339)
	_ = b.out.Encode(values)
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// size is n, or small when quick.
func (b *bench) size(n, small int) int {
	if b.quick {
		return small
	}
	return n
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	alone := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "boards" })
	only := flag.String("parts", strings.Join(alone, ","), "what to measure, a comma list; beside these: boards")
	base := flag.String("base", "", "folder of another build's programs, for boards")
	bin := flag.String("bin", "bin", "folder of the programs")
	quick := flag.Bool("quick", false, "small sizes: shows that it works, measures nothing")
	keep := flag.Bool("keep", false, "keep the clusters' folders")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "atelier-bench-")
	if err != nil {
		return err
	}
	if *keep {
		fmt.Fprintln(os.Stderr, "kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	abs, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if *base != "" {
		if *base, err = filepath.Abs(*base); err != nil {
			return err
		}
	}
	b := &bench{dir: dir, bin: abs, base: *base, quick: *quick, out: json.NewEncoder(os.Stdout), log: os.Stderr}
	wanted := strings.Split(*only, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("no part %q; there are %s", w, strings.Join(names, ", "))
		}
	}
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		b.say("== %s: %s", p.name, p.what)
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
