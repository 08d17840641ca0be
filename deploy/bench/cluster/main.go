// Command cluster measures a cluster of real processes on this machine: how close
// a sweep comes to the ideal time, how many reports a second become durable,
// how long writing stops when a leader dies, and what a large history costs.
// It prints a line of JSON a figure. The bare raft library is measured in the
// same run, because the disk decides and machines drift.
package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"atelier/deploy/bench/harness"
)

type bench struct {
	*harness.Session
	base  string // another build's programs, "" = none
	quick bool   // smaller sizes, to see that all works
}

// figure prints one result.
func (b *bench) figure(part string, values map[string]any) {
	values["part"] = part
	values["at"] = time.Now().UTC().Format(time.RFC3339)
	line, err := json.Marshal(values)
	if err != nil { // NaN of nothing measured
		line = []byte(err.Error())
	}
	b.Printf("%s\n", line)
}

// size is n, or small when quick.
func (b *bench) size(n, small int) int {
	if b.quick {
		return small
	}
	return n
}

func main() {
	harness.Main("cluster", os.Args[1:], func(s *harness.Session) {
		b := &bench{Session: s}
		s.BinFlag()
		s.Flags.StringVar(&b.base, "base", "", "`FOLDER` of another build's programs, for boards")
		s.Flags.BoolVar(&b.quick, "quick", false, "small sizes: shows that it works, measures nothing")
		s.Flags.BoolVar(&s.Keep, "keep", false, "keep the clusters' folders")
		s.Check = func() (err error) {
			if b.base != "" {
				b.base, err = filepath.Abs(b.base)
			}
			return err
		}
		s.Parts = []harness.Part{
			{Name: "trials", What: "10,000 trials of 1 s on 16 simulated slots; ideal 625 s, Ray Tune published 715 s", Run: b.trials},
			{Name: "reports", What: "96 runs, 10 reports/s each, for 100 s; Ray Tune published 169 s", Run: b.reports},
			{Name: "relay", What: "durable reports/s over the API beside the bare raft library", Run: b.relay},
			{Name: "failover", What: "leader killed to next acknowledged report", Run: b.failover},
			{Name: "boards", What: "a leaderboard from Redis on a follower, beside another build (--base)", Aside: true, Run: b.boards},
			{Name: "history", What: "100,000 trials with 1,000,000 reports: memory, restart, leaderboard", Run: b.history},
		}
	})
}
