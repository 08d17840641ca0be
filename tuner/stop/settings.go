package stop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"atelier/common/nearest"
)

// Rules, by the names of the spec.
const (
	ASHA       = "asha"
	Hyperband  = "hyperband"
	Median     = "median"
	Percentile = "percentile"
	Patience   = "patience"
	None       = "none"

	// Segment belongs to population-based training, which asks for it itself.
	Segment = "segment"
)

// Rules lists the names a spec may give.
var Rules = []string{ASHA, Hyperband, Median, Percentile, Patience, None}

// Settings are what the spec's key `stopping` says. Epochs count from 1.
type Settings struct {
	Rule string

	// asha, hyperband
	MinEpochs int // the first rung
	MaxEpochs int // epochs of a whole training
	Reduction int // one in so many goes on from a rung

	// asha: the share of all epochs, trials times MaxEpochs, that a sweep may take.
	// What promotions leave of it goes to the best paused trials at the end; 0 =
	// nothing does.
	Spend float64

	Interval int // segment: epochs that a trial trains; MaxEpochs counts too

	// median, percentile, patience
	WarmupEpochs int // nothing is decided up to this epoch
	WarmupTrials int // nor against fewer trials than this: median, percentile

	Percentile float64 // 0 to 100: the share that may go on
	Patience   int     // epochs without a better value
	MinDelta   float64 // what counts as better, in the objective's unit
}

// key is one of the spec's, and the rules it belongs to.
type key struct {
	name  string
	rules []string
	value
}

// value is how a key's number is read into the settings and written from them.
type value struct {
	set func(s *Settings, v json.Number) error
	get func(s *Settings) any
}

const maxEpochs = 1 << 30

var keys = []key{
	{"min_epochs", []string{ASHA, Hyperband}, whole(1, maxEpochs, func(s *Settings) *int { return &s.MinEpochs })},
	{"max_epochs", []string{ASHA, Hyperband, Segment}, whole(1, maxEpochs, func(s *Settings) *int { return &s.MaxEpochs })},
	{"reduction", []string{ASHA, Hyperband}, whole(2, 1000, func(s *Settings) *int { return &s.Reduction })},
	{"spend", []string{ASHA}, number(func(x float64) bool { return x >= 0 && x <= 1 }, "from 0 to 1", func(s *Settings) *float64 { return &s.Spend })},
	{"interval", []string{Segment}, whole(1, maxEpochs, func(s *Settings) *int { return &s.Interval })},
	{"warmup_epochs", []string{Median, Percentile, Patience}, whole(0, maxEpochs, func(s *Settings) *int { return &s.WarmupEpochs })},
	{"warmup_trials", []string{Median, Percentile}, whole(1, 1_000_000, func(s *Settings) *int { return &s.WarmupTrials })},
	{"percentile", []string{Percentile}, number(func(x float64) bool { return x > 0 && x < 100 }, "above 0 and below 100", func(s *Settings) *float64 { return &s.Percentile })},
	{"patience", []string{Patience}, whole(1, maxEpochs, func(s *Settings) *int { return &s.Patience })},
	{"min_delta", []string{Patience}, number(func(x float64) bool { return x >= 0 && x <= math.MaxFloat64 }, "0 or above", func(s *Settings) *float64 { return &s.MinDelta })},
}

// Error is a fault of the settings. Key is where, relative to `stopping`; ""
// means the whole.
type Error struct{ Key, Message string }

func (e *Error) Error() string {
	if e.Key == "" {
		return "stopping: " + e.Message
	}
	return "stopping." + e.Key + ": " + e.Message
}

func fault(key, format string, a ...any) error {
	return &Error{Key: key, Message: fmt.Sprintf(format, a...)}
}

// Parse reads a JSON object. Keys that are missing get their defaults, save
// max_epochs, which asha and hyperband need: whoever writes the JSON knows how
// long a trial trains. Errors are of type *Error.
func Parse(text []byte) (Settings, error) {
	given, err := object(text)
	if err != nil {
		return Settings{}, err
	}
	s, err := readRule(given)
	if err != nil {
		return Settings{}, err
	}
	for _, e := range given {
		if e.name == "rule" {
			continue
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == e.name })
		if i < 0 {
			return s, fault(e.name, "no such key%s; %s takes %s", meant(e.name, KeysOf(s.Rule)), s.Rule, listed(KeysOf(s.Rule)))
		}
		if !slices.Contains(keys[i].rules, s.Rule) {
			return s, fault(e.name, "belongs to rule %s, not %s; drop it", strings.Join(keys[i].rules, " and "), s.Rule)
		}
		n, ok := e.value.(json.Number)
		if !ok {
			return s, fault(e.name, "want a number, not %s", shown(e.value))
		}
		if err := keys[i].set(&s, n); err != nil {
			return s, fault(e.name, "%v", err)
		}
	}
	if s.Rule == ASHA && s.MinEpochs == 0 {
		// Rungs at an eighth and a half, a quarter going on from each: 1/8 + 1/4 *
		// 3/8 + 1/16 * 1/2, a quarter of all epochs.
		s.MinEpochs = max(1, s.MaxEpochs/8)
	}
	return s, s.check()
}

func readRule(given []entry) (Settings, error) {
	i := slices.IndexFunc(given, func(e entry) bool { return e.name == "rule" })
	if i < 0 {
		return Settings{}, fault("rule", "is missing; choose one of %s", strings.Join(Rules, ", "))
	}
	name, ok := given[i].value.(string)
	if !ok || !slices.Contains(Rules, name) && name != Segment {
		return Settings{}, fault("rule", "%s is no rule%s; choose one of %s", shown(given[i].value), meant(name, Rules), strings.Join(Rules, ", "))
	}
	s := Settings{Rule: name}
	switch name {
	case ASHA:
		s.Reduction, s.Spend = 4, 0.25 // MinEpochs follows from MaxEpochs
	case Hyperband:
		s.MinEpochs, s.Reduction = 1, 3
	case Median:
		s.WarmupEpochs, s.WarmupTrials = 1, 5
	case Percentile:
		s.WarmupEpochs, s.WarmupTrials, s.Percentile = 1, 5, 25
	case Patience:
		s.Patience = 5
	}
	return s, nil
}

func (s Settings) check() error {
	if s.Rule == Segment && (s.Interval == 0 || s.MaxEpochs == 0) {
		return fault("interval", "segments need interval and max_epochs")
	}
	if s.Rule != ASHA && s.Rule != Hyperband {
		return nil
	}
	if s.MaxEpochs == 0 {
		return fault("max_epochs", "is missing; give the number of epochs that a trial trains at most")
	}
	if s.MinEpochs >= s.MaxEpochs {
		return fault("min_epochs", "%d is not below max_epochs %d; no rung would lie between", s.MinEpochs, s.MaxEpochs)
	}
	return nil
}

// KeysOf lists the keys a rule takes, without rule itself.
func KeysOf(rule string) []string {
	var out []string
	for _, k := range keys {
		if slices.Contains(k.rules, rule) {
			out = append(out, k.name)
		}
	}
	return out
}

// JSON is the canonical form: every key of the rule, in a fixed order.
func (s Settings) JSON() string {
	b := fmt.Appendf(nil, `{"rule":%q`, s.Rule)
	for _, k := range keys {
		if slices.Contains(k.rules, s.Rule) {
			v, err := json.Marshal(k.get(&s))
			if err != nil { // a number that JSON cannot hold, which Parse refuses
				panic(err)
			}
			b = fmt.Appendf(b, `,%q:%s`, k.name, v)
		}
	}
	return string(append(b, '}'))
}

func whole(low, high int, at func(*Settings) *int) value {
	return value{func(s *Settings, v json.Number) error {
		x, err := v.Float64()
		if err != nil || x != math.Trunc(x) || x < float64(low) || x > float64(high) {
			return fmt.Errorf("want a whole number from %d to %d, not %s", low, high, v)
		}
		*at(s) = int(x)
		return nil
	}, func(s *Settings) any { return *at(s) }}
}

func number(ok func(float64) bool, want string, at func(*Settings) *float64) value {
	return value{func(s *Settings, v json.Number) error {
		x, err := v.Float64()
		if err != nil || !ok(x) {
			return fmt.Errorf("want a number %s, not %s", want, v)
		}
		*at(s) = x
		return nil
	}, func(s *Settings) any { return *at(s) }}
}

// entry is a key and its value as encoding/json decodes it.
type entry struct {
	name  string
	value any
}

// object reads a JSON object in the order it is written; a key may stand once.
func object(text []byte) ([]entry, error) {
	wrong := func() error {
		return fault("", "want a JSON object such as {\"rule\": \"asha\", \"max_epochs\": 27}, not %.60q", text)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, wrong()
	}
	var out []entry
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, wrong()
		}
		var v any
		if err := dec.Decode(&v); err != nil {
			return nil, wrong()
		}
		if slices.ContainsFunc(out, func(e entry) bool { return e.name == name }) {
			return nil, fault(name, "stands twice")
		}
		out = append(out, entry{name, v})
	}
	if _, err := dec.Token(); err != nil {
		return nil, wrong()
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong()
	}
	return out, nil
}

func shown(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "this"
	}
	return fmt.Sprintf("%.60s", b)
}

func listed(names []string) string {
	if len(names) == 0 {
		return "no further key"
	}
	return strings.Join(names, ", ")
}

// meant names the word that was probably meant; "" when none is near.
func meant(typed string, words []string) string {
	if near, ok := nearest.Close(typed, words); ok {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}
