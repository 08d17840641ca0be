package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"time"

	"atelier/deploy/bench/harness"
)

// share is how a machine's cores are split: so many slots of so many threads.
type share struct{ Slots, Threads int }

func (s share) String() string { return fmt.Sprintf("%dx%d", s.Slots, s.Threads) }

// shares are the even splits of cores, one slot with all of them first.
func shares(cores int) (out []share) {
	for n := 1; n <= cores; n++ {
		if cores%n == 0 {
			out = append(out, share{n, cores / n})
		}
	}
	return out
}

// together is what all slots of each split did, by the split's name.
type together struct {
	Rates map[string][]float64 `json:"images_per_s"` // of all slots together, one a round
	Peak  map[string]float64   `json:"peak_mib"`     // of one slot's process
}

func slotsKey(p point, cores int) string {
	return fmt.Sprintf("slots model=%s size=%d batch=%d cores=%d precision=%s", p.Model, p.Size, p.Batch, cores, p.Precision)
}

func parseSlotsKey(key string, p *point, cores *int) bool {
	n, err := fmt.Sscanf(key, "slots model=%s size=%d batch=%d cores=%d precision=%s", &p.Model, &p.Size, &p.Batch, cores, &p.Precision)
	return err == nil && n == 5 && slotsKey(*p, *cores) == key
}

// measureSlots lets each split of the cores train at full width in turn.
func (b *bench) measureSlots(ctx context.Context) error {
	cores := runtime.NumCPU()
	for _, size := range b.sizes {
		for _, model := range b.models {
			for _, precision := range b.precisions {
				p := point{Model: model, Size: size, Batch: b.batch, Precision: precision}
				if _, err := harness.Measure(b.Session, slotsKey(p, cores), func() (together, error) { return b.together(ctx, p, cores) }); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) together(ctx context.Context, p point, cores int) (t together, err error) {
	t = together{Rates: map[string][]float64{}, Peak: map[string]float64{}}
	var groups [][]*paced
	defer func() {
		for _, g := range groups {
			for _, s := range g {
				s.kill()
			}
		}
	}()
	splits := shares(cores)
	for i, s := range splits {
		groups = append(groups, nil)
		p.Threads = s.Threads
		for n := range s.Slots {
			one, err := startPaced(ctx, s.String()+" slot "+strconv.Itoa(n), b.stepsCommand("ours", "auto", p))
			if err != nil {
				return t, err
			}
			groups[i] = append(groups[i], one)
		}
		for _, one := range groups[i] {
			if err := one.ready(); err != nil {
				return t, err
			}
		}
	}
	steps := make([]int, len(splits)) // a slot's in a block
	for i, g := range groups {
		rate, err := all(g, 1, p.Batch)
		if err != nil {
			return t, err
		}
		steps[i] = stepsIn(b.block, rate/float64(p.Batch*len(g)))
	}
	if err := harness.Turns(b.Rounds, len(splits), func(_, i int) error {
		rate, err := all(groups[i], steps[i], p.Batch)
		t.Rates[splits[i].String()] = append(t.Rates[splits[i].String()], rate)
		return err
	}); err != nil {
		return t, err
	}
	for i, g := range groups {
		for _, one := range g {
			mib, err := one.close()
			if err != nil {
				return t, err
			}
			t.Peak[splits[i].String()] = max(t.Peak[splits[i].String()], mib)
		}
	}
	return t, nil
}

// all starts a block in every slot at once and returns images a second of all
// together, by the last to end.
func all(g []*paced, steps, batch int) (float64, error) {
	t := time.Now()
	for _, one := range g {
		if err := one.begin(steps); err != nil {
			return 0, err
		}
	}
	for _, one := range g {
		if _, err := one.end(); err != nil {
			return 0, err
		}
	}
	return float64(len(g)*steps*batch) / time.Since(t).Seconds(), nil
}

// slotsTable is Markdown, a row for each model, size and precision, for the
// machine of the newest measurement.
func slotsTable(j *harness.Journal) string {
	cores := 0
	keys := j.Keys("slots")
	if len(keys) == 0 || !parseSlotsKey(keys[len(keys)-1], new(point), &cores) || cores < 2 {
		return "" // one core cannot be split
	}
	splits := shares(cores)
	columns := []string{"model", "px", "precision"}
	for _, s := range splits {
		columns = append(columns, s.String())
	}
	for _, s := range splits {
		columns = append(columns, "MiB, "+s.String())
	}
	table := harness.NewTable(append(columns, "best split / "+splits[0].String())...)
	var gains []float64
	for _, key := range keys {
		var p point
		var t together
		n := 0
		if !parseSlotsKey(key, &p, &n) || n != cores || !j.Newest(key, &t) {
			continue
		}
		cells := []string{p.Model, strconv.Itoa(p.Size), p.Precision}
		best := math.Inf(-1)
		for _, s := range splits {
			cells = append(cells, figure(harness.Median(t.Rates[s.String()])))
			if s != splits[0] {
				best = max(best, harness.Ratio(t.Rates[s.String()], t.Rates[splits[0].String()]))
			}
		}
		for _, s := range splits {
			cells = append(cells, fmt.Sprintf("%.0f", float64(s.Slots)*t.Peak[s.String()]))
		}
		gains = append(gains, best)
		table.Cells(append(cells, bold(best, 1))...)
	}
	return fmt.Sprintf("### Slots: images a second of all slots together\n\n%s\nGeometric mean of the last column: **%.2f**. %s", table, harness.GeometricMean(gains), j.Conditions("slots"))
}
