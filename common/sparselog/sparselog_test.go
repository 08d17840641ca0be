package sparselog_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"atelier/common/sparselog"
)

func TestSaysItOnceAndThenCounts(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(1_000_000, 0)
	l := sparselog.New(slog.New(slog.NewTextHandler(&out, nil)), 30*time.Second, func() time.Time { return clock })
	for range 100 {
		l.Warn("a", "key differs", "peer", "10.0.0.2")
		l.Warn("b", "another")
		clock = clock.Add(time.Second)
	}
	if n := strings.Count(out.String(), "key differs"); n != 4 {
		t.Errorf("said %d times in 100 s, want at 0, 30, 60 and 90 s\n%s", n, out.String())
	}
	if n := strings.Count(out.String(), "times_since_last=30 "); n != 0 {
		t.Errorf("counts are the last attribute\n%s", out.String())
	}
	if n := strings.Count(out.String(), "peer=10.0.0.2 times_since_last=30\n"); n != 3 {
		t.Errorf("%d lines count 30 times, want 3\n%s", n, out.String())
	}
	for i := range 5000 { // strangers under ever new names are all said and fill no memory
		l.Warn(fmt.Sprint(i), "stranger")
	}
	if n := strings.Count(out.String(), "stranger"); n != 5000 {
		t.Errorf("%d strangers of 5000", n)
	}
}
