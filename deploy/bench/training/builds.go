package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"atelier/deploy/bench/harness"
)

func buildsKey(p point) string { return "builds " + strings.TrimPrefix(p.key(), "steps ") }

// measureBuilds measures steps of this build beside those of another, each in the
// layout that it takes by itself.
func (b *bench) measureBuilds(ctx context.Context) error {
	if b.base == "" {
		return errors.New("part builds needs --base, the folder of another build's programs")
	}
	for _, threads := range b.threads {
		for _, size := range b.sizes {
			for _, model := range b.models {
				for _, precision := range b.precisions {
					p := point{model, size, b.batch, threads, precision, b.device}
					if _, err := harness.Measure(b.Session, buildsKey(p), func() (steps, error) { return b.besideBase(ctx, p) }); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (b *bench) besideBase(ctx context.Context, p point) (steps, error) {
	ours := b.stepsCommand("ours", "auto", p)
	theirs := append([]string{filepath.Join(b.base, "atelier-trainer")}, ours[1:]...)
	return b.pair(ctx, p, [2]string{"ours", "base"}, [2][]string{ours, theirs})
}

// buildsTable is Markdown, a row for each model and size.
func buildsTable(j *harness.Journal) string {
	table := harness.NewTable("model", "px", "threads", "precision", "this / base", "each round")
	var all []float64
	for _, key := range j.Keys("builds") {
		var p point
		var s steps
		if !parseKey("steps "+strings.TrimPrefix(key, "builds "), &p) || !j.Newest(key, &s) {
			continue
		}
		ours, base := s.Rates["ours"], s.Rates["base"]
		var rounds []float64
		for i := range min(len(ours), len(base)) {
			rounds = append(rounds, ours[i]/base[i])
		}
		all = append(all, harness.Ratio(ours, base))
		table.Cells(p.Model, fmt.Sprint(p.Size), fmt.Sprint(p.Threads), p.Precision, beside(ours, base, barBuild), each("%.3f", rounds))
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("### This build beside another: images a second\n\n%s\nGeometric mean of the ratios: %.3f.\n\n%s", table, harness.GeometricMean(all), j.Conditions("builds"))
}
