package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"
)

// compareFlags are those of both commands that compare.
func compareFlags() []ucli.Flag {
	return []ucli.Flag{outputFlag(), &ucli.BoolFlag{Name: "all", Usage: "also what is the same in all"}}
}

// compareSweepsCommand compares whole sweeps.
func (e *Env) compareSweepsCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "compare", Usage: "show in what sweeps differ", ArgsUsage: "SWEEP SWEEP...",
		Description: "State, best values, counts and durations, then the spec: settings, space, budget, stopping. What is\n" +
			"the same in all is left out without --all. -o csv has a column for each sweep.",
		Flags: compareFlags(), Action: e.compareSweeps}, 2, -1,
		"atelier sweep compare @2 @", "atelier sweep compare facades@2 facades@ s-k3v9q2ma -o csv")
}

// compareTrialsCommand compares single trials.
func (e *Env) compareTrialsCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "compare", Usage: "show in what trials differ", ArgsUsage: "SWEEP TRIAL TRIAL...",
		Description: "State, value, metrics, durations, then parameters. What is the same in all is left out without\n" +
			"--all. Trials of several sweeps are written SWEEP/TRIAL.",
		Flags: compareFlags(), Action: e.compareTrials}, 2, -1,
		"atelier trial compare s-k3v9q2ma 7 12", "atelier trial compare facades@2/7 facades@/3 -o json")
}

// difference is what one thing is in each of what is compared.
type difference struct {
	Key    string `json:"key"`
	Values sides  `json:"values"` // by the id of a sweep, or SWEEP/TRIAL; null where there is none
}

// sides are an object whose keys are in the order of the command line.
type sides []field

// MarshalJSON implements json.Marshaler.
func (v sides) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.key)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:%s", name, f.raw)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// compared is one of what is compared: its name and what is known of it.
type compared struct {
	name   string
	fields []field
}

// add appends a field of its own.
func (x *compared) add(key string, v any) error {
	doc, err := encodeJSON(v)
	if err != nil {
		return err
	}
	inner, err := flatten(key, byName(bytes.TrimSpace(doc)))
	x.fields = append(x.fields, inner...)
	return err
}

// byName is a document with each list of named things, such as the parameters of a
// space, as an object by their names: what is the same thing in two documents then
// has the same key, wherever it is in its list.
func byName(doc json.RawMessage) json.RawMessage {
	doc = bytes.TrimSpace(doc)
	if len(doc) == 0 || doc[0] != '{' && doc[0] != '[' {
		return doc
	}
	var out sides
	if doc[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(doc))
		d.Token()
		for d.More() {
			key, err := d.Token()
			var v json.RawMessage
			if err != nil || d.Decode(&v) != nil {
				return doc
			}
			out = append(out, field{key.(string), byName(v)})
		}
	} else {
		var items []json.RawMessage
		if json.Unmarshal(doc, &items) != nil {
			return doc
		}
		for _, item := range items {
			var named map[string]json.RawMessage
			if json.Unmarshal(item, &named) != nil {
				return doc
			}
			name := ""
			for _, k := range []string{"name", "metric", "key"} {
				if name == "" && json.Unmarshal(named[k], &name) == nil {
					delete(named, k)
				}
			}
			if name == "" {
				return doc
			}
			rest, err := json.Marshal(named)
			if err != nil {
				return doc
			}
			out = append(out, field{name, byName(rest)})
		}
	}
	text, err := out.MarshalJSON()
	if err != nil {
		return doc
	}
	return text
}

// differences are the things that are not the same in all, in the order in which
// they first appear; with all set, every one.
func differences(of []compared, all bool) []difference {
	var keys []string
	for _, x := range of {
		at := 0
		for _, f := range x.fields {
			if i := slices.Index(keys, f.key); i >= 0 {
				at = i + 1
				continue
			}
			keys = slices.Insert(keys, at, f.key)
			at++
		}
	}
	// What is null in one and has parts in another is told by its parts, and what is
	// of one thing stays together.
	keys = slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
		return slices.ContainsFunc(keys, func(o string) bool { return strings.HasPrefix(o, k+".") })
	})
	group := map[string]int{}
	top := func(k string) string { first, _, _ := strings.Cut(k, "."); return first }
	for i, k := range keys {
		if _, ok := group[top(k)]; !ok {
			group[top(k)] = i
		}
	}
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(group[top(a)], group[top(b)]) })
	out := []difference{}
	for _, k := range keys {
		d := difference{Key: k}
		same := true
		for _, x := range of {
			f := field{x.name, json.RawMessage("null")}
			if at := slices.IndexFunc(x.fields, func(f field) bool { return f.key == k }); at >= 0 {
				f.raw = x.fields[at].raw
			}
			d.Values = append(d.Values, f)
			same = same && bytes.Equal(f.raw, d.Values[0].raw)
		}
		if all || !same {
			out = append(out, d)
		}
	}
	return out
}

// printDifferences prints a row a difference.
func (e *Env) printDifferences(c *ucli.Context, of []compared) error {
	list := differences(of, c.Bool("all"))
	if len(list) == 0 && tabular(c) {
		e.say("no difference")
		return nil
	}
	return e.print(c, list, func() table {
		t := table{head: []string{""}}
		for _, x := range of {
			t.head = append(t.head, x.name)
		}
		t.flex = t.head[1:]
		for _, d := range list {
			row := []string{strings.TrimSuffix(d.Key, "_ms")}
			for _, f := range d.Values {
				row = append(row, dash(f.cell(d.Key)))
			}
			t.rows = append(t.rows, row)
		}
		return t
	})
}

// cell is a field as people read it: times in words where the key tells that it is one.
func (f field) cell(key string) string {
	ms, err := strconv.ParseInt(f.text(), 10, 64)
	switch {
	case err != nil || !strings.HasSuffix(key, "_ms"):
		return f.short()
	case strings.HasSuffix(key, "created_ms"), strings.HasSuffix(key, "started_ms"), strings.HasSuffix(key, "ended_ms"):
		return clock(ms)
	}
	return roundly(time.Duration(ms) * time.Millisecond)
}

// took is how long something took, or takes until now, in milliseconds; nil before its start.
func (e *Env) took(fromMS, toMS int64) *int64 {
	if fromMS == 0 {
		return nil
	}
	if toMS == 0 {
		toMS = e.Now().UnixMilli()
	}
	return new(max(toMS-fromMS, 0))
}

// compareSweeps compares results first, then what was asked for.
func (e *Env) compareSweeps(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	var all []compared
	for _, word := range c.Args().Slice() {
		id, err := e.trainingID(c, api, word)
		if err != nil {
			return err
		}
		s, err := api.Sweep(c.Context, id)
		if err != nil {
			return err
		}
		x := compared{name: id}
		for _, f := range []struct {
			key string
			v   any
		}{
			{"name", s.Name}, {"state", s.Status}, {"failure", s.Failure}, {"ending", s.Ending}, {"best", s.Best}, {"epochs", s.Epochs},
			{"counts", s.Counts}, {"created_ms", s.CreatedMS}, {"took_ms", e.took(s.CreatedMS, s.EndedMS)},
		} {
			if err := x.add(f.key, f.v); err != nil {
				return err
			}
		}
		if s.SpecJSON != "" {
			spec, err := flatten("", byName(json.RawMessage(s.SpecJSON)))
			if err != nil {
				return fmt.Errorf("spec of sweep %s: %w", id, err)
			}
			x.fields = append(x.fields, slices.DeleteFunc(spec, func(f field) bool { return f.key == "name" || f.key == "version" })...)
		}
		all = append(all, x)
	}
	return e.printDifferences(c, all)
}

// compareTrials compares results first, then parameters.
func (e *Env) compareTrials(c *ucli.Context) error {
	wanted, err := trialsNamed(c)
	if err != nil {
		return err
	}
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	ids := map[string]string{}
	var all []compared
	for _, w := range wanted {
		if ids[w.sweep] == "" {
			if ids[w.sweep], err = e.trainingID(c, api, w.sweep); err != nil {
				return err
			}
		}
		t, err := api.Trial(c.Context, ids[w.sweep], w.number)
		if err != nil {
			return err
		}
		x := compared{name: fmt.Sprintf("%s/%d", t.Sweep, t.Number)}
		worker := ""
		if run := t.LastRun(); run != nil {
			worker = run.Worker
		}
		for _, f := range []struct {
			key string
			v   any
		}{
			{"state", t.Status}, {"failure", t.Failure}, {"stop_reason", t.StopReason}, {"value", t.Value}, {"value_epoch", t.ValueEpoch}, {"metrics", t.Metrics}, {"epoch", t.Epoch},
			{"took_ms", e.took(t.StartedMS, t.EndedMS)}, {"runs", len(t.Runs)}, {"pauses", t.Pauses}, {"worker", worker}, {"source", t.Source}, {"data", t.Data},
			{"origin_trial", t.OriginTrial}, {"origin_epoch", t.OriginEpoch}, {"params", t.Params},
		} {
			if err := x.add(f.key, f.v); err != nil {
				return err
			}
		}
		all = append(all, x)
	}
	return e.printDifferences(c, all)
}

// wantedTrial is a trial that the command line names.
type wantedTrial struct {
	sweep  string
	number int64
}

// trialsNamed reads SWEEP TRIAL TRIAL.. or SWEEP/TRIAL SWEEP/TRIAL..
func trialsNamed(c *ucli.Context) (out []wantedTrial, err error) {
	words := c.Args().Slice()
	sweep := ""
	if _, number := splitTrial(words[0]); number == "" {
		sweep, words = words[0], words[1:]
	}
	for _, w := range words {
		of, number := sweep, w
		if s, n := splitTrial(w); n != "" {
			of, number = s, n
		}
		n, err := trialNumbered(c, number)
		if err != nil {
			return nil, err
		}
		if of == "" {
			return nil, usage("%s: %s is of which sweep? Write SWEEP/%[2]s, or the sweep first", c.Command.HelpName, w)
		}
		out = append(out, wantedTrial{of, n})
	}
	if len(out) < 2 {
		return nil, usage("%s: want at least two trials; usage: %[1]s %s", c.Command.HelpName, c.Command.ArgsUsage)
	}
	return out, nil
}
