package main

import (
	"strings"
	"testing"
	"time"

	"atelier/deploy/bench/harness"
)

// Ratios are of rounds; settings that were not asked for have no part in them.
func TestTables(t *testing.T) {
	j, err := harness.OpenJournal("", "p")
	if err != nil {
		t.Fatal(err)
	}
	o := &options{Session: &harness.Session{Journal: j, Rounds: 2}, size: 64, threads: 2, precision: "fp32", images: 100, clients: 4, requests: 2}
	if o.productionTable() != "" || o.servedTable() != "" {
		t.Error("tables of nothing")
	}
	add := func(part string, side, round int, result any) {
		t.Helper()
		if err := j.Add(o.key(part, side, round), time.Unix(0, 0), 0, result); err != nil {
			t.Fatal(err)
		}
	}
	for round, seconds := range []float64{1, 2, 50} { // the third round is not asked for
		add("production", 0, round, turn{Used: harness.Used{Wall: seconds, CPU: 2}})
		add("production", 1, round, turn{Used: harness.Used{Wall: 5 * seconds, CPU: 8}, Bare: 4, Images: 100})
		add("serve", 0, round, burst{Rate: 3 * seconds, Took: []float64{0.1, 0.3}})
		add("serve", 1, round, burst{Rate: seconds, Took: []float64{0.2}})
	}
	text := o.productionTable() + o.servedTable()
	for _, want := range []string{"| production mode, resnet18, 64 px, fp32, 100 images, 2 threads |", "| ours, start to end | 1.5 | 66.7 | 2.0 |", "| ratio, median of 2 rounds | 5.00 | | 4.00 |",
		"| batches of up to 32 | 4.5 | 100 | 300 |", "| ratio, median of 2 rounds | 3.00 | | |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	o.threads = 1
	if o.productionTable() != "" {
		t.Error("a table of other settings")
	}
}
