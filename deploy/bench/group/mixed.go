package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

const (
	mixedSweeps = 40
	mixedTrials = 2 // of each sweep
	barUse      = 0.9
)

// load is many sweeps at once, whose trials take different numbers of slots.
type load struct {
	Slots   int       `json:"slots"`
	Ended   int       `json:"ended"` // trials that finished
	Trials  int       `json:"trials"`
	Use     float64   `json:"use"` // of slots, while trials wait
	Seconds float64   `json:"seconds"`
	Waits   []longest `json:"waits"`
	Other   []string  `json:"other,omitempty"` // trials that ended in another way
}

// longest wait of the trials of one size.
type longest struct {
	Members int     `json:"members"`
	P50     float64 `json:"p50_s"`
	Most    float64 `json:"most_s"`
	Bound   float64 `json:"bound_s"` // patience, a trial of each sweep, and three of the longest runs
}

// measureMixed submits all sweeps at once and looks at the records when they have
// ended: who had which slot from when to when, and who waited.
func (b *bench) measureMixed(ctx context.Context) error {
	data, err := b.draw(ctx, 24, 8, 32)
	if err != nil {
		return err
	}
	for _, l := range []struct {
		name           string
		workers, slots int // slots of each worker
		sizes          []int
		sweeps         int
		training       string
	}{
		{"sim", 2, 2, []int{1, 2, 4}, b.count(mixedSweeps, 6), "trainer: sim\ntraining: {epochs: 4, epoch_seconds: 0.5, members: %d}\n"},
		{"torch", 2, 1, []int{1, 2}, b.count(mixedSweeps, 4), "trainer: torch\ntraining: {epochs: 2, model: vanilla, image_size: 32, batch_size: 16, shards: 2, members: %d, " +
			fmt.Sprintf("data: {train: %s/train, validation: %[1]s/validation}}\n", data)},
	} {
		key := fmt.Sprintf("mixed trainer=%s sweeps=%d slots=%d", l.name, l.sweeps, l.workers*l.slots)
		if _, err := harness.Measure(b.Session, key, func() (x load, err error) {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
			defer cancel()
			m, err := b.startMachines(ctx, "mixed", 1, l.workers, l.slots, l.name, nil)
			if err != nil {
				return x, err
			}
			defer m.close()
			return m.sweeps(ctx, l.workers*l.slots, l.sweeps, l.sizes, l.training)
		}); err != nil {
			return err
		}
	}
	return nil
}

// sweeps submits so many, of each size in turn, and waits for all.
func (m *machines) sweeps(ctx context.Context, slots, n int, sizes []int, training string) (x load, err error) {
	c := m.Client()
	size := map[string]int{}
	var ids []string
	began := time.Now()
	for i := range n {
		members := sizes[i%len(sizes)]
		spec := fmt.Sprintf("name: mixed-%d\nsearch_method: random\nseed: %[1]d\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: %d}\nparallelism: %[2]d\n"+
			"space:\n  lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}\n", i+1, mixedTrials) + fmt.Sprintf(training, members)
		s, _, err := c.Submit(ctx, client.Submission{Spec: spec, Name: "mixed"})
		if err != nil {
			return x, err
		}
		ids = append(ids, s.ID)
		size[s.ID] = members
	}
	for _, id := range ids {
		if _, err := c.Follow(ctx, id, func(*trial.Sweep) error { return nil }); err != nil {
			return x, fmt.Errorf("sweep %s: %w", id, err)
		}
	}
	x.Slots, x.Seconds = slots, time.Since(began).Seconds()
	var all []*trial.Trial
	for _, id := range ids {
		for t, err := range c.Trials(ctx, id, client.Which{}) {
			if err != nil {
				return x, err
			}
			all = append(all, t)
			if x.Trials++; t.Status == trial.Finished {
				x.Ended++
			} else {
				x.Other = append(x.Other, fmt.Sprintf("sweep %s trial %d: %s %s", id, t.Number, t.Status, t.Failure))
			}
		}
	}
	x.Use = slotUse(all, size, slots)
	waits, run := sweepWaits(all), map[string]float64{} // run: the longest one of a sweep
	for _, t := range all {
		for _, r := range t.Runs {
			run[t.Sweep] = max(run[t.Sweep], float64(r.EndedMS-r.StartedMS)/1000)
		}
	}
	for _, members := range sizes {
		var own []float64
		bound, most := patience, 0.0
		for _, id := range ids {
			if size[id] == members {
				own = append(own, waits[id]...)
			}
			bound, most = bound+run[id]*float64(size[id])/float64(slots), max(most, run[id])
		}
		x.Waits = append(x.Waits, longest{members, harness.Median(own), slices.Max(own), bound + 3*most})
	}
	return x, nil
}

// patience is how long a gang lets others pass (coordinator/duty/DESIGN.md), seconds.
const patience = 30.0

// sweepWaits are the seconds that each sweep had a trial to give and got no slots.
func sweepWaits(all []*trial.Trial) map[string][]float64 {
	byStart := slices.Clone(all)
	slices.SortFunc(byStart, func(a, b *trial.Trial) int { return cmp.Compare(a.StartedMS, b.StartedMS) })
	waits, before := map[string][]float64{}, map[string]int64{}
	for _, t := range byStart {
		if t.StartedMS == 0 {
			continue
		}
		waits[t.Sweep] = append(waits[t.Sweep], float64(t.StartedMS-max(t.CreatedMS, before[t.Sweep]))/1000)
		before[t.Sweep] = t.StartedMS
	}
	return waits
}

// slotUse is the share of the slots' time that runs had, over the time in which
// trials waited: from their making, or the end of a run, to the next run's start.
func slotUse(all []*trial.Trial, size map[string]int, slots int) float64 {
	type change struct {
		at          int64
		busy, waits int
	}
	var changes []change
	for _, t := range all {
		from := t.CreatedMS
		for _, r := range t.Runs {
			changes = append(changes, change{from, 0, 1}, change{r.StartedMS, size[t.Sweep], -1}, change{r.EndedMS, -size[t.Sweep], 0})
			from = r.EndedMS
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.at, b.at) })
	var busy, waits int
	var used, time float64
	for i, c := range changes {
		if i > 0 && waits > 0 {
			d := float64(c.at - changes[i-1].at)
			used, time = used+d*float64(busy), time+d*float64(slots)
		}
		busy, waits = busy+c.busy, waits+c.waits
	}
	return used / time
}

// mixedTable is Markdown.
func mixedTable(j *harness.Journal) string {
	keys := j.Keys("mixed")
	if len(keys) == 0 {
		return ""
	}
	table := harness.NewTable("load", "slots", "trials that finished", "use of slots while trials wait", "longest wait of a sweep by members, s: seen (median) / rule", "seconds")
	var others []string
	for _, key := range keys {
		var x load
		if !j.Newest(key, &x) {
			continue
		}
		var words []string
		for _, w := range x.Waits {
			words = append(words, fmt.Sprintf("%d: %.1f (%.1f) / %.1f", w.Members, w.Most, w.P50, w.Bound))
		}
		table.Row("%s | %d | %d of %d | %s | %s | %.0f", key[len("mixed "):], x.Slots, x.Ended, x.Trials, marked(x.Use, barUse, true), strings.Join(words, "; "), x.Seconds)
		others = append(others, x.Other...)
	}
	text := fmt.Sprintf("### Sweeps of mixed sizes\n\n%s\nBar of use: %.1f. The rule (coordinator/duty/DESIGN.md) comes to at most its patience of 30 s, one trial of each sweep, and three of the longest runs.\n", table, barUse)
	for _, o := range others {
		text += "- " + o + "\n"
	}
	return text + "\n" + j.Conditions("mixed")
}
