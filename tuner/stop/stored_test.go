package stop_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"atelier/tuner/stop"
)

// What stands in testdata/stored.json is what logs hold and how it is read. Lines are
// added; none may change. One that says `checked: false` was taken by checks that have
// become stricter since, or might have been.
func TestEveryStoredRuleIsReadForEver(t *testing.T) {
	text, err := os.ReadFile("testdata/stored.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Stored  json.RawMessage
		Read    json.RawMessage
		Checked *bool
	}
	if err := json.Unmarshal(text, &list); err != nil || len(list) < 16 {
		t.Fatalf("%d stored rules: %v", len(list), err)
	}
	stored := map[string]bool{}
	for _, x := range list {
		got, err := stop.Read(string(x.Stored))
		if err != nil {
			t.Errorf("%s: %v", x.Stored, err)
			continue
		}
		stored[string(x.Stored)] = true
		var want stop.Settings
		dec := json.NewDecoder(bytes.NewReader(x.Read))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil || got != want {
			t.Errorf("%s is read as %+v, not %s: %v", x.Stored, got, x.Read, err)
		}
		parsed, err := stop.Parse(x.Stored)
		switch checked := x.Checked == nil || *x.Checked; {
		case checked && (err != nil || parsed != got):
			t.Errorf("%s: who submits it today gets %+v, %v; if it is refused on purpose, say `\"checked\": false`", x.Stored, parsed, err)
		case !checked && err == nil:
			t.Errorf("%s shows nothing: it can be submitted today", x.Stored)
		}
		rule := got.NewState(stop.Problem{Metric: "loss"})
		for n := int64(1); n <= 3; n++ {
			rule.Put(curveOf(n, float64(n), 3, 2, 1))
			rule.Decide(1)
			got.End(n, 0, 0)
		}
	}
	for _, text := range every {
		if canonical := settings(t, text).JSON(); !stored[canonical] && !strings.Contains(canonical, "none") {
			t.Errorf("testdata/stored.json lacks %s", canonical)
		}
	}
}

// What would make a rule run without end, or is of a program to come, is no rule.
func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``: "stopping: ", `[]`: "stopping: ", `{}`: `stopping.rule: "" is not known: a newer program wrote it`,
		`{"rule":"oracle"}`: `"oracle" is not known: a newer program wrote it`, `{"rule":"median","luck":3}`: `key "luck" is not known: a newer program wrote it`,
		`{"rule":"asha","max_epochs":"27"}`:                  "max_epochs",
		`{"rule":"asha","min_epochs":-1,"max_epochs":9}`:     "no rungs from epoch -1 on",
		`{"rule":"hyperband","max_epochs":9,"reduction":1}`:  "one in 1 of each",
		`{"rule":"hyperband","min_epochs":0,"max_epochs":9}`: "no rungs from epoch 0 on",
		`{"rule":"segment","max_epochs":9,"interval":0}`:     "segments of 0 epochs",
	} {
		if s, err := stop.Read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %q", text, s, err, want)
		}
	}
}
