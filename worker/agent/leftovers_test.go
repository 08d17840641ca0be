package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/worker/store"
)

// Inside the package: the sweep works by the clock, five minutes apart.

func lease(sweep string, number int64, token uint64) *trial.Lease {
	return &trial.Lease{LeaseRef: trial.LeaseRef{Sweep: sweep, Trial: number, Token: token}}
}

type index struct {
	rows []trial.Checkpoint
	err  error
}

func (x *index) IndexedCheckpoints(context.Context, string, int64) ([]trial.Checkpoint, error) {
	return x.rows, x.err
}

func TestLeftoversGoAndIndexedFilesStay(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	write := func(number int64, name string) (file string, location trial.Location) {
		dir, err := st.RunDir(lease("s-a", number, 1))
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
	a := &Agent{cfg: Config{Store: st, Index: x}, held: &holdings{all: map[holdingKey]*holding{}}}
	a.held.add(newHolding(lease("s-a", 2, 9), 0))
	there := func(f string) bool { _, err := os.Stat(f); return err == nil }

	if n, err := a.removeLeftovers(t.Context(), leftover); err == nil || n != 0 {
		t.Errorf("without an answer %d files went, %v", n, err)
	}
	x.err = connect.NewError(connect.CodeNotFound, nil)
	if n, err := a.removeLeftovers(t.Context(), leftover); err != nil || n != 0 {
		t.Errorf("of a sweep nobody knows %d files went, %v", n, err)
	}
	x.err, x.rows = nil, []trial.Checkpoint{{Trial: 1, Location: location}}
	if n, err := a.removeLeftovers(t.Context(), leftover); err != nil || n != 1 {
		t.Errorf("%d files went, %v; want 1", n, err)
	}
	if !there(kept) || there(gone) || !there(busy) {
		t.Errorf("kept %v, gone %v, busy %v", there(kept), there(gone), there(busy))
	}
	x.err, x.rows = client.Refusal{Reason: client.ReasonDeleted}.Error(connect.CodeNotFound, errors.New("deleted")), nil
	if n, err := a.removeLeftovers(t.Context(), leftover); err != nil || n != 1 || there(kept) || !there(busy) {
		t.Errorf("of a deleted sweep %d files went, %v; kept %v, busy %v", n, err, there(kept), there(busy))
	}
}

func TestRetentionKeepsWhatTheIndexMayName(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	row := func(epoch int32, metric float64) trial.Checkpoint {
		return trial.Checkpoint{Epoch: epoch, Metric: new(trial.Number(metric)), Location: "http://elsewhere/x"}
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
	l := &trial.Lease{Objective: trial.Objective{Metric: "m"},
		Checkpoints: []trial.Checkpoint{row(4, 3), row(2, 2)}} // newest first
	r := newRetention(st, l, nil)
	recorded := trial.EventResult{Outcome: trial.OutcomeRecorded}
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
	r.acknowledged(row(12, 1), trial.EventResult{Outcome: trial.OutcomeFenced})
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
	place := func(number int64) (file string, location trial.Location) {
		dir, err := st.RunDir(lease("s-a", number, 1))
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
	a.deleteDropped([]trial.Location{first, first, "http://elsewhere/checkpoints/s-a/1/x"})
	if _, err := os.Stat(gone); err == nil {
		t.Error("a file that was given up is still there")
	}
	r := newRetention(st, &trial.Lease{LeaseRef: trial.LeaseRef{Sweep: "s-a", Trial: 3}, Checkpoints: []trial.Checkpoint{{Sweep: "s-a", Trial: 2, Epoch: 1, Location: origin}}}, a.log)
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
	dir, err := st.RunDir(lease("s-a", 1, 7))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "there")
	os.WriteFile(file, []byte("x"), 0o644)
	there, err := st.Location(file)
	if err != nil {
		t.Fatal(err)
	}
	row := func(worker string, epoch int32, location trial.Location) trial.Checkpoint {
		return trial.Checkpoint{Sweep: "s-a", Trial: 1, Epoch: epoch, Token: 7, Location: location, Worker: worker}
	}
	x := &index{rows: []trial.Checkpoint{row("w1", 1, there+"-gone"), row("w1", 2, there), row("w2", 3, there+"-gone")}}
	a := &Agent{cfg: Config{Name: "w1", Store: st, Index: x}, log: slog.New(slog.DiscardHandler), held: &holdings{all: map[holdingKey]*holding{}},
		relay: newRelay(nil, "w1", "i", 1<<20, slog.New(slog.DiscardHandler))}
	if _, err := a.removeLeftovers(t.Context(), leftover); err != nil {
		t.Fatal(err)
	}
	if len(a.relay.items) != 1 {
		t.Fatalf("%d events", len(a.relay.items))
	}
	e := a.relay.items[0].event
	if gone := e.Lost; gone == nil || gone.Epoch != 1 || gone.Location != there+"-gone" || gone.Worker != "w1" || e.Token != 7 || e.Sweep != "s-a" || e.Trial != 1 {
		t.Errorf("%v", e)
	}
}
