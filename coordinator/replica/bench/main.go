// Command bench measures durable writes per second of three nodes in one process
// over loopback TCP: first of the bare raft library with a state machine that
// does nothing ("bare"), then of this repository's replica with the real state
// machine recording reports ("replica"). The disk decides the figures, so that
// only ratios within one run say anything. It prints JSON lines.
//
//	go run ./coordinator/replica/bench -seconds 3 -clients 1,64,256
//	go run ./coordinator/replica/bench -kills 20
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Figure is one line of the output.
type Figure struct {
	What    string  `json:"what"`
	Store   string  `json:"store"`
	Clients int     `json:"clients"`
	Bytes   int     `json:"entry_bytes"`
	PerS    float64 `json:"writes_per_s"`
	P50ms   float64 `json:"p50_ms"`
	P99ms   float64 `json:"p99_ms"`
	Ratio   float64 `json:"of_bare,omitempty"`
	Batch   float64 `json:"commands_per_entry,omitempty"`
}

// target is a running cluster: write makes one durable write for a client.
type target struct {
	write func(client int) error
	batch func() float64
	close func()
}

func main() {
	seconds := flag.Float64("seconds", 3, "length of one measurement")
	clients := flag.String("clients", "1,64,256", "numbers of concurrent callers")
	stores := flag.String("stores", "raft-wal,raft-boltdb", "log stores")
	what := flag.String("what", "bare,replica", "bare library, replica or both")
	size := flag.Int("entry", 300, "bytes of a bare entry, and of a command of the replica")
	inFlight := flag.Int("inflight", 0, "entries of the replica in flight; 0 = its default")
	dir := flag.String("dir", "", "folder for the logs; default: the system's temporary folder, which must be a real disk")
	kills := flag.Int("kills", 0, "measure this many deaths of the leader instead")
	heartbeat := flag.Duration("heartbeat", 400*time.Millisecond, "heartbeat time-out of the -kills measurement")
	flag.Parse()
	if *kills > 0 {
		folder, err := os.MkdirTemp(*dir, "atelier-bench-")
		if err != nil {
			fail(err)
		}
		defer os.RemoveAll(folder)
		f, err := measureFailover(folder, *kills, *heartbeat)
		if err != nil {
			fail(err)
		}
		json.NewEncoder(os.Stdout).Encode(f)
		return
	}
	out := json.NewEncoder(os.Stdout)
	for _, store := range strings.Split(*stores, ",") {
		for _, text := range strings.Split(*clients, ",") {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				fail(fmt.Errorf("-clients %q: numbers from 1, apart by commas", *clients))
			}
			bare := 0.0
			for _, w := range strings.Split(*what, ",") {
				folder, err := os.MkdirTemp(*dir, "atelier-bench-")
				if err != nil {
					fail(err)
				}
				f := Figure{What: w, Store: store, Clients: n, Bytes: *size}
				var t *target
				switch w {
				case "bare":
					t, err = startBare(folder, store, *size)
				case "replica":
					t, f.Bytes, err = startReplica(folder, store, n, *inFlight, *size)
				default:
					err = fmt.Errorf("-what %q: bare or replica", w)
				}
				if err == nil {
					err = measure(t, n, time.Duration(*seconds*float64(time.Second)), &f)
					t.close()
				}
				os.RemoveAll(folder)
				if err != nil {
					fail(err)
				}
				if w == "bare" {
					bare = f.PerS
				} else if bare > 0 {
					f.Ratio = round(f.PerS / bare)
				}
				out.Encode(f)
			}
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// measure lets clients write as fast as they are answered, after a warm-up of a
// tenth of the time.
func measure(t *target, clients int, length time.Duration, f *Figure) error {
	warm := time.Now().Add(length / 10)
	end := warm.Add(length)
	took := make([][]time.Duration, clients)
	errs := make(chan error, clients)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				start := time.Now()
				if start.After(end) {
					return
				}
				if err := t.write(c); err != nil {
					errs <- err
					return
				}
				if start.After(warm) {
					took[c] = append(took[c], time.Since(start))
				}
			}
		}()
	}
	wg.Wait()
	if len(errs) > 0 {
		return <-errs
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return fmt.Errorf("nothing was written in %v", length)
	}
	slices.Sort(all)
	f.PerS = round(float64(len(all)) / length.Seconds())
	f.P50ms = round(all[len(all)/2].Seconds() * 1000)
	f.P99ms = round(all[len(all)*99/100].Seconds() * 1000)
	if t.batch != nil {
		f.Batch = round(t.batch())
	}
	return nil
}

func round(x float64) float64 { return float64(int64(x*100+0.5)) / 100 }
