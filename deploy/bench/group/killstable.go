package main

import (
	"fmt"
	"slices"
	"strings"

	"atelier/deploy/bench/harness"
)

// killsTable is Markdown: a row for each kind of fault, and what was wrong.
func killsTable(j *harness.Journal) string {
	settledBy, pauseBy, missing, total, restarted := map[string][]float64{}, map[string][]float64{}, map[string]int{}, map[string]int{}, map[string]int{}
	var wrong []string
	var joins, joinPauses, cold, steps, lost, lostReporter []float64
	runs, faults, calm, dear := 0, 0, 0, 0
	for _, key := range j.Keys("kills") {
		var r killRun
		if !j.Newest(key, &r) || r.Want == "" {
			continue
		}
		runs++
		wrong = append(wrong, r.Wrong...)
		if r.Step > 0 {
			steps = append(steps, 1000*r.Step)
		}
		for _, f := range r.Faults {
			faults++
			total[f.Kind]++
			if f.Restarted {
				restarted[f.Kind]++
				continue
			}
			if f.Settled == 0 {
				missing[f.Kind]++
				continue
			}
			settledBy[f.Kind] = append(settledBy[f.Kind], f.Settled)
			if f.Pause > 0 {
				pauseBy[f.Kind] = append(pauseBy[f.Kind], f.Pause)
			}
			if slices.Contains([]string{"reporter", "member", "joining"}, f.Kind) {
				lost = append(lost, f.Settled)
				if f.Reporter {
					lostReporter = append(lostReporter, f.Settled)
				}
			}
		}
		for _, x := range r.Joins {
			if r.Logs && !x.Lost { // else the loss is what the step is done again for
				calm++
				if x.Redone > 0 {
					dear++
				}
			}
			if !x.Warm {
				cold = append(cold, x.Took)
				continue
			}
			joins = append(joins, x.Took)
			if x.Pause > 0 {
				joinPauses = append(joinPauses, x.Pause)
			}
		}
	}
	if runs == 0 {
		return ""
	}
	table := harness.NewTable("fault", "what", "how often", "to the new view, ms: p50", "p99", "most", "between the commits around it, ms: p50", "most", "no view needed", "all members gone: a further run")
	for _, f := range allFaults {
		if total[f.name] == 0 {
			continue
		}
		s, p := settledBy[f.name], pauseBy[f.name]
		table.Cells(f.name, f.what, fmt.Sprint(total[f.name]), ms(s, 0.5), ms(s, 0.99), ms(s, 1), ms(p, 0.5), ms(p, 1), fmt.Sprint(missing[f.name]), fmt.Sprint(restarted[f.name]))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "### Faults: %s, %d px, batch %d, %d shards, 1 to %d members; %d trainings, %d faults\n\n%s\n", killModel, killSize, killBatch, killShards, killWorkers, runs, faults, table)
	fmt.Fprintf(&out, "A step takes %.0f ms (median of the trainings). A member that was killed: the others do its step again after p50 %s ms (bar %.0f), p99 %s ms (bar %.0f); of them the one that reports: p50 %s, most %s (%d). "+
		"Stopped: most %s ms (bar %.0f). Joining with a warm trainer: p50 %s ms, most %s ms (bar %.0f; %d joins); between the commits around it p50 %s, most %s ms. Joining with a trainer that had to start: p50 %s, most %s ms (%d joins). "+
		"Of %d joins at which no other member was lost %d had the others do a step again (bar 0).\n\n",
		harness.Median(steps), ms(lost, 0.5), barLostP50, ms(lost, 0.99), barLostP99, ms(lostReporter, 0.5), ms(lostReporter, 1), len(lostReporter),
		ms(settledBy["stop"], 1), barStopped, ms(joins, 0.5), ms(joins, 1), barJoin, len(joins), ms(joinPauses, 0.5), ms(joinPauses, 1), ms(cold, 0.5), ms(cold, 1), len(cold), calm, dear)
	if len(wrong) == 0 {
		out.WriteString("Every training ended, every hash is that of one process, every epoch was reported once.\n\n")
	}
	for _, w := range wrong {
		fmt.Fprintf(&out, "- **wrong**: %s\n", w)
	}
	out.WriteString("\n" + j.Conditions("kills"))
	return out.String()
}

// ms is a quantile of milliseconds; a dash of none.
func ms(values []float64, q float64) string {
	if len(values) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", harness.Quantile(values, q))
}
