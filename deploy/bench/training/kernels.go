package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"atelier/common/kernels"
	"atelier/deploy/bench/harness"
)

// shown are the models that show a kernel, those in which it has most to do.
// "all" is the whole table against libtorch's operators.
var shown = []struct {
	kernel string
	models []string
}{
	{"dense", []string{"resnet18"}},
	{"depthwise", []string{"mobilenet_v2"}},
	{"norm", []string{"resnet18", "efficientnet_b0"}},
	{"max_pool", []string{"vanilla"}},
	{"squeeze", []string{"efficientnet_b0"}},
	{"optimizer", []string{"resnet18"}},
	{"augment", []string{"vanilla"}}, // its steps change their images anew
	{"all", []string{"resnet18", "efficientnet_b0"}},
}

func kernelsKey(kernel string, p point) string {
	return "kernels kernel=" + kernel + " " + strings.TrimPrefix(p.key(), "steps ")
}

// measureKernels measures steps with all kernels beside steps with all but one, and
// beside steps with none.
func (b *bench) measureKernels(ctx context.Context) error {
	for _, threads := range b.threads {
		for _, size := range b.sizes {
			for _, row := range shown {
				for _, model := range row.models {
					for _, precision := range b.precisions {
						p := point{Model: model, Size: size, Batch: b.batch, Threads: threads, Precision: precision}
						_, err := harness.Measure(b.Session, kernelsKey(row.kernel, p), func() (steps, error) { return b.without(ctx, row.kernel, p) })
						if err != nil {
							return err
						}
					}
				}
			}
		}
	}
	return nil
}

// without lets two processes take turns, one without the kernel.
func (b *bench) without(ctx context.Context, kernel string, p point) (steps, error) {
	off := "-" + kernel
	if kernel == "all" {
		off = "none"
	}
	command := b.stepsCommand("ours", "channels_last", p)
	if kernel == "augment" {
		command = append(command, "--augmented")
	}
	return b.pair(ctx, p, [2]string{"with", "without"}, [2][]string{
		append(slices.Clone(command), "--kernels", "all"),
		append(slices.Clone(command), "--kernels", off),
	})
}

// pair lets two command lines take turns.
func (b *bench) pair(ctx context.Context, p point, names [2]string, commands [2][]string) (s steps, err error) {
	s = steps{Rates: map[string][]float64{}, Peak: map[string]float64{}}
	var both []*paced
	defer func() {
		for _, side := range both {
			side.kill()
		}
	}()
	for i, name := range names {
		side, err := startPaced(ctx, name, commands[i])
		if err != nil {
			return s, err
		}
		both = append(both, side)
		if err := side.ready(); err != nil {
			return s, err
		}
	}
	return s, b.blocks(both, p, &s)
}

// kernelsTable is Markdown, a row for each kernel and model, in the order of the
// table of kernels.
func kernelsTable(j *harness.Journal) string {
	found, sizes := map[string]steps{}, []int{64, 224}
	threads, batch := 0, 0
	for _, key := range j.Keys("kernels") {
		kernel, rest, _ := strings.Cut(strings.TrimPrefix(key, "kernels kernel="), " ")
		var p point
		var s steps
		if parseKey("steps "+rest, &p) && j.Newest(key, &s) {
			threads, batch = p.Threads, p.Batch
			found[fmt.Sprint(kernel, p.Model, p.Size, p.Precision)] = s
		}
	}
	if len(found) == 0 {
		return ""
	}
	table := harness.NewTable("kernel", "in place of", "model", "64 px, fp32", "64 px, bf16", "224 px, fp32", "224 px, bf16")
	for _, row := range shown {
		replaces := "libtorch's operators"
		for _, k := range kernels.All {
			if k.Name == row.kernel {
				replaces = k.Replaces
			}
		}
		for _, model := range row.models {
			cells := []string{row.kernel, replaces, model}
			for _, size := range sizes {
				for _, precision := range precisions {
					s := found[fmt.Sprint(row.kernel, model, size, precision)]
					cells = append(cells, beside(s.Rates["with"], s.Rates["without"], barSame))
				}
			}
			table.Cells(cells...)
		}
	}
	return fmt.Sprintf("### Kernels, %d threads, batch %d, channels_last: images a second, with / without = ratio\n\n%s\n%s", threads, batch, table, j.Conditions("kernels"))
}
