package board_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/coordinator/board"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/state"
)

const cluster = "c-one"

func row(number int64, value float64) *board.Row {
	return &board.Row{Row: trial.Row{
		Trial: number, Status: trial.Finished, Value: trial.Number(value),
		Params: fmt.Appendf(nil, `{"lr":0.1,"name":"<%d>"}`, number), Epoch: 3, Checkpoint: "shared:x", Metrics: map[string]trial.Number{"val_acc": 0.1 + trial.Number(number), "inf": trial.Number(math.Inf(1))},
	}}
}

func sweep(id string) *state.Sweep { return &state.Sweep{ID: id, Spec: &spec.Spec{}} }

func open(t *testing.T, addr string) *board.Redis {
	t.Helper()
	r, err := board.Open(board.Options{Addr: addr, Prefix: "t:"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func build(t *testing.T, r *board.Redis, generation string, index uint64, rows ...board.TrialRows) board.Mark {
	t.Helper()
	ctx := context.Background()
	b, err := r.Begin(ctx, cluster, generation)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Fill(ctx, rows); err != nil {
		t.Fatal(err)
	}
	m, err := b.Publish(ctx, index, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func trials(rows []trial.Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%d:%d=%v ", r.Rank, r.Trial, float64(r.Value))
	}
	return strings.TrimSpace(b.String())
}

func TestBoardOrderAndExactness(t *testing.T) {
	r := open(t, coordinatortest.StartRedis(t).Addr)
	ctx := context.Background()
	tiny := math.Nextafter(0.3, 1)
	endless := trial.Number(math.Inf(1))
	checkpoint := trial.Checkpoint{Sweep: "s-a", Trial: 2, Epoch: 7, Metric: &endless,
		Size: 9, SHA256: "ab", Location: "http://w/x", Worker: "w", CreatedMS: 5, Token: 77}
	later := trial.Checkpoint{Sweep: "s-a", Trial: 2, Epoch: 10, Size: 9, SHA256: "cd", Location: "http://w/y", Worker: "w", Token: 77}
	want := row(2, tiny)
	mark := build(t, r, "g1", 10,
		board.TrialRows{Sweep: "s-a", Trial: 10, Row: row(10, 0.3)},
		board.TrialRows{Sweep: "s-a", Trial: 9, Row: row(9, 0.3)},
		board.TrialRows{Sweep: "s-a", Trial: 2, Row: want, Checkpoints: []trial.Checkpoint{later, checkpoint}},
		board.TrialRows{Sweep: "s-a", Trial: 3, Row: row(3, math.Inf(1))},
		board.TrialRows{Sweep: "s-a", Trial: 4, Row: row(4, math.Inf(-1))},
		board.TrialRows{Sweep: "s-a", Trial: 5},
		board.TrialRows{Sweep: "s-b", Trial: 1, Maximize: true, Row: row(1, 0.5)},
		board.TrialRows{Sweep: "s-b", Trial: 2, Maximize: true, Row: row(2, 0.75)},
	)
	got, found, err := r.Leaderboard(ctx, cluster, sweep("s-a"), 0)
	if err != nil || found.Index != 10 || found.Age < 0 {
		t.Fatalf("%+v, %v", found, err)
	}
	if s, want := trials(got), fmt.Sprintf("1:4=-Inf 2:9=0.3 3:10=0.3 4:2=%v 5:3=+Inf", tiny); s != want {
		t.Errorf("less is better: %s, want %s", s, want)
	}
	want.Rank = 4
	if !reflect.DeepEqual(got[3], want.Row) {
		t.Errorf("row came back as %v, was %v", got[3], want)
	}
	if got, _, _ := r.Leaderboard(ctx, cluster, sweep("s-b"), 1); trials(got) != "1:2=0.75" {
		t.Errorf("more is better, top 1: %s", trials(got))
	}
	if got, _, err := r.Leaderboard(ctx, cluster, sweep("s-none"), 0); err != nil || len(got) != 0 {
		t.Errorf("unknown sweep: %v, %v", got, err)
	}
	points, _, err := r.Checkpoints(ctx, cluster, sweep("s-a"), 2)
	if err != nil || len(points) != 2 || !reflect.DeepEqual(points, []trial.Checkpoint{checkpoint, later}) {
		t.Errorf("checkpoints %v, %v", points, err)
	}
	if points, _, _ := r.Checkpoints(ctx, cluster, sweep("s-a"), 9); len(points) != 0 {
		t.Errorf("checkpoints of a trial without: %v", points)
	}

	// Writing a trial again replaces all that stood there.
	mark, err = r.Advance(ctx, mark, 11, 0, []board.TrialRows{
		{Sweep: "s-a", Trial: 2, Row: row(2, -1), Checkpoints: []trial.Checkpoint{later}},
		{Sweep: "s-a", Trial: 4},
		{Sweep: "s-c", Trial: 1, Row: row(1, 1)},
	})
	if err != nil || mark.Index != 11 {
		t.Fatal(mark, err)
	}
	if got, found, _ := r.Leaderboard(ctx, cluster, sweep("s-a"), 2); trials(got) != "1:2=-1 2:9=0.3" || found.Index != 11 {
		t.Errorf("after an advance: %s at %d", trials(got), found.Index)
	}
	if points, _, _ := r.Checkpoints(ctx, cluster, sweep("s-a"), 0); len(points) != 1 || points[0].Epoch != 10 {
		t.Errorf("checkpoints after an advance: %v", points)
	}
	if got, _, _ := r.Leaderboard(ctx, cluster, sweep("s-c"), 0); len(got) != 1 {
		t.Errorf("new sweep: %v", got)
	}
}

func TestWatermarkGuardsEveryWrite(t *testing.T) {
	server := coordinatortest.StartRedis(t)
	r := open(t, server.Addr)
	ctx := context.Background()
	first := board.TrialRows{Sweep: "s", Trial: 1, Row: row(1, 1)}
	other := board.TrialRows{Sweep: "s", Trial: 2, Row: row(2, 0)}
	mark := build(t, r, "g1", 5, first)

	for name, from := range map[string]board.Mark{
		"older index":        {Cluster: cluster, Generation: "2-g1", Index: 4},
		"newer index":        {Cluster: cluster, Generation: "2-g1", Index: 6},
		"other generation":   {Cluster: cluster, Generation: "2-g0", Index: 5},
		"other cluster":      {Cluster: "c-two", Generation: "2-g1", Index: 5},
		"nothing (all zero)": {},
	} {
		found, err := r.Advance(ctx, from, 9, 0, []board.TrialRows{other})
		if !errors.Is(err, board.ErrOvertaken) || found != mark {
			t.Errorf("%s: found %+v, %v", name, found, err)
		}
	}
	if got, found, _ := r.Leaderboard(ctx, cluster, sweep("s"), 0); trials(got) != "1:1=1" || found.Index != 5 {
		t.Errorf("a refused write left %s at %d", trials(got), found.Index)
	}
	if _, _, err := r.Leaderboard(ctx, "c-two", sweep("s"), 0); !errors.Is(err, board.ErrNotThere) {
		t.Errorf("another cluster read this one's board: %v", err)
	}

	// A rebuild is not seen until it is published, and only one can be.
	slow, err := r.Begin(ctx, cluster, "g2")
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Fill(ctx, []board.TrialRows{other}); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := r.Leaderboard(ctx, cluster, sweep("s"), 0); trials(got) != "1:1=1" {
		t.Errorf("half a rebuild is read: %s", trials(got))
	}
	quick, err := r.Begin(ctx, cluster, "g3")
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Fill(ctx, []board.TrialRows{other}); !errors.Is(err, board.ErrOvertaken) {
		t.Errorf("fill of an overtaken rebuild: %v", err)
	}
	if _, err := slow.Publish(ctx, 99, 0); !errors.Is(err, board.ErrOvertaken) {
		t.Errorf("publish of an overtaken rebuild: %v", err)
	}
	if err := quick.Fill(ctx, []board.TrialRows{first, other}); err != nil {
		t.Fatal(err)
	}
	if _, err = r.Advance(ctx, mark, 6, 0, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := quick.Publish(ctx, 7, 0); !errors.Is(err, board.ErrOvertaken) {
		t.Errorf("publish over a board that moved meanwhile: %v", err)
	}
	build(t, r, "g4", 8, first, other)
	if got, found, _ := r.Leaderboard(ctx, cluster, sweep("s"), 0); trials(got) != "1:2=0 2:1=1" || found.Index != 8 {
		t.Errorf("after a rebuild: %s at %d", trials(got), found.Index)
	}
	if err := r.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	keys := server.Do("KEYS", "*")
	for _, k := range keys {
		if strings.Contains(k, ":2-g1:") || strings.Contains(k, ":2-g2:") || strings.Contains(k, ":2-g3:") {
			t.Errorf("left behind: %s", k)
		}
	}
	if len(keys) != 3 { // meta, board, rows
		t.Errorf("keys %v", keys)
	}
	if got, _, _ := r.Leaderboard(ctx, cluster, sweep("s"), 0); trials(got) != "1:2=0 2:1=1" {
		t.Errorf("after clearing: %s", trials(got))
	}
}

func TestManyRows(t *testing.T) {
	r := open(t, coordinatortest.StartRedis(t).Addr)
	var rows []board.TrialRows
	for n := int64(1); n <= 5000; n++ {
		rows = append(rows, board.TrialRows{Sweep: "s", Trial: n, Row: row(n, float64(-n))})
	}
	build(t, r, "g1", 1, rows...)
	got, _, err := r.Leaderboard(context.Background(), cluster, sweep("s"), 0)
	if err != nil || len(got) != 5000 || got[0].Trial != 5000 || got[4999].Trial != 1 {
		t.Fatalf("%d rows, %v", len(got), err)
	}
}

func TestRedisAwayIsQuick(t *testing.T) {
	server := coordinatortest.StartRedis(t)
	r := open(t, server.Addr)
	build(t, r, "g1", 1)
	server.Stop()
	began := time.Now()
	for range 50 {
		if _, _, err := r.Leaderboard(context.Background(), cluster, sweep("s"), 0); err == nil {
			t.Fatal("a stopped redis answered")
		}
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("50 readers of a stopped redis waited %v", d)
	}
	server.Start()
	// It is asked again after a while, and has nothing any more.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := r.Leaderboard(context.Background(), cluster, sweep("s"), 0)
		if errors.Is(err, board.ErrNotThere) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an empty redis: %v", err)
		}
	}
}

// A prefix has one living cluster: another one gets nothing written there until
// the word of the first has run out.
func TestOneClusterAPrefix(t *testing.T) {
	ctx := context.Background()
	srv := coordinatortest.StartRedis(t)
	r := open(t, srv.Addr)
	build(t, r, "g1", 5)
	var held *board.HeldError
	if _, err := r.Begin(ctx, "c-two", "h1"); !errors.As(err, &held) || held.Cluster != cluster {
		t.Errorf("a rebuild over the board of a living cluster: %v", err)
	}
	if found, err := r.Look(ctx, "c-two"); !errors.As(err, &held) || found.Cluster != cluster || found.Unclaimed {
		t.Errorf("look: %+v, %v", found, err)
	}
	var other *board.OtherError
	if _, _, err := r.Leaderboard(ctx, "c-two", sweep("s"), 0); !errors.As(err, &other) || !errors.Is(err, board.ErrNotThere) {
		t.Errorf("read: %v", err)
	}
	if found, err := r.Look(ctx, cluster); err != nil || found.Index != 5 {
		t.Errorf("its own board: %+v, %v", found, err)
	}
	// Begun while the first was away, published after it came back.
	srv.Do("EVAL", "redis.call('HSET', 't:meta', 'seen', 1) return {'ok'}", "0")
	b, err := r.Begin(ctx, "c-two", "h2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Look(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(ctx, 1, 0); !errors.Is(err, board.ErrOvertaken) {
		t.Errorf("publish over a cluster that came back: %v", err)
	}
	// A program that gave no word.
	srv.Do("EVAL", "redis.call('HDEL', 't:meta', 'seen') return {'ok'}", "0")
	if found, err := r.Look(ctx, "c-two"); err != nil || !found.Unclaimed {
		t.Errorf("a board without a word: %+v, %v", found, err)
	}
	if b, err = r.Begin(ctx, "c-two", "h3"); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Publish(ctx, 1, 0); err != nil || m.Cluster != "c-two" {
		t.Errorf("an abandoned prefix was not taken: %+v, %v", m, err)
	}
}

// An answer says how long ago the board lacked nothing: since the last write that
// was told so, not since a look at it.
func TestAge(t *testing.T) {
	ctx := context.Background()
	srv := coordinatortest.StartRedis(t)
	r := open(t, srv.Addr)
	mark := build(t, r, "g1", 5)
	age := func() time.Duration {
		t.Helper()
		_, found, err := r.Leaderboard(ctx, cluster, sweep("s"), 0)
		if err != nil {
			t.Fatal(err)
		}
		return found.Age
	}
	mark, err := r.Advance(ctx, mark, 6, 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Look(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	if got := age(); got < 10*time.Second || got > 60*time.Second {
		t.Errorf("10 s old when it was written, %v when read", got)
	}
	if _, err = r.Advance(ctx, mark, 6, 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := age(); got < 0 || got > 9*time.Second {
		t.Errorf("nothing new was written, and the board is %v old", got)
	}
	srv.Do("EVAL", "redis.call('HDEL', 't:meta', 'current') return {'ok'}", "0") // of an older program
	if got := age(); got >= 0 {
		t.Errorf("a board that does not say so is %v old", got)
	}
}

// A board that goes back behind what was shown is not shown as it is, and one
// from before a restore not at all.
func TestSetBack(t *testing.T) {
	ctx := context.Background()
	r := open(t, coordinatortest.StartRedis(t).Addr)
	build(t, r, "g1", 9)
	b := board.New(r)
	m := state.New()
	m.Apply(1, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: "c1", ClusterId: cluster}}}}})
	view := m.View()
	read := func() board.Answer {
		t.Helper()
		_, answer, err := b.Leaderboard(ctx, view, sweep("s"), 0)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	if a := read(); !a.Fresh() || a.Index != 9 {
		t.Errorf("%+v", a)
	}
	build(t, r, "g2", 8)
	if a := read(); a.Fresh() || !a.SetBack || a.Index != 8 {
		t.Errorf("a board that was set back: %+v", a)
	}
	build(t, r, "g3", 9)
	if a := read(); !a.Fresh() {
		t.Errorf("it is where it was: %+v", a)
	}
}
