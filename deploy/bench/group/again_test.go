package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

// A join is told with the members that did a step again in its view, and whether
// another one was lost at the same moment.
func TestJoinsThatHadAStepDoneAgain(t *testing.T) {
	dir := t.TempDir()
	var m machines
	m.Cluster = &local.Cluster{}
	for w, views := range map[string][]int{"w1": {2, 3}, "w2": {3}} {
		of := filepath.Join(dir, w, "logs", "s-one", "1")
		if err := os.MkdirAll(of, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, v := range views {
			name := "run-1.log"
			if i > 0 {
				name = fmt.Sprintf("run-1-member-%d.log", i+1)
			}
			f, err := os.Create(filepath.Join(of, name))
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.NewTextHandler(f, nil))
			log.Info("view", "number", v, "step", 7)
			log.Info(trainerproto.LogAgain, "step", 8, "view", v, "behind", false)
			f.Close()
		}
		m.Workers = append(m.Workers, &local.Process{Name: w, Dir: filepath.Join(dir, w)})
	}
	view := func(number int32, members ...int32) seenView {
		return seenView{1, trial.View{Number: number, Members: members}}
	}
	member := func(id int32) grant { return grant{GroupMember: trial.GroupMember{ID: id}, run: 1} }
	f := &follower{m: &m, sweep: "s-one", views: []seenView{view(1, 1), view(2, 1, 2), view(3, 2, 3), view(4, 2, 3, 4)},
		granted: []grant{member(1), member(2), member(3), member(4)}}
	want := []join{{Redone: 1}, {Redone: 2, Lost: true}, {}}
	got := f.joins()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Of joins that were measured before the logs were read the table does not say that
// they cost nobody a step.
func TestTableCountsJoinsWhoseLogsWereRead(t *testing.T) {
	j, err := harness.OpenJournal(filepath.Join(t.TempDir(), "journal"), "programs")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	joins := []join{{Took: 1}, {Took: 2, Redone: 1}, {Took: 3, Redone: 1, Lost: true}}
	for i, r := range []killRun{{Want: "x", Joins: joins}, {Want: "x", Joins: joins, Logs: true}} {
		if err := j.Add(fmt.Sprintf("kills run=%d", i), time.Now(), 0, r); err != nil {
			t.Fatal(err)
		}
	}
	if text := killsTable(j); !strings.Contains(text, "Of 2 joins at which no other member was lost 1 had the others do a step again") {
		t.Error(text)
	}
}
