package mlflow

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

func newJournal(t *testing.T, dir string) *journal {
	t.Helper()
	j, err := createJournal(dir, head{Identity: "x", Experiment: "e", Store: "http://h"}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// A journal cut at any byte is taken up as far as it is whole; what was marked
// as done stays done, what may have been sent is known.
func TestJournalCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	add := func(n int) {
		var es []entry
		for i := range n {
			es = append(es, entry{Metric: "m", Value: math.NaN(), Step: int64(i)})
		}
		if _, err := j.add(es, 10); err != nil {
			t.Fatal(err)
		}
	}
	add(3)
	j.mark(record{Sent: 2}, true)
	j.mark(record{Run: "r", Where: "w"}, true)
	j.mark(record{Done: 2}, false)
	add(2)
	j.mark(record{Sent: 4}, true)
	file := j.keep(false)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(file, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		full := bytes.Count(whole[:cut], []byte("\n"))
		j, err := adoptJournal(file, 1<<20)
		if full == 0 {
			if err == nil {
				t.Fatalf("cut at %d: taken for a journal", cut)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		var entries, sent, done int64
		run := ""
		for _, l := range lines[:full] {
			r, err := decodeRecord(l)
			if err != nil {
				t.Fatal(err)
			}
			if r.Entry != nil {
				entries++
			}
			sent, done = max(sent, r.Sent), max(done, r.Done)
			if r.Run != "" {
				run = r.Run
			}
		}
		if j.entries != entries || j.sent != sent || j.done != done || j.run != run || j.left() != entries-done {
			t.Fatalf("cut at %d: %d entries, %d sent, %d done, run %q; want %d, %d, %d, %q", cut, j.entries, j.sent, j.done, j.run, entries, sent, done, run)
		}
		// It goes on from there.
		if _, err := j.add([]entry{{Metric: "m", Value: 1, Step: 99}}, 10); err != nil {
			t.Fatal(err)
		}
		got, _, err := j.next(100)
		if err != nil || int64(len(got)) != entries-done+1 || got[len(got)-1].Step != 99 {
			t.Fatalf("cut at %d: %d entries, %v", cut, len(got), err)
		}
		j.keep(false)
	}
}

func TestJournalHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	if other, err := adoptJournal(filepath.Join(dir, "x.journal"), 1<<20); other != nil || err != nil {
		t.Errorf("%v, %v", other, err)
	}
	file := j.keep(false)
	other, err := adoptJournal(file, 1<<20)
	if other == nil || err != nil {
		t.Fatalf("%v, %v", other, err)
	}
	other.remove()
	if gone, err := adoptJournal(file, 1<<20); gone != nil || err != nil {
		t.Errorf("%v, %v", gone, err)
	}
}

// A disk that refuses: everything goes on in memory, in order, and no file is
// left that a later start would send again.
func TestJournalGivenUp(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	j.add([]entry{{Metric: "m", Step: 0}, {Metric: "m", Step: 1}, {Metric: "m", Step: 2}}, 10)
	_, after, err := j.next(1)
	if err != nil {
		t.Fatal(err)
	}
	j.f.Close() // every write fails from here
	f, err := os.Open(j.file)
	if err != nil {
		t.Fatal(err)
	}
	j.f = f // readable, not writable
	j.mark(record{Done: 1}, false)
	j.advance(1, after)
	if _, err := j.add([]entry{{Metric: "m", Step: 3}}, 10); err == nil {
		t.Error("a write to a file that cannot be written")
	}
	var steps []int64
	for range 3 {
		got, after, err := j.next(1)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		steps = append(steps, got[0].Step)
		j.mark(record{Done: j.read + 1}, false)
		j.advance(1, after)
	}
	if steps[0] != 1 || steps[1] != 2 || steps[2] != 3 || j.left() != 0 {
		t.Errorf("%v, %d left", steps, j.left())
	}
	if n, err := j.add(make([]entry, 0), 10); n != 0 || err != nil {
		t.Error(n, err)
	}
	var many []entry
	for range 15 {
		many = append(many, entry{Metric: "m"})
	}
	if n, err := j.add(many, 10); n != 5 || err != nil {
		t.Errorf("%d dropped, %v", n, err)
	}
	if _, err := os.Stat(j.file); err == nil {
		t.Error("the file is still there")
	}
}

func TestJournalFull(t *testing.T) {
	j, err := createJournal(t.TempDir(), head{Identity: "x"}, 2000)
	if err != nil {
		t.Fatal(err)
	}
	var many []entry
	for range 100 {
		many = append(many, entry{Metric: "m"})
	}
	many = append(many, entry{End: Finished})
	dropped, err := j.add(many, 10)
	if err != nil || dropped == 0 || dropped > 95 || !j.ended() {
		t.Errorf("%d dropped, %v", dropped, err)
	}
}

func FuzzJournal(f *testing.F) {
	for _, r := range []record{{Head: &head{Version: 1, Identity: "x"}}, {Entry: &entry{Metric: "m", Text: "nan"}}, {Sent: 2}, {Done: 1}, {Run: "r"}} {
		line, err := encodeRecord(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	h, _ := encodeRecord(record{Head: &head{Version: 1, Identity: "x"}})
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeRecord(b)
		file := filepath.Join(t.TempDir(), "x.journal")
		if err := os.WriteFile(file, append(bytes.Clone(h), b...), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := adoptJournal(file, 1<<20)
		if err != nil {
			return
		}
		if j.done > j.entries || j.sent > j.entries {
			t.Errorf("%d done, %d sent of %d", j.done, j.sent, j.entries)
		}
		for {
			got, after, err := j.next(2)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				break
			}
			j.advance(len(got), after)
		}
		if j.read != j.entries {
			t.Errorf("%d read of %d", j.read, j.entries)
		}
		j.remove()
	})
}

// The numbers of an answer come in several spellings.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"metrics":[{"key":"a","value":"NaN","timestamp":"1","step":2}],"next_page_token":"x"}`))
	f.Add([]byte(`{"run":{"info":{"run_id":"1","start_time":null,"end_time":"5"},"data":{"tags":[{"key":"a"}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got struct {
			Metrics []apiMetric `json:"metrics"`
			Run     apiRun      `json:"run"`
			Runs    []apiRun    `json:"runs"`
		}
		if json.Unmarshal(b, &got) != nil {
			return
		}
		for _, m := range got.Metrics {
			out, err := m.Value.MarshalJSON()
			var back real
			if err != nil || back.UnmarshalJSON(out) != nil || !sameNumber(float64(back), float64(m.Value)) {
				t.Errorf("%v became %s", m.Value, out)
			}
		}
	})
}
