package spec_test

import (
	"reflect"
	"testing"

	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
)

// Half of a spec's fields have a form of their own in the document, mapped by hand in
// both directions: one that is forgotten there fails here.
func TestDocumentKeepsEveryField(t *testing.T) {
	loss, ms := trial.Objective{Metric: "loss"}, trial.Objective{Metric: "ms", Maximize: true}
	full := &spec.Spec{Name: "n", SearchMethod: "bayesian", Algorithm: "gp", Trainer: "sim", Seed: 1 << 60, Parallelism: 2, MaxRetries: 3,
		Budget: spec.Budget{Trials: 4, Epochs: 5, TimeMS: 6}, WarmStart: "s-1", CheckpointBytes: 7, Priority: 8, Requires: []spec.Label{{Key: "k", Value: "v"}},
		Population: &spec.Population{Interval: 9, Epochs: 10, Share: 0.25, Perturb: 0.5}, Objective: ms, Objectives: []trial.Objective{ms, loss},
		Members: spec.Members{Min: 15, Max: 16}, Shards: 17,
		Constraints:  []trial.Constraint{{Metric: "mb", HasMax: true, HasMin: true, Max: 11, Min: -12}},
		TrainingJSON: `{"epochs":13}`, StoppingJSON: `{"rule":"median"}`, Enqueue: []string{`{"x":14}`},
		Space: space.Space{Params: []space.Parameter{
			{Name: "a", Kind: space.KindFloat, Low: 0.5, High: 1.5, Log: true, Step: 0.25, Values: []space.Value{space.Float(0.5), space.Float(1)}},
			{Name: "b", Kind: space.KindCategorical, Choices: []space.Value{space.Int(1), space.Float(2), space.Bool(true), space.String("x")},
				When: []space.Condition{{Parent: "a", Any: []space.Value{space.String("y")}}}},
		}}}
	seen := map[string]bool{}
	filled(reflect.ValueOf(full).Elem(), seen)
	for name, is := range seen {
		if !is && name != "Spec.SeedSet" { // of what a person wrote
			t.Errorf("%s has no value: the test cannot tell whether a document keeps it", name)
		}
	}
	back, err := spec.Decode(spec.Encode(full))
	if err != nil || !reflect.DeepEqual(back, full) {
		t.Errorf("written and read again: %v\n%+v\n%+v", err, back, full)
	}
}

// filled names the exported fields below v, and whether they have a value anywhere.
func filled(v reflect.Value, seen map[string]bool) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				name := v.Type().Name() + "." + f.Name
				seen[name] = seen[name] || !v.Field(i).IsZero()
				filled(v.Field(i), seen)
			}
		}
	case reflect.Pointer:
		filled(v.Elem(), seen)
	case reflect.Slice:
		for i := range v.Len() {
			filled(v.Index(i), seen)
		}
	}
}
