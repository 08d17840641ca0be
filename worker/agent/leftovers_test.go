package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/worker/store"
)

// Inside the package: the sweep works by the clock, five minutes apart.

type index struct {
	rows []*atelierv1.Checkpoint
	err  error
}

func (x *index) ListCheckpoints(context.Context, *connect.Request[atelierv1.ListCheckpointsRequest]) (*connect.Response[atelierv1.ListCheckpointsResponse], error) {
	return connect.NewResponse(&atelierv1.ListCheckpointsResponse{Checkpoints: x.rows}), x.err
}

func TestLeftoversGoAndIndexedFilesStay(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	write := func(trial int64, name string) (file, location string) {
		dir, err := st.RunDir("s-a", trial, 1)
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(dir, name)
		os.WriteFile(file, []byte("x"), 0o644)
		os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour))
		location, err = st.Location(file)
		if err != nil {
			t.Fatal(err)
		}
		return file, location
	}
	kept, location := write(1, "kept")
	gone, _ := write(1, "gone")
	busy, _ := write(2, "busy")
	x := &index{err: connect.NewError(connect.CodeUnavailable, nil)}
	a := &Agent{cfg: Config{Store: st, Index: x}, held: &holdings{byToken: map[uint64]*holding{}}}
	a.held.add(newHolding(&atelierv1.Lease{SweepId: "s-a", Trial: 2, Token: 9}, 0))
	there := func(f string) bool { _, err := os.Stat(f); return err == nil }

	if n, err := a.removeLeftovers(t.Context(), leftover); err == nil || n != 0 {
		t.Errorf("without an answer %d files went, %v", n, err)
	}
	x.err = connect.NewError(connect.CodeNotFound, nil)
	if n, err := a.removeLeftovers(t.Context(), leftover); err != nil || n != 0 {
		t.Errorf("of a sweep nobody knows %d files went, %v", n, err)
	}
	x.err, x.rows = nil, []*atelierv1.Checkpoint{{Trial: 1, Location: location}}
	if n, err := a.removeLeftovers(t.Context(), leftover); err != nil || n != 1 {
		t.Errorf("%d files went, %v; want 1", n, err)
	}
	if !there(kept) || there(gone) || !there(busy) {
		t.Errorf("kept %v, gone %v, busy %v", there(kept), there(gone), there(busy))
	}
}

func TestRetentionKeepsWhatTheIndexMayName(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	row := func(epoch int32, metric float64) *atelierv1.Checkpoint {
		return &atelierv1.Checkpoint{Epoch: epoch, Metric: metric, HasMetric: true, Location: "http://elsewhere/x"}
	}
	epochs := func(r *retention) (out []int32) {
		for _, c := range r.rows {
			out = append(out, c.Epoch)
		}
		return out
	}
	same := func(a []int32, b ...int32) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	l := &atelierv1.Lease{Objective: wire.ToObjective(trial.Objective{Metric: "m"}),
		Checkpoints: []*atelierv1.Checkpoint{row(4, 3), row(2, 2)}} // newest first
	r := newRetention(st, l, nil)
	recorded := &atelierv1.EventResult{Outcome: wire.ToOutcome(trial.OutcomeRecorded)}
	r.acknowledged(row(5, 2.5), recorded)
	if got := epochs(r); !same(got, 2, 5) {
		t.Errorf("best and newest: %v", got)
	}
	for e := int32(6); e < 12; e++ {
		r.acknowledged(row(e, 2), recorded) // as good as the best
	}
	if got := epochs(r); !same(got, 2, 11) {
		t.Errorf("first and last of the equals: %v", got)
	}
	r.acknowledged(row(3, 9), recorded) // a later run that went on from an older one
	if got := epochs(r); !same(got, 2, 11, 3) {
		t.Errorf("highest epoch and last acknowledged: %v", got)
	}
	r.acknowledged(row(12, 1), &atelierv1.EventResult{Outcome: wire.ToOutcome(trial.OutcomeFenced)})
	if got := epochs(r); !same(got, 2, 11, 3) {
		t.Errorf("a fenced one counts: %v", got)
	}
	r.acknowledged(row(13, 1), recorded)
	if got := epochs(r); !same(got, 13) {
		t.Errorf("a new best and newest: %v", got)
	}
}

// What the coordinators name goes; the checkpoints of another trial, which a
// trial began from, are not its own to delete.
func TestGivenUpFilesGoAndOriginsStay(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	place := func(trial int64) (file, location string) {
		dir, err := st.RunDir("s-a", trial, 1)
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(dir, "epoch-1")
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if location, err = st.Location(file); err != nil {
			t.Fatal(err)
		}
		return file, location
	}
	gone, first := place(1)
	kept, origin := place(2)
	a := &Agent{cfg: Config{Store: st}, log: slog.New(slog.DiscardHandler)}
	a.deleteDropped([]string{first, first, "http://elsewhere/checkpoints/s-a/1/x"})
	if _, err := os.Stat(gone); err == nil {
		t.Error("a file that was given up is still there")
	}
	r := newRetention(st, &atelierv1.Lease{SweepId: "s-a", Trial: 3, Checkpoints: []*atelierv1.Checkpoint{{SweepId: "s-a", Trial: 2, Epoch: 1, Location: origin}}}, a.log)
	if len(r.rows) != 0 {
		t.Errorf("the trial holds %v for its own", r.rows)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// A row of the index whose file this worker is to have and has no more is given
// up by its word; one of another worker is not its business.
func TestTheIndexIsToldOfGoneFiles(t *testing.T) {
	st, err := store.Open(store.Config{Worker: "w1", Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	dir, err := st.RunDir("s-a", 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "there")
	os.WriteFile(file, []byte("x"), 0o644)
	there, err := st.Location(file)
	if err != nil {
		t.Fatal(err)
	}
	row := func(worker string, epoch int32, location string) *atelierv1.Checkpoint {
		return &atelierv1.Checkpoint{SweepId: "s-a", Trial: 1, Epoch: epoch, Token: 7, Location: location, Worker: worker}
	}
	x := &index{rows: []*atelierv1.Checkpoint{row("w1", 1, there+"-gone"), row("w1", 2, there), row("w2", 3, there+"-gone")}}
	a := &Agent{cfg: Config{Name: "w1", Store: st, Index: x}, log: slog.New(slog.DiscardHandler), held: &holdings{byToken: map[uint64]*holding{}},
		relay: newRelay(nil, "w1", "i", 1<<20, slog.New(slog.DiscardHandler))}
	if _, err := a.removeLeftovers(t.Context(), leftover); err != nil {
		t.Fatal(err)
	}
	if len(a.relay.items) != 1 {
		t.Fatalf("%d events", len(a.relay.items))
	}
	e := a.relay.items[0].event
	if gone := e.GetCheckpointLost(); gone == nil || gone.Epoch != 1 || gone.Location != there+"-gone" || gone.Worker != "w1" || e.Token != 7 || e.SweepId != "s-a" || e.Trial != 1 {
		t.Errorf("%v", e)
	}
}
