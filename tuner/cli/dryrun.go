package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/dataset"
	"atelier/common/settings"
	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/tuner/simulate"

	ucli "github.com/urfave/cli/v2"
)

// dryRun is what `sweep submit --dry-run` prints; its keys are never renamed.
type dryRun struct {
	Name         string              `json:"name"`
	SearchMethod string              `json:"search_method"`
	Algorithm    string              `json:"algorithm"` // of bayesian; else empty
	Trainer      string              `json:"trainer"`
	Seed         *uint64             `json:"seed"` // null: drawn when it is submitted
	Parameters   []string            `json:"parameters"`
	kinds        []string            // of the parameters, for people
	members      string              // of a trial, for people; empty where one slot takes it
	Points       *uint64             `json:"points"` // of the space; null where it is continuous
	Trials       *int64              `json:"trials"` // null: as many as epochs or time allow
	Parallelism  int64               `json:"parallelism"`
	TrialEpochs  *int64              `json:"trial_epochs"` // that one trial trains, unless it is stopped; null where trials differ
	Epochs       *int64              `json:"epochs"`       // of all trials together, at most
	About        *int64              `json:"about_epochs"` // of them with the stopping rule
	Stopping     json.RawMessage     `json:"stopping"`
	Images       map[string]int      `json:"images"` // by training, validation; null where the folders are not visible here
	Classes      []string            `json:"classes"`
	Seconds      *float64            `json:"seconds"`       // estimate; null where nothing is known
	EpochSeconds *float64            `json:"epoch_seconds"` // that it is made of
	Estimate     string              `json:"estimate"`      // what it rests on, or why there is none
	Proposals    []simulate.Proposal `json:"proposals"`
	Notes        []string            `json:"notes"`
}

// previewed is how many trials a dry run shows.
const previewed = 5

// A dry run can do without a cluster: it looks for a leader for clusterSearch at
// most, and waits for answers for clusterPatience in all.
const (
	clusterSearch   = 300 * time.Millisecond
	clusterPatience = 2 * time.Second
)

// dryRun prints what a spec would run; nothing is sent. A cluster is asked for
// what it knows of earlier sweeps, if one answers soon.
func (e *Env) dryRun(c *ucli.Context, name string, s *spec.Spec, base string) error {
	p, err := simulate.Look(c.Context, s, trialEpochs(s), previewed)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d := &dryRun{Name: s.Name, SearchMethod: s.SearchMethod, Algorithm: p.Algorithm, Trainer: s.Trainer, Parallelism: s.Parallelism,
		Points: known(p.Points), Trials: known(p.Trials), TrialEpochs: known(p.TrialEpochs), Epochs: known(p.Epochs), About: known(p.About),
		Stopping: json.RawMessage(cmp.Or(s.StoppingJSON, "null")), Proposals: p.Proposals, Notes: []string{}, Classes: []string{}}
	for _, x := range s.Space.Params {
		d.Parameters = append(d.Parameters, x.Name)
		d.kinds = append(d.kinds, fmt.Sprintf("%s (%s)", x.Name, x.Kind))
	}
	if s.Members.Group() {
		d.members, _ = slotsOf(&trial.Sweep{MembersMin: s.Members.Min, MembersMax: s.Members.Max, Shards: s.Shards})
	}
	if s.SeedSet {
		d.Seed = &s.Seed
	} else if len(s.Enqueue) < previewed && s.SearchMethod != "grid_search" {
		d.Notes = append(d.Notes, "the spec has no seed: one is drawn when it is submitted, and the points become others than these, which are of seed 0")
	}
	if s.WarmStart != "" {
		d.Notes = append(d.Notes, "the points are those without the results of "+s.WarmStart+", which only the cluster has")
	}
	if int64(len(p.Proposals)) > s.Parallelism && !slices.Contains([]string{"grid_search", "random", "sobol"}, s.SearchMethod) {
		d.Notes = append(d.Notes, fmt.Sprintf("points after the first %d depend on what the first report", s.Parallelism))
	}
	set, ok := torchSettings(s, base)
	if ok {
		d.images(set)
	}
	e.estimate(c, d, s, set, ok)
	return e.print(c, d, func() table { return d.table() })
}

// known is nil for a number that is not known.
func known[T int64 | uint64](n T) *T {
	if n == 0 {
		return nil
	}
	return &n
}

// trialEpochs is how far each trial trains; 0 where that differs, or where only
// the trainer knows.
func trialEpochs(s *spec.Spec) int64 {
	if slices.ContainsFunc(s.Space.Params, func(p space.Parameter) bool { return p.Name == "epochs" }) {
		return 0
	}
	var t struct {
		Epochs json.Number `json:"epochs"`
	}
	if err := json.Unmarshal([]byte(s.TrainingJSON), &t); err == nil && t.Epochs != "" {
		n, _ := t.Epochs.Int64()
		return n
	}
	if s.Trainer == "torch" {
		return int64(settings.Default().Epochs)
	}
	return 0
}

// torchSettings are the settings of all trials of the trainer torch; false for
// another one.
func torchSettings(s *spec.Spec, base string) (settings.Settings, bool) {
	if s.Trainer != "torch" || trial.KindOf([]byte(s.TrainingJSON)) != trial.Training {
		return settings.Settings{}, false
	}
	set, _ := settings.Parse([]byte(s.TrainingJSON), nil, base) // the parser has refused what is wrong
	return set, true
}

// images counts the images, where the folders are here.
func (d *dryRun) images(set settings.Settings) {
	count := func(list func(string) (*dataset.Folder, error), dir, key string) {
		f, err := list(dir)
		if errors.Is(err, fs.ErrNotExist) {
			d.Notes = append(d.Notes, fmt.Sprintf("%s images: there is no folder %s on this machine", key, dir))
			return
		} else if err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s images: %s", key, err))
			return
		}
		if d.Images == nil {
			d.Images = map[string]int{}
		}
		n := 0
		for _, x := range f.Counts() {
			n += x
		}
		d.Images[key] = n
		if key == "training" {
			d.Classes = f.Classes
		}
	}
	count(dataset.List, set.Train, "training")
	count(dataset.ListHeldOut, set.Validation, "validation")
}

// estimate is about how long the sweep takes: its epochs, by what an epoch took in
// the newest sweeps of the same model and images, on as many slots as it may have.
func (e *Env) estimate(c *ucli.Context, d *dryRun, s *spec.Spec, set settings.Settings, torch bool) {
	if limit := time.Duration(s.Budget.TimeMS) * time.Millisecond; limit > 0 && d.Epochs == nil {
		seconds := limit.Seconds()
		d.Seconds, d.Estimate = &seconds, "budget.time"
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, clusterPatience)
	defer cancel()
	api, err := e.connect(c, c.String("addr"), min(retryFor(c, single), clusterSearch), "")
	if err != nil {
		d.Estimate = "unknown: " + err.Error()
		return
	}
	defer api.Close()
	workers, err := api.Workers(ctx)
	if err != nil {
		d.Estimate = "unknown before the first trial has ended: no cluster answers at " + strings.Join(api.Addrs(), ", ")
		return
	}
	slots := slotsFor(workers, s)
	switch {
	case slots == 0:
		d.Estimate = "unknown: no worker that may take these trials is there now"
		return
	case slots < int(s.Members.Min):
		d.Estimate = fmt.Sprintf("unknown: a trial needs %s, %d that may take it exist now", plural(int64(s.Members.Min), "slot"), slots)
		return
	case d.About == nil:
		d.Estimate = "unknown: the number of epochs does not follow from the spec"
		return
	case !torch:
		d.Estimate = fmt.Sprintf("unknown before the first trial has ended: only the trainer %s knows its epochs; %s", s.Trainer, slotCount(slots))
		return
	}
	perEpoch, from := epochSeconds(ctx, api, set, s.Members, e.Now())
	if from == "" {
		d.Estimate = "unknown before the first trial has ended: no earlier sweep trained " + set.Model + " on these images; " + slotCount(slots)
		return
	}
	at := min(int64(slots)/int64(s.Members.Min), s.Parallelism)
	seconds := perEpoch * float64(*d.About) / float64(at)
	d.EpochSeconds = &perEpoch
	d.Estimate = fmt.Sprintf("%s per epoch in %s (the same model and images), %d at once", roundly(time.Duration(perEpoch*float64(time.Second))), from, at)
	if limit := float64(s.Budget.TimeMS) / 1000; limit > 0 && limit < seconds {
		seconds = limit
		d.Estimate += ", ended by budget.time"
	}
	d.Seconds = &seconds
}

func slotCount(n int) string { return plural(n, "slot") + " may take trials" }

// slotsFor counts the slots that may have the spec's trials now.
func slotsFor(workers []trial.Worker, s *spec.Spec) (n int) {
	for _, w := range workers {
		if w.State != "ready" || !slices.Contains(w.Trainers, s.Trainer) || slices.ContainsFunc(s.Requires, func(l spec.Label) bool { return w.Labels[l.Key] != l.Value }) {
			continue
		}
		if s.Members.Group() && !slices.Contains(w.GroupTrainers, s.Trainer) {
			continue
		}
		for _, slot := range w.Slots {
			if slot.State != "quarantined" {
				n++
			}
		}
	}
	return n
}

// epochSeconds is the median of what an epoch took in the newest sweep of the same
// model on the same images with as many members; from is empty where there is none.
func epochSeconds(ctx context.Context, api *client.Client, set settings.Settings, members spec.Members, now time.Time) (median float64, from string) {
	const newest, trials = 10, 50
	sweeps, err := api.Sweeps(ctx, newest)
	if err != nil {
		return 0, ""
	}
	for _, short := range sweeps {
		if short.Trainer != "torch" || short.Counts.Reports == 0 || short.MembersMin != members.Min || short.MembersMax != members.Max {
			continue
		}
		full, err := api.Sweep(ctx, short.ID)
		if err != nil {
			return 0, ""
		}
		s, err := spec.Decode(full.SpecJSON)
		if err != nil {
			continue
		}
		if of, ok := torchSettings(s, full.BaseDir); !ok || of.Model != set.Model || filepath.Clean(of.Train) != filepath.Clean(set.Train) || of.ImageSize != set.ImageSize || of.Precision != set.Precision {
			continue
		}
		var each []float64
		for t, err := range api.Trials(ctx, short.ID, client.Which{Limit: trials}) {
			if err != nil {
				return 0, ""
			}
			run := t.LastRun()
			if run == nil || t.Epoch <= run.ResumedEpoch {
				continue
			}
			ended := cmp.Or(run.EndedMS, now.UnixMilli())
			each = append(each, float64(ended-run.StartedMS)/1000/float64(t.Epoch-run.ResumedEpoch))
		}
		if len(each) > 0 {
			slices.Sort(each)
			return each[len(each)/2], short.ID
		}
	}
	return 0, ""
}

// table is the dry run for people: what would run, then the first points.
func (d *dryRun) table() table {
	row := func(k, v string) []string { return []string{k, v} }
	search := d.SearchMethod
	if d.Algorithm != "" {
		search += " (" + d.Algorithm + ")"
	}
	size := ""
	if d.Points != nil {
		size = plural(*d.Points, "point") + ": "
	}
	t := table{head: []string{"", ""}, rows: [][]string{row("sweep", d.Name), row("search", search), row("space", size+strings.Join(d.kinds, ", "))}}
	if d.Trials != nil {
		t.rows = append(t.rows, row("trials", fmt.Sprintf("%s, at most %s at once", thousands(*d.Trials), thousands(d.Parallelism))))
	} else {
		t.rows = append(t.rows, row("trials", fmt.Sprintf("as many as the budget allows, at most %s at once", thousands(d.Parallelism))))
	}
	if d.members != "" {
		t.rows = append(t.rows, row("members", d.members))
	}
	t.rows = append(t.rows, row("epochs", d.epochs()))
	if d.Images != nil {
		var parts []string
		for _, k := range []string{"training", "validation"} {
			if n, ok := d.Images[k]; ok {
				parts = append(parts, thousands(n)+" "+k)
			}
		}
		t.rows = append(t.rows, row("images", strings.Join(parts, ", ")+" of "+plural(len(d.Classes), "class")))
	}
	took := d.Estimate
	if d.Seconds != nil {
		took = "about " + roundly(time.Duration(*d.Seconds*float64(time.Second))) + ": " + took
	}
	t.rows = append(t.rows, row("time", took))
	for i, p := range d.Proposals {
		label := ""
		if i == 0 {
			label = "first points"
		}
		by := ""
		if p.Source == "enqueued" {
			by = " (enqueued)"
		}
		t.rows = append(t.rows, row(label, fmt.Sprintf("%d: %s%s", p.Trial, pairs(p.Params), by)))
	}
	for _, n := range d.Notes {
		t.rows = append(t.rows, row("note", n))
	}
	return t
}

// epochs is their number as people read it.
func (d *dryRun) epochs() string {
	if d.Epochs == nil {
		return "unknown: they differ from trial to trial, or only the trainer knows"
	}
	text := "at most " + thousands(*d.Epochs) + " in all"
	if d.TrialEpochs != nil {
		text = fmt.Sprintf("%s per trial, %s in all", thousands(*d.TrialEpochs), thousands(*d.Epochs))
	}
	var rule struct{ Rule string }
	if json.Unmarshal(d.Stopping, &rule) == nil && rule.Rule != "" && rule.Rule != "segment" {
		if *d.About < *d.Epochs {
			text += fmt.Sprintf("; about %s with %s", thousands(*d.About), rule.Rule)
		} else {
			text += "; fewer with " + rule.Rule
		}
	}
	return text
}
