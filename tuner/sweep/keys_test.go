package sweep_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"atelier/common/setting"
	"atelier/tuner/sweep"
)

// node is a part of a spec under construction.
type node = map[string]any

// sample is a spec that has one key, with the value; what the key needs beside it
// is there too.
func sample(t *testing.T, row setting.Setting, value any) node {
	t.Helper()
	number := node{"type": "float", "low": 0.001, "high": 0.1}
	s := node{
		"search_method": "random", "objective": node{"metric": "val_loss", "direction": "minimize"}, "budget": node{"trials": 4},
		"space":    node{"optimizer": node{"type": "categorical", "choices": []any{"adam", "sgd"}}, "lr": node{"type": "float", "low": 0.001, "high": 0.1}},
		"training": node{"epochs": 27, "data": node{"train": "a", "validation": "b"}},
	}
	top, rest, _ := strings.Cut(row.Name, ".")
	last := row.Name[strings.LastIndexByte(row.Name, '.')+1:]
	with := func(m node) node { m[last] = value; return m }
	switch {
	case strings.HasPrefix(row.Of, "search_method "):
		s["search_method"] = strings.TrimPrefix(row.Of, "search_method ")
		if top == "population" && rest != "" {
			s[top] = with(node{})
		} else {
			s[row.Name] = value
		}
	case top == "objectives[]":
		delete(s, "objective")
		s["objectives"] = []any{with(node{"metric": "val_loss", "direction": "minimize"})}
	case row.Name == "objectives":
		delete(s, "objective")
		s["objectives"] = value
	case top == "constraints[]":
		s["constraints"] = []any{with(node{"metric": "val_loss", "max": 3})}
	case top == "enqueue[]":
		s["enqueue"] = []any{node{"optimizer": "sgd", "lr": value}}
	case strings.HasPrefix(row.Name, "space.NAME.when."):
		number["when"] = node{"optimizer": value}
		s["space"].(node)["weight_decay"] = number
	case row.Name == "space.NAME":
		s["space"].(node)["weight_decay"] = value
	case strings.HasPrefix(row.Name, "space.NAME."):
		if row.Of == "type categorical" {
			s["space"].(node)["seed"] = with(node{"type": "categorical"})
		} else {
			s["space"].(node)["weight_decay"] = with(number)
		}
	case top == "training" && rest != "":
		s["training"] = node{"data.train": "a", "data.validation": "b", rest: value}
	case top == "stopping" && rest != "":
		rule, _, _ := strings.Cut(strings.TrimPrefix(row.Of, "rule "), ",")
		if s["stopping"] = with(node{}); rest != "rule" {
			s["stopping"].(node)["rule"] = rule
		}
	case rest != "":
		part := node{}
		if old, ok := s[top].(node); ok {
			part = maps.Clone(old)
		}
		s[top] = with(part)
	default:
		s[row.Name] = value
	}
	return s
}

func text(t *testing.T, s node) []byte {
	t.Helper()
	b, err := yaml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every key of the table, with the example that people are shown, is one that the
// parser takes, and so is a spec that has it.
func TestEveryKeyIsTaken(t *testing.T) {
	for _, row := range sweep.Document.Table {
		var value any
		if err := yaml.Unmarshal([]byte(row.Sample()), &value); err != nil || row.Sample() == "" {
			t.Errorf("%s has the example %q: %v", row.Name, row.Sample(), err)
			continue
		}
		s := text(t, sample(t, row, value))
		if _, err := sweep.ParseToRun("s.yaml", s); err != nil {
			t.Errorf("%s: %v\n%s", row.Name, err, s)
		}
		if row.Help == "" && row.Section == "" && !strings.HasPrefix(row.Name, "training.") || row.Type.Want == "" {
			t.Errorf("%s has no help (%q), or nothing that it takes", row.Name, row.Help)
		}
	}
}

// And no other: every word that is a key somewhere is tried everywhere. The parser
// knows it there exactly where the table has it.
func TestNoOtherKeyIsTaken(t *testing.T) {
	table := sweep.Document.Table
	words := map[string]bool{"zzz": true, "": true, "interval": true, "type": true}
	places := map[string]setting.Setting{"": {}} // path with keys below it, and a row for its sample
	for _, row := range table {
		path, word, training := "", strings.TrimPrefix(row.Name, "training."), strings.HasPrefix(row.Name, "training.")
		if i := strings.LastIndexByte(row.Name, '.'); training {
			path = "training"
		} else if i >= 0 {
			path, word = row.Name[:i], row.Name[i+1:]
		}
		if !strings.Contains(word, ".") {
			words[word] = true
		}
		if word != "NAME" && word != "LABEL" && path != "" {
			places[path] = row
		}
	}
	if len(places) < 9 || len(words) < 60 {
		t.Fatalf("%d places, %d words", len(places), len(words))
	}
	for path, of := range places {
		for _, word := range slices.Sorted(maps.Keys(words)) {
			row := of
			if row.Name = strings.TrimPrefix(path+"."+word, "."); word == "" {
				row.Name = path + ".zz"
			}
			rows := []setting.Setting{row}
			if found := table.Find(row.Name); found != nil {
				rows[0] = *found
			} else if path == "space.NAME" { // neither of numbers nor of choices
				row.Of = "type categorical"
				rows = append(rows, row)
			}
			for _, row := range rows {
				_, err := sweep.ParseToRun("s.yaml", text(t, sample(t, row, "zzz")))
				refused := false
				if err != nil {
					for line := range strings.Lines(err.Error()) {
						refused = refused || strings.Contains(line, "unknown key") || strings.Contains(line, "unknown training setting") || strings.Contains(line, "belongs to rule")
					}
				}
				if has := table.Has(row.Name); has == refused {
					t.Errorf("%s: in the table %v, refused as unknown %v: %v", row.Name, has, refused, err)
				}
			}
		}
	}
}

// Where the table has bounds they are the parser's.
func TestBoundsAreTheParsers(t *testing.T) {
	tried := 0
	for _, row := range sweep.Document.Table {
		if !row.Type.Whole || strings.HasPrefix(row.Name, "training.") {
			continue
		}
		for _, v := range []int64{-1_000_000, -1001, -1000, -1, 0, 1, 2, 1000, 1001, 65536, 65537, 100_000_000, 100_000_001, 1 << 31, 1_000_000_000_000, 1_000_000_000_001} {
			tried++
			if strings.HasSuffix(row.Name, "_epochs") || row.Name == "space.NAME.steps" {
				if row.Type.Fits(v) { // what the rest of the spec allows is another question
					continue
				}
			}
			_, err := sweep.Parse("s.yaml", text(t, sample(t, row, v)))
			if row.Name == "parallelism" && v > 1 && row.Type.Fits(v) && err == nil {
				continue
			}
			if fits := row.Type.Fits(v); fits != (err == nil) {
				t.Errorf("%s %d: the table takes it %v, the parser: %v", row.Name, v, fits, err)
			}
		}
	}
	if tried < 100 {
		t.Errorf("%d values", tried)
	}
}

// A rule that belongs to a search method is nobody's to give.
func TestSegmentIsNobodysRule(t *testing.T) {
	_, err := sweep.Parse("s.yaml", []byte(fmt.Sprintf("search_method: random\nobjective: {metric: m, direction: minimize}\nbudget: {trials: 3}\nspace: {a: {type: int, low: 1, high: 5}}\nstopping: {rule: %s, interval: 3, max_epochs: 9}\n", "segment")))
	if err == nil || !strings.Contains(err.Error(), "s.yaml:5: stopping.rule: segment is the rule of search_method pbt") {
		t.Error(err)
	}
}
