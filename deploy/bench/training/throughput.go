package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"atelier/deploy/bench/harness"
)

// point is one row of the tables in one precision.
type point struct {
	Model     string `json:"model"`
	Size      int    `json:"size"` // pixels
	Batch     int    `json:"batch"`
	Threads   int    `json:"threads"`
	Precision string `json:"precision"`
	Device    string `json:"device,omitempty"` // empty: the CPU
}

func (p point) key() string {
	key := fmt.Sprintf("steps model=%s size=%d batch=%d threads=%d precision=%s", p.Model, p.Size, p.Batch, p.Threads, p.Precision)
	if p.Device != "" {
		key += " device=" + p.Device
	}
	return key
}

var layouts = []string{"default", "channels_last"}

// steps is what was measured at a point, by side.
type steps struct {
	Auto  string               `json:"auto"`         // the layout ours takes by itself
	Rates map[string][]float64 `json:"images_per_s"` // one a round
	Peak  map[string]float64   `json:"peak_mib"`
	Fault map[string]string    `json:"fault,omitempty"` // what a side of PyTorch's that cannot do this said
}

// same is ours over PyTorch in the same layout, own default over PyTorch's.
func (s steps) same(layout string) float64 {
	return harness.Ratio(s.Rates["ours "+layout], s.Rates["pytorch "+layout])
}

func (s steps) own() float64 {
	return harness.Ratio(s.Rates["ours "+s.Auto], s.Rates["pytorch default"])
}

// measureSteps measures every point that the journal lacks.
func (b *bench) measureSteps(ctx context.Context) error {
	for _, threads := range b.threads {
		for _, size := range b.sizes {
			for _, model := range b.models {
				for _, precision := range b.precisions {
					p := point{model, size, b.batch, threads, precision, b.device}
					if _, err := harness.Measure(b.Session, p.key(), func() (steps, error) { return b.takeTurns(ctx, p) }); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// takeTurns starts all sides and lets them take turns.
func (b *bench) takeTurns(ctx context.Context, p point) (s steps, err error) {
	s = steps{Rates: map[string][]float64{}, Peak: map[string]float64{}, Fault: map[string]string{}}
	var all []*paced
	defer func() {
		for _, side := range all {
			side.kill()
		}
	}()
	for _, layout := range layouts {
		for _, who := range []string{"ours", "pytorch"} {
			side, err := startPaced(ctx, who+" "+layout, b.stepsCommand(who, layout, p))
			if err != nil {
				return s, err
			}
			// One after the other: a warm-up beside another's would measure neither's memory nor spare time.
			if err := side.ready(); err != nil && who == "pytorch" && ctx.Err() == nil {
				s.Fault[side.name] = lastLine(side.fault.String())
				b.Say("%s: %s: %s", p.key(), side.name, s.Fault[side.name])
				continue
			} else if err != nil {
				side.kill()
				return s, err
			}
			all = append(all, side)
			if side.auto != "" {
				s.Auto = side.auto
			}
		}
	}
	return s, b.blocks(all, p, &s)
}

// blocks lets each side that is ready do a block of steps a round, in an order
// that turns round each time, and ends them.
func (b *bench) blocks(all []*paced, p point, s *steps) (err error) {
	// The first block, of one step, tells how many make a block; it does not count.
	slowest := math.Inf(1)
	for _, side := range all {
		rate, err := side.block(1)
		if err != nil {
			return err
		}
		slowest = min(slowest, rate)
	}
	n := stepsIn(b.block, slowest/float64(p.Batch))
	if err := harness.Turns(b.Rounds, len(all), func(_, i int) error {
		rate, err := all[i].block(n)
		s.Rates[all[i].name] = append(s.Rates[all[i].name], rate)
		return err
	}); err != nil {
		return err
	}
	for _, side := range all {
		if s.Peak[side.name], err = side.close(); err != nil {
			return err
		}
	}
	return nil
}

// lastLine is where Python says what went wrong.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// stepsIn is how many steps fill a block at stepsPerSecond, 1 to 50.
func stepsIn(block time.Duration, stepsPerSecond float64) int {
	return int(min(50, max(1, math.Round(block.Seconds()*stepsPerSecond))))
}

func (p *paced) block(steps int) (float64, error) {
	if err := p.begin(steps); err != nil {
		return 0, fmt.Errorf("%s: %w", p.name, err)
	}
	return p.end()
}

// stepsCommand is the command line of a side.
func (b *bench) stepsCommand(who, layout string, p point) []string {
	args := []string{b.trainer(), "bench", "--paced"}
	if who == "pytorch" {
		args = []string{b.Python, filepath.Join(b.Dir, "peer", "steps.py")}
	}
	if p.Device != "" {
		args = append(args, "--device", p.Device)
	}
	return append(args, "--model", p.Model, "--size", strconv.Itoa(p.Size), "--batch", strconv.Itoa(p.Batch), "--threads", strconv.Itoa(p.Threads),
		"--precision", p.Precision, "--layout", layout, "--warmup", "1")
}
