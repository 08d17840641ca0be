package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/terminal"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/tuner/cli"
)

// shared is a buffer that a command writes while a test reads it.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// --watch shows the list, then what changes, until it is interrupted.
func TestWatch(t *testing.T) {
	cli.WatchEvery(t, time.Millisecond)
	for _, columns := range []int{0, 80} {
		f := start(t)
		set := func(s ...*v1.Sweep) {
			f.mu.Lock()
			f.listed = s
			f.mu.Unlock()
		}
		both := sweepsOf("s-aaaaaaaa facades", "s-bbbbbbbb again")
		set(both...)
		ctx, interrupt := context.WithCancel(t.Context())
		var out, errs shared
		clock := now
		e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Dir: t.TempDir(), Screen: columns > 0, Width: func() int { return columns },
			Now: func() time.Time { clock = clock.Add(time.Second); return clock }} // ages change by themselves
		done := make(chan int)
		go func() { done <- e.Run(ctx, []string{"sweep", "list", "--watch"}) }()
		wait := func(what string) {
			t.Helper()
			for end := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), what); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("no %q in\n%s%s", what, out.String(), errs.String())
				}
			}
		}
		wait("s-bbbbbbbb")
		ended := sweepsOf("s-aaaaaaaa facades")
		ended[0].Status = wire.ToSweepStatus(trial.SweepFinished)
		set(append(ended, both[1])...)
		wait("facades  finished")
		set(ended...)
		if columns == 0 {
			wait("- s-bbbbbbbb")
		}
		interrupt()
		if code := <-done; code != 130 || errs.String() != "" {
			t.Errorf("exit %d: %s", code, errs.String())
		}
		text := out.String()
		if columns > 0 {
			if strings.Count(text, "\x1b[H\x1b[2J") < 2 || strings.Contains(text, "- s-bbbbbbbb") {
				t.Errorf("not drawn anew: %q", text)
			}
			continue
		}
		lines := strings.Split(strings.TrimSpace(text), "\n")
		if len(lines) != 5 || strings.Contains(text, "\x1b") || !strings.HasPrefix(lines[3], "s-aaaaaaaa  facades  finished") || lines[4] != "- s-bbbbbbbb" {
			t.Errorf("want head, two rows, one change and one that is gone:\n%s", text)
		}
	}
}

// No row of a list is wider than the screen, whatever is in it.
func TestTablesFitTheScreen(t *testing.T) {
	start(t)
	for columns := 20; columns <= 200; columns += 9 {
		for _, args := range [][]string{{"leaderboard", "s-aaaaaaaa"}, {"leaderboard", "s-cccccccc"}, {"trial", "list", "s-aaaaaaaa"}, {"sweep", "list"}, {"worker", "list"},
			{"checkpoint", "list", "s-aaaaaaaa"}, {"sweep", "list", "--columns", "id,name,failure,search_method,best.params,created_ms"}} {
			r := onScreen(t, t.TempDir(), columns, args...)
			if r.code != 0 {
				t.Fatalf("%q: %+v", args, r)
			}
			for l := range strings.Lines(r.out) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\n")); n > columns {
					t.Errorf("%q on %d columns: a row of %d: %s", args, columns, n, l)
				}
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string { return strings.Repeat([]string{"ä", "哥", "x "}[random.IntN(3)], random.IntN(30)) }
	for range 300 {
		n := 3 + random.IntN(5)
		row := func() (out []string) {
			for range n {
				out = append(out, word())
			}
			return out
		}
		columns := 10 + random.IntN(100)
		head := row()
		for i := range head {
			head[i] = fmt.Sprint(i, head[i])
		}
		for _, l := range cli.Fit(head, [][]string{row(), row()}, head[:1], head[1:2], head[2:3], columns) {
			if got := terminal.Columns(l); got > columns {
				t.Fatalf("a row of %d on %d columns: %q", got, columns, l)
			}
		}
	}
}
