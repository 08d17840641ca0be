// Package settings reads what a run is told to do: the sweep's training
// settings with the trial's parameters laid over them.
//
// It refuses unknown keys (naming the nearest known one), values of the wrong
// type and values out of range, all faults at once. It needs no libtorch, so
// that a spec can be checked anywhere.
package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// Settings of a training run. Fractions are in 0..1.
type Settings struct {
	Model     string  `json:"model"`
	Epochs    int     `json:"epochs"`
	BatchSize int     `json:"batch_size"`
	LR        float64 `json:"lr"`

	Optimizer   string  `json:"optimizer"` // sgd, adam
	Momentum    float64 `json:"momentum"`  // of sgd
	WeightDecay float64 `json:"weight_decay"`

	// Patience is how many epochs in a row may pass without a better
	// objective before the run ends by itself; 0 = never.
	Patience int `json:"patience"`

	ImageSize int    `json:"image_size"` // side of the square, pixels
	Augment   bool   `json:"augment"`    // random crop and horizontal flip
	Normalize string `json:"normalize"`  // imagenet: its mean and deviation; computed: the training set's

	DropoutRate float64 `json:"dropout_rate"` // before the head; negative = the architecture's own
	Layout      string  `json:"layout"`       // auto, channels_last, default
	Precision   string  `json:"precision"`    // fp32, bf16

	Train      string `json:"data.train"` // image folders
	Validation string `json:"data.validation"`
}

// Default settings; the data folders have none.
func Default() Settings {
	return Settings{Model: "resnet18", Epochs: 10, BatchSize: 32, LR: 0.001, Optimizer: "adam", Momentum: 0.9,
		ImageSize: 64, Augment: true, Normalize: "imagenet", DropoutRate: -1, Layout: "auto", Precision: "fp32"}
}

// field is one key: how to read it.
type field struct {
	key string
	set func(s *Settings, v any) error
}

var fields = []field{
	{"model", text(func(s *Settings) *string { return &s.Model })},
	{"epochs", whole(1, 100_000, func(s *Settings) *int { return &s.Epochs })},
	{"batch_size", whole(1, 1<<20, func(s *Settings) *int { return &s.BatchSize })},
	{"lr", number("above 0 and at most 1000", func(x float64) bool { return x > 0 && x <= 1000 }, func(s *Settings) *float64 { return &s.LR })},
	{"optimizer", oneOf(func(s *Settings) *string { return &s.Optimizer }, "sgd", "adam")},
	{"momentum", number("from 0 to below 1", func(x float64) bool { return x >= 0 && x < 1 }, func(s *Settings) *float64 { return &s.Momentum })},
	{"weight_decay", number("from 0 to 10", func(x float64) bool { return x >= 0 && x <= 10 }, func(s *Settings) *float64 { return &s.WeightDecay })},
	{"patience", whole(0, 100_000, func(s *Settings) *int { return &s.Patience })},
	{"image_size", whole(32, 1024, func(s *Settings) *int { return &s.ImageSize })},
	{"augment", truth(func(s *Settings) *bool { return &s.Augment })},
	{"normalize", oneOf(func(s *Settings) *string { return &s.Normalize }, "imagenet", "computed")},
	{"dropout_rate", number("from 0 to below 1", func(x float64) bool { return x >= 0 && x < 1 }, func(s *Settings) *float64 { return &s.DropoutRate })},
	{"layout", oneOf(func(s *Settings) *string { return &s.Layout }, "auto", "channels_last", "default")},
	{"precision", oneOf(func(s *Settings) *string { return &s.Precision }, "fp32", "bf16")},
	{"data.train", text(func(s *Settings) *string { return &s.Train })},
	{"data.validation", text(func(s *Settings) *string { return &s.Validation })},
}

// Keys lists every key, dotted ones for those inside data.
func Keys() []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// Parse lays params over training, both JSON objects (or empty), over the
// defaults, and makes the data folders absolute by baseDir. The error lists
// every fault.
func Parse(training, params []byte, baseDir string) (Settings, error) {
	s := Default()
	var faults []error
	for _, part := range []struct {
		name string
		data []byte
	}{{"training", training}, {"params", params}} {
		if len(bytes.TrimSpace(part.data)) == 0 {
			continue
		}
		faults = append(faults, s.apply(part.name, "", part.data)...)
	}
	for _, d := range []struct {
		key string
		dir *string
	}{{"data.train", &s.Train}, {"data.validation", &s.Validation}} {
		switch {
		case *d.dir == "":
			faults = append(faults, fmt.Errorf("training: %s is missing: name a folder with one subfolder of images a class", d.key))
		case !filepath.IsAbs(*d.dir):
			*d.dir = filepath.Join(baseDir, *d.dir)
		}
	}
	return s, errors.Join(faults...)
}

func (s *Settings) apply(where, prefix string, data []byte) (faults []error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return []error{fmt.Errorf("%s: want a JSON object, got %.60s", where, data)}
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return append(faults, fmt.Errorf("%s: %w", where, err))
		}
		key := prefix + t.(string)
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return append(faults, fmt.Errorf("%s: %s: %w", where, key, err))
		}
		if seen[key] {
			faults = append(faults, fmt.Errorf("%s: %s stands twice", where, key))
			continue
		}
		seen[key] = true
		if key == "data" {
			faults = append(faults, s.apply(where, "data.", raw)...)
			continue
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		if i < 0 {
			faults = append(faults, fmt.Errorf("%s: unknown key %q; did you mean %q?", where, key, Nearest(key, Keys())))
			continue
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return append(faults, fmt.Errorf("%s: %s: %w", where, key, err))
		}
		if err := fields[i].set(s, v); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w, got %.60s", where, key, err, raw))
		}
	}
	if _, err := dec.Token(); err != nil {
		return append(faults, fmt.Errorf("%s: %w", where, err))
	}
	return faults
}

func text(at func(*Settings) *string) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		t, ok := v.(string)
		if !ok || t == "" {
			return errors.New("want a text")
		}
		*at(s) = t
		return nil
	}
}

func oneOf(at func(*Settings) *string, names ...string) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		t, _ := v.(string)
		if !slices.Contains(names, t) {
			return fmt.Errorf("want one of %s", strings.Join(names, ", "))
		}
		*at(s) = t
		return nil
	}
}

func truth(at func(*Settings) *bool) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		b, ok := v.(bool)
		if !ok {
			return errors.New("want true or false")
		}
		*at(s) = b
		return nil
	}
}

func number(span string, in func(float64) bool, at func(*Settings) *float64) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n, _ := v.(json.Number)
		x, err := n.Float64()
		if err != nil || math.IsNaN(x) || !in(x) {
			return fmt.Errorf("want a number %s", span)
		}
		*at(s) = x
		return nil
	}
}

// whole takes integers, also written 32.0: searches speak of numbers.
func whole(low, high int, at func(*Settings) *int) func(*Settings, any) error {
	return func(s *Settings, v any) error {
		n, _ := v.(json.Number)
		x, err := n.Float64()
		if err != nil || x != math.Trunc(x) || x < float64(low) || x > float64(high) {
			return fmt.Errorf("want a whole number from %d to %d", low, high)
		}
		*at(s) = int(x)
		return nil
	}
}
