package sweep

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"atelier/common/space"
	"atelier/common/spec"
	"atelier/tuner/search"
)

const (
	// Points, priorities and labels lie in the state of every coordinator for as long as the sweep
	// does.
	maxEnqueued  = 10_000
	maxPriority  = 1000
	maxEpochs    = 1_000_000_000_000
	maxTime      = 10 * 366 * 24 * time.Hour
	maxRequired  = 32
	maxLabelText = 200
)

// life reads the keys that say how the sweep lives beside others. Enqueued points are checked against the space,
// so they are left alone where the space itself is at fault: its faults are on record.
func (r *reader) life(given map[string]*yaml.Node, s *spec.Spec) {
	if n := given["enqueue"]; n != nil && given["space"] != nil && s.Space.Validate() == nil {
		s.Enqueue = r.enqueue(n, s)
	}
	if n := given["warm_start"]; n != nil {
		if t, ok := r.text(n, "warm_start"); ok {
			if s.WarmStart = t; strings.TrimSpace(t) == "" {
				r.fail(n, "warm_start", "is empty; give the id of a sweep, such as s-k3v9q2ma")
			}
		}
	}
	if n := given["checkpoints"]; n != nil {
		s.CheckpointBytes = r.checkpoints(n)
	}
	if n := given["priority"]; n != nil {
		i, _ := r.whole(n, "priority", -maxPriority, maxPriority)
		s.Priority = int32(i)
	}
	if n := given["requires"]; n != nil {
		s.Requires = r.requires(n)
	}
}

// budget reads what ends the sweep; a grid alone may have an empty one, for it ends by itself.
func (r *reader) budget(n *yaml.Node, method string) (b spec.Budget) {
	if !r.mapping(n, "budget", "{trials: 40}") {
		return b
	}
	// An empty mapping is a fault, one with a fault of its own is not told a second one.
	any := len(n.Content) > 0
	for _, e := range r.entriesOf(n, "budget", children("budget")) {
		switch e.name {
		case "trials":
			b.Trials, _ = r.whole(e.value, "budget.trials", 1, MaxTrials)
		case "epochs":
			b.Epochs, _ = r.whole(e.value, "budget.epochs", 1, maxEpochs)
		case "time":
			b.TimeMS = r.span(e.value, "budget.time").Milliseconds()
		}
	}
	if !any && method != search.Grid {
		r.fail(n, "budget", "is empty; give trials, epochs or time, such as {trials: 40} or {time: 2h}")
	}
	return b
}

// span reads a length of time such as 90m or 1h30m.
func (r *reader) span(n *yaml.Node, key string) time.Duration {
	t, ok := r.text(n, key)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(t)
	switch {
	case err != nil:
		r.fail(n, key, "%q is not a length of time; write it as 90m, 2h or 1h30m", t)
	// A sweep that is over before its first trial is a slip in the unit.
	case d < time.Second:
		r.fail(n, key, "%s is too short; give at least 1s", t)
	case d > maxTime:
		r.fail(n, key, "%s is too long; give at most %s", t, maxTime)
	default:
		return d
	}
	return 0
}

// units are of decimal (kB) and binary (KiB) thousands, in any case.
var units = []struct {
	name  string
	bytes float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1}, // longer names first
}

// Bytes reads a size such as 10GB, 512 MiB or 4096, in bytes; fractions of a byte are cut off. Flags that are
// sizes take the same words.
func Bytes(text string) (int64, error) {
	s, factor := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = strings.TrimSpace(number), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if f *= factor; err != nil || math.IsNaN(f) || f < 0 || f >= 1<<62 {
		return 0, fmt.Errorf("%q is not a size; write it as 500MB, 10GB or 8GiB", text)
	}
	return int64(f), nil
}

// checkpoints reads how much room all checkpoints of the sweep may take.
func (r *reader) checkpoints(n *yaml.Node) (bytes int64) {
	if !r.mapping(n, "checkpoints", "{budget: 10GB}") {
		return 0
	}
	for _, e := range r.entriesOf(n, "checkpoints", children("checkpoints")) {
		const key = "checkpoints.budget"
		if e.value.Kind != yaml.ScalarNode || e.value.ShortTag() == "!!null" {
			r.fail(e.value, key, "want a size such as 10GB, not %s", shown(e.value))
			continue
		}
		b, err := Bytes(e.value.Value)
		switch {
		case err != nil:
			r.fail(e.value, key, "%s", err)
		case b < 1:
			r.fail(e.value, key, "is 0: no checkpoint could be kept; drop the key for no limit")
		}
		bytes = b
	}
	return bytes
}

// requires reads the labels that a worker must carry. They are sorted by key: the order of the file means nothing,
// and equal requirements have equal documents.
func (r *reader) requires(n *yaml.Node) (out []spec.Label) {
	if !r.mapping(n, "requires", "{gpu: a100}") {
		return nil
	}
	list := r.entries(n, "requires")
	if len(list) > maxRequired {
		r.fail(n, "requires", "names %d labels; the limit is %d", len(list), maxRequired)
		return nil
	}
	for _, e := range list {
		key := join("requires", e.name)
		switch {
		case e.value.Kind != yaml.ScalarNode || e.value.ShortTag() == "!!null":
			r.fail(e.value, key, "want the label's value, not %s", shown(e.value))
		case e.name == "" || len(e.name) > maxLabelText || len(e.value.Value) > maxLabelText:
			r.fail(e.value, key, "a label has a name and a value of at most %d bytes", maxLabelText)
		default:
			out = append(out, spec.Label{Key: e.name, Value: e.value.Value})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out
}

// enqueue reads the points to be tried first, as canonical JSON. It comes after
// the space. The order of the list is the order of the trials.
func (r *reader) enqueue(n *yaml.Node, s *spec.Spec) (out []string) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "enqueue", "want a list of points, such as [{lr: 0.01, optimizer: sgd}], not %s", shown(n))
		return nil
	}
	most := int64(maxEnqueued)
	if s.Budget.Trials > 0 {
		most = min(most, s.Budget.Trials)
	}
	if int64(len(n.Content)) > most {
		r.fail(n, "enqueue", "has %d points; the budget has room for %d", len(n.Content), most)
		return nil
	}
	for i, item := range n.Content {
		key := fmt.Sprintf("enqueue[%d]", i)
		if item = r.follow(item, key); item == nil {
			return out
		}
		if !r.mapping(item, key, "{lr: 0.01, optimizer: sgd}") {
			continue
		}
		before := len(r.errs)
		var b bytes.Buffer
		r.json(&b, item, key, 0)
		if len(r.errs) > before {
			continue
		}
		p, err := GivenPoint(&s.Space, b.String())
		if err != nil {
			r.fail(item, key, "%s", err)
			continue
		}
		out = append(out, p)
	}
	return out
}

// GivenPoint checks a point that a person gave, a JSON object of parameters, and
// returns its canonical form. The error names the parameter that is unknown, inactive or out of range, and all
// that are missing. A point enqueued later (sweep enqueue) is checked by the same rule.
func GivenPoint(s *space.Space, params string) (string, error) {
	p, err := s.Decode(params)
	if err == nil {
		return s.Encode(p), nil
	}
	missing := s.Missing(params)
	if len(missing) == 0 {
		return "", err
	}
	lacks := "it has no value for " + strings.Join(missing, ", ")
	if first := fmt.Sprintf("%q: has no value", missing[0]); strings.HasSuffix(err.Error(), first) {
		return "", errors.New(lacks)
	}
	return "", fmt.Errorf("%w; %s", err, lacks)
}
