package replica

import (
	"testing"
	"time"
)

func TestRunningSince(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	r := running{longest: 2500 * time.Millisecond, last: at(0)}
	for _, x := range []struct{ now, since int }{{500, -1}, {1000, -1}, {3000, -1}, {9000, 9000}, {9500, 9000}, {15000, 15000}} {
		since := r.since(at(x.now))
		if x.since < 0 && !since.IsZero() || x.since >= 0 && since != at(x.since) {
			t.Errorf("at %d: it has run since %v", x.now, since)
		}
	}
}
