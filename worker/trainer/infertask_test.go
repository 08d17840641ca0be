//go:build libtorch

package main

import (
	"testing"
	"time"
)

// Reports of a run of inference rise, come not too often and leave the last
// hundredth to the results; a second stage goes on where the first one ended.
func TestHundredths(t *testing.T) {
	h := hundredths{stages: 2, every: time.Second}
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		stage       string
		done, total int
		after       time.Duration
		epoch       int // 0 = no report
	}{
		{"evaluate", 0, 0, 0, 0},
		{"evaluate", 1, 1000, 0, 0},                        // no hundredth yet
		{"evaluate", 200, 1000, 0, 10},                     // half of a fifth
		{"evaluate", 300, 1000, 500 * time.Millisecond, 0}, // too soon
		{"evaluate", 400, 1000, 600 * time.Millisecond, 20},
		{"evaluate", 1000, 1000, 2 * time.Second, 50},
		{"production", 10, 1000, 2 * time.Second, 0}, // nothing new
		{"production", 500, 1000, 2 * time.Second, 75},
		{"production", 1000, 1000, 2 * time.Second, 99},
		{"production", 1000, 1000, 2 * time.Second, 0},
	} {
		at = at.Add(c.after)
		if epoch, ok := h.reached(c.stage, c.done, c.total, at); ok != (c.epoch > 0) || ok && epoch != c.epoch {
			t.Errorf("%s %d of %d: %d %v, want %d", c.stage, c.done, c.total, epoch, ok, c.epoch)
		}
	}
}
