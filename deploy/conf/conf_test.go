// Package conf holds example sweep specs and the configuration of trainings
// for people; its tests hold them to what the programs take.
package conf

import (
	"os"
	"path/filepath"
	"testing"

	"atelier/tuner/sweep"
)

func TestExamplesParse(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	names := map[string]string{}
	for _, f := range files {
		if f == "training_config.yaml" || f == "tuning_config.yaml" || f == "inference.yaml" {
			continue // no sweep
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sweep.ParseToRun(f, text)
		if err != nil {
			t.Error(err)
			continue
		}
		if other := names[s.Name]; other != "" || s.Name == "" {
			t.Errorf("%s and %s have the same name %q", f, other, s.Name)
		}
		names[s.Name] = f
		if !s.SeedSet {
			t.Errorf("%s has no seed: an example should give the same trials each time", f)
		}
	}
}
