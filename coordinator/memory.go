package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// steerGC trades memory for time while there is little of it in use: with a
// small heap the collector may let it grow many times over, with a large one it
// keeps close. GOGC in the environment has the last word; GOMEMLIMIT is left as
// it is.
func steerGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(400)
	go func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		at := 400
		ticker := time.NewTicker(2 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			metrics.Read(live)
			want := 60
			switch used := live[0].Value.Uint64(); {
			case used < 32<<20:
				want = 400
			case used < 128<<20:
				want = 150
			case used < 384<<20:
				want = 80
			}
			if want != at {
				at = want
				debug.SetGCPercent(want)
			}
		}
	}()
}
