package state_test

import (
	"cmp"
	"fmt"
	"strings"

	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/state"
)

func (s *stage) show(said transcript.Command) string {
	v := s.m.View()
	var b strings.Builder
	if id := said.Word(0); id == "" {
		fmt.Fprintf(&b, "  index %d cluster %q members %v drained %v\n", v.Index(), v.ClusterID(), v.Members(), v.DrainedWorkers())
		for _, sweep := range v.Sweeps() {
			fmt.Fprintf(&b, "  %s %s\n", sweep.ID, short(sweep.Status))
		}
	} else if at, gone := v.Purged(id); gone {
		fmt.Fprintf(&b, "  %s was deleted at %d, %d trials are left in all\n", id, at, v.Trials())
	} else if sweep, ok := v.Sweep(id); !ok {
		fmt.Fprintf(&b, "  no sweep %s\n", id)
	} else {
		c := sweep.Counts
		fmt.Fprintf(&b, "  %s budget=%d proposed=%d waiting=%v open=%v running=%d runs=%d reports=%d", short(sweep.Status), sweep.Budget, c.Proposed, sweep.Waiting(), sweep.Open(), c.Running, c.Runs, c.Reports)
		if best := sweep.Best(); best != nil {
			fmt.Fprintf(&b, " best=%d", best.Number)
		}
		if sweep.Failure != "" {
			fmt.Fprintf(&b, " failure=%q", sweep.Failure)
		}
		if sweep.BudgetEpochs > 0 {
			fmt.Fprintf(&b, " epochs=%d/%d", sweep.Epochs, sweep.BudgetEpochs)
		}
		if sweep.BudgetMS > 0 {
			fmt.Fprintf(&b, " time=%d/%d", sweep.Spent(int64(s.index)*1000), sweep.BudgetMS)
		}
		if sweep.CheckpointBytes > 0 {
			fmt.Fprintf(&b, " bytes=%d/%d", sweep.StoredBytes, sweep.CheckpointBytes)
		}
		if q := sweep.Queue(); len(q) > 0 {
			fmt.Fprintf(&b, " queue=%v", q)
		}
		if sweep.Priority != 0 {
			fmt.Fprintf(&b, " priority=%d", sweep.Priority)
		}
		if sweep.Ending != "" {
			fmt.Fprintf(&b, " ending=%q", sweep.Ending)
		}
		if sweep.Name != "" {
			fmt.Fprintf(&b, " name=%q", sweep.Name)
		}
		if len(sweep.Tags) > 0 {
			fmt.Fprintf(&b, " tags=%q", sweep.Tags)
		}
		if sweep.UserNote != "" {
			fmt.Fprintf(&b, " note=%q", sweep.UserNote)
		}
		if n := sweep.Notification; n != nil {
			attempts, pending := sweep.PendingNotification()
			fmt.Fprintf(&b, " notify=%s on=%v pending=%v(%d) error=%q done=%v", n.URL, n.On, pending, attempts, n.Error, n.Done)
		}
		if sweep.ArchivedMS+sweep.DeletedMS != 0 {
			fmt.Fprintf(&b, " archived=%d deleted=%d purge=%d", sweep.ArchivedMS, sweep.DeletedMS, sweep.PurgeMS())
		}
		b.WriteString("\n")
		for tr := range sweep.Trials(1) {
			fmt.Fprintf(&b, "  %d %s", tr.Number, short(tr.Status))
			if tr.HasValue {
				fmt.Fprintf(&b, " value=%g@%d", tr.Value, tr.ValueEpoch)
			}
			if tr.Failure != "" {
				fmt.Fprintf(&b, " failure=%q", tr.Failure)
			}
			if said.Args["findings"] != "" {
				for _, f := range tr.Findings {
					fmt.Fprintf(&b, " #%d(%s", f.Ordinal, short(f.Status))
					if f.HasValue {
						fmt.Fprintf(&b, " %g@%d", f.Value, f.ValueEpoch)
					}
					b.WriteString(")")
				}
				fmt.Fprintf(&b, " from %s seen=%d", word(tr.Source), tr.ProposedSeen)
			}
			if tr.Origin.Trial != 0 {
				fmt.Fprintf(&b, " origin=%d@%d", tr.Origin.Trial, tr.Origin.Epoch)
			}
			if tr.StopReason != "" {
				fmt.Fprintf(&b, " stop=%q", tr.StopReason)
			}
			for _, run := range tr.Runs {
				fmt.Fprintf(&b, " run%d(%s %s", run.Number, run.Worker, word(run.Exit))
				if run.ResumedEpoch > 0 {
					fmt.Fprintf(&b, " from epoch %d", run.ResumedEpoch)
				}
				if g := run.Group; g != nil {
					fmt.Fprintf(&b, " %d-%d of %d:", g.Min, g.Max, g.Shards)
					for _, m := range g.Members {
						fmt.Fprintf(&b, " #%d %s", m.ID, m.Name())
						if m.Leaving {
							b.WriteString(" leaving")
						}
					}
					for _, e := range g.Ended {
						fmt.Fprintf(&b, ", #%d %s", e.Member, word(e.Exit))
					}
					if v := g.View(); v != nil {
						fmt.Fprintf(&b, ", view %d %v", v.Number, v.Members)
						if v.PauseMS != 0 {
							fmt.Fprintf(&b, " after %dms", v.PauseMS)
						}
					}
				}
				b.WriteString(")")
			}
			for _, p := range tr.Checkpoints {
				fmt.Fprintf(&b, " checkpoint%d(%s", p.Epoch, p.Location)
				if p.HasMetric {
					fmt.Fprintf(&b, " %g", p.Metric)
				}
				b.WriteString(")")
			}
			tr.Reports(func(r state.Report) bool {
				fmt.Fprintf(&b, " %d:", r.Epoch)
				for i, metric := range r.Metrics {
					if i > 0 {
						b.WriteString(",")
					}
					fmt.Fprintf(&b, "%s=%g", metric.Name, metric.Value)
				}
				return true
			})
			b.WriteString("\n")
		}
	}
	return b.String()
}

func short(s fmt.Stringer) string { return strings.ToUpper(s.String()) }

func word(s fmt.Stringer) string { return cmp.Or(s.String(), "unspecified") }
