// Command stop measures what stopping rules save: sweeps of simulated trainings
// in virtual time, once without a rule and once with each, over the same trials.
//
// The trainings come from a surrogate of real ones: testdata/curves.json holds
// the curves that `stop record` had the trainer draw.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"atelier/deploy/bench/harness"
	"atelier/tuner/stop"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "record" {
		harness.Main("record", os.Args[2:], record)
		return
	}
	harness.Main("stop", os.Args[1:], measure)
}

// rules measured; max_epochs is the surrogate's.
var rules = []string{
	`{"rule":"asha","max_epochs":%d}`,
	`{"rule":"asha","max_epochs":%d,"spend":0}`,
	`{"rule":"asha","min_epochs":1,"max_epochs":%d,"reduction":3}`,
	`{"rule":"hyperband","min_epochs":1,"max_epochs":%d,"reduction":3}`,
	`{"rule":"median"}`,
	`{"rule":"percentile","percentile":25}`,
	`{"rule":"patience","patience":5}`,
}

// figure is one rule over all seeds. Loss is how much worse than the full
// search the best value is, as a share of the full search's; below 0 is better.
type figure struct {
	Metric     string  `json:"metric"`
	Rule       string  `json:"rule"`
	Trials     int     `json:"trials"`
	Workers    int     `json:"workers"`
	Seeds      int     `json:"seeds"`
	LossMedian float64 `json:"loss_median"`
	LossMean   float64 `json:"loss_mean"`
	LossP90    float64 `json:"loss_p90"`
	LossWorst  float64 `json:"loss_worst"`
	WorthMean  float64 `json:"worth_loss_mean"` // the same for what the winner is worth without noise
	Epochs     float64 `json:"epochs_share"`    // of the full search's, mean
	Seconds    float64 `json:"time_share"`      // mean
	Whole      float64 `json:"whole"`           // trials trained to the end, mean
	Resumed    float64 `json:"resumed"`         // mean
}

func measure(h *harness.Session) {
	trials := h.Flags.Int("trials", 256, "trials of a sweep")
	workers := h.Flags.Int("workers", 32, "workers")
	seeds := h.Flags.Int("seeds", 50, "sweeps of each rule")
	only := h.Flags.String("rule", "", "this rule alone, as JSON")
	h.Parts = []harness.Part{{Name: "rules", Run: func(context.Context) error { return measureRules(h, *only, *trials, *workers, *seeds) }}}
}

func measureRules(h *harness.Session, only string, trials, workers, seeds int) error {
	out := json.NewEncoder(os.Stdout)
	if only != "" {
		rules = []string{only}
	}
	for _, metric := range []string{"val_acc", "val_loss"} {
		s, err := newSurrogate(metric)
		if err != nil {
			return err
		}
		h.Say("%s: %d recorded curves of %d epochs; order of pairs kept from epoch 1, 3, 9 to the last: %.2f, %.2f, %.2f",
			metric, len(s.curves), s.epochs(), s.kept(1), s.kept(3), s.kept(9))
		for _, text := range rules {
			f, err := s.compare(metric, text, trials, workers, seeds)
			if err != nil {
				return err
			}
			if err := out.Encode(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare runs sweeps with and without a rule.
func (s *surrogate) compare(metric, text string, trials, workers, seeds int) (figure, error) {
	if slices.Contains([]byte(text), '%') {
		text = fmt.Sprintf(text, s.epochs())
	}
	rule, err := stop.Parse([]byte(text))
	if err != nil {
		return figure{}, err
	}
	f := figure{Metric: metric, Rule: text, Trials: trials, Workers: workers, Seeds: seeds}
	p := stop.Problem{Metric: metric, Maximize: metric == "val_acc"}
	var losses []float64
	for seed := range uint64(seeds) {
		full := sweep(stop.Settings{Rule: stop.None}, p, s.trials(seed, trials), workers)
		got := sweep(rule, p, s.trials(seed, trials), workers)
		n := float64(seeds)
		loss, worth := got.value/full.value-1, got.worth/full.worth-1
		if p.Maximize {
			loss, worth = -loss, -worth
		}
		losses = append(losses, loss)
		f.LossMean += loss / n
		f.WorthMean += worth / n
		f.Epochs += float64(got.epochs) / float64(full.epochs) / n
		f.Seconds += got.seconds / full.seconds / n
		f.Whole += float64(got.whole) / n
		f.Resumed += float64(got.resumed) / n
	}
	f.LossMedian, f.LossP90, f.LossWorst = harness.Median(losses), harness.Quantile(losses, 0.9), slices.Max(losses)
	return f, nil
}

// kept is the share of pairs of recorded curves whose order at an epoch is that
// of the last epoch: what is missing to 1 are crossings.
func (s *surrogate) kept(epoch int) float64 {
	same, all := 0, 0
	last := s.epochs() - 1
	for i, a := range s.curves {
		for _, b := range s.curves[:i] {
			all++
			if (a[epoch-1] < b[epoch-1]) == (a[last] < b[last]) {
				same++
			}
		}
	}
	return float64(same) / float64(all)
}
