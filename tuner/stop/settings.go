package stop

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"atelier/common/nearest"
	"atelier/common/setting"
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
	MinEpochs int `json:"min_epochs"` // the first rung
	MaxEpochs int `json:"max_epochs"` // epochs of a whole training
	Reduction int `json:"reduction"`  // one in so many goes on from a rung

	// asha: the share of all epochs, trials times MaxEpochs, that a sweep may take.
	// What promotions leave of it goes to the best paused trials at the end; 0 =
	// nothing does.
	Spend float64 `json:"spend"`

	Interval int `json:"interval"` // segment: epochs that a trial trains; MaxEpochs counts too

	// median, percentile, patience
	WarmupEpochs int `json:"warmup_epochs"` // nothing is decided up to this epoch
	WarmupTrials int `json:"warmup_trials"` // nor against fewer trials than this: median, percentile

	Percentile float64 `json:"percentile"` // 0 to 100: the share that may go on
	Patience   int     `json:"patience"`   // epochs without a better value
	MinDelta   float64 `json:"min_delta"`  // what counts as better, in the objective's unit
}

const maxEpochs = 1 << 30

// table has every key, in the order of the canonical form.
var table = setting.Table{
	{Name: "min_epochs", Type: setting.Integer(1, maxEpochs), Example: "3", Help: "the first rung: the epoch after which trials are compared for the first time"},
	{Name: "max_epochs", Type: setting.Integer(1, maxEpochs), Example: "27", Help: "epochs of a whole training"},
	{Name: "reduction", Type: setting.Integer(2, 1000), Example: "4", Help: "one in so many continues from a rung, and rungs are so many times as far as the one before"},
	{Name: "spend", Type: setting.Within(0, 1), Example: "0.25", Help: "share of all epochs, trials times max_epochs, that the sweep may take; what promotions leave of it goes to the best paused trials at the end; 0 = nothing does"},
	{Name: "interval", Type: setting.Integer(1, maxEpochs), Example: "3", Help: "epochs that a segment trains"},
	{Name: "warmup_epochs", Type: setting.Integer(0, maxEpochs), Example: "1", Help: "no trial is stopped up to this epoch"},
	{Name: "warmup_trials", Type: setting.Integer(1, 1_000_000), Example: "5", Help: "a trial is compared with at least so many others, or not at all"},
	{Name: "percentile", Type: setting.Real("above 0 and below 100", func(x float64) bool { return x > 0 && x < 100 }), Example: "25", Help: "the share of trials, in per cent, that may continue"},
	{Name: "patience", Type: setting.Integer(1, maxEpochs), Example: "5", Help: "a trial is stopped after so many epochs without a better value"},
	{Name: "min_delta", Type: setting.Real("0 or above", func(x float64) bool { return x >= 0 }), Example: "0.001", Help: "by how much a value has to be better to count, in the objective's unit"},
}

// about is what each rule does, for the reference.
var about = map[string]string{
	ASHA:       "pauses every trial at rungs and continues the best of each",
	Hyperband:  "the same in several brackets, which begin at different rungs",
	Median:     "stops a trial whose best value is worse than the median of the others' running means",
	Percentile: "stops a trial that is not among the best percentile of the others",
	Patience:   "stops a trial that has not improved for a while",
	None:       "stops nothing",
}

// Keys are the keys that a spec may give beside the rule, with the rules that take
// them and their defaults. Those of segment are no person's to give.
func Keys() setting.Table {
	var out setting.Table
	for _, row := range table {
		var rules, defaults []string
		for _, t := range takes {
			if t.rule == Segment || !slices.Contains(t.keys, row.Name) {
				continue
			}
			rules = append(rules, t.rule)
			if v := fmt.Sprint(setting.Field(&t.defaults, row.Name)); v != "0" {
				defaults = append(defaults, v+" ("+t.rule+")")
			}
		}
		if len(rules) == 0 {
			continue
		}
		row.Of = "rule " + strings.Join(rules, ", ")
		switch {
		case len(defaults) > 0:
			row.Else = strings.Join(defaults, ", ")
		case row.Type.Fits(int64(0)):
			row.Default = int64(0)
		}
		out = append(out, row)
	}
	return out
}

// About is what the rules do, one clause each.
func About() string {
	var parts []string
	for _, rule := range Rules {
		parts = append(parts, rule+": "+about[rule])
	}
	return strings.Join(parts, "; ")
}

// takes are the keys of each rule with their defaults; 0 where it has none or it
// follows from another key.
var takes = []struct {
	rule     string
	keys     []string
	defaults Settings
}{
	{ASHA, []string{"min_epochs", "max_epochs", "reduction", "spend"}, Settings{Rule: ASHA, Reduction: 4, Spend: 0.25}},
	{Hyperband, []string{"min_epochs", "max_epochs", "reduction"}, Settings{Rule: Hyperband, MinEpochs: 1, Reduction: 3}},
	{Median, []string{"warmup_epochs", "warmup_trials"}, Settings{Rule: Median, WarmupEpochs: 1, WarmupTrials: 5}},
	{Percentile, []string{"warmup_epochs", "warmup_trials", "percentile"}, Settings{Rule: Percentile, WarmupEpochs: 1, WarmupTrials: 5, Percentile: 25}},
	{Patience, []string{"warmup_epochs", "patience", "min_delta"}, Settings{Rule: Patience, Patience: 5}},
	{None, nil, Settings{Rule: None}},
	{Segment, []string{"max_epochs", "interval"}, Settings{Rule: Segment}},
}

// rulesOf are the rules that a key belongs to.
func rulesOf(key string) (rules []string) {
	for _, t := range takes {
		if slices.Contains(t.keys, key) {
			rules = append(rules, t.rule)
		}
	}
	return rules
}

// Error is a fault of the settings. Key is where, relative to `stopping`; ""
// means the whole.
type Error struct{ Key, Message string }

// Error names the key as it stands in a spec.
func (e *Error) Error() string {
	if e.Key == "" {
		return "stopping: " + e.Message
	}
	return "stopping." + e.Key + ": " + e.Message
}

// fault is an Error of a key.
func fault(key, format string, a ...any) error {
	return &Error{Key: key, Message: fmt.Sprintf(format, a...)}
}

// Parse reads what a person hands in, a JSON object, and checks all of it. Keys that are missing get their defaults, save
// max_epochs, which asha and hyperband need: whoever writes the JSON knows how
// long a trial trains. Errors are of type *Error.
func Parse(text []byte) (Settings, error) {
	given, err := setting.Members(text)
	if err != nil {
		return Settings{}, fault("", "want a JSON object such as {\"rule\": \"asha\", \"max_epochs\": 27}, not %.60q", text)
	}
	for i, m := range given {
		if slices.ContainsFunc(given[:i], func(x setting.Member) bool { return x.Key == m.Key }) {
			return Settings{}, fault(m.Key, "appears twice")
		}
	}
	s, err := readRule(given)
	if err != nil {
		return Settings{}, err
	}
	for _, m := range given {
		if m.Key == "rule" {
			continue
		}
		row, rules, v := table.Find(m.Key), rulesOf(m.Key), setting.Plain(m.Raw)
		switch {
		case row == nil:
			return s, fault(m.Key, "unknown key%s; %s takes %s", meant(m.Key, KeysOf(s.Rule)), s.Rule, listed(KeysOf(s.Rule)))
		case !slices.Contains(rules, s.Rule):
			return s, fault(m.Key, "belongs to rule %s, not %s; drop it", strings.Join(rules, " and "), s.Rule)
		case m.Raw[0] != '-' && (m.Raw[0] < '0' || m.Raw[0] > '9'):
			return s, fault(m.Key, "want a number, not %s", setting.Shown(m.Raw))
		case !row.Type.Fits(v):
			return s, fault(m.Key, "want %s, not %s", row.Type.Want, setting.Shown(m.Raw))
		}
		setting.Fill(&s, []setting.Given{{Key: m.Key, Data: v}})
	}
	s.derive()
	return s, s.check()
}

// derive sets what follows from other keys.
func (s *Settings) derive() {
	if s.Rule == ASHA && s.MinEpochs == 0 {
		// Rungs at an eighth and a half, a quarter going on from each: 1/8 + 1/4 *
		// 3/8 + 1/16 * 1/2, a quarter of all epochs.
		s.MinEpochs = max(1, s.MaxEpochs/8)
	}
}

// Read reads what a log holds: settings that Parse took once, in the canonical form
// of that day. However strict Parse becomes, a sweep that runs goes on; so Read asks
// for no more than a rule needs to work at all. A key that was not there yet has the
// default that it came with. testdata/stored.json has what must be read for ever.
func Read(text string) (Settings, error) {
	var named struct{ Rule string }
	if err := json.Unmarshal([]byte(text), &named); err != nil {
		return Settings{}, fault("", "%v", err)
	}
	s, known := defaults(named.Rule)
	if !known {
		return s, fault("rule", "%q is not known: a newer program wrote it; upgrade this one", named.Rule)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		if key, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			return s, fault("", "key %s is not known: a newer program wrote it; upgrade this one", key)
		}
		return s, fault("", "%v", err)
	}
	s.derive()
	switch {
	case (s.Rule == ASHA || s.Rule == Hyperband) && (s.MinEpochs < 1 || s.Reduction < 2):
		return s, fault("", "%s has no rungs from epoch %d on, one in %d of each", s.Rule, s.MinEpochs, s.Reduction)
	case s.Rule == Segment && s.Interval < 1:
		return s, fault("interval", "segments of %d epochs", s.Interval)
	}
	return s, nil
}

// defaults are the settings of a rule for which nothing else is given.
func defaults(rule string) (Settings, bool) {
	for _, t := range takes {
		if t.rule == rule {
			return t.defaults, true
		}
	}
	return Settings{}, false
}

// readRule finds the rule, and with it the defaults of all its keys.
func readRule(given []setting.Member) (Settings, error) {
	i := slices.IndexFunc(given, func(m setting.Member) bool { return m.Key == "rule" })
	if i < 0 {
		return Settings{}, fault("rule", "is missing; choose one of %s", strings.Join(Rules, ", "))
	}
	name, _ := setting.Plain(given[i].Raw).(string)
	if s, known := defaults(name); known {
		return s, nil
	}
	return Settings{}, fault("rule", "%s is not a rule%s; choose one of %s", setting.Shown(given[i].Raw), meant(name, Rules), strings.Join(Rules, ", "))
}

// check looks at what keys say together; each by itself was checked when it was read.
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
	for _, t := range takes {
		if t.rule == rule {
			return t.keys
		}
	}
	return nil
}

// JSON is the canonical form: every key of the rule, in a fixed order.
func (s Settings) JSON() string {
	b := fmt.Appendf(nil, `{"rule":%q`, s.Rule)
	for _, k := range KeysOf(s.Rule) {
		v, err := json.Marshal(setting.Field(&s, k))
		if err != nil { // a number that JSON cannot hold, which Parse refuses
			panic(err)
		}
		b = fmt.Appendf(b, `,%q:%s`, k, v)
	}
	return string(append(b, '}'))
}

// listed are the keys that a rule takes.
func listed(names []string) string {
	if len(names) == 0 {
		return "no other key"
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
